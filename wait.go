package bgagent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Waiting for the ends of tasks, and for tasks to become quiet.

func newWaiter() waiter { return waiter{ch: make(chan struct{}, 1)} }

func (w *waiter) wake() {
	select {
	case w.ch <- struct{}{}:
	default:
	}
}

// leave removes the waiter from the tasks.
func (m *BackgroundManager) leave(w *waiter, tasks ...*task) {
	m.update(func(st *state, _ int64) {
		for _, t := range tasks {
			rest := slices.DeleteFunc(st.waiters[t], func(x *waiter) bool { return x == w })
			if len(rest) == 0 {
				delete(st.waiters, t)
			} else {
				st.waiters[t] = rest
			}
		}
	})
}

// waitFor waits for a token or the close of ch, for d unless it is negative, or for the end of ctx.
// It returns an error only if ctx ends.
func waitFor(ctx context.Context, ch <-chan struct{}, d time.Duration) error {
	var timeout <-chan time.Time
	if d >= 0 {
		timer := time.NewTimer(d)
		defer timer.Stop()
		timeout = timer.C
	}
	select {
	case <-ch:
	case <-timeout:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// Wait waits until all, or any, of the tasks have ended, and returns all of them as they are then.
// For each task, it waits for the attempt that is the latest when Wait is called.
//
// If the caller is itself a task and waiting longer could deadlock, Wait returns [ErrGoesOn] with
// the tasks. That is so when no task is in a turn (WaitAny), or one is not (WaitAll). If ctx ends
// first, Wait returns the error of ctx with the tasks. A task that failed or was cancelled is no
// error: check Task.Status.
//
// Waiting does not settle notices: they are still owed, and Close names them. Read each task, or
// take the notices with TakeNotice.
func (m *BackgroundManager) Wait(ctx context.Context, by Caller, mode WaitMode, ids ...string) ([]Task, error) {
	if len(ids) == 0 {
		return nil, fmt.Errorf("bgagent: wait: %w", &InputError{"ids", "are missing; Wait needs the id of at least one task"})
	}
	if mode > WaitAny {
		return nil, fmt.Errorf("bgagent: wait: %w", &InputError{"mode", fmt.Sprintf("is %d; it must be WaitAll or WaitAny", mode)})
	}
	x := waiting{by: by, mode: mode, w: newWaiter()}
	var err error
	m.update(func(st *state, _ int64) { err = x.begin(st, ids) })
	if err != nil {
		return nil, fmt.Errorf("bgagent: wait: %w", err)
	}
	defer m.leave(&x.w, x.tasks...)
	for {
		var out []Task
		var done bool
		ended := ctx.Err()
		m.view(func(st *state) {
			if done, err = x.done(st); !done && ended != nil {
				done, err = true, ended
			}
			if done {
				for _, t := range x.tasks {
					out = append(out, st.fullSnapshot(t))
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
	by    Caller
	mode  WaitMode
	w     waiter
	tasks []*task
	no    []int32
	ended int // number of leading tasks that have ended
}

func (x *waiting) begin(st *state, ids []string) error {
	for _, id := range ids {
		t, err := st.findOwn(x.by, id)
		if err != nil {
			return err
		}
		x.tasks, x.no = append(x.tasks, t), append(x.no, t.no)
	}
	for _, t := range x.tasks {
		st.await(t, &x.w)
	}
	return nil
}

func (x *waiting) over(i int) bool { return x.tasks[i].no != x.no[i] || !x.tasks[i].live() }

func (x *waiting) done(st *state) (bool, error) {
	for x.ended < len(x.tasks) && x.over(x.ended) {
		x.ended++
	}
	if x.ended == len(x.tasks) || x.mode == WaitAny && x.ended > 0 {
		return true, nil
	}
	isTask := st.isTask(x.by)
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

// Quiet waits until nothing of the task runs any more. That may be shortly after its end: a host
// should wait for it before it frees the task's directory. The error is ctx's if ctx ends first,
// [ErrClosed] if Close has ended and something may still run, and [ErrNotStopped] if the record has
// expired and something may still run, which nobody can wait for any more.
func (m *BackgroundManager) Quiet(ctx context.Context, id string) error {
	w := newWaiter()
	var t *task
	var err error
	stuck := false
	m.update(func(st *state, _ int64) {
		if t, err = st.find(id); err == nil {
			st.await(t, &w)
		} else if tomb := st.keep.find(id); tomb != nil {
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
	defer m.leave(&w, t)
	for {
		var quiet, forgotten bool
		m.view(func(*state) { quiet, forgotten = !t.live() && t.run == nil, t.is(flagForgotten) })
		switch {
		case forgotten: // look at its tombstone, or at the record of a later attempt
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

// Run launches a task in the foreground and waits for its end. The task has no time to live. An end
// that Run returns counts as read. A task that failed or was cancelled is no error: check
// Task.Status.
//
// If ctx is cancelled, Run cancels the task and returns the error of ctx. Run returns [ErrGoesOn]
// if the deadline of ctx passes, or if the caller is itself a task and waiting longer could
// deadlock, because the new task is queued or waits for tasks of its own. The task then continues
// in the background and its end will be told. Run returns the task with these errors too. All other
// errors are those of Launch.
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
	w := newWaiter()
	w.no = s.Attempt
	var t *task
	m.update(func(st *state, _ int64) {
		if t, _ = st.find(s.ID); t != nil {
			st.await(t, &w)
		}
	})
	if t == nil {
		return s, fmt.Errorf("bgagent: run: task %s: %w", s.ID, ErrExpired)
	}
	defer m.leave(&w, t)
	for {
		done := false
		left := callGoesOn
		err := ctx.Err() // outside the lock, because a context may be the host's code
		switch {
		case errors.Is(err, context.DeadlineExceeded):
			left = callTimedOut
		case err != nil:
			left = callCancelled
		}
		var why callEnd
		m.update(func(st *state, now int64) { s, done, why = st.foreground(left, by, t, &w, now) })
		switch {
		case !done:
		case why == callTimedOut:
			return s, fmt.Errorf("bgagent: run: task %s: %w", s.ID, ErrGoesOn)
		case why == callCancelled:
			return s, fmt.Errorf("bgagent: run: task %s: %w", s.ID, err)
		default:
			return s, nil
		}
		_ = waitFor(ctx, w.ch, -1)
	}
}
