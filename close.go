package bgagent

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// This file contains the methods that end the manager or its tasks.

// Drain refuses new tasks and waits until all existing tasks have ended. If there is a Notifier,
// Drain also waits until the notices of these tasks are delivered. Pending tasks still run, because
// they were accepted. Drain does not wait for a session that did not stop within
// Config.StopTimeout. If ctx ends first, Drain returns the error of ctx. If Close begins first,
// Drain returns [ErrClosed]. Call Close after Drain.
func (m *BackgroundManager) Drain(ctx context.Context) error {
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
		m.view(func(st *state) { done, closing = st.live == 0 && st.atWork() == 0 && !st.delivering(), st.closing })
		switch {
		case done && (first || !closing):
			return nil
		case closing: // Close has cancelled the remaining tasks, so they were not drained
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

// Close ends the manager. It cancels all pending and running tasks and stops their sessions. After
// Close has begun, no task, turn or notice starts.
//
// Close returns when all sessions and goroutines of the manager have stopped, or when ctx ends. If
// ctx has no deadline, Close waits at most Config.StopTimeout plus Config.CallTimeout. If the
// deadline of ctx is earlier than Config.StopTimeout, a session that is slow to stop gets less time
// than Config.StopTimeout.
//
// The error is nil or a [*CloseError]. A CloseError names the tasks and host calls that did not
// stop, and the ended tasks that were reported to no parent. Close may be called several times, also
// concurrently. Once the first call has returned, all calls return the same error, even if their ctx
// has ended. Get, List, Read, TakeNotice and NextNotice still work after Close.
func (m *BackgroundManager) Close(ctx context.Context) error {
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
	case <-m.closeDone: // check closeDone first, because ctx may have ended too
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
		// CallTimeout is added so that Close does not give up before the stopping deadlines.
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
	m.stop(ErrClosed)
	m.stopTimer()
	// From here on, the manager no longer notices when a session stops. Release the slots of the
	// remaining sessions now, because other managers may share the ConcurrencyManager.
	m.update(func(st *state, now int64) {
		for _, t := range st.tasks {
			if a := t.run; a != nil && !a.overrun {
				st.overrun(a, now)
			}
		}
	})
	// Wait at most one second for a host call that ignores its context.
	grace, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	for len(m.busyGoroutines()) > 0 && waitFor(grace, m.exited, -1) == nil {
		continue
	}
	return m.closeResult(ctx)
}

// stopTimer stops the timer permanently. If a tick is running, stopTimer waits for its end.
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

func (m *BackgroundManager) closeResult(ctx context.Context) error {
	e := &CloseError{Hung: m.busyGoroutines(), Err: context.Cause(ctx)}
	m.update(func(st *state, _ int64) {
		st.closed = true
		for _, s := range st.subs {
			s.closed = true
			st.fx.after.wakes.add(&s.waiter)
		}
		st.subs = nil
		e.NotStopped, e.Owed = st.left()
	})
	if len(e.NotStopped) == 0 && len(e.Owed) == 0 && len(e.Hung) == 0 {
		return nil
	}
	slices.Sort(e.NotStopped)
	slices.SortFunc(e.Owed, func(a, b NoticeItem) int { return strings.Compare(a.Task, b.Task) })
	return e
}

// Cancel ends a pending or running task and returns a snapshot of the task from right before the
// cancellation. The task is terminal when Cancel returns. Its session is stopped afterwards; see
// [BackgroundManager.Quiet]. The error matches [ErrUnknownTask], [ErrExpired], [ErrNotDescendant]
// or, if the task has already ended, [ErrAlreadyEnded]. If Cancel returns an error, it has changed
// nothing.
func (m *BackgroundManager) Cancel(ctx context.Context, by Caller, id string, o CancelOptions) (s Task, err error) {
	m.update(func(st *state, now int64) {
		var t *task
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
	return s, err
}

// CancelAll cancels every pending or running task that descends from the caller's session. If the
// caller is the host, it cancels every pending or running task. All these tasks are cancelled in
// one step. CancelAll spares the tasks that the session itself waits for in Run, and their
// descendants. It returns snapshots of the cancelled tasks from right before the cancellation.
func (m *BackgroundManager) CancelAll(ctx context.Context, by Caller, o CancelOptions) (out []Task, err error) {
	m.update(func(st *state, now int64) {
		var all []*task
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
	return out, nil
}

// SessionDeleted reports to the manager that a session no longer exists. The session may be a root
// session or the session of a task. All tasks that descend from it are cancelled, and no more
// prompts or notices are sent to it.
func (m *BackgroundManager) SessionDeleted(session string) {
	m.update(func(st *state, now int64) { st.sessionDeleted(session, now) })
}
