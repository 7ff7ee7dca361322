package bgagent

import "time"

// The time limits of an attempt. One alarm stands for the earliest of them.

// setDeadline sets the attempt's alarm for the earliest of its time limits.
func (st *state) setDeadline(a *attempt, now int64) {
	st.deadlines.attempts.setBy(&a.alarm, a, st.earliest(a))
}

func (st *state) earliest(a *attempt) (at int64) {
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
	sooner(st.outageEnd(a))
	if a.why == notParked {
		sooner(st.ttlEnd(a))
	}
	if a.turnStart > 0 && a.cl.runner {
		sooner(st.staleEnd(a))
	}
	if a.turnStart > 0 && a.cl.starter && a.stage == stageNone {
		sooner(a.w.lookAt)
		if d := st.cfg.HostUnreachable; d > 0 {
			sooner(a.w.answered + int64(d))
		}
	}
	return at
}

// ttlEnd returns when the attempt has been in turns for too long, or 0.
func (st *state) ttlEnd(a *attempt) int64 {
	if st.cfg.TimeToLive <= 0 || a.t.is(flagForeground) {
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
	return from + int64(st.cfg.TimeToLive) - a.ran
}

// staleEnd returns when a runner's turn counts as stale, or 0.
func (st *state) staleEnd(a *attempt) int64 {
	if st.cfg.StaleTimeout <= 0 || !a.w.reported || a.w.inFlight() > 0 || a.phase == PhaseAsking {
		return 0
	}
	return max(a.activity+int64(st.cfg.StaleTimeout), a.turnStart+int64(staleGrace))
}

// ringAttempt looks which of the attempt's time limits has been reached.
func (st *state) ringAttempt(a *attempt, now int64) {
	reached := func(t int64) bool { return t > 0 && t <= now }
	switch {
	case a.ended:
		if !a.overrun && reached(a.stopEnd) {
			st.overrun(a, now)
		}
	case !a.live():
		return
	case reached(a.callEnd):
		what, cause := doingCreate, CauseStartFailed
		if a.stage == stagePrompt {
			what, cause, a.loose = doingPrompt, CausePromptFailed, true
		}
		st.end(a.t, cause, reasonNoAnswerToCall(what, st.cfg.CreateTimeout), now)
	case reached(st.outageEnd(a)):
		st.end(a.t, CauseHostUnreachable, reasonOutage(st.cfg.HostUnreachable, a.w.prog.detail), now)
	case a.why == notParked && reached(st.ttlEnd(a)):
		a.loose = true
		st.end(a.t, CauseTimeToLive, reasonTimeToLive(st.cfg.TimeToLive), now)
	case a.turnStart > 0 && a.cl.runner && reached(st.staleEnd(a)):
		st.end(a.t, CauseStale, reasonStale(time.Duration(now-a.activity), a.turnStart, &a.w.prog), now)
	case a.turnStart > 0 && a.cl.starter && a.stage == stageNone:
		if d := st.cfg.HostUnreachable; d > 0 && reached(a.w.answered+int64(d)) {
			a.loose = true
			st.end(a.t, CauseHostUnreachable, reasonUnreachable(d), now)
		} else if reached(a.w.lookAt) {
			a.w.lookAt = 0
			st.lookSoon(a)
		}
	}
	if a.ended && a.t.run == a || a.live() {
		if at := st.earliest(a); at > 0 {
			st.deadlines.attempts.set(&a.alarm, a, max(at, now+1))
		}
	}
}
