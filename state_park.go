package bgagent

import "github.com/bgagent/bgagent/internal/slots"

// The code in this file parks attempts. A parked attempt waits between two of its turns.
//
// Parking is one of five ways to wait. The other four are as follows. A pending task waits in the
// line of its pool (internal/slots). A pending task with flagAwaitsQuiet waits for the session of
// its earlier attempt. An attempt that is held back by an outage (state_outage.go) keeps its slot,
// because it is about to start. A waiter (state_wait.go) is a caller, not a task. Of all attempts
// that have started, only parked ones wait without a slot.

// parked is the state of an attempt that waits between two of its turns without holding a slot. An
// attempt can also be parked before its first turn, if its pool has begun to cool down. A runner's
// attempt can also be parked during its turn, until it gets the answer to a question. Parked time
// does not count towards the time to live, and a parked attempt cannot become stale. It counts as
// live and can be cancelled.
//
//	turnOver -> park -> reconsider -> nothing left to wait for -> finish
//	                 -> awaited event -> lineUp -> a slot -> nextTurn -> unpark: the turn begins
//	                                                                  -> nothing to report: reconsider
//
// The kinds of waits differ mainly in the methods afterTurn, phase, waits, lookAgain and nextPrompt.
// If a time limit can end a wait, the limit has its own constant of type attemptLimit.
type parked struct {
	parkedFor parking
	wantTurn  bool  // the awaited event has happened; the attempt is in line for its next turn, or already has the slot for it
	endCause  Cause // cause with which the attempt ends if no further turn follows; kept until the next turn ends
}

// parking is the kind of event that a parked attempt waits for.
type parking uint8

const (
	notParked   parking = iota
	forTasks            // the attempt waits for its own tasks and their notices, and for messages; see state_message.go
	forProvider         // the attempt waits until its pool grants slots again, because the model provider refuses requests; see state_provider.go
	forAnswer           // the attempt waits in its turn for the answer to a question; see state_question.go
)

// phase returns the phase of an attempt that is parked for the given kind of event.
func (what parking) phase() Phase {
	switch what {
	case forTasks:
		return PhaseWaiting
	case forProvider, forAnswer:
		return PhaseParked
	}
	panic("bgagent: bug: a wait without a phase")
}

// recordedPhase returns the phase for the attempt's record. The record describes the attempt as
// parked if its next prompt is a notice that has no text yet, or if its session must be read before
// a refused turn continues.
func (a *attempt) recordedPhase() Phase {
	if a.unsealed() && a.refused != nil || a.stillParked() {
		return forProvider.phase()
	}
	if a.awaitsAnswer() { // the question ends with this process, so the turn is recorded as running
		return PhaseTurn
	}
	if a.unsealed() {
		return forTasks.phase()
	}
	return a.phase
}

// afterTurn returns the kind of event that the attempt waits for after a turn that ended with the
// given cause. It returns notParked if the attempt ends now.
func (st *state) afterTurn(a *attempt, cause Cause) parking {
	if a.refused != nil {
		return forProvider
	}
	if cause.Status() == Completed && st.waits(a, forTasks) {
		return forTasks
	}
	return notParked
}

// The method "waits" reports whether the attempt has anything of the given kind to wait for. After
// the awaited event, the result must stay true until the next turn begins. Otherwise, reconsider
// would end the attempt before that turn.
func (st *state) waits(a *attempt, what parking) bool {
	switch what {
	case forTasks:
		own := a.t.sess.own
		return a.t.lettersWaiting() > 0 || own != nil && (own.live > 0 || own.outstanding() > 0)
	case forProvider:
		return a.refused != nil
	case forAnswer:
		return a.asks() || a.outcomeWaits()
	}
	panic("bgagent: bug: a wait for nothing")
}

