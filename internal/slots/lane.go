package slots

// Root stands for one root session, between which [Caps.Fair] shares the slots of
// a pool. Only its address counts.
type Root struct{ _ byte }

// lane is the part of a pool's line that one cap holds for, or none. All who
// stand in it are blocked together.
type lane struct {
	pool   *pool
	cap    *gauge // of the agent; capped.rest for none
	lines  heap[*rootLine]
	byRoot map[*Root]*rootLine
	place        // of the first line
	filed  *gate // one of the two that it has; nil while nobody waits or it is stuck
	at     int   // in lanes of filed, if that is of a cap
	inAll  int   // index in capped.busy
	passed int   // slots of its pool that went to who is behind it, since somebody of it was served
	kept   bool  // a slot of its pool is kept for it
	moved  bool  // turned away from one gate since it was filed
	stuck  bool  // turned away from both
}

// gates returns what l has to get through.
func (l *lane) gates() (pool, cap *gate) { return &l.pool.capped.gate, &l.cap.gate }

// shut returns the gate that has no room for l, if there is one.
func (l *lane) shut() *gate {
	switch pool, cap := l.gates(); {
	case !l.kept && !pool.hasRoom():
		return pool
	case !cap.hasRoom():
		return cap
	}
	return nil
}

// rootLine is the part of a lane that one root stands in. Without Fair there is one.
type rootLine struct {
	list
	lane  *lane
	turn  *turn
	place        // of the first; may be that of before its root was last served
	at    int    // index in lane.lines
	in    [2]int // indexes in the parts of its turn
}

// isStale reports whether the root of x has been served since its place was noted.
func (x *rootLine) isStale() bool { return x.place != x.turn.place(x.first.order) }

// turn is what is known of a root that waits in a pool. Without Fair all are one root.
type turn struct {
	root   *Root
	served uint64  // ticket drawn when it was last granted a slot of the pool
	all    int     // lines in the lanes of the pool
	parts  [2]part // those among its lines that can be the head, and those filed with the pool
}

// part is some of the lines of a turn.
type part struct {
	turn  *turn
	lines heap[*rootLine] // by the order of their first
	at    int             // index in cappedPool.parts
	in    bool            // it is there
}

// The parts of a turn, and of what stands in a pool.
const (
	heads = iota // in lanes for which no slot is kept
	filed        // in lanes filed at the pool's gate
)

// place returns the place of one with that order.
func (t *turn) place(order uint64) place {
	if t == nil {
		return place{order, order}
	}
	return place{order&notHead | max(order&^notHead, t.served), order}
}

// first returns the place of the first of its lines.
func (s *part) first() place { return s.turn.place(s.lines.items[0].order) }

// place is where somebody stands among all who wait.
type place struct {
	key   uint64 // by which turns are given: see refresh
	order uint64 // decides between those of one root, which have one key
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

// each calls f for every part of its turn that x is in.
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

// refresh is called when the first of x may be another one, or its root has been
// served. The key of a line is the order of its first. With Fair the root has its
// next turn as if it had come when it was last served: whoever has waited longest
// for a turn goes first, so that each root has one in a round. x is forgotten when
// it is empty.
func (x *rootLine) refresh() {
	l := x.lane
	if x.first == nil {
		l.lines.remove(x)
		l.each(x, (*cappedPool).drop)
		delete(l.byRoot, x.turn.root)
		if x.turn.all--; x.turn.all == 0 { // who comes next has a later ticket than served
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

// keep keeps a slot for l, or lets it go.
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

// all calls f for that part of every line.
func (l *lane) all(i int, f func(*cappedPool, int, *rootLine)) {
	for _, x := range l.lines.items {
		f(l.pool.capped, i, x)
	}
}

// cappedPool is what a pool has while the rules have caps. Its own list is empty.
type cappedPool struct {
	gate
	kept  int // slots kept for lanes
	busy  int // lanes where somebody waits
	byCap map[*gauge]*lane
	turns map[*Root]*turn
	parts [2]heap[*part] // those that have lines, by the first
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

// turn returns the turn of a root.
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

// sort puts that part of t where it belongs.
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

// first returns the first line of that part, and its place.
func (p *cappedPool) first(i int) (x *rootLine, at place) {
	s, ok := p.parts[i].first()
	if !ok {
		return nil, place{}
	}
	return s.lines.items[0], s.first()
}
