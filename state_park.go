package bgagent

// Parking: an attempt waits between two of its turns.
//
// This is one of five ways to wait. A pending task stands in the line of its pool (internal/slots). A
// pending task with flagAwaitsQuiet waits for the session of its earlier attempt. An attempt that an
// outage holds (state_outage.go) keeps its slot, because it is about to start. A waiter
// (state_wait.go) is a caller, not a task. Only a parked attempt waits without a slot.

// parked is the state of an attempt between two of its turns. It waits, holds no slot, and its time
// limits stand still. It counts as live and can be cancelled.
//
//	turnOver -> park -> reconsider -> it waits for nothing any more -> finish
//	                 -> what it waits for has come -> lineUp -> a slot -> nextTurn -> unpark: the turn
//	                                                                               -> nothing to tell: reconsider
//
// What differs between the kinds of waits is in afterTurn, phase, waits, lookAgain and nextPrompt. A wait
// that can also end by a time keeps that time here and has a row of its own among the time limits of an
// attempt (attemptLimit).
type parked struct {
	parkedFor parking
	wantTurn  bool  // what it waits for has come; it is in line for its next turn
	endCause  Cause // how its last turn ended; the attempt ends so if no further turn comes
}

// parking says what a parked attempt waits for.
type parking uint8

const (
	notParked parking = iota
	forTasks          // for its own tasks and their notices
)

// phase returns the phase of an attempt that is parked for this.
func (what parking) phase() Phase {
	switch what {
	case forTasks:
		return PhaseWaiting
	}
	panic("bgagent: bug: a wait without a phase")
}

// afterTurn returns what an attempt waits for whose last turn has ended for this cause. It returns
// notParked if the attempt ends now.
func (st *state) afterTurn(a *attempt, cause Cause) parking {
	if cause.Status() == Completed && st.waits(a, forTasks) {
		return forTasks
	}
	return notParked
}

// waits reports whether there is anything of this kind for the attempt to wait for. When it has
// come, that stays so until the next turn begins: reconsider ends an attempt that waits for nothing.
func (st *state) waits(a *attempt, what parking) bool {
	switch what {
	case forTasks:
		own := a.t.sess.own
		return own != nil && (own.live > 0 || own.outstanding() > 0)
	}
	panic("bgagent: bug: a wait for nothing")
}

// lookAgain asks settle to check whether the next turn of the parked attempt is due. If it is, that
// check calls lineUp.
func (st *state) lookAgain(a *attempt) {
	switch a.parkedFor {
	case forTasks:
		st.touchNode(a.t.sess.own)
	}
}

// nextPrompt prepares the prompt of the next turn. It returns false if there is nothing left to
// report to the agent.
func (st *state) nextPrompt(a *attempt, now int64) bool {
	switch a.parkedFor {
	case forTasks: // the prompt is a notice; its text is added outside of the state
		n := a.t.sess.own
		if n == nil { // all results were read, and the tasks have expired
			return false
		}
		env := st.pack(n, now)
		if env == nil { // the notices were taken meanwhile
			return false
		}
		a.notice, n.env, env.flying = env, env, true
		return true
	}
	panic("bgagent: bug: a turn after no wait")
}

// parkOrFinish makes an attempt between two of its turns wait, or ends it if there is nothing to
// wait for. cause and reason are how its last turn ended.
func (st *state) parkOrFinish(a *attempt, cause Cause, reason string, now int64) {
	if what := st.afterTurn(a, cause); what != notParked {
		st.park(a, what, cause)
		return
	}
	st.finish(a, cause, reason, now)
}

// park makes the attempt wait and releases its slot.
func (st *state) park(a *attempt, what parking, cause Cause) {
	a.parked = parked{parkedFor: what, endCause: cause}
	st.phase(a, what.phase())
	st.releaseSlot(a.t)
	st.lookAgain(a)
}

// reconsider finishes a parked attempt that has nothing left to wait for, of no kind. touchAttempt
// asks for it.
func (st *state) reconsider(a *attempt, now int64) {
	if !a.live() || a.parkedFor == notParked {
		return
	}
	if st.waits(a, a.parkedFor) {
		if !a.wantTurn {
			st.lookAgain(a)
		}
		return
	}
	st.leaveLine(a) // its notice was read or taken meanwhile
	st.parkOrFinish(a, a.endCause, "", now)
}

// scheduleTurn looks whether a task that waits for its own tasks is due to be told about their ends.
func (st *state) scheduleTurn(n *node, p *task, now int64) {
	a := p.run
	if a == nil || !a.live() || a.parkedFor != forTasks || a.wantTurn {
		return
	}
	switch at := st.dueAt(n); {
	case at == 0:
	case at <= now:
		st.lineUp(a)
	default:
		st.deadlines.nodes.set(&n.alarm, n, at)
	}
}

// lineUp puts a parked attempt at the head of the line for a slot, because what it waits for has
// come.
func (st *state) lineUp(a *attempt) {
	if !st.waits(a, a.parkedFor) {
		panic("bgagent: bug: a turn after a wait that is over, so that the attempt would end before it")
	}
	a.wantTurn = true
	st.askForSlot(a.t, true)
}

// leaveLine gives back the slot, or the place in line, that a parked attempt has for its next turn.
func (st *state) leaveLine(a *attempt) {
	if a.wantTurn {
		a.wantTurn = false
		st.releaseSlot(a.t)
	}
}

// nextTurn begins the next turn of a parked attempt that got a slot.
func (st *state) nextTurn(a *attempt, now int64) {
	a.prompt, a.promptID, a.told = "", "", nil // those of the last turn
	if !st.nextPrompt(a, now) {
		st.leaveLine(a)
		st.touchAttempt(a)
		return
	}
	a.stage = stagePrompt
	st.unpark(a)
	st.wantCall(a)
}

// unpark ends the wait of an attempt that has a slot again.
func (st *state) unpark(a *attempt) {
	a.parked = parked{}
	st.phase(a, PhaseStarting)
}
