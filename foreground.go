package bgagent

import (
	"context"
	"errors"
	"fmt"
)

// Run launches a task in the foreground and waits for its end. It has no time
// to live: it lives as long as ctx. When ctx is cancelled the task is cancelled
// too and the error is ctx's. When ctx's deadline passes, or when the caller is
// itself a task and waiting any longer could deadlock (because the new task is
// queued or waits for tasks of its own), the error is [ErrGoesOn]: the task goes
// on in the background and its end will be told. The task is returned with
// these errors as well. Otherwise the errors are those of Launch. That the task
// failed or was cancelled is no error: look at Task.Status. An end that Run returns
// counts as read.
func (m *BackgroundManager) Run(ctx context.Context, by Caller, in LaunchInput) (Task, error) {
	s, err := m.launch(ctx, by, in, true)
	if err != nil {
		return s, err
	}
	return m.foreground(ctx, by, s)
}

// RunResume is Resume in the foreground, as Run is Launch in the foreground.
func (m *BackgroundManager) RunResume(ctx context.Context, by Caller, ref string, in ResumeInput) (Task, error) {
	s, err := m.resume(ctx, by, ref, in, true)
	if err != nil {
		return s, err
	}
	return m.foreground(ctx, by, s)
}

func (m *BackgroundManager) foreground(ctx context.Context, by Caller, s Task) (Task, error) {
	w := &watcher{ch: make(chan struct{}, 1), no: s.Attempt}
	var t *task
	m.update(func(int64) {
		if t, _ = m.findLocked(s.ID); t != nil {
			m.watchTaskLocked(t, w)
		}
	})
	if t == nil {
		return s, fmt.Errorf("bgagent: run: task %s: %w", s.ID, ErrExpired)
	}
	defer m.unwatchTask(w, t)
	for {
		var err error
		done := false
		ended := ctx.Err() // not under the lock: a context may be the host's code
		m.update(func(now int64) { s, done, err = m.foregroundLocked(ended, by, t, w, now) })
		if done {
			return s, err
		}
		_ = waitFor(ctx, w.ch, -1)
	}
}

// foregroundLocked looks whether somebody who waits in the foreground still
// has to. ended is the error of the context, if that has ended.
func (m *BackgroundManager) foregroundLocked(ended error, by Caller, t *task, w *watcher, now int64) (s Task, done bool, err error) {
	switch {
	case int(t.no) != w.no && w.end != nil:
		return *w.end, true, nil
	case int(t.no) != w.no:
	case !t.live():
		m.answeredLocked(t)
		if t.up.session == by.Session { // launched in the background by the same tool call
			m.settleTaskLocked(t, NoticeRead, now)
		}
	case errors.Is(ended, context.DeadlineExceeded), m.isTaskLocked(by) && !t.inTurn():
		m.answeredLocked(t)
		m.backgroundLocked(t, now)
		err = fmt.Errorf("bgagent: run: task %s: %w", t.id(), ErrGoesOn)
	case ended != nil:
		m.waived, m.waiver = t, by.Session
		t.set(flagForeground|flagUnanswered, false)
		m.endLocked(t, CauseCaller, "the call that waited for it was cancelled", now)
		m.waived = nil
		err = fmt.Errorf("bgagent: run: task %s: %w", t.id(), ended)
	default:
		return s, false, nil
	}
	return m.fullSnapshotLocked(t), true, err
}

// answeredLocked notes that a foreground call has been handed its answer.
func (m *BackgroundManager) answeredLocked(t *task) {
	t.set(flagUnanswered, false)
	m.forgetCallLocked(t)
}

// backgroundLocked turns a task that somebody waited for into one of the
// background. Its time to live begins here.
func (m *BackgroundManager) backgroundLocked(t *task, now int64) {
	t.set(flagForeground, false)
	if a := t.run; a != nil && a.live() {
		a.ran = 0
		if a.turnStart > 0 {
			a.ran = a.turnStart - now
		}
		m.deadlineLocked(a, now)
	}
}

// isTaskLocked reports whether the caller is the session of a task, or works
// under one. Such a caller holds a slot while it waits, so it may not wait for
// something that needs one.
func (m *BackgroundManager) isTaskLocked(by Caller) bool {
	if by.Session == "" {
		return false
	}
	for n := m.nodes[by.Session]; n != nil; n = n.above() {
		if n.parentTask() != nil {
			return true
		}
	}
	return m.sessionLocked(by.Session) != nil
}

// inTurn reports whether the task holds a slot and will go on without another.
func (t *task) inTurn() bool {
	return t.status == Running && t.run != nil && t.run.phase != PhaseWaiting
}
