package slots

// gate belongs to a pool or to a cap. It is open while the pool or cap has room.
type gate struct {
	pool  *pool       // owner of the gate; nil for the gate of a cap
	cap   *gauge      // owner of the gate; nil for the gate of a pool
	lanes heap[*lane] // lanes filed at the gate of a cap; the gate of a pool uses cappedPool.parts instead
	place             // place of the first line at the gate; valid while the gate is ready
	at    int         // index in capped.ready
	ready bool        // whether the gate is open and has filed lanes
	open  bool        // whether the gate has room; updated only while the gate has a number
	id    int         // number of the gate among the gates on its side; -1 for the gate of a pool without waiters
	stuck sparse      // numbers of the gates on the other side that share a stuck lane with this gate
}

func (g *gate) hasRoom() bool {
	if g.cap != nil {
		return !g.cap.isFull()
	}
	return g.pool.hasRoomBesideKept()
}

// gates holds the gates of one side. One side has the pools with waiters, and the other
// side has the caps.
type gates struct {
	all  []*gate // gates by number; nil for a free number
	free []int   // free numbers
	open set     // numbers of the open gates
}

// sides returns the gates on the side of g, and the gates on the other side.
func (c *capped) sides(g *gate) (own, across *gates) {
	if g.cap != nil {
		return &c.capGates, &c.poolGates
	}
	return &c.poolGates, &c.capGates
}

// enroll gives g a number on its side.
func (c *capped) enroll(g *gate) {
	own, _ := c.sides(g)
	if n := len(own.free); n > 0 {
		g.id, own.free = own.free[n-1], own.free[:n-1]
		own.all[g.id] = g
	} else {
		g.id = len(own.all)
		own.all = append(own.all, g)
	}
	g.open = false
	c.turned(g)
}

// dismiss makes g's number available to other gates. No lane may be filed at g when dismiss is called.
func (c *capped) dismiss(g *gate) {
	own, _ := c.sides(g)
	own.open.remove(g.id)
	own.all[g.id] = nil
	own.free = append(own.free, g.id)
	g.id = -1
}

// The method "turned" updates the state of g. It must be called when g may have gained or lost
// room.
func (c *capped) turned(g *gate) {
	if g.id < 0 || g.open == g.hasRoom() {
		return
	}
	own, across := c.sides(g)
	if g.open = !g.open; !g.open {
		own.open.remove(g.id)
		c.sort(g)
		return
	}
	own.open.add(g.id)
	for id := range g.stuck.common(across.open) {
		l := c.between(g, across.all[id])
		c.unfile(l)
		c.file(l, g)
	}
	c.sort(g)
}

// The method "between" returns the lane whose gates are g and o.
func (c *capped) between(g, o *gate) *lane {
	if g.cap != nil {
		g, o = o, g
	}
	return g.pool.capped.byCap[o.cap]
}

// first returns the first line filed at g, and the place of that line.
func (g *gate) first() (x *rootLine, at place) {
	if g.cap == nil {
		return g.pool.capped.first(filed)
	}
	l, ok := g.lanes.first()
	if !ok {
		return nil, place{}
	}
	return l.lines.items[0], l.place
}

// sort updates g.ready, and the position of g in c.ready.
func (c *capped) sort(g *gate) {
	first, at := g.first()
	switch was := g.ready; {
	case first == nil || !g.open:
		if g.ready = false; was {
			c.ready.remove(g)
		}
	case was:
		g.place = at
		c.ready.fix(g)
	default:
		g.place, g.ready = at, true
		c.ready.push(g)
	}
}

// The method "file" adds l to the lanes filed at g. The lane l must not be filed elsewhere.
func (c *capped) file(l *lane, g *gate) {
	if l.filed = g; g.cap == nil {
		l.all(filed, (*cappedPool).add)
	} else {
		g.lanes.push(l)
	}
	c.sort(g)
}

// unfile removes l from the lanes filed at its gate. If l is stuck, unfile removes it from both of its gates.
func (c *capped) unfile(l *lane) {
	pool, cap := l.gates()
	switch g := l.filed; {
	case g != nil:
		if l.filed = nil; g == pool {
			l.all(filed, (*cappedPool).drop)
		} else {
			g.lanes.remove(l)
		}
		c.sort(g)
	case l.stuck:
		l.stuck, l.moved = false, false
		pool.stuck.remove(cap.id)
		cap.stuck.remove(pool.id)
	}
}

// turnAway lets an open gate reject l, because the other gate of l has no room. shut is that other
// gate. The first time, l is filed at the other gate. The second time, l becomes stuck.
func (c *capped) turnAway(l *lane, shut *gate) {
	c.unfile(l)
	if !l.moved {
		l.moved = true
		c.file(l, shut)
		return
	}
	pool, cap := l.gates()
	l.stuck = true
	pool.stuck.add(cap.id)
	cap.stuck.add(pool.id)
}
