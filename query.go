package bgagent

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// What callers may look at. Everything here returns copies.

// Get returns the task with the id, or an error that matches [ErrUnknownTask]
// or [ErrExpired].
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

// Read is Get on behalf of a session: it fails with [ErrNotDescendant] for a
// task that does not descend from it. When the task has ended and the caller is
// the one who is owed the notice, the notice counts as read.
func (m *BackgroundManager) Read(by Caller, id string) (Task, error) { return m.readAttempt(by, id, 0) }

// readAttempt is Read for somebody who has shown the attempt with this number, or
// will show the latest one when it is 0: the end of another one is not read by it.
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

// List returns the tasks that the query selects, in the order of their launch.
// It looks at all tasks under the node it names, or at all there are.
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

// runsTask reports whether the session is that of a task, so that what it is owed
// is its next turn.
func (m *BackgroundManager) runsTask(session string) (is bool) {
	m.view(func(st *state) {
		s := st.sessions.find(session)
		is = s != nil && s.task != nil && s.task.live()
	})
	return is
}

// Outstanding returns how many tasks that descend from the session are live,
// and how many ends it is owed a notice of. Both are read in one step: a host
// that sees two zeros misses nothing.
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

// Messages reads the conversation of the task's session, as [MessageReader]
// does, on behalf of the caller. It calls the host and waits for it, at most for
// Config.CallTimeout. The error matches [errors.ErrUnsupported] when the task's
// client cannot read messages, and [ErrNoSession] when the task has no session.
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

// Digest describes the tasks of the session in at most max bytes, for a model
// whose context has been compacted.
func (m *BackgroundManager) Digest(session string, max int) string {
	tasks := m.List(Query{Under: session})
	live, owed := m.Outstanding(session)
	return m.words.digest(tasks, live, owed, max, time.Now())
}
