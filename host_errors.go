package bgagent

import "sync"

// hostErrors are the errors that the host calls of ended attempts have returned,
// as the host made them. The state never sees them.
type hostErrors struct {
	mu  sync.Mutex // guards all; nothing is called while it is held
	all map[string]error
}

// keep remembers the error of a task's latest attempt; nil forgets it.
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

// Err returns the error with which CreateSession, RunTurn or StartTurn failed last
// in the task's latest attempt, as the client returned it, for errors.Is and
// errors.As. It is nil when none failed, when the attempt still starts or runs,
// and once the record has expired. Task.Reason says the same in words.
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
