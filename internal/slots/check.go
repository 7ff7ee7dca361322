package slots

import (
	"errors"
	"fmt"
)

// Check returns an error if the records of m contradict each other. It is for tests.
func (m *Manager) Check() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	type sum struct{ inUse, waiting int }
	want := make(map[*pool]sum)
	weight := 0
	add := func(k *key) {
		weight += k.weight()
		s := want[k.pool]
		want[k.pool] = sum{s.inUse + k.inUse, s.waiting + k.waiting}
	}
	for space, keys := range m.keys {
		for name, k := range keys {
			if err := m.checkKey(k, Space(space), name); err != nil {
				return err
			}
			add(k)
			for agent, a := range k.agents {
				if err := m.checkKey(a, Space(space), name); err != nil {
					return err
				}
				if a.agent != agent || Normal(agent) != agent || agent == k.agent || a.pool != k.pool || a.own != k.own {
					return fmt.Errorf("key %q is wrong for agent %q", name, agent)
				}
				add(a)
			}
		}
	}
	if weight != m.weight {
		return fmt.Errorf("the keys weigh %d, but the recorded weight is %d", weight, m.weight)
	}
	for _, p := range m.shared {
		if _, ok := want[p]; !ok {
			want[p] = sum{} // a pool without keys must count nothing
		}
	}
	for p, s := range want {
		if p.inUse != s.inUse || p.waiting != s.waiting {
			return fmt.Errorf("pool %q counts %+v, but its keys add up to %+v", p.name, p.figures(), s)
		}
		if err := p.check(p.list); err != nil {
			return err
		}
		if p.first != nil && m.capped != nil || (p.capped != nil) != (m.capped != nil) && s != (sum{}) {
			return fmt.Errorf("pool %q does not know whether there are caps", p.name)
		}
		if m.capped == nil && p.length() != p.waiting {
			return fmt.Errorf("pool %q: %d waiters are in line, but %d are recorded", p.name, p.length(), p.waiting)
		}
	}
	if wrong := m.checkCools(); wrong != "" {
		return errors.New(wrong)
	}
	if m.capped != nil {
		return m.capped.check()
	}
	return nil
}

// checkKey checks one key that is stored under a name.
func (m *Manager) checkKey(k *key, space Space, name string) error {
	if Normal(name) != name || k.name != name || k.space != space {
		return fmt.Errorf("key %q is stored under %q", k.name, name)
	}
	pool, limit, shared := m.rules.Pool(space, name)
	if k.pool.name != pool || k.pool.limit != limit || shared != (k.pool != k.own) || shared && m.shared[pool] != k.pool {
		return fmt.Errorf("key %q is not in the pool that the rules name", name)
	}
	if k.inUse < 0 || k.waiting < 0 {
		return fmt.Errorf("key %q has %d slots and %d waiters", name, k.inUse, k.waiting)
	}
	return nil
}

// check checks one line of p.
func (p *pool) check(l list) error {
	if l.first != nil && p.hasRoom() {
		return fmt.Errorf("pool %q has a free slot, but a waiter is in line: %+v", p.name, p.figures())
	}
	n := 0
	var prev *Waiter
	for w := l.first; w != nil; prev, w = w, w.next {
		n++
		switch {
		case w.prev != prev:
			return fmt.Errorf("pool %q: the links of number %d are wrong", p.name, n)
		case w.key == nil || w.key.pool != p:
			return fmt.Errorf("pool %q: number %d is in the wrong line", p.name, n)
		case !w.waits():
			return fmt.Errorf("pool %q: number %d is in line, but does not wait", p.name, n)
		case prev != nil && prev.order > w.order:
			return fmt.Errorf("pool %q: number %d is ahead of an earlier waiter", p.name, n)
		}
	}
	if l.last != prev {
		return fmt.Errorf("pool %q: the field last is not the last waiter", p.name)
	}
	return nil
}

func (l *list) length() (n int) {
	for w := l.first; w != nil; w = w.next {
		n++
	}
	return n
}
