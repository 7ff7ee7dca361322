package bgagent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// What callers may look at. Everything here returns copies.

// Get returns the task with the id, or an error that matches [ErrUnknownTask]
// or [ErrExpired].
func (m *BackgroundManager) Get(id string) (Task, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	t, err := m.findLocked(id)
	if err != nil {
		return Task{}, fmt.Errorf("bgagent: get: %w", err)
	}
	return m.fullSnapshotLocked(t), nil
}

// Read is Get on behalf of a session: it fails with [ErrNotDescendant] for a
// task that does not descend from it. When the task has ended and the caller is
// the one who is owed the notice, the notice counts as read.
func (m *BackgroundManager) Read(by Caller, id string) (Task, error) { return m.readAttempt(by, id, 0) }

// readAttempt is Read for somebody who has shown the attempt with this number, or
// will show the latest one when it is 0: the end of another one is not read by it.
func (m *BackgroundManager) readAttempt(by Caller, id string, no int) (s Task, err error) {
	m.update(func(now int64) {
		var t *task
		if t, err = m.ownLocked(by, id); err != nil {
			err = fmt.Errorf("bgagent: read: %w", err)
			return
		}
		if !t.live() && t.up.session == by.Session && (no == 0 || no == int(t.no)) {
			m.settleTaskLocked(t, NoticeRead, now)
		}
		s = m.fullSnapshotLocked(t)
	})
	return s, err
}

// fullSnapshotLocked is a snapshot with the place in line.
func (m *BackgroundManager) fullSnapshotLocked(t *task) Task {
	s := m.snapshotLocked(t)
	if t.status == Pending && !t.is(flagUnstarted) {
		place, pool := m.cm.place(&t.wait)
		s.Queue = &QueuePlace{Place: place, Pool: pool}
	}
	return s
}

// List returns the tasks that the query selects, in the order of their launch.
// It looks at all tasks under the node it names, or at all there are.
func (m *BackgroundManager) List(q Query) []Task {
	m.mu.Lock()
	defer m.mu.Unlock()
	var found []*task
	take := func(t *task) {
		if len(q.Status) == 0 || slices.Contains(q.Status, t.status) {
			found = append(found, t)
		}
	}
	switch {
	case q.Parent != "":
		if n := m.nodes[q.Parent]; n != nil && (q.Under == "" || q.Under == q.Parent || n.under(q.Under)) {
			for t := n.first; t != nil; t = t.next {
				take(t)
			}
		}
	case q.Under != "":
		if n := m.nodes[q.Under]; n != nil {
			n.each(take)
		}
	default:
		for _, t := range m.tasks {
			take(t)
		}
	}
	slices.SortFunc(found, byLaunch)
	if q.Limit > 0 && len(found) > q.Limit {
		found = found[len(found)-q.Limit:]
	}
	out := make([]Task, len(found))
	for i, t := range found {
		out[i] = m.snapshotLocked(t)
	}
	return out
}

func byLaunch(a, b *task) int {
	return cmp.Or(cmp.Compare(a.queued, b.queued), cmp.Compare(a.id(), b.id()))
}

// runsTask reports whether the session is that of a task, so that what it is owed
// is its next turn.
func (m *BackgroundManager) runsTask(session string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.sessions.find(session)
	return s != nil && s.task != nil && s.task.live()
}

// Outstanding returns how many tasks that descend from the session are live,
// and how many ends it is owed a notice of. Both are read in one step: a host
// that sees two zeros misses nothing.
func (m *BackgroundManager) Outstanding(session string) (live, owed int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if n := m.nodes[session]; n != nil {
		n.each(func(t *task) {
			if t.live() {
				live++
			}
		})
		owed = n.outstanding()
	}
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
	m.update(func(int64) {
		t, e := m.ownLocked(by, id)
		switch {
		case e != nil:
			err = e
		case m.closing:
			err = ErrClosed
		case t.sess == nil:
			err = fmt.Errorf("task %s has not started: %w", id, ErrNoSession)
		default:
			cl, session = t.kind.cl, t.sess.id
		}
	})
	if err == nil && cl.reader == nil {
		err = errors.ErrUnsupported
	}
	if err != nil {
		return Page{}, fmt.Errorf("bgagent: messages: %w", err)
	}
	page, err := within(ctx, m, goCall, "Messages", m.cfg.CallTimeout, func(ctx context.Context) (Page, error) {
		return cl.reader.Messages(ctx, session, after, max)
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
