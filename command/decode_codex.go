package command

import (
	"encoding/json"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/calldigest"
	"github.com/bgagent/bgagent/internal/jsonlines"
)

// codexLine has the fields that the decoder reads in the output lines of codex exec --json.
type codexLine struct {
	Type     string
	ThreadID string `json:"thread_id"`
	Message  fault  // error in a line of type "error"
	Error    fault
	Item     codexItem
	Usage    struct {
		Input  count `json:"input_tokens"`
		Output count `json:"output_tokens"`
	}
}

type codexItem struct {
	ID      string
	Type    string
	Text    wording
	Message string
	Status  string
	Server  string // MCP server of a tool call
	Tool    string
	Command string
	Output  json.RawMessage `json:"aggregated_output"`
	Exit    json.RawMessage `json:"exit_code"`
	Input   json.RawMessage `json:"arguments"` // input of an MCP tool call
	Result  json.RawMessage
	Error   json.RawMessage
	Items   []struct { // entries of a todo list
		Text      string
		Completed bool
	}
}

// decodeCodex returns a decoder for the output of codex exec --json. A line of type "error"
// does not end the turn, because codex also reports retries with such lines. If the agent does
// nothing after such a line, the turn has failed, even if codex then reports success. If it is
// certain that the key was rejected, the turn ends at the first retry, unless the agent then does
// something. An item of type "error" can be just a warning.
func decodeCodex() Decoder {
	rejected := false // whether the end was reported because the key was rejected
	return func(line []byte, o *Output) {
		var x codexLine
		if !jsonlines.Decode(line, &x) {
			return
		}
		switch x.Type {
		case "thread.started":
			o.Session(x.ThreadID)
		case "turn.started":
			o.GoesOn()
		case "item.started", "item.updated", "item.completed":
			if rejected {
				rejected = false
				o.GoesOn()
			}
			x.Item.tell(x.Type == "item.completed", o)
		case "turn.completed":
			o.TotalUsage(bgagent.Usage{InputTokens: x.Usage.Input.tokens(), OutputTokens: x.Usage.Output.tokens()})
			o.End(bgagent.StopEndOfTurn, "", "")
		case "turn.failed":
			codexGivesUp(x.Error.text, o)
			o.End(codexStop(x.Error.text), "", errorText(x.Error.text))
		case "error":
			o.breaks(errorText(x.Message.text))
			m := codexRetry.FindStringSubmatch(x.Message.text)
			if m == nil {
				codexGivesUp(x.Message.text, o)
			} else if codexRetries(m[1], m[2], o) && !rejected {
				rejected = true
				o.End(bgagent.StopError, "", errorText(m[2])+": the model server rejected the key or the login")
			}
		}
	}
}

func (i codexItem) tell(done bool, o *Output) {
	o.Known()
	switch i.Type {
	case "agent_message":
		o.grows(i.ID, string(i.Text), done)
	case "reasoning":
		if done {
			o.Reasoning(string(i.Text))
		}
	case "todo_list":
		list := make([]bgagent.Todo, len(i.Items))
		for n, t := range i.Items {
			list[n].Text = t.Text
			if t.Completed {
				list[n].State = bgagent.TodoCompleted
			}
		}
		if o.Todos(list); !done { // at the end of the turn, codex completes the list itself, which is not an action of the agent
			o.acts()
		}
	case "error", "": // often only a warning; an error that ends the turn also has a separate line
	default: // command_execution, file_change, mcp_tool_call, web_search, and future types
		name := i.Type
		if i.Tool != "" {
			name = i.Tool
			if i.Server != "" {
				name = i.Server + "." + i.Tool
			}
		}
		call := bgagent.MessageTool{ID: i.ID, Name: name, State: toolState(i.Status, done)}
		call.Input, call.Result = i.digests(done)
		o.Call(call)
	}
}

// digests returns the digests of a call's input and result. They are known only for commands and
// MCP tools.
func (i *codexItem) digests(done bool) (input, result bgagent.Digest) {
	switch {
	case i.Type == "command_execution" && i.Command != "":
		input, result = bgagent.DigestOf(i.Command), calldigest.Result(i.Output, string(i.Exit))
	case i.Type == "mcp_tool_call":
		input, result = calldigest.Input(i.Input), calldigest.Result(i.Result, string(i.Error))
		if result == 0 {
			result = calldigest.Result(i.Error)
		}
	}
	if !done {
		result = 0
	}
	return input, result
}

// toolState converts the program's word for the state of a tool call. If done is true, the call has
// ended.
func toolState(word string, done bool) bgagent.ToolState {
	switch word {
	case "failed", "declined", "error", "cancelled", "canceled":
		return bgagent.ToolFailed
	case "completed", "done":
		return bgagent.ToolDone
	case "pending":
		return bgagent.ToolPending
	}
	if done {
		return bgagent.ToolDone
	}
	return bgagent.ToolRunning
}
