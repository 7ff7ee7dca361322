package bgagent

import (
	"strings"

	"github.com/bgagent/bgagent/internal/mdtext"
)

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

// awaitedBy reports whether the session waits in Run for the task or for a task that it descends
// from.
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

// turnOutcome is how a turn ended.
type turnOutcome struct {
	cause  Cause
	reason string
	text   string
	todos  int32
}

// turnOver ends the turn of an attempt. The agent has ended the turn, well or badly, and nothing of
// it runs any more.
func (st *state) turnOver(a *attempt, o turnOutcome, now int64) {
	a.ran += now - a.turnStart
	a.turnStart = 0
	a.epoch++
	a.openTodos = o.todos
	if !mdtext.Invisible(o.text) {
		a.text = o.text
	}
	a.output = a.output || a.sight.output
	st.unfollow(a)
	st.parkOrFinish(a, o.cause, o.reason, now)
}

// finish ends an attempt after its last turn. An attempt has an answer if any of its turns wrote
// text or called a tool.
func (st *state) finish(a *attempt, cause Cause, reason string, now int64) {
	if cause.Status() == Completed && a.text == "" && a.sight.prog.toolCalls == 0 {
		cause, reason = CauseNoAnswer, reasonNoAnswer
		if !a.output {
			cause, reason = CauseNoOutput, reasonNoOutput
			if a.cl.starter {
				reason = reasonIdleNoOutput
			}
		}
	}
	st.end(a.t, cause, reason, now)
}

// unsaid reports whether the prompt never reached the session, if the attempt ends for this cause.
func (a *attempt) unsaid(cause Cause) bool {
	if a.turn == 1 && (cause == CauseStartFailed || cause == CausePromptFailed) {
		return !a.sight.output && !a.sight.reported
	}
	return a.turn == 0
}

