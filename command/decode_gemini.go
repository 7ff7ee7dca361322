package command

import "github.com/bgagent/bgagent"

// geminiLine is what matters of the lines of gemini --output-format stream-json.
type geminiLine struct {
	Type      string
	SessionID string `json:"session_id"`
	Role      string
	Content   string
	Delta     bool
	ToolName  string `json:"tool_name"`
	ToolID    string `json:"tool_id"`
	Status    string
	Severity  string
	Message   string
	Error     struct{ Type, Message string }
	Stats     struct {
		Input  int64 `json:"input_tokens"`
		Output int64 `json:"output_tokens"`
	}
}

// decodeGemini returns a decoder for gemini --output-format stream-json.
func decodeGemini() Decoder {
	return func(line []byte, o *Output) {
		var x geminiLine
		if !decodeLine(line, &x) {
			return
		}
		switch x.Type {
		case "init":
			o.Session(x.SessionID)
		case "message":
			switch {
			case x.Role != "assistant":
				o.Known()
			case x.Delta:
				o.Text(x.Content)
			default:
				o.Message(x.Content)
			}
		case "tool_use":
			o.Tool(x.ToolID, x.ToolName, bgagent.ToolRunning)
		case "tool_result":
			o.Tool(x.ToolID, "", toolState(x.Status, true))
		case "error":
			if x.Severity == "warning" {
				o.Known()
			} else {
				o.Problem(errorText(x.Message))
			}
		case "result":
			o.Usage(bgagent.Usage{InputTokens: x.Stats.Input, OutputTokens: x.Stats.Output})
			switch {
			case x.Status == "success":
				o.End(bgagent.StopEndOfTurn, "", "")
			case x.Error.Type == "FatalTurnLimitedError":
				o.End(bgagent.StopTurnLimit, "", x.Error.Message)
			default:
				o.End(bgagent.StopError, "", errorText(x.Error.Message))
			}
		}
	}
}
