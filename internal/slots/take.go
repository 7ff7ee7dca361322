package slots

// Ticket returns a queue time. Each is greater than those before it.
func (m *Manager) Ticket() uint64 { return m.tickets.Add(1) }

// Take asks for a slot for w under a name. It reports whether w holds one now.
// Otherwise w stands in line: before all who are not for the head when head is
// set, and by its ticket among its like. Its owner is told when it is granted.
func (m *Manager) Take(w *Waiter, space Space, name string, head bool, ticket uint64) (granted bool) {
	if ticket == 0 || ticket >= notHead {
		panic("bgagent: bug: a ticket that Manager.Ticket has not given out")
	}
	var k *key
	if space == Models {
		k = m.lockModel(name)
	} else {
		k = m.lockKey(space, name)
	}
	if w.key != nil {
		m.mu.Unlock()
		panic("bgagent: bug: a slot is asked for by one who waits or holds one already")
	}
	// Nobody waits while there is room.
	if granted = k.pool.hasRoom(); granted {
		grant(w, k)
	} else {
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
	w.key, w.order = k, ticket
	if !head {
		w.order |= notHead
	}
	k.pool.insert(w)
}

// Leave gives up whatever w has: its place in line or its slot. When its slot
// has passed to another, that one is returned, already holding it, and the
// caller must tell it: next.Owner.SlotGranted(next), with no lock held.
func (m *Manager) Leave(w *Waiter) (next *Waiter) {
	m.mu.Lock()
	next = m.leaveLocked(w)
	m.mu.Unlock()
	return next
}

func (m *Manager) leaveLocked(w *Waiter) (next *Waiter) {
	k := w.key
	switch {
	case k == nil:
		return nil
	case w.waits():
		k.pool.remove(w)
		k.waiting--
		w.key, w.order = nil, 0
	default:
		giveBack(w, k)
	}
	return m.settle(k)
}

// giveBack takes its slot from w.
func giveBack(w *Waiter, k *key) {
	w.key = nil
	k.inUse--
	k.pool.inUse--
}

// settled reports whether giving back a slot of k leaves nothing to do.
func (m *Manager) settled(k *key) bool {
	return k.pool.first == nil && m.weight <= maxIdle
}

// settle does what is to be done when somebody of k has left: the slot, if it
// was one, goes to the first in line.
func (m *Manager) settle(k *key) (next *Waiter) {
	if p := k.pool; p.first != nil && p.hasRoom() {
		next = p.grantFirst()
		next.order = 0
	}
	if k.isIdle() {
		m.churned(k)
	}
	return next
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
// its pool. The place is 0 for one that does not wait or is further back than
// [MaxPlace]; the figures are zero for one that has nothing.
func (m *Manager) Place(w *Waiter) (place int, f Figures) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if w.key == nil {
		return 0, Figures{}
	}
	f = w.key.pool.figures()
	if !w.waits() {
		return 0, f
	}
	for ; w != nil; w = w.prev {
		if place++; place > MaxPlace {
			return 0, f
		}
	}
	return place, f
}
