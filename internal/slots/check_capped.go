package slots

import (
	"fmt"
)

// check recounts everything that is kept for caps.
func (c *capped) check() error {
	type sum struct{ inUse, waiting int }
	want := map[*gauge]sum{}
	pools := map[*pool]bool{}
	for k := range c.m.all() {
		if k.lane == nil || k.lane.pool != k.pool || k.lane.cap != c.agents[k.agent] || k.pool.capped.byCap[k.lane.cap] != k.lane {
			return fmt.Errorf("key %q of agent %q is in the wrong lane", k.name, k.agent)
		}
		pools[k.pool] = true
		for _, g := range []*gauge{k.lane.cap, c.total} {
			want[g] = sum{want[g].inUse + k.inUse, want[g].waiting + k.waiting}
		}
	}
	for _, g := range c.gauges() {
		if s := want[g]; g.inUse != s.inUse || g.waiting != s.waiting {
			return fmt.Errorf("%s counts %+v, its keys %+v", g.name, g.figures(), s)
		}
		if err := checkHeap(&g.lanes); err != nil {
			return fmt.Errorf("%s: %w", g.name, err)
		}
	}
	in := 0
	for i, l := range c.busy {
		if l.inAll != i {
			return fmt.Errorf("lane %d says that it is number %d", i, l.inAll)
		}
		n, err := c.checkLane(l)
		if err != nil {
			return fmt.Errorf("lane %d of pool %q: %w", i, l.pool.name, err)
		}
		in += n
	}
	if in != c.total.waiting {
		return fmt.Errorf("%d wait, counted as %d", in, c.total.waiting)
	}
	for p := range pools {
		if err := c.checkPool(p); err != nil {
			return fmt.Errorf("pool %q: %w", p.name, err)
		}
	}
	return nil
}

func (c *capped) gauges() []*gauge {
	all := []*gauge{c.total}
	for _, g := range c.agents {
		all = append(all, g)
	}
	return all
}

// checkLane looks at one lane where somebody waits and counts them.
func (c *capped) checkLane(l *lane) (n int, err error) {
	first, ok := l.lines.first()
	switch {
	case !ok:
		return 0, fmt.Errorf("nobody is in it")
	case l.place != first.place:
		return 0, fmt.Errorf("its key is not that of its first")
	case l.filed == nil || l.at >= len(l.filed.items) || l.filed.items[l.at] != l:
		return 0, fmt.Errorf("it is filed nowhere")
	case c.blocker(l) == nil:
		return 0, fmt.Errorf("its first could start")
	case l.filed != &l.pool.capped.blocks && l.filed != &c.total.lanes && (l.cap == nil || l.filed != &l.cap.lanes):
		return 0, fmt.Errorf("it is filed where nothing blocks it")
	case l.filed == &c.total.lanes && !c.total.isFull() || l.cap != nil && l.filed == &l.cap.lanes && !l.cap.isFull() ||
		l.filed == &l.pool.capped.blocks && (l.kept || l.pool.hasRoomBesideKept()):
		return 0, fmt.Errorf("it is filed where there is room")
	case l.pool.capped.lanes.items[l.inPool] != l:
		return 0, fmt.Errorf("its pool does not know it")
	case len(l.byRoot) != len(l.lines.items):
		return 0, fmt.Errorf("it has %d roots and %d lines", len(l.byRoot), len(l.lines.items))
	}
	if err := checkHeap(&l.lines); err != nil {
		return 0, err
	}
	for root, x := range l.byRoot {
		if err := l.pool.check(x.list); err != nil {
			return 0, err
		}
		if x.root != root || x.lane != l || x.turn.place(x.first.order).isBefore(x.place) || l.lines.items[x.at] != x || (x.turn != nil) != c.fair || x.turn != l.pool.capped.turns[root] {
			return 0, fmt.Errorf("a line is wrong: %+v", *x)
		}
		for w := x.first; w != nil; w = w.next {
			if w.key.lane != l || c.fair && w.Root != root {
				return 0, fmt.Errorf("somebody stands in the wrong line")
			}
		}
		n += x.length()
	}
	return n, nil
}

// checkPool looks at the lanes of one pool.
func (c *capped) checkPool(p *pool) error {
	x := p.capped
	kept, waiting, lines := 0, 0, 0
	for _, l := range x.lanes.items {
		if l.kept {
			kept++
		}
		for _, line := range l.byRoot {
			waiting += line.length()
			lines++
		}
	}
	for _, t := range x.turns {
		lines -= t.lines
	}
	switch top, ok := x.lanes.first(); {
	case kept != x.kept || waiting != p.waiting:
		return fmt.Errorf("keeps %d slots for %d who wait, counted as %d and %d", kept, waiting, x.kept, p.waiting)
	case c.fair && lines != 0:
		return fmt.Errorf("turns have %d lines too few", lines)
	case kept > 0 && p.limit != Unlimited && kept > max(0, p.limit-p.inUse):
		return fmt.Errorf("keeps %d slots, which it does not have: %+v", kept, p.figures())
	case ok && !top.kept && top.passed >= MaxPassed && p.hasRoomBesideKept():
		return fmt.Errorf("somebody was passed over %d times, and no slot is kept", top.passed)
	}
	if err := checkHeap(&x.blocks); err != nil {
		return err
	}
	return checkHeap(&x.lanes)
}

func checkHeap[T comparable](h *heap[T]) error {
	for i, x := range h.items {
		if *h.at(x) != i {
			return fmt.Errorf("number %d of a heap says that it is number %d", i, *h.at(x))
		}
		if i > 0 && h.before(x, h.items[(i-1)/2]) {
			return fmt.Errorf("number %d of a heap stands behind a later one", i)
		}
	}
	return nil
}
