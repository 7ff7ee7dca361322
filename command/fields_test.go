package command

import (
	"strings"
	"testing"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

func TestWhatSaysThatSomethingWentWrongIsReadInEveryForm(t *testing.T) {
	const claude = `{"type":"assistant","message":{"content":[{"type":"text","text":"half"}]}}` + "\n"
	const gemini = `{"type":"message","role":"assistant","content":"half","delta":true}` + "\n"
	const lines = `{"type":"message","text":"half"}` + "\n"
	result := func(fields string) string { return claude + `{"type":"result","subtype":"success",` + fields + `}` }
	for _, tc := range []struct{ program, output, want string }{
		{"claude", result(`"is_error":"true","result":"no key"`), "error: no key"},
		{"claude", result(`"is_error":1,"result":"no key"`), "error: no key"},
		{"claude", result(`"is_error":{"code":5},"result":"no key"`), "error: no key"},
		{"claude", result(`"is_error":"false","result":"half"`), "end of turn: "},
		{"claude", result(`"is_error":null,"result":"half"`), "end of turn: "},
		{"claude", result(`"stop_reason":"model_context_window_exceeded","result":"half"`), "length: "},
		{"claude", result(`"stop_reason":"MAX_TOKENS","result":"half"`), "length: "},
		{"claude", result(`"stop_reason":"pause_turn","result":"half"`), "interrupted: it says that the turn was cut off: pause_turn"},
		{"claude", result(`"terminal_reason":"aborted_tools","stop_reason":"tool_use","result":"half"`), "interrupted: it says that the turn was cut off: aborted_tools"},
		{"claude", result(`"terminal_reason":"prompt_too_long","result":"half"`), "error: it says that the turn was cut off: prompt_too_long"},
		{"claude", result(`"terminal_reason":"completed","stop_reason":"end_turn","result":"half"`), "end of turn: "},
		{"claude", claude + `{"type":"result","subtype":"success","result":"of a subagent","parent_tool_use_id":"t"}`, "none"},
		{"codex", `{"type":"turn.failed","error":"stream disconnected"}`, "error: stream disconnected"},
		{"codex", `{"type":"turn.failed","error":{"error":{"message":"nested"}}}`, "error: nested"},
		{"codex", `{"type":"turn.failed","error":["why"]}`, `error: ["why"]`},
		{"gemini", gemini + `{"type":"result","status":"error","error":"quota"}`, "error: quota"},
		{"gemini", gemini + `{"type":"error","severity":"error","message":{"message":"overloaded"}}` + "\n" + `{"type":"result","status":"success"}`, "error: overloaded"},
		{"gemini", gemini + `{"type":"error","severity":"error","message":"hiccup"}` + "\n" + gemini + `{"type":"result","status":"success"}`, "end of turn: "},
		{"opencode", `{"type":"error","error":"boom"}`, "error: boom"},
		{"opencode", `{"type":"error","error":{"name":"Odd"}}`, "error: Odd"},
		{"opencode", `{"type":"text","part":{"text":"half"}}` + "\n" + `{"type":"step_finish","part":{"reason":"tool_calls"}}`, "none"},
		{"opencode", `{"type":"step_finish","part":{"reason":"Content_Filter"}}`, "refused: "},
		{"lines", lines + `{"type":"end","error":{"message":"boom"}}`, "error: boom"},
		{"lines", lines + `{"type":"end","error":7}`, "error: 7"},
		{"lines", lines + `{"type":"end","stop":7}`, "error: "},
		{"lines", lines + `{"type":"end","stop":"max_tokens"}`, "length: "},
		{"lines", lines + `{"type":"end","stop":null,"error":null}`, "end of turn: "},
	} {
		said, _ := decodeAll(decoders[tc.program](), 1, bgagent.Usage{}, []byte(tc.output))
		got := "none"
		if said.end != nil {
			got = said.end.stop.String() + ": " + said.end.problem
		}
		require.Equal(t, tc.want, got, tc.output)
	}
}

func TestTextAndNumbersAreReadInEveryForm(t *testing.T) {
	const blocks = `[{"type":"text","text":"all "},7,null,{"type":"image"},"of it"]`
	for program, output := range map[string]string{
		"claude":   `{"type":"result","subtype":"success","result":` + blocks + `,"usage":{"input_tokens":"5"}}`,
		"codex":    `{"type":"item.completed","item":{"type":"agent_message","text":` + blocks + `}}` + "\n" + `{"type":"turn.completed","usage":{"input_tokens":"5"}}`,
		"gemini":   `{"type":"message","role":"model","content":` + blocks + `,"delta":"true"}` + "\n" + `{"type":"result","status":"success","stats":{"input_tokens":"5"}}`,
		"opencode": `{"type":"text","part":{"text":` + blocks + `}}` + "\n" + `{"type":"step_finish","part":{"reason":"stop","tokens":{"input":"5"}}}`,
		"lines":    `{"type":"message","text":` + blocks + `}` + "\n" + `{"type":"usage","input":"5","output":"NaN"}` + "\n" + `{"type":"end"}`,
	} {
		said, heard := decodeAll(decoders[program](), 1, bgagent.Usage{}, []byte(output))
		require.Equal(t, "all of it", said.text, program)
		require.Equal(t, bgagent.StopEndOfTurn, said.end.stop, program)
		require.Equal(t, bgagent.Usage{InputTokens: 5}, heard.usage, program)
	}
}

func TestWhatIsWrittenOfAMessageIsKeptWhenItIsNeverFinished(t *testing.T) {
	event := func(fields string) string {
		return `{"type":"stream_event","event":{` + fields + `},"parent_tool_use_id":null}` + "\n"
	}
	begin := event(`"type":"message_start"`)
	piece := func(text string) string {
		return event(`"type":"content_block_delta","delta":{"type":"text_delta","text":"` + text + `"}`)
	}
	whole := func(text string) string {
		return `{"type":"assistant","message":{"content":[{"type":"text","text":"` + text + `"}]}}` + "\n"
	}
	end := `{"type":"result","subtype":"success","result":"the answer"}`
	for name, tc := range map[string]struct{ output, text, told string }{
		"cut":                     {begin + piece("I have ") + piece("found"), "I have found", "I have found"},
		"after a whole one":       {whole("I look.") + begin + piece("I have "), "I have ", "I look.\n\nI have "},
		"finished":                {begin + piece("the ") + piece("answer") + whole("the answer") + end, "the answer", "the answer"},
		"the end comes as whole":  {begin + piece("the ") + whole("the answer") + end, "the answer", "the answer"},
		"begun again":             {begin + piece("the an") + begin + piece("the ") + piece("answer") + whole("the answer") + end, "the answer", "the an\n\nthe answer"},
		"finished otherwise":      {begin + piece("an ans") + whole("the answer") + end, "the answer", "an ans\n\nthe answer"},
		"an escape cut in two":    {begin + piece(`the \u001b[`) + piece("1manswer") + whole(`the \u001b[1manswer`) + end, "the answer", "the answer"},
		"of a subagent":           {whole("I look.") + strings.ReplaceAll(begin+piece("not mine"), "null", `"call"`), "I look.", "I look."},
		"of no text":              {begin + event(`"type":"content_block_delta","delta":{"type":"input_json_delta","partial_json":"{"}`), "", ""},
		"after the end":           {begin + piece("the answer") + whole("the answer") + end + "\n" + begin + piece("Tip"), "the answer", "the answer"},
		"of a field that is none": {begin + piece("half") + event(`"type":"content_block_delta","delta":7`), "half", "half"},
	} {
		t.Run(name, func(t *testing.T) {
			said, heard := decodeAll(decodeClaude(), 1, bgagent.Usage{}, []byte(tc.output))
			require.Equal(t, tc.text, said.text)
			require.Equal(t, tc.told, heard.all)
		})
	}
}
