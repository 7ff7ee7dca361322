package bgagent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// The names of the tools, as a model knows them unless [ToolOptions.Names]
// gives others.
const (
	ToolDelegateTask     = "delegate_task"
	ToolBackgroundOutput = "background_output"
	ToolBackgroundCancel = "background_cancel"
)

// Bounds of what a model may ask for.
const (
	outputTimeout    = 60 * time.Second // how long background_output waits unless it is told otherwise
	outputTimeoutMax = 600 * time.Second

	// outputTimeoutUnwoken is the same for a caller that nothing wakes: such hosts
	// give a call up after 60 s, and the answer must come before that.
	outputTimeoutUnwoken = 50 * time.Second

	messageLimit     = 20 // messages shown by full_session unless it is told otherwise
	messageLimitMax  = 100
	promptBytes      = 1 << 20 // of a prompt
	refBytes         = idMax   // of an id or a name: what an answer shows can be asked for
	descriptionBytes = 4 << 10 // of a description; what is over titleMax is cut
	argumentBytes    = 2 << 20 // of all arguments of a call, as JSON
)

// DelegateTaskArgs are the arguments of [DelegateTask]. Decoding them from JSON
// reads what a model has written as [ToolDef.Call] does, and refuses what Call
// refuses.
type DelegateTaskArgs struct {
	Description     string `json:"description,omitempty"`       // a short title; the beginning of the prompt when empty
	Prompt          string `json:"prompt"`                      // what the agent is to do; required
	SubagentType    string `json:"subagent_type,omitempty"`     // the agent; required unless a task is continued
	Model           string `json:"model,omitempty"`             // empty for the agent's own
	RunInBackground *bool  `json:"run_in_background,omitempty"` // default true; false waits for the end
	Background      *bool  `json:"background,omitempty"`        // the same
	SessionID       string `json:"session_id,omitempty"`        // continues the task of this session
	TaskID          string `json:"task_id,omitempty"`           // continues this task
}

// DelegateTaskResult is the answer of [DelegateTask].
type DelegateTaskResult struct {
	Text    string  // what the model reads, at most 32 KiB
	IsError bool    // the call was wrong and did nothing; that a task failed is no such error
	Task    *Task   // the task that was launched or continued
	Notice  *Notice // what the caller was owed besides; it stands in Text and counts as told
}

// BackgroundOutputArgs are the arguments of [BackgroundOutput]. They are decoded
// from JSON like [DelegateTaskArgs].
type BackgroundOutputArgs struct {
	TaskID         string `json:"task_id,omitempty"`          // empty lists the caller's tasks
	Block          bool   `json:"block,omitempty"`            // wait for the end of the task; without one, for the next end
	Timeout        *int64 `json:"timeout,omitempty"`          // milliseconds to wait, default 60000 (50000 with ToolOptions.NoNotices), at most 600000
	FullSession    bool   `json:"full_session,omitempty"`     // the messages of the session instead of the result
	MessageLimit   int    `json:"message_limit,omitempty"`    // messages shown, default 20, at most 100
	SinceMessageID string `json:"since_message_id,omitempty"` // only messages after this one; implies FullSession
	FromEnd        bool   `json:"from_end,omitempty"`         // the end of the result, or the last messages
	Offset         int    `json:"offset,omitempty"`           // bytes to leave out of the result, or of the first message shown; tasks, of the list
}

// BackgroundOutputResult is the answer of [BackgroundOutput].
type BackgroundOutputResult struct {
	Text     string  // what the model reads, at most 32 KiB
	IsError  bool    // the call was wrong; that a task failed is no such error
	Tasks    []Task  // the task that was asked for, or the caller's tasks
	TimedOut bool    // the time was over before what was waited for had ended
	Notice   *Notice // what the caller was owed besides; it stands in Text and counts as told
}

// BackgroundCancelArgs are the arguments of [BackgroundCancel]. They are decoded
// from JSON like [DelegateTaskArgs].
type BackgroundCancelArgs struct {
	TaskID      string `json:"task_id,omitempty"` // the task
	TaskIDAlias string `json:"taskId,omitempty"`  // the same
	All         bool   `json:"all,omitempty"`     // every pending or running task that descends from the caller
}

