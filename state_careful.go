package bgagent

import "time"

// A task can make the process crash whenever it is continued. Each crash counts as a restart of every
// task that was being continued, and a task survives only a few restarts. A task that causes crashes
// must not use up every other task's restart allowance. Therefore, once the process has crashed twice
// in a short time, attempts are continued one at a time. If the process crashes before all attempts
// have been continued, the next process does the same.

const (
	crashesWithin = 2 * time.Minute // if two crashes are at most this far apart, attempts are continued one at a time

	// carefulPause is how long the next attempt waits after the turn of the previous attempt has
	// begun. If many attempts are waiting, the pauses are shorter, so that they add up to
	// carefulTotal.
	carefulPause    = 10 * time.Second
	carefulPauseMin = time.Second
	carefulTotal    = 200 * time.Second

	// maxOutlived is how many restarts without progress a task survives if its turn lasted longer than
	// the pause each time. The attempt is then probably not the cause of the crashes, so such restarts
	// have a higher limit.
	maxOutlived = 10
)

// The type "careful" holds the attempts that are continued one at a time.
type careful struct {
	waiting []*attempt
	current *task         // task that is being continued
	began   int64         // when the recovery began
	pause   time.Duration // pause before the next attempt
}

// crashedOften reports whether attempts must be continued one at a time.
func (r *recovery) crashedOften() bool {
	gap := r.seen.Sub(r.crashed)
	return !r.clean && (r.careful || !r.crashed.IsZero() && gap >= 0 && gap <= crashesWithin)
}

// postpone makes the attempt wait until the attempts before it have been continued. The attempt keeps
// its slot.
func (st *state) postpone(a *attempt, now int64) {
	c := &st.careful
	a.postponed = true
	a.seen().prog.detail = detailPostponed
	c.began, c.waiting = now, append(c.waiting, a)
	c.pause = min(max(carefulTotal/time.Duration(len(c.waiting)), carefulPauseMin), carefulPause)
}

// isCareful reports whether attempts are still waiting to be continued, or the last of them is
// being continued.
func (c *careful) isCareful() bool { return c.current != nil || len(c.waiting) > 0 }

// continueNext continues the next waiting attempt.
func (st *state) continueNext(now int64) {
	c := &st.careful
	if st.deadlines.careful = 0; st.suspend != notSuspended || !c.isCareful() {
		return
	}
	if t := c.current; t != nil && t.live() {
		if mark := st.storing.task(t); mark.restarts > 0 {
			mark.restarts--
			mark.outlived++
			st.mustKeep(t)
		}
	}
	c.current = nil
	for len(c.waiting) > 0 && c.current == nil {
		a := c.waiting[0]
		if c.waiting = c.waiting[1:]; a.postponed {
			c.current, a.postponed, a.sight.prog.detail = a.t, false, ""
			if mark := st.storing.task(a.t); mark.since != 0 { // the attempt's wait does not count towards its time to live
				mark.since += now - c.began
			}
			st.deadlines.careful = now + restoreTimes*int64(st.limit(limitCreateTimeout))
			st.emit(EventProgress, a.t)
			st.recoverTurn(a, false, now)
		}
	}
	if !c.isCareful() {
		st.storing.seen, st.storing.urgent = 0, true // write the manager's record, because attempts are no longer continued one at a time
	}
}

// mustCount reports whether the attempt's next call must wait until the store contains the number
// of the task's restarts. Without this wait, a call that makes the process crash immediately would
// be repeated forever. While writes fail, calls do not wait.
func (st *state) mustCount(a *attempt) bool {
	return a.countedIn > st.storing.committed && !st.storing.failing
}

// turnContinues records that a turn of the task has begun or that the manager has resumed following
// one. If the manager was waiting for this, it continues the next task after the pause.
func (st *state) turnContinues(t *task, now int64) {
	if st.careful.current == t {
		st.deadlines.careful = now + int64(st.careful.pause)
	}
}

// isContinued records that the task has made progress or has ended, so the next task can be
// continued.
func (st *state) isContinued(t *task) {
	if st.careful.current == t {
		st.deadlines.careful = st.now
	}
}
