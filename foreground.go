package bgagent

import (
	"context"
	"errors"
	"fmt"
)

// Run launches a task in the foreground and waits for its end. It has no time
// to live: it lives as long as ctx. When ctx is cancelled the task is cancelled
// too and the error is ctx's. When ctx's deadline passes, or when the caller is
// itself a task and waiting any longer could deadlock (because the new task is
// queued or waits for tasks of its own), the error is [ErrGoesOn]: the task goes
// on in the background and its end will be told. The task is returned with
// these errors as well. Otherwise the errors are those of Launch. That the task
// failed or was cancelled is no error: look at Task.Status. An end that Run returns
// counts as read.
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
		err := ctx.Err() // not under the lock: a context may be the host's code
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
