package bgagent

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// ConcurrencyManager hands out slots: the right to run turns of a model now. It
// keeps one pool for each entry of its [Limits] and one for each model that
// only the default limit applies to. Inside a pool it is first come, first
// served: a slot that is given back goes straight to the first in line, and
// nobody can overtake.
//
// It is useful by itself, knows nothing of tasks, starts no goroutine and needs
// no closing. All methods are safe for concurrent use. Make one with
// [NewConcurrencyManager]; to share slots, give it to several managers in
// Config.Concurrency.
type ConcurrencyManager struct {
	tickets atomic.Uint64 // the last queue time given out

	// mu guards everything below, every key, pool, waiter and slotRecord that
	// is reached through it, and Pool.key. It is a leaf: while it is held no
	// other lock is taken, nobody is told of anything and nothing blocks. Who
	// has been granted a slot is told after it is released.
	mu         sync.Mutex
	keys       [2]map[string]*key // by space, then by normal name
	hot        [256]*key          // some of the models, because a map look-up costs as much as the rest of Acquire; may be forgotten ones
	weight     int                // of all keys
	churn      int                // weight of the keys that came or fell idle since the last forgetIdle
	byModel    map[string]*pool   // of the entries of limits.Model
	byProvider map[string]*pool   // of the entries of limits.Provider
	limits     Limits             // normal; its maps are never changed, only replaced
	free       []*slotRecord      // records to use again, at most maxFreeRecords
}

// PoolStats are the figures of one pool.
type PoolStats struct {
	// Name is that of the entry that decided: "model claude-opus",
	// "provider anthropic", "default openai/gpt", "agent explore" for what has no
	// model, "default" alone for what has no name at all.
	Name    string `json:"name"`
	Limit   int    `json:"limit"`   // Unlimited for none
	InUse   int    `json:"in_use"`  // slots that are out; above Limit only after SetLimits
	Waiting int    `json:"waiting"` // how many wait for a slot
}

// NewConcurrencyManager returns a manager with these limits, or an
// [*InputError] that says which of them is wrong. The zero Limits are fine:
// [DefaultConcurrency] for each model.
func NewConcurrencyManager(l Limits) (*ConcurrencyManager, error) {
	c := &ConcurrencyManager{}
	c.keys[modelSpace] = make(map[string]*key)
	c.keys[agentSpace] = make(map[string]*key)
	if err := c.SetLimits(l); err != nil {
		return nil, err
	}
	return c, nil
}

// Acquire waits for a slot of the model's pool and returns it. The model is
// written "provider/model", or as a model id alone when its provider is not
// known. When ctx ends first, or has already ended, Acquire returns ctx.Err()
// and no slot.
func (c *ConcurrencyManager) Acquire(ctx context.Context, model string) (Slot, error) {
	done := ctx.Done()
	if done != nil {
		select {
		case <-done:
			return Slot{}, ctx.Err()
		default:
		}
	}
	k := c.lockModel(model)
	if k.pool.hasRoom() {
		s := c.handOut(k)
		c.mu.Unlock()
		return s, nil
	}
	return c.wait(ctx, done, k)
}

// TryAcquire returns a slot of the model's pool if one is free and nobody waits
// for it.
func (c *ConcurrencyManager) TryAcquire(model string) (Slot, bool) {
	k := c.lockModel(model)
	if !k.pool.hasRoom() {
		c.mu.Unlock()
		return Slot{}, false
	}
	s := c.handOut(k)
	c.mu.Unlock()
	return s, true
}

// Stats returns the figures of the pool that the model is counted in.
func (c *ConcurrencyManager) Stats(model string) PoolStats {
	name := normalName(model)
	c.mu.Lock()
	defer c.mu.Unlock()
	if k := c.keys[modelSpace][name]; k != nil {
		return k.pool.stats()
	}
	if p := c.entry(modelSpace, name); p != nil {
		return p.stats()
	}
	return PoolStats{Name: ownPoolName(modelSpace, name), Limit: c.limits.Default}
}

