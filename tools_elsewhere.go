package bgagent

import (
	"context"
	"errors"
	"slices"
	"time"
)

// Elsewhere gives the tools access to a caller's tasks in other processes. If
// [ToolOptions].Elsewhere is set, background_output and background_cancel also work for these tasks,
// and background_message can answer their questions. Other calls about such a task are refused, and
// the answer names its process.
//
// The methods act on behalf of the caller. If the task does not descend from the caller's session, the
// error must match [ErrUnknownTask], as it does for an id that does not exist. The same applies if it
// is not certain that the name of the caller's session means the same session in the other process.
// The methods must be safe for concurrent use.
type Elsewhere interface {
	// Tasks returns the caller's tasks in the other processes: all tasks that have not ended and, for
	// each process, the latest ended tasks, up to the given number. Prompts and results can be
	// missing. If a process cannot be asked, Tasks returns within a few seconds, with the tasks of the
	// other processes and an error that names the process.
	Tasks(ctx context.Context, by Caller, ended int) ([]TaskElsewhere, error)
	// Read returns a task with its prompt and result. If the task has not ended, Read can wait up to
	// the given time for it to end.
	Read(ctx context.Context, by Caller, id string, wait time.Duration) (TaskElsewhere, error)
	// Cancel cancels a task and the tasks below it, and returns the task as it was right before the
	// cancellation. If the request failed but can still take effect, the error matches
	// [ErrUncertain].
	Cancel(ctx context.Context, by Caller, id string) (Task, error)
	// Answer answers a task's question, as [BackgroundManager.Answer] does.
	Answer(ctx context.Context, by Caller, id string, in AnswerInput) (Question, error)
}

// TaskElsewhere is a task of another process.
type TaskElsewhere struct {
	Task    Task
	Process string // name of the process to which the task belongs

	// Stored is empty if the process has answered. Otherwise, Task shows the state that was stored
	// last, and Stored says why the process has not answered, for example "is not running".
	Stored string
}

const (
	elsewhereWait = 5 * time.Second        // maximum time that one call to Elsewhere.Read is asked to wait
	elsewherePoll = 2 * time.Second        // time between two calls to Elsewhere.Tasks during a wait
	elsewherePace = 250 * time.Millisecond // minimum time between two calls to Elsewhere.Read during a wait
)

// asksElsewhere reports whether, given the manager's error, the other processes must be asked about
// the task. They are also asked about a task of another caller. Otherwise, the time that the answer
// takes would show whether the id exists.
func (c *call) asksElsewhere(err error) bool {
	return c.elsewhere != nil && !c.asked && (errors.Is(err, ErrUnknownTask) || errors.Is(err, ErrNotDescendant))
}

// elsewhereProblem turns an error from another process into text for the model. The argument "here" is
// the manager's own error.
func (c *call) elsewhereProblem(err, here error, ref string) (string, error) {
	c.asked = true
	switch ended := c.ctx.Err(); {
	case errors.Is(err, ErrUnknownTask):
		return c.problem(here, ref)
	case errors.Is(err, ErrUncertain):
		return uncertainElsewhere(ref), nil
	case ended != nil:
		return "", ended
	}
	return failedElsewhere(ref, err), nil
}

// placeElsewhere returns the refusal for a call that only the task's own process can perform. It
// returns "" if no other process has the task.
func (c *call) placeElsewhere(ref string) string {
	c.asked = true
	x, err := c.elsewhere.Read(c.ctx, c.by, ref, 0)
	if err != nil {
		return ""
	}
	return onlyElsewhere(x)
}

