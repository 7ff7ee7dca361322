package slots

import (
	"iter"
	"strings"
)

// key is the name of a model or an agent. Slots and waiters are counted by key,
// whatever pool the current rules put it in.
type key struct {
	name    string // in normal form
	pool    *pool  // nil once the key is forgotten
	inUse   int
	waiting int
	space   Space
	own     pool // its pool if the rules name no shared one
}

func (k *key) isIdle() bool { return k.inUse+k.waiting == 0 }

// weight is the key's share of memory. Language models make names up, so a name can
// have any length.
func (k *key) weight() int { return 1 + len(k.name)/maxHotName }

// maxIdle is the total weight of keys up to which none is forgotten, because most
// names come back. Above it, all idle keys are forgotten once the weight of the
// keys that have become new or idle exceeds half of the total. The memory for idle
// keys is therefore bounded by maxIdle and the number of busy keys. The cost is
// constant per key, and zero for programs with few names.
const maxIdle = 1024

// maxHotName is the longest name in Manager.hot.
const maxHotName = 256

// hotIndex spreads names over Manager.hot by their length and a few bytes that
// usually differ between models. A collision costs a map look-up.
func hotIndex(s string) uint8 {
	n := len(s)
	if n < 2 {
		return uint8(n)
	}
	return uint8(n)*31 + s[0] + s[n/2]*3 + s[n-2]*10 + s[n-1]
}

// assign puts k into the pool that the rules name. It reuses the shared pools in
// before.
func (m *Manager) assign(k *key, before map[string]*pool) {
	name, limit, shared := m.rules.Pool(k.space, k.name)
	if !shared {
		if k.own.name == "" {
			// The pool's name ends with the key's name, so the two share one string.
			k.own.name = name
			if rest := len(name) - len(k.name); rest >= 0 && name[rest:] == k.name {
				k.name = name[rest:]
			}
		}
		k.own.limit, k.pool = limit, &k.own
		return
	}
	p := m.shared[name]
	if p == nil {
		if p = before[name]; p == nil {
			p = &pool{name: name}
		}
		m.shared[name] = p
	}
	p.limit, k.pool = limit, p
}

// lockKey locks m.mu and returns the key of a name as it was written. Most names
// are already in normal form. Only normal names are keys, so a hit needs no
// normalising.
func (m *Manager) lockKey(space Space, raw string) *key {
	m.mu.Lock()
	if k := m.keys[space][raw]; k != nil {
		return k
	}
	m.mu.Unlock()
	var buf [128]byte
	if name, ok := lowerASCII(buf[:], raw); ok {
		m.mu.Lock()
		if k := m.keys[space][string(name)]; k != nil {
			return k
		}
		return m.newKey(space, string(name))
	}
	name := Normal(raw)
	m.mu.Lock()
	return m.keyLocked(space, name)
}

// lockModel is lockKey for models, with m.hot as a cache.
func (m *Manager) lockModel(raw string) *key {
	m.mu.Lock()
	if k := m.hot[hotIndex(raw)]; k != nil && k.name == raw && k.pool != nil {
		return k
	}
	m.mu.Unlock()
	k := m.lockKey(Models, raw)
	if len(raw) <= maxHotName && k.name == raw {
		m.hot[hotIndex(raw)] = k
	}
	return k
}

// keyLocked returns the key of a name in normal form.
func (m *Manager) keyLocked(space Space, name string) *key {
	if k := m.keys[space][name]; k != nil {
		return k
	}
	return m.newKey(space, name)
}

func (m *Manager) newKey(space Space, name string) *key {
	// Clone, because a short name may be part of a long text that it must not keep
	// alive.
	k := &key{space: space, name: strings.Clone(name)}
	m.assign(k, nil)
	m.churned(k)
	m.keys[space][k.name] = k
	m.weight += k.weight()
	return k
}

// churned is called when k is new or has become idle.
func (m *Manager) churned(k *key) {
	if m.weight <= maxIdle {
		return
	}
	m.churn += k.weight()
	if m.churn > m.weight/2 {
		m.forgetIdle()
	}
}

// forgetIdle drops the idle keys. It rebuilds the maps, because a map never
// releases memory.
func (m *Manager) forgetIdle() {
	m.weight, m.churn = 0, 0
	for space, keys := range m.keys {
		kept := make(map[string]*key)
		for name, k := range keys {
			if k.isIdle() {
				k.pool = nil
			} else {
				kept[name] = k
				m.weight += k.weight()
			}
		}
		m.keys[space] = kept
	}
}

// busyPools yields each pool that has slots in use or waiters, once.
func (m *Manager) busyPools() iter.Seq[*pool] {
	return func(yield func(*pool) bool) {
		seen := make(map[*pool]bool)
		for _, keys := range m.keys {
			for _, k := range keys {
				if k.isIdle() || seen[k.pool] {
					continue
				}
				if k.pool != &k.own {
					seen[k.pool] = true
				}
				if !yield(k.pool) {
					return
				}
			}
		}
	}
}

// Normal returns the form of a name that is compared: trimmed and in lower case.
// Normal of a normal name is the name itself; [Manager.lockKey] relies on that.
func Normal(s string) string { return strings.ToLower(strings.TrimSpace(s)) }

// lowerASCII is Normal without an allocation, for ASCII names that fit into buf.
func lowerASCII(buf []byte, s string) ([]byte, bool) {
	s = strings.TrimSpace(s)
	if len(s) > len(buf) {
		return nil, false
	}
	for i := range len(s) {
		b := s[i]
		if b >= 0x80 {
			return nil, false
		}
		if 'A' <= b && b <= 'Z' {
			b += 'a' - 'A'
		}
		buf[i] = b
	}
	return buf[:len(s)], true
}
