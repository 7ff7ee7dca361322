//go:build unix

package acp

import (
	"strings"
	"testing"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/calldigest/calldigesttest"
	"github.com/stretchr/testify/require"
)

// callUpdates holds the updates about a call, as the agents send them. ID, INPUT and RESULT are
// replaced.
var callUpdates = map[string][]string{
	"claude-agent-acp": {
		`{"sessionUpdate":"tool_call","toolCallId":"ID","rawInput":{},"status":"pending","title":"Terminal","kind":"execute","content":[]}`,
		`{"sessionUpdate":"tool_call_update","toolCallId":"ID","rawInput":{"command":"INPUT"},"title":"INPUT","content":[{"type":"content","content":{"type":"text","text":"as told"}}]}`,
		`{"sessionUpdate":"tool_call_update","toolCallId":"ID","status":"completed","rawOutput":"<persisted-output>\nOutput too large (164.9KB). Full output saved to: /ID\n\nRESULT"}`,
	},
	"opencode": {
		`{"sessionUpdate":"tool_call","toolCallId":"ID","title":"bash","kind":"execute","status":"pending","rawInput":{"cwd":"/project"}}`,
		`{"sessionUpdate":"tool_call_update","toolCallId":"ID","status":"in_progress","kind":"execute","title":"INPUT","rawInput":{"command":"INPUT","cwd":"/project"}}`,
		`{"sessionUpdate":"tool_call_update","toolCallId":"ID","status":"completed","rawOutput":{"output":"RESULT","metadata":{"output":"RESULT","exit":0,"outputPath":"/ID"}}}`,
	},
	"codex-acp": {
		`{"sessionUpdate":"tool_call","toolCallId":"ID","kind":"execute","title":"INPUT","status":"in_progress","content":[{"type":"terminal","terminalId":"ID"}],"rawInput":{"command":"INPUT"}}`,
		`{"sessionUpdate":"tool_call_update","toolCallId":"ID","_meta":{"terminal_output_delta":{"data":"hi-","terminal_id":"ID"}}}`,
		`{"sessionUpdate":"tool_call_update","toolCallId":"ID","_meta":{"terminal_output_delta":{"data":"RESULT","terminal_id":"ID"}}}`,
		`{"sessionUpdate":"tool_call_update","toolCallId":"ID","status":"completed","_meta":{"terminal_exit":{"exit_code":0,"signal":null,"terminal_id":"ID"}}}`,
	},
	"gemini": {
		`{"sessionUpdate":"tool_call","toolCallId":"ID","kind":"execute","title":"INPUT","status":"in_progress","content":[],"rawInput":{"command":"INPUT"}}`,
		`{"sessionUpdate":"tool_call_update","toolCallId":"ID","status":"completed","content":[{"type":"content","content":{"type":"text","text":"RESULT"}}]}`,
	},
}

// callsOf runs a turn in which the agent sends the updates. It returns the tool calls that the client
// reports as ended.
func callsOf(t *testing.T, c *Client, updates []string) (calls []bgagent.MessageTool) {
	t.Helper()
	for _, r := range reportsOf(t, c, updates) {
		if r.Kind == bgagent.ReportTool && !r.Tool.State.InFlight() {
			calls = append(calls, r.Tool)
		}
	}
	return calls
}

func reportsOf(t *testing.T, c *Client, updates []string) []bgagent.Report {
	t.Helper()
	var lines []string
	for _, u := range updates {
		lines = append(lines, "update "+u)
	}
	e := prompt(t, c, create(t, c), strings.Join(lines, "\n")+"\nsay done")
	require.NoError(t, e.err)
	return e.reports
}

func TestEqualToolCallsHaveEqualDigests(t *testing.T) {
	for name, call := range callUpdates {
		t.Run(name, func(t *testing.T) {
			bubble(t, Config{}, false, func(t *testing.T, c *Client) {
				var updates []string
				for _, x := range [][3]string{{"one", "ls", "a"}, {"two", "ls", "a"}, {"three", "pwd", "a"}, {"four", "ls", "b"}} {
					for _, u := range call {
						updates = append(updates, strings.NewReplacer("ID", x[0], "INPUT", x[1], "RESULT", x[2]).Replace(u))
					}
				}
				calls := callsOf(t, c, updates)
				calldigesttest.CheckFour(t, calls)
			})
		})
	}
}

func TestTheOutputOfATerminalIsTheSameInPiecesOfAnySize(t *testing.T) {
	bubble(t, Config{}, false, func(t *testing.T, c *Client) {
		whole, other := []string{}, []string{}
		for i, u := range callUpdates["codex-acp"] {
			u = strings.ReplaceAll(u, "RESULT", "there")
			if i == 2 {
				continue
			}
			whole = append(whole, strings.ReplaceAll(strings.Replace(u, `"hi-"`, `"hi-there"`, 1), "ID", "whole"))
			other = append(other, strings.ReplaceAll(strings.Replace(u, `"hi-"`, `"hi-there"`, 1), "ID", "other"))
		}
		other[len(other)-1] = strings.Replace(other[len(other)-1], `"exit_code":0`, `"exit_code":1`, 1)
		var pieces []string
		for _, u := range callUpdates["codex-acp"] {
			pieces = append(pieces, strings.NewReplacer("ID", "pieces", "RESULT", "there").Replace(u))
		}
		calls := callsOf(t, c, append(append(whole, other...), pieces...))
		require.Len(t, calls, 3)
		require.Equal(t, calls[0].Result, calls[2].Result)
		require.NotEqual(t, calls[0].Result, calls[1].Result, "the exit code")
	})
}

func TestResultsThatTheAgentDoesNotSendAreUnknown(t *testing.T) {
	bubble(t, Config{}, false, func(t *testing.T, c *Client) {
		calls := callsOf(t, c, []string{
			`{"sessionUpdate":"tool_call","toolCallId":"1","title":"x","status":"completed","rawInput":{"a":1}}`,
			`{"sessionUpdate":"tool_call","toolCallId":"2","title":"x","status":"completed","rawInput":{"a":1},"content":[{"type":"terminal","terminalId":"t"}]}`,
			`{"sessionUpdate":"tool_call","toolCallId":"3","title":"x","status":"completed","rawInput":{"a":1},"rawOutput":"x","content":7}`,
			`{"sessionUpdate":"tool_call","toolCallId":"4","title":"x","status":"in_progress","rawInput":{"a":1}}`, // never ends
		})
		require.Len(t, calls, 4)
		for _, call := range calls {
			require.Zero(t, call.Result, call.ID)
		}
	})
}

func TestTheCompactionsOfCodexAreReported(t *testing.T) {
	bubble(t, Config{}, false, func(t *testing.T, c *Client) {
		compactions := 0
		for _, r := range reportsOf(t, c, []string{
			`{"sessionUpdate":"tool_call","toolCallId":"1","kind":"think","title":"Compact conversation","status":"in_progress"}`,
			`{"sessionUpdate":"tool_call_update","toolCallId":"1","status":"completed"}`,
			`{"sessionUpdate":"tool_call","toolCallId":"2","kind":"think","title":"Compact conversation","status":"in_progress"}`,
		}) {
			require.NotEqual(t, bgagent.ReportTool, r.Kind, "the agent did not make the call")
			if r.Kind == bgagent.ReportCompaction {
				compactions++
			}
		}
		require.Equal(t, 2, compactions)
	})
}
