package bgagent

import "slices"

// ref finds a task by its id or its session's, or what is left of it.
func (st *state) ref(by Caller, ref string) (*task, *tombstone, error) {
	if s := st.session(ref); s != nil {
		ref = s.task.id()
	}
	if num, ok := parseID(ref); ok && st.tasks[num] != nil {
		t, err := st.own(by, ref)
		return t, nil, err
	}
	if tomb := st.tomb(ref); tomb != nil {
		if by.Session != "" && !tomb.descends(by.Session) {
			return nil, nil, taskError(ref, ErrNotDescendant)
		}
		if tomb.sess != nil && tomb.sess.id == ref {
			return nil, tomb, nil
		}
	}
	t, err := st.own(by, ref)
	return t, nil, err
}

func (st *state) kindOf(by Caller, ref string) (kindKey, error) {
	t, tomb, err := st.ref(by, ref)
	switch {
	case err != nil:
		return kindKey{}, err
	case tomb != nil:
		return tomb.kind.key, nil
	default:
		return t.kind.key, nil
	}
}

func (st *state) resume(values launchValues, by Caller, chain []SessionInfo, ref, prompt, model string, foreground bool, now int64) (*task, error) {
	if st.closing || st.draining {
		return nil, ErrClosed
	}
	t, tomb, err := st.ref(by, ref)
	if err != nil {
		return nil, err
	}
	var again uint64
	if by.ToolCallID != "" {
		var id string
		if t != nil {
			id = t.id()
		} else {
			id = tomb.id
		}
		if again = callHash(st.seed, by, id, prompt); t != nil && t.more != nil && t.more.again == again {
			st.awaitCall(t, foreground)
			return t, nil
		}
	}
	if err := resumable(t, tomb); err != nil {
		return nil, err
	}
	up, err := st.resumeNode(by, chain, t, tomb)
	if err != nil {
		return nil, err
	}
	if err := st.room(up.top()); err != nil {
		st.touchNode(up)
		return nil, err
	}
	if t == nil {
		t = st.revive(tomb, up)
	}
	st.reopen(t, up, now)
	t.text = prompt
	if again != 0 || t.more != nil {
		t.extra().again = again
	}
	t.set(flagForeground|flagUnanswered, foreground)
	if values != (launchValues{}) {
		t.extra().values = values
	}
	if model != "" && model != t.kind.key.model {
		key := t.kind.key
		key.model = model
		old := t.kind
		t.kind = st.kind(key, old.cl, old.own)
		st.releaseKind(old)
	}
	st.countLive(t, +1)
	t.set(flagUnstarted, t.run != nil)
	st.emit(EventResumed, t)
	st.logTask(logResumed, t)
	st.queue(t, now)
	return t, nil
}

// resumable says why a task, or what is left of it, cannot be resumed.
func resumable(t *task, tomb *tombstone) error {
	switch {
	case t == nil && tomb.stuck:
		return taskError(tomb.id, ErrNotStopped)
	case t == nil && tomb.sess.gone:
		return sessionWasDeleted(tomb.id, tomb.sess.id)
	case t == nil:
		return nil
	case t.live():
		return stillLive(t.id(), t.status)
	case t.sess != nil && t.sess.stuck, t.run != nil && t.run.overrun:
		return taskError(t.id(), ErrNotStopped)
	case t.sess != nil && t.sess.gone:
		return sessionWasDeleted(t.id(), t.sess.id)
	}
	return nil
}

// resumeNode returns the node that is told of the new attempt's end: the
// caller's; for the host the task's own parent, or the nearest one above it
// that can still be told.
func (st *state) resumeNode(by Caller, chain []SessionInfo, t *task, tomb *tombstone) (*node, error) {
	if by.Session != "" {
		return st.launchNode(by.Session, chain)
	}
	var first *node
	if t != nil {
		first = t.up
	} else {
		first = st.node(tomb.parent)
	}
	n := first
	for p := n.parentTask(); n.lapsed || p != nil && !p.live(); p = n.parentTask() {
		n = n.above()
	}
	st.touchNode(first)
	return n, nil
}

// reopen makes room for a new attempt of an ended task.
func (st *state) reopen(t *task, up *node, now int64) {
	if f := t.fin; f != nil {
		x := t.extra()
		if f.unsaid {
			x.unsaid = joined(x.unsaid, t.text)
		} else {
			x.unsaid = ""
		}
		x.past = append(slices.Clip(x.past), Attempt{
			Number: int(t.no), Status: t.status, Cause: t.cause, Reason: f.reason,
			Queued: st.wall(t.queued), Started: st.wall(f.started), Ended: st.wall(f.ended), Notice: t.notice,
		})
		if len(x.past) > pastAttempts {
			x.past = slices.Clone(x.past[1:])
		}
	}
	t.set(flagUnanswered, false)
	st.forgetCall(t)
	t.setLost(false)
	if t.notice == NoticeOwed {
		t.set(flagOldDebts, true)
	}
	t.set(flagDropped, false)
	if old := t.up; old != up {
		if t.notice == NoticeOwed { // the debts of the earlier attempt stay behind, and go with it
			st.settleTask(t, NoticeGivenUp, now)
			t.set(flagOldDebts, false)
		}
		old.forgetDebts(t, NoticeGivenUp)
		old.compact()
		graft(account{live: t.subtreeLive()}, old, up)
		old.unlink(t)
		up.link(t)
		st.touchNode(old)
	}
	if t.stay(); t.fin != nil {
		st.forgetError(t)
		st.keep.text -= int64(len(t.fin.result))
		t.fin = nil
	}
	t.transition(Pending, CauseNone)
	t.no++
	t.debt, t.notice, t.queued = -1, NoticeNone, now
}

// subtreeLive counts the live tasks under an ended task.
func (t *task) subtreeLive() (live int) {
	if t.sess != nil && t.sess.own != nil {
		t.sess.own.each(func(x *task) {
			if x.live() {
				live++
			}
		})
	}
	return live
}
