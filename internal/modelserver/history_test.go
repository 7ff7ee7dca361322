package modelserver_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	ms "github.com/bgagent/bgagent/internal/modelserver"
)

func isMain(r ms.Request) bool    { return r.Kind == ms.Main }
func session(r ms.Request) string { return r.Session }
func arrived(n int) func([]ms.Request) bool {
	return func(all []ms.Request) bool { return len(all) == n }
}
func allDone(all []ms.Request) bool {
	for _, r := range all {
		if !r.Done {
			return false
		}
	}
	return true
}

// titleSystem begins like the system prompt of opencode's title requests. These requests have
// no tools, but the same headers as the other requests of the session.
const titleSystem = "You are a title generator. You output ONLY a thread title. Nothing else."

func TestOpenRequestsAreCountedBySessionWithoutTheirTitles(t *testing.T) {
	release := make(chan struct{})
	s := newServer(t, func(r ms.Request) ms.Reply {
		select {
		case <-release:
		case <-r.Context().Done():
		}
		return ms.Say("done")
	})
	ended := make(chan error)
	n := 0
	begin := func(session, system string) {
		t.Helper()
		n++
		go func() {
			resp, err := start(context.Background(), s, "/v1/chat/completions", chatWire.encode(system, false, user("hi"), nil),
				"X-Session-Id", session, "X-Parent-Session-Id", "parent")
			if err == nil {
				err = resp.Body.Close()
			}
			ended <- err
		}()
		require.NoError(t, s.WaitFor(t.Context(), arrived(n)))
	}
	begin("a", "")
	begin("a", titleSystem)
	begin("b", "")
	begin("b", "")
	require.Equal(t, 4, s.Open(nil))
	require.Equal(t, 3, s.Open(isMain))
	require.Equal(t, 2, s.MaxOpen(isMain, session))
	require.Equal(t, 4, s.MaxOpen(nil, nil))
	require.Equal(t, "parent", s.Requests()[0].Parent)
	for range n {
		release <- struct{}{}
		require.NoError(t, <-ended)
	}
	require.NoError(t, s.WaitFor(t.Context(), allDone))
	begin("c", "")
	release <- struct{}{}
	require.NoError(t, <-ended)
	require.NoError(t, s.WaitFor(t.Context(), allDone))
	require.Zero(t, s.Open(nil))
	require.Equal(t, 2, s.MaxOpen(isMain, session), "the maximum does not decrease")
	require.Equal(t, 1, s.MaxOpen(func(r ms.Request) bool { return r.Kind == ms.Title }, session))
}

func TestAClientThatHasSeenTheEndIsNotCountedAnyMore(t *testing.T) {
	s := newServer(t, nil)
	for i := range 200 {
		w := wires[i%len(wires)]
		script := "@say one after the other"
		if i%3 == 0 {
			script = "@error 500 one after the other"
		}
		ask(t, s, w.path(i%2 == 0), w.encode("", i%2 == 0, user(script), nil))
	}
	require.Equal(t, 1, s.MaxOpen(nil, nil))
}

func TestWaitForSaysWhatThereWasInstead(t *testing.T) {
	s := newServer(t, nil)
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("waited long enough")
	cancel(why)
	err := s.WaitFor(ctx, arrived(1))
	require.ErrorIs(t, err, why)
	require.ErrorContains(t, err, "requests so far: none")
	ask(t, s, "/v1/messages", messagesWire.encode("", false, user("@say hi"), nil))
	err = s.WaitFor(ctx, arrived(2))
	require.ErrorContains(t, err, `1 anthropic-messages some-model main session="" turn=0 attempt=1 done: "@say hi"`)
}

func TestTheProgramsOwnQuestionsAreToldApart(t *testing.T) {
	tools := []ms.ToolDef{{Name: "read"}}
	schema := `"response_format":{"type":"json_schema","json_schema":{"schema":
		{"type":"OBJECT","properties":{"next_speaker":{"type":"STRING","enum":["user","model"]},"why":{"type":"string"}},"required":["next_speaker","why"]}}}`
	for name, c := range map[string]struct {
		body   string
		header string // X-Codex-Turn-Metadata
		kind   ms.Kind
		answer string
	}{
		"opencode's title":          {chatWire.encode(titleSystem, false, user("@say hi"), nil), "", ms.Title, "Scripted title"},
		"a title agent with tools":  {chatWire.encode(titleSystem, false, user("@say hi"), tools), "", ms.Main, "hi"},
		"opencode's compaction":     {chatWire.encode("You are a context summarization agent. You are given", false, user("@say hi"), nil), "", ms.Summary, "Scripted summary"},
		"an agent's turn":           {chatWire.encode("You are opencode", false, user("@say hi"), tools), "", ms.Main, "hi"},
		"a chat without tools":      {chatWire.encode("Summarize what titles there are", false, user("@say hi"), nil), "", ms.Main, "hi"},
		"codex's turn":              {chatWire.encode("", false, user("@say hi"), tools), `{"request_kind":"turn"}`, ms.Main, "hi"},
		"codex's compaction":        {chatWire.encode("", false, user("@say hi"), tools), `{"request_kind":"compaction"}`, ms.Summary, "Scripted summary"},
		"a side question of codex":  {chatWire.encode("", false, user("@say hi"), tools), `{"request_kind":"memory"}`, ms.Side, "null"},
		"a question for plain JSON": {`{"messages":[{"role":"user","content":"who?"}],` + schema + `}`, "", ms.Side, `{"next_speaker":"user","why":""}`},
	} {
		t.Run(name, func(t *testing.T) {
			s := newServer(t, nil)
			_, body := ask(t, s, "/v1/chat/completions", c.body, "X-Codex-Turn-Metadata", c.header)
			require.Equal(t, c.kind, s.Requests()[0].Kind)
			require.Equal(t, c.answer, chatWire.whole([]byte(body)).Text)
		})
	}
}

