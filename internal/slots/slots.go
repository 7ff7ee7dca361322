// Package slots keeps pools of slots and the lines of waiters for them. It knows
// nothing about tasks, models or the meaning of limits: [Rules] map names to pools.
package slots

import (
	"context"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// Unlimited is the limit of a pool without a limit.
const Unlimited = -1

// Rules map a name to its pool and to the limit of that pool. A shared pool counts
// all names that map to it; any other pool belongs to one name. The name is in
// normal form (see [Normal]). Implementations must be pure: the same name always
// gives the same result.
type Rules interface {
	Pool(space Space, name string) (pool string, limit int, shared bool)
}

// Space separates names of different kinds.
type Space uint8

// The spaces.
const (
	Models Space = iota
	Agents
	spaces
)

// Figures describe one pool.
type Figures struct {
	Name    string
	Limit   int // Unlimited if there is none
	InUse   int // slots in use; above Limit only after SetRules
	Waiting int // waiters for a slot
}

// Manager hands out slots. Within a pool, the first to come is the first served: a
// released slot goes straight to the first in line, and nobody can overtake. It
// starts no goroutine and needs no closing. All methods are safe for concurrent
// use. Create one with [New].
type Manager struct {
	tickets atomic.Uint64 // the last queue time issued

	// mu guards all fields below, every key, pool, Waiter and record reached through
	// them, and Handle.key. It is a leaf: while it is held, no other lock is taken,
	// no owner is notified and nothing blocks. Owners of granted slots are notified
	// after it is released.
	mu     sync.Mutex
	keys   [spaces]map[string]*key // by name in normal form
	hot    [256]*key               // cache of some models, because a map look-up costs as much as the rest of Acquire; may hold forgotten keys
	weight int                     // total weight of all keys
	churn  int                     // weight of the keys that became new or idle since the last forgetIdle
	shared map[string]*pool        // shared pools, by name
	rules  Rules
	free   []*record // for reuse, at most maxFreeRecords
}

// New returns a manager with the given rules.
func New(r Rules) *Manager {
	m := &Manager{}
	for space := range m.keys {
		m.keys[space] = make(map[string]*key)
	}
	m.SetRules(r)
	return m
}

// Acquire waits for a slot of the model's pool. If ctx ends first, or has already
// ended, it returns ctx.Err() and no slot.
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

// acquire takes a slot or waits for one. It is called with m.mu held and returns
// with m.mu unlocked.
func (m *Manager) acquire(ctx context.Context, done <-chan struct{}, k *key) (Slot, error) {
	if k.pool.hasRoom() {
		s := m.handOut(k)
		m.mu.Unlock()
		return s, nil
	}
	return m.wait(ctx, done, k)
}

// TryAcquire returns a slot of the model's pool if one is free and nobody waits for
// it.
func (m *Manager) TryAcquire(model string) (Slot, bool) { return m.try(m.lockModel(model)) }

// try is called with m.mu held and returns with m.mu unlocked.
func (m *Manager) try(k *key) (Slot, bool) {
	if !k.pool.hasRoom() {
		m.mu.Unlock()
		return Slot{}, false
	}
	s := m.handOut(k)
	m.mu.Unlock()
	return s, true
}

// Stats returns the figures of the model's pool.
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

// Pools returns the figures of every pool that has slots in use or waiters, sorted
// by name.
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

// Rules returns the current rules.
func (m *Manager) Rules() Rules {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.rules
}

// SetRules replaces the rules.
//
// Slots in use stay in use. A lower limit takes none away; no slot is granted until
// the pool is below it. A higher limit immediately serves as many waiters as fit.
// If the new rules map a name to another pool, its waiters move there and keep
// their queue times, and its slots in use count there from now on.
func (m *Manager) SetRules(r Rules) {
	m.mu.Lock()
	granted := m.setRulesLocked(r)
	m.mu.Unlock()
	for _, w := range granted {
		w.Owner.SlotGranted(w)
	}
}

// setRulesLocked returns the waiters that got a slot through the new rules, longest
// waiting first. Their owners have not been notified yet.
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
	// Each pool's own line is sorted already, but several lines become one here.
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
