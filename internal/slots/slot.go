package slots

import "context"

// Slot is what Acquire has returned, until Release. It is a small value: all
// copies of it are the same slot. The zero Slot is none.
type Slot struct {
	rec *record
	gen uint64
}

// Release gives the slot back, to the first in line where there is one. It does
// so once: every further call, on whatever copy, does nothing.
func (s Slot) Release() {
	r := s.rec
	if r == nil {
		return
	}
	m := r.m
	m.mu.Lock()
	if r.gen != s.gen {
		m.mu.Unlock()
		return
	}
	k := r.key
	m.giveBack(&r.Waiter, k)
	m.recycle(r)
	if m.settled(k) {
		m.mu.Unlock()
		return
	}
	next, more := m.settle(k)
	m.mu.Unlock()
	tell(next, more)
}

// record is what a Slot points to. Records are used again, so that a slot costs
// no allocation; gen tells an old handle from the present one. It is compared
// under the manager's lock, which giving back needs anyway, and not with a
// compare-and-swap, which would be one more atomic operation.
type record struct {
	Waiter
	m     *Manager
	gen   uint64        // grows whenever the record is put away
	ready chan struct{} // made by the first that waits; told that the slot is granted
}

// SlotGranted wakes the Acquire that waits. It never blocks: a record is told
// at most once in its use, and one that may still be told is not used again.
func (r *record) SlotGranted(*Waiter) { r.ready <- struct{}{} }

// maxFreeRecords bounds the records kept for use again, so that one great rush
// does not hold memory for ever.
const maxFreeRecords = 1024

func (m *Manager) record() *record {
	if n := len(m.free); n > 0 {
		r := m.free[n-1]
		m.free = m.free[:n-1]
		return r
	}
	r := &record{m: m}
	r.Owner = r
	return r
}

func (m *Manager) recycle(r *record) {
	r.gen++
	if len(m.free) < maxFreeRecords {
		m.free = append(m.free, r)
	}
}

// handOut returns a slot that is free. Nobody waits while there is room.
func (m *Manager) handOut(k *key) Slot {
	r := m.record()
	grant(&r.Waiter, k)
	return Slot{r, r.gen}
}

// wait waits for a slot. It is entered with m.mu held and leaves it unlocked.
func (m *Manager) wait(ctx context.Context, done <-chan struct{}, k *key) (Slot, error) {
	r := m.record()
	if r.ready == nil {
		r.ready = make(chan struct{}, 1)
	}
	s := Slot{r, r.gen}
	if m.capped == nil {
		queue(&r.Waiter, k, false, m.Ticket())
	} else if m.capped.take(&r.Waiter, k, false, m.Ticket()) {
		m.mu.Unlock()
		return s, nil
	}
	m.mu.Unlock()

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
	m.mu.Lock()
	granted := r.holds()
	next, more := m.leaveLocked(&r.Waiter)
	if granted {
		// Whoever granted it is about to tell it. The record is left to the
		// garbage collector: its next user would take that for its own grant.
		r.gen++
	} else {
		m.recycle(r)
	}
	m.mu.Unlock()
	tell(next, more)
	return Slot{}, ctx.Err()
}

// Handle is a model looked up beforehand, for those who acquire the same one
// again and again. It always speaks of the pool that the present rules name.
type Handle struct {
	m     *Manager
	name  string // normal
	agent string // normal; the same as name in the space of agents
	key   *key   // guarded by m.mu; looked up again when it has been forgotten
	space Space
}

// Handle looks a model up. That takes no slot and keeps no pool alive.
func (m *Manager) Handle(model string) Handle {
	k := m.lockModel(model)
	h := Handle{m: m, name: k.name, key: k}
	m.mu.Unlock()
	return h
}

// For looks up what [Manager.Take] counts by: the name that decides on the pool,
// and the agent that a cap may hold for. In the space of agents the name is the
// agent.
func (m *Manager) For(space Space, name, agent string) Handle {
	if space == Agents {
		agent = name
	}
	h := Handle{m: m, name: Normal(name), agent: Normal(agent), space: space}
	m.mu.Lock()
	h.lookUp()
	m.mu.Unlock()
	return h
}

// lock returns the key with m.mu held.
func (h *Handle) lock() *key {
	h.m.mu.Lock()
	if k := h.key; k.pool != nil {
		return k
	}
	return h.lookUp()
}

func (h *Handle) lookUp() *key {
	h.key = h.m.ofAgent(h.space, h.name, h.agent)
	return h.key
}

// Acquire is [Manager.Acquire] for the model.
func (h *Handle) Acquire(ctx context.Context) (Slot, error) {
	done := ctx.Done()
	if done != nil {
		select {
		case <-done:
			return Slot{}, ctx.Err()
		default:
		}
	}
	return h.m.acquire(ctx, done, h.lock())
}

// TryAcquire is [Manager.TryAcquire] for the model.
func (h *Handle) TryAcquire() (Slot, bool) { return h.m.try(h.lock()) }

// Stats is [Manager.Stats] for the model.
func (h *Handle) Stats() Figures { return h.m.Stats(h.name) }
