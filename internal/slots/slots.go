// Package slots keeps pools of slots and the lines of waiters for those slots. It knows nothing
// about tasks, models or the meaning of limits. [Rules] assign each name to a pool and set the caps
// that apply in addition to the pools.
//
// Without caps, each pool has one line. A released slot passes to the first waiter in
// that line in O(1) and without an allocation.
//
// With caps ([Caps.Total], [Caps.Agent]) or turns by root ([Caps.Fair]), a pool has one
// lane for each agent that has a cap, and one lane for all other agents. The same three limits
// block all waiters in a lane: the pool, the agent's cap, and the total. A lane has one line, or
// with Fair one line for each root. Lines are sorted by queue time.
//
//   - The place of a line is the order of its first waiter. Waiters that join the head of
//     the line come first. After them, the waiter that has waited longest comes first. With
//     Fair, the queue time of a line is never earlier than the pool's last grant to the root.
//     As a result, the root that has waited longest for a turn is first, each root gets one
//     turn per round, and places can be compared across pools.
//   - A lane has two gates: the gate of its pool and the gate of its cap. A gate is open
//     while it has room. Every lane with waiters is either filed at one of its gates or
//     stuck.
//   - An open gate with filed lanes is ready. One heap holds all ready gates, sorted by the
//     first place at each gate, so the first lane of the first gate has the first place among
//     all lanes that might start. If the other gate of that lane is open, the lane is granted
//     a slot. Otherwise, the lane is filed at the other gate. When both gates have rejected
//     the lane, the lane is stuck. Both gates note a stuck lane, and the lane is filed again
//     when both are open. Each gate keeps a set of its stuck lanes. When the gate opens, the
//     intersection of that set with the set of open gates on the other side yields the lanes
//     to file, up to 64 per step.
//   - Between calls, a gate can be ready only if the total is full.
//
// Therefore, a grant costs O(log n) for n lines, and another O(log n) for each lane that is rejected. A
// lane is rejected at most twice before it is stuck. It is filed again only when a waiter joins an empty
// lane, when a slot is kept or no longer kept, or when both of its gates are open. In the last case, the
// lane could have started if no other lane had been ahead of it. Therefore, n grants and joins cause O(n)
// rejections, plus two for each lane that could have started but was too late. If nearly all pools and caps
// are full, few lanes are too late. If most have room, the first lane that can start is found soon. The
// cost is highest between these extremes. If each of n caps has room with probability e, the cost is about
// min(en, 1/e) lanes. This is at most the square root of n.
//
// No structure does much better in every case. Let a bit matrix hold the agents that wait in each pool, and
// let a vector hold the agents whose caps have room. Then one bit of the product of the matrix and the vector
// shows whether a pool can grant a slot, and each bit of the vector changes in one step. An answer in
// O(log n) steps would contradict the conjecture on online matrix-vector multiplication.
//
// With Fair, a root that is served immediately gets a later place in all lanes of the pool. A lane at the
// gate of its cap is updated when it reaches the front, in O(log n) for each of its roots that were served
// since its last update. Each grant makes at most k lines out of date, and each of them is updated at most
// once, so grants cost O(k log n) on average. Here, k is the number of capped agents for which tasks of one
// root wait in one pool. The number k does not grow with the number of pools or agents. Lanes at the gate
// of a pool need no update, because they are sorted by root first and then by order. Again, no structure
// does much better if k is large. A grant must answer this question: is there a pool where tasks of the
// agent are waiting and the root has not been served since a given time? The answer is again one bit of a
// product of a matrix and a vector.
//
// A second heap sorts the lines of a pool by root and then by order. Its first line is the
// head of the pool. If a waiter behind the head is granted a slot of the pool, the head is
// passed over. After the head has been passed over [MaxPassed] times, the next free slot of
// the pool is kept for the lane of the head, and the next lane supplies the head. A kept slot
// takes room in its pool but not in a cap. Its lane is filed at the gate of its cap. At most
// one slot is kept for a lane. If one slot were kept for each waiter in the lane, the pool
// would be idle while the cap admits the waiters one by one.
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

// Rules assign each name to a pool and set the limit of that pool. A shared pool counts every
// name that is assigned to it. A pool that is not shared counts only one name. The name is in
// its normal form (see [Normal]). Implementations must be pure: the same name always gives the
// same answer.
type Rules interface {
	Pool(space Space, name string) (pool string, limit int, shared bool)
	Caps() Caps
}

// Space is a namespace. Equal names in different spaces are different names.
type Space uint8

// The spaces.
const (
	Models Space = iota
	Agents
	spaces
)

