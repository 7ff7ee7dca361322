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

	"github.com/bgagent/bgagent/internal/mdtext"
)

// The usual names of the tools. Models know the tools by these names, unless [ToolOptions.Names]
// gives others.
const (
	ToolDelegateTask     = "delegate_task"
	ToolBackgroundOutput = "background_output"
	ToolBackgroundCancel = "background_cancel"
)

// Bounds of what a model may ask for.
const (
	outputTimeout    = 60 * time.Second // default wait of background_output
	outputTimeoutMax = 600 * time.Second

	// outputTimeoutUnwoken is the default wait for a caller that nothing wakes. Such hosts give up
	// a call after 60 s, and the answer must come before that.
	outputTimeoutUnwoken = 50 * time.Second

	messageLimit     = 20 // default number of messages that full_session shows
	messageLimitMax  = 100
	promptBytes      = 1 << 20 // of a prompt
	refBytes         = idMax   // of an id or a name: every id in an answer can be passed back
	descriptionBytes = 4 << 10 // of a description; the part beyond titleMax is cut off
	argumentBytes    = 2 << 20 // of all arguments of a call, as JSON
)

// DelegateTaskArgs are the arguments of [DelegateTask]. Decoding them from JSON accepts and refuses
// the same input as [ToolDef.Call].
type DelegateTaskArgs struct {
	Description     string `json:"description,omitempty"`       // a short title; if empty, the beginning of the prompt
	Prompt          string `json:"prompt"`                      // what the agent is to do; required
	SubagentType    string `json:"subagent_type,omitempty"`     // name of the agent; required unless a task is continued
	Model           string `json:"model,omitempty"`             // empty for the agent's own
	RunInBackground *bool  `json:"run_in_background,omitempty"` // default true; false waits for the end
	Background      *bool  `json:"background,omitempty"`        // the same as run_in_background
	SessionID       string `json:"session_id,omitempty"`        // continues the task of this session
	TaskID          string `json:"task_id,omitempty"`           // continues this task
}

// DelegateTaskResult is the answer of [DelegateTask].
type DelegateTaskResult struct {
	Text    string  // what the model reads, at most 32 KiB
	IsError bool    // the call was wrong and did nothing; a task that failed is no such error
	Task    *Task   // the task that was launched or continued
	Notice  *Notice // what else the caller was owed; it is part of Text and counts as told
}

// BackgroundOutputArgs are the arguments of [BackgroundOutput]. They are decoded from JSON like
// [DelegateTaskArgs].
type BackgroundOutputArgs struct {
	TaskID         string `json:"task_id,omitempty"`          // empty lists the caller's tasks
	Block          bool   `json:"block,omitempty"`            // wait for the end of the task; without task_id, for the next end
	Timeout        *int64 `json:"timeout,omitempty"`          // milliseconds to wait, default 60000 (50000 with ToolOptions.NoNotices), at most 600000
	FullSession    bool   `json:"full_session,omitempty"`     // show the messages of the session instead of the result
	MessageLimit   int    `json:"message_limit,omitempty"`    // messages shown, default 20, at most 100
	SinceMessageID string `json:"since_message_id,omitempty"` // only messages after this one; implies FullSession
	FromEnd        bool   `json:"from_end,omitempty"`         // show the end of the result, or the last messages
	Offset         int    `json:"offset,omitempty"`           // bytes to skip in the result or in the first message shown; in the list, tasks to skip
}

// BackgroundOutputResult is the answer of [BackgroundOutput].
type BackgroundOutputResult struct {
	Text     string  // what the model reads, at most 32 KiB
	IsError  bool    // the call was wrong; a task that failed is no such error
	Tasks    []Task  // the task that was asked for, or the caller's tasks
	TimedOut bool    // the time passed before the end that the call waited for
	Notice   *Notice // what else the caller was owed; it is part of Text and counts as told
}

// BackgroundCancelArgs are the arguments of [BackgroundCancel]. They are decoded
// from JSON like [DelegateTaskArgs].
type BackgroundCancelArgs struct {
	TaskID      string `json:"task_id,omitempty"` // the task
	TaskIDAlias string `json:"taskId,omitempty"`  // the same as task_id
	All         bool   `json:"all,omitempty"`     // every pending or running task that descends from the caller
}

// BackgroundCancelResult is the answer of [BackgroundCancel].
type BackgroundCancelResult struct {
	Text      string  // what the model reads, at most 32 KiB
	IsError   bool    // the call was wrong and cancelled nothing
	Cancelled []Task  // the cancelled tasks as they were right before
	Notice    *Notice // what else the caller was owed; it is part of Text and counts as told
}

