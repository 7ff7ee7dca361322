package slots

// Ticket returns a queue time. Each is greater than those before it.
func (m *Manager) Ticket() uint64 { return m.tickets.Add(1) }

// Take asks for a slot for w under the name and agent of h, see [Manager.For]. It
// reports whether w holds one now. Otherwise w stands in line: before all who are
// not for the head when head is set, and by its ticket among its like. Its owner
// is told when it is granted.
func (m *Manager) Take(w *Waiter, h *Handle, head bool, ticket uint64) (granted bool) {
	if ticket == 0 || ticket >= notHead {
		panic("bgagent: bug: a ticket that Manager.Ticket has not given out")
	}
	k := h.lock()
	if w.key != nil {
		m.mu.Unlock()
		panic("bgagent: bug: Take of a waiter that already waits or holds a slot")
	}
	// Nobody waits while there is room.
	switch granted = k.pool.hasRoom(); {
	case granted:
		grant(w, k)
	case m.capped != nil:
		granted = m.capped.take(w, k, head, ticket)
	default:
		queue(w, k, head, ticket)
	}
	m.mu.Unlock()
	return granted
}

// grant gives w a slot that is free.
func grant(w *Waiter, k *key) {
	w.key = k
	k.inUse++
	k.pool.inUse++
}

func queue(w *Waiter, k *key, head bool, ticket uint64) {
	k.waiting++
	k.pool.waiting++
	w.key, w.order = k, ticket
	if !head {
		w.order |= notHead
	}
	k.pool.insert(w)
}

// Leave gives up whatever w has: its place in line or its slot. Who can have a
// slot because of that is returned, already holding it, and the caller must tell
// it: next.Owner.SlotGranted(next), with no lock held. Where there are caps there
// may be more of them.
func (m *Manager) Leave(w *Waiter) (next *Waiter, more []*Waiter) {
	m.mu.Lock()
	next, more = m.leaveLocked(w)
	m.mu.Unlock()
	return next, more
}

// tell tells those that Leave has returned.
func tell(next *Waiter, more []*Waiter) {
	if next != nil {
		next.Owner.SlotGranted(next)
	}
	for _, w := range more {
		w.Owner.SlotGranted(w)
	}
}

func (m *Manager) leaveLocked(w *Waiter) (next *Waiter, more []*Waiter) {
	k := w.key
	switch {
	case k == nil:
		return nil, nil
	case w.waits():
		if m.capped != nil {
			m.capped.remove(w)
		} else {
			k.pool.remove(w)
			k.pool.waiting--
			k.waiting--
		}
		w.key, w.order = nil, 0
	default:
		m.giveBack(w, k)
	}
	return m.settle(k)
}

// giveBack takes its slot from w.
func (m *Manager) giveBack(w *Waiter, k *key) {
	w.key = nil
	k.inUse--
	k.pool.inUse--
	if m.capped != nil {
		m.capped.count(k, -1)
	}
}

// settled reports whether giving back a slot of k leaves nothing to do.
func (m *Manager) settled(k *key) bool {
	return k.pool.first == nil && m.weight <= maxIdle && m.capped == nil
}

// settle does what is to be done when somebody of k has left: the slot, if it
// was one, goes to the first in line.
func (m *Manager) settle(k *key) (next *Waiter, more []*Waiter) {
	if m.capped != nil {
		if more = m.capped.freed(k); len(more) > 0 {
			next, more = more[0], more[1:]
		}
	} else if p := k.pool; p.first != nil && p.hasRoom() {
		next = p.grantFirst()
		next.order = 0
	}
	if k.isIdle() {
		m.churned(k)
	}
	return next, more
}

// Holds reports whether w holds a slot.
func (m *Manager) Holds(w *Waiter) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return w.holds()
}

// Waits reports whether w stands in line.
func (m *Manager) Waits(w *Waiter) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return w.waits()
}

// MaxPlace bounds how far a place in line is counted.
const MaxPlace = 10_000

// Place returns the place of w in its line, counted from 1, with the figures of
// its pool. Where a cap keeps w waiting, it is the place among all whom the cap
// holds for, with the figures of the cap; with [Caps.Fair] only those of the same
// Root count. The place is 0 for one that does not wait or is further back than
// [MaxPlace]; the figures are zero for one that has nothing.
func (m *Manager) Place(w *Waiter) (place int, f Figures) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if w.key == nil {
		return 0, Figures{}
	}
	f = w.key.figures()
	if !w.waits() {
		return 0, f
	}
	if m.capped != nil {
		return m.capped.place(w)
	}
	for ; w != nil; w = w.prev {
		if place++; place > MaxPlace {
			return 0, f
		}
	}
	return place, f
}
