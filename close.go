package bgagent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// This file contains the methods that shut down the manager or cancel tasks.

// Drain refuses new tasks and waits until all existing tasks have ended. If there is a notifier
// ([Config].Notify or a client that is a [Notifier]), Drain also waits until the notices about
// these tasks have been delivered, unless [Config].Wake is WakeNever. Pending tasks are still
// started, because they have already been accepted. Drain does not wait for a session that fails to
// stop within Config.StopTimeout. With [Config].Store, Drain also waits until all changes are
// durable. If ctx ends first, Drain returns the context's error. If Close begins first, Drain
// returns [ErrClosed]. Call Close after Drain.
func (m *BackgroundManager) Drain(ctx context.Context) error {
	if err := m.start(ctx); err != nil {
		return fmt.Errorf("bgagent: drain: %w", err)
	}
	w := newWaiter()
	m.update(func(st *state, _ int64) {
		st.draining = true
		st.drainers = append(st.drainers, &w)
	})
	defer m.update(func(st *state, _ int64) {
		st.drainers = slices.DeleteFunc(st.drainers, func(x *waiter) bool { return x == &w })
	})
	for first := true; ; first = false {
		var done, closing bool
		var lost error
		m.update(func(st *state, _ int64) {
			done, closing = st.live == 0 && st.atWork() == 0 && !st.delivering(), st.closing
			if done {
				st.flush()
				done = st.allKept()
			}
			if st.isLost() {
				lost = st.storeFails()
			}
		})
		switch {
		case done && (first || !closing):
			return nil
		case lost != nil:
			return fmt.Errorf("bgagent: drain: %w", lost)
		case closing: // Close cancelled the remaining tasks, so they were not drained
			return fmt.Errorf("bgagent: drain: %w", ErrClosed)
		}
		if err := waitFor(ctx, w.ch, -1); err != nil {
			return fmt.Errorf("bgagent: drain: %w", err)
		}
	}
}

func (m *BackgroundManager) isClosed() bool {
	select {
	case <-m.closed:
		return true
	default:
		return false
	}
}

// Close shuts down the manager. It cancels all pending and running tasks and stops their sessions.
// After Close has begun, no task, turn or notice delivery begins.
//
// Close returns when all sessions and goroutines of the manager have stopped, or when ctx ends. If
// ctx has no deadline, Close waits for at most Config.StopTimeout plus Config.CallTimeout. If the
// deadline of ctx comes before Config.StopTimeout has passed, slow sessions have less time to stop.
// With [Config].Store, Close can return up to two seconds after ctx has ended, because it closes
// the store.
//
// If ctx is nil, Close does nothing and returns an error that wraps an [*InputError]. Otherwise, the
// error is nil or a [*CloseError]. A CloseError names the tasks and host calls that did not stop,
// and the tasks that ended without being reported to any parent. Close may be called several times,
// and concurrently. Once the first call has returned, all calls return the same error, even if their
// ctx has ended. Get, List, Read, TakeNotice and NextNotice still work after Close.
func (m *BackgroundManager) Close(ctx context.Context) error {
	if ctx == nil {
		return fmt.Errorf("bgagent: close: %w", errNoContext)
	}
	first := false
	m.update(func(st *state, now int64) {
		if first = !st.closing; first {
			st.beginClose(now)
			close(m.closed)
		}
	})
	if first {
		m.closeErr = m.finishClose(ctx)
		close(m.closeDone)
		return m.closeErr
	}
	select {
	case <-m.closeDone: // check closeDone first, because ctx might have ended as well
		return m.closeErr
	default:
	}
	select {
	case <-m.closeDone:
		return m.closeErr
	case <-ctx.Done():
		return &CloseError{Err: ctx.Err()}
	}
}

