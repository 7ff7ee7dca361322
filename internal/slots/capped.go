package slots

import (
	"math"
	"slices"
)

// Caps are limits beside those of the pools. The zero value is none.
type Caps struct {
	Total int            // slots out over all pools; 0 or Unlimited for no cap
	Agent map[string]int // slots out by agent, under normal names; Unlimited for no cap. It is not changed
	Fair  bool           // the slots of a pool go from root to root, not by arrival
}

func (c *Caps) on() bool {
	if c.Total > 0 || c.Fair {
		return true
	}
	for _, n := range c.Agent {
		if n > 0 {
			return true
		}
	}
	return false
}

// MaxPassed is how often a head of line that a cap holds up is passed over before
// a slot of its pool is kept for it.
const MaxPassed = 100

// gauge counts slots and waiters against one cap.
type gauge struct {
	name    string
	limit   int
	inUse   int
	waiting int
	lanes   heap[*lane] // filed here
}

func newGauge(name string, limit int) *gauge {
	return &gauge{name: name, limit: limit, lanes: newLaneHeap()}
}

func (g *gauge) isFull() bool     { return g.inUse >= g.limit }
func (g *gauge) figures() Figures { return Figures{g.name, g.limit, g.inUse, g.waiting} }

// capped is what a [Manager] has beside its pools while its rules have caps.
type capped struct {
	m      *Manager
	fair   bool
	total  *gauge // a limit of math.MaxInt for none
	agents map[string]*gauge
	busy   []*lane // those where somebody waits
}

// cappedPool is what a pool has while the rules have caps. Its own list is empty.
type cappedPool struct {
	kept   int // slots kept for lanes
	blocks heap[*lane]
	lanes  heap[*lane] // all of its lanes where somebody waits
	byCap  map[*gauge]*lane
	turns  map[*Root]*turn
}

func newCapped(m *Manager, c Caps) *capped {
	x := &capped{m: m, fair: c.Fair, total: newGauge("total", math.MaxInt), agents: make(map[string]*gauge)}
	if c.Total > 0 {
		x.total.limit = c.Total
	}
	for agent, n := range c.Agent {
		if n > 0 {
			x.agents[agent] = newGauge("cap "+agent, n)
		}
	}
	return x
}

// lane returns the lane of a key, once its pool is known.
func (c *capped) lane(k *key) *lane {
	p := k.pool
	if p.capped == nil {
		p.capped = &cappedPool{
			blocks: newLaneHeap(), byCap: make(map[*gauge]*lane), turns: make(map[*Root]*turn),
			lanes: heap[*lane]{before: byKept, at: func(l *lane) *int { return &l.inPool }},
		}
	}
	g := c.agents[k.agent]
	l := p.capped.byCap[g]
	if l == nil {
		l = newLane(p, g)
		p.capped.byCap[g] = l
	}
	return l
}

// count adds to the slots that are out.
func (c *capped) count(k *key, n int) {
	c.total.inUse += n
	if g := k.lane.cap; g != nil {
		g.inUse += n
	}
}

func (c *capped) countWaiting(k *key, n int) {
	k.waiting += n
	k.pool.waiting += n
	c.total.waiting += n
	if g := k.lane.cap; g != nil {
		g.waiting += n
	}
}

// hasRoomBesideKept reports whether the pool has a slot that is neither out nor kept.
func (p *pool) hasRoomBesideKept() bool {
	return p.limit == Unlimited || p.inUse+p.capped.kept < p.limit
}

// blocker returns where to file a lane of which nobody can start now: with the
// pool or the cap that has no room for it. It is nil when the first can start.
func (c *capped) blocker(l *lane) *heap[*lane] {
	switch {
	case !l.kept && !l.pool.hasRoomBesideKept():
		return &l.pool.capped.blocks
	case l.cap != nil && l.cap.isFull():
		return &l.cap.lanes
	case c.total.isFull():
		return &c.total.lanes
	}
	return nil
}

// file puts l where it belongs.
func (c *capped) file(l *lane) {
	to := c.blocker(l)
	if to == l.filed {
		return
	}
	if l.filed != nil {
		l.filed.remove(l)
	}
	if l.filed = to; to != nil {
		to.push(l)
	}
}

