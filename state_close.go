package bgagent

// The methods of state that Drain and Close call.

// atWork returns the number of attempts that run or are being stopped. Attempts that missed their
// stopping deadline do not count.
func (st *state) atWork() (n int) {
	if st.live+st.unquiet == 0 {
		return 0
	}
	for _, t := range st.tasks {
		if t.run != nil && !t.run.overrun {
			n++
		}
	}
	return n
}

// delivering reports whether the manager still has a notice to deliver.
func (st *state) delivering() bool {
	if st.closing || st.cfg.Wake == WakeNever || !st.cfg.notifies {
		return false
	}
	for _, n := range st.nodes {
		if n.of == nil && !n.scope && !n.gone && n.outstanding() > 0 {
			return true
		}
	}
	return false
}

func (st *state) beginClose(now int64) {
	st.closing = true
	for _, status := range [...]Status{Pending, Running} {
		for _, t := range st.tasks {
			if t.status == status {
				st.end(t, CauseClosed, reasonClosed, now)
			}
		}
	}
	for _, n := range st.nodes {
		st.touchNode(n)
	}
	st.wakeDrainers()
}

// left returns the ids of the tasks whose sessions may still run, and the items of all notices that
// are still owed.
func (st *state) left() (notStopped []string, owed []NoticeItem) {
	for _, t := range st.tasks {
		if t.run != nil {
			notStopped = append(notStopped, t.id())
		}
	}
	for _, n := range st.nodes {
		for _, d := range n.owed {
			if d.t != nil {
				owed = append(owed, st.item(d.t, d.no))
			}
		}
		if n.env != nil {
			for _, d := range n.env.debts {
				owed = append(owed, st.item(d.t, d.no))
			}
		}
	}
	return notStopped, owed
}
