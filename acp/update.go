package acp

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"github.com/bgagent/bgagent"
	sdk "github.com/coder/acp-go-sdk"
)

// report is what is passed on to the manager.
type report func(r *bgagent.Reporter)

// report calls the functions with the turn's reporter, unless RunTurn has
// returned.
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

// update takes a notification of the agent.
func (p *process) update(method string, params json.RawMessage) {
	if method != sdk.ClientMethodSessionUpdate {
		return
	}
	var n sdk.SessionNotification
	if err := json.Unmarshal(params, &n); err != nil {
		// A kind of update that is newer than the SDK: a sign of life all the same.
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
	case t != nil && !t.over && s.proc == p:
		out = s.apply(t, n.Update)
	default:
		s.noted(n.Update)
	}
	c.mu.Unlock()
	if len(out) > 0 {
		t.report(out...)
	}
}

// sessionOf returns the session that an update is for.
func sessionOf(params json.RawMessage) sdk.SessionId {
	var n struct {
		SessionId sdk.SessionId `json:"sessionId"`
	}
	_ = json.Unmarshal(params, &n) // what cannot be read has no session
	return n.SessionId
}

// noted takes over what a session is like, whether it is in a turn or not.
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

// spent returns what the session has cost since it was last asked.
func (s *session) spent(u *sdk.SessionUsageUpdate) float64 {
	if u.Cost == nil || u.Cost.Currency != "USD" || u.Cost.Amount <= s.cost {
		return 0
	}
	more := u.Cost.Amount - s.cost
	s.cost = u.Cost.Amount
	return more
}

// replayed takes an update of a session that is being loaded. The conversation
// is kept when this client has not seen it.
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

// apply takes an update of the turn that runs and returns what is to be
// reported.
func (s *session) apply(t *turn, u sdk.SessionUpdate) []report {
	switch {
	case u.AgentMessageChunk != nil:
		text := textOf(u.AgentMessageChunk.Content)
		if strings.TrimSpace(text) != "" {
			t.refused = ""
		}
		if s.conv.said(bgagent.RoleAgent, text, u.AgentMessageChunk.MessageId) {
			// The manager takes all text since the last tool call for one message.
			text = "\n\n" + text
		}
		return []report{func(r *bgagent.Reporter) { r.Text(text) }}
	case u.AgentThoughtChunk != nil:
		text := textOf(u.AgentThoughtChunk.Content)
		s.conv.thought(text, u.AgentThoughtChunk.MessageId)
		return []report{func(r *bgagent.Reporter) { r.Reasoning(text) }}
	case u.ToolCall != nil:
		x := u.ToolCall
		return s.called(t, callNews{string(x.ToolCallId), x.Title, string(x.Kind), x.Status, x.RawInput, pathsOf(x.Locations, x.Content, x.RawInput)})
	case u.ToolCallUpdate != nil:
		x := u.ToolCallUpdate
		return s.called(t, callNews{string(x.ToolCallId), value(x.Title), string(value(x.Kind)), value(x.Status), x.RawInput, pathsOf(x.Locations, x.Content, x.RawInput)})
	case u.Plan != nil:
		return []report{todos(u.Plan)}
	case u.UsageUpdate != nil:
		if cost := s.spent(u.UsageUpdate); cost > 0 {
			s.conv.use(bgagent.Usage{Cost: cost})
			return []report{func(r *bgagent.Reporter) { r.Usage(bgagent.Usage{Cost: cost}) }}
		}
		return nil
	}
	s.noted(u)
	return []report{func(r *bgagent.Reporter) { r.Activity() }}
}