// take gives w a slot, or puts it into its line.
func (c *capped) take(w *Waiter, k *key, head bool, ticket uint64) (granted bool) {
	order := ticket
	if !head {
		order |= notHead
	}
	if c.tryTake(w, k, order) {
		return true
	}
	w.key, w.order = k, order
	c.insert(w)
	c.file(k.lane)
	return false
}

// tryTake gives w a slot if it can have one at once. Nobody waits who could start.
func (c *capped) tryTake(w *Waiter, k *key, order uint64) bool {
	if l := k.lane; !l.isEmpty() || c.blocker(l) != nil {
		return false
	}
	c.passOver(k.lane, k.pool.capped.turns[w.Root].place(order))
	grant(w, k)
	c.count(k, 1)
	if c.fair {
		c.served(k.pool, w.Root)
	}
	c.keep(k.pool)
	return true
}

// tryCapped is the part of [Manager.try] that needs to look at caps.
func (m *Manager) tryCapped(k *key) (Slot, bool) {
	if m.capped == nil {
		return Slot{}, false
	}
	r := m.record()
	if !m.capped.tryTake(&r.Waiter, k, notHead|m.Ticket()) {
		m.recycle(r)
		return Slot{}, false
	}
	return Slot{r, r.gen}, true
}

// insert puts w into its line. The caller files the lane.
func (c *capped) insert(w *Waiter) {
	l := w.key.lane
	c.countWaiting(w.key, 1)
	was := l.isEmpty()
	x := l.line(w.Root, c.fair)
	x.insert(w)
	x.refresh()
	if was {
		l.inAll = len(c.busy)
		c.busy = append(c.busy, l)
		l.pool.capped.lanes.push(l)
		return
	}
	c.moved(l)
}

// remove takes w out of its line.
func (c *capped) remove(w *Waiter) {
	l := w.key.lane
	c.countWaiting(w.key, -1)
	x := l.line(w.Root, c.fair)
	x.remove(w)
	x.refresh()
	c.moved(l)
}

// moved is called when the key of l may have changed, or nobody waits there any
// more.
func (c *capped) moved(l *lane) {
	if !l.isEmpty() {
		l.pool.capped.lanes.fix(l)
		if l.filed != nil {
			l.filed.fix(l)
		}
		return
	}
	l.pool.capped.lanes.remove(l)
	if l.filed != nil {
		l.filed.remove(l)
		l.filed = nil
	}
	c.unkeep(l)
	last := len(c.busy) - 1
	c.busy[l.inAll] = c.busy[last]
	c.busy[l.inAll].inAll = l.inAll
	c.busy[last] = nil
	c.busy = c.busy[:last]
}

// unkeep forgets how often l was passed over.
func (c *capped) unkeep(l *lane) {
	l.passed = 0
	if l.kept {
		l.kept = false
		l.pool.capped.kept--
	}
}

// served notes that a root has had a slot of the pool.
func (c *capped) served(p *pool, root *Root) {
	t := p.capped.turns[root]
	if t == nil {
		return
	}
	t.served = c.m.Ticket()
}

// first returns the first lane of a heap. A root that was served has its next turn
// later: its lines move back when they come to the front, not before.
func (c *capped) first(h *heap[*lane]) (*lane, bool) {
	for {
		l, ok := h.first()
		if !ok || !c.fair {
			return l, ok
		}
		x, _ := l.lines.first()
		if x.place == x.turn.place(x.first.order) {
			return l, true
		}
		x.refresh()
		c.moved(l)
	}
}

// grantFirst takes the first of l out of its line and counts a slot for it. The
// caller sets its order to 0.
func (c *capped) grantFirst(l *lane) *Waiter {
	x, _ := l.lines.first()
	w := x.first
	c.unkeep(l)
	l.pool.capped.lanes.fix(l)
	c.passOver(l, x.place)
	if c.fair {
		c.served(l.pool, w.Root)
	}
	c.remove(w)
	grant(w, w.key)
	c.count(w.key, 1)
	c.keep(l.pool)
	return w
}

// passOver is called when a slot goes to one of l who stands there: the head of the
// pool's line is passed over if it stands before.
func (c *capped) passOver(l *lane, at place) {
	if head, ok := c.first(&l.pool.capped.lanes); ok && head != l && !head.kept && head.isBefore(at) {
		head.passed++
	}
}

