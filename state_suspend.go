package bgagent

// The code in this file suspends the manager. A suspension stops attempts without ending them, so
// that the next process can continue them.
//
//	beginSuspend: nothing new begins -> [turns of runners end] -> freeze: no more changes
//	-> stopFrozen: the contexts of the remaining turns end
//
// Changes between beginSuspend and freeze are recorded as usual. Answers from clients after freeze
// are ignored, because they only show that the clients' calls were stopped. Only the usage of the
// stopped turns is still counted, because no later process can find it out.

// The type "suspending" is the progress of a suspension.
type suspending uint8

const (
	notSuspended suspending = iota
	suspended               // no attempt or turn begins, and no notice is delivered
	frozen                  // the state no longer changes, except that usage is counted
)

// beginSuspend makes sure that no further attempt or turn begins, and that no further notice is
// delivered. Tasks that wait for a slot leave their lines, because other managers might share the
// ConcurrencyManager.
func (st *state) beginSuspend() {
	st.closing, st.suspend = true, suspended
	for _, t := range st.tasks {
		switch a := t.run; {
		case a != nil && a.live():
			st.leaveLine(a)
		case t.status == Pending && !t.is(flagAwaitsQuiet): // if the task awaits quiet, the slot belongs to the earlier attempt
			st.releaseSlot(t)
		}
	}
	st.wakeDrainers()
}

// ownTurns returns the number of attempts whose turn or stopping would be interrupted if the process
// ended now. It does not count a starter's turns, because these continue on its server.
func (st *state) ownTurns() (n int) {
	if st.live+st.unquiet == 0 || st.recovery.due {
		return 0
	}
	for _, t := range st.tasks {
		if a := t.run; a != nil && !a.overrun && (a.inCall || a.ended) && !(a.live() && a.awaitsAnswer()) { // a turn that waits for an answer does not count, because the answer can take a day
			n++
		}
	}
	return n
}

// The method "freeze" makes sure that the state no longer changes. Therefore, the records of
// attempts that are still running in this process keep describing running turns. The method
// "freeze" also wakes all waiters.
func (st *state) freeze() {
	st.suspend = frozen
	if s := st.storing; s != nil {
		s.clean, s.seen, s.urgent = true, 0, true
	}
	st.wakeAll()
}

// The method "unkept" returns the ids of the tasks whose last changes are not durable.
func (st *state) unkept() (ids []string) {
	s := st.storing
	for t, m := range s.tasks {
		if !t.is(flagForgotten) && (m.dirty || max(m.must, m.taken) > s.committed) {
			ids = append(ids, t.id())
		}
	}
	return ids
}

// leaveSlots releases the slots of all tasks at the end of the suspension.
func (st *state) leaveSlots() {
	for _, t := range st.tasks {
		if t.is(flagSlot) {
			st.releaseSlot(t)
		}
	}
}

// leavesTasks reports whether the tasks stay unchanged until another manager opens the store.
func (st *state) leavesTasks() bool { return st.suspend == frozen || st.closing && st.recovery.due }

// stopFrozen cancels the contexts of all turns.
func (st *state) stopFrozen() {
	for _, t := range st.tasks {
		if a := t.run; a != nil && !a.ended {
			st.endContext(a)
		}
	}
}

// countFrozen counts usage that a turn has reported after freeze. It does not stop any task, because
// the next process compares the sums with the budgets.
func (st *state) countFrozen(a *attempt, turn int32, u Usage, now int64) {
	switch {
	case !st.budgets || a.t.is(flagForgotten):
	case a.live() && a.turn == turn && a.turnStart > 0:
		p := &a.seen().prog
		p.usage = p.usage.plus(u)
		st.add(a, now)
	default:
		st.spend(a.t, spent{usage: u}.beyond(spent{}), now)
	}
}
