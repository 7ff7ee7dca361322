// Package slots keeps pools of slots and the lines of those who wait for one.
// It knows nothing of tasks, of models or of what limits mean: [Rules] say which
// pool a name is counted in.
package slots

import (
	"context"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// Unlimited is the limit of a pool without one.
const Unlimited = -1

// Rules say which pool a name is counted in, and the limit of that pool. A
// shared pool takes in every name that has it; any other belongs to the name
// alone. The name is in its normal form (see [Normal]). Implementations must be
// pure: the same name always gives the same answer.
type Rules interface {
	Pool(space Space, name string) (pool string, limit int, shared bool)
}

// Space keeps names of different kinds apart.
type Space uint8

// The spaces that there are.
const (
	Models Space = iota
	Agents
	spaces
)

// Figures are those of one pool.
type Figures struct {
	Name    string
	Limit   int // Unlimited for none
	InUse   int // slots that are out; above Limit only after SetRules
	Waiting int // how many wait for a slot
}

// Manager hands out slots. Inside a pool it is first come, first served: a slot
// that is given back goes straight to the first in line, and nobody can
// overtake. It starts no goroutine and needs no closing. All methods are safe for
// concurrent use. Make one with [New].
type Manager struct {
	tickets atomic.Uint64 // the last queue time given out

	// mu guards everything below, every key, pool, Waiter and record that is
	// reached through it, and Handle.key. It is a leaf: while it is held no
	// other lock is taken, nobody is told of anything and nothing blocks. Who
	// has been granted a slot is told after it is released.
	mu     sync.Mutex
	keys   [spaces]map[string]*key // by normal name
	hot    [256]*key               // some of the models, because a map look-up costs as much as the rest of Acquire; may be forgotten ones
	weight int                     // of all keys
	churn  int                     // weight of the keys that came or fell idle since the last forgetIdle
	shared map[string]*pool        // those that several names may be counted in, by name
	rules  Rules
	free   []*record // to use again, at most maxFreeRecords
}

// New returns a manager that follows the rules.
func New(r Rules) *Manager {
	m := &Manager{}
	for space := range m.keys {
		m.keys[space] = make(map[string]*key)
	}
	m.SetRules(r)
	return m
}

// Acquire waits for a slot of the model's pool. When ctx ends first, or has
// already ended, it returns ctx.Err() and no slot.
func (m *Manager) Acquire(ctx context.Context, model string) (Slot, error) {
	done := ctx.Done()
	if done != nil {
		select {
		case <-done:
			return Slot{}, ctx.Err()
		default:
		}
	}
	return m.acquire(ctx, done, m.lockModel(model))
}

// acquire takes a slot or waits for one. It is entered with m.mu held and leaves
// it unlocked.
func (m *Manager) acquire(ctx context.Context, done <-chan struct{}, k *key) (Slot, error) {
	if k.pool.hasRoom() {
		s := m.handOut(k)
		m.mu.Unlock()
		return s, nil
	}
	return m.wait(ctx, done, k)
}

// TryAcquire returns a slot of the model's pool if one is free and nobody waits
// for it.
func (m *Manager) TryAcquire(model string) (Slot, bool) { return m.try(m.lockModel(model)) }

// try is entered with m.mu held and leaves it unlocked.
func (m *Manager) try(k *key) (Slot, bool) {
	if !k.pool.hasRoom() {
		m.mu.Unlock()
		return Slot{}, false
	}
	s := m.handOut(k)
	m.mu.Unlock()
	return s, true
}

// Stats returns the figures of the pool that the model is counted in.
func (m *Manager) Stats(model string) Figures {
	name := Normal(model)
	m.mu.Lock()
	defer m.mu.Unlock()
	if k := m.keys[Models][name]; k != nil {
		return k.pool.figures()
	}
	pool, limit, shared := m.rules.Pool(Models, name)
	if p := m.shared[pool]; shared && p != nil {
		return p.figures()
	}
	return Figures{Name: pool, Limit: limit}
}

// Pools returns the figures of every pool that has slots out or somebody
// waiting, sorted by name.
func (m *Manager) Pools() []Figures {
	m.mu.Lock()
	var out []Figures
	for p := range m.busyPools() {
		out = append(out, p.figures())
	}
	m.mu.Unlock()
	slices.SortFunc(out, func(a, b Figures) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// Rules returns the rules that apply.
func (m *Manager) Rules() Rules {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.rules
}

// SetRules replaces the rules.
//
// Slots that are out stay out: a lower limit takes nothing away and grants
// nothing until the pool is below it; a higher one serves as many as now fit.
// Where the new rules name another pool for a name, those who wait under that
// name move there and stand in line by the time they have waited since, and its
// slots that are out count in that pool from now on.
func (m *Manager) SetRules(r Rules) {
	m.mu.Lock()
	granted := m.setRulesLocked(r)
	m.mu.Unlock()
	for _, w := range granted {
		w.Owner.SlotGranted(w)
	}
}

// setRulesLocked returns those who hold a slot because of the new rules, longest
// waiting first. They have not been told yet.
func (m *Manager) setRulesLocked(r Rules) []*Waiter {
	m.rules = r
	m.forgetIdle()
	before := m.shared
	m.shared = make(map[string]*pool)

	touched := make(map[*pool]bool)
	for _, keys := range m.keys {
		for _, k := range keys {
			was := k.pool
			m.assign(k, before)
			if k.pool != was {
				was.inUse -= k.inUse
				k.pool.inUse += k.inUse
				touched[was], touched[k.pool] = true, true
			}
		}
	}
	var moving []*Waiter
	for p := range touched {
		moving = p.takeAll(moving)
	}
	// A pool's own line is in order already, but several become one here.
	slices.SortFunc(moving, byOrder)
	for _, w := range moving {
		w.key.pool.insert(w)
	}

	var granted []*Waiter
	for p := range m.busyPools() {
		for p.first != nil && p.hasRoom() {
			granted = append(granted, p.grantFirst())
		}
	}
	slices.SortFunc(granted, byOrder)
	for _, w := range granted {
		w.order = 0
	}
	return granted
}
