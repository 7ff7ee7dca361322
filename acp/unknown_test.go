//go:build unix

package acp

import (
	"errors"
	"testing"

	"github.com/bgagent/bgagent"
	sdk "github.com/coder/acp-go-sdk"
	"github.com/stretchr/testify/require"
)

func TestOnlyAnErrorAboutTheSessionMeansThatItDoesNotExist(t *testing.T) {
	const id = "0198-af3b"
	const internal = -32603
	for _, x := range []struct {
		code    int
		message string
		data    any
		gone    bool
	}{
		{codeNotFound, "Resource not found: " + id, map[string]any{"uri": id}, true},
		{codeNotFound, "Resource not found", nil, true},
		{internal, "Internal error", map[string]any{"details": "no rollout found for thread id " + id}, true},
		{internal, "Internal error", map[string]any{"details": "no rollout found for conversation id " + id + ": nothing"}, true},
		{internal, "Session not found: " + id, nil, true},
		{internal, "Session " + id + " not found", nil, true},
		{internal, "thread not found: " + id, nil, true},
		{internal, `{"error":{"message":"Conversation \"` + id + `\" was not found."}}`, nil, true},
		{internal, "The session with id '" + id + "' does not exist", nil, true},
		{internal, "No previous sessions found for this project.", nil, true},
		{internal, "Invalid session identifier \"" + id + "\".", nil, true},
		{internal, "Invalid params", "no such session here", true},
		{internal, "Unknown session: " + id, nil, true},
		{internal, "No conversation found with session ID: " + id, nil, true},
		{internal, "Failed to find session " + id, nil, true},
		{internal, "session_id " + id + " not found", nil, true},

		{codeNotFound, "Resource not found: /src/gone", map[string]any{"details": "the directory does not exist"}, false},
		{codeNotFound, "Model not found: gpt-9", nil, false},
		{internal, "Internal error", "Claude Code executable not found", false},
		{internal, "MCP server files not found", nil, false},
		{internal, "MCP session not found", nil, false},
		{internal, "PTY session not found: 7", nil, false},
		{internal, "ENOENT: no such file or directory, open '/home/me/.claude/sessions/" + id + "'", nil, false},
		{internal, "spawn claude ENOENT: no such program for session " + id, nil, false},
		{internal, "the working directory of session " + id + " does not exist", nil, false},
		{internal, "session directory does not exist", nil, false},
		{internal, "Session " + id + ": model gpt-9 not found", nil, false},
		{internal, "loading session " + id + ": command not found", nil, false},
		{internal, "Invalid session token", nil, false},
		{internal, "No session token found", nil, false},
		{internal, "no such session file", nil, false},
		{internal, "Method not found", nil, false},
		{-32601, "\"Method not found\": session/load", nil, false},
		{internal, "no such host api.example.com", nil, false},
		{internal, "Internal error", nil, false},
	} {
		err := new(Client).notLoadedIn(id, &sdk.RequestError{Code: x.code, Message: x.message, Data: x.data})
		require.Equal(t, x.gone, errors.Is(err, bgagent.ErrNoSession), "%d %s %v", x.code, x.message, x.data)
		require.NotErrorIs(t, err, bgagent.ErrBusy, "%s", x.message)
	}
}

func (c *Client) notLoadedIn(id string, re *sdk.RequestError) error {
	c.cfg.Command = []string{"agent"}
	return c.notLoaded(&session{id: id}, re)
}