// BackgroundCancelResult is the answer of [BackgroundCancel].
type BackgroundCancelResult struct {
	Text      string  // what the model reads, at most 32 KiB
	IsError   bool    // the call was wrong and cancelled nothing
	Cancelled []Task  // as they were right before
	Notice    *Notice // what the caller was owed besides; it stands in Text and counts as told
}

// ToolOptions says how [Tools] defines the tools. The zero value is fine. Its
// methods call a tool with typed arguments and word the answer by these options,
// as the ToolDef of the tool does; they panic where Tools does.
type ToolOptions struct {
	// Names gives tools other names: the usual name is the key. All texts of
	// these tools then use them. Nil means Config.ToolNames, which notices and
	// digests use, too.
	Names map[string]string
	// Omit leaves tools out, by their usual names. No text of the others speaks
	// of them then.
	Omit []string
	// Agents, where given, are those that a model may delegate to: delegate_task
	// names them in its description and its schema, and refuses another one at
	// once. Without them any name is taken, and one that does not exist ends the
	// task as an error.
	Agents []AgentInfo
	// NoNotices says that nothing wakes the callers when a task ends: there is no
	// Notifier for them, and the host does not drain their notices with NextNotice.
	// The caller of an MCP server is one. No text then promises a notice or lets the
	// model end its turn; it is told to wait with background_output, which waits
	// for 50 s unless it is told otherwise, since such hosts give a call up after
	// 60 s. A session that runs a task is always woken: what it is owed is its next
	// turn.
	NoNotices bool
}

// ToolResult is what a model is given for a call of a tool.
type ToolResult struct {
	Text    string // at most 32 KiB
	IsError bool   // the call was wrong; the text says how to do it right
	Value   any    // the typed result: DelegateTaskResult, BackgroundOutputResult or BackgroundCancelResult; nil for arguments that could not be read
}

// ToolDef defines a tool for a model's API.
type ToolDef struct {
	Name        string // as the model knows the tool
	Description string
	// Schema is a JSON Schema (draft 2020-12) of the arguments.
	Schema json.RawMessage
	// Call calls the tool with raw arguments from a model. The context must
	// carry the caller, see [WithCaller]. Whatever the arguments are, what is
	// wrong with them comes back as a result; the error is not nil only when
	// there is no caller, the host's configuration is at fault, or ctx was
	// cancelled.
	Call func(ctx context.Context, args json.RawMessage) (ToolResult, error)
	// Usual is the tool's usual name, one of the constants, whatever its Name is.
	Usual string
}

// Tools defines the three tools for a model's API, in the order of the constants
// of their names. It panics when o names a tool that there is not, or gives a
// name that is empty, used twice or not made of letters, digits, _ and -.
func Tools(m *BackgroundManager, o ToolOptions) []ToolDef {
	if m == nil {
		panic("bgagent: Tools: the manager is nil")
	}
	w := o.wording(m)
	agents := o.agentNames()
	delegate := delegateFields.among("subagent_type", agents)
	output := outputFields
	if o.NoNotices {
		output = output.described("timeout", timeoutDescription(outputTimeoutUnwoken))
	}
	run := func(c *call, a DelegateTaskArgs) (DelegateTaskResult, error) {
		c.agents = agents
		return c.delegate(a)
	}
	var defs []ToolDef
	for _, d := range [...]ToolDef{
		{w.delegate, w.delegateDescription(o.Agents), delegate.schema(), bind(m, w, w.delegate, delegate, run), ToolDelegateTask},
		{w.output, w.outputDescription(), output.schema(), bind(m, w, w.output, output, (*call).output), ToolBackgroundOutput},
		{w.cancel, w.cancelDescription(), cancelFields.schema(), bind(m, w, w.cancel, cancelFields, (*call).cancel), ToolBackgroundCancel},
	} {
		if d.Name != "" {
			defs = append(defs, d)
		}
	}
	return defs
}

