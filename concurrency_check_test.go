package bgagent

import "fmt"

// checkInvariants returns an error when the records contradict each other. It
// is for tests.
func (c *ConcurrencyManager) checkInvariants() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	type sum struct{ inUse, waiting int }
	want := make(map[*pool]sum)
	weight := 0
	for space, keys := range c.keys {
		for name, k := range keys {
			if normalName(name) != name || k.name != name || k.space != keySpace(space) {
				return fmt.Errorf("key %q is filed under %q", k.name, name)
			}
			entry := c.entry(keySpace(space), name)
			if entry == nil {
				entry = &k.own
			}
			if k.pool != entry {
				return fmt.Errorf("key %q is not in the pool that the limits name", name)
			}
			if k.inUse < 0 || k.waiting < 0 {
				return fmt.Errorf("key %q has %d slots and %d waiters", name, k.inUse, k.waiting)
			}
			weight += k.weight()
			s := want[k.pool]
			want[k.pool] = sum{s.inUse + k.inUse, s.waiting + k.waiting}
		}
	}
	if weight != c.weight {
		return fmt.Errorf("the keys weigh %d, counted as %d", weight, c.weight)
	}
	for p, s := range want {
		if p.inUse != s.inUse || p.waiting != s.waiting {
			return fmt.Errorf("pool %q counts %+v, its keys %+v", p.name, p.stats(), s)
		}
		if err := p.check(); err != nil {
			return err
		}
	}
	for _, entries := range []map[string]*pool{c.byModel, c.byProvider} {
		for _, p := range entries {
			if s := want[p]; p.inUse != s.inUse || p.waiting != s.waiting {
				return fmt.Errorf("pool %q counts %+v, its keys %+v", p.name, p.stats(), s)
			}
		}
	}
	return nil
}

// check looks at one line.
func (p *pool) check() error {
	if p.first != nil && p.hasRoom() {
		return fmt.Errorf("pool %q has a free slot and somebody waiting: %+v", p.name, p.stats())
	}
	n := 0
	var prev *waiter
	for w := p.first; w != nil; prev, w = w, w.next {
		n++
		switch {
		case w.prev != prev:
			return fmt.Errorf("pool %q: the links of number %d are wrong", p.name, n)
		case w.key == nil || w.key.pool != p:
			return fmt.Errorf("pool %q: number %d stands in the wrong line", p.name, n)
		case !w.waits():
			return fmt.Errorf("pool %q: number %d does not wait", p.name, n)
		case prev != nil && prev.order > w.order:
			return fmt.Errorf("pool %q: number %d stands before one who came earlier", p.name, n)
		}
	}
	if p.last != prev || n != p.waiting {
		return fmt.Errorf("pool %q: %d in line, counted as %d", p.name, n, p.waiting)
	}
	return nil
}
