package acp

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/apifault"
	sdk "github.com/coder/acp-go-sdk"
)

// A report is a function that reports one piece of progress to the manager.
type report func(r *bgagent.Reporter)

// The method "report" calls the functions with the turn's reporter. After the turn is finished, it
// does nothing.
func (t *turn) report(list ...report) {
	t.reporting.Lock()
	defer t.reporting.Unlock()
	if t.r == nil {
		return
	}
	for _, f := range list {
		f(t.r)
	}
}

// The method "update" handles a notification from the agent.
func (p *process) update(method string, params json.RawMessage) {
	if method != sdk.ClientMethodSessionUpdate {
		return
	}
	var n sdk.SessionNotification
	left, err := readable(params, &n)
	if left || err != nil {
		if c, ok := chunk(params); ok {
			left, err = readable(c, &n)
		}
	}
	if err != nil || n.SessionId == "" {
		// An update whose kind is unknown to the SDK is still activity.
		n.SessionId = sessionOf(params)
	}
	if x := n.Update.ToolCall; x != nil {
		x.RawInput = exact(params, "update", x.RawInput)
	}
	if x := n.Update.ToolCallUpdate; x != nil {
		x.RawInput = exact(params, "update", x.RawInput)
	}
	c := p.c
	c.mu.Lock()
	s := c.sessions[string(n.SessionId)]
	if s == nil {
		c.mu.Unlock()
		return
	}
	t := s.turn
	if t != nil && s.proc == p {
		t.heard = true
	}
	var out []report
	switch {
	case s.loading:
		s.replayed(n.Update)
	case t != nil && !t.over && s.proc == p && t.answered:
		out = s.late(t, n.Update)
	case t != nil && !t.over && s.proc == p:
		out = s.apply(t, n.Update, left)
	default:
		s.noted(n.Update)
	}
	begun := (n.Update.ToolCall != nil || n.Update.ToolCallUpdate != nil) && len(out) > 0 && t.works()
	c.mu.Unlock()
	if len(out) > 0 {
		t.report(out...)
	}
	if begun {
		t.save()
	}
}

// noise handles printed text that is not a message. The text might concern any turn, so it
// is added to every running turn.
func (p *process) noise(text []byte) {
	p.c.mu.Lock()
	defer p.c.mu.Unlock()
	for t := range p.turns {
		t.noise.Add(text)
	}
}

// The method "told" returns the texts that were sent to the agent in the running turns.
func (p *process) told() string {
	p.c.mu.Lock()
	defer p.c.mu.Unlock()
	var b strings.Builder
	for t := range p.turns {
		b.WriteString(t.prompt.System + "\n" + t.prompt.Text + "\n")
	}
	return b.String()
}

// sessionOf returns the id of the session that an update concerns.
func sessionOf(params json.RawMessage) sdk.SessionId {
	var n struct {
		SessionId sdk.SessionId `json:"sessionId"`
	}
	_ = json.Unmarshal(params, &n) // if the update is unreadable, the id stays empty
	return n.SessionId
}

// The method "noted" applies an update of the session's settings or cost. Such an update can arrive
// outside of a turn.
func (s *session) noted(u sdk.SessionUpdate) {
	switch {
	case u.CurrentModeUpdate != nil:
		s.opts.mode.current = string(u.CurrentModeUpdate.CurrentModeId)
	case u.ConfigOptionUpdate != nil:
		s.opts.configured(u.ConfigOptionUpdate.ConfigOptions)
	case u.UsageUpdate != nil:
		s.spent(u.UsageUpdate)
	}
}

// The method "spent" stores the session's cost. It returns the cost since the last call, in US
// dollars.
func (s *session) spent(u *sdk.SessionUsageUpdate) float64 {
	if u.Cost == nil || u.Cost.Currency != "USD" || u.Cost.Amount <= s.cost {
		return 0
	}
	more := u.Cost.Amount - s.cost
	s.cost = u.Cost.Amount
	return more
}

// The method "replayed" applies an update for a session that is being loaded. It records the
// messages if this client has not seen the conversation live.
func (s *session) replayed(u sdk.SessionUpdate) {
	s.noted(u)
	s.heard++
	if s.replay != nil {
		s.replay.add(u)
	}
	if !s.conv.replay {
		return
	}
	switch {
	case u.UserMessageChunk != nil:
		s.conv.said(bgagent.RoleUser, textOf(u.UserMessageChunk.Content), u.UserMessageChunk.MessageId)
	case u.AgentMessageChunk != nil:
		s.conv.said(bgagent.RoleAgent, textOf(u.AgentMessageChunk.Content), u.AgentMessageChunk.MessageId)
	case u.AgentThoughtChunk != nil:
		s.conv.thought(textOf(u.AgentThoughtChunk.Content), u.AgentThoughtChunk.MessageId)
	case u.ToolCall != nil:
		s.conv.used(bgagent.MessageTool{ID: string(u.ToolCall.ToolCallId), Name: nameOf(u.ToolCall.Title, string(u.ToolCall.Kind)), State: stateOf(u.ToolCall.Status)})
	}
}

