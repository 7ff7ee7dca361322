package command

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unsafe"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/jsonlines"
	"github.com/stretchr/testify/require"
)

var decoders = map[string]func() Decoder{
	"codex": decodeCodex, "gemini": decodeGemini, "opencode": decodeOpencode, "claude": decodeClaude, "lines": DecodeLines,
}

// told contains the reports that a manager gets about a turn.
type told struct {
	text    string // text since the last tool call, as the manager joins it
	all     string // all text of the turn
	events  []string
	usage   bgagent.Usage
	todos   []bgagent.Todo
	afterTo bool
}

func (t *told) take(r bgagent.Report) {
	switch r.Kind {
	case bgagent.ReportText:
		if t.afterTo {
			t.text, t.afterTo = "", false
		}
		t.text += r.Text
		t.all += r.Text
	case bgagent.ReportTool:
		t.afterTo = true
		t.events = append(t.events, r.Tool.ID+" "+r.Tool.Name+" "+r.Tool.State.String())
	case bgagent.ReportTodos:
		t.todos = r.Todos
	case bgagent.ReportReasoning:
		t.events = append(t.events, "thinks "+r.Text)
	case bgagent.ReportUsage:
		t.usage.InputTokens += r.Usage.InputTokens
		t.usage.OutputTokens += r.Usage.OutputTokens
		t.usage.Cost += r.Usage.Cost
	}
}

// decodeAll decodes the whole output of a program in one turn.
func decodeAll(decode Decoder, turn int, before bgagent.Usage, output []byte) (said, told) {
	var heard told
	o := newOutput(bgagent.NewReporter(heard.take), turn, before)
	in := jsonlines.NewReader(bytes.NewReader(output), jsonlines.Config{MaxLine: 1 << 20})
	for {
		line, err := in.Next()
		if err != nil {
			said := o.said()
			heard.usage = more(heard.usage, said.used)
			return said, heard
		}
		decode(line, o)
		o.reportUsage()
	}
}

