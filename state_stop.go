package bgagent

// stopping is what happens to an attempt between its end and the moment when
// nothing of it runs any more. An agent that has ended its turn by itself is quiet
// at once. Otherwise:
//
//	stop -> [in a call] -> the call returns -> rest
//	stop -> abort, again and again -> it has returned -> [starter] its status is seen -> rest -> quiet
//	stopEnd passes first -> overrun: the slot is given up, and the session may run on
//
// The slot goes back with rest for a runner, whose turn has returned then; with
// quiet for a starter; at the latest with overrun.
type stopping struct {
	ended    bool
	stopEnd  int64 // the slot is given up then
	aborts   int   // Abort calls that have not returned
	stopMore bool  // another one is wanted
	stopper  bool  // a goroutine is aborting
	overrun  bool  // the stopping deadline has passed
	loose    bool  // the turn's end has not been confirmed: a starter whose status must be seen
}

// stop brings the ended attempt to rest. When its agent ended the turn by
// itself nothing runs any more; otherwise the session is stopped.
func (st *state) stop(a *attempt, now int64) {
	a.ended = true
	a.epoch++
	st.unquiet++
	st.stopping++
	a.nextCancel, st.fx.cancels = st.fx.cancels, a
	st.leaveLine(a)
	a.notice = nil
	if o := a.cl.out; o != nil && o.trying == a {
		o.trying = nil
		st.deadlines.outages.set(&o.alarm, o, 0)
		st.tryLater(o, now)
	}
	if a.cl.starter && len(a.w.msgs) > 0 {
		past := a.w.last(st.seed)
		a.t.sess.past = &past
	}
	if a.cl.starter && a.turnStart > 0 && !a.inCall {
		a.loose = true
	}
	a.turnStart = 0
	if a.inCall || a.loose {
		a.phase = PhaseStopping
		a.stopEnd = now + int64(st.cfg.StopTimeout)
		st.deadlines.attempts.set(&a.alarm, a, a.stopEnd)
		if a.t.sess != nil && (a.stage == stagePrompt || a.loose) {
			st.abort(a)
		}
	} else if a.stage != stageNone { // wants a goroutine that has not begun: it never will
		a.stage = stageNone
	}
	st.rest(a, now)
}

// rest gives the slot back and declares the ended attempt quiet, as far
// as nothing of it runs any more.
func (st *state) rest(a *attempt, now int64) {
	if !a.ended || a.t.run != a || a.inCall {
		return
	}
	if a.cl.runner && a.t.is(flagSlot) {
		st.release(a.t) // its turn has returned
	}
	if a.aborts > 0 || a.stopMore && (a.cl.starter || a.turn == 0) {
		return
	}
	if a.loose && a.t.sess != nil && a.cl.starter {
		st.follow(a) // its status must be seen
		return
	}
	st.quiet(a, now)
}

// quiet is called once nothing of an ended attempt runs any more.
func (st *state) quiet(a *attempt, now int64) {
	t := a.t
	st.unquiet--
	if !a.overrun {
		st.stopping--
	}
	st.unfollow(a)
	st.deadlines.attempts.set(&a.alarm, a, 0)
	a.phase = PhaseNone
	t.run = nil
	if t.sess != nil {
		t.sess.stuck = false
	}
	if t.is(flagSlot) {
		st.release(t)
	}
	st.emit(EventQuiet, t)
	st.wakeTask(t)
	if t.status == Pending && t.is(flagUnstarted) {
		t.set(flagUnstarted, false)
		st.queue(t, now)
		return
	}
	st.expirable(t, now)
}

// overrun gives the slot of a session to the next one although it could
// not be stopped in time: the one case in which more than the limit can run.
func (st *state) overrun(a *attempt, now int64) {
	a.overrun = true
	if a.ended {
		st.stopping--
	}
	t := a.t
	if t.sess != nil {
		t.sess.stuck = true
	}
	if t.is(flagSlot) { // else its turn is over, and only an abort hangs
		st.over++
		st.release(t)
		st.emit(EventOverLimit, t)
		st.logTask(logOverLimit, t)
	}
	st.wakeTask(t)
	if t.status == Pending && t.is(flagUnstarted) {
		st.end(t, CauseNotStopped, reasonNotStopped(st.cfg.StopTimeout), now)
	}
	st.expirable(t, now) // it may never become quiet
}

// returnedLate is called when a call of an attempt has returned. The record
// may have expired by then: its tombstone tells that nothing runs any more. That
// of a starter never does, since nobody asks for its status then.
func (st *state) returnedLate(a *attempt) {
	if a.t.is(flagForgotten) && a.cl.runner && !a.inCall && a.aborts == 0 {
		st.keep.stopped(a.t.id())
	}
}

// abortLate aborts a session that came, or took its prompt, after the
// attempt had ended.
func (st *state) abortLate(a *attempt, session string, now int64) {
	if a.t.sess == nil || a.t.sess.id != session {
		// Somebody else holds this id: it is not ours to stop.
		return
	}
	if a.stopEnd == 0 {
		a.stopEnd = now + int64(st.cfg.StopTimeout)
		st.deadlines.attempts.set(&a.alarm, a, a.stopEnd)
	}
	if a.cl.starter && a.turn > 0 {
		a.loose = true
	}
	if a.overrun {
		st.abortOnce(a, session)
		return
	}
	st.abort(a)
}

// abort has the attempt's session aborted. When an abort is under way
// already, another follows it.
func (st *state) abort(a *attempt) {
	a.stopMore = true
	if !a.stopper {
		a.stopper = true
		st.rare().aborts = append(st.rare().aborts, abortion{a: a})
	}
}

// abortOnce aborts a session that came after the stopping deadline.
func (st *state) abortOnce(a *attempt, session string) {
	a.aborts++
	a.epoch++
	st.rare().aborts = append(st.rare().aborts, abortion{a, session})
}

// nextAbort returns the session that is to be aborted now, or ends the aborting.
func (st *state) nextAbort(a *attempt, now int64) (session string) {
	if !a.stopMore || a.overrun || a.t.run != a || a.t.sess == nil {
		a.stopper, a.stopMore = false, false
		st.rest(a, now)
		return ""
	}
	a.stopMore = false
	a.aborts++
	a.epoch++
	return a.t.sess.id
}

// abortReturned is called when an Abort has really returned, which may be long
// after it was given up.
func (st *state) abortReturned(a *attempt, now int64) {
	a.aborts--
	a.epoch++
	st.returnedLate(a)
	if s := a.t.sess; s != nil {
		s.aborted = now
	}
	st.rest(a, now)
	st.kick(a.cl)
}
