// Package slots keeps pools of slots and the lines of those who wait for one.
// It knows nothing of tasks, of models or of what limits mean: [Rules] say which
// pool a name is counted in, and which caps hold beside the pools.
//
// Without caps a pool has one line, and a slot that is given back goes to its first:
// O(1), without an allocation.
//
// With caps ([Caps.Total], [Caps.Agent]) or turns by root ([Caps.Fair]) a pool has a
// lane for each agent with a cap and one for all others. Who stands in a lane is
// blocked by the same things: its pool, the cap of its agent, the total. A lane has a
// line, or with Fair one for each root, sorted by queue time.
//
//   - The place of a line is the order of its first: next turns, then the longest
//     waiting. With Fair its time is not before its root was last granted a slot of
//     the pool. So the root that has waited longest for a turn goes first, which
//     gives one turn to each in a round, and places compare across pools.
//   - A lane has two gates: that of its pool and that of its cap. A gate is open while
//     it has room. Every lane where somebody waits is filed at one of its gates.
//   - The open gates at which lanes are filed are ready. They stand in one heap, by
//     the first place that is filed there. So the first lane of the first of them is
//     the first of all that may start. If its other gate is open, it is granted a
//     slot. Otherwise it is filed at that one. When both gates have turned it away in
//     turn, it is stuck: it is noted with both, and filed again when both are open at
//     once. When a gate opens, a set of bits for it and one for the open gates across
//     tell which lanes these are, 64 at a time.
//   - Nobody is ready at rest, unless the total is full.
//
// So a grant costs O(log n) of n lines, and O(log n) more for each lane that is turned
// away. A lane is turned away at most twice before it is stuck, and it is filed again
// only when somebody joins an empty lane, a slot is kept or let go, or both of its
// gates are open. In the last case it could have started if nobody had been before it.
// Hence over time n grants and joins turn away O(n) lanes, and two more for each lane
// that could have started and was too late. Where nearly all pools and caps are full
// there is hardly ever such a lane, and where most have room the first one is found
// soon. In between it costs most: where each of n caps has room for a fraction e of
// the time, by chance, it is about min(en, 1/e) lanes, and so at most the root of n.
//
// No structure does much better in every case. Let a bit matrix say which agents wait
// in which pool, and a vector which agents' caps have room. Whether a slot of a pool
// goes to anybody is then one bit of their product, and every agent's bit changes in
// one step. That O(log n) steps could tell contradicts the conjecture on the online
// product of a matrix and vectors.
//
// With Fair a served root has a later place in all lanes of the pool at once. A lane
// at the gate of its cap is brought up to date when it comes to the front, in O(log n)
// for each of its roots that were served. So a cap with lanes in many pools may look
// at each of them before each grant. The lanes at the gate of a pool need not be: they
// are sorted by root first, and then by order.
//
// The lines of a pool, by root and by order again, have the head of its line on top.
// Whoever is behind it and gets a slot of the pool passes it over. After [MaxPassed]
// times the next slot that the pool has free is kept for the lane, and the next lane
// is the head. A kept slot takes room in its pool, not in a cap. Its lane is filed at
// the gate of its cap. A lane keeps one slot at most: keeping one for everybody in it
// would leave the pool idle while the cap lets them through one by one.
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
	Caps() Caps
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
	capped *capped   // nil while the rules have no caps
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
		s, ok := m.tryCapped(k)
		m.mu.Unlock()
		return s, ok
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
// waiting, and of every cap that holds for any of them, sorted by name. Whoever has
// no pool but a cap is counted there alone.
func (m *Manager) Pools() []Figures {
	m.mu.Lock()
	var out []Figures
	for p := range m.busyPools() {
		out = append(out, p.figures())
	}
	if m.capped != nil {
		out = m.capped.figures(out)
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
	moving := m.setCaps(r.Caps(), before)

	touched := make(map[*pool]bool)
	for k := range m.all() {
		was := k.pool
		m.assign(k, before)
		if m.capped != nil {
			m.capped.count(k, k.inUse)
		}
		if k.pool != was {
			was.inUse -= k.inUse
			k.pool.inUse += k.inUse
			touched[was], touched[k.pool] = true, true
		}
	}
	for p := range touched {
		moving = p.leaveAll(moving)
	}
	// A pool's own line is in order already, but several become one here.
	slices.SortFunc(moving, byOrder)
	granted := m.regrant(moving)
	slices.SortFunc(granted, byOrder)
	for _, w := range granted {
		w.order = 0
	}
	return granted
}

// setCaps begins or ends what is kept for caps. Then all waiters are taken out of
// their lines and returned.
func (m *Manager) setCaps(c Caps, shared map[string]*pool) (moving []*Waiter) {
	if m.capped == nil && !c.on() {
		return nil
	}
	if m.capped != nil {
		moving = m.capped.leaveAll()
	}
	for k := range m.all() {
		moving = k.pool.leaveAll(moving)
		k.pool.capped = nil
	}
	for _, p := range shared {
		p.capped = nil
	}
	if m.capped = nil; c.on() {
		m.capped = newCapped(m, c)
	}
	return moving
}

// regrant puts waiters, who are in the order of their queue time, into the lines of
// the present rules, and grants what can be granted.
func (m *Manager) regrant(moving []*Waiter) (granted []*Waiter) {
	if m.capped != nil {
		return m.capped.regrant(moving)
	}
	for _, w := range moving {
		w.key.waiting++
		w.key.pool.waiting++
		w.key.pool.insert(w)
	}
	for p := range m.busyPools() {
		for p.first != nil && p.hasRoom() {
			granted = append(granted, p.grantFirst())
		}
	}
	return granted
}
