package slots

// Root stands for a root session. The address of the Root identifies the session. With
// [Caps.Fair], the root sessions share the slots of a pool.
type Root struct{ _ byte }

// lane holds the waiters of one pool that have the same cap, or that have no cap. The
// same limits block all waiters in a lane.
type lane struct {
	pool   *pool
	cap    *gauge // cap of the agent; capped.rest if the agent has no cap
	lines  heap[*rootLine]
	byRoot map[*Root]*rootLine
	place        // place of the first line
	filed  *gate // gate at which the lane is filed; nil if the lane is empty or stuck
	at     int   // index in filed.lanes, if the lane is filed at the gate of a cap
	inAll  int   // index in capped.busy
	passed int   // number of times that the lane was passed over since its last grant
	kept   bool  // whether a slot of the pool is kept for the lane
	moved  bool  // whether one gate has rejected the lane; reset when the lane is empty or no longer stuck
	stuck  bool  // whether both gates have rejected the lane
}

// gates returns the two gates that must be open for a grant to l.
func (l *lane) gates() (pool, cap *gate) { return &l.pool.capped.gate, &l.cap.gate }

// shut returns a gate that has no room for l, or nil if both gates have room.
func (l *lane) shut() *gate {
	switch pool, cap := l.gates(); {
	case !l.kept && !pool.hasRoom():
		return pool
	case !cap.hasRoom():
		return cap
	}
	return nil
}

// rootLine is the line of one root in a lane. Without Fair, a lane has one rootLine for
// all roots.
type rootLine struct {
	list
	lane  *lane
	turn  *turn
	place        // place of the first waiter; out of date if the root has been served since the last call to refresh
	at    int    // index in lane.lines
	in    [2]int // indexes in turn.parts[i].lines
}

// isStale reports whether the root of x has been served since the place of x was updated.
func (x *rootLine) isStale() bool { return x.place != x.turn.place(x.first.order) }

// turn is the state of one root that has waiters in a pool. Without Fair, all waiters
// count as one root.
type turn struct {
	root   *Root
	served uint64  // ticket that was issued when the root was last granted a slot of the pool
	all    int     // number of the root's lines in the lanes of the pool
	parts  [2]part // the root's lines that can be the head, and its lines filed at the pool's gate
}

// part is a subset of the lines of a turn; see the constants heads and filed.
type part struct {
	turn  *turn
	lines heap[*rootLine] // sorted by the order of their first waiters
	at    int             // index in cappedPool.parts[i]
	in    bool            // whether the part is in cappedPool.parts[i]
}

// The indexes of turn.parts and cappedPool.parts.
const (
	heads = iota // lines in lanes for which no slot is kept
	filed        // lines in lanes filed at the pool's gate
)

// place returns the place of a waiter that has the given order and belongs to the root
// of t. A nil t stands for a root that has no waiters in the pool.
func (t *turn) place(order uint64) place {
	if t == nil {
		return place{order, order}
	}
	return place{order&notHead | max(order&^notHead, t.served), order}
}

// first returns the place of the first line in s.
func (s *part) first() place { return s.turn.place(s.lines.items[0].order) }

// place is the rank of a waiter among all waiters. Places are compared by key first.
type place struct {
	key   uint64 // rank of the root's turn; see refresh
	order uint64 // rank among waiters with the same key, which belong to one root
}

func (p place) isBefore(o place) bool {
	return p.key < o.key || p.key == o.key && p.order < o.order
}

func newLaneHeap() heap[*lane] {
	return heap[*lane]{
		before: func(a, b *lane) bool { return a.isBefore(b.place) },
		at:     func(l *lane) *int { return &l.at },
	}
}

func newLane(p *pool, g *gauge) *lane {
	return &lane{
		pool: p, cap: g, byRoot: make(map[*Root]*rootLine),
		lines: heap[*rootLine]{
			before: func(a, b *rootLine) bool { return a.isBefore(b.place) },
			at:     func(l *rootLine) *int { return &l.at },
		},
	}
}

func (l *lane) isEmpty() bool { return len(l.lines.items) == 0 }

// insert puts w into the line of its root.
func (l *lane) insert(w *Waiter, root *Root) {
	x := l.byRoot[root]
	if x != nil {
		x.insert(w)
		x.refresh()
		return
	}
	x = &rootLine{lane: l, turn: l.pool.capped.turn(root)}
	x.insert(w)
	x.turn.all++
	l.byRoot[root] = x
	x.place = x.turn.place(w.order)
	l.lines.push(x)
	l.place = l.lines.items[0].place
	l.each(x, (*cappedPool).add)
}

