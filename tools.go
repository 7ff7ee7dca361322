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
	"unicode"

	"github.com/bgagent/bgagent/internal/mdtext"
)

// The usual names of the tools. Models see these names, unless [ToolOptions.Names] replaces them.
const (
	ToolDelegateTask     = "delegate_task"
	ToolBackgroundOutput = "background_output"
	ToolBackgroundCancel = "background_cancel"
)

// Limits and defaults of the arguments that a model may pass.
const (
	outputTimeout    = 60 * time.Second // default wait of background_output
	outputTimeoutMax = 600 * time.Second

	// outputTimeoutUnwoken is the default wait of background_output for a caller that is never
	// woken. It is shorter because the hosts of such callers abandon a call after 60 s.
	outputTimeoutUnwoken = 50 * time.Second

	messageLimit     = 20 // default number of messages that full_session shows
	messageLimitMax  = 100
	promptBytes      = 1 << 20 // largest prompt
	refBytes         = idMax   // longest id or name; ids in answers are never longer
	descriptionBytes = 4 << 10 // longest description; the part beyond titleMax is cut off
	argumentBytes    = 2 << 20 // maximum total size of a call's arguments, as JSON
)

// DelegateTaskArgs holds the arguments of [DelegateTask]. They are decoded from the same JSON that
// [ToolDef.Call] accepts.
type DelegateTaskArgs struct {
	Description     string `json:"description,omitempty"`       // short title; if empty, the beginning of the prompt is the title
	Prompt          string `json:"prompt"`                      // instructions for the agent; required
	SubagentType    string `json:"subagent_type,omitempty"`     // name of the agent; required unless a task is continued
	Model           string `json:"model,omitempty"`             // name of the model; empty means the agent's own model
	RunInBackground *bool  `json:"run_in_background,omitempty"` // default true; if false, the call waits for the task to end
	Background      *bool  `json:"background,omitempty"`        // the same as run_in_background
	SessionID       string `json:"session_id,omitempty"`        // id of the session whose task is continued
	TaskID          string `json:"task_id,omitempty"`           // id of the task to continue
}

// DelegateTaskResult is the result of [DelegateTask].
type DelegateTaskResult struct {
	Text    string  // text for the model, at most 32 KiB
	IsError bool    // the call was wrong or was refused, and had no effect; false if a task was launched or continued but then failed
	Task    *Task   // task that was launched or continued
	Notice  *Notice // notice about other tasks, if one was owed to the caller; it is part of Text and counts as delivered
}

// BackgroundOutputArgs holds the arguments of [BackgroundOutput]. They are decoded from JSON like
// [DelegateTaskArgs].
type BackgroundOutputArgs struct {
	TaskID         string `json:"task_id,omitempty"`          // id of the task to read; if empty, the answer lists the caller's tasks
	Block          bool   `json:"block,omitempty"`            // wait for the task to end or, without task_id, for the next task to end
	Timeout        *int64 `json:"timeout,omitempty"`          // milliseconds to wait, default 60000 (50000 with ToolOptions.NoNotices), at most 600000
	FullSession    bool   `json:"full_session,omitempty"`     // show the messages of the session instead of the result
	MessageLimit   int    `json:"message_limit,omitempty"`    // maximum number of messages to show, default 20, at most 100
	SinceMessageID string `json:"since_message_id,omitempty"` // show only messages after the message with this id; implies FullSession
	FromEnd        bool   `json:"from_end,omitempty"`         // show the end of the result, or the last messages
	Offset         int    `json:"offset,omitempty"`           // bytes to skip in the result or in the first message shown; in the list, tasks to skip
}

// BackgroundOutputResult is the result of [BackgroundOutput].
type BackgroundOutputResult struct {
	Text     string  // text for the model, at most 32 KiB
	IsError  bool    // the call was wrong; false if the call was correct but the task failed
	Tasks    []Task  // the task with the given id, or the caller's tasks
	TimedOut bool    // the timeout passed before the task ended
	Notice   *Notice // notice about other tasks, if one was owed to the caller; it is part of Text and counts as delivered
}

// BackgroundCancelArgs holds the arguments of [BackgroundCancel]. They are decoded from JSON like
// [DelegateTaskArgs].
type BackgroundCancelArgs struct {
	TaskID      string `json:"task_id,omitempty"` // id of the task to cancel
	TaskIDAlias string `json:"taskId,omitempty"`  // the same as task_id
	All         bool   `json:"all,omitempty"`     // cancel every pending or running task that descends from the caller
}

