package bgagent

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// The way out. Every end of an attempt goes through endLocked, every return of
// a slot of a running attempt through restLocked, turnOverLocked or
// overrunLocked.

// turnOutcome is how a turn ended.
type turnOutcome struct {
	cause  Cause
	reason string
	text   string
	todos  int32
}

// turnOverLocked is called when the agent has ended its turn, well or badly.
// Nothing of it runs any more.
func (m *BackgroundManager) turnOverLocked(a *attempt, o turnOutcome, now int64) {
	a.ran += now - a.turnStart
	a.turnStart = 0
	a.epoch++
	a.openTodos = o.todos
	if o.text != "" {
		a.text = o.text
	}
	m.unwatchLocked(a)
	own := a.t.sess.own
	if o.cause.Status() != Completed || own == nil || own.live == 0 && own.outstanding() == 0 {
		m.endLocked(a.t, o.cause, o.reason, now)
		return
	}
	a.endCause = o.cause
	m.phaseLocked(a, PhaseWaiting)
	m.releaseLocked(a.t, now)
	m.scheduleLocked(own, now)
}

// reconsiderLocked looks whether an attempt that waits for its own tasks has
// anything left to wait for.
func (m *BackgroundManager) reconsiderLocked(a *attempt, now int64) {
	if !a.live() || a.phase != PhaseWaiting {
		return
	}
	if own := a.t.sess.own; own != nil && (own.live > 0 || own.outstanding() > 0) {
		if !a.wantTurn {
			m.scheduleLocked(own, now)
		}
		return
	}
	if a.wantTurn { // what it was to be told has been taken meanwhile
		a.wantTurn = false
		m.releaseLocked(a.t, now)
	}
	m.endLocked(a.t, a.endCause, "", now)
}

// endLocked ends the latest attempt of a task. It does nothing when the attempt
// has already ended: who comes first decides.
func (m *BackgroundManager) endLocked(t *task, cause Cause, reason string, now int64) {
	if !t.live() {
		return
	}
	var a *attempt
	f := &outcome{ended: now, reason: reason, unsaid: true}
	if t.status == Running {
		a = t.run
		m.captureLocked(a, f, cause.Status() != Completed)
		f.unsaid = a.unsaid(cause)
	}
	var own *node // the record may expire with what follows, and the node lose its task
	if t.sess != nil {
		own = t.sess.own
	}
	t.transition(cause.Status(), cause)
	m.ends[cause]++
	t.fin = f
	t.notice = NoticeOwed
	m.keep.text += int64(len(f.result))
	m.openLocked(t, -1)
	m.emitLocked(EventEnded, t)
	m.logLocked(logEnded, t)
	m.oweLocked(t, now)
	m.keepEndLocked(t)
	m.forgetCallLocked(t)
	m.pokeLocked(t)
	if a != nil {
		m.stopLocked(a, now)
	} else {
		if x := t.more; x != nil && x.ttl != nil {
			m.alarmLocked(x.ttl, (*queueTTL)(t), 0)
			x.ttl = nil
		}
		if t.is(flagUnstarted) {
			t.set(flagUnstarted, false) // its slot, if any, is still the earlier attempt's
		} else {
			m.releaseLocked(t, now)
		}
		m.expirableLocked(t, now)
	}
	if t.status != Completed && own != nil {
		m.giveUpLocked(own, now)
		m.cascadeLocked(own, fmt.Sprintf("task %s, which launched it, ended: %s", t.id(), cause), now)
	}
	if p := t.up.parentTask(); p != nil && p.run != nil {
		m.reconsiderLocked(p.run, now)
	}
}

// captureLocked keeps what the attempt has brought forth.
func (m *BackgroundManager) captureLocked(a *attempt, f *outcome, partial bool) {
	if a.text == "" || partial && a.turnStart > 0 && a.w.text != "" {
		a.text = a.w.text
	}
	f.started, f.activity, f.turns, f.todos = a.started, a.activity, a.turn, a.openTodos
	limit := maxResult
	if a.cl.reader == nil {
		limit = maxResultUnreadable
	}
	f.result = clean(a.text)
	if len(f.result) > limit {
		f.result, f.cut = strings.Clone(cutAtRune(f.result, limit)), true // lest it keep the whole
	}
	f.partial = partial && f.result != ""
	if p := &a.w.prog; p.toolCalls > 0 || p.lastText != "" || p.todosSeen || p.usage != (Usage{}) {
		f.prog = new(progress)
		*f.prog = *p
		f.prog.detail = ""
		f.prog.lastText = strings.Clone(p.lastText) // it would keep the text that it is the end of
	}
}

