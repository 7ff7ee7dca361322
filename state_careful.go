package bgagent

import "time"

// A task can make the process crash whenever it is continued. Each crash counts as a restart of every
// task that was being continued, and a task survives only few restarts. So that one such task does not
// exhaust the restarts of all others, attempts are continued one after the other once the process has
// crashed twice in a short time.

const (
	crashesWithin = 2 * time.Minute         // time between two crashes after which attempts are continued one after the other
	carefulPause  = int64(10 * time.Second) // longest time for which the next attempt waits for the one that is being continued

	// An attempt that has run for carefulPause is probably not the reason for the crashes, so the restart
	// counts less. maxOutlived is the number of such restarts without progress that a task survives.
	maxOutlived = 10
)

// careful holds the attempts that are continued one after the other.
type careful struct {
	waiting []*attempt
	current *task // task that is being continued
}

// crashedOften reports whether the process has crashed twice in a short time.
func (r *recovery) crashedOften() bool {
	return !r.clean && !r.crashed.IsZero() && r.seen.Sub(r.crashed) <= crashesWithin
}

// postpone makes the attempt wait until it is its turn to be continued. The attempt keeps its slot.
func (st *state) postpone(a *attempt) {
	a.postponed = true
	a.seen().prog.detail = detailPostponed
	st.careful.waiting = append(st.careful.waiting, a)
}

// continueNext continues the next attempt that waits.
func (st *state) continueNext(now int64) {
	c := &st.careful
	if t := c.current; t != nil && t.live() {
		if mark := st.storing.task(t); mark.restarts > 0 {
			mark.restarts--
			mark.outlived++
			st.mustKeep(t)
		}
	}
	c.current, st.deadlines.careful = nil, 0
	for len(c.waiting) > 0 && c.current == nil {
		a := c.waiting[0]
		if c.waiting = c.waiting[1:]; a.postponed {
			c.current, a.postponed, a.sight.prog.detail = a.t, false, ""
			st.deadlines.careful = now + carefulPause
			st.emit(EventProgress, a.t)
			st.recoverTurn(a, false, now)
		}
	}
}

// isContinued notes that the task has made progress or has ended, so that the next one is continued.
func (st *state) isContinued(t *task) {
	if st.careful.current == t {
		st.deadlines.careful = st.now
	}
}
