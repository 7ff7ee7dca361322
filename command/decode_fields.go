package command

import (
	"bytes"
	"cmp"
	"encoding/json"
	"math"
	"strconv"
	"strings"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/jsonlines"
)

// The types in this file decode values that programs write in several forms. They treat a value
// that can mean an error as an error.

// yesNo is a boolean. A value that is neither yes nor no is treated as yes.
type yesNo bool

// UnmarshalJSON implements [json.Unmarshaler].
func (f *yesNo) UnmarshalJSON(data []byte) error {
	switch strings.ToLower(strings.Trim(string(data), `" `)) {
	case "null":
	case "", "false", "no", "0", "[]", "{}":
		*f = false
	default:
		*f = true
	}
	return nil
}

// count is a number of tokens. In JSON it can be any number, with or without quotation
// marks.
type count float64

// UnmarshalJSON implements [json.Unmarshaler].
func (c *count) UnmarshalJSON(data []byte) error {
	if n, err := strconv.ParseFloat(strings.Trim(string(data), `"`), 64); err == nil && !math.IsNaN(n) {
		*c = count(n)
	}
	return nil
}

// tokens returns the number, limited so that sums do not overflow.
func (c count) tokens() int64 { return int64(min(max(c, 0), 1e15)) }

// wording is text. In JSON it is a string, an object that contains a string, or a list of strings
// and such objects.
type wording string

// UnmarshalJSON implements [json.Unmarshaler].
func (w *wording) UnmarshalJSON(data []byte) error {
	var text string
	var blocks []json.RawMessage
	var block struct{ Text *string }
	switch {
	case string(data) == "null":
	case json.Unmarshal(data, &text) == nil:
		*w = wording(text)
	case json.Unmarshal(data, &blocks) == nil:
		*w = ""
		for _, b := range blocks {
			var part wording
			if len(b) > 0 && b[0] != '[' && part.UnmarshalJSON(b) == nil { // a list within a list is ignored
				*w += part
			}
		}
	case jsonlines.Decode(data, &block) && block.Text != nil:
		*w = wording(*block.Text)
	}
	return nil
}

// fault is an error. In JSON it can be a string, an object that contains a string, or any other
// value.
type fault struct {
	kind string
	text string
}

// UnmarshalJSON implements [json.Unmarshaler].
func (f *fault) UnmarshalJSON(data []byte) error {
	var text string
	var x struct {
		Type, Name, Code, Message string
		Data                      struct{ Message string }
	}
	switch data = bytes.TrimSpace(data); {
	case string(data) == "null" || string(data) == "false":
	case json.Unmarshal(data, &text) == nil:
		*f = fault{text: text}
	case jsonlines.Decode(data, &x):
		*f = fault{cmp.Or(x.Type, x.Name, x.Code), cmp.Or(x.Data.Message, x.Message, x.Name)}
		if f.text == "" {
			f.text = cut(string(data), maxProblem)
		}
	default:
		*f = fault{text: cut(string(data), maxProblem)}
	}
	return nil
}

// stopOf returns the stop reason for a word that a model or a program uses to report a failed or
// incomplete answer. For any other word, it returns StopEndOfTurn and false.
func stopOf(word string) (stop bgagent.StopReason, known bool) {
	switch strings.NewReplacer("-", "_", " ", "_").Replace(strings.ToLower(word)) {
	case "max_tokens", "max_output_tokens", "token_limit", "model_context_window_exceeded", "context_window_exceeded", "context_length_exceeded", "length":
		return bgagent.StopLength, true
	case "refusal", "refused", "content_filter", "safety", "recitation", "blocklist", "prohibited_content":
		return bgagent.StopRefused, true
	case "max_turns", "max_turn_requests", "budget_exhausted":
		return bgagent.StopTurnLimit, true
	case "pause_turn", "aborted_streaming", "aborted_tools":
		return bgagent.StopInterrupted, true
	case "error", "blocking_limit", "rapid_refill_breaker", "prompt_too_long", "image_error", "model_error", "api_error",
		"malformed_tool_use_exhausted", "structured_output_retry_exhausted", "tool_deferred_unavailable", "turn_setup_failed":
		return bgagent.StopError, true
	}
	return bgagent.StopEndOfTurn, false
}
