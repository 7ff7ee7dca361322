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
	m.update(func(now int64) {
		var t *task
		if t, err = m.ownLocked(by, id); err != nil {
			err = fmt.Errorf("bgagent: cancel: %w", err)
			return
		}
		s = m.fullSnapshotLocked(t)
		if !t.live() {
			err = fmt.Errorf("bgagent: cancel: task %s is %s: %w", t.id(), t.status, ErrAlreadyEnded)
			return
		}
		m.cancelLocked(by, t, o, now)
	})
	return s, err
}

func (m *BackgroundManager) cancelLocked(by Caller, t *task, o CancelOptions, now int64) {
	cause := CauseCaller
	if by.Session == "" {
		cause = CauseHost
	}
	if by.Session != "" {
		m.waived, m.waiver = t, by.Session
	}
	m.endLocked(t, cause, title(o.Reason, ""), now)
	m.waived = nil
}

// CancelAll cancels every pending or running task that descends from the
// caller's session (for the host: every task) in one step, except those that
// the session itself waits for in Run with all that descends from them, and
// returns them as they were right before.
func (m *BackgroundManager) CancelAll(ctx context.Context, by Caller, o CancelOptions) (out []Task, err error) {
	m.update(func(now int64) {
		var all []*task
		take := func(t *task) {
			if t.live() && !t.awaitedBy(by) {
				all = append(all, t)
			}
		}
		if by.Session != "" {
			if n := m.nodes[by.Session]; n != nil {
				n.each(take)
			}
		} else {
			for _, t := range m.tasks {
				take(t)
			}
		}
		for _, t := range all {
			out = append(out, m.fullSnapshotLocked(t))
		}
		// Those in line go first: none of them may get a slot that another one
		// leaves here.
		slices.SortStableFunc(all, func(a, b *task) int { return int(a.status) - int(b.status) })
		for _, t := range all {
			m.cancelLocked(by, t, o, now)
		}
	})
	slices.SortFunc(out, func(a, b Task) int { return a.Queued.Compare(b.Queued) })
	return out, nil
}

// awaitedBy reports whether the task is, or descends from, one that the session
// waits for in Run.
func (t *task) awaitedBy(by Caller) bool {
	if by.Session == "" {
		return false
	}
	for n := t.up; ; n = n.above() {
		if t != nil && t.is(flagForeground) && t.up.session == by.Session {
			return true
		}
		if n == nil {
			return false
		}
		t = n.parentTask()
	}
}

// SessionDeleted says that a session does not exist any more: a root session,
// or one of a task. Everything that descends from it is cancelled, and nothing
// is sent to it.
func (m *BackgroundManager) SessionDeleted(session string) {
	m.update(func(now int64) { m.sessionDeletedLocked(session, now) })
}

func (m *BackgroundManager) sessionDeletedLocked(session string, now int64) {
	if s := m.sessions.find(session); s != nil {
		if s.gone = true; s.tomb == 0 {
			m.endLocked(s.task, CauseSessionDeleted, "its session was deleted", now)
		}
	}
	if n := m.nodes[session]; n != nil {
		n.gone = true
		m.giveUpLocked(n, now)
		m.cascadeLocked(n, fmt.Sprintf("session %s, which launched it, was deleted", quote(session)), now)
		m.dropNodeLocked(n)
	}
}