// The method "apply" applies an update for the current turn. It returns the progress to report. If
// left is true, part of the update could not be read.
//
// The cost of one of the agent's steps is reported when the agent continues after the step. The cost
// of its last step is reported with the end of the turn.
func (s *session) apply(t *turn, u sdk.SessionUpdate, left bool) []report {
	reports := s.progress(t, u, left)
	acts := u.AgentMessageChunk != nil || u.AgentThoughtChunk != nil || u.ToolCall != nil || u.ToolCallUpdate != nil
	if cost := t.cost; acts && cost > 0 && !t.answered {
		t.cost, t.told = 0, t.told+cost
		reports = append(reports, func(r *bgagent.Reporter) { r.Usage(bgagent.Usage{Cost: cost}) })
	}
	return reports
}

// progress does the work of the method "apply", apart from costs.
func (s *session) progress(t *turn, u sdk.SessionUpdate, left bool) []report {
	switch {
	case u.AgentMessageChunk != nil && t.broken:
		t.problem += textOf(u.AgentMessageChunk.Content)
		t.problem = cut(t.problem, shownOfError)
		return []report{func(r *bgagent.Reporter) { r.Activity() }}
	case u.AgentMessageChunk != nil:
		text, id := textOf(u.AgentMessageChunk.Content), u.AgentMessageChunk.MessageId
		t.fault = apifault.Fault{}
		if t.aside(value(id), text) {
			return []report{func(r *bgagent.Reporter) { r.Activity() }}
		}
		return s.says(t, text, id)
	case u.AgentThoughtChunk != nil:
		text := textOf(u.AgentThoughtChunk.Content)
		t.fault = apifault.Fault{}
		s.conv.thought(text, u.AgentThoughtChunk.MessageId)
		return []report{func(r *bgagent.Reporter) { r.Reasoning(text) }}
	case u.ToolCall != nil:
		x := u.ToolCall
		t.fault, t.retries = apifault.Fault{}, 0
		if isCompaction(x) {
			t.compaction = x.ToolCallId
			return []report{func(r *bgagent.Reporter) { r.Compaction() }}
		}
		return s.called(t, callNews{string(x.ToolCallId), x.Title, string(x.Kind), x.Status, x.RawInput, pathsOf(x.Locations, x.Content, x.RawInput), true, left,
			callOutput{x.RawOutput, x.Content, x.Meta}})
	case u.ToolCallUpdate != nil && t.compaction != "" && u.ToolCallUpdate.ToolCallId == t.compaction:
		return []report{func(r *bgagent.Reporter) { r.Activity() }}
	case u.ToolCallUpdate != nil:
		x := u.ToolCallUpdate
		t.fault = apifault.Fault{}
		return s.called(t, callNews{string(x.ToolCallId), value(x.Title), string(value(x.Kind)), value(x.Status), x.RawInput, pathsOf(x.Locations, x.Content, x.RawInput), false, left,
			callOutput{x.RawOutput, x.Content, x.Meta}})
	case u.Plan != nil:
		return []report{todos(u.Plan)}
	case u.UsageUpdate != nil:
		if cost := s.spent(u.UsageUpdate); cost > 0 {
			s.conv.use(bgagent.Usage{Cost: cost})
			t.cost += cost
			return []report{func(r *bgagent.Reporter) { r.Activity() }}
		}
		return nil
	}
	if u.SessionInfoUpdate != nil {
		if e := t.noteStatus(u.SessionInfoUpdate.Meta); e != nil {
			return []report{func(r *bgagent.Reporter) { r.Retrying(*e, time.Time{}) }}
		}
	}
	s.noted(u)
	return []report{func(r *bgagent.Reporter) { r.Activity() }}
}

// The method "says" adds a piece of the model's text to the conversation, and returns the reports
// about it.
func (s *session) says(t *turn, text string, id *string) []report {
	if strings.TrimSpace(text) != "" {
		t.refused = ""
	}
	if s.conv.said(bgagent.RoleAgent, text, id) {
		// The manager treats all text since the last tool call as one message, so an
		// empty line separates the messages.
		text = "\n\n" + text
	}
	return []report{func(r *bgagent.Reporter) { r.Text(text) }}
}