// Pools returns the figures of every pool that has slots out or somebody
// waiting, sorted by name.
func (c *ConcurrencyManager) Pools() []PoolStats {
	c.mu.Lock()
	var out []PoolStats
	for p := range c.busyPools() {
		out = append(out, p.stats())
	}
	c.mu.Unlock()
	slices.SortFunc(out, func(a, b PoolStats) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// Limits returns a copy of the limits that apply: names trimmed and in lower
// case, entries of 0 left out, the default filled in.
func (c *ConcurrencyManager) Limits() Limits {
	c.mu.Lock()
	l := c.limits
	c.mu.Unlock()
	return l.clone()
}

// SetLimits replaces all limits. It changes nothing and returns an
// [*InputError] when one of them is wrong.
//
// Slots that are out stay out: lowering a limit takes nothing away and grants
// nothing until the pool is below it; raising it serves as many as now fit.
// Where the new limits name another pool for a model, those who wait for that
// model move there and stand in line by the time they have waited since, and
// its slots that are out count in that pool from now on.
func (c *ConcurrencyManager) SetLimits(l Limits) error {
	l, err := l.normal()
	if err != nil {
		return fmt.Errorf("bgagent: limits: %w", err)
	}
	c.mu.Lock()
	granted := c.setLimitsLocked(l)
	c.mu.Unlock()
	for _, w := range granted {
		w.owner.slotGranted(w)
	}
	return nil
}

// setLimitsLocked applies limits that are normal and returns those who hold a
// slot by it, longest waiting first. They have not been told yet.
func (c *ConcurrencyManager) setLimitsLocked(l Limits) []*waiter {
	c.limits = l
	c.byModel = entryPools(c.byModel, "model ", l.Model)
	c.byProvider = entryPools(c.byProvider, "provider ", l.Provider)
	c.forgetIdle()

	touched := make(map[*pool]bool)
	for _, keys := range c.keys {
		for _, k := range keys {
			was := k.pool
			c.assign(k)
			if k.pool != was {
				was.inUse -= k.inUse
				k.pool.inUse += k.inUse
				touched[was], touched[k.pool] = true, true
			}
		}
	}
	var moving []*waiter
	for p := range touched {
		moving = p.takeAll(moving)
	}
	// A pool's own line is in order already, but several become one here.
	slices.SortFunc(moving, byOrder)
	for _, w := range moving {
		w.key.pool.insert(w)
	}

	var granted []*waiter
	for p := range c.busyPools() {
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

// Slot is the right to run turns, from Acquire to Release. It is a small value:
// all copies of it are the same slot. The zero Slot is none.
type Slot struct {
	rec *slotRecord
	gen uint64
}

// Release gives the slot back, to the first in line where there is one. It does
// so once: every further call, on whatever copy, does nothing.
func (s Slot) Release() {
	r := s.rec
	if r == nil {
		return
	}
	c := r.c
	c.mu.Lock()
	if r.gen != s.gen {
		c.mu.Unlock()
		return
	}
	k := r.key
	giveBack(&r.waiter, k)
	c.recycle(r)
	if c.settled(k) {
		c.mu.Unlock()
		return
	}
	next := c.settle(k)
	c.mu.Unlock()
	if next != nil {
		next.owner.slotGranted(next)
	}
}

// slotRecord is what a Slot points to. Records are used again, so that a slot
// costs no allocation; gen tells an old handle from the present one. It is
// compared under the manager's lock, which giving back needs anyway, and not
// with a compare-and-swap, which would be one more atomic operation.
type slotRecord struct {
	waiter
	c     *ConcurrencyManager
	gen   uint64        // grows whenever the record is put away
	ready chan struct{} // made by the first that waits; told that the slot is granted
}

// slotGranted wakes the Acquire that waits. It never blocks: a record is told
// at most once in its use, and one that may still be told is not used again.
func (r *slotRecord) slotGranted(*waiter) { r.ready <- struct{}{} }

// maxFreeRecords bounds the records kept for use again, against one great rush
// holding memory for ever.
const maxFreeRecords = 1024

func (c *ConcurrencyManager) record() *slotRecord {
	if n := len(c.free); n > 0 {
		r := c.free[n-1]
		c.free = c.free[:n-1]
		return r
	}
	r := &slotRecord{c: c}
	r.owner = r
	return r
}

func (c *ConcurrencyManager) recycle(r *slotRecord) {
	r.gen++
	if len(c.free) < maxFreeRecords {
		c.free = append(c.free, r)
	}
}

// handOut returns a slot that is free. Nobody waits while there is room.
func (c *ConcurrencyManager) handOut(k *key) Slot {
	r := c.record()
	grant(&r.waiter, k)
	return Slot{r, r.gen}
}

// wait waits for a slot. It is entered with c.mu held and leaves it unlocked.
func (c *ConcurrencyManager) wait(ctx context.Context, done <-chan struct{}, k *key) (Slot, error) {
	r := c.record()
	if r.ready == nil {
		r.ready = make(chan struct{}, 1)
	}
	s := Slot{r, r.gen}
	queue(&r.waiter, k, false, c.ticket())
	c.mu.Unlock()

	select {
	case <-r.ready:
		// Both may have been ready. An ended context never gets a slot.
		if err := ctx.Err(); err != nil {
			s.Release()
			return Slot{}, err
		}
		return s, nil
	case <-done:
	}
	c.mu.Lock()
	granted := r.holds()
	next := c.leaveLocked(&r.waiter)
	if granted {
		// Whoever granted it is about to tell it. The record is left to the
		// garbage collector, lest its next user takes that for its own grant.
		r.gen++
	} else {
		c.recycle(r)
	}
	c.mu.Unlock()
	if next != nil {
		next.owner.slotGranted(next)
	}
	return Slot{}, ctx.Err()
}

// Pool is a model looked up beforehand, for those who acquire the same one again
// and again. It always speaks of the pool that the present limits name.
type Pool struct {
	c    *ConcurrencyManager
	name string // normal
	key  *key   // guarded by c.mu; looked up again when it has been forgotten
}

// Pool looks a model up. That takes no slot and keeps no pool alive.
func (c *ConcurrencyManager) Pool(model string) *Pool {
	k := c.lockModel(model)
	p := &Pool{c: c, name: k.name, key: k}
	c.mu.Unlock()
	return p
}

// lock returns the key with c.mu held.
func (p *Pool) lock() *key {
	p.c.mu.Lock()
	if k := p.key; k.pool != nil {
		return k
	}
	return p.lookUp()
}

func (p *Pool) lookUp() *key {
	p.key = p.c.keyLocked(modelSpace, p.name)
	return p.key
}

// Acquire is [ConcurrencyManager.Acquire] for the model.
func (p *Pool) Acquire(ctx context.Context) (Slot, error) {
	done := ctx.Done()
	if done != nil {
		select {
		case <-done:
			return Slot{}, ctx.Err()
		default:
		}
	}
	c, k := p.c, p.lock()
	if k.pool.hasRoom() {
		s := c.handOut(k)
		c.mu.Unlock()
		return s, nil
	}
	return c.wait(ctx, done, k)
}

// TryAcquire is [ConcurrencyManager.TryAcquire] for the model.
func (p *Pool) TryAcquire() (Slot, bool) {
	c, k := p.c, p.lock()
	if !k.pool.hasRoom() {
		c.mu.Unlock()
		return Slot{}, false
	}
	s := c.handOut(k)
	c.mu.Unlock()
	return s, true
}

// Stats is [ConcurrencyManager.Stats] for the model.
func (p *Pool) Stats() PoolStats { return p.c.Stats(p.name) }
