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

// awaitedBy reports whether the task is, or descends from, one that the session
// waits for in Run.
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

// turnOver is called when the agent has ended its turn, well or badly.
// Nothing of it runs any more.
func (st *state) turnOver(a *attempt, o turnOutcome, now int64) {
	a.ran += now - a.turnStart
	a.turnStart = 0
	a.epoch++
	a.openTodos = o.todos
	if !mdtext.Invisible(o.text) {
		a.text = o.text
	}
	a.output = a.output || a.w.output
	st.unfollow(a)
	own := a.t.sess.own
	if o.cause.Status() != Completed || own == nil || own.live == 0 && own.outstanding() == 0 {
		st.finish(a, o.cause, o.reason, now)
		return
	}
	st.park(a, forTasks, o.cause)
	st.touchNode(own)
}

// reconsider looks whether an attempt that waits for its own tasks has
// anything left to wait for.
func (st *state) reconsider(a *attempt, now int64) {
	if !a.live() || a.why != forTasks {
		return
	}
	if own := a.t.sess.own; own != nil && (own.live > 0 || own.outstanding() > 0) {
		if !a.wantTurn {
			st.touchNode(own)
		}
		return
	}
	st.leaveLine(a) // what it was to be told has been taken meanwhile
	st.finish(a, a.endCause, "", now)
}

// finish ends an attempt whose agent has ended its last turn. Whether there is
// an answer is judged over all its turns: text, or a call of a tool.
func (st *state) finish(a *attempt, cause Cause, reason string, now int64) {
	if cause.Status() == Completed && a.text == "" && a.w.prog.toolCalls == 0 {
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

// unsaid reports whether the session never got the prompt of the attempt that
// ends for the cause.
func (a *attempt) unsaid(cause Cause) bool {
	if a.turn == 1 && (cause == CauseStartFailed || cause == CausePromptFailed) {
		return !a.w.output && !a.w.reported
	}
	return a.turn == 0
}

// end ends the latest attempt of a task. It does nothing when the attempt
// has already ended: who comes first decides.
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
		if t.is(flagUnstarted) {
			t.set(flagUnstarted, false) // its slot, if any, is still the earlier attempt's
		} else {
			st.release(t)
		}
		st.expirable(t, now)
	}
	if s := t.sess; t.status != Completed && s != nil && s.own != nil {
		st.giveUp(s.own, now)
		st.cascade(s.own, reasonParentEnded(t.id(), cause), now)
	}
	st.touchParent(t.up)
}

// capture keeps what the attempt has brought forth.
func (st *state) capture(a *attempt, f *outcome, partial bool) {
	if (a.text == "" || partial && a.turnStart > 0) && !mdtext.Invisible(a.w.text) {
		a.text = a.w.text
	}
	if partial && a.text == "" && a.w.prog.toolCalls == 0 && !mdtext.Invisible(a.w.thought) {
		a.text, f.thought = a.w.thought, true
	}
	f.started, f.activity, f.turns, f.todos, f.failed = a.started, a.activity, a.turn, a.openTodos, a.failed
	limit := maxResult
	if !a.cl.reads {
		limit = maxResultUnreadable
	}
	f.result = mdtext.Valid(a.text)
	if len(f.result) > limit {
		f.result, f.cut = strings.Clone(mdtext.Head(f.result, limit)), true // a slice would keep the whole
	}
	f.partial = partial && f.result != ""
	if p := &a.w.prog; p.toolCalls > 0 || p.lastText != "" || p.todosSeen || p.usage != (Usage{}) {
		f.prog = new(progress)
		*f.prog = *p
		f.prog.detail = ""
		f.prog.lastText = strings.Clone(p.lastText) // it would keep the text that it is the end of
	}
}

// cascade ends every live task of a node, and of those below it.
func (st *state) cascade(n *node, reason string, now int64) {
	for t := n.first; t != nil; t = t.next {
		st.end(t, CauseParentEnded, reason, now)
	}
	for _, sub := range n.subs {
		st.cascade(sub, reason, now)
	}
}
