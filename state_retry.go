package bgagent

import "time"

// The code in this file handles turns whose program repeats refused requests on its own and reports
// this. Such a turn makes its pool cool down. If the program would wait too long, the turn is stopped,
// and the attempt is parked.

const (
	retryMost   = int64(time.Minute)      // how long a turn may keep its slot while its program waits to repeat a request
	retrySilent = int64(10 * time.Second) // if a turn has not shown a repeated request for this long, the provider counts as accepting requests
)

// The type "retrying" describes the requests that the program of a turn has repeated on its own
// since the turn's last output.
type retrying struct {
	since   int64     // time of the first report
	told    int64     // time of the last report
	at      int64     // time of the next request; 0 if it is unknown
	when    time.Time // the same time on the wall clock, as the client reported it
	err     ProviderError
	haltEnd int64 // when the turn must have stopped; 0 if it is not being stopped
}

// The method "retrying" applies a report that the program of a turn will repeat a refused request.
// The argument "at" is the time of the next request, or zero.
func (st *state) retrying(a *attempt, e *ProviderError, at time.Time, now int64) {
	st.showsRetries(a, now)
	if e == nil || e.Kind == 0 || e.Kind > ProviderTooLong { // the connection failed, not the provider, or the kind is invalid
		return
	}
	if e.Kind == ProviderAuthentication {
		a.loose = a.cl.starter
		st.end(a.t, CauseSessionError, reasonProvider(e, time.Time{}), now)
		return
	}
	next := st.providerTime(at, now)
	s := a.seen()
	x := s.retry
	known := x != nil && x.when.Equal(at.Round(0)) && x.err.Kind == e.Kind && x.err.Tries == e.Tries
	if x == nil {
		x = &retrying{since: now}
		s.retry = x
	}
	if x.haltEnd > 0 || known {
		return
	}
	x.at, x.when, x.told, x.err = next, at.Round(0), now, *e
	reset := max(st.providerTime(at, now), st.providerTime(e.RetryAt, now))
	if st.passes(e.Kind, reset, now) {
		st.cool(a, e, reset, now)
	}
	if at := st.haltAt(a); at > 0 && at <= now {
		st.halt(a, now)
	}
	st.setDeadline(a, now)
}

// haltAt returns the time at which the turn is stopped because its program repeats requests, or 0
// if it is not stopped.
func (st *state) haltAt(a *attempt) (at int64) {
	x := a.sight.retry
	step, goes := stepOf(x.err.Next)
	if x.haltEnd > 0 || !goes { // do not stop a turn that is already being stopped, or that could not continue later
		return 0
	}
	switch {
	case st.limit(limitMaxPark) <= 0: // the attempt cannot be parked
	case x.at == 0:
		at = x.since + retryMost
	case x.at-x.told > retryMost:
		at = x.told
	}
	fall := x.since + st.fallbackAfter()
	if x.at > fall {
		fall = min(fall, x.told)
	}
	if (at == 0 || fall < at) && st.mayFallBack(a, x.err.Kind, step) {
		at = fall
	}
	return at
}

// The method "halt" stops the turn of a live attempt, so that the attempt can be parked or continue
// with another model. If neither is possible, the program of the turn keeps trying.
func (st *state) halt(a *attempt, now int64) {
	e := &a.sight.retry.err
	step, goes := stepOf(e.Next)
	if !goes || a.t.sess == nil || st.limit(limitMaxPark) <= 0 && !st.mayFallBack(a, e.Kind, step) {
		e.Next = NextNone
		return
	}
	a.sight.retry.haltEnd = now + int64(st.limit(limitStopTimeout))
	if a.cl.runner {
		st.rare().now.halts = append(st.rare().now.halts, a.callContext())
	}
	st.wantAbort(a)
	st.setDeadline(a, now)
}

// mayHalt reports whether a refused turn that might still be running must be stopped, so that the
// attempt can be parked.
func (st *state) mayHalt(a *attempt, e *ProviderError) bool {
	step, goes := stepOf(e.Next)
	if !goes || a.halted() != nil {
		return false
	}
	return st.passes(e.Kind, st.providerTime(e.RetryAt, st.now), st.now) || st.mayFallBack(a, e.Kind, step)
}

// haltFor stops the turn of a live attempt because of a refusal.
func (st *state) haltFor(a *attempt, e *ProviderError, now int64) {
	a.sight.retry = &retrying{since: now, err: *e}
	st.halt(a, now)
}