// lookAgain checks, or makes the method "settle" check, whether the next turn of the parked attempt
// is due. If it is, the check calls lineUp.
func (st *state) lookAgain(a *attempt) {
	switch a.parkedFor {
	case forTasks:
		if st.letterDue(a, st.now); a.wantTurn {
			return
		}
		if own := a.t.sess.own; own != nil { // nil if the tasks belong to an earlier process and could not be loaded
			st.touchNode(own)
		}
	case forProvider:
		if a.aborts == 0 && !a.refused.falls { // an Abort call would stop the next turn
			st.lineUp(a)
		}
	case forAnswer:
		if a.outcomeWaits() && !st.closing {
			st.lineUp(a)
		}
	}
}

// nextPrompt prepares the prompt of the next turn. It returns false if there is nothing left to
// report to the agent.
func (st *state) nextPrompt(a *attempt, now int64) bool {
	switch a.parkedFor {
	case forTasks: // the prompt is a message, or a notice whose text is added outside the state
		return st.nextLetter(a) || st.nextNotice(a, now)
	case forProvider:
		return st.nextAfterRefusal(a, now)
	case forAnswer: // the turn continues without a prompt; see nextTurn
	}
	panic("bgagent: bug: a turn without a wait before it")
}

// nextNotice turns the notices that are owed to the attempt into its next prompt. It returns false
// if none is owed.
func (st *state) nextNotice(a *attempt, now int64) bool {
	n := a.t.ownNode()
	if n == nil { // all results were read, and the tasks have expired
		return false
	}
	env := st.pack(n, now)
	if env == nil { // the notices have been taken
		return false
	}
	a.notice, n.env, env.flying = env, env, true
	return true
}

// parkOrFinish parks an attempt whose turn has ended. If the attempt has nothing to wait for,
// parkOrFinish ends it with the given cause and reason.
func (st *state) parkOrFinish(a *attempt, cause Cause, reason string, now int64) {
	if what := st.afterTurn(a, cause); what != notParked {
		st.park(a, what, cause)
		return
	}
	st.finish(a, cause, reason, now)
}

// awaitsProvider reports whether the attempt is parked because its provider refuses requests.
func (a *attempt) awaitsProvider() bool { return a.parkedFor == forProvider }

// awaitsAnswer reports whether the attempt is parked in its turn until it gets the answer to a question.
func (a *attempt) awaitsAnswer() bool { return a.parkedFor == forAnswer }

// betweenTurns reports whether the attempt is parked and not in a turn.
func (a *attempt) betweenTurns() bool { return a.parkedFor != notParked && a.parkedFor != forAnswer }

// parkForAnswer parks an attempt whose turn waits for the answer to a question.
func (st *state) parkForAnswer(a *attempt) {
	st.park(a, forAnswer, a.endCause)
	st.changed(a.t)
}

// leavePark ends the parking of an attempt that no longer waits for an answer, because its turn has
// ended.
func (st *state) leavePark(a *attempt) {
	if a.awaitsAnswer() {
		st.leaveLine(a)
		a.parked = parked{endCause: a.endCause}
	}
}

// The method "park" parks the attempt and releases its slot.
func (st *state) park(a *attempt, what parking, cause Cause) {
	a.parked = parked{parkedFor: what, endCause: cause}
	st.phase(a, what.phase())
	st.releaseSlot(a.t)
	st.lookAgain(a)
}

// parkInstead parks an attempt whose next turn does not begin because the message that was meant to
// be its prompt was withdrawn.
func (st *state) parkInstead(a *attempt) {
	st.leaveOutage(a, st.now)
	a.stage, a.prompt, a.promptID = stageNone, "", ""
	st.park(a, forTasks, a.endCause)
}

// takesLetter reports whether the attempt is parked and its next prompt can be a message.
func (a *attempt) takesLetter() bool { return a.parkedFor == forTasks }

// parkAgain parks an attempt from an earlier process that was parked when that process ended.
func (a *attempt) parkAgain(cause Cause) {
	what := forTasks
	if a.refused != nil {
		what = forProvider
	}
	a.parked = parked{parkedFor: what, endCause: cause}
	a.phase = what.phase()
}

