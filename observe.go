package bgagent

// What hosts tell by themselves: events about sessions.

// Observe tells the manager what happened in a session of a host's agent
// runtime. It is for hosts whose client is no [EventSource]. It returns at once
// and ignores sessions that are none of the manager's.
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

// passed deals with the events that come in numbers, those about sessions that are
// none of the manager's and those that only say that a session is active, in as
// little time under the lock as it takes. It returns false for the others.
func (m *BackgroundManager) passed(kind HostEventKind, session string) (passed bool) {
	hash := sessionHash(m.seed, session)
	m.view(func(st *state) {
		s := st.sessions.findAt(hash, session)
		if s != nil && s.tomb > 0 && kind != HostDeleted {
			s = nil
		}
		if kind == HostActivity {
			if s != nil {
				s.active = true // it is dated when the session is judged: no clock is read
			}
			passed = true
			return
		}
		passed = s == nil && st.nodes[session] == nil
	})
	return passed
}
