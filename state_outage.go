package bgagent

import (
	"slices"
	"time"

	"github.com/bgagent/bgagent/internal/mdtext"
)

// During an outage, a client cannot reach its runtime, and its attempts wait to start.

const (
	outagePause    = 250 * time.Millisecond // pause before the first try; doubles after each try
	outagePauseMax = 5 * time.Second
	// outagePatience is how long a runner's call must last to count as having reached the runtime.
	// The manager cannot wait for the call to return, because the call returns only when its turn
	// ends.
	outagePatience = 2 * time.Second
)

// outage is a period when a client cannot reach its runtime. Attempts that are about to start
// wait and keep their slots, so that the tasks behind them in line do not fail as well. At any
// time, at most one of the waiting attempts is trying to start.
type outage struct {
	cl     *client
	why    string
	tries  int
	held   []*attempt
	trying *attempt
	alarm  alarm // when the next waiting attempt tries to start
}

// hostFailure tells the state how a host call failed.
type hostFailure struct {
	kind   failureKind
	text   string // text of the error
	reason string // name of the action that failed, followed by the text of the error

	provider *ProviderError // set if the model provider refused a request
}

type failureKind uint8

const (
	failedNot         failureKind = iota
	failedSomehow                 // the runtime may or may not have been reached
	failedAnswered                // the runtime has answered
	failedNoAgent                 // the runtime does not know the agent
	failedUnreachable             // the runtime was not reached; nothing was started
)

// heldBack holds the attempt and returns true if the attempt's client has an outage. It returns
// false for the attempt that is trying to start during the outage.
func (st *state) heldBack(a *attempt, now int64) bool {
	if o := a.cl.out; o == nil || o.trying == a {
		return false
	}
	st.hold(a, now)
	return true
}

// The method "hold" makes the attempt wait until its client can reach the runtime.
func (st *state) hold(a *attempt, now int64) {
	o := a.cl.out
	if a.heldAt == 0 {
		a.heldAt = now
	}
	if !slices.Contains(o.held, a) {
		o.held = append(o.held, a)
	}
	a.seen().prog.detail = o.why
	if a.phase == PhaseStarting {
		st.emit(EventProgress, a.t)
	}
	st.phase(a, PhaseStarting)
	st.setDeadline(a, now)
}

// If a host call could not reach the runtime and did not start anything, the method "unreached" holds
// the attempt and returns true. The call is repeated later. For other failures, it does nothing and
// returns false.
func (st *state) unreached(a *attempt, of stage, f *hostFailure, now int64) bool {
	return f.kind == failedUnreachable && !a.sight.reported && st.holdUnreached(a, of, f, now)
}

func (st *state) holdUnreached(a *attempt, of stage, f *hostFailure, now int64) bool {
	a.stage = of
	if of == stagePrompt && !a.restoring { // the turn has not begun, so it is not counted
		a.turn--
		a.turnStart = 0
		a.notHandedOver()
	}
	o := a.cl.out
	if o == nil {
		o = &outage{cl: a.cl}
		a.cl.out = o
		st.logText(logUnreachable, a.cl.name, f.text)
	}
	o.why = mdtext.Joined(mdtext.Valid(f.text), titleMax)
	if o.trying == a {
		o.trying = nil
	}
	st.tryLater(o, now)
	st.hold(a, now)
	return true
}

// tryLater schedules the next try after a pause, unless a try is already scheduled or under way.
func (st *state) tryLater(o *outage, now int64) {
	if o.trying != nil || o.alarm.index != 0 {
		return
	}
	pause := outagePauseMax
	if o.tries < 5 {
		pause = min(pause, outagePause<<o.tries)
	}
	o.tries++
	st.deadlines.outages.set(&o.alarm, o, now+int64(pause))
}