// wording returns how the tools speak. It panics when o is wrong.
func (o ToolOptions) wording(m *BackgroundManager) wording {
	for n, other := range o.Names {
		if other == "" {
			panic(fmt.Sprintf("bgagent: Tools: ToolOptions.Names calls %s %q; %s, and Omit leaves a tool out", n, other, toolNameRule))
		}
	}
	names := maps.Clone(o.Names)
	if names == nil {
		names = maps.Clone(m.cfg.ToolNames)
	}
	for _, n := range o.Omit {
		if !slices.Contains(usualTools, n) {
			panic(fmt.Sprintf("bgagent: Tools: ToolOptions.Omit leaves out %q; the tools are %s", n, strings.Join(usualTools, ", ")))
		}
		if names == nil {
			names = map[string]string{}
		}
		names[n] = ""
	}
	w, err := wordingFor(names)
	if err != nil {
		panic("bgagent: Tools: ToolOptions.Names " + err.Error())
	}
	w.noNotices = o.NoNotices
	return w
}

func (o ToolOptions) agentNames() (names []string) {
	for _, a := range o.Agents {
		names = append(names, a.Name)
	}
	return names
}

// DelegateTask is [DelegateTask] with these options.
func (o ToolOptions) DelegateTask(ctx context.Context, m *BackgroundManager, by Caller, a DelegateTaskArgs) (DelegateTaskResult, error) {
	return typed(ctx, m, by, o, ToolDelegateTask, a, (*call).delegate)
}

// BackgroundOutput is [BackgroundOutput] with these options.
func (o ToolOptions) BackgroundOutput(ctx context.Context, m *BackgroundManager, by Caller, a BackgroundOutputArgs) (BackgroundOutputResult, error) {
	return typed(ctx, m, by, o, ToolBackgroundOutput, a, (*call).output)
}

// BackgroundCancel is [BackgroundCancel] with these options.
func (o ToolOptions) BackgroundCancel(ctx context.Context, m *BackgroundManager, by Caller, a BackgroundCancelArgs) (BackgroundCancelResult, error) {
	return typed(ctx, m, by, o, ToolBackgroundCancel, a, (*call).cancel)
}

// validToolName reports whether every model's API takes the name.
func validToolName(s string) bool {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-"
	return s != "" && len(s) <= 64 && strings.Trim(s, letters) == ""
}

// toolResult is the result of one of the three tools.
type toolResult interface {
	result() ToolResult
}

func (r DelegateTaskResult) result() ToolResult     { return ToolResult{r.Text, r.IsError, r} }
func (r BackgroundOutputResult) result() ToolResult { return ToolResult{r.Text, r.IsError, r} }
func (r BackgroundCancelResult) result() ToolResult { return ToolResult{r.Text, r.IsError, r} }

// bind makes a ToolDef.Call of a tool.
func bind[A any, R toolResult](m *BackgroundManager, w wording, name string, f fields[A], run func(*call, A) (R, error)) func(context.Context, json.RawMessage) (ToolResult, error) {
	return func(ctx context.Context, raw json.RawMessage) (ToolResult, error) {
		by, _ := CallerFrom(ctx)
		c := newCall(ctx, m, by, w)
		if err := c.check(); err != nil {
			return ToolResult{}, fmt.Errorf("bgagent: %s: %w", name, err)
		}
		args, problem := f.parse(raw)
		if problem != "" {
			r := c.refuse(problem)
			return ToolResult{Text: r.text, IsError: true}, nil
		}
		r, err := run(c, args)
		if err != nil {
			return ToolResult{}, fmt.Errorf("bgagent: %s: %w", name, err)
		}
		return r.result(), nil
	}
}

// typed makes a call of the typed function of a tool.
func typed[A, R any](ctx context.Context, m *BackgroundManager, by Caller, o ToolOptions, name string, a A, run func(*call, A) (R, error)) (r R, err error) {
	c := newCall(ctx, m, by, o.wording(m))
	c.agents = o.agentNames()
	if err = c.check(); err == nil {
		r, err = run(c, a)
	}
	if err != nil {
		err = fmt.Errorf("bgagent: %s: %w", name, err)
	}
	return r, err
}

// call is one call of a tool.
type call struct {
	ctx    context.Context
	m      *BackgroundManager
	by     Caller
	w      wording
	agents []string // that may be delegated to; nil for any
}

func newCall(ctx context.Context, m *BackgroundManager, by Caller, w wording) *call {
	if w.noNotices && m.runsTask(by.Session) {
		w.noNotices = false // what a task is owed is its next turn
	}
	return &call{ctx: ctx, m: m, by: by, w: w}
}

