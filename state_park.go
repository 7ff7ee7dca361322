package bgagent

// A parked attempt waits between two of its turns.
//
// Parking is one of five ways to wait. A pending task waits in the line of its pool
// (internal/slots). A pending task with flagAwaitsQuiet waits for the session of its earlier
// attempt. An attempt that an outage holds (state_outage.go) keeps its slot, because it is about to
// start. A waiter (state_wait.go) is a caller, not a task. Among running attempts, only a parked
// attempt waits without a slot.

// parked is the state of an attempt between two of its turns. A parked attempt holds no slot, and
// its time limits do not run. It counts as live and can be cancelled.
//
//	turnOver -> park -> reconsider -> nothing left to wait for -> finish
//	                 -> the awaited notice is due -> lineUp -> a slot -> nextTurn -> unpark: the turn
//	                                                                              -> nothing to report: reconsider
//
// The differences between the kinds of waits are in waits, lookAgain and nextPrompt. A kind of wait
// with a time limit would keep the time here, and would need a constant among the time limits of an
// attempt (attemptLimit).
type parked struct {
	parkedFor parking
	wantTurn  bool  // the awaited notice is due, and the attempt is in line for its next turn
	endCause  Cause // cause of the end of its last turn; also that of the attempt if no further turn follows
}

// parking is the kind of thing that a parked attempt waits for.
type parking uint8

const (
	notParked parking = iota
	forTasks          // the attempt's own tasks and their notices
)

// waits reports whether the attempt has anything of the given kind to wait for.
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
		a.prompt, a.promptID, a.told = "", "", nil
		a.notice, n.env, env.flying = env, env, true
		return true
	}
	panic("bgagent: bug: a turn after no wait")
}

// park makes the attempt wait and releases its slot.
func (st *state) park(a *attempt, what parking, cause Cause) {
	a.parked = parked{parkedFor: what, endCause: cause}
	st.phase(a, PhaseWaiting)
	st.releaseSlot(a.t)
	st.lookAgain(a)
}

// reconsider finishes a parked attempt that has nothing left to wait for. settle calls it after
// touchAttempt.
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
	st.leaveLine(a) // the notice was read or taken meanwhile
	st.finish(a, a.endCause, "", now)
}

// scheduleTurn schedules the next turn of task p, which waits for its own tasks. The turn begins
// when a notice of n, the node of p's session, is due.
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

// lineUp puts a parked attempt at the head of the line for a slot, because its next turn is due.
func (st *state) lineUp(a *attempt) {
	a.wantTurn = true
	st.askForSlot(a.t, true)
}

// leaveLine releases the slot, or the place in line, that a parked attempt has for its next turn.
func (st *state) leaveLine(a *attempt) {
	if a.wantTurn {
		a.wantTurn = false
		st.releaseSlot(a.t)
	}
}

// nextTurn begins the next turn of a parked attempt that got a slot.
func (st *state) nextTurn(a *attempt, now int64) {
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
