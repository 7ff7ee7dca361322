package bgagent

import (
	"errors"
	"fmt"
	"slices"
	"time"
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

// heldBackLocked reports whether the attempt has to wait with its next call.
func (m *BackgroundManager) heldBackLocked(a *attempt, now int64) bool {
	o := a.cl.out
	if o == nil || o.trying == a {
		return false
	}
	m.holdLocked(a, now)
	return true
}

// holdLocked has the attempt wait until its client can be reached.
func (m *BackgroundManager) holdLocked(a *attempt, now int64) {
	o := a.cl.out
	if a.heldAt == 0 {
		a.heldAt = now
	}
	if !slices.Contains(o.held, a) {
		o.held = append(o.held, a)
	}
	a.seen().prog.detail = o.why
	if a.phase == PhaseStarting {
		m.emitLocked(EventProgress, a.t)
	}
	m.phaseLocked(a, PhaseStarting)
	m.deadlineLocked(a, now)
}

// unreachedLocked takes the answer of a call that has started nothing because
// the runtime could not be reached, and reports whether the attempt is held
// back. The call is made again later, as it was.
func (m *BackgroundManager) unreachedLocked(a *attempt, of stage, err error, now int64) bool {
	if !errors.Is(err, ErrUnreachable) || a.w.reported {
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
		m.logTextLocked("a client cannot be reached, and its starts wait", a.cl.name, err.Error())
	}
	o.why = inOneLine(clean(err.Error()), titleMax)
	if o.trying == a {
		o.trying = nil
	}
	m.tryLaterLocked(o, now)
	m.holdLocked(a, now)
	return true
}

// tryLaterLocked has another start of the client tried after a pause, unless one
// is being tried or is to be.
func (m *BackgroundManager) tryLaterLocked(o *outage, now int64) {
	if o.trying != nil || o.alarm.index != 0 {
		return
	}
	pause := outagePauseMax
	if o.tries < 5 {
		pause = min(pause, outagePause<<o.tries)
	}
	o.tries++
	m.alarmLocked(&o.alarm, o, now+int64(pause))
}

// ringLocked has the first of the starts that wait try.
func (o *outage) ringLocked(m *BackgroundManager, now int64) {
	if o.trying != nil {
		m.reachedLocked(o.cl, now)
		return
	}
	o.held = slices.DeleteFunc(o.held, func(a *attempt) bool { return !a.live() })
	if len(o.held) == 0 {
		o.cl.out = nil // the next start finds out how it stands
		return
	}
	o.trying = o.held[0]
	o.held = slices.Delete(o.held, 0, 1)
	if o.cl.runner != nil && o.trying.stage == stagePrompt {
		m.alarmLocked(&o.alarm, o, now+int64(outagePatience))
	}
	m.runLocked(o.trying)
}

// reachedLocked lets everything go on that waits for the client.
func (m *BackgroundManager) reachedLocked(cl *client, now int64) {
	o := cl.out
	if o == nil {
		return
	}
	cl.out = nil
	m.alarmLocked(&o.alarm, o, 0)
	if o.trying != nil {
		m.goOnLocked(o.trying)
	}
	for _, a := range o.held {
		if a.live() {
			m.goOnLocked(a)
			m.runLocked(a)
		}
	}
}

func (m *BackgroundManager) goOnLocked(a *attempt) {
	a.heldAt, a.w.prog.detail = 0, ""
	m.emitLocked(EventProgress, a.t)
}

// answersLocked looks at what a call has returned: an answer says that the
// runtime can be reached, other errors may come from anywhere.
func (m *BackgroundManager) answersLocked(cl *client, err error, now int64) {
	if cl.out != nil && (err == nil || errors.As(err, new(*NoSuchAgentError)) || errors.Is(err, ErrBusy) || errors.Is(err, ErrNoSession)) {
		m.reachedLocked(cl, now)
	}
}

// outageEnd returns when an attempt that is held back has waited for too long,
// or 0.
func (m *BackgroundManager) outageEnd(a *attempt) int64 {
	if a.heldAt == 0 || a.inCall || m.cfg.HostUnreachable <= 0 {
		return 0
	}
	return a.heldAt + int64(m.cfg.HostUnreachable)
}

func (m *BackgroundManager) outageReason(a *attempt) string {
	return fmt.Sprintf("nothing was started, because the agent runtime could not be reached for %s: %s; Config.HostUnreachable (hostUnreachableMs) decides how long is too long",
		setting(m.cfg.HostUnreachable), a.w.prog.detail)
}
