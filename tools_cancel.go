package bgagent

import (
	"context"
	"errors"
)

// BackgroundCancel is the tool background_cancel: it cancels one task, or every
// pending or running task that descends from the caller's session. Errors are
// those of [DelegateTask].
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
	var err error
	if a.All {
		tasks, err = c.m.CancelAll(c.ctx, c.by, CancelOptions{})
	} else {
		var t Task
		t, err = c.m.Cancel(c.ctx, c.by, id, CancelOptions{})
		tasks = []Task{t}
	}
	switch {
	case errors.Is(err, ErrAlreadyEnded):
		return c.cancelRefused(c.w.alreadyEnded(tasks[0])), nil
	case err != nil:
		problem, err := c.problem(err, id)
		if err != nil {
			return BackgroundCancelResult{}, err
		}
		return c.cancelRefused(problem), nil
	}
	r := c.reply(func(room int) answer { return c.w.cancelled(tasks, room) })
	return BackgroundCancelResult{Text: r.text, Cancelled: tasks, Notice: r.notice}, nil
}

func (c *call) cancelRefused(problem string) BackgroundCancelResult {
	r := c.refuse(problem)
	return BackgroundCancelResult{Text: r.text, IsError: true, Notice: r.notice}
}
