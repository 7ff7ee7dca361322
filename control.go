package bgagent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// watcher is somebody who waits for a change of tasks.
type watcher struct {
	ch  chan struct{}
	no  int   // set by Run: the attempt it waits for
	end *Task // how that ended; it may be resumed before Run comes to look
}

// pokeLocked wakes those who wait for the task.
func (m *BackgroundManager) pokeLocked(t *task) {
	if len(m.watchers) > 0 {
		for _, w := range m.watchers[t] {
			w.poke()
		}
	}
	m.pokeDrainLocked()
}

func (w *watcher) poke() {
	select {
	case w.ch <- struct{}{}:
	default:
	}
}

// keepEndLocked keeps how an attempt ended for those who wait for it in Run.
func (m *BackgroundManager) keepEndLocked(t *task) {
	for _, w := range m.watchers[t] {
		if w.no == int(t.no) {
			s := m.fullSnapshotLocked(t)
			w.end = &s
		}
	}
}

func (m *BackgroundManager) watchTaskLocked(t *task, w *watcher) {
	m.watchers[t] = append(m.watchers[t], w)
}

func (m *BackgroundManager) unwatchTask(w *watcher, tasks ...*task) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, t := range tasks {
		rest := slices.DeleteFunc(m.watchers[t], func(x *watcher) bool { return x == w })
		if len(rest) == 0 {
			delete(m.watchers, t)
		} else {
			m.watchers[t] = rest
		}
	}
}

// isTaskLocked reports whether the caller is the session of a task. Such a
// caller holds a slot while it waits, so it may not wait for something that
// needs one.
func (m *BackgroundManager) isTaskLocked(by Caller) bool {
	return by.Session != "" && m.sessionLocked(by.Session) != nil
}

// inTurn reports whether the task holds a slot and will go on without another.
func (t *task) inTurn() bool {
	return t.status == Running && t.run != nil && t.run.phase != PhaseWaiting
}

// Run launches a task in the foreground and waits for its end. It has no time
// to live: it lives as long as ctx. When ctx is cancelled the task is cancelled
// too and the error is ctx's. When ctx's deadline passes, or when the caller is
// itself a task and waiting any longer could deadlock (because the new task is
// queued or waits for tasks of its own), the error is [ErrGoesOn]: the task goes
// on in the background and its end will be told. The task is returned with
// these errors as well. Otherwise the errors are those of Launch. An end that
// Run returns counts as read.
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
	case int(t.no) != w.no || !t.live():
	case errors.Is(ended, context.DeadlineExceeded), m.isTaskLocked(by) && !t.inTurn():
		m.backgroundLocked(t, now)
		err = fmt.Errorf("bgagent: run: task %s: %w", t.id(), ErrGoesOn)
	case ended != nil:
		m.waiving, m.waiver = true, by.Session
		t.set(flagForeground, false)
		m.endLocked(t, CauseCaller, "the call that waited for it was cancelled", now)
		m.waiving = false
		err = fmt.Errorf("bgagent: run: task %s: %w", t.id(), ended)
	default:
		return s, false, nil
	}
	return m.fullSnapshotLocked(t), true, err
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

// Wait waits until all, or any, of the tasks have ended, and returns all of
// them as they are then. The end that counts is that of the attempt which is
// the latest when Wait is called. It returns [ErrGoesOn] with the tasks when
// the caller is itself a task and waiting any longer could deadlock: when none
// of those it waits for is in a turn (WaitAny), or one is not (WaitAll). When
// ctx ends first the error is ctx's and the tasks are returned as they are.
//
// To have waited is not to have been told: the notices are still owed, and Close
// names them. Read each task, or take what is owed with TakeNotice.
func (m *BackgroundManager) Wait(ctx context.Context, by Caller, mode WaitMode, ids ...string) ([]Task, error) {
	if len(ids) == 0 {
		return nil, fmt.Errorf("bgagent: wait: %w", &InputError{"ids", "are missing; Wait needs the id of at least one task"})
	}
	if mode > WaitAny {
		return nil, fmt.Errorf("bgagent: wait: %w", &InputError{"mode", fmt.Sprintf("is %d; it must be WaitAll or WaitAny", mode)})
	}
	x := waiting{m: m, by: by, mode: mode, w: &watcher{ch: make(chan struct{}, 1)}}
	var err error
	m.update(func(int64) { err = x.beginLocked(ids) })
	if err != nil {
		return nil, fmt.Errorf("bgagent: wait: %w", err)
	}
	defer m.unwatchTask(x.w, x.tasks...)
	for {
		var out []Task
		var done bool
		ended := ctx.Err()
		m.update(func(int64) {
			if done, err = x.doneLocked(); !done && ended != nil {
				done, err = true, ended
			}
			if done {
				for _, t := range x.tasks {
					out = append(out, m.fullSnapshotLocked(t))
				}
			}
		})
		if done {
			return out, err
		}
		_ = waitFor(ctx, x.w.ch, -1)
	}
}

