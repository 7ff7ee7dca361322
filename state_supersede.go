package bgagent

import "slices"

// An attempt is superseded if another attempt of its task continues its work. The code in this file
// replaces a superseded attempt. Superseding is not an end: no notice is owed, and callers that
// waited for the old attempt now wait for the new one.

// replace ends an attempt as superseded and returns the attempt that takes its place. The caller
// decides how the new attempt continues, and reports its start.
func (st *state) replace(a *attempt, reason string, now int64) *attempt {
	t := a.t
	f := &outcome{ended: now, reason: reason}
	st.capture(a, f, true)
	t.transition(Cancelled, CauseSuperseded)
	t.fin = f
	st.ends[CauseSuperseded]++
	st.emit(EventSuperseded, t)
	x := t.extra()
	x.past = append(slices.Clip(x.past), Attempt{
		Number: int(t.no), Status: t.status, Cause: t.cause, Reason: f.reason,
		Queued: st.wall(t.queued), Started: st.wall(f.started), Ended: st.wall(f.ended),
	})
	if len(x.past) > pastAttempts {
		x.past = slices.Clone(x.past[1:])
	}
	st.notePast(t)
	a.ended = true
	st.unfollow(a)
	st.deadlines.attempts.set(&a.alarm, a, 0)
	st.endContext(a)

	t.transition(Pending, CauseNone)
	t.transition(Running, CauseNone)
	for _, w := range st.waiters[t] {
		if w.no == int(t.no) {
			w.no++
		}
	}
	t.fin, t.queued = nil, now
	if st.storing != nil {
		st.storing.task(t).since, st.storing.task(t).counted = 0, spent{}
	}
	st.keepSpent(t, f.prog)
	t.no++
	next := &attempt{
		t: t, no: t.no, cl: a.cl, started: now, phase: PhaseStarting, sight: &nothingSeen,
		ran: a.ran, activity: now,
	}
	next.ctx.values = x.values
	t.run = next
	return next
}

// supersede replaces an attempt whose turn was interrupted when the process ended. The next attempt
// continues the turn in the same session. The task keeps its slot.
func (st *state) supersede(a *attempt, now int64) {
	next := st.replace(a, reasonSuperseded, now)
	next.prompt = promptToContinue(st.forwardMail(a, next, joined(a.t.unsaid(), a.t.text)))
	st.wantPrompt(next)
	st.emit(EventStarted, a.t)
	st.wantCall(next)
}

// The method "followed" returns the number of the attempt that continues the attempt with the given
// number. If that attempt was not superseded, the method "followed" returns the given number.
func (t *task) followed(no int32) int32 {
	for t.more != nil && no < t.no && slices.ContainsFunc(t.more.past, func(p Attempt) bool { return p.Number == int(no) && p.Cause == CauseSuperseded }) {
		no++
	}
	return no
}

// firstQueued returns the queue time of the attempt that the latest launch or resume opened.
// Fallbacks and restarts open further attempts, but the work has been waiting since that time.
func (st *state) firstQueued(t *task) int64 {
	at := t.queued
	if t.more == nil {
		return at
	}
	no := int(t.no) - 1
	for _, p := range slices.Backward(t.more.past) {
		if p.Number != no || p.Cause != CauseSuperseded {
			break
		}
		at = st.at(p.Queued)
		no--
	}
	return at
}

// The method "opened" returns the number of the attempt that the latest launch or resume opened.
// Later attempts continue it.
func (t *task) opened() int32 {
	no := t.no
	for no > 1 && t.followed(no-1) == t.no {
		no--
	}
	return no
}

// notePast records that the task's latest attempt has become an earlier attempt.
func (st *state) notePast(t *task) {
	if s := st.storing; s != nil {
		m := s.task(t)
		m.past = append(slices.Clip(m.past), m.batch)
		m.past = m.past[max(0, len(m.past)-len(t.more.past)):]
	}
}
