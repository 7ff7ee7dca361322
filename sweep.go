package bgagent

import (
	"context"
	"errors"
	"slices"
	"time"
)

// stopPoll is the pause between two sweeps while a session is being stopped:
// its slot waits for the answer.
const stopPoll = 250 * time.Millisecond

// readPage is how many messages are asked for at once, and readPages how many
// times in one look: a client that always has more must not hold up a sweep.
const (
	readPage  = 100
	readPages = 200
)

// watchLocked has the sweeps ask for the attempt's session.
func (m *BackgroundManager) watchLocked(a *attempt) {
	a.cl.watched[a] = struct{}{}
	m.pollLocked(a.cl)
}

func (m *BackgroundManager) unwatchLocked(a *attempt) { delete(a.cl.watched, a) }

// pollLocked makes sure that a goroutine polls the client.
func (m *BackgroundManager) pollLocked(cl *client) {
	if !cl.polling && cl.starter != nil {
		cl.polling = true
		m.spawn(goPoll, func() { m.poll(cl) })
	}
}

// kickLocked has the client polled at once.
func (m *BackgroundManager) kickLocked(cl *client) {
	select {
	case cl.kick <- struct{}{}:
	default:
	}
}

// poll sweeps over the client's sessions, one sweep after the other, as long as
// there is anything to ask about.
func (m *BackgroundManager) poll(cl *client) {
	for {
		pause := m.cfg.PollInterval
		m.mu.Lock()
		if len(cl.watched) == 0 && len(cl.parents) == 0 || m.base.Err() != nil {
			cl.polling = false
			m.mu.Unlock()
			return
		}
		for a := range cl.watched {
			if a.ended && !a.overrun {
				pause = min(pause, stopPoll)
				break
			}
		}
		m.mu.Unlock()
		if waitFor(m.base, cl.kick, pause) == nil {
			m.sweep(cl)
		}
	}
}

// looked is an attempt that a sweep asks about, as it was before the call.
type looked struct {
	a       *attempt
	session string
	epoch   int
	status  SessionStatus
	poll    bool
	at      int64        // when the status was told
	said    SessionState // by the event because of which it is looked at
}

// sweep asks the client once for the statuses of all sessions, and has those read
// of which something may be new. It does not wait for that: one that is slow to be
// read must not hold up the others.
func (m *BackgroundManager) sweep(cl *client) {
	var list []looked
	var parents []*node
	var ids []string
	m.mu.Lock()
	for a := range cl.watched {
		if a.t.sess != nil {
			list = append(list, looked{a: a, session: a.t.sess.id, epoch: a.epoch})
			ids = append(ids, a.t.sess.id)
		}
	}
	for n := range cl.parents {
		parents = append(parents, n)
		ids = append(ids, n.session)
	}
	m.mu.Unlock()
	if len(ids) == 0 {
		return
	}
	answer, err := m.statuses(cl, ids)
	m.update(func(now int64) {
		for i := range list {
			l := &list[i]
			l.status, l.at = answer[l.session], now
			if m.sweptLocked(l, now) {
				m.readSoonLocked(*l)
			}
		}
		for _, n := range parents {
			switch answer[n.session].State {
			case SessionIdle, SessionGone, SessionUntold:
				m.parentIdleLocked(n, now)
			}
		}
		if err != nil {
			m.logTextLocked("asking for statuses failed", cl.name, err.Error())
		}
	})
}

