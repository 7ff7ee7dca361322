package bgagent

import (
	"context"
	"fmt"
	"time"
)

// Suspend stops the manager so that a later manager can continue its tasks. For example, a host
// calls it before a deploy. Once Suspend has begun, no attempt, turn or notice delivery begins.
// Turns of a [TurnRunner] may continue until only Config.StopTimeout remains before the deadline of
// ctx. Turns that are still running at that point are stopped, and the next manager that opens the
// store continues them. The turns of a [TurnStarter] continue on its server. Pending tasks stay
// pending. Callers that are waiting for a task get [ErrSuspended].
//
// Suspend closes the store once the calls for the stopped turns have returned. If a call does not
// return, Suspend waits for it for up to half of the remaining time. With budgets, Suspend also
// counts the usage that the stopped turns report while they end.
//
// If ctx has no deadline, Suspend waits for at most Config.StopTimeout plus Config.CallTimeout, and
// turns are not given time to end. The error is nil or a [*CloseError]. A CloseError names the host
// calls that did not return and the tasks whose last changes could not be stored. A suspension does
// not count as a crash. After Suspend, Close does nothing and returns the same error. Without a
// store, Suspend does the same as Close. If ctx is nil, Suspend does nothing, and the error wraps
// an [*InputError].
func (m *BackgroundManager) Suspend(ctx context.Context) error {
	if ctx == nil {
		return fmt.Errorf("bgagent: suspend: %w", errNoContext)
	}
	first := false
	m.update(func(st *state, _ int64) {
		if first = !st.closing && m.cfg.Store != nil; first {
			st.beginSuspend()
			close(m.closed)
		}
	})
	if !first {
		return m.Close(ctx)
	}
	m.closeErr = m.finishSuspend(ctx)
	close(m.closeDone)
	return m.closeErr
}

func (m *BackgroundManager) finishSuspend(ctx context.Context) error {
	end, ok := ctx.Deadline()
	if !ok {
		end = time.Now().Add(m.cfg.StopTimeout + m.cfg.CallTimeout)
	}
	ctx, cancel := context.WithDeadline(ctx, end)
	defer cancel()
	patience, cancel := context.WithDeadline(ctx, end.Add(-m.cfg.StopTimeout))
	defer cancel()
	if ok {
		m.untilTurnsEnd(patience)
	}
	m.untilDelivered(ctx)
	m.update(func(st *state, _ int64) { st.freeze() })
	m.update(func(st *state, _ int64) { st.flushLast() })
	unkept := m.untilKept(ctx, -1, (*state).allKept)
	m.stop(ErrSuspended)
	m.stopTimer()
	m.update(func(st *state, _ int64) { st.stopFrozen() })
	m.untilStopped(ctx)
	if m.countsMore() {
		unkept = m.untilKept(ctx, -1, (*state).allKept)
	}
	m.closeStore(ctx)
	for len(m.busyGoroutines()) > 0 && waitFor(ctx, m.exited, -1) == nil {
		continue
	}
	m.update(func(st *state, _ int64) { st.leaveSlots() })
	m.untilSlotsLeft()
	return m.closeResult(ctx, unkept)
}

// untilStopped waits until the calls for the stopped turns have returned. Another process can continue the
// tasks once the store is closed, and a turn must not run in both processes. The calls can also still report
// the usage of the turns. If a call does not return, untilStopped gives up halfway to the deadline of
// ctx, so that there is time to close the store.
func (m *BackgroundManager) untilStopped(ctx context.Context) {
	if end, ok := ctx.Deadline(); ok {
		short, cancel := context.WithDeadline(ctx, end.Add(-time.Until(end)/2))
		defer cancel()
		ctx = short
	}
	for m.running[goWorker].Load() > 0 && waitFor(ctx, m.exited, -1) == nil {
		continue
	}
}

// countsMore reports whether the stopped turns have reported usage that is not durable yet. If so, this usage
// is written immediately.
func (m *BackgroundManager) countsMore() (more bool) {
	m.update(func(st *state, _ int64) {
		if st.budgets {
			more = !st.allKept()
			st.flush()
		}
	})
	return more
}

// untilSlotsLeft waits until Config.Slots has all slots back, because the caller might close the
// source afterwards. Calls to a source do not block, so untilSlotsLeft waits only a short time,
// whatever the caller's context allows.
func (m *BackgroundManager) untilSlotsLeft() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	for m.running[goSlots].Load() > 0 && waitFor(ctx, m.exited, -1) == nil {
		continue
	}
}

// untilDelivered waits until no notice is being delivered. If a delivery were not recorded, the
// next manager would deliver the notice again.
func (m *BackgroundManager) untilDelivered(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, m.cfg.CallTimeout)
	defer cancel()
	for m.running[goNotify].Load() > 0 && waitFor(ctx, m.exited, -1) == nil {
		continue
	}
}

// untilTurnsEnd waits until no turn is running in this process, or until ctx ends.
func (m *BackgroundManager) untilTurnsEnd(ctx context.Context) {
	w := newWaiter()
	m.update(func(st *state, _ int64) { st.drainers = append(st.drainers, &w) })
	for {
		left := 0
		m.view(func(st *state) { left = st.ownTurns() })
		if left == 0 || waitFor(ctx, w.ch, -1) != nil {
			return
		}
	}
}
