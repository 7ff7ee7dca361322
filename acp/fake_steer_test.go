//go:build unix

package acp

import (
	"context"
	"encoding/json"
	"time"

	sdk "github.com/coder/acp-go-sdk"
)

// steering is what the agent announces in the answer to initialize.
func (a *fakeAgent) steering() map[string]any {
	if a.steers == "" {
		return nil
	}
	return map[string]any{"steering": map[string]any{"supported": true}}
}

// HandleExtensionMethod answers "_session/steering" with a.steers as the outcome. If a.steers
// begins with "{", it is an error in JSON, and the agent answers with this error. The agent keeps
// the text of the message.
func (a *fakeAgent) HandleExtensionMethod(_ context.Context, method string, params json.RawMessage) (any, error) {
	if method != methodSteer || a.steers == "" {
		return nil, sdk.NewMethodNotFound(method)
	}
	var q steerRequest
	if err := json.Unmarshal(params, &q); err != nil {
		return nil, sdk.NewInvalidParams(err.Error())
	}
	if a.steers[0] == '{' {
		var e sdk.RequestError
		if err := json.Unmarshal([]byte(a.steers), &e); err != nil {
			return nil, err
		}
		return nil, &e
	}
	a.mu.Lock()
	a.steered = append(a.steered, q)
	a.mu.Unlock()
	time.Sleep(a.steersIn)
	return map[string]any{"outcome": a.steers}, nil
}
