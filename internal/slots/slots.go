// Package slots keeps pools of slots and the lines of waiters for those slots. It
// knows nothing of tasks, of models or of the meaning of limits: [Rules] assign each
// name to a pool and set the caps that apply in addition to the pools.
//
// Without caps, each pool has one line. A released slot passes to the first waiter in
// that line in O(1) and without an allocation.
//
// With caps ([Caps.Total], [Caps.Agent]) or turns by root ([Caps.Fair]), a pool has one
// lane for each agent that has a cap, and one lane for all other agents. The same three
// limits block all waiters in a lane: the pool, the cap of the agent, and the total. A
// lane has one line, or with Fair one line for each root. Lines are sorted by queue time.
//
//   - The place of a line is the order of its first waiter: waiters for the head of the
//     line come first, and then the waiter that has waited longest. With Fair, the queue
//     time counts from the last slot that the pool granted to the root, if that is
//     later. So the root that has waited longest for a turn is first, each root gets one
//     turn in a round, and places can be compared across pools.
//   - A lane has two gates: the gate of its pool and the gate of its cap. A gate is open
//     while it has room. Every lane with waiters is filed at one of its gates or stuck.
//   - An open gate with filed lanes is ready. One heap holds all ready gates, sorted by
//     the first place filed at each gate. So the first lane of the first gate has the
//     first place of all lanes that may start. If the other gate of that lane is open,
//     the lane is granted a slot. Otherwise the lane is filed at the other gate. When
//     both gates have turned the lane away, the lane is stuck. Both gates note a stuck
//     lane, and the lane is filed again when both are open. Each gate keeps a set of
//     bits for its stuck lanes. When the gate opens, the intersection of that set with
//     the set of open gates on the other side yields the lanes to file, 64 per step.
//   - Between calls, no gate is ready unless the total is full.
//
// So a grant costs O(log n) for n lines, and another O(log n) for each lane that is
// turned away. A lane is turned away at most twice before it is stuck. It is filed again
// only when a waiter joins an empty lane, when a slot is kept or no longer kept, or when
// both of its gates are open. In the last case the lane could have started if no other
// lane had been before it. Hence n grants and joins together turn away O(n) lanes, plus
// two for each lane that could have started and was too late. If nearly all pools and
// caps are full, such lanes are rare. If most have room, the first lane that can start is
// found soon. The cost is highest in between: if each of n caps has room at random for a
// fraction e of the time, it is about min(en, 1/e) lanes, and so at most the root of n.
//
// No structure does much better in every case. Let a bit matrix hold the agents that wait
// in each pool, and let a vector hold the agents whose caps have room. Then one bit of the
// product of matrix and vector decides whether a pool can grant a slot, and each bit of
// the vector changes in one step. An answer in O(log n) steps would contradict the
// conjecture on online matrix-vector multiplication.
//
// With Fair, a root that is served gets a later place in all lanes of the pool at once. A
// lane at the gate of its cap is updated when it reaches the front, in O(log n) for each
// of its roots that were served. So a cap with lanes in many pools may visit each of
// these lanes before each grant. Lanes at the gate of a pool need no such update, because
// they are sorted by root first and then by order.
//
// A second heap sorts the lines of a pool by root and then by order. Its first line is
// the head of the pool. A grant of the pool's slots to a waiter behind the head passes
// the head over. After [MaxPassed] such grants, the next free slot of the pool is kept for
// the lane of the head, and the next lane supplies the head. A kept slot takes room in
// its pool but not in a cap. Its lane is filed at the gate of its cap. At most one slot
// is kept for a lane: one slot for each waiter in it would leave the pool idle while the
// cap admits the waiters one by one.
package slots