// The method "each" calls f for every part of the turn that must contain x.
func (l *lane) each(x *rootLine, f func(*cappedPool, int, *rootLine)) {
	p := l.pool.capped
	if !l.kept {
		f(p, heads, x)
	}
	if l.filed == &p.gate {
		f(p, filed, x)
	}
}

// remove takes w out of the line of its root.
func (l *lane) remove(w *Waiter, root *Root) {
	x := l.byRoot[root]
	x.remove(w)
	x.refresh()
}

// refresh updates the place of x. It must be called when the first waiter of x may have changed or when the
// root of x has been served. The key of a line is the order of its first waiter. With Fair, the key is never
// earlier than the time when the root was last served. As a result, the root that has waited longest for a
// turn is first, and each root gets one turn per round. If x is empty, the method "refresh" removes it from
// its lane.
func (x *rootLine) refresh() {
	l := x.lane
	if x.first == nil {
		l.lines.remove(x)
		l.each(x, (*cappedPool).drop)
		delete(l.byRoot, x.turn.root)
		if x.turn.all--; x.turn.all == 0 { // the field "served" is no longer needed, because later tickets are greater
			delete(l.pool.capped.turns, x.turn.root)
		}
	} else {
		was := x.order
		x.place = x.turn.place(x.first.order)
		l.lines.fix(x)
		if x.order != was {
			l.each(x, (*cappedPool).fix)
		}
	}
	if first, ok := l.lines.first(); ok {
		l.place = first.place
	}
}

// The method "keep" sets whether a slot of the pool is kept for l.
func (l *lane) keep(on bool) {
	p := l.pool.capped
	switch l.kept = on; on {
	case true:
		p.kept++
		l.all(heads, (*cappedPool).drop)
	case false:
		p.kept--
		l.all(heads, (*cappedPool).add)
	}
}

// The method "all" calls f for every line in l, with i as the index of the part.
func (l *lane) all(i int, f func(*cappedPool, int, *rootLine)) {
	for _, x := range l.lines.items {
		f(l.pool.capped, i, x)
	}
}

// cappedPool holds the additional state of a pool while the rules have caps. During that time,
// the waiters are in lanes, and pool.list is empty.
type cappedPool struct {
	gate
	kept  int // number of slots kept for lanes
	busy  int // number of lanes with waiters
	byCap map[*gauge]*lane
	turns map[*Root]*turn
	parts [2]heap[*part] // parts that have lines, sorted by the place of their first line
}

func newCappedPool(p *pool) *cappedPool {
	x := &cappedPool{gate: gate{pool: p, id: -1}, byCap: make(map[*gauge]*lane), turns: make(map[*Root]*turn)}
	for i := range x.parts {
		x.parts[i] = heap[*part]{
			before: func(a, b *part) bool { return a.first().isBefore(b.first()) },
			at:     func(s *part) *int { return &s.at },
		}
	}
	return x
}

// The method "turn" returns the turn of a root, and creates it if the root has none.
func (p *cappedPool) turn(root *Root) *turn {
	t := p.turns[root]
	if t == nil {
		t = &turn{root: root}
		for i := range t.parts {
			t.parts[i] = part{turn: t, lines: heap[*rootLine]{
				before: func(a, b *rootLine) bool { return a.order < b.order },
				at:     func(x *rootLine) *int { return &x.in[i] },
			}}
		}
		p.turns[root] = t
	}
	return t
}

func (p *cappedPool) add(i int, x *rootLine) {
	x.turn.parts[i].lines.push(x)
	p.sort(i, x.turn)
}

func (p *cappedPool) drop(i int, x *rootLine) {
	x.turn.parts[i].lines.remove(x)
	p.sort(i, x.turn)
}

func (p *cappedPool) fix(i int, x *rootLine) {
	x.turn.parts[i].lines.fix(x)
	p.sort(i, x.turn)
}

// sort updates the position of part i of t in the heap p.parts[i].
func (p *cappedPool) sort(i int, t *turn) {
	s := &t.parts[i]
	some := len(s.lines.items) > 0
	switch {
	case some && s.in:
		p.parts[i].fix(s)
	case some:
		p.parts[i].push(s)
	case s.in:
		p.parts[i].remove(s)
	}
	s.in = some
}

// first returns the first of the lines in all parts with the index i, and the place of that
// line.
func (p *cappedPool) first(i int) (x *rootLine, at place) {
	s, ok := p.parts[i].first()
	if !ok {
		return nil, place{}
	}
	return s.lines.items[0], s.first()
}