func TestDecodersReadRecordedOutput(t *testing.T) {
	const endOfTurn, failed = bgagent.StopEndOfTurn, bgagent.StopError
	used := func(in, out int64) bgagent.Usage { return bgagent.Usage{InputTokens: in, OutputTokens: out} }
	for _, tc := range []struct {
		file    string
		session string
		text    string
		stop    bgagent.StopReason // StopUntold if no end is reported
		problem string
		lastErr string
		usage   bgagent.Usage
		events  string // tool calls and their states, one per line
		todos   int
	}{
		{file: "codex_say", session: "01a2", text: "hello there", stop: endOfTurn, usage: used(10, 5)},
		{file: "codex_tool", session: "01a2", text: "done", stop: endOfTurn, usage: used(20, 10), events: "1.item_1 command_execution running\n1.item_1 command_execution done"},
		{file: "codex_resumed", session: "01a2", text: "again", stop: endOfTurn, usage: used(30, 15)},
		{file: "codex_tool_failed", session: "01a2", text: "done", stop: endOfTurn, usage: used(20, 10), events: "1.item_1 command_execution running\n1.item_1 command_execution failed"},
		{file: "codex_400", session: "01a2", stop: failed, problem: "no thanks", lastErr: "no thanks"},
		{file: "codex_500", session: "01a2", stop: failed, problem: "We’re currently experiencing high demand, which may cause temporary errors.", lastErr: "We’re currently experiencing high demand, which may cause temporary errors."},
		{file: "codex_429", session: "01a2", stop: failed, problem: "exceeded retry limit, last status: 429 Too Many Requests", lastErr: "exceeded retry limit, last status: 429 Too Many Requests"},
		{file: "codex_interrupted", session: "01a2", events: "1.item_1 command_execution running"},
		{file: "gemini_say", session: "-", text: "hello there", stop: endOfTurn, usage: used(10, 5)},
		{file: "gemini_tool", session: "-", text: "done", stop: endOfTurn, usage: used(20, 10), events: "run_shell_command running\nrun_shell_command done"},
		{file: "gemini_tool_failed", session: "-", text: "done", stop: endOfTurn, usage: used(20, 10), events: "run_shell_command running\nrun_shell_command done"},
		{file: "gemini_400", session: "-", stop: failed, problem: "[API Error: no thanks]"},
		{file: "gemini_interrupted", session: "-", events: "run_shell_command running"},
		{file: "opencode_say", session: "ses_", text: "hello there", stop: endOfTurn, usage: used(10, 5)},
		{file: "opencode_tool", session: "ses_", text: "done", stop: endOfTurn, usage: used(20, 10), events: "bash done"},
		{file: "opencode_todos", session: "ses_", text: "done", stop: endOfTurn, usage: used(20, 10), events: "todowrite done", todos: 2},
		{file: "opencode_400", session: "ses_", stop: failed, problem: "no thanks"},
		{file: "opencode_unknown_model", session: "ses_", stop: failed, problem: "Unexpected server error. Check server logs for details."},
		{file: "opencode_denied", session: "ses_", text: "done", stop: endOfTurn, usage: used(30, 15), events: "bash failed\nbash done"},
		{file: "opencode_rejected", session: "ses_", lastErr: "The user rejected permission to use this specific tool call.", usage: used(10, 5), events: "bash failed"},
		{file: "opencode_interrupted", session: "ses_"},
		{file: "claude_say", session: "7c1d0f6e", text: "hello there", stop: endOfTurn, usage: bgagent.Usage{InputTokens: 1210, OutputTokens: 5, Cost: 0.0123}},
		{file: "claude_tool", session: "s-1", text: "There is a README.", stop: endOfTurn, usage: bgagent.Usage{InputTokens: 40, OutputTokens: 20, Cost: 0.05}, todos: 2,
			events: "thinks Let me look.\n1.toolu_1 Bash running\n1.toolu_1 Bash done\n1.toolu_2 TodoWrite running\n1.toolu_2 TodoWrite done\n1.toolu_3 Task running\n1.toolu_3 Task failed"},
		{file: "claude_max_turns", session: "s-1", text: "So far", stop: bgagent.StopTurnLimit, usage: bgagent.Usage{InputTokens: 4, OutputTokens: 2, Cost: 0.01}},
		{file: "claude_api_error", session: "s-1", stop: failed, problem: "API Error: 400 no thanks", lastErr: "API Error: 400 no thanks"},
		{file: "claude_refusal", session: "s-1", text: "I cannot.", stop: bgagent.StopRefused, usage: bgagent.Usage{InputTokens: 4, OutputTokens: 2, Cost: 0.001}},
		{file: "claude_interrupted", session: "s-1", text: "I will look.", events: "thinks Let me look.\n1.toolu_1 Bash running"},
	} {
		t.Run(tc.file, func(t *testing.T) {
			data, err := os.ReadFile(filepath.Join("testdata", tc.file+".jsonl"))
			require.NoError(t, err)
			program, _, _ := strings.Cut(tc.file, "_")
			got, heard := decodeAll(decoders[program](), 1, bgagent.Usage{}, data)
			require.True(t, got.known)
			require.Contains(t, got.session, tc.session)
			require.Equal(t, tc.text, got.text)
			require.Equal(t, tc.lastErr, got.lastErr)
			if tc.stop == bgagent.StopUntold {
				require.Nil(t, got.end, "the program has not reported the end of the turn")
			} else {
				require.NotNil(t, got.end)
				require.Equal(t, tc.stop, got.end.stop)
				require.Equal(t, tc.problem, got.end.problem)
			}
			require.Equal(t, tc.usage, heard.usage)
			require.Len(t, heard.todos, tc.todos)
			require.Equal(t, strings.TrimSpace(tc.events), calls(heard.events))
			if len(got.tools) == 0 || tc.text == "" || heard.afterTo {
				return
			}
			require.Equal(t, tc.text, heard.text, "the manager joins the same text")
		})
	}
}

// The function "calls" returns the events as one string. It omits the long call ids of gemini and
// opencode.
func calls(events []string) string {
	out := make([]string, len(events))
	for i, e := range events {
		id, rest, _ := strings.Cut(e, " ")
		if out[i] = e; strings.Contains(id, "run_shell_command") || strings.Contains(id, "call_") {
			out[i] = rest
		}
	}
	return strings.Join(out, "\n")
}

func TestCodexTokensOfEarlierTurnsAreNotCountedTwice(t *testing.T) {
	data, err := os.ReadFile("testdata/codex_resumed.jsonl")
	require.NoError(t, err)
	got, heard := decodeAll(decodeCodex(), 2, bgagent.Usage{InputTokens: 20, OutputTokens: 10}, data)
	require.Equal(t, bgagent.Usage{InputTokens: 10, OutputTokens: 5}, heard.usage)
	require.Equal(t, bgagent.Usage{InputTokens: 30, OutputTokens: 15}, got.total)
}

