package bgagent

import "slices"

// The code in this file withdraws a launch or a resume that cannot be written. The caller then gets
// an error, and the task is in the same state as before the call.

// The method "shows" reports whether the task is visible. Until its launch is durable, a task is
// visible only to the caller that launches it.
func (st *state) shows(t *task) bool {
	if st.storing == nil {
		return true
	}
	m := st.storing.tasks[t]
	return m == nil || !m.fresh
}

// The method "accepted" reports whether the launch or resume that opened the attempt is durable.
func (st *state) accepted(t *task, no int32) bool {
	m := st.storing.tasks[t]
	return !st.withdrawn(t, no) && (m == nil || t.no > no || !m.fresh && m.undo == nil)
}

// The method "withdrawn" reports whether the attempt was withdrawn.
func (st *state) withdrawn(t *task, no int32) bool { return t.no < no }

// mayEndAgain reports whether the task was resumed after it had failed or been cancelled, and the
// resume is not durable yet. In that case, the task must not launch or resume tasks, because a
// withdrawal of the resume would return it to its earlier state.
func (st *state) mayEndAgain(t *task) bool {
	return st.unsettled(t) && st.storing.tasks[t].undo.status != Completed
}

// The method "withdraw" undoes the launch or resume that opened the attempt. It returns true if the
// store might contain the launch or resume anyway.
func (st *state) withdraw(t *task, no int32, now int64) (uncertain bool) {
	s := st.storing
	m := s.tasks[t]
	if m == nil || t.no != no || !m.fresh && m.undo == nil {
		return false
	}
	uncertain = m.taken > s.committed
	st.withdrew(m, uncertain)
	st.withdrawAttempt(t, now)
	s.events = slices.DeleteFunc(s.events, func(e heldEvent) bool { return e.task == t && e.event.Task.Attempt == int(no) })
	switch {
	case m.fresh:
		st.withdrawTask(t)
		s.unmark(t)
		if uncertain {
			s.dead = append(s.dead, t.id())
		}
	default:
		u := m.undo
		if uncertain {
			m.burnt = no
		}
		m.undo, m.must, m.batch, m.past = nil, s.committed, u.batch, u.past
		st.unresume(t, u, now)
		if u.revived {
			st.expireAgain(t, u, uncertain)
		}
		st.changed(t)
	}
	s.urgent = s.urgent || uncertain
	return uncertain
}

// withdrawAttempt ends the attempt without an event or a notice. The attempt has not made a host
// call yet.
func (st *state) withdrawAttempt(t *task, now int64) {
	if a := t.run; a != nil && a.no == t.no {
		a.ended, t.run = true, nil
		st.endContext(a)
		st.deadlines.attempts.set(&a.alarm, a, 0)
		st.unfollow(a)
		st.stopsTrying(a, now)
	}
	if x := t.more; x != nil && x.ttl != nil {
		st.deadlines.queued.set(x.ttl, t, 0)
		x.ttl = nil
	}
	if !t.is(flagAwaitsQuiet) {
		st.releaseSlot(t)
	}
	if t.live() {
		st.countLive(t, -1)
		t.transition(Cancelled, CauseHost)
	} else { // the attempt was cancelled before it was withdrawn
		st.ackTask(t, now)
		st.settleTask(t, NoticeWaived, now)
		t.stay()
		st.keep.text -= int64(len(t.fin.result))
		st.ends[t.cause]--
	}
	t.set(flagUnanswered|flagForeground|flagAwaitsQuiet, false)
	st.forgetCall(t)
	mine := func(x member) bool { return x.t == t && x.no == t.no }
	t.up.members, t.up.closed = slices.DeleteFunc(t.up.members, mine), slices.DeleteFunc(t.up.closed, mine)
	if t.up.live == 0 && len(t.up.members) > 0 {
		st.closeBatch(t.up, now)
	}
}

// withdrawTask removes a task whose launch is withdrawn.
func (st *state) withdrawTask(t *task) {
	t.up.unlink(t)
	st.releaseKind(t.kind)
	num, _ := parseID(t.id())
	delete(st.tasks, num)
	t.no = 0
	st.touchNode(t.up)
	st.touchParent(t.up)
	t.set(flagForgotten, true)
	t.no = 0
}

// lastNumber returns the highest attempt number that the task has used. This might be the number of a
// withdrawn attempt, because the store might contain texts of that attempt. The names of texts
// contain the number of the attempt, so another attempt must not use the same number.
func (st *state) lastNumber(t *task) int32 {
	if st.storing != nil {
		if m := st.storing.tasks[t]; m != nil {
			return max(t.no, m.burnt)
		}
	}
	return t.no
}

