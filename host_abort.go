package bgagent

import (
	"context"
	"time"
)

// abortPause is the first pause between two Abort calls.
const abortPause = 200 * time.Millisecond

// abort aborts the session until an Abort has succeeded and no further one is wanted, or until the
// stopping deadline passes.
func (m *BackgroundManager) abort(a *attempt) {
	// Each try gets less than half of the deadline. If the first one hangs, a second one still fits
	// before the manager's own alarm rings.
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

// abortOnce makes one separate Abort call for the session.
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

// abortReturned applies the return of an Abort call. The manager may have stopped waiting for it
// long before.
func (m *BackgroundManager) abortReturned(a *attempt) {
	m.update(func(st *state, now int64) { st.abortReturned(a, now) })
}

// sleep waits for d. It reports false if the manager closes first.
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
