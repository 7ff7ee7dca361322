package bgagent

import (
	"slices"
	"time"

	"github.com/bgagent/bgagent/internal/mdtext"
)

// Outages: starts wait while their client cannot reach its runtime.

const (
	outagePause    = 250 * time.Millisecond // before the first try; doubles after each
	outagePauseMax = 5 * time.Second
	// A runner's call lasts as long as its turn. A call that has lasted this long has reached the
	// runtime.
	outagePatience = 2 * time.Second
)

// outage is a period when a client cannot reach its runtime. Its starts keep their slots and wait,
// so that the tasks behind them do not fail as well. One of them tries at a time.
type outage struct {
	cl     *client
	why    string
	tries  int
	held   []*attempt
	trying *attempt
	alarm  alarm // when the next start tries
}

// hostFailure is what the state needs to know about an error of a host.
type hostFailure struct {
	kind   failureKind
	text   string // text of the error alone
	reason string // text with what was being done
}

type failureKind uint8

const (
	failedNot         failureKind = iota
	failedSomehow                 // the runtime may or may not have been reached
	failedAnswered                // the runtime has answered
	failedNoAgent                 // the runtime does not know the agent
	failedUnreachable             // the runtime was not reached; nothing was started
)

// heldBack holds the attempt and reports true if its client has an outage, unless the attempt is
// the one that tries.
func (st *state) heldBack(a *attempt, now int64) bool {
	o := a.cl.out
	if o == nil || o.trying == a {
		return false
	}
	st.hold(a, now)
	return true
}

// hold makes the attempt wait until its client can be reached.
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

// unreached handles a failed call that could not reach the runtime and has started nothing. It
// holds the attempt and reports true; the same call is made again later. For other failures it
// reports false.
func (st *state) unreached(a *attempt, of stage, f hostFailure, now int64) bool {
	if f.kind != failedUnreachable || a.sight.reported {
		return false
	}
	a.stage = of
	if of == stagePrompt { // the turn has not begun
		a.turn--
		a.turnStart = 0
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

// tryLater schedules the next try of a start after a pause, unless one is scheduled or under way.
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

// ringOutage lets the first waiting start try.
func (st *state) ringOutage(o *outage, now int64) {
	if o.trying != nil {
		st.reached(o.cl, now)
		return
	}
	o.held = slices.DeleteFunc(o.held, func(a *attempt) bool { return !a.live() })
	if len(o.held) == 0 {
		o.cl.out = nil // the next start begins a new outage if need be
		return
	}
	o.trying = o.held[0]
	o.held = slices.Delete(o.held, 0, 1)
	if o.cl.runner && o.trying.stage == stagePrompt {
		st.deadlines.outages.set(&o.alarm, o, now+int64(outagePatience))
	}
	st.wantGoroutine(o.trying)
}

// reached ends the outage of a client and lets all its waiting starts continue.
func (st *state) reached(cl *client, now int64) {
	o := cl.out
	if o == nil {
		return
	}
	cl.out = nil
	st.deadlines.outages.set(&o.alarm, o, 0)
	if o.trying != nil && o.trying.live() {
		st.goOn(o.trying)
	}
	for _, a := range o.held {
		if a.live() {
			st.goOn(a)
			st.wantGoroutine(a)
		}
	}
}

func (st *state) goOn(a *attempt) {
	a.heldAt, a.sight.prog.detail = 0, ""
	st.emit(EventProgress, a.t)
}

// answers ends an outage if a call returned an answer of the runtime. Other failures may have any
// source.
func (st *state) answers(cl *client, f hostFailure, now int64) {
	if cl.out != nil && (f.kind == failedNot || f.kind == failedAnswered || f.kind == failedNoAgent) {
		st.reached(cl, now)
	}
}

// outageOf returns what the attempt's client cannot reach at the moment, or nil.
func (st *state) outageOf(a *attempt) *Outage {
	var o Outage
	var since int64
	switch {
	case a.heldAt > 0:
		since, o.Reason = a.heldAt, a.sight.prog.detail
	case a.sight.lost && a.turnStart > 0:
		since, o.Reason = a.sight.answered, a.sight.lostWhy
	default:
		return nil
	}
	o.Since = st.wall(since)
	if d := st.cfg.HostUnreachable; d > 0 {
		o.Until = st.wall(since + int64(d))
	}
	return &o
}

// heard notes that the client has told the status of the attempt's session.
func (st *state) heard(a *attempt, now int64) {
	a.sight.answered = now
	if a.sight.lost {
		a.sight.lost, a.sight.lostWhy = false, ""
		st.emit(EventProgress, a.t)
	}
}

// unheard notes that the client, when asked, has not told the status of the attempt's session. why
// is its error.
func (st *state) unheard(a *attempt, why string) {
	why = mdtext.Joined(mdtext.Valid(why), titleMax)
	if a.sight.lost && a.sight.lostWhy == why {
		return
	}
	a.sight.lost, a.sight.lostWhy = true, why
	st.emit(EventProgress, a.t)
}

// outageEnd returns when an attempt has been held for too long, or 0.
func (st *state) outageEnd(a *attempt) int64 {
	if a.heldAt == 0 || a.inCall || st.cfg.HostUnreachable <= 0 {
		return 0
	}
	return a.heldAt + int64(st.cfg.HostUnreachable)
}