// BackgroundCancelResult is the result of [BackgroundCancel].
type BackgroundCancelResult struct {
	Text      string  // text for the model, at most 32 KiB
	IsError   bool    // the call was wrong and did not cancel anything
	Cancelled []Task  // cancelled tasks, with the status that they had right before the call
	Notice    *Notice // notice about other tasks, if one was owed to the caller; it is part of Text and counts as delivered
}

// ToolOptions holds the options with which [Tools] defines the tools. The zero value is ready to
// use. The methods of ToolOptions call a tool with typed arguments. The wording of their answers
// depends on the options, like that of a [ToolDef]. The methods panic under the same conditions as
// Tools.
type ToolOptions struct {
	// Names maps the usual names of tools to other names. All text from these tools then uses the
	// other names. If Names is nil, Config.ToolNames applies, as it does to notices and digests.
	Names map[string]string
	// Omit lists the usual names of tools to leave out. The other tools then do not mention the
	// omitted ones.
	Omit []string
	// With holds the usual names of optional tools to add to those in Config.OptionalTools. The
	// only optional tool is [ToolBackgroundMessage].
	With []string
	// Agents lists the agents to which a model may delegate. If Agents is set, delegate_task names
	// these agents in its description and schema, and refuses other names immediately. If Agents is
	// nil, any name is accepted, and a task for an agent that does not exist ends with an error.
	Agents []AgentInfo
	// NoNotices must be set if no notice wakes the callers, because they have no Notifier and the
	// host does not take their notices with NextNotice. The caller of an MCP server is an example.
	// The tools' texts then do not promise a notice or suggest that the model end its turn.
	// Instead, they ask the model to wait with background_output. The default wait of this tool is
	// then 50 s, because the hosts of such callers abandon a call after 60 s. NoNotices does not
	// apply to a session that runs a task: the session's next turn delivers the notices, so they
	// wake the session.
	NoNotices bool
	// Elsewhere gives the tools access to their callers' tasks in other processes. If it is nil, the
	// tools know only the manager's tasks.
	Elsewhere Elsewhere
}

// ToolResult is the result of a tool call for a model.
type ToolResult struct {
	Text    string // text for the model, at most 32 KiB
	IsError bool   // the call was wrong; Text describes a correct call
	Value   any    // typed result, such as DelegateTaskResult or BackgroundOutputResult; nil if the arguments could not be read
}

// ToolDef defines a tool for a model's API.
type ToolDef struct {
	Name        string // name of the tool for the model
	Description string // description of the tool for the model
	// Schema is a JSON Schema (draft 2020-12) of the arguments.
	Schema json.RawMessage
	// Call calls the tool with raw arguments from a model. The context must carry the caller; see
	// [WithCaller]. If the arguments are wrong, Call returns a result with IsError, not an error.
	// It returns an error only if there is no caller, the host's configuration is wrong, or ctx has
	// ended.
	Call func(ctx context.Context, args json.RawMessage) (ToolResult, error)
	// Usual is the tool's usual name, such as [ToolDelegateTask], even if Name differs.
	Usual string
}

// Tools defines the tools for a model's API: delegate_task, background_output and
// background_cancel, in this order, followed by the optional tools. It panics if the options
// mention a tool that does not exist, or give a tool an empty name or the name of another tool. It
// also panics if a name is longer than 64 characters or has characters other than letters, digits,
// _ and -.
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
	e := o.Elsewhere
	run := func(c *call, a DelegateTaskArgs) (DelegateTaskResult, error) {
		c.agents = agents
		return c.delegate(a)
	}
	var defs []ToolDef
	for _, d := range [...]ToolDef{
		{w.delegate, w.delegateDescription(o.Agents), delegate.schema(), bind(m, w, e, w.delegate, delegate, run), ToolDelegateTask},
		{w.output, w.outputDescription(), output.schema(), bind(m, w, e, w.output, output, (*call).output), ToolBackgroundOutput},
		{w.cancel, w.cancelDescription(), cancelFields.schema(), bind(m, w, e, w.cancel, cancelFields, (*call).cancel), ToolBackgroundCancel},
		{w.message, w.messageDescription(), messageFields.schema(), bind(m, w, e, w.message, messageFields, (*call).message), ToolBackgroundMessage},
	} {
		if d.Name != "" {
			defs = append(defs, d)
		}
	}
	return defs
}

