package command

import (
	"encoding/json"
	"flag"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/race"
	"github.com/stretchr/testify/require"
)

// The function "recorded" returns the names of the recorded turns, without .jsonl.
func recorded(t testing.TB) (names []string) {
	t.Helper()
	files, err := filepath.Glob("testdata/*.jsonl")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, f := range files {
		names = append(names, strings.TrimSuffix(filepath.Base(f), ".jsonl"))
	}
	return names
}

func record(t testing.TB, name string) (program string, data []byte) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name+".jsonl"))
	require.NoError(t, err)
	program, _, _ = strings.Cut(name, "_")
	return program, data
}

func TestNoiseAroundLinesDoesNotChangeTheTurn(t *testing.T) {
	for _, name := range recorded(t) {
		program, data := record(t, name)
		want, heard := decodeAll(decoders[program](), 1, bgagent.Usage{}, data)
		for how, around := range map[string][2]string{
			"title": {"\x1b]0;a title\x07", ""}, "colours": {"\x1b[1;31m", "\x1b[0m"}, "mark": {"\ufeff", ""}, "progress": {"10 %\r20 %\r", "\r"},
			"banner": {"Welcome!", ""}, "lines": {"npm warn old\n\n", "\n{\"type\":\"news\"}"}, "behind": {"", " (node:7) Warning"}, "torn": {`{"type":"to`, ""}, "DCS": {"\x1bP1$r\x1b\\", "\x00"},
		} {
			lines := strings.Split(strings.TrimSpace(string(data)), "\n")
			got, also := decodeAll(decoders[program](), 1, bgagent.Usage{}, []byte(around[0]+strings.Join(lines, around[1]+"\n"+around[0])+around[1]))
			require.Equal(t, want, got, "%s, %s", name, how)
			require.Equal(t, heard, also, "%s, %s", name, how)
		}
	}
}

// decisive lists the keys whose values can change the meaning of a line.
var decisive = map[string]bool{
	"type": true, "subtype": true, "status": true, "reason": true, "result": true, "is_error": true, "error": true, "errors": true, "data": true, "name": true,
	"message": true, "content": true, "text": true, "role": true, "item": true, "part": true, "delta": true, "stop_reason": true, "severity": true, "model": true,
	"is_api_error_message": true, "parent_tool_use_id": true, "": true,
}

// mutations passes copies of the object to f. In each copy, one value is replaced.
func mutations(v any, by any, key string, rebuild func(any) any, f func(key string, whole any)) {
	f(key, rebuild(by))
	switch v := v.(type) {
	case map[string]any:
		for k, inner := range v {
			mutations(inner, by, k, func(x any) any {
				changed := map[string]any{}
				for k, inner := range v {
					changed[k] = inner
				}
				changed[k] = x
				return rebuild(changed)
			}, f)
		}
	case []any:
		for i, inner := range v {
			mutations(inner, by, key, func(x any) any {
				changed := append([]any{}, v...)
				changed[i] = x
				return rebuild(changed)
			}, f)
		}
	}
}

var everyField = flag.Bool("command.every", false, "try every change of every field of the recorded lines, and not only a random part of them")