// The lines in this test come from the programs' documentation, not from recorded output.
func TestDecodersReadDocumentedLines(t *testing.T) {
	for _, tc := range []struct{ program, line, want string }{
		{"codex", `{"type":"item.completed","item":{"id":"i","type":"reasoning","text":"hm"}}`, "thinks hm"},
		{"codex", `{"type":"item.started","item":{"id":"i","type":"mcp_tool_call","server":"db","tool":"query","status":"in_progress"}}`, "1.i db.query running"},
		{"codex", `{"type":"item.completed","item":{"id":"i","type":"mcp_tool_call","tool":"query","status":"failed"}}`, "1.i query failed"},
		{"codex", `{"type":"item.completed","item":{"id":"i","type":"file_change","changes":[{"path":"a","kind":"add"}],"status":"completed"}}`, "1.i file_change done"},
		{"codex", `{"type":"item.completed","item":{"id":"i","type":"command_execution","status":"declined"}}`, "1.i command_execution failed"},
		{"codex", `{"type":"item.updated","item":{"id":"i","type":"todo_list","items":[{"text":"a","completed":true},{"text":"b","completed":false}]}}`, "a completed, b pending"},
		{"codex", `{"type":"item.started","item":{"id":"i","type":"agent_message","text":"not whole"}}`, ""},
		{"gemini", `{"type":"message","role":"assistant","content":"whole"}`, "says whole"},
		{"gemini", `{"type":"error","severity":"warning","message":"loop"}`, ""},
		{"gemini", `{"type":"error","severity":"warning","message":"Loop detected, stopping execution"}` + "\n" + `{"type":"result","status":"success"}`, "ends turn limit Loop detected, stopping execution"},
		{"gemini", `{"type":"error","severity":"warning","message":"Response truncated due to token limits."}` + "\n" + `{"type":"result","status":"success"}`, "ends length Response truncated due to token limits."},
		{"gemini", `{"type":"error","severity":"warning","message":"a slow network"}` + "\n" + `{"type":"result","status":"success"}`, "ends end of turn "},
		{"gemini", `{"type":"error","severity":"error","message":"Model stream ended without a finish reason."}` + "\n" + `{"type":"result","status":"error","stats":{}}`, "problem Model stream ended without a finish reason., ends error "},
		{"gemini", `{"type":"error","severity":"error","message":"Maximum session turns exceeded"}`, "problem Maximum session turns exceeded"},
		{"gemini", `{"type":"result","status":"error","error":{"type":"FatalTurnLimitedError","message":"too many"}}`, "ends turn limit too many"},
		{"opencode", `{"type":"reasoning","sessionID":"s","part":{"text":"hm"}}`, "thinks hm"},
		{"opencode", `{"type":"step_finish","sessionID":"s","part":{"reason":"content-filter"}}`, "ends refused "},
		{"opencode", `{"type":"step_finish","sessionID":"s","part":{"reason":"error"}}`, "ends error "},
		{"opencode", `{"type":"tool_use","sessionID":"s","part":{"callID":"c","tool":"todowrite","state":{"status":"completed","input":{"todos":[{"content":"a","status":"cancelled"}]}}}}`, "1.c todowrite done, a cancelled"},
		{"claude", `{"type":"assistant","message":{"content":"just text"}}`, "says just text"},
		{"claude", `{"type":"assistant","message":{"content":[{"type":"text","text":7},{"type":"text","text":"kept"}]}}`, "says kept"},
		{"claude", `{"type":"result","subtype":"error_during_execution","is_error":true}`, "ends error error_during_execution"},
		{"claude", `{"type":"result","subtype":"error_during_execution","errors":["lost"]}`, "ends error lost"},
		{"claude", `{"type":"result","subtype":"success","stop_reason":"max_tokens","result":"cut"}`, "says cut, ends length "},
	} {
		said, heard := decodeAll(decoders[tc.program](), 1, bgagent.Usage{}, []byte(tc.line))
		require.True(t, said.known, tc.line)
		got := heard.events
		for _, todo := range heard.todos {
			got = append(got, todo.Text+" "+todo.State.String())
		}
		if said.text != "" {
			got = append(got, "says "+said.text)
		}
		if said.lastErr != "" {
			got = append(got, "problem "+said.lastErr)
		}
		if said.end != nil {
			got = append(got, "ends "+said.end.stop.String()+" "+said.end.problem)
		}
		require.Equal(t, tc.want, strings.Join(got, ", "), tc.line)
	}
}

