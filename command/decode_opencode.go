package command

import (
	"cmp"
	"encoding/json"
	"strings"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/calldigest"
	"github.com/bgagent/bgagent/internal/jsonlines"
)

// opencodeLine has the fields that the decoder reads in opencode's output lines. The format is that
// of opencode run --format json.
type opencodeLine struct {
	Type      string
	SessionID string `json:"sessionID"`
	Part      struct {
		ID     string
		Text   wording
		Tool   string
		CallID string `json:"callID"`
		Reason string
		Cost   float64
		Tokens struct {
			Input  count
			Output count // includes reasoning
			Cache  struct{ Read, Write count }
		}
		State struct {
			Status string
			Input  json.RawMessage
			Output json.RawMessage
			Error  string
			Detail struct {
				Exit json.RawMessage // exit code of a command
			} `json:"metadata"`
		}
		Synthetic yesNo // opencode itself wrote the text
		Metadata  struct {
			Continues yesNo `json:"compaction_continue"`
		}
	}
	Error opencodeFault
}

// decodeOpencode returns a decoder for the output of opencode run --format json. A step that
// finished with tool calls does not end the turn, because another step follows. No step
// follows if a rejected question has ended the turn.
//
// After opencode compacts the session, it prompts itself and prints this prompt as text. The
// summary precedes this prompt and looks like any other message. Therefore, the turn makes no
// progress if there is at most one message, and no tool call, between two such prompts.
//
// If the input is too long, opencode prints an error and then compacts the session. It might then
// repeat the turn's prompt instead of prompting itself, and it does not print that prompt.
// Therefore, neither the error nor the end of the next step ends the turn. If opencode exits
// without continuing, the turn has failed.
func decodeOpencode() Decoder {
	messages, compacted := 0, false // number of messages since opencode last prompted itself; whether it has prompted itself
	summary := false                // whether the input was too long, so that the next step that finishes writes the summary
	return func(line []byte, o *Output) {
		var x opencodeLine
		if !jsonlines.Decode(line, &x) {
			return
		}
		switch x.Type {
		case "step_start":
			o.GoesOn()
			o.Activity()
		case "text":
			if x.Part.Metadata.Continues || x.Part.Synthetic {
				summary = false
				o.GoesOn() // the step that wrote the summary ended like the last step of a turn
				o.Compaction()
				if compacted && messages <= 1 {
					o.Compaction() // a second time, because the summary's text has reset the manager's count of consecutive compactions
				}
				messages, compacted = 0, true
				break
			}
			messages++
			o.Message(string(x.Part.Text))
		case "reasoning":
			o.Reasoning(string(x.Part.Text))
		case "tool_use":
			if x.Part.Tool == "todowrite" {
				tellTodos(x.Part.State.Input, o)
			}
			if strings.Contains(x.Part.State.Error, "rejected permission") { // the turn ends without any text, because nobody can answer the question
				o.Denied(x.Part.Tool)
				o.Problem(x.Part.State.Error)
			}
			messages, compacted, summary = 0, false, false
			o.Call(x.call())
		case "step_finish":
			used := x.Part.Tokens
			o.roundUsage(x.Part.ID, bgagent.Usage{InputTokens: (used.Input + used.Cache.Read + used.Cache.Write).tokens(), OutputTokens: used.Output.tokens(), Cost: x.Part.Cost})
			switch {
			case x.Part.Reason == "tool-calls" || x.Part.Reason == "tool_calls": // another step follows
			case summary:
				summary = false
			default:
				stop, _ := stopOf(x.Part.Reason)
				o.End(stop, "", "")
			}
		case "error":
			if summary = x.Error.name == "ContextOverflowError"; summary {
				o.GoesOn()
			}
			x.Error.failed(o)
			if summary {
				o.breaks(errorText(x.Error.text))
				break
			}
			o.End(bgagent.StopError, "", errorText(x.Error.text))
		default:
			return
		}
		o.Session(x.SessionID)
	}
}

// The method "call" returns the tool call in a line of type "tool_use".
func (x *opencodeLine) call() bgagent.MessageTool {
	s := &x.Part.State
	call := bgagent.MessageTool{ID: x.Part.CallID, Name: x.Part.Tool, State: toolState(s.Status, true), Input: calldigest.Input(s.Input)}
	if call.Result = calldigest.Result(s.Output, string(s.Detail.Exit)); call.Result == 0 && s.Error != "" {
		call.Result = bgagent.DigestOf(s.Error)
	}
	return call
}

// tellTodos reports the todo list in the input of a todo tool. Opencode, gemini and older versions
// of claude use the same format, except that gemini has another name for the field with the text.
func tellTodos(input json.RawMessage, o *Output) {
	var x struct {
		Todos []struct{ Content, Description, Status string }
	}
	if !jsonlines.Decode(input, &x) {
		return
	}
	list := make([]bgagent.Todo, len(x.Todos))
	for i, t := range x.Todos {
		list[i] = bgagent.Todo{Text: cmp.Or(t.Content, t.Description), State: todoState(t.Status)}
	}
	o.Todos(list)
}
