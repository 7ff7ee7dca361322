package bgagent

// callEnd is how a call that waits has ended.
type callEnd uint8

const (
	callGoesOn    callEnd = iota // it has not
	callTimedOut                 // the task goes on in the background
	callCancelled                // and the task with it
)

// foreground looks whether somebody who waits in the foreground still has to.
// why tells of a task that the call has left, rather than seen end.
func (st *state) foreground(ended callEnd, by Caller, t *task, w *waiter, now int64) (s Task, done bool, why callEnd) {
	switch {
	case int(t.no) != w.no && w.end != nil:
		return *w.end, true, callGoesOn
	case int(t.no) != w.no:
	case !t.live():
		st.answered(t)
		if t.up.session == by.Session { // launched in the background by the same tool call
			st.settleTask(t, NoticeRead, now)
		}
	case ended == callTimedOut, st.isTask(by) && !t.inTurn():
		st.answered(t)
		st.background(t, now)
		why = callTimedOut
	case ended == callCancelled:
		st.waived, st.waiver = t, by.Session
		t.set(flagForeground|flagUnanswered, false)
		st.end(t, CauseCaller, reasonCallCancelled, now)
		st.waived = nil
		why = callCancelled
	default:
		return s, false, callGoesOn
	}
	return st.fullSnapshot(t), true, why
}

// answered notes that a foreground call has been handed its answer.
func (st *state) answered(t *task) {
	t.set(flagUnanswered, false)
	st.forgetCall(t)
}

// background turns a task that somebody waited for into one of the
// background. Its time to live begins here.
func (st *state) background(t *task, now int64) {
	t.set(flagForeground, false)
	if a := t.run; a != nil && a.live() {
		a.ran = 0
		if a.turnStart > 0 {
			a.ran = a.turnStart - now
		}
		st.setDeadline(a, now)
	}
}

// isTask reports whether the caller is the session of a task, or works
// under one. Such a caller holds a slot while it waits, so it may not wait for
// something that needs one.
func (st *state) isTask(by Caller) bool {
	if by.Session == "" {
		return false
	}
	for n := st.nodes[by.Session]; n != nil; n = n.above() {
		if n.parentTask() != nil {
			return true
		}
	}
	return st.session(by.Session) != nil
}

// inTurn reports whether the task holds a slot and will go on without another.
func (t *task) inTurn() bool {
	return t.status == Running && t.run != nil && t.run.why == notParked
}

// waiter is somebody who waits for a change of tasks.
type waiter struct {
	ch  chan struct{} // has room for one token
	due bool          // stands in wakes
	no  int           // set by Run: the attempt it waits for
	end *Task         // how that ended; it may be resumed before Run comes to look
}

// wakeTask wakes those who wait for the task.
func (st *state) wakeTask(t *task) {
	if len(st.waiters) > 0 {
		for _, w := range st.waiters[t] {
			st.fx.wakes.add(w)
		}
	}
	st.wakeDrainers()
}

// keepEnd keeps how an attempt ended for those who wait for it in Run.
func (st *state) keepEnd(t *task) {
	for _, w := range st.waiters[t] {
		if w.no == int(t.no) {
			s := st.fullSnapshot(t)
			w.end = &s
		}
	}
}

func (st *state) await(t *task, w *waiter) {
	st.waiters[t] = append(st.waiters[t], w)
}
