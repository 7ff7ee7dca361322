package command

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/calldigest/calldigesttest"
	"github.com/bgagent/bgagent/internal/jsonlines"
	"github.com/stretchr/testify/require"
)

// The function "reported" decodes the output of one turn and returns the resulting reports.
func reported(decode Decoder, output string) (reports []bgagent.Report) {
	o := newOutput(bgagent.NewReporter(func(r bgagent.Report) { reports = append(reports, r) }), 1, bgagent.Usage{})
	in := jsonlines.NewReader(bytes.NewReader([]byte(output)), jsonlines.Config{MaxLine: 1 << 20})
	for {
		line, err := in.Next()
		if err != nil {
			return reports
		}
		decode(line, o)
	}
}

// Each program's lines report the same call twice, then a call with a different input and a call
// with a different result. Some programs put the name of a new file into a long result; in their
// lines, the names differ.
var callLines = map[string]struct {
	call    string // lines of a call; ID, INPUT and RESULT are replaced
	results [2]string
	other   string
	unknown []string // lines of calls whose results are unknown
}{
	"codex": {
		call: `{"type":"item.started","item":{"id":"ID","type":"command_execution","command":"INPUT","aggregated_output":"","exit_code":null,"status":"in_progress"}}` + "\n" +
			`{"type":"item.completed","item":{"id":"ID","type":"command_execution","command":"INPUT","aggregated_output":"RESULT","exit_code":0,"status":"completed"}}`,
		results: [2]string{`hi`, `hi`}, other: `ho`,
		unknown: []string{`{"type":"item.completed","item":{"id":"x","type":"file_change","changes":[{"path":"a"}],"status":"completed"}}`,
			`{"type":"item.completed","item":{"id":"y","type":"web_search","query":"q"}}`},
	},
	"gemini": {
		call: `{"type":"tool_use","tool_name":"run_shell_command","tool_id":"ID","parameters":{"command":"INPUT"}}` + "\n" +
			`{"type":"tool_result","tool_id":"ID","status":"success","output":"RESULT"}`,
		results: [2]string{`hi`, `hi`}, other: `ho`,
		unknown: []string{`{"type":"tool_use","tool_name":"x","tool_id":"x","parameters":{}}` + "\n" + `{"type":"tool_result","tool_id":"x","status":"success"}`},
	},
	"opencode": {
		call:    `{"type":"tool_use","sessionID":"ses_1","part":{"type":"tool","tool":"bash","callID":"ID","state":{"status":"completed","input":{"command":"INPUT"},"output":"RESULT","metadata":{"exit":0}}}}`,
		results: [2]string{`...output truncated...\n\nFull output saved to: /tool_1\n\n9`, `...output truncated...\n\nFull output saved to: /tool_2\n\n9`}, other: `8`,
		unknown: []string{`{"type":"tool_use","sessionID":"ses_1","part":{"type":"tool","tool":"bash","callID":"x","state":{"status":"error","input":{}}}}`},
	},
	"claude": {
		call: `{"type":"assistant","message":{"content":[{"type":"tool_use","id":"ID","name":"Bash","input":{"command":"INPUT"}}]},"session_id":"s"}` + "\n" +
			`{"type":"user","message":{"content":[{"type":"tool_result","tool_use_id":"ID","content":"RESULT","is_error":false}]},"session_id":"s"}`,
		results: [2]string{`<persisted-output>\nOutput too large (164.9KB). Full output saved to: /p/b1.txt\n\nPreview (first 2KB):\n1`, `<persisted-output>\nOutput too large (164.9KB). Full output saved to: /p/b2.txt\n\nPreview (first 2KB):\n1`}, other: `1`,
		unknown: []string{`{"type":"assistant","message":{"content":[{"type":"tool_use","id":"x","name":"Bash","input":{}}]},"session_id":"s"}` + "\n" +
			`{"type":"user","message":{"content":[{"type":"tool_result","tool_use_id":"x"}]},"session_id":"s"}`},
	},
	"lines": {
		call:    `{"type":"tool","id":"ID","name":"grep","state":"running","input":["INPUT"]}` + "\n" + `{"type":"tool","id":"ID","name":"grep","state":"done","result":{"found":"RESULT"}}`,
		results: [2]string{`a`, `a`}, other: `b`,
		unknown: []string{`{"type":"tool","id":"x","name":"grep","state":"done","input":"x"}`},
	},
}