// waiting is one call of Wait.
type waiting struct {
	m     *BackgroundManager
	by    Caller
	mode  WaitMode
	w     *watcher
	tasks []*task
	no    []int32
	ended int // tasks before this index have ended
}

func (x *waiting) beginLocked(ids []string) error {
	for _, id := range ids {
		t, err := x.m.ownLocked(x.by, id)
		if err != nil {
			return err
		}
		x.tasks, x.no = append(x.tasks, t), append(x.no, t.no)
	}
	for _, t := range x.tasks {
		x.m.watchTaskLocked(t, x.w)
	}
	return nil
}

func (x *waiting) over(i int) bool { return x.tasks[i].no != x.no[i] || !x.tasks[i].live() }

func (x *waiting) doneLocked() (bool, error) {
	for x.ended < len(x.tasks) && x.over(x.ended) {
		x.ended++
	}
	if x.ended == len(x.tasks) || x.mode == WaitAny && x.ended > 0 {
		return true, nil
	}
	isTask := x.m.isTaskLocked(x.by)
	if x.mode == WaitAll && !isTask {
		return false, nil
	}
	turns, live := 0, 0
	for i := x.ended; i < len(x.tasks); i++ {
		if x.over(i) {
			if x.mode == WaitAny {
				return true, nil
			}
			continue
		}
		live++
		if x.tasks[i].inTurn() {
			turns++
		}
	}
	if isTask && (turns == 0 || x.mode == WaitAll && turns < live) {
		return true, ErrGoesOn
	}
	return false, nil
}

// Quiet waits until nothing of the task runs any more, which may be a moment
// after it has ended: a host frees the task's directory then, not earlier. It
// returns ctx's error when that ends first, [ErrClosed] when Close has ended and
// something may still run, and [ErrNotStopped] when the record has expired and
// something may still run, which nobody can wait for any more.
func (m *BackgroundManager) Quiet(ctx context.Context, id string) error {
	w := &watcher{ch: make(chan struct{}, 1)}
	var t *task
	var err error
	stuck := false
	m.update(func(int64) {
		if t, err = m.findLocked(id); err == nil {
			m.watchTaskLocked(t, w)
		} else if tomb := m.keep.find(id); tomb != nil {
			stuck = tomb.stuck
		}
	})
	switch {
	case stuck:
		return fmt.Errorf("bgagent: quiet: task %s: %w", id, ErrNotStopped)
	case errors.Is(err, ErrExpired):
		return nil
	case err != nil:
		return fmt.Errorf("bgagent: quiet: %w", err)
	}
	defer m.unwatchTask(w, t)
	for {
		m.mu.Lock()
		quiet, forgotten := !t.live() && t.run == nil, t.is(flagForgotten)
		m.mu.Unlock()
		switch {
		case forgotten: // its tombstone tells, or the record of a further attempt
			return m.Quiet(ctx, id)
		case quiet:
			return nil
		}
		select {
		case <-w.ch:
		case <-ctx.Done():
			return ctx.Err()
		case <-m.base.Done():
			return fmt.Errorf("bgagent: quiet: task %s may still be running: %w", id, ErrClosed)
		}
	}
}