// ToolOptions says how [Tools] defines the tools. The zero value is ready to use. The methods call
// a tool with typed arguments and word the answer by these options, like the tool's ToolDef. They
// panic where Tools does.
type ToolOptions struct {
	// Names gives tools other names, keyed by the usual name. All texts of these tools then use the
	// other names. Nil means Config.ToolNames, which notices and digests use too.
	Names map[string]string
	// Omit leaves out tools, by their usual names. The texts of the other tools then do not mention
	// them.
	Omit []string
	// Agents are the agents that a model may delegate to. If set, delegate_task lists them in its
	// description and schema, and refuses other names at once. If nil, any name is accepted, and a
	// task for an agent that does not exist ends as an error.
	Agents []AgentInfo
	// NoNotices says that nothing wakes the callers when a task ends: they have no Notifier, and
	// the host does not take their notices with NextNotice. The caller of an MCP server is an
	// example. No text then promises a notice or lets the model end its turn. The texts tell the
	// model to wait with background_output, which waits 50 s by default, because such hosts give up
	// a call after 60 s. A session that runs a task is always woken, because its notices are its
	// next turn.
	NoNotices bool
}

// ToolResult is the result of a tool call for a model.
type ToolResult struct {
	Text    string // at most 32 KiB
	IsError bool   // the call was wrong; Text says what would be right
	Value   any    // the typed result: DelegateTaskResult, BackgroundOutputResult or BackgroundCancelResult; nil if the arguments could not be read
}

// ToolDef defines a tool for a model's API.
type ToolDef struct {
	Name        string // as the model knows the tool
	Description string
	// Schema is a JSON Schema (draft 2020-12) of the arguments.
	Schema json.RawMessage
	// Call calls the tool with raw arguments from a model. The context must carry the caller; see
	// [WithCaller]. Wrong arguments give a result, not an error. The error is not nil only if there
	// is no caller, the host's configuration is wrong, or ctx was cancelled.
	Call func(ctx context.Context, args json.RawMessage) (ToolResult, error)
	// Usual is the tool's usual name, one of the constants, even if Name differs.
	Usual string
}

// Tools defines the three tools for a model's API, in the order of the constants. It panics if o
// names a tool that does not exist, or gives a name that is empty, used twice, or has other
// characters than letters, digits, _ and -.
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

// wording returns the wording of the tools. It panics if o is wrong.
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

// validToolName reports whether every model's API accepts the name.
func validToolName(s string) bool {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-"
	return s != "" && len(s) <= 64 && strings.Trim(s, letters) == ""
}

// toolResult is the typed result of a tool.
type toolResult interface {
	result() ToolResult
}

func (r DelegateTaskResult) result() ToolResult { return ToolResult{r.Text, r.IsError, r} }

func (r BackgroundOutputResult) result() ToolResult { return ToolResult{r.Text, r.IsError, r} }

func (r BackgroundCancelResult) result() ToolResult { return ToolResult{r.Text, r.IsError, r} }

// bind returns a ToolDef.Call for a tool.
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

// typed calls a tool with typed arguments.
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
	agents []string // agents that may be delegated to; nil for any
}

func newCall(ctx context.Context, m *BackgroundManager, by Caller, w wording) *call {
	if w.noNotices && m.runsTask(by.Session) {
		w.noNotices = false // a task's notices are its next turn
	}
	return &call{ctx: ctx, m: m, by: by, w: w}
}

// check refuses a caller without a session, because it would have the rights of the host.
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

// reply renders an answer together with all that the caller is owed, which then counts as told. If
// the caller's context has ended, it may never read the answer, so its notices stay owed.
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
	a.head = mdtext.Head(a.head, room) // both fit anyway; this ensures that no notice is cut off
	a.body = mdtext.Head(a.body, room-len(a.head))
	r.text = a.with(owed)
	return r
}

// refuse answers a call that was wrong.
func (c *call) refuse(problem string) reply {
	return c.reply(func(int) answer { return answer{head: problem} })
}

// problem turns an error of the manager into a sentence for the model, with the remedy. It returns
// an error if the model can do nothing about it: the context has ended, or the host's configuration
// is wrong.
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
		return "The argument " + mdtext.OneLine(input.Field, nameMax) + " " + mdtext.OneLine(input.Problem, reasonMax) + ".", nil
	case errors.As(err, &agent):
		return c.w.noSuchAgent(agent), nil
	case errors.Is(err, ErrUnknownTask), errors.Is(err, ErrNotDescendant):
		// Give both the same answer: for the caller, tasks of others do not exist.
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
	return "The call failed and changed nothing: " + mdtext.OneLine(err.Error(), reasonMax) + ".", nil
}

// taskRef cleans an id that a model wrote. The id may still have the marks of a table cell.
func taskRef(s string) string { return strings.Trim(s, " \t\r\n`") }

// badText returns what is wrong with a text from a model, or "".
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

// wordingFor returns the wording with other names for the tools, or an error if a name is wrong. An
// empty name leaves out the tool.
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
