package bgagent

import "slices"

// This file contains the methods of state that Drain and Close call.

// atWork returns the number of attempts that are running or being stopped. Attempts that missed
// their stopping deadline do not count.
func (st *state) atWork() (n int) {
	if st.live+st.unquiet == 0 {
		return 0
	}
	for _, t := range st.tasks {
		if t.run != nil && !t.run.overrun && !st.recovery.due {
			n++
		}
	}
	return n
}

// The method "delivering" reports whether the manager still has a notice to deliver.
func (st *state) delivering() bool {
	if st.closing || st.cfg.Wake == WakeNever || !st.cfg.notifies {
		return false
	}
	for _, n := range st.nodes {
		if n.of == nil && !n.scope && !n.gone && n.outstanding() > n.leftOver() {
			return true
		}
	}
	return false
}

func (st *state) beginClose(now int64) {
	st.closing = true
	if st.recovery.due { // the tasks of the earlier process were not continued, so they remain unchanged in the store
		return
	}
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

// The method "left" returns the ids of the tasks whose sessions might still be running, and the
// items of all owed notices. For a suspended manager, it returns the ids of the tasks whose last
// changes are not durable. If kept is true, all changes were durable when the store was closed. In
// that case, a suspended manager has no such tasks, because later changes by workers have no effect.
func (st *state) left(kept bool) (notStopped []string, owed []NoticeItem) {
	switch {
	case st.recovery.due || kept && st.suspend == frozen:
		return nil, nil
	case st.suspend == frozen:
		return st.unkept(), nil
	}
	for _, t := range st.tasks {
		if t.run != nil {
			notStopped = append(notStopped, t.id())
		}
	}
	if st.isLost() { // the next owner of the store delivers the notices that are owed
		return notStopped, nil
	}
	debts := 0
	for _, n := range st.nodes {
		debts += n.nOwed
	}
	owed = slices.Grow(owed, debts) // items are large, so growing the list step by step would use several times as much memory
	for _, n := range st.nodes {
		for _, d := range n.owed {
			if d.t != nil {
				owed = append(owed, st.item(d.t, d.no))
			}
		}
		for _, env := range n.unsettled() {
			for _, d := range env.debts {
				owed = append(owed, st.item(d.t, d.no))
			}
		}
	}
	return notStopped, owed
}

// The method "unsettled" returns the node's envelopes that contain unsettled debts.
func (n *node) unsettled() (all []*envelope) {
	if n.env != nil {
		all = append(all, n.env)
	}
	return append(all, n.held.envelopes()...)
}
