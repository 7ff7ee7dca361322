package inproc

import (
	"context"
	"slices"
	"strings"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/permission"
)

// Turn is what an agent is given: what it is asked, what was said before, and
// the means to tell how it gets on. Its methods are safe for concurrent use
// until the agent returns.
type Turn struct {
	// Prompt is what the agent is asked. Prompt.Notice is set when it is told
	// of the ends of tasks that it had launched itself.
	Prompt bgagent.Prompt

	c      *Client
	s      *session
	id     string
	r      *bgagent.Reporter
	cancel context.CancelCauseFunc

	// Guarded by Client.mu.
	text    string
	pieces  strings.Builder // of text
	tools   []bgagent.MessageTool
	stop    bgagent.StopReason
	aborted bool
}

// Session returns the id of the session.
func (t *Turn) Session() string { return t.id }

// Title returns the description of the task.
func (t *Turn) Title() string { return t.s.title }

// Directory returns where the task is to work; empty when nobody said.
func (t *Turn) Directory() string { return t.s.dir }

// History returns the prompts and answers of the session's earlier turns, oldest
// first.
func (t *Turn) History() []bgagent.Message {
	t.c.mu.Lock()
	defer t.c.mu.Unlock()
	return t.s.messagesLocked(0)[:2*t.s.turns]
}

// Allowed reports whether the task's rules let it use the tool on the pattern:
// the last rule that matches decides, and without one it is allowed. Rules that
// say "ask" do not allow. The name of the tool and those in rules may be any of
// the words for a kind of access; see [bgagent.Permission].
func (t *Turn) Allowed(tool, on string) bool {
	access := permission.Of(tool)
	for _, rule := range slices.Backward(t.Prompt.Permissions) {
		if access.Named(rule) && permission.Matches(rule.Pattern, on) {
			return permission.Allows(rule)
		}
	}
	return true
}

// Text tells a piece of what the agent writes. When the agent returns an empty
// answer, the text told since the last tool call is the answer.
func (t *Turn) Text(piece string) {
	t.c.mu.Lock()
	t.pieces.WriteString(piece)
	t.text = t.pieces.String()
	t.c.mu.Unlock()
	t.r.Text(piece)
}

// Reasoning tells what the agent thinks.
func (t *Turn) Reasoning(piece string) { t.r.Reasoning(piece) }

// Tool tells of a tool call, or how far it has got. What comes under the id of a
// call that has ended is another call.
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

// Todos tells the agent's whole todo list.
func (t *Turn) Todos(list []bgagent.Todo) { t.r.Todos(list) }

// Usage tells what the agent has used since it last told.
func (t *Turn) Usage(u bgagent.Usage) { t.r.Usage(u) }

// Asking tells that the agent waits for an answer to the question; an empty one
// that it has got it.
func (t *Turn) Asking(question string) { t.r.Asking(question) }

// Stop says why the turn ends, when that is not that the agent has said all it
// had to say: its output was cut off, the model refused.
func (t *Turn) Stop(reason bgagent.StopReason) {
	t.c.mu.Lock()
	defer t.c.mu.Unlock()
	t.stop = reason
}

// how returns how the turn ended, as far as it was said or done to it.
func (t *Turn) how() (stop bgagent.StopReason, aborted bool) {
	t.c.mu.Lock()
	defer t.c.mu.Unlock()
	return t.stop, t.aborted
}
