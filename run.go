package bgagent

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// The host calls of an attempt: CreateSession, then RunTurn or StartTurn, made
// by one goroutine. A call's answer goes to a method of its own (created,
// turnStarted, turnReturned), so that a goroutine that the host ends with
// runtime.Goexit can be replaced by another that goes on with the same method.

// work makes the host calls of attempts that have their slot, one attempt after
// the other, until none is left for it.
func (m *BackgroundManager) work(a *attempt) {
	var j job
	m.workOn(m.step(func(int64) { m.runLocked(a) }, &j), &j)
}

// workOn makes the call that has been prepared for the attempt, and those that
// follow.
func (m *BackgroundManager) workOn(a *attempt, j *job) {
	for a != nil {
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

// job is one host call, put together under the lock.
type job struct {
	call    hostCall
	spec    SessionSpec
	session string
	prompt  Prompt
	rep     *Reporter
	cursor  Cursor // with callStart, in a session that has been used before
	again   bool
}

type hostCall uint8

const (
	_ hostCall = iota
	callCreate
	callRun
	callStart
)

// beginCallLocked prepares the call that the attempt's stage asks for. Between
// the grant and here the attempt may have been ended: then there is no call.
func (m *BackgroundManager) beginCallLocked(a *attempt, j *job, now int64) bool {
	if !a.live() || a.stage == stageNone || m.heldBackLocked(a, now) {
		return false
	}
	t := a.t
	a.inCall, a.callEnd = true, now+int64(m.cfg.CreateTimeout)
	if a.stage == stageCreate {
		j.call = callCreate
		m.specLocked(t, &j.spec)
	} else {
		j.call, j.session = callStart, t.sess.id
		m.promptLocked(a, &j.prompt, now)
		if a.cl.runner != nil {
			a.callEnd = 0 // lasts as long as the turn
			j.call, j.rep = callRun, a.reporter()
			m.phaseLocked(a, PhaseTurn)
		} else if j.again = a.no > 1 && a.turn == 1; j.again {
			j.cursor = t.sess.cursor
			a.callEnd = 0 // begins with the prompt
		}
	}
	m.deadlineLocked(a, now)
	return true
}

// specLocked fills in what session to create.
func (m *BackgroundManager) specLocked(t *task, s *SessionSpec) {
	*s = SessionSpec{}
	s.Task, s.Parent, s.Title, s.Depth = t.id(), t.up.session, t.title, t.kind.key.depth
	s.Agent, s.Model, s.Permissions = t.kind.key.agent, t.kind.key.model, slices.Clone(t.kind.rules)
	if x := t.more; x != nil {
		s.Directory, s.Metadata = x.directory, x.metadata
	}
}

// promptLocked opens the next turn. It fills in p, as specLocked does, rather
// than return it: with a copy in every frame the stack of a new goroutine had to
// grow, which took an eighth of the time of a short task.
func (m *BackgroundManager) promptLocked(a *attempt, p *Prompt, now int64) {
	t := a.t
	if a.promptID == "" {
		a.promptID = t.promptID(a.no, a.turn+1)
	}
	a.turn++
	a.epoch++
	a.turnStart, t.sess.active = now, false
	a.activity = now
	if a.cl.starter != nil || a.w != &nothingSeen {
		a.seen().begin(a.promptID, now)
		if past := t.sess.past; past != nil {
			a.w.past = *past
		}
	}
	*p = Prompt{}
	p.ID, p.Task, p.Attempt, p.Turn, p.Text = a.promptID, t.id(), int(a.no), int(a.turn), a.prompt
	p.Agent, p.Model, p.Permissions = t.kind.key.agent, t.kind.key.model, slices.Clone(t.kind.rules)
	if t.more != nil {
		p.System = t.more.system
	}
	if a.notice != nil {
		n := a.notice.notice
		p.Notice = &n
		if a.cl.runner != nil { // the call is the turn: it has been told once it is made
			m.toldLocked(a, now)
			a.told = &n
		}
	} else if a.told != nil { // the call is made again
		p.Notice = a.told
	}
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
	id, err = a.cl.sc.CreateSession(&a.ctx, j.spec)
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
	end, err = a.cl.runner.RunTurn(&a.ctx, j.session, j.prompt, j.rep)
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
		err = lookedAt(a.cl.starter.StartTurn(&a.ctx, j.session, j.prompt))
	}
	returned = true
	return m.turnStarted(a, err, j)
}

// catchUp reads what an earlier attempt has left in the session, lest it be taken
// for the answer to the prompt that is about to be handed over. It returns an
// error only when the attempt has ended meanwhile.
func (m *BackgroundManager) catchUp(a *attempt, j *job) (err error) {
	pages, failed := m.read(&a.ctx, a.cl, j.session, j.cursor)
	m.update(func(now int64) {
		if !a.live() {
			err = context.Canceled
			return
		}
		a.callEnd = now + int64(m.cfg.CreateTimeout)
		m.deadlineLocked(a, now)
		if failed != nil {
			m.logTextLocked("reading messages failed", j.session, failed.Error())
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
	return m.step(func(now int64) {
		a.inCall, a.callEnd, a.stage = false, 0, stageNone
		m.answersLocked(a.cl, err, now)
		t := a.t
		if !a.live() { // ended meanwhile: the late session is aborted, and never prompted
			switch {
			case id == "" || err != nil:
				if t.is(flagForgotten) {
					m.keep.stopped(t.id())
				}
			case t.is(flagForgotten): // it did not come in time, and nobody remembers for what
				if m.sessions.find(id) == nil && !t.up.under(id) {
					m.abortOnceLocked(a, id)
				}
			default:
				if t.sess == nil && !t.up.under(id) {
					m.bindLocked(t, id)
				}
				m.abortLateLocked(a, id, now)
			}
			m.restLocked(a, now)
			return
		}
		switch {
		case m.unreachedLocked(a, stageCreate, err, now):
			return
		case err != nil:
			m.endLocked(t, CauseStartFailed, m.reasonLocked("creating the session", err), now)
			return
		case id == "":
			m.endLocked(t, CauseStartFailed, "creating the session: the client returned an empty session id", now)
			return
		case t.up.under(id):
			m.endLocked(t, CauseStartFailed, fmt.Sprintf("creating the session: the client returned the id %s, which is that of the session that delegated or of one above it", quote(id)), now)
			return
		}
		if other := m.bindLocked(t, id); other != nil {
			// Aborting it here would stop the task that owns it.
			owner := "task "
			if other.tomb == 0 {
				owner += other.task.id()
			} else {
				owner = "the expired task " + m.keep.tombs[other.tomb-1].id
			}
			m.endLocked(t, CauseStartFailed, fmt.Sprintf("creating the session: the client returned the id %s, which belongs to %s", quote(id), owner), now)
			return
		}
		a.stage = stagePrompt
		m.emitLocked(EventPhase, t)
		m.runLocked(a)
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

// bindLocked gives the task its session, unless the id belongs to another one,
// which is returned then.
func (m *BackgroundManager) bindLocked(t *task, id string) (other *session) {
	s := &session{id: id, task: t}
	if other = m.sessions.add(s); other != nil {
		return other
	}
	t.sess = s
	if n := m.nodes[id]; n != nil && n.of == nil {
		// Somebody named a scope like this session, before it was there. The
		// tasks under it are its children from now on.
		n.of, t.sess.own = t.sess, n
		m.regraftLocked(n, t)
	}
	return nil
}

// regraftLocked corrects the counts of live tasks after a node that was a root
// has come under a task.
func (m *BackgroundManager) regraftLocked(n *node, t *task) {
	if n.up != nil || t.up == n || t.up.under(n.session) {
		// A circle, or a looked-up parent that says otherwise: stay as it was.
		n.of, t.sess.own = nil, nil
		return
	}
	top, _ := t.up.root()
	top.tree += n.tree
	n.tree = 0
}

// turnReturned takes the end of a runner's turn.
func (m *BackgroundManager) turnReturned(a *attempt, end TurnEnd, err error, j *job) *attempt {
	err = m.withAgents(a.cl, err)
	return m.step(func(now int64) {
		a.inCall, a.stage = false, stageNone
		m.answersLocked(a.cl, err, now)
		if !a.live() {
			m.returnedLateLocked(a)
			m.restLocked(a, now)
			return
		}
		if m.unreachedLocked(a, stagePrompt, err, now) {
			return
		}
		o := turnOutcome{cause: CauseTurnEnded, text: end.Text}
		if o.text == "" && !end.NoText {
			o.text = a.w.text
		}
		if a.w.text != "" {
			a.w.text = ""
			a.w.pieces.Reset()
		}
		switch {
		case err != nil:
			o.cause, o.reason = CauseSessionError, m.reasonLocked("the turn", err)
			switch {
			case errors.As(err, new(*NoSuchAgentError)):
				o.cause = CauseStartFailed
			case end.Stop != StopUntold && end.Stop != StopEndOfTurn: // the client knows better what kind of end it was
				o.cause, _ = stopCause(end.Stop, "")
			}
		case end.Stop == StopUntold || end.Stop == StopEndOfTurn:
			if o.text == "" && !a.w.output {
				o.cause, o.reason = CauseNoOutput, "the turn ended without any output"
			}
		default:
			o.cause, o.reason = stopCause(end.Stop, "")
		}
		o.todos = openTodos(a.w.prog.todos)
		m.turnOverLocked(a, o, now)
	}, j)
}

// turnStarted takes the answer of StartTurn.
func (m *BackgroundManager) turnStarted(a *attempt, err error, j *job) *attempt {
	err = m.withAgents(a.cl, err)
	return m.step(func(now int64) {
		a.inCall, a.callEnd, a.stage = false, 0, stageNone
		a.epoch++
		m.answersLocked(a.cl, err, now)
		if !a.live() && err != nil && a.turn == 1 { // it was ended meanwhile, and its prompt was not taken
			switch t := a.t; {
			case t.no == a.no && t.fin != nil:
				t.fin.unsaid = true
			case t.no == a.no+1 && t.is(flagUnstarted):
				t.extra().unsaid = a.prompt
			}
		}
		if !a.live() { // a late acceptance: the abort that was sent may have come too early
			m.abortLateLocked(a, a.t.sess.id, now)
			m.restLocked(a, now)
			return
		}
		if m.unreachedLocked(a, stagePrompt, err, now) {
			return
		}
		if err != nil {
			a.loose = true // it may have been accepted all the same
			cause := CausePromptFailed
			if errors.As(err, new(*NoSuchAgentError)) {
				cause = CauseStartFailed
			}
			m.endLocked(a.t, cause, m.reasonLocked("handing over the prompt", err), now)
			return
		}
		if a.notice != nil {
			m.toldLocked(a, now)
		}
		// The turn begins when the session has the prompt.
		a.w.answered, a.w.c.began, a.w.c.changed = now, now, now
		m.phaseLocked(a, PhaseTurn)
		m.watchLocked(a)
		m.deadlineLocked(a, now)
	}, j)
}

// nextTurnLocked gives an attempt that waits, and has got a slot, what it is
// owed as its next turn.
func (m *BackgroundManager) nextTurnLocked(a *attempt, now int64) {
	a.wantTurn = false
	n := a.t.sess.own
	var env *envelope
	if n != nil { // else everything was read, and has expired
		env = m.packLocked(n, now)
	}
	if env == nil { // taken meanwhile
		m.releaseLocked(a.t, now)
		m.reconsiderLocked(a, now)
		return
	}
	a.notice, a.prompt, a.promptID, a.stage = env, env.notice.Text, "", stagePrompt
	a.told = nil
	a.endCause = CauseNone
	n.env = env
	env.flying = true
	m.phaseLocked(a, PhaseStarting)
	m.runLocked(a)
}

// toldLocked settles what the turn's prompt has told.
func (m *BackgroundManager) toldLocked(a *attempt, now int64) {
	env := a.notice
	a.notice = nil
	if n := a.t.sess.own; n != nil && n.env == env {
		m.deliveredLocked(n, NoticeDelivered, now)
	}
}

// phaseLocked changes what a running attempt is doing.
func (m *BackgroundManager) phaseLocked(a *attempt, p Phase) {
	if a.phase != p {
		a.phase = p
		m.emitLocked(EventPhase, a.t)
		m.pokeLocked(a.t)
	}
}

// reasonLocked turns an error of the host into the reason of a task, in one line.
func (m *BackgroundManager) reasonLocked(doing string, err error) string {
	var p *hostPanic
	if errors.As(err, &p) && p.stack != nil {
		m.logTextLocked("a host function panicked", doing, p.Error()+"\n"+string(p.stack))
	}
	if errors.As(err, new(*NoSuchAgentError)) {
		doing = "starting"
	}
	return inOneLine(clean(doing+": "+err.Error()), reasonBytes)
}