// check refuses a caller without a session: it would have the rights of the host.
func (c *call) check() error {
	if c.by.Session == "" {
		return &InputError{"Caller.Session", "is missing; a tool is called for a session, which is given as a parameter or with WithCaller"}
	}
	return nil
}

// reply is what all results have in common.
type reply struct {
	text   string
	notice *Notice
}

// reply renders an answer together with whatever is owed to the caller, which
// counts as told then. A caller whose context has ended may not read the answer
// any more, so it keeps what it is owed.
func (c *call) reply(render func(room int) answer) reply {
	var r reply
	owed := ""
	if c.ctx.Err() == nil {
		if n, ok := c.m.TakeNotice(c.by.Session); ok {
			n.Text = c.w.notice(n)
			owed, r.notice = n.Text, &n
		}
	}
	room := answerMax - len(owed) - len("\n\n\n\n")
	a := render(room)
	a.head = cutAtRune(a.head, room) // they fit; this makes sure that nothing owed is ever cut off
	a.body = cutAtRune(a.body, room-len(a.head))
	r.text = a.with(owed)
	return r
}

// refuse answers a call that was wrong.
func (c *call) refuse(problem string) reply {
	return c.reply(func(int) answer { return answer{head: problem} })
}

// problem turns an error of the manager into a sentence for the model, with the
// remedy. It returns an error when the model can do nothing about it: the
// context has ended, or the host's configuration is wrong.
func (c *call) problem(err error, ref string) (string, error) {
	var gone *ExpiredError
	var input *InputError
	var agent *NoSuchAgentError
	switch {
	case errors.As(err, &gone):
		return c.w.expired(gone), nil
	case errors.As(err, &input):
		if strings.HasPrefix(input.Field, "Config.") {
			return "", err
		}
		return "The argument " + oneLine(input.Field, nameMax) + " " + oneLine(input.Problem, reasonMax) + ".", nil
	case errors.As(err, &agent):
		return c.w.noSuchAgent(agent), nil
	case errors.Is(err, ErrUnknownTask), errors.Is(err, ErrNotDescendant):
		// The same for both: what is not the caller's does not exist for it.
		return c.w.unknown(ref, c.m.List(Query{Under: c.by.Session, Limit: unknownShown})), nil
	}
	for _, p := range c.w.remedies(ref) {
		if errors.Is(err, p.err) {
			return p.text, nil
		}
	}
	if ended := c.ctx.Err(); ended != nil {
		return "", ended
	}
	return "The call failed and changed nothing: " + oneLine(err.Error(), reasonMax) + ".", nil
}

// taskRef is an id as a model writes it: it may still have the marks of a table.
func taskRef(s string) string { return strings.Trim(s, " \t\r\n`") }

// badText says what is wrong with a text from a model, or nothing.
func badText(field, s string, limit int) string {
	switch {
	case len(s) > limit:
		return fmt.Sprintf("The argument %s is %d bytes long; it may have at most %d. Put long material into a file and name the file.", field, len(s), limit)
	case strings.ToValidUTF8(s, "") != s:
		return "The argument " + field + " is not valid UTF-8; send plain text."
	}
	return ""
}

var usualTools = []string{ToolDelegateTask, ToolBackgroundOutput, ToolBackgroundCancel}

const toolNameRule = "a name has 1 to 64 letters, digits, _ and -"

// wordingFor returns the wording with these names in the place of the usual
// ones, or says what is wrong with them. An empty name leaves the tool out.
func wordingFor(other map[string]string) (wording, error) {
	names, taken := map[string]string{}, map[string]bool{}
	for _, n := range usualTools {
		names[n] = n
	}
	for n, name := range other {
		if names[n] == "" {
			return wording{}, fmt.Errorf("renames %q; the tools are %s", n, strings.Join(usualTools, ", "))
		}
		if name != "" && !validToolName(name) {
			return wording{}, fmt.Errorf("calls %s %q; %s", n, name, toolNameRule)
		}
	}
	maps.Copy(names, other)
	for _, name := range names {
		if name != "" && taken[name] {
			return wording{}, fmt.Errorf("is wrong: two tools have the name %q", name)
		}
		taken[name] = true
	}
	return wording{delegate: names[ToolDelegateTask], output: names[ToolBackgroundOutput], cancel: names[ToolBackgroundCancel]}, nil
}
