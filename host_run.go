package bgagent

import (
	"context"
	"errors"

	"github.com/bgagent/bgagent/internal/mdtext"
)

// The host calls of an attempt: CreateSession, then RunTurn or StartTurn, made
// by one goroutine. A call's answer goes to a method of its own (created,
// turnStarted, turnReturned), so that a goroutine that the host ends with
// runtime.Goexit can be replaced by another that goes on with the same method.

// work makes the host calls of attempts that have their slot, one attempt after
// the other, until none is left for it.
func (m *BackgroundManager) work(a *attempt) {
	var j job
	m.workOn(m.step(func(st *state, _ int64) { st.wantGoroutine(a) }, &j), &j)
}

// workOn makes the call that has been prepared for the attempt, and those that
// follow.
func (m *BackgroundManager) workOn(a *attempt, j *job) {
	for a != nil {
		if n := j.prompt.Notice; n != nil && j.call != callCreate {
			n.Text = m.words.notice(*n)
			j.prompt.Text = n.Text
		}
		switch j.call {
		case callCreate:
			a = m.callCreate(a, j)
		case callRun:
			a = m.callRun(a, j)
		case callStart:
			a = m.callStart(a, j)
		}
	}
}

// goOn goes on, on a goroutine of its own, where the host has ended one.
func (m *BackgroundManager) goOn(answer func(*job) *attempt) {
	m.spawn(goWorker, func() {
		var j job
		m.workOn(answer(&j), &j)
	})
}

func (m *BackgroundManager) callCreate(a *attempt, j *job) (next *attempt) {
	var id string
	var err error
	returned := false
	defer func() {
		if returned {
			return
		}
		if v := recover(); v != nil {
			next = m.created(a, "", panicked(v), j)
			return
		}
		m.goOn(func(j *job) *attempt { return m.created(a, "", errGoexit, j) })
	}()
	id, err = m.host(a.cl).sc.CreateSession(&a.ctx, j.spec)
	err = lookedAt(err)
	returned = true
	return m.created(a, id, err, j)
}

func (m *BackgroundManager) callRun(a *attempt, j *job) (next *attempt) {
	var end TurnEnd
	var err error
	returned := false
	defer func() {
		if returned {
			return
		}
		j.rep.end()
		if v := recover(); v != nil {
			next = m.turnReturned(a, TurnEnd{}, panicked(v), j)
			return
		}
		m.goOn(func(j *job) *attempt { return m.turnReturned(a, TurnEnd{}, errGoexit, j) })
	}()
	j.rep.m = m
	end, err = m.host(a.cl).runner.RunTurn(&a.ctx, j.session, j.prompt, j.rep)
	err = lookedAt(err)
	returned = true
	j.rep.end()
	return m.turnReturned(a, end, err, j)
}

func (m *BackgroundManager) callStart(a *attempt, j *job) (next *attempt) {
	var err error
	returned := false
	defer func() {
		if returned {
			return
		}
		if v := recover(); v != nil {
			next = m.turnStarted(a, panicked(v), j)
			return
		}
		m.goOn(func(j *job) *attempt { return m.turnStarted(a, errGoexit, j) })
	}()
	if j.again {
		err = m.catchUp(a, j)
	}
	if err == nil {
		err = lookedAt(m.host(a.cl).starter.StartTurn(&a.ctx, j.session, j.prompt))
	}
	returned = true
	return m.turnStarted(a, err, j)
}

// catchUp reads what an earlier attempt has left in the session: it would be taken
// for the answer to the prompt that is about to be handed over. It returns an
// error only when the attempt has ended meanwhile.
func (m *BackgroundManager) catchUp(a *attempt, j *job) (err error) {
	pages, failed := m.read(&a.ctx, a.cl, j.session, j.cursor)
	m.update(func(st *state, now int64) {
		if !a.live() {
			err = context.Canceled
			return
		}
		a.callEnd = now + int64(m.cfg.CreateTimeout)
		st.setDeadline(a, now)
		if failed != nil {
			st.logText(logReadFailed, j.session, failed.Error())
		}
		for i, p := range pages {
			if p.Next != "" {
				a.t.sess.cursor = p.Next
			}
			if i < len(pages)-maxOld/readPage { // no message so far back was ever seen to change
				continue
			}
			for _, msg := range p.Messages {
				a.w.isOld(msg.ID)
			}
		}
	})
	return err
}

// created takes the answer of CreateSession.
func (m *BackgroundManager) created(a *attempt, id string, err error, j *job) *attempt {
	err = m.withAgents(a.cl, err)
	reason, failed := m.reason(doingCreate, err), failureOf(err)
	return m.step(func(st *state, now int64) {
		a.inCall, a.callEnd, a.stage = false, 0, stageNone
		st.answers(a.cl, failed, now)
		t := a.t
		if !a.live() { // ended meanwhile: the late session is aborted, and never prompted
			switch {
			case id == "" || err != nil:
				if t.is(flagForgotten) {
					st.keep.stopped(t.id())
				}
			case t.is(flagForgotten): // it did not come in time, and nobody remembers for what
				if st.sessions.find(id) == nil && !t.up.under(id) {
					st.abortOnce(a, id)
				}
			default:
				if t.sess == nil && !t.up.under(id) {
					st.bind(t, id)
				}
				st.abortLate(a, id, now)
			}
			st.rest(a, now)
			return
		}
		switch {
		case st.unreached(a, stageCreate, failed, now):
			return
		case err != nil:
			st.end(t, CauseStartFailed, reason, now)
			return
		case id == "":
			st.end(t, CauseStartFailed, reasonNoID, now)
			return
		case t.up.under(id):
			st.end(t, CauseStartFailed, reasonIDAbove(id), now)
			return
		}
		if other := st.bind(t, id); other != nil {
			// Aborting it here would stop the task that owns it.
			reason := ""
			if other.tomb == 0 {
				reason = reasonIDTaken(id, other.task.id(), false)
			} else {
				reason = reasonIDTaken(id, st.keep.tombs[other.tomb-1].id, true)
			}
			st.end(t, CauseStartFailed, reason, now)
			return
		}
		a.stage = stagePrompt
		st.emit(EventPhase, t)
		st.wantGoroutine(a)
	}, j)
}