// unsaid reports whether the session never got the prompt of the attempt that
// ends for the cause.
func (a *attempt) unsaid(cause Cause) bool {
	if a.turn == 1 && (cause == CauseStartFailed || cause == CausePromptFailed) {
		return !a.w.output && !a.w.reported
	}
	return a.turn == 0
}

// cascadeLocked ends every live task of a node. Records may expire meanwhile,
// and nodes with them, so it first notes whom it concerns.
func (m *BackgroundManager) cascadeLocked(n *node, reason string, now int64) {
	var live []*task
	for t := n.first; t != nil; t = t.next {
		if t.live() {
			live = append(live, t)
		}
	}
	subs := slices.Clone(n.subs)
	for _, t := range live {
		m.endLocked(t, CauseParentEnded, reason, now)
	}
	for _, sub := range subs {
		m.cascadeLocked(sub, reason, now)
	}
}

// stopLocked brings the ended attempt to rest. When its agent ended the turn by
// itself nothing runs any more; otherwise the session is stopped.
func (m *BackgroundManager) stopLocked(a *attempt, now int64) {
	a.ended = true
	a.epoch++
	m.unquiet++
	a.nextCancel, m.fx.cancels = m.fx.cancels, a
	if a.wantTurn {
		a.wantTurn = false
		m.releaseLocked(a.t, now)
	}
	a.notice = nil
	if o := a.cl.out; o != nil && o.trying == a {
		o.trying = nil
		m.alarmLocked(&o.alarm, o, 0)
		m.tryLaterLocked(o, now)
	}
	if a.cl.starter != nil && len(a.w.msgs) > 0 {
		past := a.w.last(m.seed)
		a.t.sess.past = &past
	}
	if a.cl.starter != nil && a.turnStart > 0 && !a.inCall {
		a.loose = true
	}
	a.turnStart = 0
	if a.inCall || a.loose {
		a.phase = PhaseStopping
		a.stopEnd = now + int64(m.cfg.StopTimeout)
		m.alarmLocked(&a.alarm, a, a.stopEnd)
		if a.t.sess != nil && (a.stage == stagePrompt || a.loose) {
			m.abortLocked(a)
		}
	} else if a.stage != stageNone { // wants a goroutine that has not begun: it never will
		a.stage = stageNone
	}
	m.restLocked(a, now)
}

// restLocked gives the slot back and declares the ended attempt quiet, as far
// as nothing of it runs any more.
func (m *BackgroundManager) restLocked(a *attempt, now int64) {
	if !a.ended || a.t.run != a || a.inCall {
		return
	}
	if a.cl.runner != nil && a.t.is(flagSlot) {
		m.releaseLocked(a.t, now) // its turn has returned
	}
	if a.aborts > 0 || a.stopMore && (a.cl.starter != nil || a.turn == 0) {
		return
	}
	if a.loose && a.t.sess != nil && a.cl.starter != nil {
		m.watchLocked(a) // its status must be seen
		return
	}
	m.quietLocked(a, now)
}

// quietLocked is called once nothing of an ended attempt runs any more.
func (m *BackgroundManager) quietLocked(a *attempt, now int64) {
	t := a.t
	m.unquiet--
	m.unwatchLocked(a)
	m.alarmLocked(&a.alarm, a, 0)
	a.phase = PhaseNone
	t.run = nil
	if t.sess != nil {
		t.sess.stuck = false
	}
	if t.is(flagSlot) {
		m.releaseLocked(t, now)
	}
	m.emitLocked(EventQuiet, t)
	m.pokeLocked(t)
	if t.status == Pending && t.is(flagUnstarted) {
		t.set(flagUnstarted, false)
		m.queueLocked(t, now)
		return
	}
	m.expirableLocked(t, now)
}

// overrunLocked gives the slot of a session to the next one although it could
// not be stopped in time: the one case in which more than the limit can run.
func (m *BackgroundManager) overrunLocked(a *attempt, now int64) {
	a.overrun = true
	t := a.t
	if t.sess != nil {
		t.sess.stuck = true
	}
	if t.is(flagSlot) { // else its turn is over, and only an abort hangs
		m.over++
		m.releaseLocked(t, now)
		m.emitLocked(EventOverLimit, t)
		m.logLocked(logOverLimit, t)
	}
	m.pokeLocked(t)
	if t.status == Pending && t.is(flagUnstarted) {
		m.endLocked(t, CauseNotStopped, fmt.Sprintf("the session of the earlier attempt did not stop within %s; Config.StopTimeout (stopTimeoutMs) decides how long it may take", setting(m.cfg.StopTimeout)), now)
	}
	m.expirableLocked(t, now) // it may never become quiet
}

