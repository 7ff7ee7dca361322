package bgagent

import (
	"context"
	"errors"
	"time"

	"github.com/bgagent/bgagent/internal/mdtext"
)

// The host calls of an attempt: CreateSession, then RunTurn or StartTurn. One goroutine makes them.
// A separate method applies each answer (created, turnStarted, turnReturned): if the host ends the
// goroutine with runtime.Goexit, a new goroutine continues with that method.

// work makes the host calls of an attempt, and then those of further attempts that got a slot,
// until there are none.
func (m *BackgroundManager) work(a *attempt) {
	var j job
	// The goroutine asks for the call again, so that step prepares it in j.
	m.workOn(m.step(func(st *state, _ int64) { st.wantCall(a) }, &j), &j)
}

// workOn makes the prepared call of the attempt, and the calls that follow it.
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

// workAgain continues on a new goroutine after the host has ended this one.
func (m *BackgroundManager) workAgain(answer func(*job) *attempt) {
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
		m.workAgain(func(j *job) *attempt { return m.created(a, "", errGoexit, j) })
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
		m.workAgain(func(j *job) *attempt { return m.turnReturned(a, TurnEnd{}, errGoexit, j) })
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
		m.workAgain(func(j *job) *attempt { return m.turnStarted(a, errGoexit, j) })
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

// catchUp reads what an earlier attempt has left in the session, because it would otherwise count
// as the answer to the next prompt. catchUp returns an error only if the attempt has ended
// meanwhile.
func (m *BackgroundManager) catchUp(a *attempt, j *job) (err error) {
	pages, failed := m.read(&a.ctx, a.cl, j.session, j.cursor)
	m.update(func(st *state, now int64) {
		if failed != nil {
			st.logText(logReadFailed, j.session, failed.Error())
		}
		if !st.caughtUp(a, pages, now) {
			err = context.Canceled
		}
	})
	return err
}

// created applies the answer of CreateSession.
func (m *BackgroundManager) created(a *attempt, id string, err error, j *job) *attempt {
	failed := m.failureOf(a, doingCreate, err)
	return m.step(func(st *state, now int64) { st.created(a, id, failed, now) }, j)
}

// withAgents adds the names of the known agents to a NoSuchAgentError that has none.
func (m *BackgroundManager) withAgents(cl *client, err error) error {
	var noAgent *NoSuchAgentError
	if errors.As(err, &noAgent) && len(noAgent.Known) == 0 {
		if names := m.agentNames(cl); len(names) > 0 {
			return &NoSuchAgentError{Agent: noAgent.Agent, Known: names}
		}
	}
	return err
}

// turnReturned applies the answer of RunTurn.
func (m *BackgroundManager) turnReturned(a *attempt, end TurnEnd, err error, j *job) *attempt {
	failed := m.failureOf(a, doingTurn, err)
	return m.step(func(st *state, now int64) { st.turnReturned(a, end, failed, now) }, j)
}

// turnStarted applies the answer of StartTurn.
func (m *BackgroundManager) turnStarted(a *attempt, err error, j *job) *attempt {
	failed := m.failureOf(a, doingPrompt, err)
	return m.step(func(st *state, now int64) { st.turnStarted(a, failed, now) }, j)
}

// failureOf returns what the state needs to know about an error. For an unknown agent, it names the
// agents that exist. A panic is logged with its stack.
func (m *BackgroundManager) failureOf(a *attempt, doing string, err error) hostFailure {
	if err == nil {
		return hostFailure{}
	}
	var own *hostError
	if errors.As(err, &own) {
		m.errs.keep(a.t.id(), own.from)
	}
	err = m.withAgents(a.cl, err)
	f := hostFailure{kind: failedSomehow, text: err.Error()}
	var p *hostPanic
	switch {
	case errors.Is(err, ErrUnreachable):
		f.kind = failedUnreachable
	case errors.As(err, new(*NoSuchAgentError)):
		f.kind, doing = failedNoAgent, doingStart
	case errors.Is(err, ErrBusy) || errors.Is(err, ErrNoSession):
		f.kind = failedAnswered
	case errors.As(err, &p) && p.stack != nil:
		m.update(func(st *state, _ int64) { st.logText(logPanicked, doing, p.Error()+"\n"+string(p.stack)) })
	}
	f.reason = mdtext.Ends(mdtext.Valid(doing+": "+f.text), reasonBytes)
	return f
}

// abortPause is the first pause between two Abort calls.
const abortPause = 200 * time.Millisecond

// abort aborts the session until an Abort has succeeded and no further one is wanted, or until the
// stopping deadline passes.
func (m *BackgroundManager) abort(a *attempt) {
	// Each try gets less than half of the deadline. If the first one hangs, a second one still fits
	// before the manager's own alarm rings.
	each := m.cfg.StopTimeout / 20 * 9
	pause := abortPause
	for {
		var session string
		var ctx context.Context
		m.update(func(st *state, now int64) {
			if session = st.nextAbort(a, now); session != "" {
				ctx = m.contextOf(a.t)
			}
		})
		if session == "" {
			return
		}
		err := m.callAbort(ctx, a, session, each)
		if err == nil {
			pause = abortPause
			continue
		}
		m.update(func(st *state, _ int64) {
			a.stopMore = true
			st.logText(logAbortFailed, session, err.Error())
		})
		if !m.sleep(pause) {
			m.update(func(st *state, _ int64) { a.stopper = false })
			return
		}
		pause *= 2
	}
}

// abortOnce makes one separate Abort call for the session.
func (m *BackgroundManager) abortOnce(a *attempt, session string) {
	var ctx context.Context
	m.view(func(*state) { ctx = m.contextOf(a.t) })
	if err := m.callAbort(ctx, a, session, m.cfg.StopTimeout); err != nil {
		m.update(func(st *state, _ int64) { st.logText(logAbortFailed, session, err.Error()) })
	}
}

func (m *BackgroundManager) callAbort(ctx context.Context, a *attempt, session string, most time.Duration) error {
	_, err := within(ctx, m, goAbort, "Abort", most, func(ctx context.Context) (_ struct{}, err error) {
		err = errGoexit
		defer func() { m.abortReturned(a) }()
		return struct{}{}, lookedAt(m.host(a.cl).sc.Abort(ctx, session))
	})
	return err
}

// abortReturned applies the return of an Abort call. The manager may have stopped waiting for it
// long before.
func (m *BackgroundManager) abortReturned(a *attempt) {
	m.update(func(st *state, now int64) { st.abortReturned(a, now) })
}

// sleep waits for d. It reports false if the manager closes first.
func (m *BackgroundManager) sleep(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-m.base.Done():
		return false
	}
}
