package command

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/calldigest"
	"github.com/bgagent/bgagent/internal/jsonlines"
)

// claudeLine has the fields that the decoder reads in claude's output lines. The format is that of
// claude --output-format stream-json.
type claudeLine struct {
	Type      string
	Subtype   string
	SessionID string `json:"session_id"`
	Parent    string `json:"parent_tool_use_id"` // call that started the subagent; empty outside of subagents
	Message   struct {
		ID      string
		Model   string
		Content claudeContent
		Stop    string `json:"stop_reason"`
		Usage   claudeUsage
	}
	Error    string          // error in a synthetic message, or in a line of type "system" with the subtype "api_retry"
	Limit    claudeLimit     `json:"rate_limit_info"`
	Told     json.RawMessage `json:"tool_use_result"`
	APIError yesNo           `json:"is_api_error_message"`
	Event    claudeEvent
	claudeRetry
	claudeFailure
	claudeTask
	claudeResult
}

// claudeEvent is the event in a line of type "stream_event", which reports a piece of an
// unfinished message.
type claudeEvent struct {
	Type  string
	Delta struct{ Text string }
}

// claudeRetry has the fields of a line of type "system" with the subtype "api_retry".
type claudeRetry struct {
	Attempt count
	Max     count `json:"max_retries"`
	Delay   count `json:"retry_delay_ms"`
	Status  count `json:"error_status"` // 0 if the connection failed
}

// claudeTask has the fields of lines of type "system" with the subtypes "task_started",
// "task_notification" and "background_tasks_changed".
type claudeTask struct {
	TaskID       string `json:"task_id"`
	ToolUseID    string `json:"tool_use_id"`
	Description  string
	Backgrounded *bool `json:"is_backgrounded"`
	Tasks        []claudeOpen
}

// claudeOpen is a command or an agent that runs in the background.
type claudeOpen struct {
	ID          string `json:"task_id"`
	OtherID     string `json:"id"`
	Description string
}

type claudeResult struct {
	IsError yesNo `json:"is_error"`
	Result  wording
	Stop    string   `json:"stop_reason"`
	Why     string   `json:"terminal_reason"`
	Errors  []string `json:"errors"`
	Cost    *float64 `json:"total_cost_usd"`
	Usage   claudeUsage
	Denials []struct {
		Tool string `json:"tool_name"`
	} `json:"permission_denials"`
}

// claudeUsage is the usage of a request (in a line of type "assistant") or of a turn.
type claudeUsage struct {
	Input       count `json:"input_tokens"`
	CacheCreate count `json:"cache_creation_input_tokens"`
	CacheRead   count `json:"cache_read_input_tokens"`
	Output      count `json:"output_tokens"` // in a line of type "assistant", only the tokens at the beginning of the message
}

func (u claudeUsage) input() int64 { return (u.Input + u.CacheCreate + u.CacheRead).tokens() }

type claudeBlock struct {
	Type      string
	Text      string
	Thinking  string
	ID        string
	Name      string
	Input     json.RawMessage
	ToolUseID string          `json:"tool_use_id"`
	IsError   yesNo           `json:"is_error"`
	Content   json.RawMessage // content of a tool's result
}

// resultText returns the text in a tool's result.
func (b claudeBlock) resultText() (text string) {
	var c claudeContent
	if c.UnmarshalJSON(b.Content) == nil {
		for _, part := range c {
			text += part.Text
		}
	}
	return text
}

// claudeContent is the content of a message. In JSON it is a list of blocks or a string.
type claudeContent []claudeBlock

// UnmarshalJSON implements [json.Unmarshaler]. Unreadable blocks are left out.
func (c *claudeContent) UnmarshalJSON(data []byte) error {
	var text string
	var blocks []json.RawMessage
	switch {
	case string(data) == "null":
	case json.Unmarshal(data, &text) == nil:
		*c = claudeContent{{Type: "text", Text: text}}
	case json.Unmarshal(data, &blocks) == nil:
		*c = nil
		for _, b := range blocks {
			var block claudeBlock
			if jsonlines.Decode(b, &block) {
				*c = append(*c, block)
			}
		}
	}
	return nil
}

// synthetic is the model name in messages that claude itself wrote.
const synthetic = "<synthetic>"

