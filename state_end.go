package bgagent

import (
	"strings"

	"github.com/bgagent/bgagent/internal/mdtext"
)

// The code in this file ends turns and attempts, cascades an end to the tasks below, and stops sessions.

func (st *state) cancel(by Caller, t *task, o CancelOptions, now int64) {
	cause := CauseCaller
	if by.Session == "" {
		cause = CauseHost
	}
	if by.Session != "" {
		st.waived, st.waiver = t, by.Session
	}
	st.end(t, cause, title(o.Reason, ""), now)
	st.waived = nil
}

// awaitedBy reports whether the caller waits in Run for the task or for a task above it.
func (t *task) awaitedBy(by Caller) bool {
	if by.Session == "" {
		return false
	}
	for n := t.up; ; n = n.above() {
		if t != nil && t.is(flagForeground) && t.up.session == by.Session {
			return true
		}
		if n == nil {
			return false
		}
		t = n.parentTask()
	}
}

func (st *state) sessionDeleted(session string, now int64) {
	if s := st.sessions.find(session); s != nil {
		if s.gone = true; s.tomb == 0 {
			st.changed(s.task)
			st.end(s.task, CauseSessionDeleted, reasonSessionDeleted, now)
		}
	}
	if n := st.nodes[session]; n != nil {
		n.gone = true
		st.giveUp(n, now)
		st.cascade(n, reasonParentDeleted(session), now)
		st.touchNode(n)
	}
}

// turnOutcome describes how a turn ended.
type turnOutcome struct {
	cause  Cause
	reason string // reason for the end, or [TurnEnd].Remark if the cause is that of a completed task
	text   string
	todos  int32

	provider *ProviderError // set if the turn ended because the model provider refused a request
	loose    bool           // StartTurn has failed, but the session might be in the turn anyway
	since    int64          // if a request was refused, the time of the first refusal after the last output
}

// turnOver records that the turn of an attempt is over. The agent has ended the turn, successfully
// or with an error, and everything that the turn started has stopped.
func (st *state) turnOver(a *attempt, o *turnOutcome, now int64) {
	st.asksNoMore(a, now)
	a.ran += now - a.turnStart
	a.turnStart = 0
	o.since = now
	if x := a.sight.retry; x != nil {
		o.since = x.since
	}
	st.afterHalt(a, now)
	if !a.goesOn(o.cause) {
		st.madeProgress(a.t)
	}
	a.epoch++
	st.heardFrom(a.t.sess.own, now) // the turn has ended, so the agent has received the answers from its tools
	a.openTodos = o.todos
	if !mdtext.Invisible(o.text) {
		a.said(o.text)
	}
	if a.newsAt > 0 {
		st.news(a, now)
	}
	if !a.goesOn(o.cause) && o.provider == nil { // if the provider refused the turn, the turn continues later
		st.lettersOver(a)
	}
	a.output = a.output || a.sight.output
	st.unfollow(a)
	st.noteUsage(a)
	st.countEnd(a, now)
	if o.provider != nil {
		st.turnRefused(a, o, now)
	} else {
		if a.refused = nil; o.cause.Status() == Completed {
			st.provesPool(a)
		}
		st.parkOrFinish(a, o.cause, o.reason, now)
	}
	if st.budgets {
		st.enforce(a.t, nil, now)
	}
}

// goesOn reports whether the end of an earlier process interrupted the turn. In that case, a new
// attempt must continue this one. cause says why the turn ended.
func (a *attempt) goesOn(cause Cause) bool { return a.continues && cause == CauseInterrupted }

// finish ends an attempt after its last turn. The attempt counts as answered if any of its turns
// wrote text or called a tool. If the cause is that of a completed task, the reason is the remark
// about the last turn. The remark matters only if the attempt has no answer.
func (st *state) finish(a *attempt, cause Cause, reason string, now int64) {
	if cause.Status() == Completed {
		remark := reason
		reason = ""
		if a.answer() == "" && a.sight.prog.toolCalls == 0 {
			cause, reason = st.unanswered(a, remark)
		}
	}
	if a.goesOn(cause) {
		st.supersede(a, now)
		return
	}
	st.end(a.t, cause, reason, now)
}

// The method "unanswered" returns the cause and the reason of an attempt that has ended without an
// answer and without a tool call. The remark describes output that the client did not understand.
func (st *state) unanswered(a *attempt, remark string) (Cause, string) {
	switch {
	case a.output:
		return CauseNoAnswer, reasonUnanswered(reasonNoAnswer, remark)
	case a.cl.starter:
		return CauseNoOutput, reasonUnanswered(reasonIdleNoOutput, remark)
	}
	return CauseNoOutput, reasonUnanswered(reasonNoOutput, remark)
}

