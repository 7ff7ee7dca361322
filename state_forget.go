package bgagent

// The code in this file deletes ended tasks on request. Unlike a task that expires, a deleted task leaves
// neither a tombstone nor a record in the store.

// forgetTask deletes an ended task. With a store, it returns the mark of the deleted task. The
// deletion is durable once the store no longer has the record.
func (st *state) forgetTask(t *task, force bool, now int64) (gone *mark, err error) {
	switch {
	case !st.hasEnded(t):
		return nil, stillLive(t.id(), st.shown(t))
	case t.run != nil, t.sess != nil && t.sess.stuck && !force:
		return nil, taskError(t.id(), ErrNotStopped)
	case !force && st.isNeeded(t):
		return nil, taskError(t.id(), ErrStillNeeded)
	case st.storing != nil && st.storing.over:
		return nil, st.overError()
	}
	st.settleTask(t, NoticeGivenUp, now)
	t.up.unpackTask(t) // ends of earlier attempts might not be reported yet
	t.up.forgetDebts(t, NoticeGivenUp)
	t.up.compact()
	st.drop(t, false)
	return st.deleteRecord(t), nil
}

// removeSession forgets a deleted task's session. It does what the methods bury and dropTomb do for
// expired tasks.
func (st *state) removeSession(t *task) {
	if s := t.sess; s != nil {
		s.task = nil
		st.sessions.remove(s)
		st.forgetSession(t.kind.cl, s.id)
	}
	st.releaseKind(t.kind)
}

// isNeeded reports whether the record of the ended task is still needed. This is the case if a session
// has not been notified of an end, or if a task below the ended task is live or being stopped.
func (st *state) isNeeded(t *task) bool {
	if t.notice == NoticeOwed || t.is(flagReclaimable) || t.owesPast() || st.isHanded(t, t.no) {
		return true
	}
	if t.more != nil {
		for _, p := range t.more.past {
			if st.isHanded(t, int32(p.Number)) {
				return true
			}
		}
	}
	below := false
	if t.sess != nil && t.sess.own != nil {
		below = t.sess.own.outstanding() > 0
		t.sess.own.each(func(c *task) { below = below || c.live() || c.run != nil })
	}
	return below
}

// deleteRecord deletes the record of a dropped task from the store.
func (st *state) deleteRecord(t *task) *mark {
	s := st.storing
	if s == nil {
		return nil
	}
	m := s.task(t)
	m.gone, m.refused = true, false
	s.mustChange(m)
	s.dead = append(s.dead, t.id())
	if s.fetches > 0 {
		s.deleted = append(s.deleted, t.id())
	}
	return m
}

// heirs maps the key of each deleted record to the key of a record that must become durable before
// the deletion, or together with it. If a deleted task has launched tasks, only the record of its
// session still shows who owns them.
func (st *state) heirs() map[string]string {
	heirs := map[string]string{}
	for _, m := range st.storing.last {
		if m.gone {
			heirs[m.t.id()] = nodeKey(sessionOf(m.t))
		}
	}
	return heirs
}

// notDeleted is called when the store refuses to delete a record. The task is not brought back into
// memory, and its last record is written, so that the store shows it as history.
func (st *state) notDeleted(m *mark) {
	m.gone, m.last, m.taken = false, "", 0
	st.storing.change(m)
	st.storeLater()
}

// The method "forgotten" returns the mark of a deleted task whose deletion is not yet durable. ref
// is the id of the task or of its session.
func (st *state) forgotten(ref string) *mark {
	if st.storing != nil {
		for _, m := range st.storing.last {
			if m.gone && (m.t.id() == ref || sessionOf(m.t) == ref) {
				return m
			}
		}
	}
	return nil
}