// returnedLateLocked is called when a call of an attempt has returned. The record
// may have expired by then: its tombstone tells that nothing runs any more. That
// of a starter never does, since nobody asks for its status then.
func (m *BackgroundManager) returnedLateLocked(a *attempt) {
	if a.t.is(flagForgotten) && a.cl.runner != nil && !a.inCall && a.aborts == 0 {
		m.keep.stopped(a.t.id())
	}
}

// abortLateLocked aborts a session that came, or took its prompt, after the
// attempt had ended.
func (m *BackgroundManager) abortLateLocked(a *attempt, session string, now int64) {
	if a.t.sess == nil || a.t.sess.id != session {
		// Somebody else holds this id: it is not ours to stop.
		return
	}
	if a.stopEnd == 0 {
		a.stopEnd = now + int64(m.cfg.StopTimeout)
		m.alarmLocked(&a.alarm, a, a.stopEnd)
	}
	if a.cl.starter != nil && a.turn > 0 {
		a.loose = true
	}
	if a.overrun {
		m.abortOnceLocked(a, session)
		return
	}
	m.abortLocked(a)
}

// abortLocked has the attempt's session aborted. When an abort is under way
// already, another follows it.
func (m *BackgroundManager) abortLocked(a *attempt) {
	a.stopMore = true
	if !a.stopper {
		a.stopper = true
		m.spawn(goAbort, func() { m.abort(a) })
	}
}

// abortPause is the first pause between two tries of an abort.
const abortPause = 200 * time.Millisecond

// abort aborts the session until that has succeeded and nobody wants it again,
// or the stopping deadline is over.
func (m *BackgroundManager) abort(a *attempt) {
	// Each try gets less than half of the deadline, so that there is a second
	// one when the first hangs and both end before the manager's own alarm.
	each := m.cfg.StopTimeout / 20 * 9
	pause := abortPause
	for {
		var session string
		var ctx context.Context
		m.update(func(now int64) {
			if !a.stopMore || a.overrun || a.t.run != a || a.t.sess == nil {
				a.stopper, a.stopMore = false, false
				m.restLocked(a, now)
				return
			}
			session, ctx = a.t.sess.id, m.contextOf(a.t)
			a.stopMore = false
			a.aborts++
			a.epoch++
		})
		if session == "" {
			return
		}
		_, err := within(ctx, m, goAbort, "Abort", each, func(ctx context.Context) (_ struct{}, err error) {
			err = errGoexit
			defer func() { m.abortReturned(a, err) }()
			return struct{}{}, lookedAt(a.cl.sc.Abort(ctx, session))
		})
		if err == nil {
			pause = abortPause
			continue
		}
		m.update(func(int64) {
			a.stopMore = true
			m.logTextLocked("aborting a session failed", session, err.Error())
		})
		if !m.sleep(pause) {
			m.update(func(int64) { a.stopper = false })
			return
		}
		pause *= 2
	}
}

// abortOnceLocked aborts a session that came after the stopping deadline.
func (m *BackgroundManager) abortOnceLocked(a *attempt, session string) {
	a.aborts++
	a.epoch++
	ctx := m.contextOf(a.t)
	m.spawn(goAbort, func() {
		_, err := within(ctx, m, goAbort, "Abort", m.cfg.StopTimeout, func(ctx context.Context) (_ struct{}, err error) {
			err = errGoexit
			defer func() { m.abortReturned(a, err) }()
			return struct{}{}, lookedAt(a.cl.sc.Abort(ctx, session))
		})
		if err != nil {
			m.update(func(int64) { m.logTextLocked("aborting a session failed", session, err.Error()) })
		}
	})
}

// abortReturned is called when an Abort has really returned, which may be long
// after it was given up.
func (m *BackgroundManager) abortReturned(a *attempt, err error) {
	m.update(func(now int64) {
		a.aborts--
		a.epoch++
		m.returnedLateLocked(a)
		if s := a.t.sess; s != nil {
			s.aborted = now
		}
		m.restLocked(a, now)
		m.kickLocked(a.cl)
	})
}

// sleep waits, and reports whether the manager is still there.
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
