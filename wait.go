package bgagent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// The functions below wait until tasks have ended or are quiet.

// Some calls do not wait through long pauses. pauseCheck is how often such a call checks whether a
// long pause has begun. The check is needed because another manager with the same
// ConcurrencyManager does not wake the callers of this manager.
const pauseCheck = time.Minute

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

// waitFor waits until ch delivers a token or is closed, the duration d has passed, or ctx ends. A
// negative d means no time limit. waitFor returns an error only if ctx has ended.
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

// Wait waits until all of the tasks have ended or, with [WaitAny], until at least one of them has
// ended. It returns the current state of all the tasks. For each task, it waits for the attempt
// that is the latest when Wait is called.
//
// If the caller is itself a task, waiting longer could deadlock: the caller holds a slot while it
// waits, and the other tasks might need that slot. In that case, Wait returns [ErrGoesOn] with the
// tasks. With WaitAny, this happens as soon as none of the live tasks holds a slot. With WaitAll,
// it happens as soon as one of the live tasks has no slot. If ctx ends first, Wait returns the
// context's error with the tasks. If the manager is suspended, it returns [ErrSuspended] with the
// tasks. Wait does not return an error for a task that failed or was cancelled; check Task.Status.
//
// All other errors, except those of the store, come without tasks. The error is an [*InputError] if no
// id is given or the mode is wrong. Otherwise it matches [ErrUnknownTask], [ErrExpired] or
// [ErrNotDescendant].
//
// With [Config].Store, a task counts as ended once its end is durable in the store. If ctx ends
// after a task has ended but before its end is durable, the error matches both [ErrStore] and the
// context's error. The same applies to Run.
//
// Wait does not settle notices. They are still owed, and [BackgroundManager.Close] names them. To
// settle them, read each task with [BackgroundManager.Read], or take the notices with
// [BackgroundManager.TakeNotice].
func (m *BackgroundManager) Wait(ctx context.Context, by Caller, mode WaitMode, ids ...string) ([]Task, error) {
	m.heard(by.Session)
	return m.wait(ctx, by, mode, waitFully, ids...)
}

// patience determines in which cases a call returns before the tasks that it waits for have ended.
type patience uint8

const (
	waitFully   patience = iota // only if waiting longer could deadlock
	waitBriefly                 // like waitFully, and also if all live tasks must wait a long time for their provider, or if a task asks a question after the wait has begun
	waitAnswer                  // like waitBriefly, and also if a task is already asking a question that a model may answer, because the caller can answer the question
)