// Resume continues an ended task, named by its id or its session's, with
// another prompt in the same session. It opens a new attempt of the same task,
// which queues like any other, and returns at once. When the earlier attempt is
// still being stopped the new one waits for that; if it does not stop in time
// the new one ends as an error. Whoever resumes is told of the end from now on.
//
// The error matches [ErrStillLive] for a task that has not ended, [ErrNotStopped],
// [ErrUnknownTask], [ErrExpired], [ErrNotDescendant], [ErrNoSession] for a
// session that was deleted, [ErrTooManyTasks] or [ErrClosed].
func (m *BackgroundManager) Resume(ctx context.Context, by Caller, ref string, in ResumeInput) (Task, error) {
	return m.resume(ctx, by, ref, in, false)
}

func (m *BackgroundManager) resume(ctx context.Context, by Caller, ref string, in ResumeInput, foreground bool) (s Task, err error) {
	if err := ctx.Err(); err != nil {
		return s, err
	}
	in.Prompt = clean(in.Prompt)
	if strings.TrimSpace(in.Prompt) == "" {
		return s, fmt.Errorf("bgagent: resume: %w", &InputError{"Prompt", "is missing; it must say how the agent is to go on"})
	}
	ref = strings.TrimSpace(ref)
	model := ""
	if in.Model != "" {
		var agent string
		m.update(func(int64) {
			var k kindKey
			if k, err = m.kindOfLocked(by, ref); err == nil {
				agent = k.agent
			}
		})
		if err == nil {
			model, err = m.modelFor(ctx, agent, in.Model)
		}
		if err != nil {
			return s, fmt.Errorf("bgagent: resume: %w", err)
		}
	}
	m.update(func(now int64) {
		var t *task
		if t, err = m.resumeLocked(ctx, by, ref, in.Prompt, model, foreground, now); err == nil {
			s = m.snapshotLocked(t)
		} else if n := m.nodes[by.Session]; n != nil {
			m.dropNodeLocked(n)
		}
	})
	if err != nil {
		return s, fmt.Errorf("bgagent: resume: %w", err)
	}
	return s, nil
}

// refLocked finds a task by its id or its session's, or what is left of it.
func (m *BackgroundManager) refLocked(by Caller, ref string) (*task, *tombstone, error) {
	if s := m.sessionLocked(ref); s != nil {
		ref = s.task.id()
	}
	if num, ok := parseID(ref); ok && m.tasks[num] != nil {
		t, err := m.ownLocked(by, ref)
		return t, nil, err
	}
	if tomb := m.tombLocked(ref); tomb != nil {
		if by.Session != "" && !tomb.descends(by.Session) {
			return nil, nil, fmt.Errorf("task %s: %w", ref, ErrNotDescendant)
		}
		if tomb.sess != nil && tomb.sess.id == ref {
			return nil, tomb, nil
		}
	}
	t, err := m.ownLocked(by, ref)
	return t, nil, err
}

func (m *BackgroundManager) kindOfLocked(by Caller, ref string) (kindKey, error) {
	t, tomb, err := m.refLocked(by, ref)
	switch {
	case err != nil:
		return kindKey{}, err
	case tomb != nil:
		return tomb.kind.key, nil
	default:
		return t.kind.key, nil
	}
}

func (m *BackgroundManager) resumeLocked(ctx context.Context, by Caller, ref, prompt, model string, foreground bool, now int64) (*task, error) {
	if m.closing || m.draining {
		return nil, ErrClosed
	}
	t, tomb, err := m.refLocked(by, ref)
	if err != nil {
		return nil, err
	}
	if err := resumable(t, tomb); err != nil {
		return nil, err
	}
	up, err := m.resumeNodeLocked(by, t, tomb)
	if err != nil {
		return nil, err
	}
	top, _ := up.root()
	if err := m.roomLocked(top); err != nil {
		m.dropNodeLocked(up)
		return nil, err
	}
	if t == nil {
		t = m.reviveLocked(tomb, up)
	}
	m.reopenLocked(t, up, now)
	t.text = prompt
	t.set(flagForeground, foreground)
	if ctx != context.Background() {
		t.extra().values = ctx
	}
	if model != "" && model != t.kind.key.model {
		key := t.kind.key
		key.model = model
		old := t.kind
		t.kind = m.kindLocked(key, old.cl, old.own)
		m.releaseKindLocked(old)
	}
	m.openLocked(t, +1)
	t.set(flagUnstarted, t.run != nil)
	m.emitLocked(EventResumed, t)
	m.logLocked(logResumed, t)
	m.queueLocked(t, now)
	return t, nil
}

