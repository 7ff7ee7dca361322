package bgagent

// callEnd says whether and how a waiting call has ended.
type callEnd uint8

const (
	callGoesOn    callEnd = iota // it still waits
	callTimedOut                 // its task continues in the background
	callCancelled                // its task is cancelled too
)

// foreground checks whether a foreground call still has to wait. If it leaves a live task, why says
// how.
func (st *state) foreground(left callEnd, by Caller, t *task, w *waiter, now int64) (s Task, done bool, why callEnd) {
	switch {
	case int(t.no) != w.no && w.end != nil:
		return *w.end, true, callGoesOn
	case int(t.no) != w.no:
	case !t.live():
		st.answered(t)
		if t.up.session == by.Session { // the same tool call had launched it in the background
			st.settleTask(t, NoticeRead, now)
		}
	case left == callTimedOut, st.isTask(by) && !t.inTurn():
		st.answered(t)
		st.background(t, now)
		why = callTimedOut
	case left == callCancelled:
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

// answered notes that a foreground call gets its answer.
func (st *state) answered(t *task) {
	t.set(flagUnanswered, false)
	st.forgetCall(t)
}

// background moves a foreground task to the background. Its time to live begins now.
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

// isTask reports whether the caller is the session of a task or works under one. Such a caller
// holds a slot while it waits, so it must not wait for something that needs a slot.
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

// inTurn reports whether the task holds a slot, so that it needs no other slot to continue.
func (t *task) inTurn() bool {
	return t.status == Running && t.run != nil && t.run.parkedFor == notParked
}

// waiter waits for a change of tasks.
type waiter struct {
	ch  chan struct{} // has room for one token
	due bool          // listed in wakes
	no  int           // for Run: number of the attempt that it waits for
	end *Task         // how that attempt ended, in case a resume comes before Run looks
}

// wakeTask wakes the waiters for the task.
func (st *state) wakeTask(t *task) {
	if len(st.waiters) > 0 {
		for _, w := range st.waiters[t] {
			st.fx.after.wakes.add(w)
		}
	}
	st.wakeDrainers()
}

// keepEnd saves how the attempt ended for the callers that wait for it in Run.
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

func (st *state) wakeDrainers() {
	for _, w := range st.drainers {
		st.fx.after.wakes.add(w)
	}
}
