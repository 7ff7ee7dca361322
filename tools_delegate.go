package bgagent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/bgagent/bgagent/internal/mdtext"
)

// DelegateTask is the tool delegate_task. It launches a task for another agent, or continues a task
// that has ended, and answers immediately. If RunInBackground is false, it waits for the task to
// end and answers with the result.
//
// If the arguments are wrong, DelegateTask returns a result with IsError. It returns an error in
// only three cases: if ctx has ended, if the host's configuration is wrong, or if the caller has no
// session (an [*InputError]). If ctx is cancelled while the call waits for the task, the task is
// also cancelled. If the deadline of ctx passes during the wait, the call does not return an error,
// and the task continues in the background. A host that acts on its own behalf uses the methods of
// the manager instead.
func DelegateTask(ctx context.Context, m *BackgroundManager, by Caller, a DelegateTaskArgs) (DelegateTaskResult, error) {
	return ToolOptions{}.DelegateTask(ctx, m, by, a)
}

// Foreground reports whether the arguments ask to wait for the result. It returns false if
// RunInBackground and Background contradict each other; DelegateTask refuses a call with
// contradictory arguments.
func (a DelegateTaskArgs) Foreground() bool {
	is := func(b *bool, value bool) bool { return b != nil && *b == value }
	return (is(a.RunInBackground, false) || is(a.Background, false)) && !is(a.RunInBackground, true) && !is(a.Background, true)
}

func (c *call) delegate(a DelegateTaskArgs) (DelegateTaskResult, error) {
	a.SessionID, a.TaskID, a.SubagentType = taskRef(a.SessionID), taskRef(a.TaskID), strings.TrimFunc(a.SubagentType, isBlank)
	problem := c.checkDelegate(a)
	if problem != "" {
		return c.delegateRefused(problem), nil
	}
	ref := a.TaskID
	if ref == "" {
		ref = a.SessionID
	}
	foreground := a.Foreground()
	launch := LaunchInput{Description: a.Description, Prompt: a.Prompt, Agent: a.SubagentType, Model: a.Model}
	resume := ResumeInput{Prompt: a.Prompt, Model: a.Model}
	var t Task
	var err error
	switch {
	case ref != "" && foreground:
		t, err = c.m.runResume(c.ctx, c.by, ref, resume, c.out)
	case ref != "":
		t, err = c.m.resume(c.ctx, c.by, ref, resume, nil)
	case foreground:
		t, err = c.m.run(c.ctx, c.by, launch, c.out)
	default:
		t, err = c.m.launch(c.ctx, c.by, &launch, nil)
	}
	res := DelegateTaskResult{}
	if t.ID != "" {
		res.Task = &t
	}
	var render func(room int) answer
	switch {
	case err == nil && foreground && t.Status.Terminal():
		p := part{noSession: c.unreadable(t)}
		render = func(room int) answer { return c.w.ended(t, p, room, agentNote(a, t)...) }
	case err == nil:
		c.queuePlace(&t)
		render = func(int) answer { return c.w.launched(t, ref != "", agentNote(a, t)...) }
	case errors.Is(err, ErrGoesOn):
		askers := c.askers(t)
		if len(askers) > 0 && askers[0].ID == t.ID {
			c.showsQuestions(askers[0])
		}
		render = func(int) answer {
			return c.w.goesOn(t, errors.Is(c.ctx.Err(), context.DeadlineExceeded), askers...)
		}
	default:
		problem, err := c.problem(err, ref)
		if err != nil {
			return res, err
		}
		return c.delegateRefused(problem), nil
	}
	r := c.reply(render)
	res.Text, res.Notice = r.text, r.notice
	return res, nil
}

func (c *call) delegateRefused(problem string) DelegateTaskResult {
	r := c.refuse(problem)
	return DelegateTaskResult{Text: r.text, IsError: true, Notice: r.notice}
}