// outputElsewhere answers a call about one task of another process.
func (o *outputCall) outputElsewhere(here error) (r BackgroundOutputResult, problem string, err error) {
	x, how, waited, err := o.readElsewhere()
	if err != nil {
		problem, err = o.elsewhereProblem(err, here, o.args.TaskID)
		return r, problem, err
	}
	t := x.Task
	if o.args.FullSession {
		return r, onlyElsewhere(x) + " Leave out full_session to read the task itself.", nil
	}
	r.Tasks = []Task{t}
	o.notes = append(o.notes, noteElsewhere(x))
	if r.TimedOut = how == waitTimedOut; r.TimedOut {
		o.notes = append(o.notes, noteTimedOut(waited))
	}
	render := func(int) answer { return o.w.status(t, time.Now(), o.notes...) }
	if t.Status.Terminal() {
		render = func(room int) answer {
			return o.w.ended(t, part{offset: o.args.Offset, fromEnd: o.args.FromEnd, noSession: true}, room, o.notes...)
		}
	} else if o.args.Offset > 0 || o.args.FromEnd {
		o.notes = append(o.notes, noteNoResultYet)
	}
	reply := o.reply(render)
	r.Text, r.Notice = reply.text, reply.notice
	return r, "", nil
}

// readElsewhere reads a task of another process. With Block, it first waits for the end of the task.
func (o *outputCall) readElsewhere() (x TaskElsewhere, how waitEnd, waited time.Duration, err error) {
	began := time.Now()
	x, err = o.elsewhere.Read(o.ctx, o.by, o.args.TaskID, 0)
	for err == nil && o.args.Block && !x.Task.Status.Terminal() && x.Stored == "" {
		if o.stopsWaiting(x.Task) {
			return x, waitPointless, 0, nil
		}
		asked := time.Now()
		left := o.timeout - asked.Sub(began)
		if left <= 0 {
			return x, waitTimedOut, asked.Sub(began), nil
		}
		next, failed := o.elsewhere.Read(o.ctx, o.by, o.args.TaskID, min(left, elsewhereWait))
		if failed == nil && !next.Task.Status.Terminal() && next.Stored == "" {
			failed = waitFor(o.ctx, nil, max(min(left, elsewherePace)-time.Since(asked), 0))
		}
		switch {
		case failed == nil:
			x = next
		case errors.Is(o.ctx.Err(), context.DeadlineExceeded):
			return x, waitTimedOut, time.Since(began), nil
		default:
			err = failed
		}
	}
	return x, waitOver, 0, err
}

// stopsWaiting reports whether a wait for the task must end early, and notes why.
func (o *outputCall) stopsWaiting(t Task) bool {
	switch {
	case o.w.message != "" && len(t.Questions) > 0:
		o.notes = append(o.notes, noteAsking([]Task{t}))
	case t.awaitsProvider():
		o.notes = append(o.notes, waitsForProvider(t))
	default:
		return false
	}
	return true
}

// waitAnywhere waits until one of the given tasks, or one of the caller's own tasks in other processes,
// has ended. It returns immediately if there are no such tasks.
func (o *outputCall) waitAnywhere(here []string) (waitEnd, error) {
	var there []TaskElsewhere
	if o.elsewhere != nil {
		all, _ := o.elsewhere.Tasks(o.ctx, o.by, 0) // ignore the error: the call does not wait for the tasks of a process that cannot be asked
		there = slices.DeleteFunc(all, func(x TaskElsewhere) bool {
			return x.Task.Status.Terminal() || x.Stored != "" || x.Task.Parent != o.by.Session
		})
	}
	if len(there) == 0 {
		if len(here) == 0 {
			return waitOver, nil
		}
		return o.wait(o.timeout, here...)
	}
	for began := time.Now(); ; {
		slice := min(o.timeout-time.Since(began), elsewherePoll)
		if slice <= 0 {
			return waitTimedOut, nil
		}
		if len(here) > 0 {
			if how, err := o.wait(slice, here...); err != nil || how != waitTimedOut {
				return how, err
			}
		} else if err := waitFor(o.ctx, nil, slice); errors.Is(err, context.Canceled) {
			return waitOver, err
		}
		if o.ctx.Err() != nil {
			return waitTimedOut, nil
		}
		if how := o.endedElsewhere(there); how != waitTimedOut {
			return how, nil
		}
	}
}

