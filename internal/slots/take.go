package slots

import "slices"

// Ticket returns a queue time. Each ticket is greater than all earlier tickets.
func (m *Manager) Ticket() uint64 { return m.tickets.Add(1) }

// Reach makes all later tickets greater than the given ticket.
func (m *Manager) Reach(ticket uint64) {
	for {
		last := m.tickets.Load()
		if last >= ticket || m.tickets.CompareAndSwap(last, ticket) {
			return
		}
	}
}

// Take grants w a slot for the name and agent of h (see [Manager.For]), or puts w into the line. It
// reports whether w now holds a slot. If head is true, w joins the head of the line, before all
// waiters for which head was false. Within each of these two groups, waiters are sorted by ticket.
// A later grant is reported to the owner of w.
func (m *Manager) Take(w *Waiter, h *Handle, head bool, ticket uint64) (granted bool) {
	if ticket == 0 || ticket >= notHead {
		panic("bgagent: bug: a ticket that Manager.Ticket has not issued")
	}
	k := h.lock()
	if w.key != nil {
		m.mu.Unlock()
		panic("bgagent: bug: Take of a waiter that already waits or holds a slot")
	}
	// hasRoom returns true only if there are no caps. In that case, a pool that has room has
	// no waiters.
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

// Join holds a waiter for [Manager.TakeAll], along with the arguments that [Manager.Take] would get
// for it.
type Join struct {
	Waiter *Waiter
	Handle *Handle
	Head   bool
	Ticket uint64
}

// TakeAll is Take for several waiters. All of them are in line before the first one gets a slot, so with
// [Caps.Fair] each root gets its turn. TakeAll returns all waiters that got slots, including waiters that
// were in line before the call. The caller must report each grant without holding a lock, as [Tell] does.
func (m *Manager) TakeAll(all []Join) (granted []*Waiter) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, j := range all {
		k, w := j.Handle.found(), j.Waiter
		if w.key != nil {
			panic("bgagent: bug: TakeAll of a waiter that already waits or holds a slot")
		}
		if m.capped == nil {
			queue(w, k, j.Head, j.Ticket)
			continue
		}
		w.key, w.order = k, orderOf(j.Head, j.Ticket)
		m.capped.insert(w)
	}
	granted = m.regrant(nil)
	slices.SortFunc(granted, byOrder)
	for _, w := range granted {
		w.order = 0
	}
	return granted
}

// The function "count" counts w as the holder of a slot of k.
func count(w *Waiter, k *key) {
	w.key = k
	k.inUse++
	k.pool.inUse++
}

// uncount reverses count.
func uncount(w *Waiter, k *key) {
	w.key = nil
	k.inUse--
	k.pool.inUse--
}

// grant gives w a free slot.
func grant(w *Waiter, k *key) {
	count(w, k)
	if c := k.pool.cool; c != nil {
		w.prev = &c.mark
		c.unproven++
	}
}

func queue(w *Waiter, k *key, head bool, ticket uint64) {
	k.waiting++
	k.pool.waiting++
	w.key, w.order = k, orderOf(head, ticket)
	k.pool.insert(w)
}

// orderOf returns the place in line of a waiter with the ticket.
func orderOf(head bool, ticket uint64) uint64 {
	if head {
		return ticket
	}
	return ticket | notHead
}

// Leave gives up the slot of w or its place in line. The slots that become free pass to other waiters, and
// Leave returns these waiters. If there are neither caps nor cool-downs, at most one waiter gets a slot, so
// the second result is empty. The caller must report each grant without holding a lock, as [Tell] does.
func (m *Manager) Leave(w *Waiter) (next *Waiter, more []*Waiter) {
	m.mu.Lock()
	next, more = m.leaveLocked(w)
	m.mu.Unlock()
	return next, more
}

// Tell reports grants to the owners of the waiters that [Manager.Leave] returned.
func Tell(next *Waiter, more []*Waiter) {
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

// giveBack releases the slot of w.
func (m *Manager) giveBack(w *Waiter, k *key) {
	if w.prev != nil { // this check saves a call in the usual case
		w.dropPass()
	}
	uncount(w, k)
	if m.capped != nil {
		m.capped.count(k, -1)
	}
}

// The method "settle" must be called after a waiter or a slot of k has left. It grants the slots
// that can now be granted, and returns the waiters that got them.
func (m *Manager) settle(k *key) (next *Waiter, more []*Waiter) {
	if c := k.pool.cool; c != nil {
		if more = m.review(c); len(more) > 0 {
			next, more = more[0], more[1:]
		}
	} else if m.capped != nil {
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

// Waits reports whether w is in line.
func (m *Manager) Waits(w *Waiter) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return w.waits()
}

// MaxPlace is the greatest place that [Manager.Place] returns.
const MaxPlace = 10_000

// Place returns the place of w in its line, counted from 1, and the figures of its pool. If a cap blocks w,
// Place returns the place among all waiters to which the cap applies, and the cap's figures. With
// [Caps.Fair], only waiters of the same Root count. The place is 0 if w does not wait or its place is greater
// than [MaxPlace]. The figures are zero if w neither waits nor holds a slot.
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
