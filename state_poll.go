package bgagent

import (
	"slices"
	"time"
)

func (st *state) thresholds() thresholds {
	notNegative := func(d time.Duration) int64 { return int64(max(d, 0)) }
	return thresholds{
		minIdle: notNegative(st.limit(limitMinIdleTime)), minStable: notNegative(st.limit(limitMinStabilityTime)), stablePolls: st.cfg.StablePolls,
		todoHold: notNegative(st.limit(limitTodoHold)), stale: notNegative(st.limit(limitStaleTimeout)), gone: int64(st.limit(limitSessionGone)),
		unreachable: notNegative(st.limit(limitHostUnreachable)), park: st.announcedMost(),
	}
}

// The method "follow" adds the attempt's session to those that the client's sweeps poll.
func (st *state) follow(a *attempt) {
	a.cl.followed[a] = struct{}{}
	st.wantPoll(a.cl)
}

func (st *state) unfollow(a *attempt) { delete(a.cl.followed, a) }

// wantPoll ensures that a goroutine polls the client.
func (st *state) wantPoll(cl *client) {
	if !cl.polling && cl.starter {
		cl.polling = true
		st.rare().after.poll = append(st.rare().after.poll, cl)
	}
}

// kick makes the client's polling goroutine sweep immediately.
func (st *state) kick(cl *client) {
	st.rare().now.kicks = append(st.rare().now.kicks, cl)
}

// The type "looked" holds the data of one poll of an attempt's session: the state of the attempt
// when the poll began, and the answer.
type looked struct {
	a       *attempt
	session string
	epoch   int
	status  SessionStatus
	poll    bool
	at      int64        // when the status was reported
	said    SessionState // status in the event that requested the poll
}

// The method "swept" applies one status from a sweep and reports whether the messages of the
// session must be read. If the sweep failed, why holds the client's error.
func (st *state) swept(l *looked, why string, now int64) (read bool) {
	a := l.a
	if a.t.run != a || a.epoch != l.epoch {
		return false // the status is older than the last prompt or abort
	}
	if a.ended {
		st.rested(a, l.status.State, now)
		return false
	}
	if a.turnStart == 0 || a.sight.looking {
		return false
	}
	// There are extra sweeps while sessions are being stopped and after a gap in the events. Only
	// one sweep per PollInterval counts towards StablePolls.
	if l.poll = now-a.sight.polled >= int64(st.limit(limitPollInterval)); l.poll {
		a.sight.polled = now
	}
	if known := l.status.State != SessionUnknown && l.status.State <= SessionUntold; known {
		st.heard(a, now)
		st.status(a, l.status)
	} else {
		l.status.State = SessionUnknown
		st.unheard(a, why)
		st.judge(a, observation{poll: l.poll, status: l.status}, now)
		return false
	}
	if l.status.State == SessionGone || st.current(a, l.status, now) {
		st.judge(a, observation{poll: l.poll, answered: true, read: true, status: l.status}, now)
		// The verdict might still need the todos.
		if !a.live() || a.turnStart == 0 || !a.sight.c.needsTodos || a.sight.looking {
			return false
		}
	}
	a.sight.looking = true
	return true
}

// The method "status" stores the question or the retry that s reports.
func (st *state) status(a *attempt, s SessionStatus) {
	switch s.State {
	case SessionAsking:
		question := s.Detail
		if question == "" {
			question = questionNotTold
		}
		st.asking(a, question)
	case SessionRetrying:
		st.asking(a, "")
		a.sight.prog.detail = title(s.Detail, "")
		st.retrying(a, s.Provider, s.RetryAt, st.now)
	default:
		if s.State == SessionBusy {
			a.sight.goesOnAfterRetry()
		}
		if a.phase == PhaseAsking || a.sight.prog.detail != "" {
			st.asking(a, "")
		}
	}
}

// The method "rested" applies the polled state of a session whose attempt has ended. If the session
// is not in a turn, the attempt can now become quiet.
func (st *state) rested(a *attempt, s SessionState, now int64) {
	switch s {
	case SessionIdle, SessionGone, SessionUntold:
		if !a.inCall && a.aborts == 0 && !a.stopMore {
			a.loose = false
			st.rest(a, now)
		}
	}
}

// The method "current" reports whether all messages of the session are known. This is the case if
// the revision is unchanged, or if events have reported every change since the prompt or the last
// read.
func (st *state) current(a *attempt, s SessionStatus, now int64) bool {
	if s.Revision != "" && s.Revision == a.sight.revision && !a.sight.needRead {
		return true
	}
	return st.streamed(a, now)
}

// The method "streamed" reports whether events have reported every change since the prompt or the
// last read.
func (st *state) streamed(a *attempt, now int64) bool {
	cl := a.cl
	return cl.streamUp > 0 && cl.streamUp <= max(a.turnStart, a.sight.readAt) && !a.sight.needRead && now-cl.lastBeat <= int64(streamBeatMax)
}

// readSoon queues the session for the client's readers.
func (st *state) readSoon(l looked) {
	cl := l.a.cl
	cl.toRead = append(cl.toRead, l)
	if cl.readers < st.cfg.ReadConcurrency {
		cl.readers++
		st.rare().after.readers = append(st.rare().after.readers, cl)
	}
}