// reconsider decides what a parked attempt does next. In particular, it finishes an attempt that has
// nothing left to wait for. touchAttempt requests a call to reconsider.
func (st *state) reconsider(a *attempt, now int64) {
	if !a.live() || a.parkedFor == notParked {
		return
	}
	if a.awaitsProvider() && a.refused != nil && a.refused.falls {
		st.fallBack(a, now)
		return
	}
	if st.waits(a, a.parkedFor) {
		if !a.wantTurn {
			st.lookAgain(a)
		}
		return
	}
	st.leaveLine(a) // the notice for the next turn was read or taken while the attempt waited
	st.parkOrFinish(a, a.endCause, "", now)
}

// scheduleTurn checks whether the notice about the tasks that p launched is due. It does nothing
// unless p's attempt is parked for these tasks. If the notice is due, p's attempt gets in line for
// its next turn, except that a late attempt ends as interrupted. If the notice will be due later,
// scheduleTurn sets the alarm.
func (st *state) scheduleTurn(n *node, p *task, now int64) {
	a := p.run
	if a == nil || !a.live() || a.parkedFor != forTasks || a.wantTurn {
		return
	}
	at := st.dueAt(n)
	if a.late { // a late attempt begins no further turn that could answer questions, so only owed ends count
		at = st.endsDueAt(n)
	}
	switch {
	case at == 0:
	case at <= now && a.late:
		st.end(p, CauseInterrupted, st.lateFor, now)
	case at <= now:
		st.lineUp(a)
	default:
		st.deadlines.nodes.set(&n.alarm, n, at)
	}
}

// lineUp puts a parked attempt in line for a slot, because the awaited event has happened. An
// attempt that waits for its provider gets the place that parkRank returns. Any other attempt goes
// to the head of the line.
func (st *state) lineUp(a *attempt) {
	if !st.waits(a, a.parkedFor) {
		panic("bgagent: bug: a turn after a wait that is over: the attempt would end before the turn")
	}
	a.wantTurn = true
	if a.parkedFor == forProvider {
		head, ticket := st.parkRank(a)
		st.askForSlot(a.t, head, ticket)
		return
	}
	st.askForSlot(a.t, true, st.slots.Ticket())
}

// parkRank returns the place of a parked attempt in its pool's line. Parked attempts wait at the
// head, in the order in which their work was first queued (see [state.firstQueued]). They come
// before the other attempts at the head, because their tickets are made from queue times and are
// lower than every ticket from slots.Ticket. The same applies after a fallback, in the pool of the
// other model. An attempt whose turns are refused again and again waits at the end instead, so that
// the turns of other attempts are also tried.
func (st *state) parkRank(a *attempt) (head bool, ticket uint64) {
	if a.refused.turns >= headTurns {
		return false, st.slots.Ticket()
	}
	const epoch = slots.FirstTicket / 2 // keeps the result positive for tasks of an earlier process, which were queued before the slots were created
	return true, uint64(min(max(epoch+st.firstQueued(a.t)+st.slotsFrom, 1), slots.FirstTicket-1))
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
	if st.refusesTurn(a.t, now) {
		return
	}
	if a.awaitsAnswer() {
		a.parked = parked{endCause: a.endCause}
		st.phase(a, PhaseTurn)
		st.turnGoesOn(a, now)
		return
	}
	a.prompt, a.promptID, a.told, a.continues = "", "", nil, false // forget the values of the last turn
	if !st.nextPrompt(a, now) {
		st.leaveLine(a)
		st.touchAttempt(a)
		return
	}
	if a.t.sess != nil {
		st.wantPrompt(a)
	} else { // the session has not been created yet, or a new session must replace it
		a.stage = stageCreate
		st.changed(a.t)
	}
	st.unpark(a)
	st.wantCall(a)
}

// unpark ends the parking of an attempt that has a slot again.
func (st *state) unpark(a *attempt) {
	a.parked = parked{endCause: a.endCause}
	st.phase(a, PhaseStarting)
}
