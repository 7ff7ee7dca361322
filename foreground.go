package bgagent

import (
	"context"
	"errors"
	"fmt"
)

// Run launches a task in the foreground and waits for its end. The task has no time to live. An end
// that Run returns counts as read. A task that failed or was cancelled is no error: check
// Task.Status.
//
// If ctx is cancelled, Run cancels the task and returns the error of ctx. Run returns [ErrGoesOn]
// if the deadline of ctx passes, or if the caller is itself a task and waiting longer could
// deadlock, because the new task is queued or waits for tasks of its own. The task then continues
// in the background and its end will be told. Run returns the task with these errors too. All other
// errors are those of Launch.
func (m *BackgroundManager) Run(ctx context.Context, by Caller, in LaunchInput) (Task, error) {
	s, err := m.launch(ctx, by, in, true)
	if err != nil {
		return s, err
	}
	return m.foreground(ctx, by, s)
}

// RunResume is Resume in the foreground, as Run is Launch in the foreground.
func (m *BackgroundManager) RunResume(ctx context.Context, by Caller, ref string, in ResumeInput) (Task, error) {
	s, err := m.resume(ctx, by, ref, in, true)
	if err != nil {
		return s, err
	}
	return m.foreground(ctx, by, s)
}

func (m *BackgroundManager) foreground(ctx context.Context, by Caller, s Task) (Task, error) {
	w := newWaiter()
	w.no = s.Attempt
	var t *task
	m.update(func(st *state, _ int64) {
		if t, _ = st.find(s.ID); t != nil {
			st.await(t, &w)
		}
	})
	if t == nil {
		return s, fmt.Errorf("bgagent: run: task %s: %w", s.ID, ErrExpired)
	}
	defer m.leave(&w, t)
	for {
		done := false
		left := callGoesOn
		err := ctx.Err() // outside the lock, because a context may be the host's code
		switch {
		case errors.Is(err, context.DeadlineExceeded):
			left = callTimedOut
		case err != nil:
			left = callCancelled
		}
		var why callEnd
		m.update(func(st *state, now int64) { s, done, why = st.foreground(left, by, t, &w, now) })
		switch {
		case !done:
		case why == callTimedOut:
			return s, fmt.Errorf("bgagent: run: task %s: %w", s.ID, ErrGoesOn)
		case why == callCancelled:
			return s, fmt.Errorf("bgagent: run: task %s: %w", s.ID, err)
		default:
			return s, nil
		}
		_ = waitFor(ctx, w.ch, -1)
	}
}