// The method "unsaid" reports whether the prompt never reached the session. cause is the cause with
// which the attempt ends.
func (a *attempt) unsaid(cause Cause) bool {
	if a.turn == 1 && (cause == CauseStartFailed || cause == CausePromptFailed) {
		return !a.sight.output && !a.sight.reported && !a.heard
	}
	return a.turn == 0 && !a.heard || a.forgot
}

// The method "end" ends the latest attempt of a task. It has no effect if the attempt has already
// ended, so only the first call counts.
func (st *state) end(t *task, cause Cause, reason string, now int64) {
	if !t.live() {
		return
	}
	var a *attempt
	f := &outcome{ended: now, reason: reason, unsaid: true}
	if t.status == Running {
		a = t.run
		st.asksNoMore(a, now)
		st.capture(a, f, cause.Status() != Completed)
		f.unsaid = a.unsaid(cause)
	}
	t.endMail()
	t.transition(cause.Status(), cause)
	st.ends[cause]++
	t.fin = f
	t.notice = NoticeOwed
	st.keep.text += int64(len(f.result))
	st.countLive(t, -1)
	st.emit(EventEnded, t)
	st.logTask(logEnded, t)
	st.owe(t, now)
	if len(st.waiters) > 0 { // checked here, because keepEnd has a large frame; see publish
		st.keepEnd(t)
	}
	st.forgetCall(t)
	st.wakeTask(t)
	if a != nil {
		st.stop(a, now)
	} else {
		if x := t.more; x != nil && x.ttl != nil {
			st.deadlines.queued.set(x.ttl, t, 0)
			x.ttl = nil
		}
		if t.is(flagAwaitsQuiet) {
			t.set(flagAwaitsQuiet, false) // the slot, if there is one, belongs to the earlier attempt
		} else {
			st.releaseSlot(t)
		}
		st.expirable(t, now)
	}
	if s := t.sess; t.status != Completed && s != nil && s.own != nil {
		st.giveUp(s.own, now)
		st.cascade(s.own, reasonParentEnded(t.id(), cause), now)
	}
	st.touchParent(t.up)
}

// capture copies the output of the attempt into its outcome.
func (st *state) capture(a *attempt, f *outcome, partial bool) {
	if (a.answer() == "" || partial && a.turnStart > 0) && !mdtext.Invisible(a.sight.text) {
		a.said(a.sight.text)
	}
	text := a.answer()
	if partial && text == "" && a.sight.prog.toolCalls == 0 && !mdtext.Invisible(a.sight.thought) {
		text = a.sight.thought
		f.is |= resultThought
	}
	f.started, f.activity, f.turns, f.todos, f.failed = a.started, a.activity, a.turn, a.openTodos, a.failed
	limit := maxResult
	if !a.cl.reads {
		limit = maxResultUnreadable
	}
	f.result = mdtext.Valid(text)
	if len(f.result) > limit {
		f.result = strings.Clone(mdtext.Head(f.result, limit)) // cloned, because a substring would keep the whole text alive
		f.is |= resultCut
	}
	f.partial = partial && f.result != ""
	if p := &a.sight.prog; p.toolCalls > 0 || p.lastText != "" || p.todosSeen || p.usage != (Usage{}) {
		f.prog = new(progress)
		*f.prog = *p
		f.prog.detail = ""
		f.prog.lastText = strings.Clone(p.lastText) // cloned, because it is a substring of a long text
	}
}

// cascade ends every live task of a node and of the nodes below it.
func (st *state) cascade(n *node, reason string, now int64) {
	for t := n.first; t != nil; t = t.next {
		st.end(t, CauseParentEnded, reason, now)
	}
	for _, sub := range n.subs {
		st.cascade(sub, reason, now)
	}
}

