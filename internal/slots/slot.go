package slots

import "context"

// Slot is a slot that Acquire or TryAcquire has granted. All copies of a Slot value
// stand for the same slot. The zero Slot stands for no slot.
type Slot struct {
	rec *record
	gen uint64
}

// Release gives the slot back, and the slot passes to the first waiter that can have
// it. Further calls, on any copy of the Slot, do nothing.
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

// record is the state behind a Slot. Records are reused so that a slot costs no
// allocation, and gen distinguishes an old Slot from the present Slot. Release
// compares gen while it holds the manager's lock, which it needs in any case. A
// compare-and-swap would be an additional atomic operation.
type record struct {
	Waiter
	m     *Manager
	gen   uint64        // incremented when the record is put away
	ready chan struct{} // receives a value when the slot is granted; made by the first wait
}

// SlotGranted wakes the waiting Acquire. It never blocks: ready has room for one
// value, each use of a record gets at most one call, and a record that may still get a
// call is not reused.
func (r *record) SlotGranted(*Waiter) { r.ready <- struct{}{} }

// maxFreeRecords is the maximum number of records kept for reuse. It bounds the memory
// that remains in use after a burst of slots.
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

// handOut returns a free slot. The pool has room, so it has no waiters to pass over.
func (m *Manager) handOut(k *key) Slot {
	r := m.record()
	grant(&r.Waiter, k)
	return Slot{r, r.gen}
}

// wait waits for a slot. The caller holds m.mu, and wait unlocks it.
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
		// Both channels may have been ready. A caller whose context has ended must
		// not get a slot.
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
		// The goroutine that granted the slot is about to call SlotGranted. The record
		// is not reused, because its next user would take that call for its own grant.
		r.gen++
	} else {
		m.recycle(r)
	}
	m.mu.Unlock()
	tell(next, more)
	return Slot{}, ctx.Err()
}

// Handle is the result of looking up a model or an agent, for callers that acquire
// its slots repeatedly. It always uses the pool that the present rules assign.
type Handle struct {
	m     *Manager
	name  string // in normal form
	agent string // in normal form; the same as name in the space of agents
	key   *key   // guarded by m.mu; looked up again if the manager has forgotten it
	space Space
}

// Handle looks a model up. A Handle holds no slot and keeps no pool alive.
func (m *Manager) Handle(model string) Handle {
	k := m.lockModel(model)
	h := Handle{m: m, name: k.name, key: k}
	m.mu.Unlock()
	return h
}

// For returns the handle that [Manager.Take] needs. name determines the pool, and
// agent determines the cap. In the space of agents, name is the agent.
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

// lock locks m.mu and returns the key.
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

// Acquire is [Manager.Acquire] for the name of the handle.
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

// TryAcquire is [Manager.TryAcquire] for the name of the handle.
func (h *Handle) TryAcquire() (Slot, bool) { return h.m.try(h.lock()) }

// Stats is [Manager.Stats] for the name of the handle, which must be the name of a model.
func (h *Handle) Stats() Figures { return h.m.Stats(h.name) }