// endedElsewhere returns waitOver if one of the tasks has ended or can no longer be waited for, and
// waitPointless if stopsWaiting is true for a task. Otherwise, it returns waitTimedOut.
func (o *outputCall) endedElsewhere(tasks []TaskElsewhere) waitEnd {
	all, err := o.elsewhere.Tasks(o.ctx, o.by, listedEnded)
	for _, x := range tasks {
		i := slices.IndexFunc(all, func(now TaskElsewhere) bool { return now.Task.ID == x.Task.ID })
		switch {
		case i < 0 && err == nil, i >= 0 && (all[i].Task.Status.Terminal() || all[i].Stored != ""):
			return waitOver
		case i >= 0 && o.stopsWaiting(all[i].Task):
			return waitPointless
		}
	}
	return waitTimedOut
}

// listElsewhere returns the caller's tasks that exist only in other processes. byID contains all of
// them, the list "live" contains those that have not ended, and the list "over" contains those that
// have ended. The list "over" contains at most the given number of tasks for each process.
func (o *outputCall) listElsewhere(ended int) (byID map[string]TaskElsewhere, live, over []Task) {
	if o.elsewhere == nil {
		return nil, nil, nil
	}
	here := map[string]bool{}
	for _, t := range o.m.List(Query{Under: o.by.Session}) {
		here[t.ID] = true
	}
	all, err := o.elsewhere.Tasks(o.ctx, o.by, ended)
	if err != nil && o.ctx.Err() == nil {
		o.notes = append(o.notes, noteMissingElsewhere(err))
	}
	byID = map[string]TaskElsewhere{}
	for _, x := range all {
		if _, twice := byID[x.Task.ID]; twice || here[x.Task.ID] {
			continue
		}
		byID[x.Task.ID] = x
		if x.Task.Status.Terminal() {
			over = append(over, x.Task)
		} else {
			live = append(live, x.Task)
		}
	}
	return byID, live, over
}

// cancelElsewhere cancels a task of another process.
func (c *call) cancelElsewhere(id string, here error) (t Task, problem string, err error) {
	t, err = c.elsewhere.Cancel(c.ctx, c.by, id)
	switch {
	case errors.Is(err, ErrAlreadyEnded):
		return t, c.w.alreadyEnded(t), nil
	case err != nil:
		problem, err = c.elsewhereProblem(err, here, id)
	}
	return t, problem, err
}

// cancelAllElsewhere cancels all of the caller's tasks in other processes. The notes say what could not
// be cancelled.
func (c *call) cancelAllElsewhere() (tasks []Task, notes []string) {
	if c.elsewhere == nil {
		return nil, nil
	}
	all, err := c.elsewhere.Tasks(c.ctx, c.by, 0)
	if err != nil {
		notes = append(notes, noteMissingElsewhere(err))
	}
	slices.SortStableFunc(all, func(a, b TaskElsewhere) int { return a.Task.Depth - b.Task.Depth }) // cancel parents first, because cancelling a task also cancels the tasks below it
	for _, x := range all {
		if x.Task.Status.Terminal() {
			continue
		}
		t, err := c.elsewhere.Cancel(c.ctx, c.by, x.Task.ID)
		switch {
		case err == nil:
			tasks = append(tasks, t)
		case errors.Is(err, ErrAlreadyEnded) && t.Cause == CauseParentEnded:
			tasks = append(tasks, x.Task)
		case errors.Is(err, ErrAlreadyEnded), errors.Is(err, ErrUnknownTask):
		case errors.Is(err, ErrUncertain):
			notes = append(notes, uncertainElsewhere(x.Task.ID))
		default:
			notes = append(notes, failedElsewhere(x.Task.ID, err))
		}
	}
	return tasks, notes
}

// answerElsewhere answers a question from a task of another process.
func (c *call) answerElsewhere(id string, in AnswerInput) (Task, Question, error) {
	x, err := c.elsewhere.Read(c.ctx, c.by, id, 0)
	if err != nil {
		return Task{}, Question{}, err
	}
	q, err := c.elsewhere.Answer(c.ctx, c.by, id, in)
	return x.Task, q, err
}
