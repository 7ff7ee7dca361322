package bgagent

// emit sends an event to every subscriber.
func (st *state) emit(kind EventKind, t *task) {
	st.seq++
	for _, s := range st.subs {
		s.put(Event{Seq: st.seq, Kind: kind, Task: st.snapshot(t)}) // one snapshot each, because it holds maps and slices
		st.fx.wakes.add(&s.waiter)
	}
}

// logTask queues a log entry about a task.
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

// logText queues a log entry about a problem with a host. detail may contain text that an agent
// wrote.
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