// unmark deletes the mark of the task, so that the record of the task is not written.
func (s *storing) unmark(t *task) {
	delete(s.tasks, t)
	s.dirty = slices.DeleteFunc(s.dirty, func(m *mark) bool { return m.t == t })
}

// The type "unresumed" describes a task before a resume.
type unresumed struct {
	was     task
	status  Status
	cause   Cause
	more    *extra
	batch   uint32 // like mark.batch
	past    []uint32
	up      string // id of the parent session
	revived bool   // only a tombstone of the task was in memory
}

// endedBy maps each status that a tombstone can contain to a cause with this status.
var endedBy = map[Status]Cause{Completed: CauseTurnEnded, Failed: CauseStartFailed, Cancelled: CauseHost}

// beforeResume saves the parts of the task that a resume changes. A resume calls it before making
// its changes. If the task was revived, revived is the status in its tombstone.
func (st *state) beforeResume(t *task, revived Status) {
	if s := st.storing; s != nil {
		u := &unresumed{was: *t, status: t.status, cause: t.cause, up: t.up.session, revived: revived.Terminal()}
		if u.revived {
			u.status, u.cause = revived, endedBy[revived]
		}
		if t.more != nil {
			more := *t.more
			more.past = slices.Clone(more.past)
			u.more = &more
		}
		m := s.task(t)
		u.batch, u.past = m.batch, m.past
		m.undo = u
	}
}

// unresume undoes a resume. The notice about the previous attempt might have been settled since the
// resume, so its current state is kept.
func (st *state) unresume(t *task, u *unresumed, now int64) {
	up := st.node(u.up)
	if old := t.up; old != up {
		graft(t.subtree(), old, up)
		old.unlink(t)
		up.link(t)
		st.touchNode(old)
		st.touchParent(old)
	}
	notice := u.was.notice
	if x := t.more; x != nil && len(x.past) > 0 && notice == NoticeOwed {
		notice = x.past[len(x.past)-1].Notice
	}
	t.transition(Pending, CauseNone)
	if t.kind != u.was.kind {
		k := u.was.kind
		st.releaseKind(t.kind)
		t.kind = st.kind(k.key, k.cl, k.agentRules)
	}
	if b := t.budget(); b != nil && u.more != nil && u.more.budget != nil {
		u.more.budget.used = b.used
	}
	t.text, t.more, t.no, t.queued = u.was.text, u.more, u.was.no, u.was.queued
	if u.revived {
		t.fin = &outcome{ended: now}
	} else {
		t.fin = u.was.fin
	}
	t.transition(Running, CauseNone)
	t.transition(u.status, u.cause)
	t.notice = notice
	t.setDebt(-1)
	t.set(flagDropped, u.was.is(flagDropped))
	st.keep.text += int64(len(t.fin.result))
	for i, d := range up.owed {
		if d.t == t && d.no == t.no {
			t.setDebt(i)
		}
	}
	if t.notice == NoticeOwed && t.debt() < 0 && !up.packed(t) {
		t.notice = NoticeGivenUp
	}
	if u.revived {
		return
	}
	t.setReclaimable(u.was.is(flagReclaimable) && t.notice == NoticeGivenUp)
	st.expirable(t, now)
	st.touchNode(up)
	st.touchParent(up)
	st.wakeTask(t)
}

// expireAgain replaces a revived task with a tombstone. The store had no record of the task,
// because a task with a record is loaded instead of revived. If the store might contain the record
// of the resumed task, that record is deleted.
func (st *state) expireAgain(t *task, u *unresumed, uncertain bool) {
	if uncertain {
		st.storing.dead = append(st.storing.dead, t.id())
	}
	t.set(flagForgotten, true)
	last := st.lastNumber(t)
	st.storing.unmark(t)
	num, _ := parseID(t.id())
	delete(st.tasks, num)
	st.bury(t, false)
	st.keep.find(t.id()).no = last
	if u.more != nil {
		st.keep.keepUnsaid(t.sess, u.more.unsaid)
	}
	t.up.unlink(t)
	st.touchNode(t.up)
}

// The method "packed" reports whether an envelope of the node contains the debt for the task's latest attempt.
// The envelope might have been taken by a call that has not returned yet.
func (n *node) packed(t *task) bool {
	return slices.ContainsFunc(n.unsettled(), func(env *envelope) bool {
		return slices.ContainsFunc(env.debts, func(d debt) bool { return d.t == t && d.no == t.no })
	})
}
