package modelserver_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	ms "github.com/bgagent/bgagent/internal/modelserver"
)

// The function "play" returns the scripted model's reply to a conversation.
func play(messages ...ms.Message) ms.Reply {
	return ms.Request{Kind: ms.Main, Attempt: 1, Messages: messages}.Scripted()
}

func TestALineOfAScriptMakesItsTurn(t *testing.T) {
	for script, want := range map[string]ms.Reply{
		"@say hello there":                             {Text: "hello there"},
		"@say":                                         {},
		`@say one\ntwo`:                                {Text: "one\ntwo"},
		"please:\r\n   @say hello\r\nthanks":           {Text: "hello"},
		"@sleep 2s\n@say late":                         {Text: "late", Delay: 2 * time.Second},
		"@slow 20 100ms\n@say words":                   {Text: "words", Chunks: 20, Gap: 100 * time.Millisecond},
		"@think hm\n@usage 1000 20\n@say words":        {Text: "words", Reasoning: "hm", Usage: &ms.Usage{Input: 1000, Output: 20}},
		`@tool read {"path":"x"}`:                      {Calls: []ms.Call{{Name: "read", Args: `{"path":"x"}`}}},
		"@tool list":                                   {Calls: []ms.Call{{Name: "list", Args: `{}`}}},
		"@text look\n@tool a {}\n@also b {\"n\":1}":    {Text: "look", Calls: []ms.Call{{Name: "a", Args: `{}`}, {Name: "b", Args: `{"n":1}`}}},
		"@error 500 the roof is on fire":               ms.Refuse(500, "the roof is on fire"),
		"@error 429 retry-after=3 slow":                {Error: &ms.Error{Status: 429, Message: "slow", RetryAfter: 3 * time.Second}},
		"@error 429 times=1 retry-after=3 slow\n@say ": {Error: &ms.Error{Status: 429, Message: "slow", RetryAfter: 3 * time.Second}},
		"@hang":                      ms.Hang(""),
		"@hang half":                 ms.Hang("half"),
		"@mute":                      {Mute: true},
		"@text half\n@mute times=2":  {Text: "half", Mute: true},
		"@text half\n@error 500 mid": {Text: "half", Error: &ms.Error{Status: 500, Message: "mid"}},
		"@cut x=1 times=1":           {Text: "x=1 times=1", Cut: true},
		"@cut half":                  {Text: "half", Cut: true},
		"@key k\n@say named":         {Text: "named"},
		"@explore this\n@say there":  {Text: "there"},
		"no script, \n but words":    {Text: "echo: no script, but words"},
		"mail me@say.example":        {Text: "echo: mail me@say.example"},
	} {
		got := play(user(script)...)
		if got.Calls != nil && len(got.Calls) == 0 {
			got.Calls = nil
		}
		require.Equal(t, want, got, script)
	}
}

func TestAScriptThatCannotBeReadSaysWhichLine(t *testing.T) {
	for script, want := range map[string]string{
		"@say a\n@sleep soon":        `"@sleep soon": "soon" is not a duration`,
		"@sleep -1s\n@say x":         `"-1s" is not a duration`,
		"@slow many 1s\n@say x":      `"many" is not a number of pieces`,
		"@slow 0 1s\n@say x":         `"0" is not a number of pieces`,
		"@slow 3\n@say x":            `"" is not a duration`,
		"@usage lots\n@say x":        `"lots" is not two numbers of tokens`,
		"@tool":                      `names no tool`,
		"@also a {}":                 `must follow a line with @tool`,
		"@say x\n@also a {}":         `must follow a line with @tool`,
		"@error no":                  `"no" is not an HTTP status`,
		"@error 200 fine":            `"200" is not an HTTP status`,
		"@error 500 times=0 x":       `"times=0" is not a whole number`,
		"@hang times=x":              `"times=x" is not a whole number`,
		"@error 500 retry-after=1s":  `"retry-after=1s" is not a whole number`,
		"@tool read {path}":          `the arguments are not JSON: {path}`,
		"@say ${re:(}":               `missing closing )`,
		"@say the id is ${re:ses_.}": `no result of a tool matches "ses_."`,
	} {
		got := play(user(script)...)
		require.NotNil(t, got.Error, script)
		require.Equal(t, 400, got.Error.Status)
		require.Contains(t, got.Error.Message, "reading the script line")
		require.Contains(t, got.Error.Message, want)
	}
	require.Equal(t, 400, play().Error.Status, "no user message")
}