// resumable says why a task, or what is left of it, cannot be resumed.
func resumable(t *task, tomb *tombstone) error {
	switch {
	case t == nil && tomb.stuck:
		return fmt.Errorf("task %s: %w", tomb.id, ErrNotStopped)
	case t == nil:
		return nil
	case t.live():
		return fmt.Errorf("task %s is %s: %w", t.id(), t.status, ErrStillLive)
	case t.sess != nil && t.sess.stuck, t.run != nil && t.run.overrun:
		return fmt.Errorf("task %s: %w", t.id(), ErrNotStopped)
	case t.sess != nil && t.sess.gone:
		return fmt.Errorf("task %s: session %s was deleted: %w", t.id(), t.sess.id, ErrNoSession)
	}
	return nil
}

// resumeNodeLocked returns the node that is told of the new attempt's end: the
// caller's; for the host the task's own parent, or the nearest one above it
// that can still be told.
func (m *BackgroundManager) resumeNodeLocked(by Caller, t *task, tomb *tombstone) (*node, error) {
	if by.Session != "" {
		return m.launchNodeLocked(by.Session, nil)
	}
	var first *node
	if t != nil {
		first = t.up
	} else {
		first = m.nodeLocked(tomb.parent)
	}
	n := first
	for p := n.parentTask(); n.lapsed || p != nil && !p.live(); p = n.parentTask() {
		n = n.above()
	}
	m.dropNodeLocked(first)
	return m.nodeLocked(n.session), nil // unless something needs it, it has just gone
}

// reopenLocked makes room for a new attempt of an ended task.
func (m *BackgroundManager) reopenLocked(t *task, up *node, now int64) {
	if f := t.fin; f != nil {
		x := t.extra()
		x.past = append(slices.Clip(x.past), Attempt{
			Number: int(t.no), Status: t.status, Cause: t.cause, Reason: f.reason,
			Queued: m.wall(t.queued), Started: m.wall(f.started), Ended: m.wall(f.ended),
		})
		if len(x.past) > pastAttempts {
			x.past = slices.Clone(x.past[1:])
		}
		m.keep.text -= int64(len(f.result))
		t.fin = nil
	}
	if t.call != "" {
		t.extra().call = m.callHashOf(t)
	}
	t.setLost(false)
	if t.notice == NoticeOwed {
		t.set(flagOldDebts, true)
	}
	t.set(flagDropped, false)
	if old := t.up; old != up {
		if t.notice == NoticeOwed { // the debts of the earlier attempt stay behind, and go with it
			// Nothing may expire by that: not t, and not the last task of up.
			m.keep.trimming = true
			m.settleTaskLocked(t, NoticeGivenUp, now)
			m.keep.trimming = false
			t.set(flagOldDebts, false)
		}
		old.forgetDebts(t)
		old.compact()
		moved := t.subtreeLive()
		top, _ := old.root()
		top.tree -= moved
		old.unlink(t)
		up.link(t)
		top, _ = up.root()
		top.tree += moved
		m.dropNodeLocked(old)
	}
	t.transition(Pending, CauseNone)
	t.no++
	t.debt, t.notice, t.queued = -1, NoticeNone, now
}

// subtreeLive counts the live tasks under an ended task.
func (t *task) subtreeLive() (live int) {
	if t.sess != nil && t.sess.own != nil {
		t.sess.own.each(func(x *task) {
			if x.live() {
				live++
			}
		})
	}
	return live
}

// Cancel ends a pending or running task and returns it as it was right before.
// The terminal state is written first; then the session is stopped, see Quiet.
// The error matches [ErrAlreadyEnded] for a task that has ended,
// [ErrUnknownTask], [ErrExpired] or [ErrNotDescendant]; then nothing changed.
func (m *BackgroundManager) Cancel(ctx context.Context, by Caller, id string, o CancelOptions) (s Task, err error) {
	m.update(func(now int64) {
		var t *task
		if t, err = m.ownLocked(by, id); err != nil {
			err = fmt.Errorf("bgagent: cancel: %w", err)
			return
		}
		s = m.fullSnapshotLocked(t)
		if !t.live() {
			err = fmt.Errorf("bgagent: cancel: task %s is %s: %w", t.id(), t.status, ErrAlreadyEnded)
			return
		}
		m.cancelLocked(by, t, o, now)
	})
	return s, err
}

