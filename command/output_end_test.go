package command

import (
	"strings"
	"testing"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

// item returns a line that codex prints about a message.
func item(kind, id, text string) string {
	return `{"type":"item.` + kind + `","item":{"id":"` + id + `","type":"agent_message","text":"` + text + `"}}`
}

const (
	codexDone   = `{"type":"turn.completed","usage":{"input_tokens":10,"output_tokens":5}}`
	codexFailed = `{"type":"turn.failed","error":{"message":"no quota"}}`
	codexError  = `{"type":"error","message":"Reconnecting... 1/5 (busy)"}`
	codexTool   = `{"type":"item.started","item":{"id":"c","type":"command_execution","status":"in_progress"}}`
	codexRan    = `{"type":"item.completed","item":{"id":"c","type":"command_execution","status":"completed"}}`
)

func decodeLines(program string, lines ...string) (said, told) {
	return decodeAll(decoders[program](), 1, bgagent.Usage{}, []byte(strings.Join(lines, "\n")))
}

func TestAMessageThatIsNeverCompletedIsTold(t *testing.T) {
	for name, x := range map[string]struct {
		lines       []string
		answer, all string
	}{
		"only updates":             {[]string{item("started", "1", ""), item("updated", "1", "the"), item("updated", "1", "the answer")}, "the answer", "the answer"},
		"only a start":             {[]string{item("started", "1", "the answer")}, "the answer", "the answer"},
		"completed":                {[]string{item("started", "1", ""), item("updated", "1", "the"), item("completed", "1", "the answer")}, "the answer", "the answer"},
		"completed without text":   {[]string{item("updated", "1", "the answer"), item("completed", "1", "")}, "the answer", "the answer"},
		"completed twice":          {[]string{item("completed", "1", "the answer"), item("completed", "1", "the answer")}, "the answer", "the answer"},
		"updated after it is told": {[]string{item("completed", "1", "the answer"), item("updated", "1", "the")}, "the answer", "the answer"},
		"corrected":                {[]string{item("updated", "1", "teh"), item("updated", "1", "the answer")}, "the answer", "the answer"},
		"a tool after it":          {[]string{item("updated", "1", "the answer"), codexTool, codexRan}, "the answer", "the answer"},
		"a message after it":       {[]string{item("updated", "1", "hm"), item("completed", "2", "the answer")}, "the answer", "hm\n\nthe answer"},
		"updates of two":           {[]string{item("updated", "1", "hm"), item("updated", "2", "the answer")}, "the answer", "hm\n\nthe answer"},
		"without ids":              {[]string{item("updated", "", "the"), item("updated", "", "the answer")}, "the answer", "the answer"},
		"two without ids":          {[]string{item("completed", "", "ok"), item("completed", "", "ok")}, "ok", "ok\n\nok"},
	} {
		for _, end := range []string{codexDone, codexFailed} {
			got, heard := decodeLines("codex", append(x.lines, end)...)
			require.Equal(t, x.answer, got.text, name)
			require.Equal(t, x.all, heard.all, name)
			require.Equal(t, end == codexDone, got.end.stop == bgagent.StopEndOfTurn, name)
		}
	}
}

func TestAToolThatIsNeverCompletedEndsByItsStatus(t *testing.T) {
	got, _ := decodeLines("codex", codexTool, strings.Replace(codexRan, "completed", "updated", 1), codexDone)
	require.Equal(t, bgagent.ToolDone, got.tools[0].State)
}

func TestAFailureIsNoSuccessBecauseOfALaterEnd(t *testing.T) {
	geminiError := `{"type":"error","severity":"error","message":"no quota"}`
	geminiDone := `{"type":"result","status":"success"}`
	opencodeError := `{"type":"error","sessionID":"s","error":{"name":"X","data":{"message":"no quota"}}}`
	step := `{"type":"step_start","sessionID":"s"}`
	opencodeDone := `{"type":"step_finish","sessionID":"s","part":{"reason":"stop"}}`
	claudeBad := `{"type":"result","subtype":"success","is_error":true,"result":"no quota"}`
	claudeGood := `{"type":"result","subtype":"success","result":"half"}`
	synthetic := `{"type":"assistant","is_api_error_message":true,"message":{"model":"<synthetic>","content":[{"type":"text","text":"no quota"}]}}`
	for program, turns := range map[string][][]string{
		"codex": {
			{codexFailed, codexDone}, {codexDone, codexFailed}, {codexFailed, codexDone, codexDone}, {codexFailed, `{"type":"turn.started"}`, codexDone},
			{strings.ReplaceAll(codexError, "Reconnecting... 1/5 (busy)", "no quota"), codexDone, codexDone},
			{codexTool, strings.ReplaceAll(codexError, "Reconnecting... 1/5 (busy)", "no quota"), codexRan, codexDone},
			{item("updated", "1", "half"), strings.ReplaceAll(codexError, "Reconnecting... 1/5 (busy)", "no quota"), codexDone},
		},
		"gemini":   {{geminiError, geminiDone}, {geminiError, geminiDone, geminiDone}, {`{"type":"result","status":"error","error":{"message":"no quota"}}`, geminiDone}},
		"opencode": {{opencodeError, opencodeDone}, {opencodeDone, opencodeError, opencodeDone}, {opencodeError, step, opencodeDone}},
		"claude":   {{claudeBad, claudeGood}, {claudeGood, claudeBad}, {synthetic, claudeGood}},
		"lines":    {{`{"type":"end","error":"no quota"}`, `{"type":"end"}`}, {`{"type":"end"}`, `{"type":"end","error":"no quota"}`, `{"type":"end","stop":"length"}`}},
	} {
		for _, lines := range turns {
			got, _ := decodeLines(program, lines...)
			require.Equal(t, bgagent.StopError, got.end.stop, lines)
			require.Equal(t, "no quota", got.end.problem, lines)
		}
	}
}

func TestATurnWhoseAgentGoesOnAfterAnErrorSucceeds(t *testing.T) {
	for program, turns := range map[string][][]string{
		"codex": {
			{codexError, item("completed", "1", "fine"), codexDone}, {codexError, item("updated", "1", "fine"), codexDone},
			{item("completed", "1", "fine"), codexError, codexTool, codexRan, codexDone}, {codexFailed, `{"type":"turn.started"}`, item("completed", "1", "fine"), codexDone},
			{item("completed", "1", "fine"), codexError, `{"type":"item.updated","item":{"id":"l","type":"todo_list","items":[]}}`, codexDone},
			{item("completed", "1", "fine"), codexError, `{"type":"item.completed","item":{"id":"r","type":"reasoning","text":"hm"}}`, codexDone},
			{item("completed", "1", "fine"), codexDone, codexError, codexDone},
		},
		"gemini": {{`{"type":"error","severity":"error","message":"x"}`, `{"type":"message","role":"assistant","content":"fine","delta":true}`, `{"type":"result","status":"success"}`}},
		"opencode": {{`{"type":"error","sessionID":"s","error":"x"}`, `{"type":"step_start","sessionID":"s"}`, `{"type":"text","sessionID":"s","part":{"text":"fine"}}`,
			`{"type":"step_finish","sessionID":"s","part":{"reason":"stop"}}`}},
		"claude": {{`{"type":"assistant","is_api_error_message":true,"message":{"model":"<synthetic>","content":"x"}}`, `{"type":"assistant","message":{"content":"fine"}}`,
			`{"type":"result","subtype":"success","result":"fine"}`}},
	} {
		for _, lines := range turns {
			got, _ := decodeLines(program, lines...)
			require.Equal(t, bgagent.StopEndOfTurn, got.end.stop, lines)
			require.Equal(t, "fine", got.text, lines)
		}
	}
}

// doubled holds a whole turn of each program, including its usage reports. The test repeats each
// line that reports usage.
var doubled = map[string][]string{
	"codex":  {`{"type":"turn.started"}`, item("completed", "1", "fine"), codexDone},
	"gemini": {`{"type":"message","role":"assistant","content":"fine"}`, `{"type":"result","status":"success","stats":{"input_tokens":10,"output_tokens":5}}`},
	"opencode": {`{"type":"step_start","sessionID":"s"}`, `{"type":"step_finish","sessionID":"s","part":{"reason":"tool-calls","cost":0.5,"tokens":{"input":4,"output":2}}}`,
		`{"type":"text","sessionID":"s","part":{"text":"fine"}}`, `{"type":"step_finish","sessionID":"s","part":{"reason":"stop","cost":0.5,"tokens":{"input":6,"output":3}}}`},
	"claude": {`{"type":"assistant","message":{"id":"m1","content":[{"type":"tool_use","id":"1","name":"Bash","input":{}}],"usage":{"input_tokens":3,"cache_read_input_tokens":1,"output_tokens":1}}}`,
		`{"type":"assistant","message":{"content":"fine"}}`, `{"type":"result","subtype":"success","result":"fine","total_cost_usd":1,"usage":{"input_tokens":10,"output_tokens":5}}`},
}

func TestTokensAndCostsOfALineThatComesTwiceCountOnce(t *testing.T) {
	for program, lines := range doubled {
		want, once := decodeLines(program, lines...)
		require.Equal(t, []int64{10, 5}, []int64{once.usage.InputTokens, once.usage.OutputTokens}, program)
		for i, line := range lines {
			if !strings.Contains(line, "tokens") {
				continue
			}
			twice := append(append(append([]string{}, lines[:i]...), line, line), lines[i+1:]...)
			got, heard := decodeLines(program, twice...)
			require.Equal(t, once.usage, heard.usage, "%s: %s", program, line)
			require.Equal(t, want.end, got.end, program)
			require.Equal(t, want.text, got.text, program)
			require.Equal(t, want.total, got.total, program)
		}
		_, heard := decodeLines(program, append(lines, afterTheEnd[program].tip, lines[len(lines)-1])...)
		require.Equal(t, once.usage, heard.usage, "%s, with a tip between", program)
	}
}

func TestRoundsWithTheSameUsageCountEach(t *testing.T) {
	step := []string{`{"type":"step_start","sessionID":"s"}`, `{"type":"step_finish","sessionID":"s","part":{"reason":"tool-calls","tokens":{"input":4}}}`}
	_, heard := decodeLines("opencode", append(step, step...)...)
	require.EqualValues(t, 8, heard.usage.InputTokens)
	_, heard = decodeLines("opencode", step[1], `{"type":"text","sessionID":"s","part":{"text":"x"}}`, step[1])
	require.EqualValues(t, 8, heard.usage.InputTokens, "an agent that continues also begins a round")
	late := func(id string) string {
		return `{"type":"step_finish","sessionID":"s","part":{"id":"` + id + `","reason":"stop","tokens":{"input":4}}}`
	}
	text := `{"type":"text","sessionID":"s","part":{"text":"x"}}`
	_, heard = decodeLines("opencode", late("1"), text, late("2"), late("2"), text, late("2"))
	require.EqualValues(t, 8, heard.usage.InputTokens, "ids show which reports are the same")
	result := func(tokens string) string {
		return `{"type":"result","subtype":"success","result":"x","usage":{"input_tokens":` + tokens + `}}`
	}
	_, heard = decodeLines("claude", result("4"), `{"type":"assistant","message":{"content":"more"}}`, result("3"))
	require.EqualValues(t, 7, heard.usage.InputTokens)
	_, heard = decodeLines("claude", result("4"), result("6"))
	require.EqualValues(t, 6, heard.usage.InputTokens, "a report that is corrected counts with the larger figure")
}

func TestAnEndWithoutUsageDoesNotMakeTheNextTurnCountAllAgain(t *testing.T) {
	got, heard := decodeLines("codex", codexDone, `{"type":"turn.completed"}`)
	require.Equal(t, bgagent.Usage{InputTokens: 10, OutputTokens: 5}, heard.usage)
	require.Equal(t, heard.usage, got.total)
	got, _ = decodeLines("codex", `{"type":"turn.completed"}`)
	require.False(t, got.totaled, "the total of the earlier turns does not change")
}

func TestOfTwoEndsTheWorseCountsAndNoTextIsLost(t *testing.T) {
	for _, x := range []struct {
		ends          []ending
		stop          bgagent.StopReason
		text, problem string
	}{
		{[]ending{{bgagent.StopEndOfTurn, "a", ""}, {bgagent.StopEndOfTurn, "", ""}}, bgagent.StopEndOfTurn, "a", ""},
		{[]ending{{bgagent.StopEndOfTurn, "a", ""}, {bgagent.StopEndOfTurn, "b", ""}}, bgagent.StopEndOfTurn, "b", ""},
		{[]ending{{bgagent.StopEndOfTurn, "a", ""}, {bgagent.StopError, "", "x"}}, bgagent.StopError, "a", "x"},
		{[]ending{{bgagent.StopError, "", "x"}, {bgagent.StopEndOfTurn, "a", ""}}, bgagent.StopError, "a", "x"},
		{[]ending{{bgagent.StopError, "", "x"}, {bgagent.StopError, "", ""}}, bgagent.StopError, "", "x"},
		{[]ending{{bgagent.StopError, "", "x"}, {bgagent.StopLength, "a", "long"}}, bgagent.StopError, "a", "x"},
		{[]ending{{bgagent.StopLength, "a", "long"}, {bgagent.StopEndOfTurn, "b", ""}}, bgagent.StopLength, "a", "long"},
		{[]ending{{bgagent.StopInterrupted, "", "cut"}, {bgagent.StopRefused, "", "no"}}, bgagent.StopInterrupted, "", "cut"},
	} {
		o := newOutput(nil, 1, bgagent.Usage{})
		for _, e := range x.ends {
			o.End(e.stop, e.text, e.problem)
		}
		require.Equal(t, ending{x.stop, x.text, x.problem}, *o.said().end, x.ends)
	}
}

func TestClaudeReportsTheInputOfEachRequestThatCallsATool(t *testing.T) {
	request := func(id, content, parent string) string {
		return `{"type":"assistant","parent_tool_use_id":"` + parent + `","message":{"id":"` + id + `","content":[` + content + `],"usage":{"input_tokens":5,"output_tokens":1}}}`
	}
	const tool, text = `{"type":"tool_use","id":"1","name":"Bash","input":{}}`, `{"type":"text","text":"x"}`
	result := `{"type":"result","subtype":"success","result":"x","usage":{"input_tokens":22,"output_tokens":9}}`
	_, heard := decodeLines("claude", request("m1", text, ""), request("m1", tool, ""), request("m1", tool, ""), request("m2", tool, ""))
	require.Equal(t, bgagent.Usage{InputTokens: 10}, heard.usage, "the lines of one message count once")
	_, heard = decodeLines("claude", request("m1", tool, "a subagent"), request("m2", text, ""), request("", tool, ""))
	require.Zero(t, heard.usage, "before the end of the turn, only the agent's own requests with an id and a tool call count")
	_, heard = decodeLines("claude", request("m1", tool, ""), request("m2", tool, ""), request("m3", text, ""), result, request("m4", tool, ""), request("m4", text, ""), strings.Replace(result, "22", "23", 1))
	require.Equal(t, bgagent.Usage{InputTokens: 45, OutputTokens: 18}, heard.usage, "the usage of a turn contains that of its requests")
}
