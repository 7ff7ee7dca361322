package bgagent

import (
	"context"
	"time"
)

// abortPause is the first pause between two tries of an abort.
const abortPause = 200 * time.Millisecond

// abort aborts the session until that has succeeded and nobody wants it again,
// or the stopping deadline is over.
func (m *BackgroundManager) abort(a *attempt) {
	// Each try gets less than half of the deadline, so that there is a second
	// one when the first hangs and both end before the manager's own alarm.
	each := m.cfg.StopTimeout / 20 * 9
	pause := abortPause
	for {
		var session string
		var ctx context.Context
		m.update(func(st *state, now int64) {
			if session = st.nextAbort(a, now); session != "" {
				ctx = m.contextOf(a.t)
			}
		})
		if session == "" {
			return
		}
		err := m.callAbort(ctx, a, session, each)
		if err == nil {
			pause = abortPause
			continue
		}
		m.update(func(st *state, _ int64) {
			a.stopMore = true
			st.logText(logAbortFailed, session, err.Error())
		})
		if !m.sleep(pause) {
			m.update(func(st *state, _ int64) { a.stopper = false })
			return
		}
		pause *= 2
	}
}

// abortOnce aborts a session that came after the stopping deadline.
func (m *BackgroundManager) abortOnce(a *attempt, session string) {
	var ctx context.Context
	m.view(func(*state) { ctx = m.contextOf(a.t) })
	if err := m.callAbort(ctx, a, session, m.cfg.StopTimeout); err != nil {
		m.update(func(st *state, _ int64) { st.logText(logAbortFailed, session, err.Error()) })
	}
}

func (m *BackgroundManager) callAbort(ctx context.Context, a *attempt, session string, most time.Duration) error {
	_, err := within(ctx, m, goAbort, "Abort", most, func(ctx context.Context) (_ struct{}, err error) {
		err = errGoexit
		defer func() { m.abortReturned(a) }()
		return struct{}{}, lookedAt(m.host(a.cl).sc.Abort(ctx, session))
	})
	return err
}

// abortReturned is called when an Abort has really returned, which may be long
// after it was given up.
func (m *BackgroundManager) abortReturned(a *attempt) {
	m.update(func(st *state, now int64) { st.abortReturned(a, now) })
}

// sleep waits, and reports whether the manager is still there.
func (m *BackgroundManager) sleep(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-m.base.Done():
		return false
	}
}
