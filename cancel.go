package bgagent

import (
	"context"
	"fmt"
	"slices"
)

// Cancel ends a pending or running task and returns it as it was right before. The task is terminal
// when Cancel returns. Its session is stopped afterwards; see [BackgroundManager.Quiet]. The error
// matches [ErrAlreadyEnded] for a task that has ended, [ErrUnknownTask], [ErrExpired] or
// [ErrNotDescendant]. After an error, nothing has changed.
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

// CancelAll cancels every pending or running task that descends from the caller's session, or every
// task if the caller is the host, in one step. It spares the tasks that the session itself waits
// for in Run, and their descendants. It returns the cancelled tasks as they were right before.
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
		// Pending tasks are cancelled first, so that none of them gets a slot of a running one.
		slices.SortStableFunc(all, func(a, b *task) int { return int(a.status) - int(b.status) })
		for _, t := range all {
			st.cancel(by, t, o, now)
		}
	})
	slices.SortFunc(out, func(a, b Task) int { return a.Queued.Compare(b.Queued) })
	return out, nil
}

// SessionDeleted tells the manager that a session no longer exists, be it a root session or the
// session of a task. Everything that descends from it is cancelled, and nothing more is sent to it.
func (m *BackgroundManager) SessionDeleted(session string) {
	m.update(func(st *state, now int64) { st.sessionDeleted(session, now) })
}
