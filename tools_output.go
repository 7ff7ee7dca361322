package bgagent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// BackgroundOutput is the tool background_output. It shows the state of a task or, once the task
// has ended, its result. The call can be repeated any number of times. Without a task id, it lists
// the caller's tasks.
//
// With Block, the call first waits until the task ends. Without a task id, it waits until one of
// the caller's own tasks ends. The wait never affects the task. If the deadline of ctx or the time
// in Timeout passes during the wait, the answer shows the current state. BackgroundOutput returns
// errors in the same cases as [DelegateTask].
func BackgroundOutput(ctx context.Context, m *BackgroundManager, by Caller, a BackgroundOutputArgs) (BackgroundOutputResult, error) {
	return ToolOptions{}.BackgroundOutput(ctx, m, by, a)
}

func (c *call) output(a BackgroundOutputArgs) (BackgroundOutputResult, error) {
	if errors.Is(c.ctx.Err(), context.Canceled) {
		return BackgroundOutputResult{}, c.ctx.Err()
	}
	o := outputCall{call: c, args: a, timeout: outputTimeout}
	if c.w.noNotices {
		o.timeout = outputTimeoutUnwoken
	}
	o.args.TaskID, o.args.SinceMessageID = taskRef(a.TaskID), taskRef(a.SinceMessageID)
	problem := o.check()
	var r BackgroundOutputResult
	var err error
	switch {
	case problem != "":
	case o.args.TaskID == "":
		r, problem, err = o.overview()
	default:
		r, problem, err = o.task()
	}
	if err == nil && problem != "" {
		refused := c.refuse(problem)
		r = BackgroundOutputResult{Text: refused.text, IsError: true, Notice: refused.notice}
	}
	return r, err
}

// outputCall is one call to background_output.
type outputCall struct {
	*call
	args    BackgroundOutputArgs
	timeout time.Duration
	notes   []string
}

// check clamps the arguments to their bounds. It describes the mistake if an argument is wrong, and
// returns "" otherwise.
func (o *outputCall) check() string {
	a := &o.args
	a.FullSession = a.FullSession || a.SinceMessageID != ""
	if s := badText("task_id", a.TaskID, refBytes); s != "" {
		return s
	}
	if s := badText("since_message_id", a.SinceMessageID, refBytes); s != "" {
		return s
	}
	switch {
	case a.Timeout != nil && *a.Timeout < 0:
		return fmt.Sprintf("The argument timeout is %d. It must be a number of milliseconds from 0 to %d.", *a.Timeout, outputTimeoutMax.Milliseconds())
	case a.MessageLimit < 0:
		return fmt.Sprintf("The argument message_limit is %d. It must be a number of messages from 1 to %d.", a.MessageLimit, messageLimitMax)
	case a.Offset < 0:
		return fmt.Sprintf("The argument offset is %d. It must be a number that an earlier answer named.", a.Offset)
	case a.Offset > 0 && a.FromEnd:
		return "The arguments offset and from_end contradict each other. Give one of the two."
	case a.TaskID == "" && (a.FullSession || a.FromEnd):
		return "The argument task_id is missing. Without it the answer is the list of your tasks, which has no session and no end to read from."
	}
	if a.MessageLimit == 0 {
		a.MessageLimit = messageLimit
	}
	if a.MessageLimit > messageLimitMax {
		a.MessageLimit = messageLimitMax
		if a.FullSession {
			o.notes = append(o.notes, noteLimitCut())
		}
	}
	if a.Timeout != nil {
		o.timeout = outputTimeoutMax
		if *a.Timeout <= outputTimeoutMax.Milliseconds() {
			o.timeout = time.Duration(*a.Timeout) * time.Millisecond
		} else if a.Block {
			o.notes = append(o.notes, noteTimeoutCut())
		}
	}
	return ""
}

// waitEnd is the outcome of a wait.
type waitEnd uint8

const (
	waitOver      waitEnd = iota // one of the tasks has ended
	waitTimedOut                 // the timeout has passed
	waitPointless                // waiting longer could keep the tasks from getting a slot, the tasks must wait a long time for their provider, or a task asks a question
)

// The method "wait" waits until one of the tasks has ended, but no longer than the given time.
func (o *outputCall) wait(most time.Duration, ids ...string) (waitEnd, error) {
	ctx, cancel := context.WithTimeout(o.ctx, most)
	defer cancel()
	p := waitBriefly
	if o.w.message != "" {
		p = waitAnswer
	}
	tasks, err := o.m.wait(ctx, o.by, WaitAny, p, ids...)
	switch {
	case err == nil:
		return waitOver, nil
	case errors.Is(err, ErrGoesOn):
		if askers := o.askers(tasks...); len(askers) > 0 {
			o.notes = append(o.notes, noteAsking(askers))
		} else if i := slices.IndexFunc(tasks, Task.awaitsProvider); i >= 0 {
			o.notes = append(o.notes, waitsForProvider(tasks[i]))
		} else {
			o.notes = append(o.notes, notePointless)
		}
		return waitPointless, nil
	case errors.Is(err, context.DeadlineExceeded):
		return waitTimedOut, nil
	default: // any other error, including the cancellation of the caller's own context
		return waitOver, err
	}
}