// Without -command.every, the test tries only some of the changes.
func TestFieldsOfAnUnexpectedTypeDoNotSpoilTheirLine(t *testing.T) {
	oneOf := 4
	switch {
	case *everyField:
		oneOf = 1
	case race.Enabled: // with the race detector, a try takes about ten times as long
		oneOf = 40
	}
	for _, name := range recorded(t) {
		program, data := record(t, name)
		want, _ := decodeAll(decoders[program](), 1, bgagent.Usage{}, data)
		lines := strings.Split(strings.TrimSpace(string(data)), "\n")
		for i, line := range lines {
			var object map[string]any
			require.NoError(t, json.Unmarshal([]byte(line), &object))
			for _, by := range []any{nil, 7.5, -1, 1e300, "a string", true, []any{map[string]any{"a": 1}}, []any{"x"}, map[string]any{"b": []any{}}} {
				mutations(object, by, "", func(x any) any { return x }, func(key string, whole any) {
					if rand.IntN(oneOf) > 0 { // the message of a failed test contains the whole change, so no seed is needed
						return
					}
					b, err := json.Marshal(whole)
					require.NoError(t, err)
					changed := append(append(append([]string{}, lines[:i]...), string(b)), lines[i+1:]...)
					got, _ := decodeAll(decoders[program](), 1, bgagent.Usage{}, []byte(strings.Join(changed, "\n")))
					if decisive[key] {
						return // the meaning can change, but the decoder must not panic
					}
					require.Equal(t, want.end, got.end, "%s, %s = %v: %s", name, key, by, b)
					require.Equal(t, want.text, got.text, "%s, %s = %v: %s", name, key, by, b)
				})
			}
			for key, value := range object { // every key occurs twice in the line
				if value == nil {
					continue
				}
				for _, by := range []string{"null", "7", `"x"`, "[1]"} {
					doubled := `{"` + key + `":` + by + "," + line[1:]
					changed := append(append(append([]string{}, lines[:i]...), doubled), lines[i+1:]...)
					got, _ := decodeAll(decoders[program](), 1, bgagent.Usage{}, []byte(strings.Join(changed, "\n")))
					require.Equal(t, want, got, doubled)
				}
			}
		}
	}
}

// afterTheEnd contains, for each program, lines with an answer and an end, and a line that can follow the
// end.
var afterTheEnd = map[string]struct{ answer, end, tip string }{
	"codex":    {`{"type":"item.completed","item":{"id":"1","type":"agent_message","text":"the answer"}}`, `{"type":"turn.completed"}`, `{"type":"item.completed","item":{"id":"2","type":"agent_message","text":"tip"}}`},
	"gemini":   {`{"type":"message","role":"assistant","content":"the answer"}`, `{"type":"result","status":"success"}`, `{"type":"message","role":"assistant","content":"tip","delta":true}`},
	"opencode": {`{"type":"text","sessionID":"s","part":{"text":"the answer"}}`, `{"type":"step_finish","sessionID":"s","part":{"reason":"stop"}}`, `{"type":"text","sessionID":"s","part":{"text":"tip"}}`},
	"claude":   {`{"type":"assistant","message":{"content":[{"type":"text","text":"the answer"}]}}`, `{"type":"result","subtype":"success","result":"the answer"}`, `{"type":"assistant","message":{"content":[{"type":"text","text":"tip"},{"type":"tool_use","id":"1","name":"Bash"}]}}`},
	"lines":    {`{"type":"message","text":"the answer"}`, `{"type":"end"}`, `{"type":"message","text":"Tip: upgrade to v2!"}` + "\n" + `{"type":"text","text":"x"}` + "\n" + `{"type":"tool","id":"1","name":"grep","state":"done"}`},
}

func TestTextAfterTheEndIsNotTheAnswer(t *testing.T) {
	for program, x := range afterTheEnd {
		for _, out := range []string{x.answer + "\n" + x.end + "\n" + x.tip, x.answer + "\n" + x.end + "\n" + x.tip + "\n" + x.end} {
			said, heard := decodeAll(decoders[program](), 1, bgagent.Usage{}, []byte(out))
			require.NotNil(t, said.end, program)
			require.Equal(t, bgagent.StopEndOfTurn, said.end.stop, program)
			require.Equal(t, "the answer", said.text, program)
			require.Equal(t, "the answer", heard.all, program)
			require.Empty(t, heard.events, program)
		}
	}
}

const (
	claudeStarted = `{"type":"system","subtype":"task_started","task_id":"b1","tool_use_id":"t1","description":"go test","is_backgrounded":true,"session_id":"s"}`
	claudeFirst   = `{"type":"assistant","message":{"content":[{"type":"text","text":"I have started the tests and wait for them"}]},"session_id":"s"}
{"type":"result","subtype":"success","result":"I have started the tests and wait for them","total_cost_usd":0.10,"session_id":"s"}`
	claudeDone   = `{"type":"system","subtype":"task_notification","task_id":"b1","tool_use_id":"t1","status":"completed","session_id":"s"}`
	claudeSecond = `{"type":"assistant","message":{"content":[{"type":"text","text":"The tests pass"}]},"session_id":"s"}
{"type":"result","subtype":"success","result":"The tests pass","total_cost_usd":0.15,"session_id":"s"}`
)

