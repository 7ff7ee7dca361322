package bgagent

import (
	"context"
	"time"
)

// How a host takes what is owed to a session by itself.

// TakeNotice returns everything that is owed to the session at this moment as
// one notice, without waiting for a batch, and counts it as told. It also hands
// out what was given up. A notice whose delivery has failed before comes by
// itself, unchanged, and the rest with the next call. It returns false when
// there is nothing.
func (m *BackgroundManager) TakeNotice(session string) (n Notice, ok bool) {
	m.update(func(now int64) {
		if node := m.nodes[session]; node != nil {
			n, ok = m.takeLocked(node, now)
		}
	})
	return n, ok
}

// NextNotice waits until the session is due to be told something, by the rules
// of [WakeEach] where Config.Wake is that and of [WakeBatch] otherwise, and
// returns it; it counts as told then. What a tool's result has told does not
// come again. A program that calls it until it returns [ErrNothingOwed] has
// missed nothing: that means that no task which the session itself has launched
// is live and nothing is owed to it. Otherwise the error is ctx's.
func (m *BackgroundManager) NextNotice(ctx context.Context, session string) (Notice, error) {
	wake := make(chan struct{}, 1)
	defer m.update(func(int64) {
		if n := m.nodes[session]; n != nil {
			n.dropWaiter(wake)
			m.dropNodeLocked(n)
		}
	})
	for {
		var notice Notice
		var ok, done bool
		var wait time.Duration = -1
		m.update(func(now int64) {
			n := m.nodes[session]
			if n == nil {
				done = true
				return
			}
			at := m.dueLocked(n)
			if n.env != nil && !n.env.flying || at > 0 && at <= now || n.nOwed > 0 && m.closing || n.live == 0 && n.lost > 0 {
				if notice, ok = m.takeLocked(n, now); ok {
					return
				}
			}
			if n.live == 0 && n.outstanding() == 0 && n.adrift == nil {
				done = true
				return
			}
			if at > 0 {
				wait = max(time.Duration(at-now), 0)
			}
			n.addWaiter(wake)
		})
		switch {
		case ok:
			return notice, nil
		case done:
			return Notice{}, ErrNothingOwed
		}
		if err := waitFor(ctx, wake, wait); err != nil {
			return Notice{}, err
		}
	}
}

// takeLocked hands out everything that is owed to the session.
func (m *BackgroundManager) takeLocked(n *node, now int64) (Notice, bool) {
	env := n.env
	switch {
	case env != nil && env.flying:
		if n.nOwed == 0 {
			return Notice{}, false
		}
		// What is on its way stays on its way.
		rest := m.packLocked(n, now)
		for _, d := range rest.debts {
			m.settleLocked(d, NoticeTaken, now)
		}
		m.afterTakeLocked(n, now)
		return rest.notice, true
	case env == nil:
		if n.lost > 0 {
			m.findLostLocked(n)
		}
		if env = m.packLocked(n, now); env == nil {
			return Notice{}, false
		}
		n.env = env
	}
	m.deliveredLocked(n, NoticeTaken, now)
	m.afterTakeLocked(n, now)
	return env.notice, true
}

func (m *BackgroundManager) afterTakeLocked(n *node, now int64) {
	if p := n.parentTask(); p != nil && p.run != nil {
		m.reconsiderLocked(p.run, now)
	}
	m.dropNodeLocked(n)
}

// findLostLocked puts notices that were given up back among what is owed, for
// somebody who takes it.
func (m *BackgroundManager) findLostLocked(n *node) {
	for t := n.first; t != nil; t = t.next {
		if t.is(flagLost) && !t.live() {
			t.setLost(false)
			n.owed = append(n.owed, debt{t, t.no, t.fin.ended})
			n.nOwed++
		}
	}
}

func (n *node) addWaiter(ch chan struct{}) {
	n.dropWaiter(ch)
	n.waiters = append(n.waiters, ch)
}

func (n *node) dropWaiter(ch chan struct{}) {
	for i, w := range n.waiters {
		if w == ch {
			n.waiters = append(n.waiters[:i], n.waiters[i+1:]...)
			return
		}
	}
}
