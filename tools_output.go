package bgagent

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// BackgroundOutput is the tool background_output: it shows a task's state, or
// its result once it has ended, as often as it is asked for; without a task it
// lists the caller's. With Block it waits first: for the end of the task, or
// without one for the next end there is. The zero Caller is the host. Errors are
// those of [DelegateTask]; a wait that ends, however it does, never touches the
// task. When ctx's deadline ends it, the answer is the state, as after Timeout.
func BackgroundOutput(ctx context.Context, m *BackgroundManager, by Caller, a BackgroundOutputArgs) (BackgroundOutputResult, error) {
	r, err := (&call{ctx, m, by, defaultWording}).output(a)
	if err != nil {
		err = fmt.Errorf("bgagent: %s: %w", ToolBackgroundOutput, err)
	}
	return r, err
}

func (c *call) output(a BackgroundOutputArgs) (BackgroundOutputResult, error) {
	if errors.Is(c.ctx.Err(), context.Canceled) {
		return BackgroundOutputResult{}, c.ctx.Err()
	}
	o := outputCall{call: c, args: a, timeout: outputTimeout}
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

// outputCall is one call of background_output.
type outputCall struct {
	*call
	args    BackgroundOutputArgs
	timeout time.Duration
	notes   []string
}

// check says what is wrong with the arguments, or nothing, and brings them into
// their bounds.
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
		return fmt.Sprintf("The argument offset is %d. It must be a number of bytes, as an earlier answer named it.", a.Offset)
	case a.Offset > 0 && a.FromEnd:
		return "The arguments offset and from_end contradict each other. Give one of the two."
	case a.TaskID == "" && (a.FullSession || a.FromEnd || a.Offset > 0):
		return "The argument task_id is missing. Without it the answer is the list of your tasks, which has no session, no end and no offset to read from."
	}
	if a.MessageLimit == 0 {
		a.MessageLimit = messageLimit
	}
	if a.MessageLimit > messageLimitMax {
		a.MessageLimit = messageLimitMax
		o.notes = append(o.notes, noteLimitCut())
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

// waitEnd is how a wait ended.
type waitEnd uint8

const (
	waitOver      waitEnd = iota // what was waited for has ended
	waitTimedOut                 // the time was over
	waitPointless                // to go on could block what is waited for
)

// wait waits until one of the tasks has ended.
func (o *outputCall) wait(ids ...string) (waitEnd, error) {
	ctx, cancel := context.WithTimeout(o.ctx, o.timeout)
	defer cancel()
	_, err := o.m.Wait(ctx, o.by, WaitAny, ids...)
	switch {
	case err == nil:
		return waitOver, nil
	case errors.Is(err, ErrGoesOn):
		o.notes = append(o.notes, notePointless)
		return waitPointless, nil
	case errors.Is(err, context.DeadlineExceeded):
		return waitTimedOut, nil
	default: // also the cancellation of the caller's own context
		return waitOver, err
	}
}

// task answers about one task.
func (o *outputCall) task() (r BackgroundOutputResult, problem string, err error) {
	id := o.args.TaskID
	t, err := o.m.Read(o.by, id)
	var how waitEnd
	if err == nil && o.args.Block && !t.Status.Terminal() {
		if how, err = o.wait(id); err == nil {
			t, err = o.m.Read(o.by, id)
		}
	}
	if err != nil {
		problem, err = o.problem(err, id)
		return r, problem, err
	}
	r.Tasks = []Task{t}
	if how == waitTimedOut && !t.Status.Terminal() {
		r.TimedOut = true
		o.notes = append(o.notes, noteTimedOut(o.timeout))
	}
	var render func(room int) answer
	switch {
	case o.args.FullSession:
		render, problem, err = o.session(t)
		if problem != "" || err != nil {
			return r, problem, err
		}
	case t.Status.Terminal():
		render = func(room int) answer {
			return o.w.ended(t, part{offset: o.args.Offset, fromEnd: o.args.FromEnd}, room, o.notes...)
		}
	default:
		render = func(int) answer { return o.w.status(t, time.Now(), o.notes...) }
	}
	reply := o.reply(render)
	r.Text, r.Notice = reply.text, reply.notice
	return r, "", nil
}

// listedEnded is how many ended tasks a list shows beside the live ones.
const listedEnded = 50

// overview answers with the caller's tasks, after waiting for the next end of
// one that the caller itself launched when that is wanted. An end that the
// caller has not been told of yet counts as the next one.
func (o *outputCall) overview() (r BackgroundOutputResult, problem string, err error) {
	if o.args.Block {
		var live []string
		for _, t := range o.m.List(Query{Parent: o.by.Session, Status: []Status{Pending, Running}}) {
			live = append(live, t.ID)
		}
		// Asked after the list: what ends between the two is in it.
		_, owed := o.m.Outstanding(o.by.Session)
		if owed == 0 && len(live) > 0 {
			how, err := o.wait(live...)
			if err != nil && !errors.Is(err, ErrExpired) {
				problem, err = o.problem(err, "")
				return r, problem, err
			}
			if r.TimedOut = how == waitTimedOut; r.TimedOut {
				o.notes = append(o.notes, noteNoneEnded(o.timeout))
			}
		}
	}
	live := o.m.List(Query{Under: o.by.Session, Status: []Status{Pending, Running}})
	ended := o.m.List(Query{Under: o.by.Session, Status: []Status{Completed, Failed, Cancelled}, Limit: listedEnded + 1})
	seen := map[string]bool{}
	hidden := len(ended) > listedEnded
	if hidden {
		ended = ended[1:]
	}
	for _, t := range ended {
		seen[t.ID] = true
	}
	for _, t := range live {
		if !seen[t.ID] { // it may have ended between the two
			r.Tasks = append(r.Tasks, t)
		}
	}
	r.Tasks = append(r.Tasks, ended...)
	reply := o.reply(func(room int) answer { return o.w.list(r.Tasks, hidden, time.Now(), room, o.notes...) })
	r.Text, r.Notice = reply.text, reply.notice
	return r, "", nil
}
