package bgagent

import "sync"

// hostErrors keeps the errors that host calls of ended attempts have returned, as the client made
// them. The state never sees them.
type hostErrors struct {
	mu  sync.Mutex // guards the map; nothing is called while it is held
	all map[string]error
}

// keep remembers the error of a task's latest attempt. A nil error forgets it.
func (h *hostErrors) keep(task string, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err == nil {
		delete(h.all, task)
		return
	}
	if h.all == nil {
		h.all = map[string]error{}
	}
	h.all[task] = err
}

func (h *hostErrors) of(task string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.all[task]
}

// Err returns the error of the last failed call of CreateSession, RunTurn or StartTurn in the
// task's latest attempt. It is the error that the client returned, for use with errors.Is and
// errors.As. Err returns nil if no call failed, while the attempt is pending or running, and after
// the record has expired. Task.Reason describes the same error in words.
func (m *BackgroundManager) Err(id string) error {
	failed := false
	m.view(func(st *state) {
		t, err := st.find(id)
		failed = err == nil && t.fin != nil && t.fin.failed
	})
	if !failed {
		return nil
	}
	return m.errs.of(id)
}