// checkDelegate describes the mistake in the arguments. It returns "" if there is none.
func (c *call) checkDelegate(a DelegateTaskArgs) string {
	for _, f := range [...]struct {
		name, value string
		limit       int
	}{
		{"prompt", a.Prompt, promptBytes}, {"description", a.Description, descriptionBytes}, {"subagent_type", a.SubagentType, refBytes},
		{"model", a.Model, refBytes}, {"session_id", a.SessionID, refBytes}, {"task_id", a.TaskID, refBytes},
	} {
		if s := badText(f.name, f.value, f.limit); s != "" {
			return s
		}
	}
	switch {
	case mdtext.Invisible(a.Prompt) && a.SessionID+a.TaskID != "":
		return "The argument prompt is missing. It must say how the agent is to go on."
	case mdtext.Invisible(a.Prompt):
		return "The argument prompt is missing. It must say what the agent is to do, with everything that it needs to know: it does not see your conversation."
	case a.RunInBackground != nil && a.Background != nil && *a.RunInBackground != *a.Background:
		return "The arguments run_in_background and background mean the same and contradict each other. Give one of the two."
	case c.agents != nil && a.SessionID+a.TaskID == "" && !slices.Contains(c.agents, a.SubagentType) && !mdtext.Invisible(a.SubagentType):
		return c.w.noSuchAgent(&NoSuchAgentError{Agent: a.SubagentType, Known: c.agents}) + " Nothing was launched."
	case mdtext.Invisible(a.SubagentType) && a.SessionID+a.TaskID == "":
		return "The argument subagent_type is missing. It must name the agent that is to do the work; or, to continue a task, give its session_id or task_id instead."
	case a.SessionID != "" && a.TaskID != "" && !c.sameTask(a.TaskID, a.SessionID):
		return "The arguments session_id and task_id do not name the same task. Give one of the two."
	}
	return ""
}

// sameTask reports whether the session belongs to the task.
func (c *call) sameTask(id, session string) bool {
	t, err := c.m.Get(id)
	var gone *ExpiredError
	if errors.As(err, &gone) {
		return gone.Session == session
	}
	return err == nil && t.Session == session
}

// queuePlace fills in the task's place in line if the task is still pending.
func (c *call) queuePlace(t *Task) {
	if t.Status != Pending {
		return
	}
	if now, err := c.m.Get(t.ID); err == nil && now.Status == Pending && now.Attempt == t.Attempt {
		t.Queue = now.Queue
	}
}

// agentNote returns a note if the call continues a task but names another agent. A continued task
// keeps its agent.
func agentNote(a DelegateTaskArgs, t Task) []string {
	if a.SubagentType == "" || a.SubagentType == t.Agent {
		return nil
	}
	return []string{"A continued task keeps its agent; subagent_type was not used."}
}

// BackgroundCancel is the tool background_cancel. It cancels the task with the given id or, with
// All, every pending or running task that descends from the caller's session. It returns errors in
// the same cases as [DelegateTask].
func BackgroundCancel(ctx context.Context, m *BackgroundManager, by Caller, a BackgroundCancelArgs) (BackgroundCancelResult, error) {
	return ToolOptions{}.BackgroundCancel(ctx, m, by, a)
}

func (c *call) cancel(a BackgroundCancelArgs) (BackgroundCancelResult, error) {
	if err := c.ctx.Err(); err != nil {
		return BackgroundCancelResult{}, err
	}
	id, alias := taskRef(a.TaskID), taskRef(a.TaskIDAlias)
	if id == "" {
		id = alias
	}
	problem := badText("task_id", id, refBytes)
	switch {
	case problem != "":
	case alias != "" && alias != id:
		problem = "The arguments task_id and taskId mean the same and contradict each other. Give one of the two."
	case id != "" && a.All:
		problem = "The arguments task_id and all contradict each other. Give task_id for one task, or all=true for every one; nothing was cancelled."
	case id == "" && !a.All:
		problem = "Nothing says what to cancel. Give task_id for one task, or all=true for every one."
	}
	if problem != "" {
		return c.cancelRefused(problem), nil
	}
	var tasks []Task
	var notes []string
	var err error
	if a.All {
		if tasks, err = c.m.cancelAll(c.ctx, c.by, CancelOptions{}); err == nil {
			var more []Task
			more, notes = c.cancelAllElsewhere()
			tasks = append(tasks, more...)
		}
	} else {
		c.m.fetch(c.ctx, id)
		var t Task
		t, err = c.m.cancel(c.ctx, c.by, id, CancelOptions{})
		if c.asksElsewhere(err) {
			t, problem, err = c.cancelElsewhere(id, err)
		}
		tasks = []Task{t}
	}
	switch {
	case problem != "":
		return c.cancelRefused(problem), nil
	case errors.Is(err, ErrAlreadyEnded):
		return c.cancelRefused(c.w.alreadyEnded(tasks[0])), nil
	case err != nil:
		problem, err := c.problem(err, id)
		if err != nil {
			return BackgroundCancelResult{}, err
		}
		return c.cancelRefused(problem), nil
	}
	r := c.reply(func(room int) answer { return c.w.cancelled(tasks, room-sizeOf(notes)).and(notes) })
	return BackgroundCancelResult{Text: r.text, Cancelled: tasks, Notice: r.notice}, nil
}