func (m *BackgroundManager) finishClose(ctx context.Context) error {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		// Each session may take StopTimeout to stop. CallTimeout is added so that Close does not
		// give up at the very moment when StopTimeout passes.
		ctx, cancel = context.WithTimeout(ctx, m.cfg.StopTimeout+m.cfg.CallTimeout)
		defer cancel()
	}
	w := newWaiter()
	m.update(func(st *state, _ int64) { st.drainers = append(st.drainers, &w) })
	for {
		left := 0
		m.view(func(st *state) { left = st.atWork() })
		if left == 0 || waitFor(ctx, w.ch, -1) != nil {
			break
		}
	}
	if m.cfg.Store != nil {
		m.update(func(st *state, _ int64) { st.flush() })
		_ = m.untilKept(ctx, -1, (*state).allKept)
	}
	m.cm.part(m)
	m.stop(ErrClosed)
	m.stopTimer()
	// From here on, the manager no longer notices when a session stops. Release the slots of the
	// remaining sessions now, because other managers might share the ConcurrencyManager.
	m.update(func(st *state, now int64) {
		for _, t := range st.tasks {
			if a := t.run; a != nil && !a.overrun && !st.recovery.due {
				st.overrun(a, now)
			}
		}
	})
	var unkept error
	if m.cfg.Store != nil {
		m.update(func(st *state, _ int64) { st.flushLast() })
		unkept = m.untilKept(ctx, -1, (*state).allKept)
		m.closeStore(ctx)
	}
	// Wait at most one second for a host call that ignores its context.
	grace, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	for len(m.busyGoroutines()) > 0 && waitFor(grace, m.exited, -1) == nil {
		continue
	}
	return m.closeResult(ctx, unkept)
}

// stopTimer stops the timer permanently. If a tick is running, stopTimer waits for it to end.
func (m *BackgroundManager) stopTimer() {
	var wait chan struct{}
	m.update(func(*state, int64) {
		m.timerOff = true
		if m.timer != nil && !m.timer.Stop() && m.timerAt != 0 {
			wait = make(chan struct{})
			m.ticked = wait
		}
	})
	if wait != nil {
		<-wait
	}
}

// closeResult returns the error that Close returns. unkept holds the reason why some changes are not
// durable, or nil. A lost store is not reported as an error, because its next owner delivers the
// notices that are owed.
func (m *BackgroundManager) closeResult(ctx context.Context, unkept error) error {
	kept := unkept == nil
	if errors.Is(unkept, ErrStoreLost) {
		unkept = nil
	}
	e := &CloseError{Hung: m.busyGoroutines(), Err: context.Cause(ctx)}
	if e.Err == nil {
		e.Err = unkept
	}
	m.update(func(st *state, _ int64) {
		st.closed = true
		for _, s := range st.subs {
			s.closed = true
			st.fx.after.wakes.add(&s.waiter)
		}
		st.subs = nil
		e.NotStopped, e.Owed = st.left(kept)
	})
	if unkept == nil && len(e.NotStopped) == 0 && len(e.Owed) == 0 && len(e.Hung) == 0 {
		return nil
	}
	slices.Sort(e.NotStopped)
	slices.SortFunc(e.Owed, func(a, b NoticeItem) int { return strings.Compare(a.Task, b.Task) })
	return e
}

// Cancel cancels a pending or running task. It returns a snapshot of the task, taken right before
// the cancellation. The task is terminal when Cancel returns. Its session is stopped afterwards;
// see [BackgroundManager.Quiet]. The error matches [ErrUnknownTask], [ErrExpired],
// [ErrNotDescendant] or, if the task has already ended, [ErrAlreadyEnded]. If Cancel returns one of
// these errors, it has not changed anything.
//
// With [Config].Store, Cancel returns once the cancellation is durable in the store. If ctx ends
// first, the error matches [ErrStore] and the context's error. If the manager closes the store
// first, the error matches [ErrStore] and [ErrClosed]. In both cases, the task is cancelled. If
// ctx ends while the tasks of an earlier process are being restored, Cancel returns the
// context's error and does not change anything; see [BackgroundManager.Start].
func (m *BackgroundManager) Cancel(ctx context.Context, by Caller, id string, o CancelOptions) (s Task, err error) {
	m.heard(by.Session)
	return m.cancel(ctx, by, id, o)
}

