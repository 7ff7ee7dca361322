package bgagent

// CheckInvariants has every update of the manager checked; the first violation
// panics, so that the test that runs shows the update that broke it.
func CheckInvariants(m *BackgroundManager) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.check = func() {
		if err := m.checkInvariants(); err != nil {
			panic("bgagent: bug: " + err.Error())
		}
	}
}
