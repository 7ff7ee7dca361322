package slots

import "math"

// Caps are limits that apply in addition to the limits of the pools. The zero value sets no cap.
type Caps struct {
	Total int            // maximum number of held slots in all pools; 0 or Unlimited means no cap
	Agent map[string]int // maximum number of held slots, by agent name in normal form; Unlimited means no cap; the map is never modified
	Fair  bool           // whether roots take turns for the slots of a pool; otherwise, slots are granted in order of arrival
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

// MaxPassed limits how often the head of a pool's line can be passed over while it waits for
// its cap. After that, a slot of the pool is kept for the head.
const MaxPassed = 100

// gauge counts the held slots and the waiters of one cap.
type gauge struct {
	gate
	name    string
	limit   int // math.MaxInt if there is no cap
	inUse   int
	waiting int
}

func newGauge(name string, limit int) *gauge {
	g := &gauge{name: name, limit: limit}
	g.gate = gate{cap: g, lanes: newLaneHeap()}
	return g
}

func (g *gauge) isFull() bool { return g.inUse >= g.limit }
func (g *gauge) isCap() bool  { return g.limit != math.MaxInt }
func (g *gauge) figures() Figures {
	return Figures{Name: g.name, Limit: g.limit, InUse: g.inUse, Waiting: g.waiting}
}

// capped holds the additional state of a [Manager] whose rules have caps.
type capped struct {
	m         *Manager
	fair      bool
	total     *gauge
	agents    map[string]*gauge
	rest      *gauge // counts the slots and waiters of the agents that have no cap
	poolGates gates
	capGates  gates
	ready     heap[*gate] // gates that are ready, sorted by the first place at each gate
	busy      []*lane     // lanes with waiters
}

func newCapped(m *Manager, c Caps) *capped {
	x := &capped{
		m: m, fair: c.Fair, total: newGauge("total", math.MaxInt), rest: newGauge("", math.MaxInt),
		agents: make(map[string]*gauge, len(c.Agent)),
		ready: heap[*gate]{
			before: func(a, b *gate) bool { return a.isBefore(b.place) },
			at:     func(g *gate) *int { return &g.at },
		},
	}
	if c.Total > 0 {
		x.total.limit = c.Total
	}
	x.enroll(&x.rest.gate)
	for agent, n := range c.Agent {
		if n > 0 {
			x.agents[agent] = newGauge("cap "+agent, n)
			x.enroll(&x.agents[agent].gate)
		}
	}
	return x
}

// capOf returns the cap of an agent, or c.rest if the agent has no cap.
func (c *capped) capOf(agent string) *gauge {
	if g := c.agents[agent]; g != nil {
		return g
	}
	return c.rest
}

// root returns the root of w, or nil if roots do not take turns.
func (c *capped) root(w *Waiter) *Root {
	if c.fair {
		return w.Root
	}
	return nil
}

// lane returns the lane of k. The field k.pool must be set.
func (c *capped) lane(k *key) *lane {
	p := k.pool
	if p.capped == nil {
		p.capped = newCappedPool(p)
	}
	g := c.capOf(k.agent)
	l := p.capped.byCap[g]
	if l == nil {
		l = newLane(p, g)
		p.capped.byCap[g] = l
	}
	return l
}

// The method "count" adds n to the number of held slots in the caps that apply to k.
func (c *capped) count(k *key, n int) {
	c.total.inUse += n
	g := k.lane.cap
	g.inUse += n
	c.turned(&g.gate)
}

func (c *capped) countWaiting(k *key, n int) {
	k.waiting += n
	k.pool.waiting += n
	c.total.waiting += n
	k.lane.cap.waiting += n
}

// hasRoomBesideKept reports whether the pool can grant a slot that is neither held nor kept.
func (p *pool) hasRoomBesideKept() bool {
	return (p.limit == Unlimited || p.inUse+p.capped.kept < p.limit) && (p.cool == nil || !p.cool.isFull())
}

// canStart reports whether all limits allow a grant to the first waiter of l.
func (c *capped) canStart(l *lane) bool { return !c.total.isFull() && l.shut() == nil }

// The method "take" grants w a slot or puts w into its line.
func (c *capped) take(w *Waiter, k *key, head bool, ticket uint64) (granted bool) {
	order := orderOf(head, ticket)
	if c.tryTake(w, k, order) {
		return true
	}
	w.key, w.order = k, order
	c.insert(w)
	return false
}

// tryTake grants w a slot if its lane is empty and all limits allow the grant. No other waiter has a better
// claim to that slot, because every waiter that could start has a slot.
func (c *capped) tryTake(w *Waiter, k *key, order uint64) bool {
	if l := k.lane; !l.isEmpty() || !c.canStart(l) {
		return false
	}
	c.passOver(k.lane, k.pool.capped.turns[c.root(w)].place(order))
	grant(w, k)
	c.count(k, 1)
	c.served(k.pool, w)
	c.granted(k.pool)
	return true
}

// tryCapped is the part of [Manager.try] that handles caps.
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

// insert puts w into its line.
func (c *capped) insert(w *Waiter) {
	l := w.key.lane
	c.countWaiting(w.key, 1)
	was := l.isEmpty()
	l.insert(w, c.root(w))
	if !was {
		c.moved(l)
		return
	}
	l.inAll = len(c.busy)
	c.busy = append(c.busy, l)
	pool, _ := l.gates()
	if l.pool.capped.busy++; l.pool.capped.busy == 1 {
		c.enroll(pool)
	}
	if g := l.shut(); g != nil {
		c.file(l, g)
	} else {
		c.file(l, pool)
	}
}

// remove takes w out of its line.
func (c *capped) remove(w *Waiter) {
	l := w.key.lane
	c.countWaiting(w.key, -1)
	l.remove(w, c.root(w))
	c.moved(l)
}

// moved updates the position of l at its gate. If l is empty, moved removes it from the lanes with waiters.
// It must be called when the place of l may have changed or when l may have become empty.
func (c *capped) moved(l *lane) {
	if !l.isEmpty() {
		if g := l.filed; g != nil {
			if g.cap != nil {
				g.lanes.fix(l)
			}
			c.sort(g)
		}
		return
	}
	c.unfile(l)
	l.moved = false
	c.unkeep(l)
	if l.pool.capped.busy--; l.pool.capped.busy == 0 {
		c.dismiss(&l.pool.capped.gate)
	}
	last := len(c.busy) - 1
	c.busy[l.inAll] = c.busy[last]
	c.busy[l.inAll].inAll = l.inAll
	c.busy[last] = nil
	c.busy = c.busy[:last]
}

// unkeep resets the number of times that l was passed over. If a slot is kept for l, the method "unkeep"
// gives it up. The caller must update the gate of the pool.
func (c *capped) unkeep(l *lane) {
	if l.passed = 0; l.kept {
		l.keep(false)
	}
}

// The method "served" must be called when a slot of p has been granted to w. It records when the
// root of w was last granted a slot of p.
func (c *capped) served(p *pool, w *Waiter) {
	if !c.fair {
		return
	}
	if t := p.capped.turns[w.Root]; t != nil {
		t.served = c.m.Ticket()
		p.capped.sort(heads, t)
		p.capped.sort(filed, t)
		c.sort(&p.capped.gate)
	}
}

// grantFirst removes the first waiter from x and grants a slot to that waiter. x must be the
// first line of its lane. The caller must set the order of the returned waiter to 0.
func (c *capped) grantFirst(x *rootLine) *Waiter {
	w, l := x.first, x.lane
	c.unkeep(l)
	c.passOver(l, x.turn.place(w.order))
	c.served(l.pool, w)
	c.remove(w)
	grant(w, w.key)
	c.count(w.key, 1)
	c.granted(l.pool)
	return w
}

// passOver must be called when a waiter of l is granted a slot. The argument "at" is the place
// of that waiter. If the head of the pool's line has an earlier place, passOver records that
// the head has been passed over once more.
func (c *capped) passOver(l *lane, at place) {
	if head, first := l.pool.capped.first(heads); head != nil && head.lane != l && first.isBefore(at) {
		head.lane.passed++
	}
}

// The method "granted" updates the gate of p after a slot of p was granted. If p is cooling down, it
// updates the gates of all pools that are cooling down together. Otherwise, it also keeps free slots; see
// the method "keep".
func (c *capped) granted(p *pool) {
	if p.cool != nil {
		c.turnedAll(p.cool)
		return
	}
	c.keep(p)
}

// The method "keep" must be called when p may have gained or lost room. It keeps free slots of p
// for waiters that are at the head of the line, have been passed over too often, and still cannot
// start.
func (c *capped) keep(p *pool) {
	for p.cool == nil && p.hasRoomBesideKept() {
		x, _ := p.capped.first(heads)
		if x == nil || x.lane.passed < MaxPassed || c.canStart(x.lane) {
			break
		}
		l := x.lane
		l.keep(true)
		c.unfile(l)
		c.file(l, &l.cap.gate)
	}
	c.turned(&p.capped.gate)
}

// The method "freed" must be called after a waiter of k has left or a slot of k has become free. It
// grants all slots that can be granted, and returns the waiters that got them.
func (c *capped) freed(k *key) (granted []*Waiter) {
	c.keep(k.pool)
	granted = c.settle()
	c.keep(k.pool)
	for _, w := range granted {
		w.order = 0
	}
	return granted
}

// The method "settle" grants slots until no waiter can start.
func (c *capped) settle() (granted []*Waiter) {
	for !c.total.isFull() {
		g, ok := c.ready.first()
		if !ok {
			break
		}
		x, _ := g.first()
		if l := x.lane; g.cap != nil && x.isStale() {
			x.refresh()
			c.moved(l)
		} else if shut := l.shut(); shut != nil {
			c.turnAway(l, shut)
		} else {
			granted = append(granted, c.grantFirst(x))
		}
	}
	return granted
}

// The method "shown" returns the figures for the limit that blocks w, and a function that reports
// whether that limit applies to a lane.
func (c *capped) shown(w *Waiter) (f Figures, counts func(*lane) bool) {
	l := w.key.lane
	switch pool, cap := l.gates(); l.shut() {
	case pool:
	case cap:
		return l.cap.figures(), func(o *lane) bool { return o.cap == l.cap }
	default:
		return c.total.figures(), func(*lane) bool { return true }
	}
	return l.pool.figures(), func(o *lane) bool { return o.pool == l.pool }
}

// The method "place" returns the figures of the limit that blocks w, and the place of w among the waiters
// to which this limit applies. With Fair, only waiters with the same root are counted.
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

// The method "figures" appends the figures for all caps with held slots or waiters.
func (c *capped) figures(to []Figures) []Figures {
	if c.total.isCap() && c.total.inUse+c.total.waiting > 0 {
		to = append(to, c.total.figures())
	}
	for _, g := range c.agents {
		if g.inUse+g.waiting > 0 {
			to = append(to, g.figures())
		}
	}
	return to
}

// leaveAll takes all waiters out of the lines and returns them. The lines must not be used after the call.
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

// regrant queues the waiters according to the new rules. The waiters must be sorted by the field
// "order". regrant grants all slots that can be granted, and returns the waiters that got a slot.
func (c *capped) regrant(waiting []*Waiter) (granted []*Waiter) {
	for _, w := range waiting {
		c.insert(w)
	}
	return c.settle()
}
