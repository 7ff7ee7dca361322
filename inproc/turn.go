package inproc

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/permission"
)

// Turn is one turn of an agent. It gives access to the prompt and the history, and its
// methods report progress. The methods are safe for concurrent use until the agent
// returns.
type Turn struct {
	// Prompt is the prompt of the turn. Prompt.Notice is set if the prompt reports that
	// tasks launched by the agent have ended.
	Prompt bgagent.Prompt

	c      *Client
	s      *session
	id     string
	r      *bgagent.Reporter
	cancel context.CancelCauseFunc
	over   <-chan struct{} // closed when the turn must stop, and when it ends

	// Client.mu guards the following fields.
	text    string
	pieces  strings.Builder // text under construction
	tools   []bgagent.MessageTool
	stop    bgagent.StopReason
	aborted bool
	final   bgagent.Usage
	inbox   chan bgagent.TurnMessage // nil until the agent calls Receive
}

// Session returns the id of the session.
func (t *Turn) Session() string { return t.id }

// Title returns the description of the task.
func (t *Turn) Title() string { return t.s.title }

// Directory returns the task's working directory, or "" if the task has none.
func (t *Turn) Directory() string { return t.s.dir }

// History returns the prompts and answers of earlier turns in the session, oldest first.
func (t *Turn) History() []bgagent.Message {
	t.c.mu.Lock()
	defer t.c.mu.Unlock()
	return t.s.messagesLocked(0)[:2*t.s.turns]
}

// Allowed reports whether the task's rules allow a tool to be used on a path, a command or an
// address. The last matching rule decides. If no rule matches, the use is allowed. A rule with the
// action "ask" does not allow the use. The name of the tool and the name in a rule can be any word
// for a kind of access; see [bgagent.Permission].
func (t *Turn) Allowed(tool, on string) bool {
	access := permission.Of(tool)
	for _, rule := range slices.Backward(t.Prompt.Permissions) {
		if access.Named(rule) && permission.Matches(rule.Pattern, on) {
			return permission.Allows(rule)
		}
	}
	return true
}

// Text reports a piece of the agent's text. If the agent returns an empty answer, the
// answer is the text that was reported after the last tool call began.
func (t *Turn) Text(piece string) {
	t.c.mu.Lock()
	t.pieces.WriteString(piece)
	t.text = t.pieces.String()
	t.c.mu.Unlock()
	t.r.Text(piece)
}

// Reasoning reports a piece of the agent's reasoning.
func (t *Turn) Reasoning(piece string) { t.r.Reasoning(piece) }

// Tool reports the start, the progress or the end of a tool call. If the last call with the
// same id has ended, the report starts a new call. If the calls have digests of their input and
// result (see [bgagent.DigestOf]), an agent that keeps repeating one call is stopped.
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

// Compaction reports that the agent has replaced earlier messages of the session with a summary;
// see [bgagent.Reporter.Compaction].
func (t *Turn) Compaction() { t.r.Compaction() }

// Todos reports the agent's complete todo list.
func (t *Turn) Todos(list []bgagent.Todo) { t.r.Todos(list) }

// Usage reports the agent's tokens and costs since the last call to Usage. If this uses up a
// budget, the turn is stopped immediately. If the usage arrived together with the answer, report it
// with [Turn.FinalUsage] instead.
func (t *Turn) Usage(u bgagent.Usage) { t.r.Usage(u) }

// FinalUsage reports tokens and costs that became known together with the answer. The agent must
// then return. The answer is kept even if the budget is used up.
func (t *Turn) FinalUsage(u bgagent.Usage) {
	t.c.mu.Lock()
	defer t.c.mu.Unlock()
	t.final.InputTokens += u.InputTokens
	t.final.OutputTokens += u.OutputTokens
	t.final.Cost += u.Cost
}

// Retrying reports that a request to the model provider failed, and that the agent will retry
// it at the given time. The time is zero if it is unknown. See [bgagent.Reporter.Retrying].
func (t *Turn) Retrying(e bgagent.ProviderError, at time.Time) { t.r.Retrying(e, at) }

// Asking reports that the agent is waiting for an answer to the question. An empty question
// reports that the agent has received the answer.
func (t *Turn) Asking(question string) { t.r.Asking(question) }

// Ask asks a question and returns the option that was chosen. It waits for the answer, which can
// take up to a day. If nobody can be asked, the error matches [bgagent.ErrNotAsked], and the
// agent must do without what it asked for. See [bgagent.Reporter.Ask].
func (t *Turn) Ask(ctx context.Context, q bgagent.Question) (option string, err error) {
	return t.r.Ask(ctx, q)
}

// Stop sets the reason why the turn ends. The agent calls Stop if the turn does not end
// normally, for example if its output was cut off or the model refused.
func (t *Turn) Stop(reason bgagent.StopReason) {
	t.c.mu.Lock()
	defer t.c.mu.Unlock()
	t.stop = reason
}

// The method "how" returns the reason that was passed to Stop, whether the turn was aborted, and the
// usage that was passed to FinalUsage.
func (t *Turn) how() (stop bgagent.StopReason, aborted bool, used bgagent.Usage) {
	t.c.mu.Lock()
	defer t.c.mu.Unlock()
	return t.stop, t.aborted, t.final
}