func TestDecodersTellEqualCallsFromOthers(t *testing.T) {
	require.Len(t, callLines, len(decoders))
	for name, c := range callLines {
		t.Run(name, func(t *testing.T) {
			var lines []string
			for _, x := range [][3]string{{"1", "ls", c.results[0]}, {"2", "ls", c.results[1]}, {"3", "pwd", c.results[0]}, {"4", "ls", c.other}} {
				lines = append(lines, strings.NewReplacer("ID", x[0], "INPUT", x[1], "RESULT", x[2]).Replace(c.call))
			}
			ended := func(lines []string) (calls []bgagent.MessageTool) {
				for _, r := range reported(decoders[name](), strings.Join(lines, "\n")) {
					if r.Kind == bgagent.ReportTool && !r.Tool.State.InFlight() {
						calls = append(calls, r.Tool)
					}
				}
				return calls
			}
			calls := ended(lines)
			calldigesttest.CheckFour(t, calls)
			calls = ended(c.unknown)
			require.Len(t, calls, len(c.unknown))
			for _, call := range calls {
				require.Zero(t, call.Result)
			}
		})
	}
}

func TestTheToolsOfCodexServersHaveDigests(t *testing.T) {
	reports := reported(decodeCodex(), `{"type":"item.completed","item":{"id":"1","type":"mcp_tool_call","server":"s","tool":"t","arguments":{"a":1},"result":{"content":[]},"status":"completed"}}
{"type":"item.completed","item":{"id":"2","type":"mcp_tool_call","server":"s","tool":"t","arguments":{"a":1},"result":null,"error":{"message":"no"},"status":"failed"}}`)
	require.Len(t, reports, 2)
	require.NotZero(t, reports[0].Tool.Input)
	require.Equal(t, reports[0].Tool.Input, reports[1].Tool.Input)
	require.NotZero(t, reports[0].Tool.Result)
	require.NotZero(t, reports[1].Tool.Result)
	require.NotEqual(t, reports[0].Tool.Result, reports[1].Tool.Result)
}

// inARow returns the number of compactions in a row at the end of the reports, as the manager counts
// them. If there are two compactions in a row before the end, the result is 2, because the manager
// ends the turn after them.
func inARow(reports []bgagent.Report) (n int) {
	for _, r := range reports {
		switch r.Kind {
		case bgagent.ReportCompaction:
			n++
		case bgagent.ReportTool:
			n = 0
		case bgagent.ReportText:
			if strings.TrimSpace(r.Text) != "" {
				n = 0
			}
		}
		if n == 2 {
			return n
		}
	}
	return n
}

func TestCompactionsAreReported(t *testing.T) {
	recorded, err := os.ReadFile("testdata/opencode_toolong.jsonl")
	require.NoError(t, err)
	lines := strings.SplitAfter(string(recorded), "\n")
	reports := reported(decodeOpencode(), string(recorded))
	require.Equal(t, 2, inARow(reports), "it compacts again and again")
	for _, r := range reports {
		require.NotContains(t, r.Text, "The previous request exceeded", "opencode has written this itself")
	}
	call := strings.NewReplacer("ID", "1", "INPUT", "ls", "RESULT", "a").Replace(callLines["opencode"].call) + "\n"
	said := strings.Replace(lines[2], "Scripted summary", "I go on.", 1)
	for _, between := range []string{call, said} {
		output := strings.Join(lines[:5], "") + between + strings.Join(lines[5:], "")
		require.Less(t, inARow(reported(decodeOpencode(), output)), 2, between)
	}

	const compacted = `{"type":"system","subtype":"compact_boundary","session_id":"s","compact_metadata":{"trigger":"auto","pre_tokens":1000}}` + "\n"
	text := `{"type":"assistant","message":{"content":[{"type":"text","text":"I go on."}]},"session_id":"s"}` + "\n"
	require.Equal(t, 2, inARow(reported(decodeClaude(), compacted+compacted)))
	require.Equal(t, 1, inARow(reported(decodeClaude(), compacted+text+compacted)))
	require.Equal(t, 2, inARow(reported(DecodeLines(), strings.Repeat(`{"type":"compaction"}`+"\n", 2))))
}
