package bgagent

// CheckInvariants has every update of the manager checked; the first violation
// panics, so that the test that runs shows the update that broke it.
func CheckInvariants(m *BackgroundManager) {
	CheckInvariantsWith(m, func(err error) { panic("bgagent: bug: " + err.Error()) })
}

// CheckInvariantsWith is CheckInvariants with another answer to a violation. It
// is called with the manager's lock held.
func CheckInvariantsWith(m *BackgroundManager, broken func(error)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.check = func() {
		if err := m.checkInvariants(); err != nil {
			broken(err)
		}
	}
}

// CheckInvariantsNow checks once.
func CheckInvariantsNow(m *BackgroundManager) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.checkInvariants()
}