// ringOutage lets the first waiting attempt try to start. If the alarm rings while a runner's
// attempt is trying to start, the attempt's call has already taken as long as outagePatience. The
// manager then assumes that the call has reached the runtime.
func (st *state) ringOutage(o *outage, now int64) {
	if o.trying != nil {
		st.reached(o.cl, now)
		return
	}
	o.held = slices.DeleteFunc(o.held, func(a *attempt) bool { return !a.live() })
	if len(o.held) == 0 {
		o.cl.out = nil // if the runtime is still unreachable, the next start begins a new outage
		return
	}
	o.trying = o.held[0]
	o.held = slices.Delete(o.held, 0, 1)
	if o.cl.runner && o.trying.stage == stagePrompt {
		st.deadlines.outages.set(&o.alarm, o, now+int64(outagePatience))
	}
	st.wantCall(o.trying)
}

// The method "reached" is called when a client can reach its runtime again. It ends the outage and
// starts all waiting attempts.
func (st *state) reached(cl *client, now int64) {
	o := cl.out
	if o == nil {
		return
	}
	cl.out = nil
	st.deadlines.outages.set(&o.alarm, o, 0)
	if o.trying != nil && o.trying.live() {
		st.unhold(o.trying)
	}
	for _, a := range o.held {
		if a.live() {
			st.unhold(a)
			st.wantCall(a)
		}
	}
}

// leaveOutage makes sure that the attempt no longer waits for its client's outage to end.
func (st *state) leaveOutage(a *attempt, now int64) {
	if o := a.cl.out; o != nil {
		o.held = slices.DeleteFunc(o.held, func(x *attempt) bool { return x == a })
	}
	if a.heldAt > 0 {
		st.unhold(a)
	}
	st.stopsTrying(a, now)
}

// If the attempt was trying to start, stopsTrying lets another attempt try.
func (st *state) stopsTrying(a *attempt, now int64) {
	if o := a.cl.out; o != nil && o.trying == a {
		st.stopTry(o, now)
	}
}

func (st *state) stopTry(o *outage, now int64) {
	o.trying = nil
	st.deadlines.outages.set(&o.alarm, o, 0)
	st.tryLater(o, now)
}

func (st *state) unhold(a *attempt) {
	a.heldAt, a.sight.prog.detail = 0, ""
	st.emit(EventProgress, a.t)
}

// The method "answers" is called when a call has returned. If the runtime has answered the call,
// the method "answers" ends the client's outage. Other kinds of failures do not prove that the
// runtime was reached.
func (st *state) answers(cl *client, f failureKind, now int64) {
	if cl.out != nil && (f == failedNot || f == failedAnswered || f == failedNoAgent) {
		st.reached(cl, now)
	}
}

// outageOf describes the outage that currently affects the attempt. It returns nil if there is
// none.
func (st *state) outageOf(a *attempt) *Outage {
	since, reason := int64(0), ""
	switch {
	case a.heldAt > 0:
		since, reason = a.heldAt, a.sight.prog.detail
	case a.sight.lost && a.turnStart > 0:
		since, reason = a.sight.answered, a.sight.lostWhy
	default:
		return nil
	}
	o := &Outage{Since: st.wall(since), Reason: reason}
	if d := st.limit(limitHostUnreachable); d > 0 {
		o.Until = st.wall(since + int64(d))
	}
	return o
}

// The method "heard" is called when the client has reported the status of the attempt's session.
func (st *state) heard(a *attempt, now int64) {
	a.sight.answered = now
	if a.sight.lost {
		a.sight.lost, a.sight.lostWhy = false, ""
		st.emit(EventProgress, a.t)
	}
}

// The method "unheard" is called when a status query did not return the status of the attempt's
// session. why holds the client's error.
func (st *state) unheard(a *attempt, why string) {
	why = mdtext.Joined(mdtext.Valid(why), titleMax)
	if a.sight.lost && a.sight.lostWhy == why {
		return
	}
	a.sight.lost, a.sight.lostWhy = true, why
	st.emit(EventProgress, a.t)
}

// outageEnd returns the time at which the attempt will fail because it has been held for too long.
// It returns 0 if the attempt is not held or there is no limit.
func (st *state) outageEnd(a *attempt) int64 {
	if a.heldAt == 0 || a.inCall || st.limit(limitHostUnreachable) <= 0 {
		return 0
	}
	return a.heldAt + int64(st.limit(limitHostUnreachable))
}
