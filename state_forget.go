package bgagent

// forgetTask deletes an ended task on request. With a store, it returns the mark of the deletion. Unlike
// a task that expires, the task leaves no tombstone and no record.
func (st *state) forgetTask(t *task, force bool, now int64) (gone *mark, err error) {
	switch {
	case !st.hasEnded(t):
		return nil, stillLive(t.id(), t.status)
	case t.run != nil && !(t.run.overrun && force), t.sess != nil && t.sess.stuck && !force:
		return nil, taskError(t.id(), ErrNotStopped)
	case !force && st.isNeeded(t):
		return nil, taskError(t.id(), ErrStillNeeded)
	}
	st.settleTask(t, NoticeGivenUp, now)
	t.up.forgetDebts(t, NoticeGivenUp)
	t.up.compact()
	st.expire(t)
	for i := range st.keep.tombs {
		if st.keep.tombs[i].id == t.id() {
			st.dropTomb(i)
		}
	}
	return st.deleteRecord(t), nil
}

// isNeeded reports whether somebody still needs the record of the ended task: a session that has not been
// told of an end, or tasks below the task.
func (st *state) isNeeded(t *task) bool {
	if t.isDue() || st.isHanded(t, t.no) {
		return true
	}
	if t.more != nil {
		for _, p := range t.more.past {
			if st.isHanded(t, int32(p.Number)) {
				return true
			}
		}
	}
	return false
}

// deleteRecord deletes the record of an expired task from the store. It returns the task's mark, which is
// durable once the record is deleted.
func (st *state) deleteRecord(t *task) *mark {
	s := st.storing
	if s == nil {
		return nil
	}
	m := s.task(t)
	m.gone, m.refused = true, false
	s.mustChange(m)
	s.dead = append(s.dead, t.id())
	s.forgot++
	return m
}

// isForgotten reports whether the store still contains the record of a task that was deleted on
// request. The argument "ref" is the id of the task or of its session.
func (st *state) isForgotten(ref string) bool {
	for _, m := range st.storing.last {
		if m.gone && (m.t.id() == ref || sessionOf(m.t) == ref) {
			return true
		}
	}
	return false
}
