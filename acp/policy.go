package acp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/bgagent/bgagent"
	sdk "github.com/coder/acp-go-sdk"
)

// PermissionRequest is what an agent asks permission for.
type PermissionRequest struct {
	Session   string
	Task      string // id of the task, bg_…
	Agent     string // name of the agent, as the caller gave it
	Directory string // the session's

	ToolCall string   // id of the tool call
	Name     string   // of the tool, so far as that is known; see Kind
	Kind     string   // of the tool: read, edit, delete, move, search, execute, think, fetch, switch_mode, other
	Title    string   // what the tool would do, for people; for a command often the command
	Paths    []string // files that it concerns, so far as they are known
	Input    any      // of the tool, as the agent tells it
}

// PermissionAnswer is the answer to a [PermissionRequest]. The zero value
// refuses.
type PermissionAnswer struct {
	Allow  bool
	Always bool   // with Allow: for the rest of the session, where the agent offers that
	Reason string // without Allow: why not
}

// request answers a request of the agent.
func (p *process) request(_ context.Context, method string, params json.RawMessage) (any, *sdk.RequestError) {
	var head struct {
		SessionID string `json:"sessionId"`
	}
	if err := json.Unmarshal(params, &head); err != nil {
		return nil, badParams(err)
	}
	t := p.c.serving(p, head.SessionID)
	if t == nil {
		if method == sdk.ClientMethodSessionRequestPermission {
			return cancelled(), nil
		}
		return nil, refusal(fmt.Sprintf("no turn runs in the session %.80q", head.SessionID))
	}
	defer t.requests.Done()
	switch method {
	case sdk.ClientMethodSessionRequestPermission:
		return handle(params, func(q sdk.RequestPermissionRequest) (any, error) { return p.c.permission(t, q), nil })
	case sdk.ClientMethodFsReadTextFile:
		return handle(params, func(q sdk.ReadTextFileRequest) (any, error) { return p.c.readFile(t, q) })
	case sdk.ClientMethodFsWriteTextFile:
		return handle(params, func(q sdk.WriteTextFileRequest) (any, error) { return p.c.writeFile(t, q) })
	case sdk.ClientMethodTerminalCreate:
		return handle(params, func(q sdk.CreateTerminalRequest) (any, error) { return p.createTerminal(t, q) })
	case sdk.ClientMethodTerminalOutput, sdk.ClientMethodTerminalWaitForExit, sdk.ClientMethodTerminalKill, sdk.ClientMethodTerminalRelease:
		return handle(params, func(q sdk.TerminalOutputRequest) (any, error) { return p.c.useTerminal(t, method, q.TerminalId) })
	}
	return nil, &sdk.RequestError{Code: codeNoMethod, Message: fmt.Sprintf("this client has no method %.80q", method)}
}

// handle decodes the parameters of a request and has it answered.
func handle[T any](params json.RawMessage, f func(T) (any, error)) (any, *sdk.RequestError) {
	var q T
	if err := json.Unmarshal(params, &q); err != nil {
		return nil, badParams(err)
	}
	result, err := f(q)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, &sdk.RequestError{Code: codeNotFound, Message: "Resource not found: " + err.Error()}
	case err != nil:
		return nil, refusal(err.Error())
	}
	return result, nil
}

func badParams(err error) *sdk.RequestError {
	return &sdk.RequestError{Code: codeBadParams, Message: "the parameters cannot be read: " + err.Error()}
}

// serving returns the turn that a request of the agent belongs to. The caller
// must call requests.Done.
func (c *Client) serving(p *process, session string) *turn {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.sessions[session]
	if s == nil || s.turn == nil || s.turn.over || s.proc != p {
		return nil
	}
	s.turn.requests.Add(1)
	return s.turn
}

// cancelled is the answer to a question of a turn that is to stop.
func cancelled() sdk.RequestPermissionResponse {
	return sdk.RequestPermissionResponse{Outcome: sdk.NewRequestPermissionOutcomeCancelled()}
}

