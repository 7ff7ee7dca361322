package slots

// Force grants w a slot for the name and agent of h, even if the limits are exceeded. It is for work
// that is already running. Force panics if w waits for a slot or holds one.
func (m *Manager) Force(w *Waiter, h *Handle) {
	k := h.lock()
	defer m.mu.Unlock()
	if w.key != nil {
		panic("bgagent: bug: Force of a waiter that already waits or holds a slot")
	}
	grant(w, k)
	w.dropPass() // the turn began earlier, so it says nothing about the cool-down
	if c := m.capped; c != nil {
		c.count(k, 1)
		c.served(k.pool, w)
		c.granted(k.pool)
	}
}
