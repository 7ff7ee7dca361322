package bgagent

import (
	"context"
	"errors"
	"time"
)

// stopPoll is the pause between two sweeps while a session is being stopped. The pause is short
// because the session's slot becomes free only when a sweep finds that the session has stopped.
const stopPoll = 250 * time.Millisecond

// readPage is the number of messages that one call to Messages requests. readPages is the maximum
// number of calls to Messages in one read. The limit exists because a client might report further
// messages forever.
const (
	readPage  = 100
	readPages = 200
)

// poll sweeps over the client's sessions, with a pause between two sweeps. It returns when no session
// needs polling or the manager has closed.
func (m *BackgroundManager) poll(cl *client) {
	for {
		pause, over := m.cfg.PollInterval, m.base.Err() != nil
		m.update(func(*state, int64) {
			if over = over || len(cl.followed) == 0 && len(cl.parents) == 0; over {
				cl.polling = false
				return
			}
			for a := range cl.followed {
				if a.ended && !a.overrun {
					pause = min(pause, stopPoll)
					break
				}
			}
		})
		if over {
			return
		}
		if waitFor(m.base, m.host(cl).kick, pause) == nil {
			m.sweep(cl)
		}
	}
}

// The method "sweep" requests the statuses of all sessions that need polling, with one call to the
// client. It queues each session that might have new messages, so that a reader reads them. It
// does not wait for the reads, so one slow session does not delay the others.
func (m *BackgroundManager) sweep(cl *client) {
	var list []looked
	var parents []*node
	var ids []string
	m.view(func(*state) {
		for a := range cl.followed {
			if a.t.sess != nil {
				list = append(list, looked{a: a, session: a.t.sess.id, epoch: a.epoch})
				ids = append(ids, a.t.sess.id)
			}
		}
		for n := range cl.parents {
			parents = append(parents, n)
			ids = append(ids, n.session)
		}
	})
	if len(ids) == 0 {
		return
	}
	answer, err := m.statuses(cl, ids)
	why := ""
	if err != nil {
		why = err.Error()
	}
	for i := range list {
		list[i].status = answer[list[i].session].received()
	}
	m.update(func(st *state, now int64) {
		for i := range list {
			l := &list[i]
			l.at = now
			if st.swept(l, why, now) {
				st.readSoon(*l)
			}
		}
		for _, n := range parents {
			switch answer[n.session].State {
			case SessionIdle, SessionGone, SessionUntold:
				st.parentIdle(n)
			}
		}
		if err != nil {
			st.logText(logStatusesFailed, cl.name, why)
		}
	})
}

// The method "statuses" requests the statuses of sessions from the client. If the client does
// not support the call, every status is SessionUntold. After any other error, it returns a nil
// map, which means SessionUnknown for every session.
func (m *BackgroundManager) statuses(cl *client, ids []string) (map[string]SessionStatus, error) {
	answer, err := within(m.base, m, goPoll, "Statuses", m.cfg.StatusTimeout, func(ctx context.Context) (map[string]SessionStatus, error) {
		answer, err := m.host(cl).starter.Statuses(ctx, ids)
		return answer, lookedAt(err)
	})
	if errors.Is(err, errors.ErrUnsupported) {
		answer, err = make(map[string]SessionStatus, len(ids)), nil
		for _, id := range ids {
			answer[id] = SessionStatus{State: SessionUntold}
		}
	}
	if err != nil {
		return nil, err
	}
	return answer, nil
}

// readThem reads the queued sessions of a client until the queue is empty.
func (m *BackgroundManager) readThem(cl *client) {
	for {
		var l looked
		done := false
		m.update(func(*state, int64) {
			if done = len(cl.toRead) == 0; done {
				cl.toRead = nil
				cl.readers--
				return
			}
			l, cl.toRead[0] = cl.toRead[0], looked{}
			cl.toRead = cl.toRead[1:]
		})
		if done {
			return
		}
		m.look(l)
	}
}

// lookNow asks for the status of one session, and then reads and judges the session.
func (m *BackgroundManager) lookNow(l looked) {
	answer, _ := m.statuses(l.a.cl, []string{l.session})
	if l.status = answer[l.session].received(); l.status.State == SessionUntold && l.said != SessionUnknown {
		l.status.State = l.said // this client reports statuses only in events
	}
	m.look(l)
}

