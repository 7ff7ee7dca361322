package bgagent

import (
	"context"
	"errors"
	"slices"
	"strings"
)

// DelegateTask is the tool delegate_task: it launches a task for another agent,
// or continues one that has ended, and answers at once; with RunInBackground
// set to false it answers with the result.
//
// What was wrong with the arguments comes back as a result with IsError. The
// error is ctx's when that was cancelled, in the foreground together with the
// task, which is cancelled then, too; one about the host's configuration; or an
// [*InputError] for a caller without a session. A host that acts for itself has
// the methods of the manager.
func DelegateTask(ctx context.Context, m *BackgroundManager, by Caller, a DelegateTaskArgs) (DelegateTaskResult, error) {
	return ToolOptions{}.DelegateTask(ctx, m, by, a)
}

// Foreground reports whether the arguments ask for the result as the answer. Where
// RunInBackground and Background contradict each other, which DelegateTask
// refuses, it is false.
func (a DelegateTaskArgs) Foreground() bool {
	is := func(b *bool, value bool) bool { return b != nil && *b == value }
	return (is(a.RunInBackground, false) || is(a.Background, false)) && !is(a.RunInBackground, true) && !is(a.Background, true)
}

func (c *call) delegate(a DelegateTaskArgs) (DelegateTaskResult, error) {
	a.SessionID, a.TaskID, a.SubagentType = taskRef(a.SessionID), taskRef(a.TaskID), strings.TrimSpace(a.SubagentType)
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
		t, err = c.m.RunResume(c.ctx, c.by, ref, resume)
	case ref != "":
		t, err = c.m.Resume(c.ctx, c.by, ref, resume)
	case foreground:
		t, err = c.m.Run(c.ctx, c.by, launch)
	default:
		t, err = c.m.Launch(c.ctx, c.by, launch)
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
		render = func(int) answer {
			return c.w.goesOn(t, errors.Is(c.ctx.Err(), context.DeadlineExceeded))
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

// checkDelegate says what is wrong with the arguments, or nothing.
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
	case invisible(a.Prompt) && a.SessionID+a.TaskID != "":
		return "The argument prompt is missing. It must say how the agent is to go on."
	case invisible(a.Prompt):
		return "The argument prompt is missing. It must say what the agent is to do, with everything that it needs to know: it does not see your conversation."
	case a.RunInBackground != nil && a.Background != nil && *a.RunInBackground != *a.Background:
		return "The arguments run_in_background and background mean the same and contradict each other. Give one of the two."
	case c.agents != nil && a.SessionID+a.TaskID == "" && !slices.Contains(c.agents, a.SubagentType) && !invisible(a.SubagentType):
		return c.w.noSuchAgent(&NoSuchAgentError{Agent: a.SubagentType, Known: c.agents}) + " Nothing was launched."
	case invisible(a.SubagentType) && a.SessionID+a.TaskID == "":
		return "The argument subagent_type is missing. It must name the agent that is to do the work; or, to continue a task, give its session_id or task_id instead."
	case a.SessionID != "" && a.TaskID != "" && !c.sameTask(a.TaskID, a.SessionID):
		return "The arguments session_id and task_id do not name the same task. Give one of the two."
	}
	return ""
}

// sameTask reports whether the session is the task's.
func (c *call) sameTask(id, session string) bool {
	t, err := c.m.Get(id)
	var gone *ExpiredError
	if errors.As(err, &gone) {
		return gone.Session == session
	}
	return err == nil && t.Session == session
}

// queuePlace adds the place in line to a task that was pending just now.
func (c *call) queuePlace(t *Task) {
	if t.Status != Pending {
		return
	}
	if now, err := c.m.Get(t.ID); err == nil && now.Status == Pending && now.Attempt == t.Attempt {
		t.Queue = now.Queue
	}
}

// agentNote says that a continued task keeps its agent, where another one was
// asked for.
func agentNote(a DelegateTaskArgs, t Task) []string {
	if a.SubagentType == "" || a.SubagentType == t.Agent {
		return nil
	}
	return []string{"A continued task keeps its agent; subagent_type was not used."}
}