// The method "halted" returns the refusal if the turn of the attempt is being stopped because of
// one, and nil otherwise.
func (a *attempt) halted() *ProviderError {
	if x := a.sight.retry; x != nil && x.haltEnd > 0 {
		return &x.err
	}
	return nil
}

// If the attempt's turn was being stopped, afterHalt makes the attempt ready for further host calls.
// An Abort call that is still in flight would stop the next turn, so the attempt waits until the call
// returns. If the call does not return in time, the attempt ends.
func (st *state) afterHalt(a *attempt, now int64) {
	if a.halted() == nil {
		return
	}
	if a.cl.runner { // stopping the turn cancelled its context, so the next turn needs a new one
		a.cur = &turnContext{values: a.ctx.values}
	}
	a.sight.retry, a.stopMore = nil, false
	if a.aborts > 0 {
		a.stopEnd = now + int64(st.limit(limitStopTimeout))
		st.setDeadline(a, now)
	}
}

// turnHalted applies the status of a starter's session whose turn is being stopped. It returns true if
// the method "judge" must not judge the status.
func (st *state) turnHalted(a *attempt, o observation, now int64) bool {
	e := a.halted()
	if e == nil || !o.answered || a.sight.marked() && a.sight.stop == StopEndOfTurn {
		return false
	}
	switch o.status.State {
	case SessionIdle, SessionGone, SessionUntold:
		if a.aborts > 0 || a.stopMore {
			return true
		}
		st.turnOver(a, &turnOutcome{cause: CauseRateLimited, reason: reasonProvider(e, time.Time{}), text: a.sight.text, provider: e}, now)
		return true
	}
	return false
}

// goesOnAfterRetry forgets the repeated requests, because a request has succeeded.
func (s *sight) goesOnAfterRetry() {
	if s.retry != nil && s.retry.haltEnd == 0 {
		s.retry = nil
	}
}

// showsRetries is called when the program of the attempt's agent shows repeated requests. From then
// on, a turn of this agent that has not shown a repeated request for some time proves that the
// provider accepts requests. Other agents of the client might have other programs.
func (st *state) showsRetries(by *attempt, now int64) {
	cl, agent := by.cl, by.t.kind.key.agent
	if cl.showsRetries[agent] {
		return
	}
	if cl.showsRetries == nil {
		cl.showsRetries = map[string]bool{}
	}
	cl.showsRetries[agent] = true
	for _, t := range st.tasks {
		if a := t.run; a != nil && a.cl == cl && t.kind.key.agent == agent && a.live() {
			st.setDeadline(a, now)
		}
	}
}

// provedAt returns the time at which the silence of a turn proves that the provider accepts requests, or
// 0 if there is no such time.
func (st *state) provedAt(a *attempt) int64 {
	if !a.cl.showsRetries[a.t.kind.key.agent] || a.turnStart == 0 || a.sight.retry != nil || !st.slots.Unproven(&a.t.wait) {
		return 0
	}
	return a.turnStart + retrySilent
}

// retryLimits returns the time at which the turn is stopped, or must have stopped, because of
// repeated requests. After the turn, it returns the time by which the Abort calls must have
// returned. It returns 0 if neither limit applies.
func (st *state) retryLimits(a *attempt) int64 {
	x := a.sight.retry
	switch {
	case a.stopEnd > 0:
		return a.stopEnd
	case x == nil || a.turnStart == 0:
		return 0
	case x.haltEnd > 0:
		return x.haltEnd
	}
	return st.haltAt(a)
}

// retryLimit is called at the time that retryLimits returned.
func (st *state) retryLimit(a *attempt, now int64) {
	x := a.sight.retry
	if a.stopEnd > 0 {
		st.end(a.t, CauseNotStopped, reasonNotHalted(st.limit(limitStopTimeout)), now)
		return
	}
	if x.haltEnd == 0 {
		st.halt(a, now)
		return
	}
	a.loose = a.loose || a.cl.starter
	st.end(a.t, CauseRateLimited, reasonProvider(&x.err, st.wall(x.at)), now)
}

// callContext returns the context for the attempt's next host call.
func (a *attempt) callContext() *turnContext {
	if a.cur != nil {
		return a.cur
	}
	return &a.ctx
}

// endContext requests that the contexts of the attempt's host calls be cancelled.
func (st *state) endContext(a *attempt) {
	a.nextCancel, st.fx.now.cancels = st.fx.now.cancels, a
	if a.cur != nil {
		st.rare().now.halts = append(st.rare().now.halts, a.cur)
	}
}