// lookSoon immediately starts a poll of one session. If a poll of the session is under way, another
// one follows it.
func (st *state) lookSoon(a *attempt) {
	if a.sight.looking {
		a.sight.again = true
		return
	}
	if a.t.sess == nil || st.closing {
		return
	}
	a.sight.looking = true
	l := looked{a: a, session: a.t.sess.id, epoch: a.epoch, said: a.sight.said}
	a.sight.said = SessionUnknown
	st.rare().after.looks = append(st.rare().after.looks, l)
}

// wasLooked is called when a poll of the session has ended. If another poll was requested in the
// meantime, that poll starts immediately.
func (st *state) wasLooked(a *attempt) {
	a.sight.looking = false
	if a.sight.again {
		a.sight.again = false
		if a.live() && a.turnStart > 0 {
			st.lookSoon(a)
		}
	}
}

// wasRead applies the pages of messages that were read. began is the time at which the read began.
// wasRead reports whether the attempt is still live.
func (st *state) wasRead(a *attempt, l looked, pages []Page, began, now int64) (live bool) {
	changed := false
	for _, p := range pages {
		for i := range p.Messages {
			msg := &p.Messages[i]
			st.countOld(a.t, msg, now)
			if !a.sight.wasTold(msg.ID, began) && a.sight.message(st.seed, msg, &a.sight.prog, now) {
				changed = true
			}
		}
		if p.Next != "" {
			a.t.sess.cursor = p.Next
			st.changed(a.t)
		}
	}
	if len(pages) > 0 {
		if a.cl.gapAt < began {
			a.sight.needRead = false
		}
		a.sight.readAt = began
		if !pages[len(pages)-1].More {
			a.sight.knownTo = began
		}
		a.sight.revision = l.status.Revision
	}
	if changed {
		a.activity = now
		st.progressed(a, true, now)
		st.showsOutput(a)
	}
	return st.count(a, now)
}

// todos applies the todo list of a session.
func (st *state) todos(a *attempt, list []Todo, now int64) {
	if !slices.Equal(list, a.sight.prog.todos) {
		a.activity = now
		a.sight.c.change(now)
	}
	a.sight.todos, a.sight.todosAt = openTodos(list), now
	a.sight.prog.todos, a.sight.prog.todosSeen = slices.Clone(list), true
	st.progressed(a, true, now)
}

// todosFresh is how long a todo list counts as current after it was read, in nanoseconds.
const todosFresh = int64(time.Second)

// The method "judge" completes the observation, passes it to the function "judge" in poller.go, and
// carries out the verdict.
func (st *state) judge(a *attempt, o observation, now int64) {
	s := a.sight
	if !a.live() || a.turnStart == 0 { // the session's status has already ended the attempt or its turn
		return
	}
	if sess := a.t.sess; sess.active {
		sess.active = false
		a.activity = now
		s.c.change(now)
	}
	o.view, o.flying, o.hint, o.lastly = s.turn, s.flying, s.hint, s.todos
	o.foreign, o.asks = s.foreign, a.clocksStand()
	o.trust = a.no == 1 && a.turn == 1 && a.t.sess.aborted == 0
	if !o.status.RetryAt.IsZero() {
		o.retryAt = int64(o.status.RetryAt.Sub(st.epoch))
	}
	switch {
	case !a.cl.todos:
		o.todos = 0
	case s.todosAt > a.cl.gapAt && (now-s.todosAt <= todosFresh || s.todosLive && st.streamed(a, now)):
		o.todos = s.todos
	default:
		o.todos = -1
	}
	if st.turnHalted(a, o, now) {
		return
	}
	var v verdict
	s.c.counters, v = judge(s.c.counters, o, st.thresholds(), now)
	s.c.needsTodos = v.needTodos
	if v.dropHint {
		s.hint = nil
	}
	a.activity = max(a.activity, s.c.changed)
	switch {
	case (v.cause == CauseNoOutput || v.cause == CauseInterrupted) && !s.doubted && st.streamed(a, now):
		s.doubted, s.needRead = true, true // events might have been lost, so read the messages first
		st.lookSoon(a)
	case v.end && v.cause == CauseStale:
		st.end(a.t, CauseStale, reasonStale(time.Duration(now-a.activity), a.turnStart, &s.prog), now)
	case v.end && v.running && v.provider != nil && st.mayHalt(a, v.provider):
		st.haltFor(a, v.provider, now)
	case v.end && v.running:
		st.end(a.t, v.cause, v.reason, now)
	case v.end && v.cause == CauseNoOutput: // the turn was empty, but earlier turns might have an answer
		st.turnOver(a, &turnOutcome{cause: CauseIdle, todos: v.todos}, now)
	case v.end:
		st.turnOver(a, &turnOutcome{cause: v.cause, reason: v.reason, text: s.text, todos: v.todos, provider: v.provider}, now)
	case v.needTodos && o.answered && !o.poll && !s.looking:
		st.lookSoon(a) // an event does not show the todos, so poll the session
	default:
		if v.lookAt > 0 || s.said == SessionUnknown || s.lookAt <= now { // do not replace a later poll that an event requested
			s.lookAt = v.lookAt
		}
		st.setDeadline(a, now)
	}
	st.stopLoop(a, now)
}