func TestATurnContinuesDuringClaudesBackgroundWork(t *testing.T) {
	call := `{"type":"assistant","message":{"content":[{"type":"tool_use","id":"t1","name":"Bash","input":{}}]},"session_id":"s"}`
	result := `{"type":"user","message":{"content":[{"type":"tool_result","tool_use_id":"t1","content":"running in the background"}]},"session_id":"s"}`
	for name, tc := range map[string]struct {
		lines      []string
		answer     string
		background bool
	}{
		"a task that ends":          {[]string{call, claudeStarted, result, claudeFirst, claudeDone, claudeSecond}, "The tests pass", false},
		"a task that goes on":       {[]string{call, claudeStarted, result, claudeFirst}, "I have started the tests and wait for them", true},
		"the list of tasks":         {[]string{`{"type":"system","subtype":"background_tasks_changed","tasks":[{"task_id":"x","description":"go test"}]}`, claudeFirst}, "I have started the tests and wait for them", true},
		"tasks of unknown form":     {[]string{`{"type":"system","subtype":"background_tasks_changed","tasks":["x"]}`, claudeFirst}, "I have started the tests and wait for them", true},
		"the list is empty":         {[]string{claudeStarted, `{"type":"system","subtype":"background_tasks_changed","tasks":[]}`, claudeFirst}, "I have started the tests and wait for them", false},
		"a command not in there":    {[]string{strings.Replace(claudeStarted, "true", "false", 1), claudeFirst}, "I have started the tests and wait for them", false},
		"a subagent that speaks":    {[]string{claudeFirst, `{"type":"assistant","parent_tool_use_id":"t2","message":{"content":[{"type":"text","text":"sub"}]},"session_id":"s2"}`}, "I have started the tests and wait for them", true},
		"a subagent, and its end":   {[]string{claudeFirst, `{"type":"assistant","parent_tool_use_id":"t2","message":{"content":[]}}`, claudeSecond}, "The tests pass", false},
		"ended, without a new turn": {[]string{claudeStarted, claudeFirst, claudeDone}, "I have started the tests and wait for them", false},
	} {
		said, heard := decodeAll(decodeClaude(), 1, bgagent.Usage{}, []byte(strings.Join(tc.lines, "\n")))
		require.NotNil(t, said.end, name)
		require.Equal(t, tc.answer, said.text, name)
		require.Equal(t, tc.background, len(said.background) > 0, name)
		if name == "a task that goes on" {
			require.Equal(t, []string{"1.t1 Bash running"}, heard.events, "the call stays in flight, so the turn is not stale")
		}
		if name == "a task that ends" {
			require.Equal(t, []string{"1.t1 Bash running", "1.t1 Bash done"}, heard.events)
		}
	}
}

func TestCostIsTheDifferenceOfTotals(t *testing.T) {
	const result = `{"type":"result","subtype":"success","result":"x","total_cost_usd":%s}`
	out := []byte(strings.Replace(result, "%s", "0.10", 1) + "\n" + strings.Replace(result, "%s", "0.15", 1))
	for before, want := range map[float64]float64{0: 0.15, 0.05: 0.10, 7: 0.15} { // if 7 was used before the turn, the program restarted its count
		said, heard := decodeAll(decodeClaude(), 2, bgagent.Usage{Cost: before}, out)
		require.InDelta(t, want, heard.usage.Cost, 1e-9, "the session had cost %v before", before)
		require.InDelta(t, 0.15, said.total.Cost, 1e-9)
	}
	_, heard := decodeAll(decodeClaude(), 1, bgagent.Usage{}, []byte(strings.Replace(result, "%s", `"0.10"`, 1)))
	require.Zero(t, heard.usage.Cost)
}

func TestTheOpencodePresetCountsTokensAsThePackageDoes(t *testing.T) {
	_, heard := decodeAll(decodeOpencode(), 1, bgagent.Usage{}, []byte(`{"type":"step_finish","sessionID":"s","part":{"reason":"stop","cost":0.5,"tokens":{"input":10,"output":50.0,"reasoning":40,"cache":{"read":100000,"write":500}}}}`))
	require.Equal(t, bgagent.Usage{InputTokens: 100510, OutputTokens: 50, Cost: 0.5}, heard.usage)
}

