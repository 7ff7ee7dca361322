package bgagent

// The code in this file hands the notices of a session to a host or a tool that asks for them.

// The method "take" returns the next notice that is owed to the session, and settles it as taken. If
// no notice is packed already, the returned notice covers everything that is owed. If the argument
// "asks" is false, the caller cannot answer questions, so they stay owed.
func (st *state) take(n *node, asks bool, now int64) (Notice, bool) {
	env := n.env
	switch {
	case n.keepsEnv(asks):
		if !n.owesMore(asks) {
			return Notice{}, false
		}
		rest := st.packFor(n, asks, now)
		for _, d := range rest.debts {
			st.settleDebt(d, NoticeTaken, now)
		}
		st.toldAsks(rest.asks)
		st.afterTake(n)
		return rest.notice, true
	case env == nil:
		if env = n.nextLeft(); env == nil {
			if n.reclaimable > 0 {
				st.reclaim(n)
			}
			if env = st.packFor(n, asks, now); env == nil {
				return Notice{}, false
			}
		}
		n.env = env
	}
	st.delivered(n, NoticeTaken, now)
	st.afterTake(n)
	return env.notice.clone(), true // cloned, because a call of Notify that took too long might still read the notice
}

// keepsEnv reports whether a caller that takes notices must leave the node's envelope unchanged. This is
// the case if the envelope is being delivered, or if it contains questions and the caller cannot answer
// them.
func (n *node) keepsEnv(asks bool) bool {
	return n.env != nil && (n.env.flying || !asks && len(n.env.asks) > 0)
}

// owesMore reports whether the outbox contains anything that a caller takes.
func (n *node) owesMore(asks bool) bool { return n.nOwed > 0 || asks && len(n.asks) > 0 }

// packFor is like the method "pack", but for a caller that takes notices. If the argument "asks" is
// false, questions stay in the outbox.
func (st *state) packFor(n *node, asks bool, now int64) *envelope {
	if asks {
		return st.pack(n, now)
	}
	list, from := n.asks, n.asksFrom
	n.emptyAsks()
	env := st.pack(n, now)
	n.asks, n.asksFrom = list, from
	return env
}

func (st *state) afterTake(n *node) {
	st.touchParent(n)
	st.touchNode(n)
}

// reclaim puts the debts of reclaimable notices back into the outbox, because a host is about to
// take them.
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
