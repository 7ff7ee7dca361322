package acp

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/permission"
	sdk "github.com/coder/acp-go-sdk"
)

// PermissionRequest is an agent's request for permission to make a tool call.
type PermissionRequest struct {
	Session   string // id of the session
	Task      string // id of the task, bg_…
	Agent     string // name of the agent, as the caller gave it
	Directory string // directory of the session

	ToolCall string   // id of the tool call
	Name     string   // name of the tool, or its kind if the name is unknown
	Kind     string   // kind of the tool: read, edit, delete, move, search, execute, think, fetch, switch_mode, other
	Title    string   // human-readable description of the call; for a command often the command itself
	Paths    []string // files that the call concerns, as far as the agent has named them
	Input    any      // the tool's input, as the agent sent it
}

// PermissionAnswer is the answer to a [PermissionRequest]. The zero value refuses the
// request.
type PermissionAnswer struct {
	Allow  bool
	Always bool   // if Allow is true: also allow calls of this kind for the rest of the session, if the agent offers this choice
	Reason string // if Allow is false: reason for the refusal

	// If Ask is true and Allow is false, the task asks the question, and
	// [bgagent.BackgroundManager.Answer] answers it. If bgagent.Config.Ask is not set, the request
	// is refused.
	Ask bool
}

// The method "request" answers a request from the agent.
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
	t.acts()
	switch method {
	case sdk.ClientMethodSessionRequestPermission:
		// If part of the question cannot be read, the call is treated as unclear, and only a rule
		// that matches everything can allow it.
		var q sdk.RequestPermissionRequest
		left, err := readable(params, &q)
		if err != nil {
			return nil, badParams(err)
		}
		q.ToolCall.RawInput = exact(params, "toolCall", q.ToolCall.RawInput)
		return p.c.permission(t, q, left), nil
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

// The function "handle" decodes the parameters of a request, calls f and returns its result as the
// answer.
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

// The method "serving" returns the turn to which a request from the agent belongs, or nil. If a
// turn is returned, the caller must call the turn's requests.Done.
func (c *Client) serving(p *process, session string) *turn {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.sessions[session]
	if s == nil || s.turn == nil || s.turn.over || s.proc != p {
		return nil
	}
	if s.turn.answered {
		s.turn.endLate()
		return nil
	}
	s.turn.requests.Add(1)
	return s.turn
}

// The function "cancelled" returns the answer to a question in a turn that must stop.
func cancelled() sdk.RequestPermissionResponse {
	return sdk.RequestPermissionResponse{Outcome: sdk.NewRequestPermissionOutcomeCancelled()}
}

// The method "permission" answers a permission request. If left is true, part of the request could
// not be read.
func (c *Client) permission(t *turn, req sdk.RequestPermissionRequest, left bool) sdk.RequestPermissionResponse {
	q, told, out := c.question(t, req, left)
	t.report(out...)
	answer := c.decide(t, q, told.unclear)
	var chosen *sdk.PermissionOption
	if answer.Ask && !answer.Allow && t.ctx.Err() == nil {
		chosen, answer = t.askManager(q, req, told)
	}
	if t.ctx.Err() != nil {
		return cancelled()
	}
	id, ok := option(req.Options, answer)
	if chosen != nil {
		id, ok = chosen.OptionId, true
	}
	if answer.Allow && !ok {
		answer = PermissionAnswer{Reason: "the agent offers no way to allow only what it asked for"}
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

// The method "refuse" records and logs that a request from the agent was refused. The string "what"
// describes the request.
func (c *Client) refuse(t *turn, what string) {
	c.mu.Lock()
	t.refused = what
	c.mu.Unlock()
	c.cfg.Logger.Info("acp: a request from the agent was refused", "session", t.s.id, "task", t.prompt.Task)
}

// The method "question" returns the agent's question, completed with what earlier messages reported
// about the tool call. It also updates the call with the question's content. told holds what was
// known about the call before the question, and out holds the progress to report.
func (c *Client) question(t *turn, req sdk.RequestPermissionRequest, left bool) (q PermissionRequest, told earlier, out []report) {
	x := req.ToolCall
	n := callNews{
		id: string(x.ToolCallId), status: value(x.Status), input: x.RawInput,
		paths: pathsOf(x.Locations, x.Content, x.RawInput), unclear: left,
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	known := t.calls[short(n.id)]
	if known != nil && !known.tool.State.InFlight() {
		known, n.begins = nil, true // a question is never about a call that has ended, so the call is new
	}
	if known != nil {
		told.described, told.input = known.described, known.input
		n.paths = append(n.paths, known.paths...)
		slices.Sort(n.paths)
		n.paths = slices.Compact(n.paths)
		// An empty input contains no information, and must not replace the known input.
		if m, ok := n.input.(map[string]any); n.input == nil || ok && len(m) == 0 && known.input != nil {
			n.input = known.input
		}
	}
	q = PermissionRequest{
		Session: t.s.id, Task: t.prompt.Task, Agent: t.prompt.Agent, Directory: t.s.dir,
		ToolCall: n.id, Kind: string(value(x.Kind)), Title: value(x.Title), Input: n.input, Paths: n.paths,
	}
	// A known call keeps its own title, because the question's title can name only a part
	// of the call, such as a directory.
	if known == nil {
		n.title, n.kind = q.Title, q.Kind
	}
	out = t.s.called(t, n)
	known = t.calls[short(n.id)]
	if known == nil { // the call has no id, or there are too many calls
		q.Name = nameOf(q.Title, q.Kind)
		told.unclear = n.id != "" || left
		return q, told, out
	}
	t.described += known.describe(q.Title, x.Content, maxAllDescribed-t.described)
	q.Name = known.tool.Name
	q.Title, q.Kind = cmp.Or(q.Title, told.whole, known.title), cmp.Or(q.Kind, known.kind)
	told.unclear = known.unclear
	return q, told, out
}

// subject returns the access and the texts against which the rules are matched. For tools that run
// commands or work on files, the texts come from the input. They never come from the title, which
// is meant for people and can be written by a model.
func (q *PermissionRequest) subject(unclear bool) subject {
	s := subject{access: accessOf(q.Name, q.Kind), dir: q.Directory, real: realPath(q.Directory)}
	commands, readable := commandsIn(q.Input)
	shell := s.is(permission.Bash)
	if len(commands) > 0 && !shell {
		s.access.Maybe = append(slices.Clone(s.access.Maybe), permission.Bash)
	}
	switch {
	case unclear || (shell || len(commands) > 0) && !readable: // the list of texts stays empty, which means that the texts are unknown
	case shell || len(q.Paths) == 0 && len(commands) > 0:
		s.command = true
		for _, c := range commands {
			s.texts, s.wholes = append(s.texts, c.text), append(s.wholes, c.whole)
		}
	case len(q.Paths) > 0:
		for _, path := range q.Paths {
			if !filepath.IsAbs(path) {
				path = filepath.Join(q.Directory, path)
			}
			s.texts = append(s.texts, path)
		}
	case s.is(permission.Web):
		s.texts = addressesIn(q.Input)
	case !s.is(permission.Read, permission.Edit): // for other tools, the title is the text; the title of a file tool does not always name the files
		s.texts = []string{q.Title}
	}
	return s
}

// addressesIn returns the addresses and queries in the input of a web tool.
func addressesIn(input any) (list []string) {
	fields, _ := input.(map[string]any)
	for _, name := range []string{"url", "uri", "query", "address", "prompt"} {
		if s, ok := fields[name].(string); ok && s != "" {
			list = append(list, s)
		}
	}
	return list
}

// The method "decide" answers a question. The session's rules decide first, then the host's
// Config.Permit.
func (c *Client) decide(t *turn, q PermissionRequest, unclear bool) PermissionAnswer {
	switch ruling(t.prompt.Permissions, q.subject(unclear)) {
	case bgagent.PermissionAllow:
		return PermissionAnswer{Allow: true}
	case bgagent.PermissionDeny:
		return PermissionAnswer{Reason: "a rule of the host denies it"}
	}
	if c.cfg.Permit == nil {
		return PermissionAnswer{Ask: true}
	}
	q.Input = rounded(q.Input)
	defer t.asks(fmt.Sprintf("may it use %s: %.200s", q.Name, q.Title))()
	answer, err := await(t.ctx, func() PermissionAnswer { return c.cfg.Permit(t.ctx, q) })
	if err != nil {
		return PermissionAnswer{Reason: err.Error()}
	}
	if !answer.Allow && !answer.Ask && answer.Reason == "" {
		answer.Reason = "the host refused"
	}
	return answer
}

// The method "asks" notifies the manager that the turn is waiting for the host's answer to a
// question. The caller must call the returned function after the question is answered. If there are
// several questions, the oldest question is reported.
func (t *turn) asks(text string) (answered func()) {
	question := &text
	change := func(f func()) {
		t.report(func(r *bgagent.Reporter) { // t.report holds the lock that guards the questions
			f()
			first := ""
			if len(t.questions) > 0 {
				first = *t.questions[0]
			}
			if first != t.shown {
				r.Asking(first)
				t.shown = first
			}
		})
	}
	change(func() { t.questions = append(t.questions, question) })
	return func() {
		change(func() { t.questions = slices.DeleteFunc(t.questions, func(x *string) bool { return x == question }) })
	}
}

// The function "await" calls f, one of the host's functions. It returns an error if f panics, ends
// its goroutine, or has not returned when ctx ends.
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

// option returns the id of the option that corresponds to the answer.
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
