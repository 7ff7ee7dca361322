package bgagent

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// What hosts tell by themselves: events about sessions.

// Observe tells the manager what happened in a session of a host's agent
// runtime. It is for hosts whose client is no [EventSource]. It returns at once
// and ignores sessions that are none of the manager's.
func (m *BackgroundManager) Observe(e HostEvent) {
	if e.Session != "" && m.passed(e.Kind, e.Session) {
		return
	}
	m.update(func(now int64) {
		cl := m.client(e.Client)
		if of := m.clientOfLocked(e.Session); of != nil && e.Client == "" {
			cl = of
		}
		if cl != nil {
			m.observeLocked(cl, e, now)
		}
	})
}

// passed deals with the events that come in numbers, those about sessions that are
// none of the manager's and those that only say that a session is active, in as
// little time under the lock as it takes. It returns false for the others.
func (m *BackgroundManager) passed(kind HostEventKind, session string) bool {
	hash := m.sessions.hash(session)
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.sessions.findAt(hash, session)
	if s != nil && s.tomb > 0 && kind != HostDeleted {
		s = nil
	}
	if kind == HostActivity {
		if s != nil {
			s.active = true // it is dated when the session is judged: no clock is read
		}
		return true
	}
	return s == nil && m.nodes[session] == nil
}

// follow runs the event stream of a client until the manager is closed.
func (m *BackgroundManager) follow(cl *client) {
	emit := func(e HostEvent) {
		e.Client = cl.name
		m.Observe(e)
	}
	for failures := 1; m.base.Err() == nil; failures++ {
		began := time.Now()
		err := m.followOnce(cl, emit)
		emit(HostEvent{Kind: HostStreamGap})
		if errors.Is(err, errors.ErrUnsupported) {
			return
		}
		if time.Since(began) > time.Minute {
			failures = 1
		}
		if !m.sleep(min(backoff(failures), 30*time.Second)) {
			return
		}
	}
}

// followOnce calls Events on a goroutine of its own, so that one that ends it
// or ignores its context does not end or hold up this one.
func (m *BackgroundManager) followOnce(cl *client, emit func(HostEvent)) error {
	const forever = 100 * 365 * 24 * time.Hour
	_, err := within(m.base, m, goEvents, "Events", forever, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, lookedAt(cl.events.Events(ctx, emit))
	})
	if err != nil && m.base.Err() == nil {
		m.mu.Lock()
		m.logTextLocked("the event stream broke off", fmt.Sprintf("client %q", cl.name), err.Error())
		m.mu.Unlock()
	}
	return err
}

// observeLocked takes one event of a client.
func (m *BackgroundManager) observeLocked(cl *client, e HostEvent, now int64) {
	if cl.streamUp > 0 {
		cl.lastBeat = now // anything that comes is a sign of life
	}
	switch e.Kind {
	case HostStreamUp:
		cl.streamUp, cl.lastBeat = now, now
		return
	case HostStreamBeat:
		return
	case HostStreamGap:
		cl.streamUp, cl.gapAt = 0, now
		for a := range cl.watched {
			if a.live() {
				a.w.needRead = true
			}
		}
		m.kickLocked(cl)
		return
	case HostDeleted:
		if of := m.clientOfLocked(e.Session); of == nil || of == cl { // else another client has one of the same name
			m.sessionDeletedLocked(e.Session, now)
		}
		return
	}
	if n := m.nodes[e.Session]; n != nil && n.busy == cl && e.Kind == HostStatus && e.Status.State == SessionIdle {
		m.parentIdleLocked(n, now)
	}
	s := m.sessionLocked(e.Session)
	if s == nil || s.task.kind.cl != cl || s.task.run == nil {
		return
	}
	if a := s.task.run; a.ended {
		if e.Kind == HostStatus && (e.Status.State == SessionIdle || e.Status.State == SessionGone) {
			m.kickLocked(cl) // the event may be an earlier turn's, and late
		}
	} else if cl.starter != nil && a.turnStart > 0 {
		m.observedLocked(a, e, now)
	}
}

// clientOfLocked returns the client whose session it is, or nil.
func (m *BackgroundManager) clientOfLocked(session string) *client {
	switch s := m.sessions.find(session); {
	case s == nil:
		return nil
	case s.tomb > 0:
		return m.keep.tombs[s.tomb-1].kind.cl
	default:
		return s.task.kind.cl
	}
}

// observedLocked takes an event about a turn.
func (m *BackgroundManager) observedLocked(a *attempt, e HostEvent, now int64) {
	w := a.w
	switch e.Kind {
	case HostMessage:
		if e.Message == nil {
			return
		}
		if w.message(m.seed, e.Message, &a.w.prog, now) {
			a.activity = now
			m.progressedLocked(a, e.Message.Finished, now)
		}
		w.toldBy(e.Message.ID, now)
	case HostTodos:
		m.todosLocked(a, e.Todos, now)
		w.todosLive = true
	case HostError:
		stop := e.Stop
		if stop == StopUntold || stop == StopEndOfTurn {
			stop = StopError
		}
		if w.hint == nil { // what follows from the first one says less
			w.hint = &hint{stop: stop, err: e.Error, at: now, finger: w.finger}
		}
		m.eventLookLocked(a)
	case HostStatus:
		m.statusEventLocked(a, e.Status, now)
	}
}

// statusEventLocked takes an event that tells a status. Idle is only believed
// with what was read after it, so it has the session looked at.
func (m *BackgroundManager) statusEventLocked(a *attempt, s SessionStatus, now int64) {
	switch s.State {
	case SessionIdle, SessionGone:
		a.w.answered = now
		if s.State == SessionIdle && m.streamedLocked(a, now) && !a.w.looking && !a.inCall {
			m.judgeLocked(a, observation{status: s, answered: true, read: true}, now)
			return
		}
		a.w.said = s.State
		m.eventLookLocked(a)
	case SessionBusy, SessionRetrying, SessionAsking:
		a.w.answered = now
		a.w.said = SessionUnknown
		m.statusLocked(a, s)
		m.judgeLocked(a, observation{status: s, answered: true, read: m.streamedLocked(a, now)}, now)
	}
}

// eventLookLocked looks at a session because of an event; while its prompt is
// still being handed over, right after that.
func (m *BackgroundManager) eventLookLocked(a *attempt) {
	if a.inCall {
		a.w.lookAt = 1
		return
	}
	m.lookLocked(a)
}
