package bgagent

import (
	"context"
	"errors"
	"time"

	"github.com/bgagent/bgagent/internal/mdtext"
)

// The code in this file makes the host calls of an attempt: CreateSession, then RunTurn or
// StartTurn. One worker goroutine makes them. A separate method applies the result of each call:
// created, turnStarted or turnReturned. If the host ends the worker goroutine with runtime.Goexit,
// a new goroutine calls the method that applies the result.

// The method "work" makes the host calls of an attempt. Then it makes the host calls of other
// attempts that have been granted a slot, until no such attempt is left.
func (m *BackgroundManager) work(a *attempt) {
	growStack[frame4K](false)
	var j job
	// Request the host call again, so that the method "step" prepares it in j.
	m.workOn(m.step(func(st *state, _ int64) { st.wantCall(a) }, &j), &j)
}

// workOn makes the host call that is prepared in j, and the calls that follow from its result.
func (m *BackgroundManager) workOn(a *attempt, j *job) {
	for a != nil {
		if j.prompt.Notice != nil && (j.call == callRun || j.call == callStart) {
			m.tellInPrompt(&j.prompt)
		}
		switch j.call {
		case callWait:
			m.awaitKept(a)
			a = m.step(func(st *state, _ int64) { st.wantCall(a) }, j)
		case callRestore:
			a = m.callRestore(a, j)
		case callSeal:
			a = m.seal(a, j)
		case callCreate:
			a = m.callCreate(a, j)
		case callRun:
			a = m.callRun(a, j)
		case callStart:
			a = m.callStart(a, j)
		}
	}
}

// tellInPrompt writes the text of the notice into the prompt. It is not inlined, because its frame would
// enlarge the stack of every worker.
//
//go:noinline
func (m *BackgroundManager) tellInPrompt(p *Prompt) {
	*p.Notice = m.words.told(*p.Notice)
	p.Text = p.Notice.Text
}

// workAgain continues the work on a new goroutine after a host call has ended the worker goroutine.
// The function "answer" applies the result of that host call.
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
	if m.mayBegin(j) {
		id, err = m.host(a.cl).sc.CreateSession(a.callContext(), j.spec)
		err = lookedAt(err)
	} else {
		err = m.slotGone(a)
	}
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
			next = m.turnReturned(a, &TurnEnd{}, panicked(v), j)
			return
		}
		m.workAgain(func(j *job) *attempt { return m.turnReturned(a, &TurnEnd{}, errGoexit, j) })
	}()
	j.rep.m = m
	if j.slot != nil {
		err = m.mayPrompt(a, j)
	}
	if err == nil {
		end, err = m.host(a.cl).runner.RunTurn(a.callContext(), j.session, j.prompt, j.rep)
		err = lookedAt(err)
	}
	returned = true
	j.rep.end()
	return m.turnReturned(a, &end, err, j)
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
	if err == nil && m.cfg.Store != nil {
		err = m.keptTurn(a) // wait until the session's position before the prompt is durable
	}
	if err == nil && j.slot != nil {
		err = m.mayPrompt(a, j)
	}
	if err == nil {
		err = lookedAt(m.host(a.cl).starter.StartTurn(a.callContext(), j.session, j.prompt))
	}
	returned = true
	return m.turnStarted(a, err, j)
}

// keptTurn waits until the turn's record is durable. It returns an error if the session must not be
// prompted, because the attempt has ended or the manager has closed the store.
func (m *BackgroundManager) keptTurn(a *attempt) (err error) {
	m.awaitKept(a)
	m.view(func(st *state) {
		if !a.live() || !st.kept(a.t) {
			err = context.Canceled
		}
	})
	return err
}

// catchUp reads the messages that an earlier attempt left in the session. Otherwise, these messages
// would count as the answer to the next prompt. catchUp returns an error only if the attempt has
// ended.
func (m *BackgroundManager) catchUp(a *attempt, j *job) (err error) {
	pages, failed := m.read(a.callContext(), a.cl, j.session, j.cursor)
	m.update(func(st *state, now int64) {
		if failed != nil {
			st.logText(logReadFailed, j.session, failed.Error())
		}
		st.caughtUp(a, pages)
	})
	if m.cfg.Store != nil {
		m.awaitKept(a)
	}
	m.update(func(st *state, now int64) {
		if !st.handsOver(a, now) {
			err = context.Canceled
		}
	})
	return err
}

// The method "answer" applies the result of a host call. If the result arrives after the manager
// was suspended, the method "answer" ignores the result, because it only shows that the call was
// stopped.
func (m *BackgroundManager) answer(f func(st *state, now int64), j *job) *attempt {
	return m.step(func(st *state, now int64) {
		if st.suspend != frozen {
			f(st, now)
		}
	}, j)
}

