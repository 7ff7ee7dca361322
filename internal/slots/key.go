package slots

import (
	"iter"
	"strings"
)

// key is one name, of a model or an agent, that slots and waiters are counted
// by, whatever pool the rules of the moment put it in.
type key struct {
	name    string // normal
	pool    *pool  // nil once the key has been forgotten
	inUse   int
	waiting int
	space   Space
	agent   string          // normal; empty for those who have none
	lane    *lane           // of pool, while there are caps
	own     *pool           // where it is counted when the rules name no shared pool
	agents  map[string]*key // the same name, counted for an agent each
}

// isIdle reports whether nobody is counted by k, its agents left out.
func (k *key) isIdle() bool { return k.inUse+k.waiting == 0 }

// capAlone reports whether a cap decides in place of the pool.
func (k *key) capAlone() bool {
	return k.space == Agents && k.lane != nil && k.lane.cap.isCap()
}

// figures are those of what limits k.
func (k *key) figures() Figures {
	if k.capAlone() {
		return k.lane.cap.figures()
	}
	return k.pool.figures()
}

// weight is what a key counts: names come from language models and may be of
// any length.
func (k *key) weight() int { return 1 + (len(k.name)+len(k.agent))/maxHotName }

// maxIdle is the weight of keys up to which none is forgotten, because most
// come back. Above it all idle ones are forgotten as soon as half as many keys
// have come or fallen idle since the last time. So what is kept of idle keys is
// bounded by maxIdle and the number of the others, at a constant time per key
// and at none for those who use few names.
const maxIdle = 1024

// maxHotName is the longest name in Manager.hot.
const maxHotName = 256

// hotIndex spreads names over Manager.hot by their length and a few
// bytes where names of models differ. Names that meet there cost a map look-up.
func hotIndex(s string) uint8 {
	n := len(s)
	if n < 2 {
		return uint8(n)
	}
	return uint8(n)*31 + s[0] + s[n/2]*3 + s[n-2]*10 + s[n-1]
}

// assign puts k into the pool that the rules name. Shared pools of before are
// used again.
func (m *Manager) assign(k *key, before map[string]*pool) {
	k.pool = m.poolOf(k, before)
	k.lane = nil
	if m.capped != nil {
		k.lane = m.capped.lane(k)
	}
}

func (m *Manager) poolOf(k *key, before map[string]*pool) *pool {
	name, limit, shared := m.rules.Pool(k.space, k.name)
	if !shared {
		if k.own.name == "" {
			// Its end is the name of the key, so that the two share one string.
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

// lockKey returns the key of a name as it was written, with m.mu held. Names
// are mostly written in their normal form; as only normal names are keys, a hit
// needs no normalising.
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

// lockModel is lockKey for models, by way of m.hot.
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

// keyLocked returns the key of a normal name.
func (m *Manager) keyLocked(space Space, name string) *key {
	if k := m.keys[space][name]; k != nil {
		return k
	}
	return m.newKey(space, name)
}

func (m *Manager) newKey(space Space, name string) *key {
	// A copy: a short name may be cut out of a long text that it must not keep
	// alive.
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

// ofAgent returns the key of a normal name for an agent. It is always in the pool of
// the name.
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
	k = m.keyLocked(space, name) // it may have been forgotten just now
	a.name, a.own = k.name, k.own
	m.assign(a, nil)
	if k.agents == nil {
		k.agents = make(map[string]*key)
	}
	k.agents[a.agent] = a
	m.weight += a.weight()
	return a
}

// all goes through the keys.
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

// churned is called when k comes or has fallen idle.
func (m *Manager) churned(k *key) {
	if m.weight <= maxIdle {
		return
	}
	m.churn += k.weight()
	if m.churn > m.weight/2 {
		m.forgetIdle()
	}
}

// forgetIdle drops the idle keys. The maps are made anew, because a map keeps
// the memory of what it once held.
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

// busyPools goes through the pools that have slots out or waiters, once each.
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

// Normal returns a name as it is compared: trimmed and in lower case. The normal
// form of a normal name is that name, which [Manager.lockKey] relies on.
func Normal(s string) string { return strings.ToLower(strings.TrimSpace(s)) }

// lowerASCII is Normal without an allocation, for what fits into buf and has
// ASCII bytes only.
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
