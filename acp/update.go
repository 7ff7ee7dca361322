package acp

import (
	"encoding/json"
	"strings"

	"github.com/bgagent/bgagent"
	sdk "github.com/coder/acp-go-sdk"
)

// report is one piece of progress for the manager.
type report func(r *bgagent.Reporter)

// report calls the functions with the turn's reporter. After RunTurn has returned, it
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

// update handles a notification of the agent.
func (p *process) update(method string, params json.RawMessage) {
	if method != sdk.ClientMethodSessionUpdate {
		return
	}
	var n sdk.SessionNotification
	left, err := readable(params, &n)
	if err != nil || n.SessionId == "" {
		// A kind of update that the SDK does not know is still a sign of life.
		n.SessionId = sessionOf(params)
	}
	c := p.c
	c.mu.Lock()
	s := c.sessions[string(n.SessionId)]
	if s == nil {
		c.mu.Unlock()
		return
	}
	t := s.turn
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
	c.mu.Unlock()
	if len(out) > 0 {
		t.report(out...)
	}
}

// noise handles printed text that is no message. It may concern any turn, so it is
// added to every running one.
func (p *process) noise(text []byte) {
	p.c.mu.Lock()
	defer p.c.mu.Unlock()
	for t := range p.turns {
		t.noise.Add(text)
	}
}

// told returns the text that the agent was told in the running turns.
func (p *process) told() string {
	p.c.mu.Lock()
	defer p.c.mu.Unlock()
	var b strings.Builder
	for t := range p.turns {
		b.WriteString(t.prompt.System + "\n" + t.prompt.Text + "\n")
	}
	return b.String()
}

// sessionOf returns the session that an update is for.
func sessionOf(params json.RawMessage) sdk.SessionId {
	var n struct {
		SessionId sdk.SessionId `json:"sessionId"`
	}
	_ = json.Unmarshal(params, &n) // an unreadable update has no session
	return n.SessionId
}

// noted applies an update of the session's settings and cost. It may come outside a
// turn.
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

// spent returns what the session has cost since the last call, in US dollars.
func (s *session) spent(u *sdk.SessionUsageUpdate) float64 {
	if u.Cost == nil || u.Cost.Currency != "USD" || u.Cost.Amount <= s.cost {
		return 0
	}
	more := u.Cost.Amount - s.cost
	s.cost = u.Cost.Amount
	return more
}

// replayed applies an update of a session that is being loaded. The conversation is
// recorded if this client has not seen it live.
func (s *session) replayed(u sdk.SessionUpdate) {
	s.noted(u)
	s.heard++
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

// apply applies an update of the current turn and returns what to report. left means
// that a part of the update could not be read.
func (s *session) apply(t *turn, u sdk.SessionUpdate, left bool) []report {
	switch {
	case u.AgentMessageChunk != nil && t.broken:
		t.problem += textOf(u.AgentMessageChunk.Content)
		t.problem = cut(t.problem, shownOfError)
		return []report{func(r *bgagent.Reporter) { r.Activity() }}
	case u.AgentMessageChunk != nil:
		text, id := textOf(u.AgentMessageChunk.Content), u.AgentMessageChunk.MessageId
		if t.aside(value(id), text) {
			return []report{func(r *bgagent.Reporter) { r.Activity() }}
		}
		return s.says(t, text, id)
	case u.AgentThoughtChunk != nil:
		text := textOf(u.AgentThoughtChunk.Content)
		s.conv.thought(text, u.AgentThoughtChunk.MessageId)
		return []report{func(r *bgagent.Reporter) { r.Reasoning(text) }}
	case u.ToolCall != nil:
		x := u.ToolCall
		return s.called(t, callNews{string(x.ToolCallId), x.Title, string(x.Kind), x.Status, x.RawInput, pathsOf(x.Locations, x.Content, x.RawInput), true, left})
	case u.ToolCallUpdate != nil:
		x := u.ToolCallUpdate
		return s.called(t, callNews{string(x.ToolCallId), value(x.Title), string(value(x.Kind)), value(x.Status), x.RawInput, pathsOf(x.Locations, x.Content, x.RawInput), false, left})
	case u.Plan != nil:
		return []report{todos(u.Plan)}
	case u.UsageUpdate != nil:
		if cost := s.spent(u.UsageUpdate); cost > 0 {
			s.conv.use(bgagent.Usage{Cost: cost})
			return []report{func(r *bgagent.Reporter) { r.Usage(bgagent.Usage{Cost: cost}) }}
		}
		return nil
	}
	if u.SessionInfoUpdate != nil {
		t.noteStatus(u.SessionInfoUpdate.Meta)
	}
	s.noted(u)
	return []report{func(r *bgagent.Reporter) { r.Activity() }}
}

// says takes a piece of what the model writes.
func (s *session) says(t *turn, text string, id *string) []report {
	if strings.TrimSpace(text) != "" {
		t.refused = ""
	}
	if s.conv.said(bgagent.RoleAgent, text, id) {
		// The manager takes all text since the last tool call for one message.
		text = "\n\n" + text
	}
	return []report{func(r *bgagent.Reporter) { r.Text(text) }}
}

// value returns what p points to, or the zero value.
func value[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

// use reports the tokens of a turn. The protocol's field for them is not stable yet;
// Gemini has a field of its own.
func (c *Client) use(t *turn, answer sdk.PromptResponse) {
	u := usageOf(answer)
	if u == (bgagent.Usage{}) {
		return
	}
	c.mu.Lock()
	c.tellsUsage = true
	t.s.conv.use(u)
	c.mu.Unlock()
	t.report(func(r *bgagent.Reporter) { r.Usage(u) })
}

// unused reports whether apparently no model has answered in the turn: the agent has
// reported the tokens of other turns but none of this one, and the turn has no tool
// call. Client.mu must be held.
func (c *Client) unused(t *turn, answer sdk.PromptResponse) bool {
	return c.tellsUsage && usageOf(answer) == (bgagent.Usage{}) && len(t.calls) == 0
}

func usageOf(answer sdk.PromptResponse) (u bgagent.Usage) {
	if x := answer.Usage; x != nil {
		u.InputTokens, u.OutputTokens = int64(x.InputTokens), int64(x.OutputTokens)
	} else {
		var meta struct {
			Quota struct {
				Count struct {
					Input  int64 `json:"input_tokens"`
					Output int64 `json:"output_tokens"`
				} `json:"token_count"`
			} `json:"quota"`
		}
		if raw, err := json.Marshal(answer.Meta); err == nil && json.Unmarshal(raw, &meta) == nil {
			u.InputTokens, u.OutputTokens = meta.Quota.Count.Input, meta.Quota.Count.Output
		}
	}
	return u
}

// textOf returns the readable text of a content block.
func textOf(b sdk.ContentBlock) string {
	switch {
	case b.Text != nil:
		return b.Text.Text
	case b.ResourceLink != nil:
		return b.ResourceLink.Uri
	}
	return ""
}

// todos returns the report of a plan.
func todos(plan *sdk.SessionUpdatePlan) report {
	list := make([]bgagent.Todo, len(plan.Entries))
	for i, e := range plan.Entries {
		list[i] = bgagent.Todo{Text: e.Content, State: todoState(string(e.Status))}
	}
	return func(r *bgagent.Reporter) { r.Todos(list) }
}

// todosIn returns the list in the input of a tool that writes todos, or nil if there
// is none. opencode reports its todos only there.
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
