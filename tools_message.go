package bgagent

import (
	"context"
	"errors"
	"strconv"

	"github.com/bgagent/bgagent/internal/mdtext"
)

// ToolBackgroundMessage is the usual name of an optional tool, which sends a message to a running task.
// Models have it only if [Config.OptionalTools] or [ToolOptions.With] lists it.
const ToolBackgroundMessage = "background_message"

var optionalTools = []string{ToolBackgroundMessage}

// BackgroundMessageArgs holds the arguments of [BackgroundMessage]. They are decoded from JSON like
// [DelegateTaskArgs].
type BackgroundMessageArgs struct {
	TaskID   string `json:"task_id"`            // id of the task that gets the message or asks the question; required
	Message  string `json:"message,omitempty"`  // text of the message, at most 64 KiB; required without Answer
	Now      bool   `json:"now,omitempty"`      // the message joins the running turn; see SendInput.Now
	Question string `json:"question,omitempty"` // key of the question that Answer answers; see Question.Key
	Answer   string `json:"answer,omitempty"`   // option that answers the question, in place of a message
}

// BackgroundMessageResult is the result of [BackgroundMessage].
type BackgroundMessageResult struct {
	Text     string       // text for the model, at most 32 KiB
	IsError  bool         // the call was wrong or was refused
	State    MessageState // state of the message; zero if the arguments are wrong or if the call answers a question
	Question *Question    // question that the call was meant to answer; nil if no question has this key
	Task     *Task        // task that got the message or the answer; nil if IsError is set
	Notice   *Notice      // notice that was owed to the caller, if any; it is part of Text and counts as delivered
}

func (r BackgroundMessageResult) result() ToolResult { return ToolResult{r.Text, r.IsError, r} }

// UnmarshalJSON implements [json.Unmarshaler].
func (a *BackgroundMessageArgs) UnmarshalJSON(raw []byte) error { return messageFields.decode(a, raw) }

var messageFields = fields[BackgroundMessageArgs]{
	required: []string{"task_id"},
	list: []field[BackgroundMessageArgs]{
		{name: "task_id", description: "The task that is to get the message, or that asks the question.",
			text: func(a *BackgroundMessageArgs, s string) { a.TaskID = s }},
		{name: "message", description: "The message, with everything that its agent needs to know to act on it.",
			text: func(a *BackgroundMessageArgs, s string) { a.Message = s }},
		{name: "now", description: "true: the message joins what the agent is doing right now; not every agent can do that. false (the default): the agent gets it when it has finished what it is doing.",
			flag: func(a *BackgroundMessageArgs, v bool) { a.Now = v }},
		{name: "question", description: "To answer a question of the task: the key of the question, as background_output shows it.",
			text: func(a *BackgroundMessageArgs, s string) { a.Question = s }},
		{name: "answer", description: "To answer a question of the task: one of the options of the question. Leave out message then.",
			text: func(a *BackgroundMessageArgs, s string) { a.Answer = s }},
	},
}

