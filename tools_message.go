package bgagent

import (
	"context"
	"errors"
	"strconv"

	"github.com/bgagent/bgagent/internal/mdtext"
)

// ToolBackgroundMessage is the usual name of an optional tool, which sends a message to a running task.
// Models have it only if [ToolOptions.With] lists it.
const ToolBackgroundMessage = "background_message"

var optionalTools = []string{ToolBackgroundMessage}

// BackgroundMessageArgs are the arguments of [BackgroundMessage]. They are decoded from JSON like
// [DelegateTaskArgs].
type BackgroundMessageArgs struct {
	TaskID  string `json:"task_id"`       // id of the task that gets the message; required
	Message string `json:"message"`       // text of the message, at most 64 KiB; required
	Now     bool   `json:"now,omitempty"` // the message joins the running turn; see SendInput.Now
}

// BackgroundMessageResult is the answer of [BackgroundMessage].
type BackgroundMessageResult struct {
	Text    string       // text for the model, at most 32 KiB
	IsError bool         // the call was wrong or was refused
	State   MessageState // state of the message; zero if the arguments are wrong
	Task    *Task        // task that got the message; nil if IsError is set
	Notice  *Notice      // notice about the ends that the caller was owed; it is part of Text and counts as delivered
}

func (r BackgroundMessageResult) result() ToolResult { return ToolResult{r.Text, r.IsError, r} }

// UnmarshalJSON implements [json.Unmarshaler].
func (a *BackgroundMessageArgs) UnmarshalJSON(raw []byte) error { return messageFields.decode(a, raw) }

var messageFields = fields[BackgroundMessageArgs]{
	required: []string{"task_id", "message"},
	list: []field[BackgroundMessageArgs]{
		{name: "task_id", description: "The task that is to get the message.",
			text: func(a *BackgroundMessageArgs, s string) { a.TaskID = s }},
		{name: "message", description: "The message, with everything that its agent needs to know to act on it.",
			text: func(a *BackgroundMessageArgs, s string) { a.Message = s }},
		{name: "now", description: "true: the message joins what the agent is doing right now; not every agent can do that. false (the default): the agent gets it when it has finished what it is doing.",
			flag: func(a *BackgroundMessageArgs, v bool) { a.Now = v }},
	},
}

// BackgroundMessage is the tool background_message. It sends a message to a task of the caller that has
// not ended; see [BackgroundManager.Send]. If the caller has a tool-call id, a repeated call with the
// same id and message sends nothing and answers with the state of the message. BackgroundMessage
// returns errors in the same cases as [DelegateTask].
func BackgroundMessage(ctx context.Context, m *BackgroundManager, by Caller, a BackgroundMessageArgs) (BackgroundMessageResult, error) {
	return ToolOptions{}.BackgroundMessage(ctx, m, by, a)
}

// BackgroundMessage calls the tool background_message with these options, even if With does not list
// it. See the function [BackgroundMessage].
func (o ToolOptions) BackgroundMessage(ctx context.Context, m *BackgroundManager, by Caller, a BackgroundMessageArgs) (BackgroundMessageResult, error) {
	return typed(ctx, m, by, o, ToolBackgroundMessage, a, (*call).message)
}

func (c *call) message(a BackgroundMessageArgs) (BackgroundMessageResult, error) {
	if errors.Is(c.ctx.Err(), context.Canceled) {
		return BackgroundMessageResult{}, c.ctx.Err()
	}
	a.TaskID = taskRef(a.TaskID)
	if problem := checkMessage(a); problem != "" {
		return c.messageRefused(problem, 0), nil
	}
	in := SendInput{Text: a.Message, Now: a.Now}
	if c.by.ToolCallID != "" {
		in.Key = "call." + strconv.FormatUint(storedHash(c.by.Session, c.by.ToolCallID, a.Message), 36)
	}
	sent, err := c.m.send(c.ctx, c.by, a.TaskID, in, true)
	if errors.Is(err, ErrStillLive) && c.m.endKept(c.ctx, c.by, a.TaskID) == nil { // the model must not hear of the end before
		sent, err = c.m.send(c.ctx, c.by, a.TaskID, in, true)
	}
	if err != nil {
		problem, err := c.messageProblem(err, a.TaskID, a.Now)
		if err != nil {
			return BackgroundMessageResult{State: sent.State}, err
		}
		return c.messageRefused(problem, sent.State), nil
	}
	r := c.reply(func(int) answer { return c.w.messageSent(sent) })
	return BackgroundMessageResult{Text: r.text, State: sent.State, Task: &sent.Task, Notice: r.notice}, nil
}

func (c *call) messageRefused(problem string, s MessageState) BackgroundMessageResult {
	r := c.refuse(problem)
	return BackgroundMessageResult{Text: r.text, IsError: true, State: s, Notice: r.notice}
}

// checkMessage returns a text about the mistake in the arguments, or "" if there is none.
func checkMessage(a BackgroundMessageArgs) string {
	if s := badText("task_id", a.TaskID, refBytes); s != "" {
		return s
	}
	if s := badText("message", a.Message, messageBytes); s != "" {
		return s
	}
	switch {
	case mdtext.Invisible(a.TaskID):
		return "The argument task_id is missing. It must name the task that is to get the message."
	case mdtext.Invisible(a.Message):
		return "The argument message is missing. It must be the message for the task."
	}
	return ""
}

// messageProblem turns an error of Send into a text for the model.
func (c *call) messageProblem(err error, ref string, now bool) (string, error) {
	switch {
	case errors.Is(err, ErrStillLive):
		return c.w.messageNotNow(ref), c.ctx.Err()
	case errors.Is(err, ErrAlreadyEnded):
		session := ""
		if t, err := c.m.Get(ref); err == nil {
			session = t.Session
		}
		return c.w.messageTooLate(ref, session), nil
	case errors.Is(err, ErrTooManyMessages) && now:
		return c.w.tooManyJoin(ref), nil
	case errors.Is(err, ErrTooManyMessages):
		return c.w.tooManyMessages(ref), nil
	case errors.Is(err, ErrCannotSteer):
		return c.w.cannotJoin(ref), nil
	case errors.Is(err, ErrUncertain):
		return c.w.messageUncertain(ref), nil
	}
	return c.problem(err, ref)
}