func (m *BackgroundManager) cancelLocked(by Caller, t *task, o CancelOptions, now int64) {
	cause := CauseCaller
	if by.Session == "" {
		cause = CauseHost
	}
	m.waiving, m.waiver = by.Session != "", by.Session
	m.endLocked(t, cause, title(o.Reason, ""), now)
	m.waiving = false
}

// CancelAll cancels every pending or running task that descends from the
// caller's session (for the host: every task) in one step, except those that
// the session itself waits for in Run, and returns them as they were right
// before.
func (m *BackgroundManager) CancelAll(ctx context.Context, by Caller, o CancelOptions) (out []Task, err error) {
	m.update(func(now int64) {
		var all []*task
		take := func(t *task) {
			if t.live() && !(by.Session != "" && t.is(flagForeground) && t.up.session == by.Session) {
				all = append(all, t)
			}
		}
		if by.Session != "" {
			if n := m.nodes[by.Session]; n != nil {
				n.each(take)
			}
		} else {
			for _, t := range m.tasks {
				take(t)
			}
		}
		for _, t := range all {
			out = append(out, m.fullSnapshotLocked(t))
		}
		// Those in line go first: none of them may get a slot that another one
		// leaves here.
		slices.SortStableFunc(all, func(a, b *task) int { return int(a.status) - int(b.status) })
		for _, t := range all {
			m.cancelLocked(by, t, o, now)
		}
	})
	slices.SortFunc(out, func(a, b Task) int { return a.Queued.Compare(b.Queued) })
	return out, nil
}

// SessionDeleted says that a session does not exist any more: a root session,
// or one of a task. Everything that descends from it is cancelled, and nothing
// is sent to it.
func (m *BackgroundManager) SessionDeleted(session string) {
	m.update(func(now int64) { m.sessionDeletedLocked(session, now) })
}

func (m *BackgroundManager) sessionDeletedLocked(session string, now int64) {
	if s := m.sessionLocked(session); s != nil {
		s.gone = true
		m.endLocked(s.task, CauseSessionDeleted, "its session was deleted", now)
	}
	if n := m.nodes[session]; n != nil {
		n.gone = true
		m.giveUpLocked(n, now)
		m.cascadeLocked(n, fmt.Sprintf("session %s, which launched it, was deleted", quote(session)), now)
		m.dropNodeLocked(n)
	}
}

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
// several goroutines: all get the same answer. Get, List, Read, TakeNotice and
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

// Messages reads the conversation of the task's session, as [MessageReader]
// does, on behalf of the caller. It calls the host and waits for it, at most for
// Config.CallTimeout. The error matches [errors.ErrUnsupported] when the task's
// client cannot read messages, and [ErrNoSession] when the task has no session.
func (m *BackgroundManager) Messages(ctx context.Context, by Caller, id string, after Cursor, max int) (Page, error) {
	var cl *client
	var session string
	var err error
	m.update(func(int64) {
		t, e := m.ownLocked(by, id)
		switch {
		case e != nil:
			err = e
		case m.closing:
			err = ErrClosed
		case t.sess == nil:
			err = fmt.Errorf("task %s has not started: %w", id, ErrNoSession)
		default:
			cl, session = t.kind.cl, t.sess.id
		}
	})
	if err == nil && cl.reader == nil {
		err = errors.ErrUnsupported
	}
	if err != nil {
		return Page{}, fmt.Errorf("bgagent: messages: %w", err)
	}
	page, err := within(ctx, m, goCall, "Messages", m.cfg.CallTimeout, func(ctx context.Context) (Page, error) {
		return cl.reader.Messages(ctx, session, after, max)
	})
	if err != nil {
		return Page{}, fmt.Errorf("bgagent: messages: task %s: %w", id, err)
	}
	return page, nil
}
