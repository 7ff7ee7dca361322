package bgagent

import (
	"context"
	"fmt"
	"slices"
)

// Cancel ends a pending or running task and returns it as it was right before.
// The terminal state is written first; then the session is stopped, see Quiet.
// The error matches [ErrAlreadyEnded] for a task that has ended,
// [ErrUnknownTask], [ErrExpired] or [ErrNotDescendant]; then nothing changed.
func (m *BackgroundManager) Cancel(ctx context.Context, by Caller, id string, o CancelOptions) (s Task, err error) {
	m.update(func(st *state, now int64) {
		var t *task
		if t, err = st.own(by, id); err != nil {
			err = fmt.Errorf("bgagent: cancel: %w", err)
			return
		}
		s = st.fullSnapshot(t)
		if !t.live() {
			err = fmt.Errorf("bgagent: cancel: task %s is %s: %w", t.id(), t.status, ErrAlreadyEnded)
			return
		}
		st.cancel(by, t, o, now)
	})
	return s, err
}

// CancelAll cancels every pending or running task that descends from the
// caller's session (for the host: every task) in one step, except those that
// the session itself waits for in Run with all that descends from them, and
// returns them as they were right before.
func (m *BackgroundManager) CancelAll(ctx context.Context, by Caller, o CancelOptions) (out []Task, err error) {
	m.update(func(st *state, now int64) {
		var all []*task
		add := func(t *task) {
			if t.live() && !t.awaitedBy(by) {
				all = append(all, t)
			}
		}
		if by.Session != "" {
			if n := st.nodes[by.Session]; n != nil {
				n.each(add)
			}
		} else {
			for _, t := range st.tasks {
				add(t)
			}
		}
		for _, t := range all {
			out = append(out, st.fullSnapshot(t))
		}
		// Those in line go first: none of them may get a slot that another one
		// leaves here.
		slices.SortStableFunc(all, func(a, b *task) int { return int(a.status) - int(b.status) })
		for _, t := range all {
			st.cancel(by, t, o, now)
		}
	})
	slices.SortFunc(out, func(a, b Task) int { return a.Queued.Compare(b.Queued) })
	return out, nil
}

// SessionDeleted says that a session does not exist any more: a root session,
// or one of a task. Everything that descends from it is cancelled, and nothing
// is sent to it.
func (m *BackgroundManager) SessionDeleted(session string) {
	m.update(func(st *state, now int64) { st.sessionDeleted(session, now) })
}
