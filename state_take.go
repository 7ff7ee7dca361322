package bgagent

// take hands out all that the session is owed, as one notice.
func (st *state) take(n *node, now int64) (Notice, bool) {
	env := n.env
	switch {
	case env != nil && env.flying:
		if n.nOwed == 0 {
			return Notice{}, false
		}
		// The notice that is being delivered stays as it is.
		rest := st.pack(n, now)
		for _, d := range rest.debts {
			st.settleDebt(d, NoticeTaken, now)
		}
		st.afterTake(n)
		return rest.notice, true
	case env == nil:
		if n.reclaimable > 0 {
			st.reclaim(n)
		}
		if env = st.pack(n, now); env == nil {
			return Notice{}, false
		}
		n.env = env
	}
	st.delivered(n, NoticeTaken, now)
	st.afterTake(n)
	return env.notice, true
}

func (st *state) afterTake(n *node) {
	st.touchParent(n)
	st.touchNode(n)
}

// reclaim puts notices that were given up back into the outbox, because a host takes them now.
func (st *state) reclaim(n *node) {
	for t := n.first; t != nil; t = t.next {
		if t.is(flagReclaimable) && !t.live() {
			t.setReclaimable(false)
			n.owed = append(n.owed, debt{t, t.no, t.fin.ended})
			n.nOwed++
		}
	}
}

func (n *node) addWaiter(w *waiter) {
	n.dropWaiter(w)
	n.waiters = append(n.waiters, w)
}

func (n *node) dropWaiter(w *waiter) {
	for i, x := range n.waiters {
		if x == w {
			n.waiters = append(n.waiters[:i], n.waiters[i+1:]...)
			return
		}
	}
}