func TestAnIDReusedAfterItsCallHasEndedIsAnotherCall(t *testing.T) {
	line := func(state string) string {
		return `{"type":"tool","id":"0","name":"grep","state":"` + state + `"}` + "\n"
	}
	said, heard := decodeAll(DecodeLines(), 1, bgagent.Usage{}, []byte(strings.Repeat(line("running")+line("done"), 30)))
	require.Len(t, said.tools, 30)
	require.Len(t, heard.events, 60)
	said, _ = decodeAll(DecodeLines(), 1, bgagent.Usage{}, []byte(strings.Repeat(line("done"), 30)))
	require.Len(t, said.tools, 30, "even if the program reports calls only when they have ended")
	end := `{"type":"tool","id":"0","state":"done"}` + "\n"
	said, heard = decodeAll(DecodeLines(), 1, bgagent.Usage{}, []byte(line("running")+line("running")+end+end+`{"type":"tool","id":"0","state":"running"}`))
	require.Len(t, said.tools, 1, "a call that is reported again has not begun again")
	require.Equal(t, bgagent.ToolDone, said.tools[0].State)
	require.Equal(t, 3, strings.Count(strings.Join(heard.events, "\n"), "grep"), "it has not ended again either, or it would count twice: %q", heard.events)
}

func TestARejectedKeyEndsTheTurnAtOnce(t *testing.T) {
	retry := `{"type":"system","subtype":"api_retry","attempt":1,"max_retries":10,"error_status":401,"error":"authentication_failed","session_id":"s"}`
	said, _ := decodeAll(decodeClaude(), 1, bgagent.Usage{}, []byte(retry+"\n"+retry))
	require.NotNil(t, said.end)
	require.Equal(t, bgagent.StopError, said.end.stop)
	require.Contains(t, said.end.problem, "authentication_failed (status 401): the model server rejected the key or the login")
	said, _ = decodeAll(decodeClaude(), 1, bgagent.Usage{}, []byte(retry+"\n"+`{"type":"assistant","message":{"content":"after all"}}`))
	require.Nil(t, said.end)
	require.Equal(t, "after all", said.text)
	said, _ = decodeAll(decodeClaude(), 1, bgagent.Usage{}, []byte(strings.ReplaceAll(retry, "authentication_failed", "rate_limit")))
	require.Nil(t, said.end, "the program retries a temporary error")
}

func TestTextOfAnErrorIsNoPartOfTheAnswer(t *testing.T) {
	said, heard := decodeAll(decodeClaude(), 1, bgagent.Usage{}, []byte(`{"type":"assistant","message":{"model":"m","content":"half an ans"}}
{"type":"assistant","message":{"model":"<synthetic>","content":[{"type":"text","text":"Invalid API key"}]}}
{"type":"result","subtype":"success","is_error":true,"result":"Invalid API key","permission_denials":[{"tool_name":"Bash","tool_input":{}},{"tool_name":"Bash"},{"tool_name":7},{}]}`))
	require.Equal(t, "half an ans", said.text)
	require.Equal(t, "half an ans", heard.all)
	require.Equal(t, "Invalid API key", said.end.problem)
	require.Equal(t, []string{"Bash", "Bash"}, said.denied)
}

func TestTerminalOutputBecomesPlainText(t *testing.T) {
	said, heard := decodeAll(DecodeLines(), 1, bgagent.Usage{}, []byte(`{"type":"text","text":"\u001b[1mbo"}
{"type":"text","text":"ld\u001b"}
{"type":"text","text":"[0m\r\nnext\u0007\u009b\r"}
{"type":"tool","id":"1","name":"\u001b[31mgrep","state":"running"}
{"type":"reasoning","text":"h\u001b[0mm"}
{"type":"todos","todos":[{"text":"\u001b[0mx"}]}
{"type":"message","text":"\u001b]0;t\u0007done"}
{"type":"end","stop":"error","error":"\u001b[31mbad"}`))
	require.Equal(t, "done", said.text)
	require.Equal(t, "bold\nnext\ndone", heard.all)
	require.Equal(t, []string{"1.1 grep running", "thinks hm"}, heard.events)
	require.Equal(t, "x", heard.todos[0].Text)
	require.Equal(t, "bad", said.end.problem)
}