// The type "stopping" is the state of an attempt from its end until everything that it started has
// stopped. If the agent ended its turn itself, the attempt is quiet immediately. Otherwise:
//
//	stop -> [in a call] -> the call returns -> rest
//	stop -> abort, repeated if wanted -> Abort returns -> [starter] its status is seen -> rest -> quiet
//	stopEnd passes first -> overrun: the slot is released, and the session might continue to run
//
// The method "rest" releases the slot of a runner's task after RunTurn has returned. The method
// "quiet" releases the slot of a starter's task. The method "overrun" releases the slot in both
// cases.
type stopping struct {
	ended    bool
	stopMore bool // another Abort call is wanted
	stopper  bool // a goroutine is making the Abort calls
	overrun  bool // the stopping deadline has passed

	// loose means that a starter's session might still be in a turn, so a poll must confirm that the
	// turn is over. The method "stop" sets this field if the manager follows the turn. Other code sets
	// it before ending an attempt if the client might have accepted the prompt or created the session
	// without the manager's knowledge.
	loose bool

	stopEnd  int64        // stopping deadline, at which the slot is released; 0 if none was set; for a live attempt, see afterHalt
	aborts   int          // number of Abort calls in flight
	slotEnd  int64        // time from which the attempt's lost slot might belong to others; 0 if the slot is not lost
	slotOver *turnContext // context that cancels the Abort call in flight at slotEnd; nil if there is none to cancel
}

// The method "stop" begins to stop an attempt that has ended. If the agent ended the turn itself,
// everything has already stopped. Otherwise, the method "stop" aborts the session.
func (st *state) stop(a *attempt, now int64) {
	a.ended = true
	a.epoch++
	st.unquiet++
	st.inStopTime++
	st.endContext(a)
	st.leaveLine(a)
	st.isContinued(a.t)
	a.notice = nil
	st.stopsTrying(a, now)
	if a.cl.starter && len(a.sight.msgs) > 0 {
		st.rememberLast(a)
		if a.turnStart > 0 { // between turns, the usage of the last turn has already been noted
			st.noteUsage(a)
		}
	}
	if a.cl.starter && (a.turnStart > 0 && !a.inCall || a.recovering && a.turn > 0) {
		a.loose = true
	}
	a.recovering = a.recovering && a.cl.runner // a starter needs no restore call, because polls show whether its session is running
	a.turnStart = 0
	runs := a.inCall || a.loose || a.recovering
	if runs || a.aborts > 0 { // a call or a turn is still running; the slot is released at stopEnd even if a call never returns
		a.phase = PhaseStopping
		a.stopEnd = now + int64(st.limit(limitStopTimeout))
		st.deadlines.attempts.set(&a.alarm, a, a.stopEnd)
	}
	if runs {
		if a.t.sess != nil && (a.stage == stagePrompt || a.loose) {
			st.wantAbort(a)
		}
	} else if a.stage != stageNone { // the attempt's worker has not begun and will not make a call
		a.stage = stageNone
	}
	if a.postponed && a.recovering { // make a call that stops the processes left running by the earlier process
		st.wantCall(a)
	}
	a.postponed = false
	st.rest(a, now)
}

// The method "rest" releases the slot of an attempt that has ended and marks the attempt as quiet.
// A host call in flight, or a turn that might still be running, delays this.
func (st *state) rest(a *attempt, now int64) {
	st.changed(a.t)
	if !a.ended || a.t.run != a || a.inCall || a.recovering {
		return
	}
	if a.cl.runner && a.t.is(flagSlot) {
		st.releaseSlot(a.t) // the turn has returned
	}
	if a.aborts > 0 || a.stopMore && (a.cl.starter || a.turn == 0) {
		return
	}
	if a.loose && a.t.sess != nil && a.cl.starter {
		st.follow(a) // a poll must confirm that the session is not in a turn
		return
	}
	st.quiet(a, now)
}

// The method "quiet" completes the stopping of an attempt: everything that it started has stopped.
func (st *state) quiet(a *attempt, now int64) {
	t := a.t
	st.unquiet--
	if !a.overrun {
		st.inStopTime--
	}
	st.unfollow(a)
	st.deadlines.attempts.set(&a.alarm, a, 0)
	a.phase = PhaseNone
	t.run = nil
	if t.sess != nil {
		t.sess.stuck = false
	}
	if t.is(flagSlot) {
		st.releaseSlot(t)
	}
	st.emit(EventQuiet, t)
	st.wakeTask(t)
	if t.status == Pending && t.is(flagAwaitsQuiet) {
		t.set(flagAwaitsQuiet, false)
		st.queue(t, now)
		return
	}
	st.expirable(t, now)
}

