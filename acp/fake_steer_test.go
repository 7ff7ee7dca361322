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

// HandleExtensionMethod answers "_session/steering" with a.steers as the outcome, and the agent
// keeps the message. If a.steers begins with "{", it is a JSON-encoded error, which the agent
// returns instead.
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