func TestGeminisContextIsNoPartOfTheQuestion(t *testing.T) {
	s := newServer(t, nil)
	for i, contents := range []string{
		`[{"role":"user","parts":[{"text":"<session_context>\n@say no\n</session_context>"},{"text":"@say yes"}]}]`,
		`[{"role":"user","parts":[{"text":"<session_context>\n@say no\n</session_context>"}]},{"role":"user","parts":[{"text":"@say yes"}]}]`,
	} {
		_, body := ask(t, s, "/v1beta/models/m:generateContent", `{"contents":`+contents+`}`)
		require.Equal(t, "yes", geminiWire.whole([]byte(body)).Text)
		r := s.Requests()[i]
		require.Equal(t, "@say yes", r.LastUser())
		require.Len(t, r.Messages, 1)
		require.Contains(t, r.System, "<session_context>")
	}
}

func TestRemarksBesideResultsAreNoNewQuestion(t *testing.T) {
	s := newServer(t, nil)
	_, body := ask(t, s, "/v1/messages", `{"messages":[{"role":"user","content":"@tool a\n@say second"},
		{"role":"assistant","content":[{"type":"thinking","thinking":"hm"},{"type":"tool_use","id":"t1","name":"a","input":{}}]},
		{"role":"user","content":[{"type":"tool_result","tool_use_id":"t1","is_error":true,"content":[{"type":"text","text":"no"},{"type":"image"}]},
			{"type":"text","text":"<system-reminder>be quick</system-reminder>"}]}]}`)
	require.Equal(t, "second", messagesWire.whole([]byte(body)).Text)
	r := s.Requests()[0]
	require.Equal(t, []ms.Result{{CallID: "t1", Name: "a", Text: "no", Failed: true}}, r.LastResults())
	require.Equal(t, 1, r.Turn())
	require.Equal(t, "<system-reminder>be quick</system-reminder>", r.Messages[2].Text)
}

func TestParallelCallsAreOneTurnInTheResponsesProtocol(t *testing.T) {
	for _, items := range []string{
		`{"type":"function_call","call_id":"1","name":"a"},{"type":"function_call","call_id":"2","name":"b"},
		 {"type":"function_call_output","call_id":"1","output":"x"},{"type":"function_call_output","call_id":"2","output":[{"type":"output_text","text":"y"}]}`,
		`{"type":"reasoning","summary":[]},{"type":"message","role":"assistant","content":[{"type":"output_text","text":"look"}]},
		 {"type":"custom_tool_call","call_id":"1","name":"a","input":"text"},{"type":"custom_tool_call_output","call_id":"1","output":"x"}`,
	} {
		s := newServer(t, nil)
		_, body := ask(t, s, "/v1/responses", fmt.Sprintf(`{"input":[{"role":"developer","content":"rules"},{"role":"user","content":"@tool a\n@also b\n@say end"},%s]}`, items))
		require.Equal(t, "end", responsesWire.hear(false, body).Text)
		require.Equal(t, "rules", s.Requests()[0].System)
		require.Equal(t, "a", s.Requests()[0].LastResults()[0].Name)
	}
}

// The test uses a request like those that Claude Code sends. One message contains reminders, an
// unanswered prompt and the next prompt. A system message comes between other messages.
func TestWhatAProgramTellsBesideThePromptIsNotThePrompt(t *testing.T) {
	s := newServer(t, nil)
	_, body := ask(t, s, "/v1/messages", `{"system":"be good","messages":[
		{"role":"user","content":[{"type":"text","text":"<system-reminder>\n@say not this\n</system-reminder>"},{"type":"text","text":"@hang"},{"type":"text","text":"@say this"}]},
		{"role":"system","content":[{"type":"text","text":"@say nor this"}]}]}`, "X-Claude-Code-Session-Id", "its own")
	require.Contains(t, body, `"text":"this"`)
	r := s.Requests()[0]
	require.Equal(t, "its own", r.Session)
	require.Equal(t, "@say this", r.LastUser())
	require.Equal(t, "@hang", r.Messages[0].Text)
	require.Equal(t, "be good\n<system-reminder>\n@say not this\n</system-reminder>\n@say nor this", r.System)
}
