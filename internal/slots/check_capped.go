package slots

import (
	"fmt"
)

// check recounts the slots and waiters of all caps, and compares the results with the
// records. It also checks all lanes, pools and gates.
func (c *capped) check() error {
	type sum struct{ inUse, waiting int }
	want := map[*gauge]sum{}
	pools := map[*pool]bool{}
	for k := range c.m.all() {
		if k.lane == nil || k.lane.pool != k.pool || k.lane.cap != c.capOf(k.agent) || k.pool.capped.byCap[k.lane.cap] != k.lane {
			return fmt.Errorf("key %q of agent %q is in the wrong lane", k.name, k.agent)
		}
		pools[k.pool] = true
		for _, g := range []*gauge{k.lane.cap, c.total} {
			want[g] = sum{want[g].inUse + k.inUse, want[g].waiting + k.waiting}
		}
	}
	gates := []*gate{}
	for _, g := range c.gauges() {
		if s := want[g]; g.inUse != s.inUse || g.waiting != s.waiting {
			return fmt.Errorf("%s counts %+v, but its keys add up to %+v", g.name, g.figures(), s)
		}
		if g != c.total {
			gates = append(gates, &g.gate)
		}
	}
	in := 0
	for i, l := range c.busy {
		if l.inAll != i {
			return fmt.Errorf("lane %d records the index %d", i, l.inAll)
		}
		n, err := c.checkLane(l)
		if err != nil {
			return fmt.Errorf("lane %d of pool %q: %w", i, l.pool.name, err)
		}
		in += n
	}
	if in != c.total.waiting {
		return fmt.Errorf("%d waiters are in line, but %d are recorded", in, c.total.waiting)
	}
	for p := range pools {
		if err := c.checkPool(p); err != nil {
			return fmt.Errorf("pool %q: %w", p.name, err)
		}
		if g := &p.capped.gate; g.id >= 0 {
			gates = append(gates, g)
		}
	}
	return c.checkGates(gates)
}

func (c *capped) gauges() []*gauge {
	all := []*gauge{c.total, c.rest}
	for _, g := range c.agents {
		all = append(all, g)
	}
	return all
}

// checkGates checks all gates that have a number.
func (c *capped) checkGates(all []*gate) error {
	lanes, stuck, ready := 0, 0, 0
	for _, g := range all {
		own, _ := c.sides(g)
		x, first := g.first()
		some := x != nil
		switch {
		case g.id >= len(own.all) || own.all[g.id] != g:
			return fmt.Errorf("gate %d is not stored under its number", g.id)
		case g.open != g.hasRoom() || g.open != own.open.has(g.id):
			return fmt.Errorf("gate %d is wrong about whether it has room", g.id)
		case g.ready != (g.open && some) || g.ready && (g.at >= len(c.ready.items) || c.ready.items[g.at] != g):
			return fmt.Errorf("gate %d is wrong about whether it is ready", g.id)
		case g.ready && g.place != first:
			return fmt.Errorf("gate %d does not record the place of its first lane", g.id)
		}
		if err := checkHeap(&g.lanes); err != nil {
			return err
		}
		lanes += len(g.lanes.items)
		stuck += g.stuck.len()
		if g.ready {
			ready++
		}
	}
	for _, l := range c.busy {
		if l.stuck {
			stuck -= 2
		} else if l.filed.cap != nil {
			lanes--
		}
	}
	switch {
	case lanes != 0 || stuck != 0:
		return fmt.Errorf("gates have %d lanes and %d numbers too many", lanes, stuck)
	case ready != len(c.ready.items):
		return fmt.Errorf("%d gates are ready, and %d are listed", ready, len(c.ready.items))
	case ready > 0 && !c.total.isFull():
		return fmt.Errorf("%d gates with room have not been checked", ready)
	case len(all) != len(c.poolGates.all)+len(c.capGates.all)-len(c.poolGates.free)-len(c.capGates.free):
		return fmt.Errorf("there are numbers without a gate")
	}
	return checkHeap(&c.ready)
}

