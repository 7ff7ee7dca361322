package bgagent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Waiting: for the ends of tasks, and until nothing of them runs.

func newWaiter() waiter { return waiter{ch: make(chan struct{}, 1)} }

func (w *waiter) wake() {
	select {
	case w.ch <- struct{}{}:
	default:
	}
}

// leave ends the waiting for tasks.
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

// waitFor waits for the channel, for the time (unless it is negative), or for
// the end of ctx, whose error it then returns.
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

// Wait waits until all, or any, of the tasks have ended, and returns all of
// them as they are then. The end that counts is that of the attempt which is
// the latest when Wait is called. It returns [ErrGoesOn] with the tasks when
// the caller is itself a task and waiting any longer could deadlock: when none
// of those it waits for is in a turn (WaitAny), or one is not (WaitAll). When
// ctx ends first the error is ctx's and the tasks are returned as they are. That a
// task failed or was cancelled is no error: look at Task.Status.
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
	ended int // tasks before this index have ended
}

func (x *waiting) begin(st *state, ids []string) error {
	for _, id := range ids {
		t, err := st.own(x.by, id)
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

// Quiet waits until nothing of the task runs any more, which may be a moment
// after it has ended: a host frees the task's directory then, not earlier. It
// returns ctx's error when that ends first, [ErrClosed] when Close has ended and
// something may still run, and [ErrNotStopped] when the record has expired and
// something may still run, which nobody can wait for any more.
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
