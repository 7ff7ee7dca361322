package slots

// Ticket returns a queue time. Each one is greater than all earlier ones.
func (m *Manager) Ticket() uint64 { return m.tickets.Add(1) }

// Take requests a slot for w under a name, and reports whether w got one at once.
// Otherwise w waits in line. Waiters with head set go before all others, and
// tickets decide within each group. The owner of w is notified when it gets a slot.
func (m *Manager) Take(w *Waiter, space Space, name string, head bool, ticket uint64) (granted bool) {
	if ticket == 0 || ticket >= notHead {
		panic("bgagent: bug: Take with a ticket that Manager.Ticket did not issue")
	}
	var k *key
	if space == Models {
		k = m.lockModel(name)
	} else {
		k = m.lockKey(space, name)
	}
	if w.key != nil {
		m.mu.Unlock()
		panic("bgagent: bug: Take of a waiter that already waits or holds a slot")
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

// grant gives w a free slot.
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

// Leave gives up w's place in line or its slot. If the slot passed to another
// waiter, Leave returns that waiter, which already holds it. The caller must then
// call next.Owner.SlotGranted(next) with no lock held.
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

// giveBack takes w's slot away.
func giveBack(w *Waiter, k *key) {
	w.key = nil
	k.inUse--
	k.pool.inUse--
}

// settled reports whether settle has nothing to do after a slot of k was given
// back.
func (m *Manager) settled(k *key) bool {
	return k.pool.first == nil && m.weight <= maxIdle
}

// settle completes the leaving of a waiter of k: a slot that it gave back goes to
// the first in line.
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

// Waits reports whether w waits in line.
func (m *Manager) Waits(w *Waiter) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return w.waits()
}

// MaxPlace is how far places in line are counted.
const MaxPlace = 10_000

// Place returns the place of w in its line, counted from 1, and the figures of its
// pool. The place is 0 if w does not wait or is further back than [MaxPlace]. The
// figures are zero if w neither waits nor holds a slot.
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
