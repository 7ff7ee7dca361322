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
	m.update(func(st *state, now int64) {
		if node := st.nodes[session]; node != nil {
			n, ok = st.take(node, now)
		}
	})
	if ok {
		n = m.words.told(n)
	}
	return n, ok
}

// NextNotice waits until the session is due to be told something, by the rules
// of [WakeEach] where Config.Wake is that and of [WakeBatch] otherwise, and
// returns it; it counts as told then. What a tool's result has told does not
// come again. A program that calls it until it returns [ErrNothingOwed] has
// missed nothing: that means that no task which the session itself has launched
// is live and nothing is owed to it. Otherwise the error is ctx's.
func (m *BackgroundManager) NextNotice(ctx context.Context, session string) (Notice, error) {
	w := newWaiter()
	defer m.update(func(st *state, _ int64) {
		if n := st.nodes[session]; n != nil {
			n.dropWaiter(&w)
			st.touchNode(n)
		}
	})
	for {
		var notice Notice
		var ok, done bool
		var wait time.Duration = -1
		m.update(func(st *state, now int64) {
			n := st.nodes[session]
			if n == nil {
				done = true
				return
			}
			at := st.dueAt(n)
			if n.env != nil && !n.env.flying || at > 0 && at <= now || n.nOwed > 0 && st.closing || n.live == 0 && n.reclaimable > 0 {
				if notice, ok = st.take(n, now); ok {
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
			n.addWaiter(&w)
		})
		switch {
		case ok:
			return m.words.told(notice), nil
		case done:
			return Notice{}, ErrNothingOwed
		}
		if err := waitFor(ctx, w.ch, wait); err != nil {
			return Notice{}, err
		}
	}
}