// permission answers a question of the agent.
func (c *Client) permission(t *turn, req sdk.RequestPermissionRequest) sdk.RequestPermissionResponse {
	q, out := c.question(t, req)
	t.report(out...)
	answer := c.decide(t, q)
	if t.ctx.Err() != nil {
		return cancelled()
	}
	id, ok := option(req.Options, answer)
	if answer.Allow && !ok {
		answer = PermissionAnswer{Reason: "the agent offers no way to allow only what was asked"}
		id, ok = option(req.Options, answer)
	}
	resp := cancelled()
	if ok {
		resp.Outcome = sdk.NewRequestPermissionOutcomeSelected(id)
	}
	if !answer.Allow {
		resp.Meta = map[string]any{"reason": answer.Reason}
		c.refuse(t, fmt.Sprintf("permission for %.200q (%s): %s", q.Title, q.Kind, answer.Reason))
	}
	return resp
}

// refuse notes that something was refused.
func (c *Client) refuse(t *turn, what string) {
	c.mu.Lock()
	t.refused = what
	c.mu.Unlock()
	c.cfg.Logger.Info("acp: the agent was refused something", "session", t.s.id, "task", t.prompt.Task)
}

// question returns what is asked, which is also news about the tool call.
func (c *Client) question(t *turn, req sdk.RequestPermissionRequest) (PermissionRequest, []report) {
	x := req.ToolCall
	c.mu.Lock()
	defer c.mu.Unlock()
	known := t.calls[string(x.ToolCallId)]
	q := PermissionRequest{
		Session: t.s.id, Task: t.prompt.Task, Agent: t.prompt.Agent, Directory: t.s.dir,
		ToolCall: string(x.ToolCallId), Kind: string(value(x.Kind)), Title: value(x.Title), Input: x.RawInput,
	}
	if known == nil {
		q.Name = nameOf(q.Title, q.Kind)
	} else {
		q.Name = known.tool.Name
		if q.Title == "" {
			q.Title = known.title
		}
		if q.Kind == "" {
			q.Kind = known.kind
		}
	}
	for _, l := range x.Locations {
		q.Paths = append(q.Paths, l.Path)
	}
	for _, content := range x.Content {
		if content.Diff != nil {
			q.Paths = append(q.Paths, content.Diff.Path)
		}
	}
	slices.Sort(q.Paths)
	q.Paths = slices.Compact(q.Paths)
	// The title of a question may be about a part of the call, such as a directory:
	// the call keeps its own.
	var title, kind string
	if known == nil {
		title, kind = q.Title, q.Kind
	}
	return q, t.s.called(t, q.ToolCall, title, kind, value(x.Status), x.RawInput)
}

// decide answers a question: the rules of the session first, then the host.
func (c *Client) decide(t *turn, q PermissionRequest) PermissionAnswer {
	subjects := []string{commandIn(q)}
	if len(q.Paths) > 0 {
		subjects = subjects[:0]
		for _, path := range q.Paths {
			subjects = append(subjects, absolute(path, q.Directory))
		}
	}
	switch ruling(t.prompt.Permissions, []string{q.Name, q.Kind}, subjects, q.Directory) {
	case bgagent.PermissionAllow:
		return PermissionAnswer{Allow: true}
	case bgagent.PermissionDeny:
		return PermissionAnswer{Reason: "a rule of the host denies it"}
	}
	if c.cfg.Permit == nil {
		return PermissionAnswer{Reason: "nobody is there to be asked, and no rule of the host allows it"}
	}
	t.report(func(r *bgagent.Reporter) { r.Asking(fmt.Sprintf("may it use %s: %.200s", q.Name, q.Title)) })
	defer t.report(func(r *bgagent.Reporter) { r.Asking("") })
	answer, err := await(t.ctx, func() PermissionAnswer { return c.cfg.Permit(t.ctx, q) })
	if err != nil {
		return PermissionAnswer{Reason: err.Error()}
	}
	if !answer.Allow && answer.Reason == "" {
		answer.Reason = "the host refused"
	}
	return answer
}

