package bgagent

// The code in this file decides when a foreground call returns, and wakes the callers that wait.

// callEnd is the reason why a foreground call stops waiting before its task has ended.
type callEnd uint8

const (
	callGoesOn    callEnd = iota // the call continues to wait
	callTimedOut                 // the call stops waiting, and its task continues in the background
	callCancelled                // the call was cancelled, and its task is also cancelled
	callSuspended                // the manager was suspended
)

// foreground checks whether a foreground call must still wait. done reports whether the call should
// return now; s is then the task that it returns. If the call returns before the task has ended on
// its own, why holds the reason.
func (st *state) foreground(left callEnd, by Caller, t *task, w *waiter, out *handing, now int64) (s Task, done bool, why callEnd) {
	switch {
	case int(t.no) != w.no && w.end != nil:
		st.runReturns(t, int32(w.no), true, out, now)
		return *w.end, true, callGoesOn
	case int(t.no) != w.no:
	case st.suspend == frozen && t.live():
		why = callSuspended
	case st.hasEnded(t):
		st.answered(t)
		st.runReturns(t, t.no, true, out, now)
		if t.up.session == by.Session { // if an earlier copy of the same tool call launched the task in the background, the answer replaces the notice about its end
			st.read(t, out, now)
		}
	case !t.live() && (left != callGoesOn || st.storing != nil && st.storing.over): // the end of the task is being written
		st.answered(t)
		st.runReturns(t, t.no, false, out, now)
	case left == callTimedOut, t.live() && (st.isTask(by) && !t.inTurn() && !st.mayHaveSlotSoon(t, now) || st.pausesLong(t, now) || st.asksBelow(t, 0, false)):
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

// The method "answered" is called when a foreground call returns the task.
func (st *state) answered(t *task) {
	t.set(flagUnanswered, false)
	st.forgetCall(t)
}

// The method "background" moves a foreground task to the background. The task's time to live begins
// now.
func (st *state) background(t *task, now int64) {
	t.set(flagForeground, false)
	if a := t.run; a != nil && a.live() {
		a.ran = 0
		if a.turnStart > 0 {
			a.ran = a.turnStart - now
		}
		if a.clocksStand() {
			a.t.questions().from = now
		}
		st.setDeadline(a, now)
	}
}

// isTask reports whether the caller's session belongs to a task or descends from the session of a
// task. The caller then holds a slot while it waits, so it must not wait for a task that needs a
// slot.
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

// inTurn reports whether the task is running, and is neither parked nor waiting for a slot. A task in a turn
// holds a slot and does not need another slot to continue.
func (t *task) inTurn() bool {
	return t.status == Running && t.run != nil && t.run.parkedFor == notParked && !t.st.awaitsClaim(t.run)
}

// waiter is a caller that waits until tasks change.
type waiter struct {
	ch    chan struct{} // channel with a buffer for one token
	due   bool          // listed in the field "wakes" of the effects
	place int           // for the store: position among the waiters for the same batch
	of    *task         // for Run: the task; nil before the launch
	no    int           // for Run: number of the attempt that Run waits for
	end   *Task         // for Run: copy of the task, made when the awaited attempt ended; a later resume does not change this copy
}

// wakeTask wakes the callers that wait for the task, and the callers that wait until all work has
// stopped.
func (st *state) wakeTask(t *task) {
	if len(st.waiters)+len(st.drainers) > 0 {
		st.wakeWaiters(t)
	}
}

func (st *state) wakeWaiters(t *task) {
	for _, w := range st.waiters[t] {
		st.fx.after.wakes.add(w)
	}
	st.wakeDrainers()
}

// keepEnd saves a snapshot of the task, which has ended, for the callers that wait for its attempt
// in Run.
func (st *state) keepEnd(t *task) {
	for _, w := range st.waiters[t] {
		if w.no == int(t.no) {
			st.keepEndFor(w, t)
		}
	}
}

// keepEndFor is not inlined, because the snapshot would enlarge the stack of every worker whose task has
// another waiter.
//
//go:noinline
func (st *state) keepEndFor(w *waiter, t *task) {
	s := st.truth(t)
	w.end = &s
}

// awaitEnd makes w wait for the end of the task's latest attempt. The attempt might already have ended. w
// may be nil.
func (st *state) awaitEnd(t *task, w *waiter) {
	if w == nil {
		return
	}
	w.of, w.no = t, int(t.no)
	st.await(t, w)
	if !t.live() {
		st.keepEnd(t)
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

// wakeAll wakes every caller that waits for anything, so that it can return an error. A list of
// waiters that is added to the state must also be handled here.
func (st *state) wakeAll() {
	for _, all := range st.waiters {
		for _, w := range all {
			st.fx.after.wakes.add(w)
		}
	}
	for _, t := range st.tasks {
		if b := t.questions(); b != nil {
			for _, x := range b.list {
				if x.w != nil { // Ask returns even if the turn has no slot, because the turn can no longer get one
					st.fx.after.wakes.add(x.w)
				}
			}
		}
	}
	for _, n := range st.nodes {
		st.wakeNode(n)
	}
	st.wakeDrainers()
	if st.storing != nil {
		st.wakeStoring(anyBatch)
	}
}

// wakePaused wakes the callers that wait for live tasks, because a pool has begun to cool down and these
// callers do not wait through long pauses.
func (st *state) wakePaused() {
	for t := range st.waiters {
		if t.live() {
			st.wakeTask(t)
		}
	}
}
