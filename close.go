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
	w := &watcher{ch: make(chan struct{}, 1)}
	m.update(func(int64) {
		m.draining = true
		m.drainers = append(m.drainers, w)
	})
	defer m.update(func(int64) {
		m.drainers = slices.DeleteFunc(m.drainers, func(x *watcher) bool { return x == w })
	})
	for first := true; ; first = false {
		m.mu.Lock()
		done, closing := m.live == 0 && m.stoppingLocked() == 0 && !m.deliveringLocked(), m.closing
		m.mu.Unlock()
		switch {
		case done && (first || !closing):
			return nil
		case closing: // what has ended by that was not done
			return fmt.Errorf("bgagent: drain: %w", ErrClosed)
		}
		if err := waitFor(ctx, w.ch, -1); err != nil {
			return fmt.Errorf("bgagent: drain: %w", err)
		}
	}
}

func (m *BackgroundManager) pokeDrainLocked() {
	for _, w := range m.drainers {
		w.poke()
	}
}

// stoppingLocked counts the attempts that run or are being stopped, without
// those that did not stop in time.
func (m *BackgroundManager) stoppingLocked() (n int) {
	if m.live+m.unquiet == 0 {
		return 0
	}
	for _, t := range m.tasks {
		if t.run != nil && !t.run.overrun {
			n++
		}
	}
	return n
}

// deliveringLocked reports whether a notice is on its way, or will be.
func (m *BackgroundManager) deliveringLocked() bool {
	if m.closing || m.cfg.Wake == WakeNever || !m.canNotify() {
		return false
	}
	for _, n := range m.nodes {
		if n.of == nil && !n.scope && !n.gone && n.outstanding() > 0 {
			return true
		}
	}
	return false
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
	m.update(func(now int64) {
		if first = !m.closing; first {
			m.beginCloseLocked(now)
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

func (m *BackgroundManager) beginCloseLocked(now int64) {
	m.closing = true
	close(m.closed)
	for _, status := range [...]Status{Pending, Running} {
		for _, t := range m.tasks {
			if t.status == status {
				m.endLocked(t, CauseClosed, "the manager was closed", now)
			}
		}
	}
	for _, n := range m.nodes {
		m.wakeNodeLocked(n)
	}
	m.pokeDrainLocked()
}

func (m *BackgroundManager) finishClose(ctx context.Context) error {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		// A little more than the manager's own stopping deadline.
		ctx, cancel = context.WithTimeout(ctx, m.cfg.StopTimeout+m.cfg.CallTimeout)
		defer cancel()
	}
	w := &watcher{ch: make(chan struct{}, 1)}
	m.mu.Lock()
	m.drainers = append(m.drainers, w)
	m.mu.Unlock()
	for {
		m.mu.Lock()
		left := m.stoppingLocked()
		m.mu.Unlock()
		if left == 0 || waitFor(ctx, w.ch, -1) != nil {
			break
		}
	}
	m.stop(ErrClosed)
	m.stopTimer()
	// From here on nobody sees sessions come to rest: a ConcurrencyManager that
	// others share must not lose their slots.
	m.update(func(now int64) {
		for _, t := range m.tasks {
			if a := t.run; a != nil && !a.overrun {
				m.overrunLocked(a, now)
			}
		}
	})
	// What ignores its context gets a moment, not the rest of the deadline.
	grace, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	for len(m.busyGoroutines()) > 0 && waitFor(grace, m.ended, -1) == nil {
		continue
	}
	return m.closeResult(ctx)
}

// stopTimer stops the timer for good and waits for a tick that is under way.
func (m *BackgroundManager) stopTimer() {
	m.mu.Lock()
	m.timerOff = true
	var wait chan struct{}
	if m.timer != nil && !m.timer.Stop() && m.timerAt != 0 {
		wait = make(chan struct{})
		m.ticked = wait
	}
	m.mu.Unlock()
	if wait != nil {
		<-wait
	}
}

func (m *BackgroundManager) closeResult(ctx context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.subs {
		s.endLocked()
	}
	m.subs = nil
	e := &CloseError{Hung: m.busyGoroutines(), Err: context.Cause(ctx)}
	for _, t := range m.tasks {
		if t.run != nil {
			e.NotStopped = append(e.NotStopped, t.id())
		}
	}
	for _, n := range m.nodes {
		for _, d := range n.owed {
			if d.t != nil {
				e.Owed = append(e.Owed, m.itemLocked(d.t, d.no))
			}
		}
		if n.env != nil {
			for _, d := range n.env.debts {
				e.Owed = append(e.Owed, m.itemLocked(d.t, d.no))
			}
		}
	}
	if len(e.NotStopped) == 0 && len(e.Owed) == 0 && len(e.Hung) == 0 {
		return nil
	}
	slices.Sort(e.NotStopped)
	slices.SortFunc(e.Owed, func(a, b NoticeItem) int { return strings.Compare(a.Task, b.Task) })
	return e
}