// The method "wording" returns the names of the tools according to the options. It panics if an
// option is wrong.
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
		if all := slices.Concat(usualTools, optionalTools); !slices.Contains(all, n) {
			panic(fmt.Sprintf("bgagent: Tools: ToolOptions.Omit leaves out %q; the tools are %s", n, strings.Join(all, ", ")))
		}
		if names == nil {
			names = map[string]string{}
		}
		names[n] = ""
	}
	for _, n := range o.With {
		if !slices.Contains(optionalTools, n) {
			panic(fmt.Sprintf("bgagent: Tools: ToolOptions.With lists %q; the optional tools are %s", n, strings.Join(optionalTools, ", ")))
		}
	}
	w, err := wordingFor(names, slices.Concat(m.cfg.OptionalTools, o.With)...)
	if err != nil {
		panic("bgagent: Tools: ToolOptions.Names " + err.Error())
	}
	w.noNotices, w.permits = o.NoNotices, m.cfg.ModelsMayPermit
	return w
}

func (o ToolOptions) agentNames() (names []string) {
	for _, a := range o.Agents {
		names = append(names, a.Name)
	}
	return names
}

// DelegateTask calls the tool delegate_task with these options. See the function [DelegateTask].
func (o ToolOptions) DelegateTask(ctx context.Context, m *BackgroundManager, by Caller, a DelegateTaskArgs) (DelegateTaskResult, error) {
	return typed(ctx, m, by, o, ToolDelegateTask, a, (*call).delegate)
}

// BackgroundOutput calls the tool background_output with these options. See the function
// [BackgroundOutput].
func (o ToolOptions) BackgroundOutput(ctx context.Context, m *BackgroundManager, by Caller, a BackgroundOutputArgs) (BackgroundOutputResult, error) {
	return typed(ctx, m, by, o, ToolBackgroundOutput, a, (*call).output)
}

// BackgroundCancel calls the tool background_cancel with these options. See the function
// [BackgroundCancel].
func (o ToolOptions) BackgroundCancel(ctx context.Context, m *BackgroundManager, by Caller, a BackgroundCancelArgs) (BackgroundCancelResult, error) {
	return typed(ctx, m, by, o, ToolBackgroundCancel, a, (*call).cancel)
}

// validToolName reports whether all model APIs accept the name.
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

