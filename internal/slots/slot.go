package slots

import "context"

// Slot is an acquired slot, until Release. It is a small value, and all copies of
// it are the same slot. The zero Slot is no slot.
type Slot struct {
	rec *record
	gen uint64
}

// Release gives the slot back. It goes to the first in line, if there is one. Only
// the first call on any copy has an effect.
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
	giveBack(&r.Waiter, k)
	m.recycle(r)
	if m.settled(k) {
		m.mu.Unlock()
		return
	}
	next := m.settle(k)
	m.mu.Unlock()
	if next != nil {
		next.Owner.SlotGranted(next)
	}
}

// record is the target of a Slot. Records are reused, so that a slot costs no
// allocation; gen distinguishes an old handle from the current one. It is compared
// under the manager's lock, which Release needs anyway: a compare-and-swap would be
// one more atomic operation.
type record struct {
	Waiter
	m     *Manager
	gen   uint64        // incremented whenever the record is freed
	ready chan struct{} // made by the first wait; receives when the slot is granted
}

// SlotGranted wakes the waiting Acquire. It never blocks: a record gets at most one
// grant per use, and is not reused while a grant may still come.
func (r *record) SlotGranted(*Waiter) { r.ready <- struct{}{} }

// maxFreeRecords bounds the records kept for reuse, so that one rush does not hold
// memory for ever.
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

// handOut returns a free slot. Nobody waits while there is room.
func (m *Manager) handOut(k *key) Slot {
	r := m.record()
	grant(&r.Waiter, k)
	return Slot{r, r.gen}
}

// wait waits for a slot. It is called with m.mu held and returns with m.mu
// unlocked.
func (m *Manager) wait(ctx context.Context, done <-chan struct{}, k *key) (Slot, error) {
	r := m.record()
	if r.ready == nil {
		r.ready = make(chan struct{}, 1)
	}
	s := Slot{r, r.gen}
	queue(&r.Waiter, k, false, m.Ticket())
	m.mu.Unlock()

	select {
	case <-r.ready:
		// Both channels may have been ready. An ended context never gets a slot.
		if err := ctx.Err(); err != nil {
			s.Release()
			return Slot{}, err
		}
		return s, nil
	case <-done:
	}
	m.mu.Lock()
	granted := r.holds()
	next := m.leaveLocked(&r.Waiter)
	if granted {
		// The granter is about to send on ready. The record is left to the garbage
		// collector, because its next user would take that for its own grant.
		r.gen++
	} else {
		m.recycle(r)
	}
	m.mu.Unlock()
	if next != nil {
		next.Owner.SlotGranted(next)
	}
	return Slot{}, ctx.Err()
}

// Handle is a looked-up model, for callers that acquire the same one again and
// again. It always refers to the pool that the current rules name.
type Handle struct {
	m    *Manager
	name string // in normal form
	key  *key   // guarded by m.mu; looked up again if the key was forgotten
}

// Handle looks up a model. A handle takes no slot and keeps no pool alive.
func (m *Manager) Handle(model string) Handle {
	k := m.lockModel(model)
	h := Handle{m: m, name: k.name, key: k}
	m.mu.Unlock()
	return h
}

// lock locks m.mu and returns the key.
func (h *Handle) lock() *key {
	h.m.mu.Lock()
	if k := h.key; k.pool != nil {
		return k
	}
	return h.lookUp()
}

func (h *Handle) lookUp() *key {
	h.key = h.m.keyLocked(Models, h.name)
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