// claudeDecoder reads the lines of one turn.
type claudeDecoder struct {
	o    *Output
	stop string                // stop reason of the last message
	open map[string]claudeOpen // background work by its id; the key of a subagent without an id is "call " followed by the id of its call
	held map[string]string     // maps the id of a call to the id of the background work that the call started
	list *claudeTodos          // todo list of the session
	gone bool                  // whether the end was reported because the key was rejected

	limit claudeLimit // most recent limit that the provider reported
	wrote string      // text of the last synthetic message about an error
}

// decodeClaude returns a decoder for the output of claude -p --output-format stream-json
// --verbose, with or without --include-partial-messages.
func decodeClaude() Decoder {
	d := &claudeDecoder{open: map[string]claudeOpen{}, held: map[string]string{}}
	return func(line []byte, o *Output) {
		var x claudeLine
		if !jsonlines.Decode(line, &x) {
			return
		}
		d.begin(o)
		switch x.Type {
		case "system":
			d.system(&x)
		case "assistant":
			d.assistant(&x)
		case "user":
			d.user(&x)
		case "stream_event":
			d.alive()
			d.streamed(&x)
			o.Activity()
		case "result":
			if x.Parent == "" {
				d.result(&x)
			}
		case "rate_limit_event":
			d.limit = x.Limit
			o.Activity()
		case "command_lifecycle", "tool_progress":
			o.Activity()
		default:
			return
		}
		if x.Parent == "" {
			o.Session(x.SessionID)
		} else {
			d.subagent(x.Parent)
		}
	}
}

// The method "begin" sets the output. For the first line of a turn, it also takes over the todo
// list of the previous turn.
func (d *claudeDecoder) begin(o *Output) {
	if d.o = o; d.list != nil {
		return
	}
	list, ok := o.memory.(*claudeTodos)
	if !ok {
		list = &claudeTodos{}
		o.memory = list
	}
	list.calls = map[string]claudeBlock{}
	d.list = list
}

// The method "alive" withdraws the end of the turn if that end was reported because of a rejected
// key. The method is called when the model has answered.
func (d *claudeDecoder) alive() {
	if d.gone {
		d.gone = false
		d.o.GoesOn()
	}
}

// The method "subagent" handles a line from a subagent. If the end of the turn has been reported, the
// subagent works in the background, and its work is added to the background work.
func (d *claudeDecoder) subagent(call string) {
	if d.o.brief().over {
		d.open["call "+call] = claudeOpen{Description: "a subagent"}
		d.tell()
	}
	d.o.Activity()
}

// The method "tell" reports the background work.
func (d *claudeDecoder) tell() {
	var work []string
	for _, id := range slices.Sorted(maps.Keys(d.open)) {
		work = append(work, cmp.Or(d.open[id].Description, id))
	}
	d.o.Background(work)
}

// The method "streamed" reports a piece of a message. The whole message is printed again when it is
// finished.
func (d *claudeDecoder) streamed(x *claudeLine) {
	switch {
	case x.Parent != "":
	case x.Event.Type == "message_start": // begins a new message, because claude can repeat a message from its start
		d.o.Message("")
	case x.Event.Delta.Text != "":
		d.o.Text(x.Event.Delta.Text)
	}
}

func (d *claudeDecoder) system(x *claudeLine) {
	switch x.Subtype {
	case "api_retry":
		text := cmp.Or(x.Error, "a request failed")
		status := x.claudeRetry.Status
		if status > 0 {
			text += fmt.Sprintf(" (status %d)", status.tokens())
		}
		d.o.Problem(text)
		switch {
		case x.Error != "authentication_failed":
			d.retrying(x, text)
		case !d.o.brief().over:
			d.failed(claudeFailure{Status: status}, x.Error)
			d.o.End(bgagent.StopError, "", text+": the model server rejected the key or the login")
			d.gone = true
		}
		d.o.tried(small(x.Attempt))
	case "task_started":
		if x.Backgrounded == nil || *x.Backgrounded {
			d.open[x.TaskID] = claudeOpen{Description: x.Description}
			if x.ToolUseID != "" {
				d.held[x.ToolUseID] = x.TaskID
			}
			d.tell()
		}
		d.o.Activity()
	case "task_notification":
		delete(d.open, x.TaskID)
		d.tell()
		for call, id := range d.held {
			if id == x.TaskID {
				delete(d.held, call)
				d.o.Tool(call, "", bgagent.ToolDone)
			}
		}
		d.o.Activity()
	case "compact_boundary":
		if x.Parent == "" {
			d.o.Compaction()
		}
	case "background_tasks_changed":
		clear(d.open)
		for i, t := range x.Tasks {
			d.open[cmp.Or(t.ID, t.OtherID, fmt.Sprint(i+1))] = t
		}
		d.tell()
		d.o.Activity()
	default:
		d.o.Activity()
	}
}