// bind makes the ToolDef.Call of a tool from the tool's fields and its typed function.
func bind[A any, R toolResult](m *BackgroundManager, w wording, e Elsewhere, name string, f fields[A], run func(*call, A) (R, error)) func(context.Context, json.RawMessage) (ToolResult, error) {
	return func(ctx context.Context, raw json.RawMessage) (ToolResult, error) {
		by, _ := CallerFrom(ctx)
		c := newCall(ctx, m, by, w, e)
		defer c.leaves()
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

// The function "typed" executes a tool with typed arguments.
func typed[A, R any](ctx context.Context, m *BackgroundManager, by Caller, o ToolOptions, name string, a A, run func(*call, A) (R, error)) (r R, err error) {
	c := newCall(ctx, m, by, o.wording(m), o.Elsewhere)
	defer c.leaves()
	c.agents = o.agentNames()
	if err = c.check(); err == nil {
		r, err = run(c, a)
	}
	if err != nil {
		err = fmt.Errorf("bgagent: %s: %w", name, err)
	}
	return r, err
}

// call is one call to a tool.
type call struct {
	ctx    context.Context
	m      *BackgroundManager
	by     Caller
	w      wording
	agents []string // agents that the model may delegate to; nil means any agent
	out    *handing // ends and notices that the answer hands out

	elsewhere Elsewhere // nil if there are no other processes
	asked     bool      // the other processes have been asked about the task
}

func newCall(ctx context.Context, m *BackgroundManager, by Caller, w wording, e Elsewhere) *call {
	if w.noNotices && m.runsTask(by.Session) {
		w.noNotices = false // a session that runs a task gets its notices in its next turn
	}
	m.heard(by.Session)
	return &call{ctx: ctx, m: m, by: by, w: w, out: &handing{}, elsewhere: e}
}

// The method "leaves" is called when the call's answer is returned to the model.
func (c *call) leaves() {
	if len(c.out.hands) > 0 {
		c.m.update(func(st *state, _ int64) { st.leaves(c.out) })
	}
}

// check returns an error if the caller has no session. A caller without a session would have the
// host's rights.
func (c *call) check() error {
	if c.by.Session == "" {
		return &InputError{"Caller.Session", "is missing; a tool is called for a session, which is given as a parameter or with WithCaller"}
	}
	return nil
}

// The type "reply" holds the fields that the results of all tools have in common.
type reply struct {
	text   string
	notice *Notice
}

// The method "reply" renders an answer together with the next notice that is owed to the caller, if
// there is one. The notice then counts as delivered. If the caller's context has ended, the caller
// might never read the answer. In that case, no notice is added, and everything stays owed.
func (c *call) reply(render func(room int) answer) reply {
	var r reply
	owed := ""
	if c.ctx.Err() == nil {
		if n, ok := c.m.takeNotice(c.by.Session, c.w, c.out); ok {
			owed, r.notice = n.Text, &n
		}
	}
	room := answerMax - len(owed) - len("\n\n\n\n")
	a := render(room)
	a.head = mdtext.Head(a.head, room) // head and body should fit; if not, they are cut here so that the notice is never cut off
	a.body = mdtext.Head(a.body, room-len(a.head))
	r.text = a.with(owed)
	return r
}

// refuse makes the reply to a wrong call.
func (c *call) refuse(problem string) reply {
	return c.reply(func(int) answer { return answer{head: problem} })
}

// The method "problem" turns an error from the manager into advice for the model. It returns an
// error if the model cannot do anything about the failure, because the context has ended or the
// host's configuration is wrong.
func (c *call) problem(err error, ref string) (string, error) {
	var gone *ExpiredError
	var input *InputError
	var agent *NoSuchAgentError
	var budget *BudgetError
	switch {
	case errors.As(err, &budget):
		return budgetUsedUp(budget.Limit), nil
	case errors.As(err, &gone) && !errors.Is(err, ErrStoreLost):
		return c.w.expired(gone), nil
	case errors.As(err, &input):
		if strings.HasPrefix(input.Field, "Config.") {
			return "", err
		}
		return "The argument " + mdtext.OneLine(input.Field, nameMax) + " " + mdtext.OneLine(input.Problem, reasonMax) + ".", nil
	case errors.As(err, &agent):
		return c.w.noSuchAgent(agent), nil
	case errors.Is(err, ErrUnknownTask), errors.Is(err, ErrNotDescendant):
		// Both errors get the same answer: a caller must not find out about the tasks of other
		// callers.
		if c.asksElsewhere(err) {
			if text := c.placeElsewhere(ref); text != "" {
				return text, nil
			}
		}
		if errors.Is(err, ErrStoreLost) { // the lost store might have the task, so the task is not reported as unknown
			break
		}
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

// taskRef removes white space, invisible characters, quotation marks and angle brackets around an id
// that a model might have copied from a table or other text.
func taskRef(s string) string {
	return strings.TrimFunc(s, func(r rune) bool { return isBlank(r) || strings.ContainsRune("`\"'<>", r) })
}

// isBlank reports whether a character is invisible at the edge of a name: white space, control
// characters, and characters that only control the layout, such as U+200B.
func isBlank(r rune) bool { return unicode.IsSpace(r) || unicode.Is(unicode.C, r) }

// badText describes the problem with an argument. It returns "" if there is none.
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

// wordingFor returns the wording for tools with the given names. The keys of the map are the usual
// names of the tools. An empty name leaves out the tool. An optional tool is left out unless
// "with" contains it. wordingFor returns an error if a name is wrong.
func wordingFor(other map[string]string, with ...string) (wording, error) {
	names, taken, all := map[string]string{}, map[string]bool{}, slices.Concat(usualTools, optionalTools)
	for _, n := range all {
		names[n] = n
	}
	for n, name := range other {
		if names[n] == "" {
			return wording{}, fmt.Errorf("renames %q; the tools are %s", n, strings.Join(all, ", "))
		}
		if name != "" && !validToolName(name) {
			return wording{}, fmt.Errorf("calls %s %q; %s", n, name, toolNameRule)
		}
	}
	maps.Copy(names, other)
	for _, n := range optionalTools {
		if !slices.Contains(with, n) {
			names[n] = ""
		}
	}
	for _, name := range names {
		if name != "" && taken[name] {
			return wording{}, fmt.Errorf("is wrong: two tools have the name %q", name)
		}
		taken[name] = true
	}
	return wording{delegate: names[ToolDelegateTask], output: names[ToolBackgroundOutput], cancel: names[ToolBackgroundCancel], message: names[ToolBackgroundMessage]}, nil
}
