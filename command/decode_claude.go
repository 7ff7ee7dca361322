package command

import (
	"encoding/json"

	"github.com/bgagent/bgagent"
)

// claudeLine is what matters of the lines of claude --output-format stream-json.
type claudeLine struct {
	Type      string
	Subtype   string
	SessionID string  `json:"session_id"`
	Parent    *string `json:"parent_tool_use_id"` // set in the lines of subagents
	Message   struct {
		Content claudeContent
		Stop    string `json:"stop_reason"`
	}
	Error   string // system, api_retry
	IsError bool   `json:"is_error"`
	Result  string
	Stop    string   `json:"stop_reason"`
	Errors  []string // result
	Cost    float64  `json:"total_cost_usd"`
	Usage   struct {
		Input       int64 `json:"input_tokens"`
		CacheCreate int64 `json:"cache_creation_input_tokens"`
		CacheRead   int64 `json:"cache_read_input_tokens"`
		Output      int64 `json:"output_tokens"`
	}
}

type claudeBlock struct {
	Type      string
	Text      string
	Thinking  string
	ID        string
	Name      string
	Input     json.RawMessage
	ToolUseID string `json:"tool_use_id"`
	IsError   bool   `json:"is_error"`
}

// claudeContent is the content of a message: a list of blocks, or a text.
type claudeContent []claudeBlock

// UnmarshalJSON implements [json.Unmarshaler].
func (c *claudeContent) UnmarshalJSON(data []byte) error {
	var text string
	if json.Unmarshal(data, &text) == nil {
		*c = claudeContent{{Type: "text", Text: text}}
		return nil
	}
	var blocks []json.RawMessage
	if err := json.Unmarshal(data, &blocks); err != nil {
		return err
	}
	for _, b := range blocks {
		var block claudeBlock
		if json.Unmarshal(b, &block) == nil { // a block of a form that is not known is no reason to lose the others
			*c = append(*c, block)
		}
	}
	return nil
}

// decodeClaude returns a decoder for claude -p --output-format stream-json
// --verbose, with or without --include-partial-messages.
func decodeClaude() Decoder {
	stop := "" // of the last message
	return func(line []byte, o *Output) {
		var x claudeLine
		if !decodeLine(line, &x) {
			return
		}
		own := x.Parent == nil || *x.Parent == ""
		switch x.Type {
		case "system":
			if x.Subtype == "api_retry" {
				o.Problem(x.Error)
			} else {
				o.Known()
			}
		case "assistant":
			if !own {
				o.Activity()
				break
			}
			o.GoesOn()
			if x.Message.Stop != "" {
				stop = x.Message.Stop
			}
			for _, b := range x.Message.Content {
				b.tell(o)
			}
		case "user":
			for _, b := range x.Message.Content {
				if own && b.Type == "tool_result" {
					o.Tool(b.ToolUseID, "", toolState(word(b.IsError), true))
				}
			}
			o.Activity()
		case "stream_event":
			o.Activity()
		case "result":
			o.Usage(bgagent.Usage{InputTokens: x.Usage.Input + x.Usage.CacheCreate + x.Usage.CacheRead, OutputTokens: x.Usage.Output, Cost: x.Cost})
			if x.Stop != "" {
				stop = x.Stop
			}
			x.end(stop, o)
		default:
			return
		}
		if own {
			o.Session(x.SessionID)
		}
	}
}

func word(failed bool) string {
	if failed {
		return "failed"
	}
	return "completed"
}

func (b claudeBlock) tell(o *Output) {
	switch b.Type {
	case "text":
		o.Message(b.Text)
	case "thinking", "redacted_thinking":
		o.Reasoning(b.Thinking)
	case "tool_use", "server_tool_use":
		if b.Name == "TodoWrite" {
			tellTodos(b.Input, o)
		}
		o.Tool(b.ID, b.Name, bgagent.ToolRunning)
	}
}

// end tells the end that a result line speaks of.
func (x *claudeLine) end(stop string, o *Output) {
	problem := x.Result
	if len(x.Errors) > 0 {
		problem = x.Errors[0]
	}
	switch {
	case x.Subtype == "error_max_turns", x.Subtype == "error_max_budget_usd":
		o.End(bgagent.StopTurnLimit, "", problem)
	case x.IsError || x.Subtype != "success":
		if problem == "" {
			problem = x.Subtype
		}
		o.End(bgagent.StopError, "", errorText(problem))
	case stop == "refusal":
		o.End(bgagent.StopRefused, x.Result, "")
	case stop == "max_tokens":
		o.End(bgagent.StopLength, x.Result, "")
	default:
		o.End(bgagent.StopEndOfTurn, x.Result, "")
	}
}
