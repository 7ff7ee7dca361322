package slots

import (
	"iter"
	"strings"
)

// key holds the counts of slots and waiters for one name, which is that of a model or an agent. The
// counts stay with the key if the rules assign the name to another pool.
type key struct {
	name    string // in normal form
	pool    *pool  // nil after the key has been forgotten
	inUse   int
	waiting int
	space   Space
	agent   string          // in normal form; empty if the key has no agent
	lane    *lane           // the key's lane in its pool; nil while there are no caps
	own     *pool           // pool that counts the key if the rules assign no shared pool
	agents  map[string]*key // further keys of the same name, one for each agent
}

// isIdle reports whether k counts neither slots nor waiters and belongs to a pool that is not cooling down.
// The keys in k.agents are ignored.
func (k *key) isIdle() bool { return k.inUse+k.waiting == 0 && (k.pool == nil || k.pool.cool == nil) }

// capAlone reports whether k is the key of an agent that has a cap. The figures of that key
// are those of the cap, not those of the pool.
func (k *key) capAlone() bool {
	return k.space == Agents && k.lane != nil && k.lane.cap.isCap()
}

// figures returns the figures of k's cap if [key.capAlone] returns true, and otherwise the figures of k's
// pool.
func (k *key) figures() Figures {
	if k.capAlone() {
		return k.lane.cap.figures()
	}
	return k.pool.figures()
}

// weight returns what k adds to Manager.weight. The weight grows with the length of the names,
// because names come from language models and can have any length.
func (k *key) weight() int { return 1 + (len(k.name)+len(k.agent))/maxHotName }

// maxIdle is a threshold for the total weight of all keys. Up to this weight, idle keys are forgotten only
// when the rules change, because most of them are used again. Above this weight, forgetIdle also runs when
// the keys that were added or became idle since its last run weigh more than half of all keys. This bounds
// the weight of the idle keys. The cost is constant per key, and there is no cost up to maxIdle.
const maxIdle = 1024

// maxHotName is the maximum length in bytes of a name in Manager.hot.
const maxHotName = 256

// hotIndex returns the index of a name in Manager.hot. It hashes the length and a few bytes at
// positions where model names usually differ. A collision costs a map look-up.
func hotIndex(s string) uint8 {
	n := len(s)
	if n < 2 {
		return uint8(n)
	}
	return uint8(n)*31 + s[0] + s[n/2]*3 + s[n-2]*10 + s[n-1]
}

// assign puts k into the pool that the rules assign to it. It reuses a shared pool that is
// already in the map "before".
func (m *Manager) assign(k *key, before map[string]*pool) {
	k.pool = m.poolOf(k, before)
	k.lane = nil
	if m.capped != nil {
		k.lane = m.capped.lane(k)
	}
	if len(m.cools) > 0 {
		m.inherit(k)
	}
}

func (m *Manager) poolOf(k *key, before map[string]*pool) *pool {
	name, limit, shared := m.rules.Pool(k.space, k.name)
	if !shared {
		if k.own.name == "" {
			// If the name of the pool ends with the name of the key, both names share the memory of
			// one string.
			k.own.name = name
			if rest := len(name) - len(k.name); rest >= 0 && name[rest:] == k.name {
				k.name = name[rest:]
			}
		}
		k.own.setLimit(limit, m.capped != nil)
		return k.own
	}
	p := m.shared[name]
	if p == nil {
		if p = before[name]; p == nil {
			p = &pool{name: name}
		}
		m.shared[name] = p
	}
	p.setLimit(limit, m.capped != nil)
	return p
}

// lockKey locks m.mu and returns the key of a name. The name can be in any form. Most names are in their
// normal form, so lockKey first looks up the name as it is. All names in m.keys are in normal form, so any
// key found in this way is correct.
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

// lockModel is lockKey for a model name. It looks in m.hot first.
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

// keyLocked returns the key of a name. The name must be in normal form, and m.mu must be
// locked.
func (m *Manager) keyLocked(space Space, name string) *key {
	if k := m.keys[space][name]; k != nil {
		return k
	}
	return m.newKey(space, name)
}

func (m *Manager) newKey(space Space, name string) *key {
	// The name is copied, because it may be part of a long text, and the key must not keep that text in
	// memory.
	k := &key{space: space, name: strings.Clone(name), own: &pool{}}
	if space == Agents {
		k.agent = k.name
	}
	m.assign(k, nil)
	m.churned(k)
	m.keys[space][k.name] = k
	m.weight += k.weight()
	return k
}

// ofAgent returns the key for a name and an agent, both of which must be in normal form. The
// key is always in the pool of the name.
func (m *Manager) ofAgent(space Space, name, agent string) *key {
	k := m.keyLocked(space, name)
	if k.agent == agent {
		return k
	}
	a := k.agents[agent]
	if a != nil {
		return a
	}
	a = &key{space: space, agent: strings.Clone(agent)}
	m.churned(a)
	k = m.keyLocked(space, name) // the call to churned may have forgotten the key
	a.name, a.own = k.name, k.own
	m.assign(a, nil)
	if k.agents == nil {
		k.agents = make(map[string]*key)
	}
	k.agents[a.agent] = a
	m.weight += a.weight()
	return a
}

// The method "all" iterates over all keys.
func (m *Manager) all() iter.Seq[*key] {
	return func(yield func(*key) bool) {
		for _, keys := range m.keys {
			for _, k := range keys {
				if !yield(k) {
					return
				}
				for _, a := range k.agents {
					if !yield(a) {
						return
					}
				}
			}
		}
	}
}

// churned calls forgetIdle if the limit for new and idle keys is exceeded; see maxIdle. It must be called
// when k is new or has become idle.
func (m *Manager) churned(k *key) {
	if m.weight <= maxIdle {
		return
	}
	m.churn += k.weight()
	if m.churn > m.weight/2 {
		m.forgetIdle()
	}
}

// forgetIdle drops the idle keys. It creates new maps, because a map does not release the
// memory of deleted entries.
func (m *Manager) forgetIdle() {
	m.weight, m.churn = 0, 0
	for space, keys := range m.keys {
		kept := make(map[string]*key)
		for name, k := range keys {
			var agents map[string]*key
			for agent, a := range k.agents {
				if a.isIdle() {
					a.pool = nil
					continue
				}
				if agents == nil {
					agents = make(map[string]*key)
				}
				agents[agent] = a
				m.weight += a.weight()
			}
			k.agents = agents
			if k.isIdle() && len(k.agents) == 0 {
				k.pool = nil
			} else {
				kept[name] = k
				m.weight += k.weight()
			}
		}
		m.keys[space] = kept
	}
}

// busyPools iterates over the pools with held slots, with waiters or with a cool-down. It yields each pool
// once, and ignores keys that are counted only in their cap.
func (m *Manager) busyPools() iter.Seq[*pool] {
	return func(yield func(*pool) bool) {
		seen := make(map[*pool]bool)
		for k := range m.all() {
			if k.isIdle() || k.capAlone() || seen[k.pool] {
				continue
			}
			seen[k.pool] = true
			if !yield(k.pool) {
				return
			}
		}
	}
}

// Normal returns the normal form of a name: trimmed and in lower case. Names are compared in
// this form. Normal does not change a name that is already in normal form, and
// [Manager.lockKey] relies on this.
func Normal(s string) string { return strings.ToLower(strings.TrimSpace(s)) }

// lowerASCII is like Normal, but does not allocate. It returns false if the name does not fit into buf or
// contains bytes that are not ASCII.
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
