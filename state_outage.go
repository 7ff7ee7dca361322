package bgagent

import (
	"slices"
	"time"

	"github.com/bgagent/bgagent/internal/mdtext"
)

// Starts that are held back because their client cannot reach its runtime.

const (
	outagePause    = 250 * time.Millisecond // before the first try; doubled after each
	outagePauseMax = 5 * time.Second
	// A runner's call lasts as long as its turn: one that has lasted for so long
	// has reached its runtime.
	outagePatience = 2 * time.Second
)

// outage is the time in which a client cannot reach its runtime. Its starts
// keep their slots and wait, so that the line behind them does not burn away,
// and one of them tries.
type outage struct {
	cl     *client
	why    string
	tries  int
	held   []*attempt
	trying *attempt
	alarm  alarm // when the next one tries
}

// hostFailure is what the state has to know of an error of a host.
type hostFailure struct {
	kind   failureKind
	text   string // of the error alone
	reason string // with what was being done
}

type failureKind uint8

const (
	failedNot         failureKind = iota
	failedSomehow                 // the runtime may or may not have been reached
	failedAnswered                // the runtime has answered
	failedNoAgent                 // it knows no such agent
	failedUnreachable             // nothing was started, because it could not be reached
)

// heldBack reports whether the attempt has to wait with its next call.
func (st *state) heldBack(a *attempt, now int64) bool {
	o := a.cl.out
	if o == nil || o.trying == a {
		return false
	}
	st.hold(a, now)
	return true
}

// hold has the attempt wait until its client can be reached.
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

// unreached takes the answer of a call that has started nothing because
// the runtime could not be reached, and reports whether the attempt is held
// back. The call is made again later, as it was.
func (st *state) unreached(a *attempt, of stage, f hostFailure, now int64) bool {
	if f.kind != failedUnreachable || a.w.reported {
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

// tryLater has another start of the client tried after a pause, unless one
// is being tried or is to be.
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

// ringOutage has the first of the starts that wait try.
func (st *state) ringOutage(o *outage, now int64) {
	if o.trying != nil {
		st.reached(o.cl, now)
		return
	}
	o.held = slices.DeleteFunc(o.held, func(a *attempt) bool { return !a.live() })
	if len(o.held) == 0 {
		o.cl.out = nil // the next start finds out how it stands
		return
	}
	o.trying = o.held[0]
	o.held = slices.Delete(o.held, 0, 1)
	if o.cl.runner && o.trying.stage == stagePrompt {
		st.deadlines.outages.set(&o.alarm, o, now+int64(outagePatience))
	}
	st.wantGoroutine(o.trying)
}

// reached lets everything go on that waits for the client.
func (st *state) reached(cl *client, now int64) {
	o := cl.out
	if o == nil {
		return
	}
	cl.out = nil
	st.deadlines.outages.set(&o.alarm, o, 0)
	if o.trying != nil {
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
	a.heldAt, a.w.prog.detail = 0, ""
	st.emit(EventProgress, a.t)
}

// answers looks at what a call has returned: an answer says that the runtime can
// be reached, other failures may come from anywhere.
func (st *state) answers(cl *client, f hostFailure, now int64) {
	if cl.out != nil && (f.kind == failedNot || f.kind == failedAnswered || f.kind == failedNoAgent) {
		st.reached(cl, now)
	}
}

// outageEnd returns when an attempt that is held back has waited for too long,
// or 0.
func (st *state) outageEnd(a *attempt) int64 {
	if a.heldAt == 0 || a.inCall || st.cfg.HostUnreachable <= 0 {
		return 0
	}
	return a.heldAt + int64(st.cfg.HostUnreachable)
}
