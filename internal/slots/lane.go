package slots

// Root stands for one root session, between which [Caps.Fair] shares the slots of
// a pool. Only its address counts.
type Root struct{ _ byte }

// lane is the part of a pool's line that one cap holds for, or none. All who
// stand in it are blocked together.
type lane struct {
	pool   *pool
	cap    *gauge // of the agent; nil for none
	lines  heap[*rootLine]
	byRoot map[*Root]*rootLine
	place               // of the first line
	filed  *heap[*lane] // those of the gauge or pool that blocks it; nil while nobody waits
	at     int          // in filed
	inPool int          // index in pool.lanes
	inAll  int          // index in capped.busy
	passed int          // slots of its pool that went to who is behind it, since somebody of it was served
	kept   bool         // a slot of its pool is kept for it
}

// rootLine is the part of a lane that one root stands in. Without Fair there is one.
type rootLine struct {
	list
	lane  *lane
	turn  *turn // nil without Fair
	root  *Root
	place     // of the first
	at    int // index in lane.lines
}

// turn is what Fair knows of a root that waits in a pool.
type turn struct {
	served uint64 // ticket drawn when it was last granted a slot of the pool
	lines  int    // how many it has in the lanes of the pool
}

// place returns the place of one with that order.
func (t *turn) place(order uint64) place {
	if t == nil {
		return place{order, order}
	}
	return place{order&notHead | max(order&^notHead, t.served), order}
}

// byKept puts the lanes with a kept slot behind the others: those at the front
// are the heads of line that can be passed over.
func byKept(a, b *lane) bool {
	if a.kept != b.kept {
		return b.kept
	}
	return a.isBefore(b.place)
}

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

// line returns the line of a root.
func (l *lane) line(root *Root, fair bool) *rootLine {
	if !fair {
		root = nil
	}
	x := l.byRoot[root]
	if x != nil {
		return x
	}
	x = &rootLine{lane: l, root: root}
	if fair {
		turns := l.pool.capped.turns
		if x.turn = turns[root]; x.turn == nil {
			x.turn = &turn{}
			turns[root] = x.turn
		}
		x.turn.lines++
	}
	l.byRoot[root] = x
	return x
}

// refresh is called when the first of x may be another one, or its root has been
// served. The key of a line is the order of its first. With Fair the root has its
// next turn as if it had come when it was last served: whoever has waited longest
// for a turn goes first, so that each root has one in a round. x is forgotten when
// it is empty.
func (x *rootLine) refresh() {
	l := x.lane
	in := x.at < len(l.lines.items) && l.lines.items[x.at] == x
	switch {
	case x.first == nil:
		if in {
			l.lines.remove(x)
		}
		x.drop()
	default:
		x.place = x.turn.place(x.first.order)
		if in {
			l.lines.fix(x)
		} else {
			l.lines.push(x)
		}
	}
	if first, ok := l.lines.first(); ok {
		l.place = first.place
	}
}

func (x *rootLine) drop() {
	delete(x.lane.byRoot, x.root)
	if x.turn == nil {
		return
	}
	if x.turn.lines--; x.turn.lines == 0 { // who comes next has a later ticket than served
		delete(x.lane.pool.capped.turns, x.root)
	}
}

func (l *lane) isEmpty() bool { return len(l.lines.items) == 0 }
