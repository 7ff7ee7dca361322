package bgagent

import (
	"context"
	"time"
)

// How a host takes the notices of a session itself.

// TakeNotice returns all that the session is owed now as one notice, without waiting for a batch.
// The notice counts as told. It includes notices that were given up. If a delivery has failed
// before, the first call returns that notice unchanged and the next call returns the rest. ok is
// false if nothing is owed.
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

// NextNotice waits until a notice for the session is due and returns it. The notice counts as told.
// The rules of [WakeEach] apply if Config.Wake is WakeEach, otherwise those of [WakeBatch]. Ends
// that a tool's result has told do not come again.
//
// A program that calls NextNotice until it returns [ErrNothingOwed] misses nothing: then no task
// that the session launched itself is live and no notice is owed. Any other error is that of ctx.
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
