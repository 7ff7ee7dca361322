package bgagent

import (
	"fmt"
	"time"
)

// The time limits of an attempt. One alarm stands for the earliest of them.

// deadlineLocked sets the attempt's alarm for the earliest of its time limits.
func (m *BackgroundManager) deadlineLocked(a *attempt, now int64) {
	m.alarmByLocked(&a.alarm, a, m.earliestLocked(a))
}

func (m *BackgroundManager) earliestLocked(a *attempt) (at int64) {
	sooner := func(t int64) {
		if t > 0 && (at == 0 || t < at) {
			at = t
		}
	}
	if a.ended {
		if !a.overrun {
			sooner(a.stopEnd)
		}
		return at
	}
	sooner(a.callEnd)
	sooner(m.outageEnd(a))
	if a.phase != PhaseWaiting {
		sooner(m.ttlEnd(a))
	}
	if a.turnStart > 0 && a.cl.runner != nil {
		sooner(m.staleEnd(a))
	}
	if a.turnStart > 0 && a.cl.starter != nil && a.stage == stageNone {
		sooner(a.w.lookAt)
		if d := m.cfg.HostUnreachable; d > 0 {
			sooner(a.w.answered + int64(d))
		}
	}
	return at
}

// ttlEnd returns when the attempt has been in turns for too long, or 0.
func (m *BackgroundManager) ttlEnd(a *attempt) int64 {
	if m.cfg.TimeToLive <= 0 || a.t.is(flagForeground) {
		return 0
	}
	from := a.turnStart
	switch {
	case from != 0:
	case a.turn == 0:
		from = a.started
	default: // between two turns
		return 0
	}
	return from + int64(m.cfg.TimeToLive) - a.ran
}

// staleEnd returns when a runner's turn counts as stale, or 0.
func (m *BackgroundManager) staleEnd(a *attempt) int64 {
	if m.cfg.StaleTimeout <= 0 || !a.w.reported || a.w.inFlight() > 0 || a.phase == PhaseAsking {
		return 0
	}
	return max(a.activity+int64(m.cfg.StaleTimeout), a.turnStart+int64(staleGrace))
}

// ringLocked looks which of the attempt's time limits has been reached.
func (a *attempt) ringLocked(m *BackgroundManager, now int64) {
	reached := func(t int64) bool { return t > 0 && t <= now }
	switch {
	case a.ended:
		if !a.overrun && reached(a.stopEnd) {
			m.overrunLocked(a, now)
		}
	case !a.live():
		return
	case reached(a.callEnd):
		what, cause := "creating the session", CauseStartFailed
		if a.stage == stagePrompt {
			what, cause, a.loose = "handing over the prompt", CausePromptFailed, true
		}
		m.endLocked(a.t, cause, fmt.Sprintf("%s: the client did not answer within %s; Config.CreateTimeout (createTimeoutMs) decides how long it may take", what, setting(m.cfg.CreateTimeout)), now)
	case reached(m.outageEnd(a)):
		m.endLocked(a.t, CauseHostUnreachable, m.outageReason(a), now)
	case a.phase != PhaseWaiting && reached(m.ttlEnd(a)):
		a.loose = true
		m.endLocked(a.t, CauseTimeToLive, fmt.Sprintf("ran for more than %s; Config.TimeToLive (taskTtlMs) decides how long a task may", setting(m.cfg.TimeToLive)), now)
	case a.turnStart > 0 && a.cl.runner != nil && reached(m.staleEnd(a)):
		m.endLocked(a.t, CauseStale, m.staleReason(a, now), now)
	case a.turnStart > 0 && a.cl.starter != nil && a.stage == stageNone:
		if d := m.cfg.HostUnreachable; d > 0 && reached(a.w.answered+int64(d)) {
			a.loose = true
			m.endLocked(a.t, CauseHostUnreachable, fmt.Sprintf("the client has not told the session's status for %s; Config.HostUnreachable (hostUnreachableMs) decides how long is too long", setting(d)), now)
		} else if reached(a.w.lookAt) {
			a.w.lookAt = 0
			m.lookLocked(a)
		}
	}
	if a.ended && a.t.run == a || a.live() {
		if at := m.earliestLocked(a); at > 0 {
			m.alarmLocked(&a.alarm, a, max(at, now+1))
		}
	}
}

func (m *BackgroundManager) staleReason(a *attempt, now int64) string {
	seen := "its prompt"
	switch p := &a.w.prog; {
	case p.lastTextA > a.turnStart && p.lastText != "":
		seen = "the text " + quote(cutAtRune(p.lastText, 80))
	case p.lastTool != "":
		seen = "the tool " + quote(p.lastTool)
	}
	idle := time.Duration(now - a.activity)
	return fmt.Sprintf("nothing changed for %d min; the last that was seen was %s; Config.StaleTimeout (staleTimeoutMs) decides how long is too long", int(idle.Minutes()), seen)
}
