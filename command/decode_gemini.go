package command

import (
	"encoding/json"
	"strings"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/calldigest"
	"github.com/bgagent/bgagent/internal/jsonlines"
)

// geminiLine has the fields that the decoder reads in gemini's output lines. The format is that of
// gemini --output-format stream-json.
type geminiLine struct {
	Type      string
	SessionID string `json:"session_id"`
	Role      string
	Content   wording
	Delta     yesNo
	ToolName  string          `json:"tool_name"`
	ToolID    string          `json:"tool_id"`
	Input     json.RawMessage `json:"parameters"`
	Output    json.RawMessage // result of a tool
	Status    string
	Severity  string
	Message   fault
	Error     fault
	Stats     struct {
		Input  count `json:"input_tokens"`
		Output count `json:"output_tokens"`
	}
}

// decodeGemini returns a decoder for the output of gemini --output-format stream-json.
func decodeGemini() Decoder {
	cut, why := bgagent.StopEndOfTurn, "" // set by an earlier error or warning that says that the answer was cut
	return func(line []byte, o *Output) {
		var x geminiLine
		if !jsonlines.Decode(line, &x) {
			return
		}
		switch x.Type {
		case "init":
			o.Session(x.SessionID)
		case "message":
			switch {
			case x.Role != "assistant" && x.Role != "model":
				o.Known()
			case bool(x.Delta):
				o.Text(string(x.Content))
			default:
				o.Message(string(x.Content))
			}
		case "tool_use":
			if x.ToolName == "write_todos" {
				tellTodos(x.Input, o)
			}
			o.Call(bgagent.MessageTool{ID: x.ToolID, Name: x.ToolName, State: bgagent.ToolRunning, Input: calldigest.Input(x.Input)})
		case "tool_result":
			call := bgagent.MessageTool{ID: x.ToolID, State: toolState(x.Status, true), Result: calldigest.Result(x.Output, x.Error.text)}
			if call.Result == 0 && x.Error.text != "" {
				call.Result = bgagent.DigestOf(x.Error.text)
			}
			o.Call(call)
		case "error":
			if stop := geminiCut(x.Message.text); stop != bgagent.StopEndOfTurn {
				cut, why = stop, x.Message.text
			}
			if x.Severity == "warning" {
				o.Activity()
			} else {
				o.breaks(errorText(x.Message.text))
				geminiFailed(x.Message.text, o)
			}
		case "result":
			o.roundUsage("", bgagent.Usage{InputTokens: x.Stats.Input.tokens(), OutputTokens: x.Stats.Output.tokens()})
			switch {
			case x.Status == "success":
				o.End(cut, "", why)
			case x.Error.kind == "FatalTurnLimitedError":
				o.End(bgagent.StopTurnLimit, "", x.Error.text)
			default:
				geminiFailed(x.Error.text, o)
				o.End(bgagent.StopError, "", errorText(x.Error.text))
			}
		}
	}
}

// geminiCut returns the stop reason if gemini's error or warning says that the answer was cut.
// Gemini reports such a turn as a success.
func geminiCut(message string) bgagent.StopReason {
	for _, c := range []struct {
		words string
		stop  bgagent.StopReason
	}{
		{"loop detected", bgagent.StopTurnLimit}, {"stopping execution", bgagent.StopTurnLimit}, {"maximum session turns", bgagent.StopTurnLimit},
		{"token limit", bgagent.StopLength}, {"truncated", bgagent.StopLength},
		{"response stopped", bgagent.StopRefused}, {"response blocked", bgagent.StopRefused},
	} {
		if strings.Contains(strings.ToLower(message), c.words) {
			return c.stop
		}
	}
	return bgagent.StopEndOfTurn
}