func TestDecodeLinesReadsItsFormat(t *testing.T) {
	got, heard := decodeAll(DecodeLines(), 3, bgagent.Usage{}, []byte(`greetings
{"type":"session","id":"s1"}
{"type":"reasoning","text":"hm"}
{"type":"tool","id":"1","name":"grep","state":"pending"}
{"type":"tool","id":"1","state":"failed"}
{"type":"text","text":"a"}
{"type":"text","text":"b"}
{"type":"message","text":"c"}
{"type":"todos","todos":[{"text":"x","state":"in progress"},{"text":"y","state":"completed"},{"text":"z","state":"?"}]}
{"type":"usage","input":1,"output":2,"cost":0.5}
{"type":"activity"}
{"type":"news","text":"from the future"}
{"type":"end","stop":"Turn limit","error":"enough"}
`))
	require.Equal(t, "s1", got.session)
	require.Equal(t, "c", got.text)
	require.Equal(t, "ab\n\nc", heard.text)
	require.Equal(t, &ending{bgagent.StopTurnLimit, "", "enough"}, got.end)
	require.Equal(t, []string{"thinks hm", "3.1 grep pending", "3.1 grep failed"}, heard.events)
	require.Equal(t, []bgagent.Todo{{Text: "x", State: bgagent.TodoInProgress}, {Text: "y", State: bgagent.TodoCompleted}, {Text: "z"}}, heard.todos)
	require.Equal(t, bgagent.Usage{InputTokens: 1, OutputTokens: 2, Cost: 0.5}, heard.usage)

	for line, want := range map[string]bgagent.StopReason{
		`{"type":"end"}`: bgagent.StopEndOfTurn, `{"type":"end","error":"x"}`: bgagent.StopError,
		`{"type":"end","stop":"refused"}`: bgagent.StopRefused, `{"type":"end","stop":"untold"}`: bgagent.StopError, `{"type":"end","stop":"?"}`: bgagent.StopError,
	} {
		got, _ := decodeAll(DecodeLines(), 1, bgagent.Usage{}, []byte(line))
		require.Equal(t, want, got.end.stop, line)
	}
}

func TestKeptOutputIsBounded(t *testing.T) {
	var heard []bgagent.MessageTool
	o := newOutput(bgagent.NewReporter(func(r bgagent.Report) {
		if r.Kind == bgagent.ReportTool {
			heard = append(heard, r.Tool)
		}
	}), 1, bgagent.Usage{})
	long := strings.Repeat("x", 1<<20)
	o.Tool(long+"1", long, bgagent.ToolRunning)
	o.Tool(long+"2", "", bgagent.ToolRunning)
	o.Tool(long+"1", "", bgagent.ToolDone)
	require.NotEqual(t, heard[0].ID, heard[1].ID, "long ids stay different")
	require.Equal(t, heard[0].ID, heard[2].ID)
	o.Session("s")
	o.Session(long)
	o.Problem(long)
	o.End(bgagent.StopError, "", long)
	got := o.said()
	require.Equal(t, "s", got.session)
	require.LessOrEqual(t, len(got.lastErr), maxProblem)
	require.LessOrEqual(t, len(got.end.problem), maxProblem)
	require.Len(t, got.tools, 2)
	for _, tool := range got.tools {
		require.LessOrEqual(t, len(tool.ID)+len(tool.Name), 2*maxName)
	}
}

func TestAToolCallDoesNotCopyTheTextBeforeItAgain(t *testing.T) {
	o := newOutput(nil, 1, bgagent.Usage{})
	o.Message(strings.Repeat("x", 1<<20))
	o.Tool("1", "grep", bgagent.ToolRunning)
	last := o.last
	o.Tool("2", "grep", bgagent.ToolRunning)
	require.Equal(t, unsafe.StringData(last), unsafe.StringData(o.last))
	o.Text("y")
	o.Tool("3", "grep", bgagent.ToolRunning)
	require.Equal(t, "y", o.last)
}

func TestTheLastEndCounts(t *testing.T) {
	step := func(kind, reason string) string {
		return fmt.Sprintf(`{"type":%q,"sessionID":"s","part":{"reason":%q}}`+"\n", kind, reason)
	}
	got, _ := decodeAll(decodeOpencode(), 1, bgagent.Usage{}, []byte(step("step_start", "")+step("step_finish", "stop")+step("step_start", "")))
	require.Nil(t, got.end, "a new step withdraws the reported end")
	got, _ = decodeAll(decodeOpencode(), 1, bgagent.Usage{}, []byte(step("step_start", "")+step("step_finish", "length")))
	require.Equal(t, bgagent.StopLength, got.end.stop)
	got, _ = decodeAll(decodeOpencode(), 1, bgagent.Usage{}, []byte(step("step_finish", "stop")+`{"type":"error","error":{"name":"Broken"}}`))
	require.Equal(t, &ending{bgagent.StopError, "", "Broken"}, got.end)
}

func TestErrorTextFindsTheMessage(t *testing.T) {
	for in, want := range map[string]string{
		`plain`:                                    "plain",
		`{"error":{"message":"deep","code":1}}`:    "deep",
		`{"message":"flat"}`:                       "flat",
		`[API Error: {"error":{"message":"in"}}]`:  "[API Error: in]",
		`{"error":"a string"}`:                     `{"error":"a string"}`,
		`{"other":1}`:                              `{"other":1}`,
		`} upside down {`:                          `} upside down {`,
		"{\"error\":{\"message\":\"line end\"}}\n": "line end",
	} {
		require.Equal(t, want, errorText(in))
	}
}