// withAgents adds the agents that there are to the error that there is no such
// agent.
func (m *BackgroundManager) withAgents(cl *client, err error) error {
	if err == nil {
		return nil
	}
	var noAgent *NoSuchAgentError
	if errors.As(err, &noAgent) && len(noAgent.Known) == 0 {
		if names := m.agentNames(cl); len(names) > 0 {
			return &NoSuchAgentError{Agent: noAgent.Agent, Known: names}
		}
	}
	return err
}

// turnReturned takes the end of a runner's turn.
func (m *BackgroundManager) turnReturned(a *attempt, end TurnEnd, err error, j *job) *attempt {
	err = m.withAgents(a.cl, err)
	reason, failed := m.reason(doingTurn, err), failureOf(err)
	return m.step(func(st *state, now int64) {
		a.inCall, a.stage = false, stageNone
		st.answers(a.cl, failed, now)
		if !a.live() {
			st.returnedLate(a)
			st.rest(a, now)
			return
		}
		if st.unreached(a, stagePrompt, failed, now) {
			return
		}
		o := turnOutcome{cause: CauseTurnEnded, text: end.Text}
		if mdtext.Invisible(o.text) {
			o.text = a.w.text
		}
		if a.w.text != "" {
			a.w.text = ""
			a.w.pieces.Reset()
		}
		switch {
		case err != nil:
			o.cause, o.reason = CauseSessionError, reason
			switch {
			case errors.As(err, new(*NoSuchAgentError)):
				o.cause = CauseStartFailed
			case end.Stop != StopUntold && end.Stop != StopEndOfTurn: // the client knows better what kind of end it was
				o.cause, _ = stopCause(end.Stop, "")
			}
		case end.Stop == StopUntold || end.Stop == StopEndOfTurn:
			a.output = a.output || end.Text != ""
		default:
			o.cause, o.reason = stopCause(end.Stop, "")
		}
		o.todos = openTodos(a.w.prog.todos)
		st.turnOver(a, o, now)
	}, j)
}

// turnStarted takes the answer of StartTurn.
func (m *BackgroundManager) turnStarted(a *attempt, err error, j *job) *attempt {
	err = m.withAgents(a.cl, err)
	reason, failed := m.reason(doingPrompt, err), failureOf(err)
	return m.step(func(st *state, now int64) {
		a.inCall, a.callEnd, a.stage = false, 0, stageNone
		a.epoch++
		st.answers(a.cl, failed, now)
		if !a.live() && err != nil && a.turn == 1 { // it was ended meanwhile, and its prompt was not taken
			switch t := a.t; {
			case t.no == a.no && t.fin != nil:
				t.fin.unsaid = true
			case t.no == a.no+1 && t.is(flagUnstarted):
				t.extra().unsaid = a.prompt
			}
		}
		if !a.live() { // a late acceptance: the abort that was sent may have come too early
			st.abortLate(a, a.t.sess.id, now)
			st.rest(a, now)
			return
		}
		if st.unreached(a, stagePrompt, failed, now) {
			return
		}
		if err != nil {
			a.loose = true // it may have been accepted all the same
			cause := CausePromptFailed
			if errors.As(err, new(*NoSuchAgentError)) {
				cause = CauseStartFailed
			}
			st.end(a.t, cause, reason, now)
			return
		}
		if a.notice != nil {
			st.told(a, now)
		}
		// The turn begins when the session has the prompt.
		a.w.answered, a.w.c.began, a.w.c.changed = now, now, now
		st.phase(a, PhaseTurn)
		st.follow(a)
		st.setDeadline(a, now)
	}, j)
}

// failureOf returns what the state has to know of an error.
func failureOf(err error) hostFailure {
	switch {
	case err == nil:
		return hostFailure{}
	case errors.Is(err, ErrUnreachable):
		return hostFailure{failedUnreachable, err.Error()}
	case errors.As(err, new(*NoSuchAgentError)):
		return hostFailure{failedNoAgent, err.Error()}
	case errors.Is(err, ErrBusy) || errors.Is(err, ErrNoSession):
		return hostFailure{failedAnswered, err.Error()}
	default:
		return hostFailure{failedSomehow, err.Error()}
	}
}

// reason turns an error of the host into the reason of a task, in one line. A
// panic is logged with its stack.
func (m *BackgroundManager) reason(doing string, err error) string {
	if err == nil {
		return ""
	}
	var p *hostPanic
	if errors.As(err, &p) && p.stack != nil {
		m.update(func(st *state, _ int64) { st.logText(logPanicked, doing, p.Error()+"\n"+string(p.stack)) })
	}
	if errors.As(err, new(*NoSuchAgentError)) {
		doing = doingStart
	}
	return mdtext.Joined(mdtext.Valid(doing+": "+err.Error()), reasonBytes)
}