func TestAScriptGoesOnWithEveryAnswer(t *testing.T) {
	conversation := user("@tool a {}\n@tool b {\"id\":\"${re:id (\\w+)}\"}\n@say made ${re:id (\\w+)}")
	tool := func(text string) []ms.Message {
		return []ms.Message{{Role: ms.Assistant, Calls: []ms.Call{{Name: "x"}}}, {Role: ms.Tool, Results: []ms.Result{{Text: text}}}}
	}
	require.Equal(t, "a", play(conversation...).Calls[0].Name)
	conversation = append(conversation, tool("id k1, id k2")...)
	require.Equal(t, `{"id":"k2"}`, play(conversation...).Calls[0].Args, "the last match")
	conversation = append(conversation, tool(`no match`)...)
	require.Equal(t, "made k2", play(conversation...).Text, "an older result")
	conversation = append(conversation, ms.Message{Role: ms.Assistant, Text: "made k2"})
	require.Equal(t, "script done", play(conversation...).Text)
	conversation = append(conversation, ms.Message{Role: ms.User, Text: "@say again"})
	require.Equal(t, "again", play(conversation...).Text, "a new script starts at its first turn")
	conversation = append(conversation, ms.Message{Role: ms.User, Text: "a notice"})
	require.Equal(t, "echo: a notice", play(conversation...).Text)
}

func TestWhatToolsReturnedIsQuotedInJSON(t *testing.T) {
	got := play(ms.Message{Role: ms.User, Text: "@tool a\n@tool b {\"x\":\"${re:<(.*)>}\"}"}, ms.Message{Role: ms.Assistant},
		ms.Message{Role: ms.Tool, Results: []ms.Result{{Text: `<say "hi" \o/>`}}})
	require.Nil(t, got.Error)
	require.Equal(t, map[string]any{"x": `say "hi" \o/`}, parse[map[string]any]([]byte(got.Calls[0].Args)))
}

func TestAnErrorForSomeTimesGivesWayToTheNextLine(t *testing.T) {
	script := "@error 500 times=2 oops\n@cut times=1 half\n@tool a {}\n@error 503 times=1 again\n@say fine"
	answer := func(attempt int, messages ...ms.Message) ms.Reply {
		return ms.Request{Kind: ms.Main, Attempt: attempt, Messages: append(user(script), messages...)}.Scripted()
	}
	require.Equal(t, 500, answer(1).Error.Status)
	require.Equal(t, 500, answer(2).Error.Status)
	require.Equal(t, ms.Reply{Text: "half", Cut: true, Calls: []ms.Call{}}, answer(3))
	require.Equal(t, "a", answer(4).Calls[0].Name)
	require.Equal(t, "a", answer(5).Calls[0].Name, "a repetition gets the same reply")
	called := []ms.Message{{Role: ms.Assistant}, {Role: ms.Tool}}
	require.Equal(t, 503, answer(1, called...).Error.Status)
	require.Equal(t, "fine", answer(2, called...).Text)
}

func TestRepetitionsAreCountedForEachSession(t *testing.T) {
	s := newServer(t, nil)
	body := chatWire.encode("", false, user("@error 500 times=2 oops\n@say fine"), nil)
	status := func(session string) int {
		resp, _ := ask(t, s, "/v1/chat/completions", body, "X-Session-Id", session)
		return resp.StatusCode
	}
	require.Equal(t, []int{500, 500, 500, 200}, []int{status("a"), status("a"), status("b"), status("a")})
	require.Equal(t, []int{500, 200, 200}, []int{status("b"), status("b"), status("a")})
	all := s.Requests()
	require.Equal(t, 4, all[len(all)-1].Attempt)
}

// FuzzScript checks that every script is answered, that surrounding text and indentation do
// not change the answers, and that each turn of the script can be reached.
func FuzzScript(f *testing.F) {
	f.Add("@say hello")
	f.Add("@sleep 1s\n@slow 3 1ms\n@text look\n@tool read {\"path\":\"x\"}\n@also b\n@say ${re:(x)y}")
	f.Add("@error 429 times=2 retry-after=3 slow\n@hang\n@mute\n@cut x\n@key k\n@usage 1 2")
	f.Add("@say \\n @tool\r\n@also\n@error 99999999999999999999")
	f.Fuzz(func(t *testing.T, script string) {
		first := play(user(script)...)
		if first.Error != nil && (first.Error.Status < 400 || first.Error.Status > 599) {
			t.Errorf("status %d", first.Error.Status)
		}
		if first.Delay < 0 || first.Gap < 0 || first.Chunks < 0 {
			t.Errorf("negative: %+v", first)
		}
		if strings.HasPrefix(first.Text, "echo: ") {
			return // without a script, the answer echoes the surrounding text
		}
		wrapped := "Do this:\n  " + strings.ReplaceAll(script, "\n", "\r\n\t") + "\n\nthanks"
		require.Equal(t, first, play(user(wrapped)...))
		messages, turns := user(script), strings.Count(script, "\n")+2
		for range turns {
			messages = append(messages, ms.Message{Role: ms.Assistant}, ms.Message{Role: ms.Tool})
		}
		last := play(messages...)
		if last.Error == nil {
			require.Equal(t, "script done", last.Text)
		}
	})
}