// The method "overrun" stops waiting for a session that missed its stopping deadline. The slot goes to
// the next task even though the session might still be running. Only in this case can more sessions
// run than the limit allows.
func (st *state) overrun(a *attempt, now int64) {
	a.overrun = true
	if a.slotOver != nil && st.isSlotOver(a) {
		st.rare().now.halts = append(st.rare().now.halts, a.slotOver)
	}
	if a.ended {
		st.inStopTime--
	}
	t := a.t
	st.changed(t)
	if t.sess != nil {
		t.sess.stuck = true
	}
	if t.is(flagSlot) { // if the task has no slot, its turn is over and only an Abort call hangs
		st.over++
		st.releaseSlot(t)
		st.emit(EventOverLimit, t)
		st.logTask(logOverLimit, t)
	}
	st.wakeTask(t)
	if t.status == Pending && t.is(flagAwaitsQuiet) {
		st.end(t, CauseNotStopped, reasonNotStopped(st.limit(limitStopTimeout)), now)
	}
	st.expirable(t, now) // the record can expire now, because the attempt might never become quiet
}

// returnedLate clears the stuck mark of a runner's session if its last host call returns after the
// task's record has expired. The mark of a starter's session stays, because its status is no longer
// polled.
func (st *state) returnedLate(a *attempt) {
	if a.t.is(flagForgotten) && a.cl.runner && !a.inCall && a.aborts == 0 {
		st.keep.stopped(a.t.id())
	}
}

// abortLate aborts a session that was created, or that accepted its prompt, after the attempt had
// ended.
func (st *state) abortLate(a *attempt, session string, now int64) {
	if a.t.sess == nil || a.t.sess.id != session {
		// The session belongs to another task, or this task descends from it, so it must not be
		// aborted.
		return
	}
	if a.stopEnd == 0 {
		a.stopEnd = now + int64(st.limit(limitStopTimeout))
		st.deadlines.attempts.set(&a.alarm, a, a.stopEnd)
	}
	if a.cl.starter && a.turn > 0 {
		a.loose = true
	}
	if a.overrun {
		st.wantAbortOnce(a, session)
		return
	}
	st.wantAbort(a)
}

// mayBeFollowed reports whether another manager might follow the session of the attempt. In that case,
// the session must not be aborted.
func (st *state) mayBeFollowed(a *attempt) bool {
	return a.cl.starter && (st.isLost() || st.isSlotOver(a))
}

// wantAbort requests an Abort call for the attempt's session. If a call is in flight, another one
// follows it.
func (st *state) wantAbort(a *attempt) {
	if st.mayBeFollowed(a) {
		return
	}
	a.stopMore = true
	if !a.stopper {
		a.stopper = true
		st.rare().now.aborts = append(st.rare().now.aborts, a)
	}
}

// wantAbortOnce requests a single Abort call for the session, in addition to the calls that
// wantAbort requests.
func (st *state) wantAbortOnce(a *attempt, session string) {
	if st.mayBeFollowed(a) {
		return
	}
	a.aborts++
	a.epoch++
	st.rare().now.strays = &stray{a, session, st.rare().now.strays}
}

// nextAbort returns the session to abort now. If no Abort call is wanted, nextAbort records that
// the goroutine for Abort calls is ending, and returns "".
func (st *state) nextAbort(a *attempt, now int64) (session string) {
	if !a.stopMore || a.overrun || a.t.run != a || a.t.sess == nil || st.mayBeFollowed(a) {
		a.stopper, a.stopMore = false, false
		st.rest(a, now)
		return ""
	}
	a.stopMore = false
	a.aborts++
	a.epoch++
	if st.claims != nil && a.cl.starter && a.slotOver == nil {
		a.slotOver = &turnContext{}
	}
	return a.t.sess.id
}

// abortReturned is called when an Abort call has returned. The manager might have stopped waiting
// long before the call returned.
func (st *state) abortReturned(a *attempt, now int64) {
	a.aborts--
	a.epoch++
	st.returnedLate(a)
	if s := a.t.sess; s != nil {
		s.aborted = now
	}
	st.rest(a, now)
	st.kick(a.cl)
	if a.aborts == 0 && a.live() { // a parked attempt, or the next turn, has been waiting for the Abort call to return
		a.stopEnd = 0
		st.touchAttempt(a)
		if a.stage != stageNone && !a.inCall {
			st.wantCall(a)
		}
	}
}

// abortFailed is called when an Abort call has failed. The call is repeated if the attempt has
// ended, or if the turn that the call was meant to stop is still running.
func (st *state) abortFailed(a *attempt, session, why string) {
	a.stopMore = !a.live() || a.halted() != nil && a.turnStart > 0
	st.logText(logAbortFailed, session, why)
}
