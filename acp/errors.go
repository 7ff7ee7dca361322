package acp

import (
	"encoding/json"
	"fmt"
	"strings"

	sdk "github.com/coder/acp-go-sdk"
)

// codeAuth is the protocol's error code for "authentication required".
const codeAuth = -32000

// agentError wraps an error answer from the agent and gives it a readable message.
type agentError struct{ *sdk.RequestError }

// Unwrap returns the error as the agent sent it.
func (e *agentError) Unwrap() error { return e.RequestError }

// Error returns the agent's message, details and code.
func (e *agentError) Error() string {
	text := innerMessage(e.Message)
	if more := detail(e.Data); more != "" && !strings.Contains(text, more) {
		text += ": " + more
	}
	if text == "" {
		text = "it gave no reason"
	}
	return fmt.Sprintf("%.2000s (code %d)", text, e.Code)
}

// innerMessage returns the message inside a JSON error from a model's API. Gemini puts
// the whole JSON text into its message. Any other text is returned unchanged.
func innerMessage(s string) string {
	var body struct {
		Error struct {
			Message string `json:"message"`
		} `json:"error"`
	}
	if strings.HasPrefix(strings.TrimSpace(s), "{") && json.Unmarshal([]byte(s), &body) == nil && body.Error.Message != "" {
		return body.Error.Message
	}
	return s
}

// detail returns the text in an error's data. Agents write this text into one of several fields.
func detail(data any) string {
	switch d := data.(type) {
	case string:
		return d
	case map[string]any:
		for _, name := range []string{"details", "message", "error"} {
			if s, ok := d[name].(string); ok && s != "" {
				return s
			}
		}
	}
	return ""
}