func (d *claudeDecoder) assistant(x *claudeLine) {
	for _, b := range x.Message.Content {
		d.list.called(b)
	}
	switch {
	case x.Parent != "":
		return
	case x.Message.Model == synthetic || bool(x.APIError): // the model did not write this message
		for _, b := range x.Message.Content {
			if b.Type == "text" && b.Text != "" {
				if text := errorText(b.Text); bool(x.APIError) || x.Error != "" {
					d.wrote = b.Text
					d.o.breaks(text)
				} else {
					d.o.Problem(text)
				}
			}
		}
		d.failed(x.claudeFailure, x.Error)
		d.o.Known()
		return
	}
	d.alive()
	d.limit = claudeLimit{}
	if d.o.brief().waited {
		d.o.GoesOn()
	}
	if x.Message.Stop != "" {
		d.stop = x.Message.Stop
	}
	d.o.Known()
	for _, b := range x.Message.Content {
		d.block(b)
		if b.Type == "tool_use" { // the turn continues, so a budget that is used up must stop it
			d.o.partUsage(x.Message.ID, bgagent.Usage{InputTokens: x.Message.Usage.input()})
		}
	}
}

func (d *claudeDecoder) block(b claudeBlock) {
	switch b.Type {
	case "text":
		d.o.completes(b.Text)
	case "thinking", "redacted_thinking":
		d.o.Reasoning(b.Thinking)
	case "tool_use", "server_tool_use":
		if b.Name == "TodoWrite" {
			tellTodos(b.Input, d.o)
		}
		d.o.Call(bgagent.MessageTool{ID: b.ID, Name: b.Name, State: bgagent.ToolRunning, Input: calldigest.Input(b.Input)})
	}
}

func (d *claudeDecoder) user(x *claudeLine) {
	for _, b := range x.Message.Content {
		if b.Type == "tool_result" && d.list.answered(b, x.Told) {
			d.o.Todos(d.list.todos())
		}
		if _, goesOn := d.held[b.ToolUseID]; x.Parent == "" && b.Type == "tool_result" && !goesOn {
			d.o.Call(bgagent.MessageTool{ID: b.ToolUseID, State: toolState(word(b.IsError), true), Result: calldigest.Result(b.Content)})
		}
	}
	d.o.Activity()
}

func word(failed yesNo) string {
	if failed {
		return "failed"
	}
	return "completed"
}

// The method "result" handles a line of type "result", which reports the end of the turn. The cost
// in that line is the total of the session or of the process.
func (d *claudeDecoder) result(x *claudeLine) {
	u := x.claudeResult.Usage
	d.o.roundUsage("", bgagent.Usage{InputTokens: u.input(), OutputTokens: u.Output.tokens()})
	if x.Cost != nil {
		d.o.TotalUsage(bgagent.Usage{Cost: *x.Cost})
	}
	for _, denied := range x.Denials {
		if denied.Tool != "" {
			d.o.Denied(denied.Tool)
		}
	}
	maps.DeleteFunc(d.open, func(id string, _ claudeOpen) bool { return len(id) > 5 && id[:5] == "call " })
	d.tell()
	if d.gone { // the end that was reported early no longer counts, because this result reports how the turn ends
		d.alive()
	}
	problem := string(x.claudeResult.Result)
	for _, e := range x.Errors {
		if e != "" {
			problem = e
			break
		}
	}
	answer := string(x.claudeResult.Result)
	if answer == d.wrote { // the answer is an error message from claude itself, not from the model
		answer = ""
	}
	stop, known := stopOf(x.Why)
	if !known {
		stop, known = stopOf(cmp.Or(x.claudeResult.Stop, d.stop))
	}
	switch {
	case x.Subtype == "error_max_turns", x.Subtype == "error_max_budget_usd":
		d.o.End(bgagent.StopTurnLimit, "", problem)
	case bool(x.IsError) || x.Subtype != "success":
		d.resultFailed(x)
		d.o.End(bgagent.StopError, "", errorText(cmp.Or(problem, x.Subtype, "it gave no reason")))
	case known && (stop == bgagent.StopError || stop == bgagent.StopInterrupted):
		d.o.End(stop, answer, "it says that the turn was cut off: "+cmp.Or(x.Why, x.claudeResult.Stop, d.stop))
	default:
		d.o.End(stop, answer, "")
	}
}