import (
	"context"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// Unlimited is the value of a limit that allows any number of slots.
const Unlimited = -1

// Rules assign each name to a pool and set the limit of that pool. A shared pool
// counts every name that is assigned to it. A pool that is not shared counts one
// name alone. The name is in its normal form (see [Normal]). Implementations must
// be pure: the same name always gives the same answer.
type Rules interface {
	Pool(space Space, name string) (pool string, limit int, shared bool)
	Caps() Caps
}

// Space is a kind of names. Equal names in different spaces are different names.
type Space uint8

// The spaces of names.
const (
	Models Space = iota
	Agents
	spaces
)

// Figures are the limit and the counts of one pool or cap.
type Figures struct {
	Name    string
	Limit   int // Unlimited if there is no limit
	InUse   int // number of slots that are held; above Limit only after SetRules
	Waiting int // number of waiters
}

// Manager hands out slots. A pool without caps serves its waiters in the order of
// their arrival: a released slot passes directly to the first waiter in line, and no
// later caller can take it. A Manager starts no goroutine and needs no Close. All
// methods are safe for concurrent use. [New] makes a Manager.
type Manager struct {
	tickets atomic.Uint64 // the last queue time drawn

	// mu guards all fields below, every key, pool, Waiter and record reachable
	// from them, and Handle.key. It is a leaf lock: a goroutine that holds mu takes
	// no other lock, calls no Grantee and does not block. Grants are reported to
	// the owners after mu is released.
	mu     sync.Mutex
	keys   [spaces]map[string]*key // keys by name in normal form
	hot    [256]*key               // cache of model keys; may hold forgotten keys; a map look-up would cost as much as the rest of Acquire
	weight int                     // total weight of all keys
	churn  int                     // weight of the keys that came or fell idle since the last forgetIdle
	shared map[string]*pool        // shared pools by name
	rules  Rules
	capped *capped   // nil while the rules have no caps
	free   []*record // records for reuse, at most maxFreeRecords
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

// Acquire waits for a slot of the model's pool. If ctx ends before a slot is
// granted, Acquire returns ctx.Err() and no slot.
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

// acquire takes a slot or waits for a slot. The caller holds m.mu, and acquire
// unlocks it.
func (m *Manager) acquire(ctx context.Context, done <-chan struct{}, k *key) (Slot, error) {
	if k.pool.hasRoom() {
		s := m.handOut(k)
		m.mu.Unlock()
		return s, nil
	}
	return m.wait(ctx, done, k)
}

// TryAcquire returns a slot of the model's pool if a slot is free and no waiter is
// before the caller.
func (m *Manager) TryAcquire(model string) (Slot, bool) { return m.try(m.lockModel(model)) }

// try is TryAcquire for a key. The caller holds m.mu, and try unlocks it.
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

// Stats returns the figures of the pool that counts the model.
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

// Pools returns the figures of every pool and every cap that has held slots or
// waiters, sorted by name. An agent that has a cap in place of a pool is counted in
// its cap only.
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

// Rules returns the present rules.
func (m *Manager) Rules() Rules {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.rules
}

// SetRules replaces the rules.
//
// A lower limit takes no slot away, and the pool grants no slot until its use is
// below the limit. A higher limit grants slots to as many waiters as it allows. If
// the new rules assign a name to another pool, the waiters of that name move to the
// other pool's line, where they keep their queue times. The slots that the name
// holds count in the other pool from then on.
func (m *Manager) SetRules(r Rules) {
	m.mu.Lock()
	granted := m.setRulesLocked(r)
	m.mu.Unlock()
	for _, w := range granted {
		w.Owner.SlotGranted(w)
	}
}

// setRulesLocked returns the waiters that the new rules grant a slot, in their order
// in line. The caller must report the grants to their owners.
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
	// Each line is in order, but moving may combine several lines.
	slices.SortFunc(moving, byOrder)
	granted := m.regrant(moving)
	slices.SortFunc(granted, byOrder)
	for _, w := range granted {
		w.order = 0
	}
	return granted
}

// setCaps creates, replaces or removes the records for caps. If the old or the new rules
// have caps, it takes all waiters out of their lines and returns them.
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

// regrant puts the waiters, which are sorted by order, into the lines of the present
// rules. It grants all slots that can be granted and returns the waiters that got one.
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