// value returns what p points to, or the zero value.
func value[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

// callNews is what is told of a tool call. Empty values mean that nothing has
// changed.
type callNews struct {
	id, title, kind string
	status          sdk.ToolCallStatus
	input           any
	paths           []string // files that it concerns
}

// pathsOf returns the files that a tool call concerns, wherever they are told.
func pathsOf(locations []sdk.ToolCallLocation, content []sdk.ToolCallContent, input any) []string {
	var paths []string
	for _, l := range locations {
		paths = append(paths, l.Path)
	}
	for _, c := range content {
		if c.Diff != nil {
			paths = append(paths, c.Diff.Path)
		}
	}
	fields, _ := input.(map[string]any)
	for _, name := range pathFields {
		if p, ok := fields[name].(string); ok && p != "" {
			paths = append(paths, p)
		}
	}
	slices.Sort(paths)
	return slices.Compact(paths)
}

// pathFields are the names under which agents give files to their tools.
var pathFields = []string{
	"path", "filePath", "file_path", "filepath", "absolute_path", "abs_path", "dir_path", "notebook_path",
	"source", "destination", "source_path", "destination_path", "old_path", "new_path",
}

// called takes what is told of a tool call, which may be its beginning even in
// an update or in a question.
func (s *session) called(t *turn, n callNews) []report {
	if n.id == "" {
		return nil
	}
	id := short(n.id)
	call := t.calls[id]
	if call == nil {
		if !t.hasRoom() {
			return []report{func(r *bgagent.Reporter) { r.Activity() }}
		}
		call = &toolCall{tool: bgagent.MessageTool{ID: id, Name: nameOf(n.title, n.kind)}}
		t.calls[id] = call
	}
	call.title, call.kind = cmp.Or(cut(n.title, maxTitle), call.title), cmp.Or(cut(n.kind, maxName), call.kind)
	// A call that has ended stays so, even when an update comes too late.
	if n.status != "" && call.tool.State.InFlight() {
		call.tool.State = stateOf(n.status)
	}
	if t.kept += call.keep(n, maxKept-t.kept); !call.tool.State.InFlight() {
		t.kept -= call.forget()
	}
	tool := call.tool
	s.conv.used(tool)
	out := []report{func(r *bgagent.Reporter) { r.Tool(tool) }}
	if list := todosIn(n.input); list != nil {
		out = append(out, func(r *bgagent.Reporter) { r.Todos(list) })
	}
	return out
}

// hasRoom reports whether another tool call can be kept, and forgets those that
// have ended when there are many.
func (t *turn) hasRoom() bool {
	if len(t.calls) == maxCalls {
		maps.DeleteFunc(t.calls, func(_ string, call *toolCall) bool { return !call.tool.State.InFlight() })
	}
	return len(t.calls) < maxCalls
}

const (
	maxCalls = 10_000 // of a turn
	maxName  = 200    // bytes of the id of a call, and of the kind of its tool
	maxTitle = 2000   // bytes of what it would do
)

// short returns the id, or one that stands for it when it is long.
func short(id string) string {
	if len(id) <= maxName {
		return id
	}
	sum := sha256.Sum256([]byte(id))
	return cut(id, maxName/2) + "…" + hex.EncodeToString(sum[:16])
}

// cut returns at most n bytes of s, and no half character.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(strings.Clone(s[:n]), "")
}

// settle ends the tool calls that the agent has said nothing more of.
func (c *Client) settle(t *turn) {
	stopped := t.stopped()
	var out []report
	c.mu.Lock()
	for _, call := range t.calls {
		if !call.tool.State.InFlight() {
			continue
		}
		if call.tool.State = bgagent.ToolDone; stopped {
			call.tool.State = bgagent.ToolFailed
		}
		tool := call.tool
		t.s.conv.used(tool)
		out = append(out, func(r *bgagent.Reporter) { r.Tool(tool) })
	}
	c.mu.Unlock()
	t.report(out...)
}

// use reports the tokens of a turn. The field of the protocol is not stable yet;
// agents that have it count the turn. Gemini tells them in a place of its own.
func (c *Client) use(t *turn, answer sdk.PromptResponse) {
	var u bgagent.Usage
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
	if u == (bgagent.Usage{}) {
		return
	}
	c.mu.Lock()
	t.s.conv.use(u)
	c.mu.Unlock()
	t.report(func(r *bgagent.Reporter) { r.Usage(u) })
}

// textOf returns what a content block says to a reader.
func textOf(b sdk.ContentBlock) string {
	switch {
	case b.Text != nil:
		return b.Text.Text
	case b.ResourceLink != nil:
		return b.ResourceLink.Uri
	}
	return ""
}

// nameOf returns the name of a tool. The protocol has only a title, which is
// the name with some agents and a sentence or a command with others; then the
// kind of the tool has to do.
func nameOf(title, kind string) string {
	if title != "" && len(title) <= 64 && !strings.ContainsAny(title, " \t\n/\\`'\"") {
		return title
	}
	if kind != "" {
		return cut(kind, maxName)
	}
	return "tool"
}

func stateOf(s sdk.ToolCallStatus) bgagent.ToolState {
	switch s {
	case sdk.ToolCallStatusInProgress:
		return bgagent.ToolRunning
	case sdk.ToolCallStatusCompleted:
		return bgagent.ToolDone
	case sdk.ToolCallStatusFailed:
		return bgagent.ToolFailed
	}
	return bgagent.ToolPending
}

// todos returns the report of a plan.
func todos(plan *sdk.SessionUpdatePlan) report {
	list := make([]bgagent.Todo, len(plan.Entries))
	for i, e := range plan.Entries {
		list[i] = bgagent.Todo{Text: e.Content, State: todoState(string(e.Status))}
	}
	return func(r *bgagent.Reporter) { r.Todos(list) }
}

// todosIn returns the list in the input of a tool that writes todos: opencode
// tells them in no other way. Nil means that there is none.
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