// keep keeps a slot that is free for a head of line that has been passed over too
// often and still cannot start.
func (c *capped) keep(p *pool) {
	for p.hasRoomBesideKept() {
		l, ok := c.first(&p.capped.lanes)
		if !ok || l.kept || l.passed < MaxPassed || c.blocker(l) == nil {
			return
		}
		l.kept = true
		p.capped.kept++
		p.capped.lanes.fix(l)
		c.file(l)
	}
}

// freed grants what can be granted now that somebody of k has left.
func (c *capped) freed(k *key) (granted []*Waiter) {
	p := k.pool
	c.keep(p)
	room := [3]*heap[*lane]{&p.capped.blocks, &c.total.lanes}
	n := 2
	if g := k.lane.cap; g != nil {
		room[2], n = &g.lanes, 3
	}
	granted = c.settle(room[:n], nil)
	c.keep(p)
	for _, w := range granted {
		w.order = 0
	}
	return granted
}

// settle grants slots to those who are filed where there may be room, as long as
// there is any. Those whom something else blocks are filed there.
func (c *capped) settle(room []*heap[*lane], granted []*Waiter) []*Waiter {
	for {
		var best *lane
		for _, h := range room {
			if l := c.candidate(h); l != nil && (best == nil || l.isBefore(best.place)) {
				best = l
			}
		}
		if best == nil {
			return granted
		}
		granted = append(granted, c.grantFirst(best))
	}
}

// candidate returns the first of those filed in h that can start.
func (c *capped) candidate(h *heap[*lane]) *lane {
	for {
		l, ok := c.first(h)
		if !ok {
			return nil
		}
		switch c.blocker(l) {
		case nil:
			return l
		case h:
			return nil
		}
		c.file(l)
	}
}

// shown returns the figures of what keeps w waiting, and whether a lane counts
// there.
func (c *capped) shown(w *Waiter) (f Figures, counts func(*lane) bool) {
	l := w.key.lane
	switch b := c.blocker(l); {
	case l.cap != nil && b == &l.cap.lanes:
		return l.cap.figures(), func(o *lane) bool { return o.cap == l.cap }
	case b == &c.total.lanes:
		return c.total.figures(), func(*lane) bool { return true }
	}
	return l.pool.figures(), func(o *lane) bool { return o.pool == l.pool }
}

// place returns the place of w among those that wait for the same, with Fair
// among those of its root, and the figures of what that is.
func (c *capped) place(w *Waiter) (place int, f Figures) {
	f, counts := c.shown(w)
	place = 1
	for _, l := range c.busy {
		if !counts(l) {
			continue
		}
		for root, x := range l.byRoot {
			if c.fair && root != w.Root {
				continue
			}
			for o := x.first; o != nil && o.order < w.order; o = o.next {
				if place++; place > MaxPlace {
					return 0, f
				}
			}
		}
	}
	return place, f
}

// figures appends those of the caps in use.
func (c *capped) figures(to []Figures) []Figures {
	if c.total.limit != math.MaxInt && c.total.inUse+c.total.waiting > 0 {
		to = append(to, c.total.figures())
	}
	for _, g := range c.agents {
		if g.inUse+g.waiting > 0 {
			to = append(to, g.figures())
		}
	}
	return to
}

// leaveAll takes everybody out of the lines, which are not used any more.
func (c *capped) leaveAll() (waiting []*Waiter) {
	for _, l := range c.busy {
		for _, x := range l.byRoot {
			waiting = x.takeAll(waiting)
		}
	}
	for _, w := range waiting {
		c.countWaiting(w.key, -1)
	}
	return waiting
}

// regrant puts the waiters into the lines of the new rules, longest waiting first,
// and grants what can be granted.
func (c *capped) regrant(waiting []*Waiter) (granted []*Waiter) {
	for _, w := range waiting {
		c.insert(w)
	}
	all := newLaneHeap()
	for _, l := range slices.Clone(c.busy) {
		l.filed = &all
		all.push(l)
	}
	return c.settle([]*heap[*lane]{&all}, nil)
}