// value returns the value at p, or the zero value if p is nil.
func value[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

// The method "use" stores and returns the number of tokens that a turn used.
func (c *Client) use(t *turn, answer sdk.PromptResponse) bgagent.Usage {
	u := usageOf(answer)
	if u != (bgagent.Usage{}) {
		c.mu.Lock()
		c.tellsUsage = true
		t.s.conv.use(u)
		c.mu.Unlock()
	}
	return u
}

// ReportsCost implements [bgagent.CostReporter]. codex and gemini do not report costs.
func (c *Client) ReportsCost(string) bool { return !c.runs("codex") && !c.runs("gemini") }

// ReportsTokens implements [bgagent.TokenReporter]. opencode reports only the tokens of the last
// request in a turn.
func (c *Client) ReportsTokens(string) bool { return !c.runs("opencode") }

// The method "runs" reports whether the agent is the given program, according to the name that it
// reported or to Config.Command. The value of a flag, such as a model name, is ignored.
func (c *Client) runs(program string) bool {
	if name := c.told.Load(); name != nil && strings.Contains(strings.ToLower(*name), program) {
		return true
	}
	for i, word := range c.cfg.Command {
		ofFlag := i > 0 && strings.HasPrefix(c.cfg.Command[i-1], "--") || strings.HasPrefix(word, "-")
		if !ofFlag && strings.Contains(strings.ToLower(filepath.Base(word)), program) {
			return true
		}
	}
	return false
}

// The method "unused" reports whether the model probably did not answer in the turn. It reports
// true if the agent has reported tokens in other turns but none in this turn, and the turn has no
// tool call. The caller must hold Client.mu.
func (c *Client) unused(t *turn, answer sdk.PromptResponse) bool {
	return c.tellsUsage && usageOf(answer) == (bgagent.Usage{}) && len(t.calls) == 0
}

// usageOf returns the tokens in the answer to a prompt. The protocol's field for tokens is not
// stable yet, and gemini uses its own field.
func usageOf(answer sdk.PromptResponse) (u bgagent.Usage) {
	if x := answer.Usage; x != nil {
		u.InputTokens, u.OutputTokens = int64(x.InputTokens), int64(x.OutputTokens)
	} else {
		if x := quotaOf(answer); x != nil {
			u.InputTokens, u.OutputTokens = x.Input, x.Output
		}
	}
	return u
}

// quota holds the tokens of a turn according to gemini.
type quota struct {
	Input  int64 `json:"input_tokens"`
	Output int64 `json:"output_tokens"`
}

// quotaOf returns the tokens from gemini's own field in an answer. If the answer has no such field,
// it returns nil.
func quotaOf(answer sdk.PromptResponse) *quota {
	var meta struct {
		Quota struct {
			Count *quota `json:"token_count"`
		} `json:"quota"`
	}
	if raw, err := json.Marshal(answer.Meta); err != nil || json.Unmarshal(raw, &meta) != nil {
		return nil
	}
	return meta.Quota.Count
}

// textOf returns the text or the link in a content block.
func textOf(b sdk.ContentBlock) string {
	switch {
	case b.Text != nil:
		return b.Text.Text
	case b.ResourceLink != nil:
		return b.ResourceLink.Uri
	}
	return ""
}

// todos returns a report with the todos of a plan.
func todos(plan *sdk.SessionUpdatePlan) report {
	list := make([]bgagent.Todo, len(plan.Entries))
	for i, e := range plan.Entries {
		list[i] = bgagent.Todo{Text: e.Content, State: todoState(string(e.Status))}
	}
	return func(r *bgagent.Reporter) { r.Todos(list) }
}

// todosIn returns the todo list in a tool's input, or nil if the input does not contain one.
// opencode reports its todos only in this way.
func todosIn(input any) []bgagent.Todo {
	fields, ok := input.(map[string]any)
	if !ok {
		return nil
	}
	entries, ok := fields["todos"].([]any)
	if !ok {
		return nil
	}
	list := make([]bgagent.Todo, 0, len(entries))
	for _, e := range entries {
		entry, ok := e.(map[string]any)
		if !ok {
			return nil
		}
		text, _ := entry["content"].(string)
		status, _ := entry["status"].(string)
		if text == "" || status == "" {
			return nil
		}
		list = append(list, bgagent.Todo{Text: text, State: todoState(status)})
	}
	return list
}

func todoState(s string) bgagent.TodoState {
	switch s {
	case "in_progress":
		return bgagent.TodoInProgress
	case "completed":
		return bgagent.TodoCompleted
	case "cancelled":
		return bgagent.TodoCancelled
	}
	return bgagent.TodoPending
}