// end ends the latest attempt of a task. It does nothing if the attempt has already ended: the
// first end wins.
func (st *state) end(t *task, cause Cause, reason string, now int64) {
	if !t.live() {
		return
	}
	var a *attempt
	f := &outcome{ended: now, reason: reason, unsaid: true}
	if t.status == Running {
		a = t.run
		st.capture(a, f, cause.Status() != Completed)
		f.unsaid = a.unsaid(cause)
	}
	t.transition(cause.Status(), cause)
	st.ends[cause]++
	t.fin = f
	t.notice = NoticeOwed
	st.keep.text += int64(len(f.result))
	st.countLive(t, -1)
	st.emit(EventEnded, t)
	st.logTask(logEnded, t)
	st.owe(t, now)
	st.keepEnd(t)
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
			t.set(flagAwaitsQuiet, false) // it holds no slot: the earlier attempt does
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

// capture keeps the output of the attempt.
func (st *state) capture(a *attempt, f *outcome, partial bool) {
	if (a.text == "" || partial && a.turnStart > 0) && !mdtext.Invisible(a.sight.text) {
		a.text = a.sight.text
	}
	if partial && a.text == "" && a.sight.prog.toolCalls == 0 && !mdtext.Invisible(a.sight.thought) {
		a.text, f.thought = a.sight.thought, true
	}
	f.started, f.activity, f.turns, f.todos, f.failed = a.started, a.activity, a.turn, a.openTodos, a.failed
	limit := maxResult
	if !a.cl.reads {
		limit = maxResultUnreadable
	}
	f.result = mdtext.Valid(a.text)
	if len(f.result) > limit {
		f.result, f.cut = strings.Clone(mdtext.Head(f.result, limit)), true // cloned: a slice would keep the whole text alive
	}
	f.partial = partial && f.result != ""
	if p := &a.sight.prog; p.toolCalls > 0 || p.lastText != "" || p.todosSeen || p.usage != (Usage{}) {
		f.prog = new(progress)
		*f.prog = *p
		f.prog.detail = ""
		f.prog.lastText = strings.Clone(p.lastText) // cloned: it is the tail of a long text
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

// stopping is the state of an attempt between its end and the moment when nothing of it runs any
// more. If the agent ended its turn by itself, the attempt is quiet at once. Otherwise:
//
//	stop -> [in a call] -> the call returns -> rest
//	stop -> abort, repeated if wanted -> Abort returns -> [starter] its status is seen -> rest -> quiet
//	stopEnd passes first -> overrun: the slot is given up, and the session may run on
//
// A runner's slot goes back at rest, because its turn has returned then. A starter's slot goes back
// when it is quiet. Overrun gives back the slot of either.
type stopping struct {
	ended    bool
	stopEnd  int64 // the stopping deadline, when the slot is given up
	aborts   int   // number of Abort calls in flight
	stopMore bool  // another Abort is wanted
	stopper  bool  // a goroutine makes the Abort calls
	overrun  bool  // the stopping deadline has passed

	// The end of a starter's turn is not confirmed: its status must be seen. stop sets it for a turn
	// that is followed. Whoever ends an attempt sets it only if the prompt may have been accepted, or
	// the session may have been created, without the manager knowing.
	loose bool
}

// stop begins to stop an ended attempt. If the agent ended the turn by itself, nothing runs any
// more. Otherwise stop aborts the session.
func (st *state) stop(a *attempt, now int64) {
	a.ended = true
	a.epoch++
	st.unquiet++
	st.inStopTime++
	a.nextCancel, st.fx.now.cancels = st.fx.now.cancels, a
	st.leaveLine(a)
	a.notice = nil
	if o := a.cl.out; o != nil && o.trying == a {
		o.trying = nil
		st.deadlines.outages.set(&o.alarm, o, 0)
		st.tryLater(o, now)
	}
	if a.cl.starter && len(a.sight.msgs) > 0 {
		past := a.sight.last(st.seed)
		a.t.sess.past = &past
	}
	if a.cl.starter && a.turnStart > 0 && !a.inCall {
		a.loose = true
	}
	a.turnStart = 0
	if a.inCall || a.loose {
		a.phase = PhaseStopping
		a.stopEnd = now + int64(st.limit(limitStopTimeout))
		st.deadlines.attempts.set(&a.alarm, a, a.stopEnd)
		if a.t.sess != nil && (a.stage == stagePrompt || a.loose) {
			st.wantAbort(a)
		}
	} else if a.stage != stageNone { // its goroutine has not begun and will make no call
		a.stage = stageNone
	}
	st.rest(a, now)
}

// rest moves an ended attempt towards quiet: it gives back the slot and declares the attempt quiet,
// each as soon as what still runs allows it.
func (st *state) rest(a *attempt, now int64) {
	if !a.ended || a.t.run != a || a.inCall {
		return
	}
	if a.cl.runner && a.t.is(flagSlot) {
		st.releaseSlot(a.t) // its turn has returned
	}
	if a.aborts > 0 || a.stopMore && (a.cl.starter || a.turn == 0) {
		return
	}
	if a.loose && a.t.sess != nil && a.cl.starter {
		st.follow(a) // its status must be seen
		return
	}
	st.quiet(a, now)
}

// quiet ends the attempt's stopping: nothing of it runs any more.
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

// overrun handles a session that missed its stopping deadline. Its slot goes to the next task
// although the session may still run. This is the only case where more than the limit can run.
func (st *state) overrun(a *attempt, now int64) {
	a.overrun = true
	if a.ended {
		st.inStopTime--
	}
	t := a.t
	if t.sess != nil {
		t.sess.stuck = true
	}
	if t.is(flagSlot) { // otherwise the turn is over, and only an Abort hangs
		st.over++
		st.releaseSlot(t)
		st.emit(EventOverLimit, t)
		st.logTask(logOverLimit, t)
	}
	st.wakeTask(t)
	if t.status == Pending && t.is(flagAwaitsQuiet) {
		st.end(t, CauseNotStopped, reasonNotStopped(st.limit(limitStopTimeout)), now)
	}
	st.expirable(t, now) // it may never become quiet
}

// returnedLate clears the stuck mark if a runner's last call returns after its record expired. A
// starter's mark stays, because nobody asks for its status any more.
func (st *state) returnedLate(a *attempt) {
	if a.t.is(flagForgotten) && a.cl.runner && !a.inCall && a.aborts == 0 {
		st.keep.stopped(a.t.id())
	}
}

// abortLate aborts a session that was created, or accepted its prompt, after the attempt had ended.
func (st *state) abortLate(a *attempt, session string, now int64) {
	if a.t.sess == nil || a.t.sess.id != session {
		// Another task owns this session, so it must not be aborted.
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

// wantAbort requests an Abort of the attempt's session. If one is in flight, another follows it.
func (st *state) wantAbort(a *attempt) {
	a.stopMore = true
	if !a.stopper {
		a.stopper = true
		st.rare().now.aborts = append(st.rare().now.aborts, a)
	}
}

// wantAbortOnce requests one separate Abort call.
func (st *state) wantAbortOnce(a *attempt, session string) {
	a.aborts++
	a.epoch++
	st.rare().now.strays = &stray{a, session, st.rare().now.strays}
}

// nextAbort returns the session to abort now. If no Abort is wanted, it ends the stopper and
// returns "".
func (st *state) nextAbort(a *attempt, now int64) (session string) {
	if !a.stopMore || a.overrun || a.t.run != a || a.t.sess == nil {
		a.stopper, a.stopMore = false, false
		st.rest(a, now)
		return ""
	}
	a.stopMore = false
	a.aborts++
	a.epoch++
	return a.t.sess.id
}

// abortReturned applies the return of an Abort call. The manager may have stopped waiting for it
// long before.
func (st *state) abortReturned(a *attempt, now int64) {
	a.aborts--
	a.epoch++
	st.returnedLate(a)
	if s := a.t.sess; s != nil {
		s.aborted = now
	}
	st.rest(a, now)
	st.kick(a.cl)
}