// BackgroundMessage is the tool background_message. It sends a message to one of the caller's live
// tasks, or answers a question that the task asks; see [BackgroundManager.Send] and
// [BackgroundManager.Answer]. If the caller has a tool-call id, a repeated call with the same id and
// message does not send the message again, and only returns its state. BackgroundMessage returns
// errors in the same cases as [DelegateTask].
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
	if a.Answer != "" {
		return c.answerQuestion(a)
	}
	in := SendInput{Text: a.Message, Now: a.Now}
	if c.by.ToolCallID != "" {
		in.Key = "call." + strconv.FormatUint(storedHash(c.by.Session, c.by.ToolCallID, a.Message), 36)
	}
	sent, err := c.m.send(c.ctx, c.by, a.TaskID, in, true)
	if errors.Is(err, ErrStillLive) && c.m.endKept(c.ctx, c.by, a.TaskID) == nil { // the end was not durable yet; now it is, so the model can be told of it
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

// checkMessage describes the mistake in the arguments. It returns "" if there is none.
func checkMessage(a BackgroundMessageArgs) string {
	if s := badText("task_id", a.TaskID, refBytes); s != "" {
		return s
	}
	if s := badText("message", a.Message, messageBytes); s != "" {
		return s
	}
	if s := badText("question", a.Question, questionIDBytes+keyDigest); s != "" {
		return s
	}
	if s := badText("answer", a.Answer, questionOption); s != "" {
		return s
	}
	switch {
	case mdtext.Invisible(a.TaskID):
		return "The argument task_id is missing. It must name the task that is to get the message."
	case a.Answer != "" && a.Message != "":
		return "The arguments message and answer exclude each other. Use message to send a message, or question and answer to answer a question."
	case a.Answer != "" && mdtext.Invisible(a.Question):
		return "The argument question is missing. It must be the key of the question that is answered."
	case a.Question != "" && a.Answer == "":
		return "The argument answer is missing. It must be one of the options of the question."
	case a.Answer == "" && mdtext.Invisible(a.Message):
		return "The argument message is missing. It must be the message for the task."
	}
	return ""
}

// messageProblem turns an error from Send into text for the model.
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

// answerQuestion answers a task's question.
func (c *call) answerQuestion(a BackgroundMessageArgs) (BackgroundMessageResult, error) {
	in := AnswerInput{Key: a.Question, Option: a.Answer}
	q, err := c.m.Answer(c.ctx, c.by, a.TaskID, in)
	there := Task{}
	if here := err; c.asksElsewhere(here) {
		if there, q, err = c.answerElsewhere(a.TaskID, in); errors.Is(err, ErrUnknownTask) {
			c.asked, err = true, here
		}
	}
	var known *Question
	if q.Key != "" {
		known = &q
	}
	if err != nil {
		problem, err := c.answerProblem(err, a, q)
		if err != nil {
			return BackgroundMessageResult{Question: known}, err
		}
		r := c.messageRefused(problem, 0)
		r.Question = known
		return r, nil
	}
	t, err := c.m.Get(a.TaskID)
	if there.ID != "" {
		t = there
	} else if err != nil { // the argument is the id of the task's session, or the record has just expired
		t = Task{ID: a.TaskID}
	}
	r := c.reply(func(int) answer { return c.w.questionAnswered(t, q) })
	return BackgroundMessageResult{Text: r.text, Question: known, Task: &t, Notice: r.notice}, nil
}

// answerProblem turns an error from Answer into text for the model.
func (c *call) answerProblem(err error, a BackgroundMessageArgs, q Question) (string, error) {
	var wrong *InputError
	switch {
	case errors.Is(err, ErrQuestionOver):
		return c.w.questionIsOver(a.TaskID, q), nil
	case errors.Is(err, ErrNoQuestion):
		return c.w.noSuchQuestion(a.TaskID, a.Question), nil
	case errors.Is(err, ErrMayNotPermit):
		return notPermitted(a.TaskID), nil
	case errors.Is(err, ErrUncertain) && !errors.Is(err, ErrStore):
		return uncertainElsewhere(a.TaskID), nil
	case errors.Is(err, ErrUncertain):
		return answerUncertain(a.TaskID), nil
	case errors.As(err, &wrong) && wrong.Field == "Option":
		return "The argument answer " + wrong.Problem + ".", nil
	}
	return c.problem(err, a.TaskID)
}

// showsQuestions is called when the call's answer shows the task's questions, so that no notice
// repeats them. "shown" is the copy of the task from which the answer is made.
func (c *call) showsQuestions(shown Task) {
	if c.w.message == "" || c.ctx.Err() != nil {
		return
	}
	c.m.update(func(st *state, _ int64) {
		if t, err := st.find(shown.ID); err == nil {
			st.showsQuestions(c.by, t, shown.Questions[:min(len(shown.Questions), questionsShown)], c.out)
		}
	})
}

// From the given tasks and their descendants, the method "askers" returns those that have open
// questions.
func (c *call) askers(tasks ...Task) (list []Task) {
	if !c.m.cfg.Ask {
		return nil
	}
	for _, t := range tasks {
		if t, err := c.m.Get(t.ID); err == nil && len(t.Questions) > 0 {
			list = append(list, t)
		}
		if t.Session == "" {
			continue
		}
		for _, below := range c.m.List(Query{Under: t.Session, Status: []Status{Running}}) {
			if len(below.Questions) > 0 {
				list = append(list, below)
			}
		}
	}
	return list
}
