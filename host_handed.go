package bgagent

import (
	"context"
	"fmt"
	"time"
)

// The code in this file reports the ends of tasks to a session or to the host if the manager has a
// store. A report is a notice, or the result of a method or of a tool.

// Ack acknowledges that a notice was read. noticeID is the id of a [Notice] or of one of its items.
//
// With [Config].Store, NextNotice, TakeNotice, Read, Run and the tools' answers report to the host
// or to a session that tasks have ended. In the store, these reports stay owed until they are
// acknowledged, and a later manager hands them out again if necessary. A later call for the same
// session also acknowledges them, if it begins after the call that reported them has returned. If
// the session runs a task, the end of the session's turn also acknowledges them. Ack does nothing
// if there is no store, or if nothing with this id is waiting to be acknowledged. It is safe for
// concurrent use.
func (m *BackgroundManager) Ack(noticeID string) {
	if m.cfg.Store != nil {
		m.update(func(st *state, now int64) { st.ack(noticeID, now) })
	}
}

// The method "heard" acknowledges everything that earlier answers handed out to the session.
func (m *BackgroundManager) heard(session string) {
	if m.cfg.Store != nil {
		m.update(func(st *state, now int64) { st.heardFrom(st.nodes[session], now) })
	}
}

// storesNotices reports whether the manager writes notices to the store before it hands them out.
// After Close, the manager can no longer write.
func (m *BackgroundManager) storesNotices() (is bool) {
	if m.cfg.Store != nil {
		m.view(func(st *state) { is = !st.closed })
	}
	return is
}

// takeStored makes one notice of everything that is owed to the node, writes the notice to the
// store, and returns it. If nothing is owed, the notice is empty. If the notice cannot be written,
// everything stays owed.
func (m *BackgroundManager) takeStored(ctx context.Context, most time.Duration, n *node, w wording, out *handing) (notice Notice, err error) {
	if n == nil {
		return notice, nil
	}
	var env *envelope
	m.update(func(st *state, now int64) {
		if !n.dropped {
			env = st.takeOut(n, w.message != "", now)
		}
	})
	if env == nil {
		return notice, nil
	}
	text := w.notice(env.notice)
	failing, kept := false, false
	m.update(func(st *state, _ int64) { st.seal(n, env, text) })
	err = m.untilKept(ctx, most, func(st *state) bool {
		failing, kept = most >= 0 && st.storing.failing, st.keptNode(n)
		return failing || kept
	})
	m.update(func(st *state, now int64) {
		if kept {
			if err = nil; st.tookOut(n, env, out, now) {
				notice = env.notice.clone() // cloned, because the host must not be able to change the record
			}
			return
		}
		st.takeBack(n, env, now)
		if err == nil {
			err = storeFailed(st.storing.why)
		} else {
			err = fmt.Errorf("%w: %w", ErrStore, err)
		}
	})
	return notice, err
}
