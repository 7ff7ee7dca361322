package bgagent

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Going down: Drain and Close.

// Drain refuses new tasks from here on and waits until those there are have
// ended and their parents have been told, as far as there is a Notifier; or
// until ctx ends, whose error it then returns, or Close begins, when it returns
// [ErrClosed]. Tasks in line still get their turn: what was accepted is done. A
// session that did not stop within Config.StopTimeout is not waited for. Follow
// it with Close.
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
		case closing: // what Close has ended was not done
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

// Close ends the manager: pending tasks are cancelled, running ones are
// cancelled and their sessions stopped; no task, turn or notice starts any
// more. It returns once nothing of the manager runs, or when ctx ends, or,
// when ctx has no deadline, after Config.StopTimeout and Config.CallTimeout. A
// deadline shorter than Config.StopTimeout does not give a session that is slow
// to stop the time it may take. The
// error is a [*CloseError] that names what did not stop and what no parent has
// been told of; nil when there is neither. It may be called again, and from
// several goroutines: all get the same answer, once there is one, whether or not
// their context has ended. Get, List, Read, TakeNotice and
// NextNotice still work afterwards.
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
	case <-m.closeDone: // however it stands with ctx
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
		// A little more than the manager's own stopping deadline.
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
	// From here on nobody sees sessions come to rest: a ConcurrencyManager that
	// others share must not lose their slots.
	m.update(func(st *state, now int64) {
		for _, t := range st.tasks {
			if a := t.run; a != nil && !a.overrun {
				st.overrun(a, now)
			}
		}
	})
	// What ignores its context gets a moment, not the rest of the deadline.
	grace, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	for len(m.busyGoroutines()) > 0 && waitFor(grace, m.exited, -1) == nil {
		continue
	}
	return m.closeResult(ctx)
}

// stopTimer stops the timer for good and waits for a tick that is under way.
func (m *BackgroundManager) stopTimer() {
	var wait chan struct{}
	m.view(func(*state) {
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
			st.fx.wakes.add(&s.waiter)
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
