package slots

import "context"

// Slot is a slot that Acquire or TryAcquire has granted. All copies of a Slot value represent
// the same slot. The zero Slot represents no slot.
type Slot struct {
	rec *record
	gen uint64
}

// Release releases the slot. The slot then passes to the first waiter that can use it. Further calls, on any
// copy of the Slot, do nothing.
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
	if p := k.pool; p.isPlain() && p.first == nil && r.prev == nil && m.weight <= maxIdle {
		uncount(&r.Waiter, k) // the usual case needs nothing else
		m.recycle(r)
		m.mu.Unlock()
		return
	}
	next, more := m.leaveProved(r)
	m.mu.Unlock()
	Tell(next, more)
}

// leaveProved releases the slot of r, recycles r, and returns the waiters that get slots as a result. A slot
// that is released without a refusal counts as proved.
func (m *Manager) leaveProved(r *record) (next *Waiter, more []*Waiter) {
	k := r.key
	var granted []*Waiter
	if r.passes() {
		granted = m.proved(&r.Waiter)
	}
	m.giveBack(&r.Waiter, k)
	m.recycle(r)
	next, more = m.settle(k)
	if len(granted) == 0 {
		return next, more
	}
	if next != nil {
		granted = append(granted, next)
	}
	return nil, append(granted, more...)
}

// record is the state behind a Slot. Records are reused, so that a slot costs no allocation. The field gen
// distinguishes an old Slot from the current Slot. Release compares gen under the manager's lock, because it
// needs that lock in any case. A compare-and-swap would be an additional atomic operation.
type record struct {
	Waiter
	m     *Manager
	gen   uint64        // incremented when the record is recycled
	ready chan struct{} // receives a value when the slot is granted; created by the first wait
}

// SlotGranted wakes the waiting Acquire. It never blocks, for three reasons: the channel has
// room for one value, each use of a record gets at most one call, and a record is not reused
// while a call may still come.
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

// handOut grants a free slot of a plain pool. The pool must have room. A pool with room has no
// waiters, so no waiter is passed over.
func (m *Manager) handOut(k *key) Slot {
	r := m.record()
	count(&r.Waiter, k)
	return Slot{r, r.gen}
}

// handOutInCool is handOut for a pool with a cool-down.
func (m *Manager) handOutInCool(k *key) Slot {
	r := m.record()
	grant(&r.Waiter, k)
	return Slot{r, r.gen}
}

// wait blocks until a slot is granted or ctx ends. The caller holds m.mu, and the method "wait" unlocks it.
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
		// Both channels might have been ready. A caller whose context has ended must not get a
		// slot.
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
		// The goroutine that granted the slot is about to call SlotGranted. The record must not be reused,
		// because its next user would mistake that call for its own grant.
		r.gen++
	} else {
		m.recycle(r)
	}
	m.mu.Unlock()
	Tell(next, more)
	return Slot{}, ctx.Err()
}

// Handle is the result of looking up a model or an agent. It is for callers that acquire slots of the same
// model or agent repeatedly. It always uses the pool that the current rules assign to the name.
type Handle struct {
	m     *Manager
	name  string // in normal form
	agent string // in normal form; equal to name if space is Agents
	key   *key   // guarded by m.mu; looked up again if the manager has forgotten it
	space Space
}

// Handle looks up a model. A Handle does not hold a slot or keep a pool alive.
func (m *Manager) Handle(model string) Handle {
	k := m.lockModel(model)
	h := Handle{m: m, name: k.name, key: k}
	m.mu.Unlock()
	return h
}

// For returns the handle that [Manager.Take] needs. The name determines the pool, and the agent determines
// the cap. In the space Agents, the agent is the name itself.
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

// Name returns the handle's name in its normal form.
func (h *Handle) Name() string { return h.name }

// lock locks m.mu and returns the key.
func (h *Handle) lock() *key {
	h.m.mu.Lock()
	if k := h.key; k.pool != nil { // found, without a call
		return k
	}
	return h.lookUp()
}

// The method "found" returns the key. The caller holds m.mu.
func (h *Handle) found() *key {
	if k := h.key; k.pool != nil {
		return k
	}
	return h.lookUp()
}

func (h *Handle) lookUp() *key {
	h.key = h.m.ofAgent(h.space, h.name, h.agent)
	return h.key
}

// Acquire is like [Manager.Acquire], with the handle's name.
func (h *Handle) Acquire(ctx context.Context) (Slot, error) {
	done := ctx.Done()
	if done != nil {
		select {
		case <-done:
			return Slot{}, ctx.Err()
		default:
		}
	}
	m, k := h.m, h.lock()
	if k.pool.isOpen() {
		s := m.handOut(k)
		m.mu.Unlock()
		return s, nil
	}
	return m.acquire(ctx, done, k)
}

// TryAcquire is like [Manager.TryAcquire], with the handle's name.
func (h *Handle) TryAcquire() (Slot, bool) { return h.m.try(h.lock()) }

// Stats is like [Manager.Stats], with the handle's name, which must be the name of a model.
func (h *Handle) Stats() Figures { return h.m.Stats(h.name) }