// checkLane checks one lane that has waiters, and returns the number of waiters.
func (c *capped) checkLane(l *lane) (n int, err error) {
	first, ok := l.lines.first()
	pool, cap := l.gates()
	switch {
	case !ok:
		return 0, fmt.Errorf("it has no waiters")
	case l.place != first.place:
		return 0, fmt.Errorf("its key is not the key of its first waiter")
	case c.canStart(l):
		return 0, fmt.Errorf("its first waiter could start")
	case l.stuck != (l.filed == nil) || l.stuck != pool.stuck.has(cap.id) || l.stuck != cap.stuck.has(pool.id):
		return 0, fmt.Errorf("it must be either filed or stuck, and not both")
	case l.stuck && (l.kept || pool.hasRoom() && cap.hasRoom()):
		return 0, fmt.Errorf("it is stuck although nothing blocks it")
	case !l.stuck && l.filed != pool && l.filed != cap || l.kept && l.filed != cap:
		return 0, fmt.Errorf("it is filed at a gate that does not block it")
	case l.filed == cap && (l.at >= len(l.filed.lanes.items) || l.filed.lanes.items[l.at] != l):
		return 0, fmt.Errorf("the gate at which it is filed does not list it")
	case len(l.byRoot) != len(l.lines.items):
		return 0, fmt.Errorf("it has %d roots, but %d lines", len(l.byRoot), len(l.lines.items))
	}
	if err := checkHeap(&l.lines); err != nil {
		return 0, err
	}
	for root, x := range l.byRoot {
		if err := l.pool.check(x.list); err != nil {
			return 0, err
		}
		if x.turn.root != root || x.lane != l || x.order != x.first.order || x.turn.place(x.first.order).isBefore(x.place) || l.lines.items[x.at] != x || x.turn != l.pool.capped.turns[root] {
			return 0, fmt.Errorf("a line is wrong: %+v", *x)
		}
		for w := x.first; w != nil; w = w.next {
			if w.key.lane != l || c.root(w) != root {
				return 0, fmt.Errorf("a waiter is in the wrong line")
			}
		}
		n += x.length()
	}
	return n, nil
}

// checkPool checks the lanes of one pool.
func (c *capped) checkPool(p *pool) error {
	x := p.capped
	kept, waiting, busy := 0, 0, 0
	type sum struct {
		all   int
		parts [2]int
	}
	lines := map[*turn]sum{}
	for _, l := range x.byCap {
		if l.kept {
			kept++
		}
		if !l.isEmpty() {
			busy++
		}
		for _, line := range l.byRoot {
			waiting += line.length()
			s := lines[line.turn]
			s.all++
			l.each(line, func(_ *cappedPool, i int, _ *rootLine) { s.parts[i]++ })
			lines[line.turn] = s
		}
	}
	var parts [2]int
	for t, s := range lines {
		if x.turns[t.root] != t || t.all != s.all {
			return fmt.Errorf("a root has %d lines, but %d are recorded", s.all, t.all)
		}
		for i := range t.parts {
			part, some := &t.parts[i], s.parts[i] > 0
			if len(part.lines.items) != s.parts[i] || part.in != some || part.turn != t {
				return fmt.Errorf("a root has %d lines in part %d, but %d are recorded", s.parts[i], i, len(part.lines.items))
			}
			if err := checkHeap(&part.lines); err != nil {
				return err
			}
			if some {
				parts[i]++
			}
		}
	}
	switch top, _ := x.first(heads); {
	case len(x.turns) != len(lines) || len(x.parts[heads].items) != parts[heads] || len(x.parts[filed].items) != parts[filed]:
		return fmt.Errorf("%d roots wait, but %d are recorded", len(lines), len(x.turns))
	case kept != x.kept || waiting != p.waiting || busy != x.busy || (busy > 0) != (x.id >= 0):
		return fmt.Errorf("keeps %d slots for %d waiters in %d lanes, counted as %d, %d and %d", kept, waiting, busy, x.kept, p.waiting, x.busy)
	case kept > 0 && p.limit != Unlimited && kept > max(0, p.limit-p.inUse):
		return fmt.Errorf("keeps %d slots, which it does not have: %+v", kept, p.figures())
	case top != nil && top.lane.passed >= MaxPassed && p.hasRoomBesideKept():
		return fmt.Errorf("a waiter was passed over %d times, but no slot is kept", top.lane.passed)
	}
	if err := checkHeap(&x.parts[heads]); err != nil {
		return err
	}
	return checkHeap(&x.parts[filed])
}

func checkHeap[T comparable](h *heap[T]) error {
	for i, x := range h.items {
		if *h.at(x) != i {
			return fmt.Errorf("number %d of a heap records the index %d", i, *h.at(x))
		}
		if i > 0 && h.before(x, h.items[(i-1)/2]) {
			return fmt.Errorf("number %d of a heap must come before its parent", i)
		}
	}
	return nil
}
