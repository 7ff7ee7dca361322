package bgagent

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Queries. They all return copies.

// Get returns the task with the id. The error matches [ErrUnknownTask] or [ErrExpired].
func (m *BackgroundManager) Get(id string) (Task, error) {
	var s Task
	var err error
	m.view(func(st *state) {
		var t *task
		if t, err = st.find(id); err == nil {
			s = st.fullSnapshot(t)
		}
	})
	if err != nil {
		return Task{}, fmt.Errorf("bgagent: get: %w", err)
	}
	return s, nil
}

// Read is Get on behalf of a session. It fails with [ErrNotDescendant] for a task that does not
// descend from the session. If the task has ended and the session is owed its notice, the notice
// counts as read.
func (m *BackgroundManager) Read(by Caller, id string) (Task, error) { return m.readAttempt(by, id, 0) }

// readAttempt is Read for a caller that shows attempt no, or the latest attempt if no is 0. It does
// not count the end of another attempt as read.
func (m *BackgroundManager) readAttempt(by Caller, id string, no int) (s Task, err error) {
	m.update(func(st *state, now int64) {
		var t *task
		if t, err = st.own(by, id); err != nil {
			err = fmt.Errorf("bgagent: read: %w", err)
			return
		}
		if !t.live() && t.up.session == by.Session && (no == 0 || no == int(t.no)) {
			st.settleTask(t, NoticeRead, now)
		}
		s = st.fullSnapshot(t)
	})
	return s, err
}

// List returns the tasks that the query selects, in launch order. It takes time in proportion to
// the tasks below the session that the query names, or to all tasks.
func (m *BackgroundManager) List(q Query) (out []Task) {
	m.view(func(st *state) {
		found := st.list(q)
		out = make([]Task, len(found))
		for i, t := range found {
			out[i] = st.snapshot(t)
		}
	})
	return out
}

// runsTask reports whether the session runs a task, so that its notices are its next turn.
func (m *BackgroundManager) runsTask(session string) (is bool) {
	m.view(func(st *state) {
		s := st.sessions.find(session)
		is = s != nil && s.task != nil && s.task.live()
	})
	return is
}

// Outstanding returns how many tasks that descend from the session are live, and how many ends the
// session is still owed a notice of. It reads both in one step, so a host that sees two zeros
// misses nothing.
func (m *BackgroundManager) Outstanding(session string) (live, owed int) {
	m.view(func(st *state) {
		n := st.nodes[session]
		if n == nil {
			return
		}
		n.each(func(t *task) {
			if t.live() {
				live++
			}
		})
		owed = n.outstanding()
	})
	return live, owed
}

// Messages reads the conversation of the task's session on behalf of the caller, as [MessageReader]
// does. It calls the host and waits at most Config.CallTimeout. The error matches
// [errors.ErrUnsupported] if the task's client cannot read messages, and [ErrNoSession] if the task
// has no session.
func (m *BackgroundManager) Messages(ctx context.Context, by Caller, id string, after Cursor, max int) (Page, error) {
	var cl *client
	var session string
	var err error
	m.update(func(st *state, _ int64) {
		t, e := st.own(by, id)
		switch {
		case e != nil:
			err = e
		case st.closing:
			err = ErrClosed
		case t.sess == nil:
			err = fmt.Errorf("task %s has not started: %w", id, ErrNoSession)
		default:
			cl, session = t.kind.cl, t.sess.id
		}
	})
	if err == nil && !cl.reads {
		err = errors.ErrUnsupported
	}
	if err != nil {
		return Page{}, fmt.Errorf("bgagent: messages: %w", err)
	}
	page, err := within(ctx, m, goCall, "Messages", m.cfg.CallTimeout, func(ctx context.Context) (Page, error) {
		return m.host(cl).reader.Messages(ctx, session, after, max)
	})
	if err != nil {
		return Page{}, fmt.Errorf("bgagent: messages: task %s: %w", id, err)
	}
	return page, nil
}

// Digest describes the session's tasks in at most max bytes, for a model whose context has been
// compacted.
func (m *BackgroundManager) Digest(session string, max int) string {
	tasks := m.List(Query{Under: session})
	live, owed := m.Outstanding(session)
	return m.words.digest(tasks, live, owed, max, time.Now())
}
