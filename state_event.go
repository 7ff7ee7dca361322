package bgagent

// emit tells every subscriber.
func (st *state) emit(kind EventKind, t *task) {
	st.seq++
	for _, s := range st.subs {
		s.put(Event{Seq: st.seq, Kind: kind, Task: st.snapshot(t)}) // its own, as it holds maps and slices
		st.fx.wakes.add(&s.waiter)
	}
}

// logTask notes what happened to a task, for the log.
func (st *state) logTask(k logKind, t *task) {
	if !st.cfg.logs {
		return
	}
	e := logEntry{kind: k, task: t.id(), attempt: int(t.no), agent: t.kind.key.agent, status: t.status, cause: t.cause}
	if t.sess != nil {
		e.session = t.sess.id
	}
	st.logEntry(e)
}

// logText notes that something went wrong with the host. The detail may hold what
// an agent wrote.
func (st *state) logText(k logKind, about, detail string) {
	if st.cfg.logs {
		st.logEntry(logEntry{kind: k, about: about, detail: detail})
	}
}

func (st *state) logEntry(e logEntry) {
	q := &st.logs
	if len(q.entries) >= maxLogEntries {
		q.dropped++
		return
	}
	e.at = st.now
	q.entries = append(q.entries, e)
	if !q.writing {
		q.writing = true
		st.rare().writeLog = true
	}
}
