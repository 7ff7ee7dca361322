package bgagent

// Events about sessions that the host reports.

// Observe tells the manager about an event in a session of the agent runtime. It is for hosts whose
// client is no [EventSource]. It returns at once and ignores sessions that do not belong to the
// manager.
func (m *BackgroundManager) Observe(e HostEvent) {
	if e.Session != "" && m.passed(e.Kind, e.Session) {
		return
	}
	m.update(func(st *state, now int64) {
		cl := m.client(e.Client)
		if of := st.clientOf(e.Session); of != nil && e.Client == "" {
			cl = of
		}
		if cl != nil {
			st.observe(cl, e, now)
		}
	})
}

// passed handles the two frequent kinds of events with little time under the lock: events about
// sessions of others, and events that only report activity. It returns false for all others.
func (m *BackgroundManager) passed(kind HostEventKind, session string) (passed bool) {
	hash := sessionHash(m.seed, session)
	m.view(func(st *state) {
		s := st.sessions.findAt(hash, session)
		if s != nil && s.tomb > 0 && kind != HostDeleted {
			s = nil
		}
		if kind == HostActivity {
			if s != nil {
				s.active = true // no clock is read here; judge notes the time
			}
			passed = true
			return
		}
		passed = s == nil && st.nodes[session] == nil
	})
	return passed
}