// Figures are the limit and the counts of one pool or cap.
type Figures struct {
	Name    string
	Limit   int // Unlimited if there is no limit
	InUse   int // number of held slots; greater than Limit only after a call to SetRules or Force
	Waiting int // number of waiters
	Cool    CoolDown
}

// Manager grants slots. A pool without caps serves its waiters in the order of their arrival: a released slot
// passes directly to the first waiter in line, and no later caller can take it. A Manager does not start
// goroutines and need not be closed. All methods are safe for concurrent use. [New] makes a Manager.
type Manager struct {
	tickets atomic.Uint64 // last queue time that was issued
	cooling atomic.Int32  // number of cool-downs

	// mu guards all fields below, every key, pool, Waiter and record that is reachable from
	// them, and Handle.key. It is a leaf lock: a goroutine that holds mu does not take another
	// lock, call a Grantee or block. Grants are reported to the owners after mu is released.
	mu     sync.Mutex
	keys   [spaces]map[string]*key // keys by name in normal form
	hot    [256]*key               // cache of the keys of models, because map look-ups are slow; may hold forgotten keys
	weight int                     // total weight of all keys
	churn  int                     // weight of the keys that were added or became idle since the last forgetIdle
	shared map[string]*pool        // shared pools by name
	rules  Rules
	capped *capped   // nil while the rules have no caps
	free   []*record // records for reuse, at most maxFreeRecords
	cools  []*cool   // cool-downs; see cool.go
	onCool func(at int64)
}

// New returns a manager with the given rules.
func New(r Rules) *Manager {
	m := &Manager{}
	m.tickets.Store(FirstTicket - 1)
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
	k := m.lockModel(model)
	if k.pool.isOpen() {
		s := m.handOut(k)
		m.mu.Unlock()
		return s, nil
	}
	return m.acquire(ctx, done, k)
}

// acquire takes a slot of a pool that is not open, or waits for one. The caller holds m.mu, and the method
// "acquire" unlocks it.
func (m *Manager) acquire(ctx context.Context, done <-chan struct{}, k *key) (Slot, error) {
	if k.pool.hasRoom() {
		s := m.handOutInCool(k)
		m.mu.Unlock()
		return s, nil
	}
	return m.wait(ctx, done, k)
}

// TryAcquire returns a slot of the model's pool if a slot is free and no waiter is ahead of
// the caller.
func (m *Manager) TryAcquire(model string) (Slot, bool) { return m.try(m.lockModel(model)) }

// try is TryAcquire for a key. The caller holds m.mu, and the method "try" unlocks it.
func (m *Manager) try(k *key) (Slot, bool) {
	defer m.mu.Unlock()
	switch {
	case k.pool.isOpen():
		return m.handOut(k), true
	case k.pool.hasRoom():
		return m.handOutInCool(k), true
	}
	return m.tryCapped(k)
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

// Pools returns the figures of every pool and every cap with held slots or waiters, sorted by name. An agent
// that has a cap instead of a pool appears only as that cap.
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

// Rules returns the current rules.
func (m *Manager) Rules() Rules {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.rules
}

// SetRules replaces the rules.
//
// A lower limit does not take away slots that are held. The pool grants no slot until the number of
// held slots is below the limit. A higher limit grants slots to waiters until the limit is reached. If
// the new rules assign a name to another pool, the waiters of that name move to the other pool's line
// and keep their queue times. The slots that the name holds then count in the other pool.
func (m *Manager) SetRules(r Rules) {
	m.mu.Lock()
	granted := m.setRulesLocked(r)
	m.mu.Unlock()
	for _, w := range granted {
		w.Owner.SlotGranted(w)
	}
}

// setRulesLocked replaces the rules, and returns the waiters that get a slot under the new rules, in their
// order in line. The caller must report the grants to their owners.
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
			if was.cool != nil {
				m.chill(k.pool, was.cool)
			}
		}
	}
	m.forgetCools()
	for p := range touched {
		moving = p.leaveAll(moving)
	}
	// Each line is in order, but the slice can hold the waiters of several lines.
	slices.SortFunc(moving, byOrder)
	granted := m.regrant(moving)
	slices.SortFunc(granted, byOrder)
	for _, w := range granted {
		w.order = 0
	}
	return granted
}

// setCaps creates, replaces or removes the records for caps. If the old or the new rules have caps,
// setCaps takes all waiters out of their lines and returns them.
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

// regrant queues the waiters according to the current rules. The waiters must be sorted by the field
// "order". regrant grants all slots that can be granted, and returns the waiters that got a slot.
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