func (m *BackgroundManager) wait(ctx context.Context, by Caller, mode WaitMode, p patience, ids ...string) ([]Task, error) {
	if err := m.start(ctx); err != nil && (ctx == nil || ctx.Err() == nil) { // if ctx has ended, the tasks are returned as they are
		return nil, fmt.Errorf("bgagent: wait: %w", err)
	}
	if len(ids) == 0 {
		return nil, fmt.Errorf("bgagent: wait: %w", &InputError{"ids", "are missing; Wait needs the id of at least one task"})
	}
	if mode > WaitAny {
		return nil, fmt.Errorf("bgagent: wait: %w", &InputError{"mode", fmt.Sprintf("is %d; it must be WaitAll or WaitAny", mode)})
	}
	x := waiting{by: by, mode: mode, brief: p != waitFully, answers: p == waitAnswer, w: newWaiter()}
	var err error
	m.update(func(st *state, _ int64) {
		err, x.asked = x.begin(st, ids), st.lastQuestion
	})
	if err != nil {
		return nil, fmt.Errorf("bgagent: wait: %w", err)
	}
	defer m.leave(&x.w, x.tasks...)
	for {
		var out []Task
		var done bool
		ended := ctx.Err()
		x.now = int64(time.Since(m.epoch))
		m.view(func(st *state) {
			switch done, err = x.done(st); {
			case done:
			case ended != nil:
				done, err = true, st.notStored(ended, x.tasks...)
			case st.leavesTasks():
				done, err = true, ErrSuspended
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
		again := time.Duration(-1)
		switch {
		case x.soon: // check again whether the source grants the slot soon
			again = sourceWithin
		case x.brief:
			again = pauseCheck
		}
		_ = waitFor(ctx, x.w.ch, again)
	}
}

// The type "waiting" is one call to Wait.
type waiting struct {
	by      Caller
	mode    WaitMode
	w       waiter
	tasks   []*task
	no      []int32 // numbers of the attempts, one per task
	brief   bool    // do not wait if all live tasks must wait a long time for their provider, or if one asks a question
	asked   uint64  // number of the last question that was asked before the wait
	answers bool    // earlier questions also end the wait if a model may answer them
	now     int64   // time of the current check
	ended   int     // number of tasks at the beginning of the list that are known to have ended
	soon    bool    // the caller is a task, and waits for a slot that the source might grant soon
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

func (x *waiting) over(st *state, i int) bool {
	x.no[i] = x.tasks[i].followed(x.no[i])
	return x.tasks[i].no != x.no[i] || st.hasEnded(x.tasks[i])
}

func (x *waiting) done(st *state) (bool, error) {
	for x.ended < len(x.tasks) && x.over(st, x.ended) {
		x.ended++
	}
	if x.ended == len(x.tasks) || x.mode == WaitAny && x.ended > 0 {
		return true, nil
	}
	if err := st.notStored(nil, x.tasks...); err != nil {
		return true, err
	}
	isTask := st.isTask(x.by)
	x.soon = false
	if x.mode == WaitAll && !isTask && !x.brief {
		return false, nil
	}
	turns, live, paused, asks := 0, 0, 0, false
	for i := x.ended; i < len(x.tasks); i++ {
		if x.over(st, i) {
			if x.mode == WaitAny {
				return true, nil
			}
			continue
		}
		live++
		if x.brief && st.pausesLong(x.tasks[i], x.now) {
			paused++
		}
		asks = asks || x.brief && st.asksBelow(x.tasks[i], x.asked, x.answers)
		soon := st.mayHaveSlotSoon(x.tasks[i], x.now)
		x.soon = x.soon || soon && isTask
		if x.tasks[i].inTurn() || soon || !x.tasks[i].live() { // a task that is not live needs no slot: its end only has to be written
			turns++
		}
	}
	if x.brief && paused == live || asks {
		return true, ErrGoesOn
	}
	if isTask && (turns == 0 || x.mode == WaitAll && turns < live) {
		return true, ErrGoesOn
	}
	return false, nil
}

// Quiet waits until the task has ended and everything that it started has stopped, which can be
// shortly after the end of the task. A host should call Quiet before it frees the task's directory.
//
// If ctx ends first, Quiet returns the context's error. The error matches [ErrClosed] if Close has
// returned and the session might still be running. It matches [ErrNotStopped] if the task's record
// has expired and the session might still be running. In that case, the manager can no longer wait
// for the session. It matches [ErrUnknownTask] if there is no such task. For any other expired
// task, Quiet returns nil.
func (m *BackgroundManager) Quiet(ctx context.Context, id string) error {
	if err := m.start(ctx); err != nil {
		return err
	}
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
		m.view(func(st *state) { quiet, forgotten = st.hasEnded(t) && t.run == nil, t.is(flagForgotten) })
		switch {
		case forgotten: // start again with the tombstone of the task, or with the record of a later attempt
			return m.Quiet(ctx, id)
		case quiet:
			return nil
		}
		select {
		case <-w.ch:
		case <-ctx.Done():
			return ctx.Err()
		case <-m.base.Done():
			return fmt.Errorf("bgagent: quiet: task %s may still be running: %w", id, context.Cause(m.base))
		}
	}
}

// Run launches a task in the foreground: it waits until the task has ended, and returns the task.
// The time to live does not apply to the task while Run waits. The notice about the task counts as
// read. Run does not return an error if the task failed or was cancelled; check Task.Status.
//
// If ctx is cancelled, Run cancels the task and returns the context's error. Run returns
// [ErrGoesOn] if the deadline of ctx has passed, or if the caller is itself a task and waiting
// longer could deadlock. A deadlock is possible if the new task is queued or waits for its own
// tasks. Run also returns ErrGoesOn if the task must wait for its model provider for more than a
// minute (see [PhaseParked]). The same applies if the task or a task below it asks a question.
// Whenever Run returns ErrGoesOn, the task continues in the background, and a notice will report
// its end. Run returns the task together with these errors. All other errors are those of
// [BackgroundManager.Launch].
func (m *BackgroundManager) Run(ctx context.Context, by Caller, in LaunchInput) (Task, error) {
	m.heard(by.Session)
	return m.run(ctx, by, in, nil)
}

func (m *BackgroundManager) run(ctx context.Context, by Caller, in LaunchInput, out *handing) (Task, error) {
	w := newWaiter()
	s, err := m.launch(ctx, by, &in, &w)
	return m.foreground(ctx, by, s, err, &w, out)
}

// RunResume resumes a task, as [BackgroundManager.Resume] does, and waits until it has ended, as
// [BackgroundManager.Run] does.
func (m *BackgroundManager) RunResume(ctx context.Context, by Caller, ref string, in ResumeInput) (Task, error) {
	m.heard(by.Session)
	return m.runResume(ctx, by, ref, in, nil)
}

func (m *BackgroundManager) runResume(ctx context.Context, by Caller, ref string, in ResumeInput, out *handing) (Task, error) {
	w := newWaiter()
	s, err := m.resume(ctx, by, ref, in, &w)
	return m.foreground(ctx, by, s, err, &w, out)
}

// foreground waits until the task in w.of has ended. s and err are the results of launching or resuming
// it.
func (m *BackgroundManager) foreground(ctx context.Context, by Caller, s Task, err error, w *waiter, out *handing) (Task, error) {
	t := w.of
	if t != nil {
		defer m.leave(w, t)
	}
	if err != nil {
		return s, err
	}
	for {
		done, again := false, pauseCheck
		left := callGoesOn
		err := ctx.Err() // called outside the lock, because the context might be the host's own implementation
		switch {
		case errors.Is(err, context.DeadlineExceeded):
			left = callTimedOut
		case err != nil:
			left = callCancelled
		}
		var why callEnd
		m.update(func(st *state, now int64) {
			if s, done, why = st.foreground(left, by, t, w, out, now); done {
				err = st.notStored(err, t)
			} else if st.mayHaveSlotSoon(t, now) {
				again = sourceWithin
			}
		})
		switch {
		case !done:
		case errors.Is(err, ErrStore):
			return s, fmt.Errorf("bgagent: run: task %s: %w", s.ID, err)
		case why == callSuspended:
			return s, fmt.Errorf("bgagent: run: task %s: %w", s.ID, ErrSuspended)
		case why == callTimedOut:
			return s, fmt.Errorf("bgagent: run: task %s: %w", s.ID, ErrGoesOn)
		case why == callCancelled:
			return s, fmt.Errorf("bgagent: run: task %s: %w", s.ID, err)
		default:
			return s, nil
		}
		_ = waitFor(ctx, w.ch, again)
	}
}