func (m *BackgroundManager) cancel(ctx context.Context, by Caller, id string, o CancelOptions) (s Task, err error) {
	if err := m.start(ctx); err != nil {
		return s, fmt.Errorf("bgagent: cancel: %w", err)
	}
	var t *task
	m.update(func(st *state, now int64) {
		if t, err = st.findOwn(by, id); err != nil {
			err = fmt.Errorf("bgagent: cancel: %w", err)
			return
		}
		s = st.fullSnapshot(t)
		if !t.live() {
			err = fmt.Errorf("bgagent: cancel: task %s is %s: %w", t.id(), t.status, ErrAlreadyEnded)
			return
		}
		st.cancel(by, t, o, now)
	})
	if err == nil {
		if err = m.ended(ctx, t); err != nil {
			err = fmt.Errorf("bgagent: cancel: task %s is cancelled, but the cancellation is not stored yet: %w", s.ID, err)
		}
	}
	return s, err
}

// CancelAll cancels every pending or running task that descends from the caller's session. If the
// caller is the host, it cancels every pending or running task. All these tasks are cancelled in
// one step. CancelAll does not cancel tasks for which the caller's session is waiting in Run, or
// the descendants of these tasks. CancelAll returns snapshots of the cancelled tasks, taken right
// before the cancellation.
//
// With [Config].Store, CancelAll returns once the cancellations are durable in the store. If ctx
// ends first, the error matches [ErrStore] and the context's error. If the manager closes the
// store first, the error matches [ErrStore] and [ErrClosed]. In both cases, the tasks are
// cancelled.
func (m *BackgroundManager) CancelAll(ctx context.Context, by Caller, o CancelOptions) (out []Task, err error) {
	m.heard(by.Session)
	return m.cancelAll(ctx, by, o)
}

func (m *BackgroundManager) cancelAll(ctx context.Context, by Caller, o CancelOptions) (out []Task, err error) {
	if err := m.start(ctx); err != nil {
		return nil, fmt.Errorf("bgagent: cancel: %w", err)
	}
	var all []*task
	m.update(func(st *state, now int64) {
		add := func(t *task) {
			if t.live() && !t.awaitedBy(by) {
				all = append(all, t)
			}
		}
		if by.Session != "" {
			if n := st.nodes[by.Session]; n != nil {
				n.each(add)
			}
		} else {
			for _, t := range st.tasks {
				add(t)
			}
		}
		for _, t := range all {
			out = append(out, st.fullSnapshot(t))
		}
		// Pending tasks are cancelled first, so that none of them gets the slot of a running task.
		slices.SortStableFunc(all, func(a, b *task) int { return int(a.status) - int(b.status) })
		for _, t := range all {
			st.cancel(by, t, o, now)
		}
	})
	slices.SortFunc(out, func(a, b Task) int { return a.Queued.Compare(b.Queued) })
	if err := m.ended(ctx, all...); err != nil {
		return out, fmt.Errorf("bgagent: cancel: the tasks are cancelled, but the cancellation is not stored yet: %w", err)
	}
	return out, nil
}

// SessionDeleted reports to the manager that a session no longer exists. The session can be a root
// session or the session of a task. All tasks that descend from it are cancelled, and no more
// prompts or notices are sent to it.
func (m *BackgroundManager) SessionDeleted(session string) {
	m.Start()
	m.update(func(st *state, now int64) { st.sessionDeleted(session, now) })
}

// busyGoroutines returns the kinds of goroutines that are still running, by name.
func (m *BackgroundManager) busyGoroutines() (names []string) {
	for k := range m.running {
		if m.running[k].Load() > 0 {
			names = append(names, goNames[k])
		}
	}
	return names
}