// await calls a function of the host, which may panic, end its goroutine, or not
// come back although ctx has ended: none of that holds up the turn.
func await[T any](ctx context.Context, f func() T) (T, error) {
	type outcome struct {
		v   T
		err error
	}
	done := make(chan outcome, 1)
	go func() {
		o := outcome{err: fmt.Errorf("the host's function ended its goroutine")}
		defer func() {
			if v := recover(); v != nil {
				o.err = fmt.Errorf("the host's function panicked: %v", v)
			}
			done <- o
		}()
		v := f()
		o = outcome{v: v}
	}()
	select {
	case o := <-done:
		return o.v, o.err
	case <-ctx.Done():
		var none T
		return none, context.Cause(ctx)
	}
}

// commandIn returns the command that is asked about, else the title.
func commandIn(q PermissionRequest) string {
	if fields, ok := q.Input.(map[string]any); ok {
		if s, ok := fields["command"].(string); ok {
			return s
		}
	}
	return q.Title
}

// option returns the id of the option that says the answer.
func option(list []sdk.PermissionOption, a PermissionAnswer) (sdk.PermissionOptionId, bool) {
	kinds := []sdk.PermissionOptionKind{sdk.PermissionOptionKindRejectOnce, sdk.PermissionOptionKindRejectAlways}
	switch {
	case a.Allow && a.Always:
		kinds = []sdk.PermissionOptionKind{sdk.PermissionOptionKindAllowAlways, sdk.PermissionOptionKindAllowOnce}
	case a.Allow:
		kinds = []sdk.PermissionOptionKind{sdk.PermissionOptionKindAllowOnce}
	}
	for _, k := range kinds {
		for _, o := range list {
			if o.Kind == k {
				return o.OptionId, true
			}
		}
	}
	return "", false
}

// ruling returns what the rules say: for each subject the last rule that
// matches decides. All must be allowed, and one that is denied is enough.
func ruling(rules []bgagent.Permission, names, subjects []string, dir string) bgagent.PermissionAction {
	all := bgagent.PermissionAllow
	for _, s := range subjects {
		action := bgagent.PermissionAsk
		for _, r := range rules {
			if slices.ContainsFunc(names, func(n string) bool { return r.Name == "*" || n != "" && strings.EqualFold(alias(r.Name), alias(n)) }) && matches(r.Pattern, s, dir) {
				action = r.Action
			}
		}
		switch action {
		case bgagent.PermissionDeny:
			return bgagent.PermissionDeny
		case bgagent.PermissionAllow:
		default:
			all = bgagent.PermissionAsk
		}
	}
	return all
}

// alias returns the protocol's kind for the names that hosts use for it.
func alias(name string) string {
	switch strings.ToLower(name) {
	case "bash", "shell":
		return string(sdk.ToolKindExecute)
	case "write":
		return string(sdk.ToolKindEdit)
	case "webfetch":
		return string(sdk.ToolKindFetch)
	}
	return name
}

// matches reports whether the pattern matches the subject: as it is, and, when
// it is a path, relative to the directory. A * stands for any characters, a ? for
// one; an empty pattern matches all.
func matches(pattern, subject, dir string) bool {
	if pattern == "" || pattern == "*" {
		return true
	}
	if filepath.IsAbs(subject) {
		subject = filepath.Clean(subject) // no .. gets past a rule
		if rel, err := filepath.Rel(dir, subject); err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator)) && wildcard(pattern, rel) {
			return true
		}
	}
	return wildcard(pattern, subject)
}

// wildcard matches s with a pattern of characters, * and ?.
func wildcard(pattern, s string) bool {
	p, star, mark, i := 0, -1, 0, 0
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark, p = p, i, p+1
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == s[i]):
			p, i = p+1, i+1
		case star >= 0:
			mark++
			p, i = star+1, mark
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}