// statuses asks for the statuses of sessions. After an error the answer is
// empty, and so everything is unknown.
func (m *BackgroundManager) statuses(cl *client, ids []string) (map[string]SessionStatus, error) {
	answer, err := within(m.base, m, goPoll, "Statuses", m.cfg.StatusTimeout, func(ctx context.Context) (map[string]SessionStatus, error) {
		answer, err := cl.starter.Statuses(ctx, ids)
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

// sweptLocked takes one status of a sweep, and reports whether the session is
// to be read.
func (m *BackgroundManager) sweptLocked(l *looked, now int64) (read bool) {
	a := l.a
	if a.t.run != a || a.epoch != l.epoch {
		return false // older than the last prompt or abort
	}
	if a.ended {
		m.restedLocked(a, l.status.State, now)
		return false
	}
	if a.turnStart == 0 || a.w.looking {
		return false
	}
	// Sweeps come in between, when something is being stopped or has been lost:
	// that is not what polls are counted for.
	if l.poll = now-a.w.polled >= int64(m.cfg.PollInterval); l.poll {
		a.w.polled = now
	}
	if known := l.status.State != SessionUnknown && l.status.State <= SessionUntold; known {
		a.w.answered = now
		m.statusLocked(a, l.status)
	} else {
		l.status.State = SessionUnknown
		m.judgeLocked(a, observation{poll: l.poll, status: l.status}, now)
		return false
	}
	if l.status.State == SessionGone || m.currentLocked(a, l.status, now) {
		m.judgeLocked(a, observation{poll: l.poll, answered: true, read: true, status: l.status}, now)
		// What is known may not be enough: the todos may have to be read.
		if !a.live() || a.turnStart == 0 || !a.w.c.needsTodos || a.w.looking {
			return false
		}
	}
	a.w.looking = true
	return true
}

// statusLocked notes what the status tells besides idle or not.
func (m *BackgroundManager) statusLocked(a *attempt, s SessionStatus) {
	switch s.State {
	case SessionAsking:
		question := s.Detail
		if question == "" {
			question = "(not told)"
		}
		m.askingLocked(a, question)
	case SessionRetrying:
		m.askingLocked(a, "")
		a.w.prog.detail = title(s.Detail, "")
	default:
		if a.phase == PhaseAsking || a.w.prog.detail != "" {
			m.askingLocked(a, "")
		}
	}
}

// restedLocked looks whether the session of an ended attempt has come to rest.
func (m *BackgroundManager) restedLocked(a *attempt, s SessionState, now int64) {
	switch s {
	case SessionIdle, SessionGone, SessionUntold:
		if !a.inCall && a.aborts == 0 && !a.stopMore {
			a.loose = false
			m.restLocked(a, now)
		}
	}
}

// currentLocked reports whether all that there is to read is known already: by
// events that have told everything since before the prompt or the last read, or by a revision
// that is still the same.
func (m *BackgroundManager) currentLocked(a *attempt, s SessionStatus, now int64) bool {
	w := a.w
	if s.Revision != "" && s.Revision == w.revision && !w.needRead {
		return true
	}
	return m.streamedLocked(a, now)
}

// streamedLocked reports whether events have told everything about the turn.
func (m *BackgroundManager) streamedLocked(a *attempt, now int64) bool {
	cl := a.cl
	return cl.streamUp > 0 && cl.streamUp <= max(a.turnStart, a.w.readAt) && !a.w.needRead && now-cl.lastBeat <= int64(streamBeatMax)
}

// readSoonLocked has a session read once one of the client's readers is free.
func (m *BackgroundManager) readSoonLocked(l looked) {
	cl := l.a.cl
	cl.toRead = append(cl.toRead, l)
	if cl.readers < m.cfg.ReadConcurrency {
		cl.readers++
		m.spawn(goPoll, func() { m.readThem(cl) })
	}
}

// readThem reads sessions until none is left for it.
func (m *BackgroundManager) readThem(cl *client) {
	for {
		m.mu.Lock()
		if len(cl.toRead) == 0 {
			cl.toRead = nil
			cl.readers--
			m.mu.Unlock()
			return
		}
		l := cl.toRead[0]
		cl.toRead[0] = looked{}
		cl.toRead = cl.toRead[1:]
		m.mu.Unlock()
		m.look(l)
	}
}

// lookLocked has a session looked at by itself, at once.
func (m *BackgroundManager) lookLocked(a *attempt) {
	if a.w.looking {
		a.w.again = true
		return
	}
	if a.t.sess == nil || m.base.Err() != nil {
		return
	}
	a.w.looking = true
	l := looked{a: a, session: a.t.sess.id, epoch: a.epoch, said: a.w.said}
	a.w.said = SessionUnknown
	m.spawn(goPoll, func() {
		answer, _ := m.statuses(a.cl, []string{l.session})
		if l.status = answer[l.session]; l.status.State == SessionUntold && l.said != SessionUnknown {
			l.status.State = l.said // the event is all that is ever told
		}
		m.look(l)
	})
}

// look reads what is new in a session whose status has just been told, and
// decides. w.looking has been set; it is the only goroutine that reads this
// session.
func (m *BackgroundManager) look(l looked) {
	a := l.a
	o := observation{status: l.status, answered: l.status.State != SessionUnknown && l.status.State <= SessionUntold, poll: l.poll, at: l.at}
	var cursor Cursor
	var ctx context.Context
	skip, again := true, false
	var began int64
	m.update(func(now int64) {
		if began = now; o.at == 0 {
			o.at = now // the status has just been told
		}
		if skip = a.t.run != a || a.epoch != l.epoch || a.ended; skip {
			return
		}
		cursor, ctx = a.t.sess.cursor, m.contextOf(a.t)
		again = a.w.c.unread > 0
		o.read = m.currentLocked(a, l.status, now) // only the todos are missing
	})
	var pages []Page
	var err error
	if !skip && !o.read {
		afresh := false
		if pages, err = m.read(ctx, a.cl, l.session, cursor); err != nil && again && cursor != "" { // it may be the cursor
			pages, err = m.read(ctx, a.cl, l.session, "")
			afresh = err == nil
		}
		if err != nil {
			pages, o.why = nil, err.Error()
		}
		o.read, o.failed, o.afresh = err == nil, err != nil, again || cursor == ""
		if afresh {
			m.update(func(int64) { a.w.readAfresh() })
		}
	}
	needTodos := false
	var rest time.Duration // of the hold
	m.update(func(now int64) {
		if skip || a.t.run != a || a.epoch != l.epoch || a.ended {
			skip = true
			m.lookedLocked(a)
			return
		}
		m.readLocked(a, l, pages, began, now)
		if err != nil {
			m.logTextLocked("reading messages failed", l.session, err.Error())
		}
		if o.answered {
			a.w.answered = now
			m.statusLocked(a, l.status)
		}
		m.judgeLocked(a, o, now)
		if a.live() && a.w.lookAt > 0 && a.w.said == SessionUnknown {
			a.w.said = l.said // for when it is looked at again
		}
		if needTodos = a.live() && a.w.c.needsTodos; !needTodos {
			m.lookedLocked(a)
		}
		rest = time.Duration(a.w.c.todoSince-now) + m.cfg.TodoHold
	})
	if skip || !needTodos {
		return
	}
	todos, err := within(ctx, m, goPoll, "Todos", min(m.cfg.CallTimeout, rest), func(ctx context.Context) ([]Todo, error) {
		todos, err := a.cl.todos.Todos(ctx, l.session)
		return todos, lookedAt(err)
	})
	m.update(func(now int64) {
		if a.t.run == a && a.epoch == l.epoch && !a.ended {
			switch {
			case err == nil:
				m.todosLocked(a, todos, now)
			case errors.Is(err, errors.ErrUnsupported):
				a.w.todos, a.w.todosAt = 0, now
			default:
				m.logTextLocked("reading todos failed", l.session, err.Error())
			}
			o.poll = false // the same poll: nothing is counted twice
			m.judgeLocked(a, o, now)
		}
		m.lookedLocked(a)
	})
}

// lookedLocked ends a look. What came meanwhile is looked at right away.
func (m *BackgroundManager) lookedLocked(a *attempt) {
	a.w.looking = false
	if a.w.again {
		a.w.again = false
		if a.live() && a.turnStart > 0 {
			m.lookLocked(a)
		}
	}
}

// read reads what is new in a session since the cursor. With an error it returns
// the pages before it.
func (m *BackgroundManager) read(ctx context.Context, cl *client, session string, cursor Cursor) (pages []Page, err error) {
	for range readPages {
		page, err := within(ctx, m, goPoll, "Messages", m.cfg.CallTimeout, func(ctx context.Context) (Page, error) {
			page, err := cl.reader.Messages(ctx, session, cursor, readPage)
			return page, lookedAt(err)
		})
		if err != nil {
			return pages, err
		}
		pages = append(pages, page)
		if !page.More || page.Next == cursor {
			return pages, nil
		}
		cursor = page.Next
	}
	return pages, nil
}

// readLocked takes what was read.
func (m *BackgroundManager) readLocked(a *attempt, l looked, pages []Page, began, now int64) {
	changed := false
	for _, p := range pages {
		for i := range p.Messages {
			msg := &p.Messages[i]
			if !a.w.wasTold(msg.ID, began) && a.w.message(m.seed, msg, &a.w.prog, now) {
				changed = true
			}
		}
		if p.Next != "" {
			a.t.sess.cursor = p.Next
		}
	}
	if len(pages) > 0 {
		if a.cl.gapAt < began {
			a.w.needRead = false
		}
		a.w.readAt = began
		a.w.revision = l.status.Revision
	}
	if changed {
		a.activity = now
		m.progressedLocked(a, true, now)
	}
}

// todosLocked notes the todo list of a session.
func (m *BackgroundManager) todosLocked(a *attempt, list []Todo, now int64) {
	if !slices.Equal(list, a.w.prog.todos) {
		a.activity = now
		a.w.c.change(now)
	}
	a.w.todos, a.w.todosAt = openTodos(list), now
	a.w.prog.todos, a.w.prog.todosSeen = slices.Clone(list), true
	m.progressedLocked(a, true, now)
}

// todosFresh is for how long a todo list that was read is believed.
const todosFresh = int64(time.Second)

// judgeLocked has an observation judged and does what the verdict says.
func (m *BackgroundManager) judgeLocked(a *attempt, o observation, now int64) {
	w := a.w
	if s := a.t.sess; s.active {
		s.active = false
		a.activity = now
		w.c.change(now)
	}
	o.view, o.flying, o.hint, o.lastly = w.turn, w.flying, w.hint, w.todos
	o.trust = a.no == 1 && a.turn == 1 && a.t.sess.aborted == 0
	if !o.status.RetryAt.IsZero() {
		o.retryAt = int64(o.status.RetryAt.Sub(m.epoch))
	}
	switch {
	case a.cl.todos == nil:
		o.todos = 0
	case w.todosAt > a.cl.gapAt && (now-w.todosAt <= todosFresh || w.todosLive && m.streamedLocked(a, now)):
		o.todos = w.todos
	default:
		o.todos = -1
	}
	var v verdict
	w.c.counters, v = judge(w.c.counters, o, m.thresholds(), now)
	w.c.needsTodos = v.needTodos
	if v.dropHint {
		w.hint = nil
	}
	a.activity = max(a.activity, w.c.changed)
	switch {
	case (v.cause == CauseNoOutput || v.cause == CauseInterrupted) && !w.doubted && m.streamedLocked(a, now):
		w.doubted, w.needRead = true, true // it may be the events that are missing
		m.lookLocked(a)
	case v.end && v.cause == CauseStale:
		m.endLocked(a.t, CauseStale, m.staleReason(a, now), now)
	case v.end && v.running:
		m.endLocked(a.t, v.cause, v.reason, now)
	case v.end && v.cause == CauseNoOutput: // an empty turn; the attempt may have an answer
		m.turnOverLocked(a, turnOutcome{cause: CauseIdle, todos: v.todos}, now)
	case v.end:
		m.turnOverLocked(a, turnOutcome{cause: v.cause, reason: v.reason, text: w.text, todos: v.todos}, now)
	case v.needTodos && o.answered && !o.poll && !w.looking:
		m.lookLocked(a) // an event alone is not enough
	default:
		if v.lookAt > 0 || w.said == SessionUnknown || w.lookAt <= now { // else what an event said is still to be looked at
			w.lookAt = v.lookAt
		}
		m.deadlineLocked(a, now)
	}
}
