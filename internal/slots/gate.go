package slots

// gate is a pool or a cap, as what a lane has to get through. It is open while it has
// room.
type gate struct {
	pool  *pool       // whose it is; nil for that of a cap
	cap   *gauge      // whose it is; nil for that of a pool
	lanes heap[*lane] // filed here, with a cap. With a pool it is the lines of them: see cappedPool.parts
	place             // of the first of them, while the gate is ready
	at    int         // index in capped.ready
	ready bool        // open, with lanes
	open  bool        // kept for the enrolled
	id    int         // number among those of its side; -1 for a pool where nobody waits
	stuck set         // the gates across with which a lane is stuck, by number
}

func (g *gate) hasRoom() bool {
	if g.cap != nil {
		return !g.cap.isFull()
	}
	return g.pool.hasRoomBesideKept()
}

// gates are those of one side: those of the pools where somebody waits, or those of
// the caps.
type gates struct {
	all  []*gate // by number; nil where a number is free
	free []int   // numbers
	open set
}

// sides returns the gates of the side of g and those across.
func (c *capped) sides(g *gate) (own, across *gates) {
	if g.cap != nil {
		return &c.capGates, &c.poolGates
	}
	return &c.poolGates, &c.capGates
}

// enroll gives g a number.
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

// dismiss takes the number from g, which has no lanes.
func (c *capped) dismiss(g *gate) {
	own, _ := c.sides(g)
	own.open.remove(g.id)
	own.all[g.id] = nil
	own.free = append(own.free, g.id)
	g.id = -1
}

// turned is called when g may have got room or lost it.
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

// between returns the lane between two gates.
func (c *capped) between(g, o *gate) *lane {
	if g.cap != nil {
		g, o = o, g
	}
	return g.pool.capped.byCap[o.cap]
}

// first returns the first line of what is filed at g, and its place.
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

// sort puts g where it belongs among those that are ready.
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

// file files l, which is not filed, at g.
func (c *capped) file(l *lane, g *gate) {
	if l.filed = g; g.cap == nil {
		l.all(filed, (*cappedPool).add)
	} else {
		g.lanes.push(l)
	}
	c.sort(g)
}

// unfile takes l from where it is filed, or stuck.
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

// turnAway is called when l is the first at an open gate, and shut is not. l is filed
// at shut; when it has been turned away from there before, it is stuck.
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
