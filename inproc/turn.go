package inproc

import (
	"context"
	"path"
	"slices"
	"strings"

	"github.com/bgagent/bgagent"
)

// Turn is one turn of an agent: the prompt, the history, and methods to report
// progress. Its methods are safe for concurrent use until the agent returns.
type Turn struct {
	// Prompt is what the agent is asked. Prompt.Notice is set if the prompt reports
	// ends of tasks that the agent launched.
	Prompt bgagent.Prompt

	c      *Client
	s      *session
	id     string
	r      *bgagent.Reporter
	cancel context.CancelCauseFunc

	// Guarded by Client.mu.
	text    string
	pieces  strings.Builder // builds text
	tools   []bgagent.MessageTool
	stop    bgagent.StopReason
	aborted bool
}

// Session returns the id of the session.
func (t *Turn) Session() string { return t.id }

// Title returns the description of the task.
func (t *Turn) Title() string { return t.s.title }

// Directory returns the task's working directory, or "" if none was given.
func (t *Turn) Directory() string { return t.s.dir }

// History returns the prompts and answers of the session's earlier turns, oldest
// first.
func (t *Turn) History() []bgagent.Message {
	t.c.mu.Lock()
	defer t.c.mu.Unlock()
	return t.s.messagesLocked(0)[:2*t.s.turns]
}

// Allowed reports whether the task's rules allow the tool on the pattern. The last
// matching rule decides; without one, the tool is allowed. A rule that says "ask"
// does not allow it.
func (t *Turn) Allowed(tool, on string) bool {
	for _, rule := range slices.Backward(t.Prompt.Permissions) {
		if matches(rule.Name, tool) && matches(rule.Pattern, on) {
			return rule.Action == bgagent.PermissionAllow
		}
	}
	return true
}

func matches(pattern, s string) bool {
	if pattern == "*" || pattern == s {
		return true
	}
	ok, err := path.Match(pattern, s)
	return ok && err == nil
}

// Text reports a piece of the agent's text. If the agent returns an empty answer,
// the text since the last tool call is the answer.
func (t *Turn) Text(piece string) {
	t.c.mu.Lock()
	t.pieces.WriteString(piece)
	t.text = t.pieces.String()
	t.c.mu.Unlock()
	t.r.Text(piece)
}

// Reasoning reports a piece of the agent's reasoning.
func (t *Turn) Reasoning(piece string) { t.r.Reasoning(piece) }

// Tool reports a tool call or its progress. If the call with this id has ended, the
// same id starts another call.
func (t *Turn) Tool(call bgagent.MessageTool) {
	t.c.mu.Lock()
	i := slices.IndexFunc(t.tools, func(x bgagent.MessageTool) bool { return x.ID == call.ID && x.State.InFlight() })
	if i < 0 {
		t.tools = append(t.tools, call)
		t.text = ""
		t.pieces.Reset()
	} else {
		t.tools[i] = call
	}
	t.c.mu.Unlock()
	t.r.Tool(call)
}

// Todos reports the agent's complete todo list.
func (t *Turn) Todos(list []bgagent.Todo) { t.r.Todos(list) }

// Usage reports what the agent has used since its last report.
func (t *Turn) Usage(u bgagent.Usage) { t.r.Usage(u) }

// Asking reports that the agent waits for an answer to the question. An empty
// question reports that it has the answer.
func (t *Turn) Asking(question string) { t.r.Asking(question) }

// Stop says why the turn ends if the agent has not simply finished, for example
// because its output was cut off or the model refused.
func (t *Turn) Stop(reason bgagent.StopReason) {
	t.c.mu.Lock()
	defer t.c.mu.Unlock()
	t.stop = reason
}

// how returns the reason given to Stop and whether the turn was aborted.
func (t *Turn) how() (stop bgagent.StopReason, aborted bool) {
	t.c.mu.Lock()
	defer t.c.mu.Unlock()
	return t.stop, t.aborted
}