// The method "look" returns the task if the caller may see it. The notice about its end does not
// count as read yet, because the call might still be refused.
func (o *outputCall) look(id string) (Task, error) {
	at, cancel := context.WithCancel(o.ctx)
	cancel()
	tasks, err := o.m.wait(at, o.by, WaitAny, waitFully, id)
	if len(tasks) == 1 {
		return tasks[0], nil
	}
	return Task{}, o.m.orLost(err)
}

// The method "task" answers a call about one task.
func (o *outputCall) task() (r BackgroundOutputResult, problem string, err error) {
	id := o.args.TaskID
	o.m.fetch(o.ctx, id)
	t, err := o.look(id)
	var how waitEnd
	began := time.Now()
	if err == nil && o.args.Block && !t.Status.Terminal() {
		if how, err = o.wait(o.timeout, id); err == nil {
			t, err = o.look(id)
		}
	}
	if o.asksElsewhere(err) {
		return o.outputElsewhere(err)
	}
	if err != nil {
		problem, err = o.problem(err, id)
		return r, problem, err
	}
	r.Tasks = []Task{t}
	if how == waitTimedOut && !t.Status.Terminal() {
		r.TimedOut = true
		o.notes = append(o.notes, noteTimedOut(time.Since(began)))
	}
	var render func(room int) answer
	switch {
	case o.args.FullSession:
		render, problem, err = o.session(t)
		if problem != "" || err != nil {
			return r, problem, err
		}
	case t.Status.Terminal():
		p := part{offset: o.args.Offset, fromEnd: o.args.FromEnd, noSession: o.unreadable(t)}
		render = func(room int) answer { return o.w.ended(t, p, room, o.notes...) }
	default:
		if o.args.Offset > 0 || o.args.FromEnd {
			o.notes = append(o.notes, noteNoResultYet)
		}
		render = func(int) answer { return o.w.status(t, time.Now(), o.notes...) }
	}
	if t.Status.Terminal() && o.ctx.Err() == nil {
		_, _ = o.m.readAttempt(o.by, id, t.Attempt, o.out) // the answer shows the end, so the notice about it counts as read; the record might have expired
	}
	if !t.Status.Terminal() && !o.args.FullSession {
		o.showsQuestions(t)
	}
	reply := o.reply(render)
	r.Text, r.Notice = reply.text, reply.notice
	return r, "", nil
}

// The method "unreadable" reports whether part of the task's text is lost: it was not kept, and the
// session cannot be read.
func (c *call) unreadable(t Task) bool {
	if !t.Cut && !t.Dropped {
		return false
	}
	_, err := c.m.Messages(c.ctx, c.by, t.ID, "", 1)
	return errors.Is(err, errors.ErrUnsupported)
}

// listedEnded is the number of ended tasks that a list shows in addition to the live ones.
const listedEnded = 50

// overview makes the answer that lists the caller's tasks. With Block, it first waits until one of
// the caller's own tasks ends. It does not wait if a notice is still owed to the caller, because
// that notice counts as the next end.
func (o *outputCall) overview() (r BackgroundOutputResult, problem string, err error) {
	if o.args.Block {
		var live []string
		for _, t := range o.m.List(Query{Parent: o.by.Session, Status: []Status{Pending, Running}}) {
			live = append(live, t.ID)
		}
		// Outstanding must be called after List. If a task ends between the two calls, either its
		// notice is owed, or the wait below returns immediately because the task is in the list.
		_, owed := o.m.Outstanding(o.by.Session)
		if owed == 0 {
			began := time.Now()
			how, err := o.waitAnywhere(live)
			if err != nil && !errors.Is(err, ErrExpired) {
				problem, err = o.problem(err, "")
				return r, problem, err
			}
			if r.TimedOut = how == waitTimedOut; r.TimedOut {
				o.notes = append(o.notes, noteNoneEnded(time.Since(began)))
			}
		}
	}
	// The list contains the live tasks in launch order, then the ended tasks, beginning with the
	// latest.
	all := o.m.List(Query{Under: o.by.Session, Status: []Status{Pending, Running}})
	others, there, over := o.listElsewhere(o.args.Offset + listedEnded + 1)
	all = append(all, there...)
	l := taskList{live: len(all), skip: o.args.Offset}
	ended := o.m.List(Query{Under: o.by.Session, Status: []Status{Completed, Failed, Cancelled}, Limit: max(l.skip-l.live, 0) + listedEnded + 1})
	slices.Reverse(ended)
	if len(over) > 0 {
		ended = append(ended, over...)
		slices.SortStableFunc(ended, func(a, b Task) int { return b.Queued.Compare(a.Queued) })
	}
	for _, t := range ended {
		// The task might have ended between the two calls to List.
		if i := slices.IndexFunc(all[:l.live], func(x Task) bool { return x.ID == t.ID }); i < 0 {
			all = append(all, t)
		}
	}
	l.tasks = all[min(l.skip, len(all)):]
	if most := max(l.live-l.skip, 0) + listedEnded; len(l.tasks) > most {
		l.tasks, l.more = l.tasks[:most], true
	}
	r.Tasks = l.tasks
	o.notes = append(o.notes, notesElsewhere(l.tasks, others)...)
	reply := o.reply(func(room int) answer { return o.w.list(l, time.Now(), room, o.notes...) })
	r.Text, r.Notice = reply.text, reply.notice
	return r, "", nil
}