// The method "created" applies the result of CreateSession.
func (m *BackgroundManager) created(a *attempt, id string, err error, j *job) *attempt {
	failed := m.failureOf(a, doingCreate, err)
	return m.answer(func(st *state, now int64) { st.created(a, id, &failed, now) }, j)
}

// withAgents adds the names of the client's agents to a NoSuchAgentError that contains none. It
// returns any other error unchanged.
func (m *BackgroundManager) withAgents(cl *client, err error) error {
	var noAgent *NoSuchAgentError
	if errors.As(err, &noAgent) && len(noAgent.Known) == 0 {
		if names := m.agentNames(cl); len(names) > 0 {
			return &NoSuchAgentError{Agent: noAgent.Agent, Known: names}
		}
	}
	return err
}

// turnReturned applies the result of RunTurn.
func (m *BackgroundManager) turnReturned(a *attempt, end *TurnEnd, err error, j *job) *attempt {
	failed := m.failureOf(a, doingTurn, err)
	return m.step(func(st *state, now int64) {
		if st.suspend == frozen {
			st.countFrozen(a, a.turn, end.Usage, now)
			return
		}
		st.turnReturned(a, end, &failed, now)
	}, j)
}

// turnStarted applies the result of StartTurn.
func (m *BackgroundManager) turnStarted(a *attempt, err error, j *job) *attempt {
	failed := m.failureOf(a, doingPrompt, err)
	return m.answer(func(st *state, now int64) { st.turnStarted(a, &failed, now) }, j)
}

// failureOf converts the error from a host call to a hostFailure for the state. If the agent does
// not exist, the failure names the agents that do. failureOf also keeps the error for Err, and logs
// a panic with its stack.
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
	if errors.As(err, &f.provider) {
		f.kind = failedAnswered
	}
	var p *hostPanic
	switch {
	case errors.Is(err, ErrUnreachable):
		f.kind, f.provider = failedUnreachable, nil
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

// abort calls Abort for the session of an attempt. It repeats the call until a call has succeeded
// and the state does not request another one, or until the stopping deadline passes.
func (m *BackgroundManager) abort(a *attempt) {
	// Limit each call to less than half of StopTimeout. If the first call hangs, a second call can
	// then still return before the attempt's stopping deadline.
	each := m.cfg.StopTimeout / 20 * 9
	pause := abortPause
	for {
		var session string
		var ctx context.Context
		var over *turnContext
		m.update(func(st *state, now int64) {
			if session = st.nextAbort(a, now); session != "" {
				ctx, over = m.contextOf(a.t), a.slotOver
			}
		})
		if session == "" {
			return
		}
		ctx, end := untilOver(ctx, over)
		err := m.callAbort(ctx, a, session, each)
		end()
		if err == nil {
			pause = abortPause
			continue
		}
		m.update(func(st *state, _ int64) { st.abortFailed(a, session, err.Error()) })
		if !m.sleep(pause) {
			m.update(func(st *state, _ int64) { a.stopper = false })
			return
		}
		pause *= 2
	}
}

// untilOver returns a context that also ends when the context "over" ends. The argument "over" may
// be nil. The caller must call the returned function.
func untilOver(ctx context.Context, over *turnContext) (_ context.Context, end func()) {
	if over == nil {
		return ctx, func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	stop := over.AfterFunc(cancel)
	return ctx, func() {
		stop()
		cancel()
	}
}

// abortOnce calls Abort once for the given session. It does not affect the calls that m.abort
// makes. If the process was paused after the call was requested, another manager might already
// follow the session. In this case, abortOnce does not call Abort and only counts the call as
// returned.
func (m *BackgroundManager) abortOnce(a *attempt, session string) {
	var ctx context.Context
	most := m.cfg.StopTimeout
	m.update(func(st *state, now int64) {
		if st.mayBeFollowed(a) {
			st.abortReturned(a, now)
			return
		}
		ctx = m.contextOf(a.t)
		if a.slotEnd != 0 && a.cl.starter { // a.slotOver does not cancel this call, so the timeout must end the call when the slot is over
			most = min(most, time.Duration(a.slotEnd-now))
		}
	})
	if ctx == nil {
		return
	}
	if err := m.callAbort(ctx, a, session, most); err != nil {
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

// abortReturned reports to the state that an Abort call has returned. The call can return long
// after the manager has stopped waiting for it.
func (m *BackgroundManager) abortReturned(a *attempt) {
	m.update(func(st *state, now int64) { st.abortReturned(a, now) })
}

// sleep waits for the duration d. It returns false if the manager closes first.
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