// The method "look" reads the new messages of a session whose status is already known, and lets the
// state judge the session. While it does so, a.sight.looking is set, so no other goroutine reads
// the session.
func (m *BackgroundManager) look(l looked) {
	a := l.a
	o := observation{status: l.status, answered: l.status.State != SessionUnknown && l.status.State <= SessionUntold, poll: l.poll, at: l.at}
	var cursor Cursor
	var ctx context.Context
	skip, again := true, false
	var began int64
	m.update(func(st *state, now int64) {
		if began = now; o.at == 0 {
			o.at = now // the client has just reported the status
		}
		if skip = a.t.run != a || a.epoch != l.epoch || a.ended; skip {
			return
		}
		cursor, ctx = a.t.sess.cursor, m.contextOf(a.t)
		again = a.sight.c.unread > 0
		o.read = st.current(a, l.status, now) // if o.read is true, the messages do not have to be read
	})
	var pages []Page
	var err error
	if !skip && !o.read {
		pages, err = m.readNew(ctx, a, l.session, cursor, again, &o)
	}
	needTodos := false
	var rest time.Duration // remaining time of TodoHold
	m.update(func(st *state, now int64) {
		if skip || a.t.run != a || a.epoch != l.epoch || a.ended {
			skip = true
			st.wasLooked(a)
			return
		}
		if err != nil {
			st.logText(logReadFailed, l.session, err.Error())
		}
		if skip = !st.wasRead(a, l, pages, began, now); skip { // a budget is used up, so the attempt has ended
			st.wasLooked(a)
			return
		}
		if o.answered {
			st.heard(a, now)
			st.status(a, l.status)
		}
		st.judge(a, o, now)
		if a.live() && a.sight.lookAt > 0 && a.sight.said == SessionUnknown {
			a.sight.said = l.said // keep the status for the next call to the method "look"
		}
		if needTodos = a.live() && a.sight.c.needsTodos; !needTodos {
			st.wasLooked(a)
		}
		rest = time.Duration(a.sight.c.todoSince-now) + m.cfg.TodoHold
	})
	if needTodos {
		m.lookAtTodos(ctx, l, o, min(m.cfg.CallTimeout, rest))
	}
}

// readNew reads the messages after the cursor for an observation, and completes the observation. If
// this read fails and the previous one failed too, the cursor might be the cause, so readNew reads
// the messages from the beginning.
func (m *BackgroundManager) readNew(ctx context.Context, a *attempt, session string, cursor Cursor, again bool, o *observation) (pages []Page, err error) {
	afresh := false
	if pages, err = m.read(ctx, a.cl, session, cursor); err != nil && again && cursor != "" {
		pages, err = m.read(ctx, a.cl, session, "")
		afresh = err == nil
	}
	if err != nil {
		pages, o.why = nil, err.Error()
	}
	o.read, o.failed, o.afresh = err == nil, err != nil, again || cursor == ""
	if afresh {
		m.update(func(st *state, _ int64) { a.sight.readAfresh() })
	}
	return pages, err
}

// lookAtTodos reads the todos of a session, which are needed to judge the observation. It waits for
// at most the given time.
func (m *BackgroundManager) lookAtTodos(ctx context.Context, l looked, o observation, most time.Duration) {
	a := l.a
	todos, err := within(ctx, m, goPoll, "Todos", most, func(ctx context.Context) ([]Todo, error) {
		todos, err := m.host(a.cl).todos.Todos(ctx, l.session)
		return todos, lookedAt(err)
	})
	m.update(func(st *state, now int64) {
		if a.t.run == a && a.epoch == l.epoch && !a.ended {
			switch {
			case err == nil:
				st.todos(a, todos, now)
			case errors.Is(err, errors.ErrUnsupported):
				a.sight.todos, a.sight.todosAt = 0, now
			default:
				st.logText(logTodosFailed, l.session, err.Error())
			}
			o.poll = false // the same poll must not be counted twice
			st.judge(a, o, now)
		}
		st.wasLooked(a)
	})
}

// The method "read" reads the messages after the cursor. If a call fails, the result also contains
// the pages that were read before the failure.
func (m *BackgroundManager) read(ctx context.Context, cl *client, session string, cursor Cursor) (pages []Page, err error) {
	for range readPages {
		page, err := within(ctx, m, goPoll, "Messages", m.cfg.CallTimeout, func(ctx context.Context) (Page, error) {
			page, err := m.host(cl).reader.Messages(ctx, session, cursor, readPage)
			return page, lookedAt(err)
		})
		if err != nil {
			return pages, err
		}
		pages = append(pages, page.received())
		if !page.More || page.Next == cursor {
			return pages, nil
		}
		cursor = page.Next
	}
	return pages, nil
}