func (c *call) cancelRefused(problem string) BackgroundCancelResult {
	r := c.refuse(problem)
	return BackgroundCancelResult{Text: r.text, IsError: true, Notice: r.notice}
}

const (
	sessionPageSize = 100
	sessionPages    = 100 // maximum number of pages that one call with full_session reads
)

// The method "session" reads the messages of the task's session. It returns a function that renders
// the answer, or a description of the problem for the model.
func (o *outputCall) session(t Task) (render func(room int) answer, problem string, err error) {
	if t.Session == "" {
		if t.Status.Terminal() {
			return nil, "Task " + mdtext.Code(t.ID, idMax) + " never got a session, so it has no messages. Leave out full_session to read why.", nil
		}
		return func(int) answer {
			return o.w.status(t, time.Now(), append(o.notes, noteNoSessionYet)...)
		}, "", nil
	}
	all, partial, err := o.messages(t.ID)
	switch {
	case errors.Is(err, errors.ErrUnsupported):
		return nil, "The messages of this session cannot be read: the program that runs the agent does not show them. Leave out full_session to read the task itself.", nil
	case errors.Is(err, ErrNoSession):
		return nil, "The session of task " + mdtext.Code(t.ID, idMax) + " does not exist any more, so its messages cannot be read. Leave out full_session to read what was kept.", nil
	case err != nil:
		problem, err = o.problem(err, t.ID)
		return nil, problem, err
	}
	p := sessionPage{messages: all, first: 1, total: len(all), partial: partial, offset: o.args.Offset, fromEnd: o.args.FromEnd}
	if since := o.args.SinceMessageID; since != "" {
		i := slices.IndexFunc(all, func(m Message) bool { return m.ID == since })
		if i < 0 {
			return nil, fmt.Sprintf("The session has no message %s. Leave out since_message_id to read from the beginning, or set from_end=true to read the end.", mdtext.Code(since, idMax)), nil
		}
		p.before, p.first, p.messages = since, i+2, all[i+1:]
	}
	if over := len(p.messages) - o.args.MessageLimit; over > 0 {
		if p.fromEnd {
			p.before, p.messages, p.first = p.messages[over-1].ID, p.messages[over:], p.first+over
		} else {
			p.messages = p.messages[:o.args.MessageLimit]
		}
	}
	return func(room int) answer { return o.w.session(t, p, time.Now(), room, o.notes...) }, "", nil
}

// The method "messages" reads the messages of the task's session, each in its latest version. The
// result "partial" is true if the session has more messages than sessionPages pages can contain.
func (o *outputCall) messages(id string) (all []Message, partial bool, err error) {
	at := map[string]int{}
	var cursor Cursor
	for range sessionPages {
		page, err := o.m.Messages(o.ctx, o.by, id, cursor, sessionPageSize)
		if err != nil {
			return nil, false, err
		}
		for _, m := range page.Messages {
			if i, ok := at[m.ID]; ok && m.ID != "" {
				all[i] = m // the message changed after it was first read
				continue
			}
			at[m.ID] = len(all)
			all = append(all, m)
		}
		if !page.More || page.Next == cursor {
			return all, false, nil
		}
		cursor = page.Next
	}
	return all, true, nil
}
