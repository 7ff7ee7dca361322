package modelserver_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	ms "github.com/bgagent/bgagent/internal/modelserver"
)

func newServer(t *testing.T, h ms.Handler) *ms.Server {
	s := ms.New(h)
	t.Cleanup(s.Close)
	return s
}

// The function "start" sends a request and returns the response before its body is read.
func start(ctx context.Context, s *ms.Server, path, body string, header ...string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.URL+path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	return client.Do(req)
}

func ask(t *testing.T, s *ms.Server, path, body string, header ...string) (*http.Response, string) {
	t.Helper()
	resp, err := start(t.Context(), s, path, body, header...)
	require.NoError(t, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp, string(b)
}

func user(text string) []ms.Message { return []ms.Message{{Role: ms.User, Text: text}} }

// everyWire runs a test for every protocol, with and without streaming.
func everyWire(t *testing.T, test func(t *testing.T, w wire, stream bool)) {
	for _, w := range wires {
		for _, stream := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/stream=%v", w.name, stream), func(t *testing.T) { test(t, w, stream) })
		}
	}
}

func TestTheSameConversationIsReadTheSameInEveryProtocol(t *testing.T) {
	conversation := []ms.Message{
		{Role: ms.User, Text: "first"},
		{Role: ms.Assistant, Text: "I look", Calls: []ms.Call{{ID: "c1", Name: "read", Args: `{"path":"a<b"}`}, {ID: "c2", Name: "list", Args: `{}`}}},
		{Role: ms.Tool, Results: []ms.Result{{CallID: "c1", Name: "read", Text: "one\ntwo"}, {CallID: "c2", Name: "list", Text: ""}}},
		{Role: ms.Assistant, Text: "done"},
		{Role: ms.User, Text: "second\n@key k7"},
	}
	tools := []ms.ToolDef{{Name: "read", Description: "reads", Schema: json.RawMessage(`{"type":"object"}`)}, {Name: "list", Description: "lists", Schema: json.RawMessage(`{"type":"object"}`)}}
	everyWire(t, func(t *testing.T, w wire, stream bool) {
		s := newServer(t, func(ms.Request) ms.Reply { return ms.Say("yes") })
		resp, body := ask(t, s, w.path(stream), w.encode("be brief", stream, conversation, tools))
		require.Equal(t, http.StatusOK, resp.StatusCode, body)
		got := s.Requests()
		require.Len(t, got, 1)
		r := got[0]
		require.Equal(t, conversation, r.Messages)
		require.Equal(t, tools, r.Tools)
		require.Equal(t, "be brief", r.System)
		require.Equal(t, "some-model", r.Model)
		require.Equal(t, w.name, r.Protocol)
		require.Equal(t, stream, r.Stream)
		require.Equal(t, ms.Main, r.Kind)
		require.Equal(t, "k7", r.Key)
		require.Equal(t, 1, r.Attempt)
		require.Zero(t, r.Turn())
		require.True(t, r.Done)
		require.False(t, r.Left)
	})
}

func TestAnAnswerIsHeardWholeInEveryProtocol(t *testing.T) {
	finish := map[ms.Protocol][3]string{ // reasons for the end of an answer: after text, after tool calls, at the token limit
		ms.Chat:      {"stop", "tool_calls", "length"},
		ms.Responses: {"completed", "completed", "incomplete"},
		ms.Messages:  {"end_turn", "tool_use", "max_tokens"},
		ms.Gemini:    {"STOP", "STOP", "MAX_TOKENS"},
	}
	calls := []ms.Call{{ID: "call_a", Name: "read", Args: `{"path":"x"}`}, {ID: "call_b", Name: "list", Args: `{}`}}
	usage := &ms.Usage{Input: 1000, Output: 20}
	for name, c := range map[string]struct {
		reply  ms.Reply
		finish int
	}{
		"text":      {ms.Reply{Text: "grüße", Usage: usage}, 0},
		"pieces":    {ms.Reply{Text: "grüße, world", Chunks: 5, Usage: usage}, 0},
		"calls":     {ms.Reply{Calls: calls, Usage: usage}, 1},
		"all":       {ms.Reply{Reasoning: "hm", Text: "let me see", Calls: calls, Usage: usage}, 1},
		"truncated": {ms.Reply{Text: "so far", Truncated: true, Usage: usage}, 2},
		"nothing":   {ms.Reply{Usage: usage}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			everyWire(t, func(t *testing.T, w wire, stream bool) {
				s := newServer(t, func(ms.Request) ms.Reply { return c.reply })
				resp, body := ask(t, s, w.path(stream), w.encode("", stream, user("hi"), nil))
				require.Equal(t, http.StatusOK, resp.StatusCode)
				require.Equal(t, heard{Text: c.reply.Text, Reasoning: c.reply.Reasoning, Calls: c.reply.Calls,
					Finish: finish[w.name][c.finish], In: 1000, Out: 20}, w.hear(stream, body), body)
			})
		})
	}
}

func TestHandlersSteerAStreamPieceByPiece(t *testing.T) {
	for _, w := range wires {
		t.Run(string(w.name), func(t *testing.T) {
			more := make(chan string)
			s := newServer(t, func(r ms.Request) ms.Reply {
				return ms.Reply{Pieces: func(yield func(string) bool) {
					for piece := range more {
						if !yield(piece) {
							return
						}
					}
				}}
			})
			resp, err := start(t.Context(), s, w.path(true), w.encode("", true, user("hi"), nil))
			require.NoError(t, err)
			defer resp.Body.Close()
			text, buf := "", make([]byte, 64<<10)
			for _, piece := range []string{"one", "two"} {
				more <- piece
				for !strings.Contains(text, piece) {
					n, err := resp.Body.Read(buf)
					require.NoError(t, err)
					text += string(buf[:n])
				}
			}
			require.Equal(t, 1, s.Open(nil))
			close(more)
			rest, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			require.Equal(t, "onetwo", w.hear(true, text+string(rest)).Text)
		})
	}
}

func TestErrorsHaveTheFormOfTheirProtocol(t *testing.T) {
	const wait = 1500 * time.Millisecond // the header rounds this up to 2 s
	for _, c := range []struct {
		wire wire
		err  ms.Error
		body string
	}{
		{chatWire, ms.Error{Status: 400, Message: "no"}, `{"error":{"message":"no","type":"invalid_request_error","param":null,"code":null}}`},
		{chatWire, ms.Error{Status: 401, Message: "no"}, `{"error":{"message":"no","type":"invalid_request_error","param":null,"code":"invalid_api_key"}}`},
		{chatWire, ms.Error{Status: 429, Message: "slow", RetryAfter: wait}, `{"error":{"message":"slow","type":"rate_limit_error","param":null,"code":"rate_limit_exceeded"}}`},
		{responsesWire, ms.Error{Message: "oops"}, `{"error":{"message":"oops","type":"server_error","param":null,"code":null}}`},
		{messagesWire, ms.Error{Status: 400, Message: "no"}, `{"type":"error","request_id":"req_1","error":{"type":"invalid_request_error","message":"no"}}`},
		{messagesWire, ms.Error{Status: 429, Message: "slow", RetryAfter: wait}, `{"type":"error","request_id":"req_1","error":{"type":"rate_limit_error","message":"slow"}}`},
		{messagesWire, ms.Error{Status: 529, Message: "busy"}, `{"type":"error","request_id":"req_1","error":{"type":"overloaded_error","message":"busy"}}`},
		{messagesWire, ms.Error{Status: 503, Message: "oops"}, `{"type":"error","request_id":"req_1","error":{"type":"api_error","message":"oops"}}`},
		{geminiWire, ms.Error{Status: 400, Message: "no"}, `{"error":{"code":400,"message":"no","status":"INVALID_ARGUMENT"}}`},
		{geminiWire, ms.Error{Status: 429, Message: "slow", RetryAfter: wait}, `{"error":{"code":429,"message":"slow","status":"RESOURCE_EXHAUSTED",
			"details":[{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"2s"}]}}`},
	} {
		for _, stream := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/%d/stream=%v", c.wire.name, c.err.Status, stream), func(t *testing.T) {
				s := newServer(t, func(ms.Request) ms.Reply { return ms.Reply{Error: &c.err} })
				resp, body := ask(t, s, c.wire.path(stream), c.wire.encode("", stream, user("hi"), nil))
				status, after := c.err.Status, ""
				if status == 0 {
					status = 500
				}
				if c.err.RetryAfter > 0 {
					after = "2"
				}
				require.Equal(t, status, resp.StatusCode)
				require.Equal(t, after, resp.Header.Get("Retry-After"))
				require.Equal(t, "application/json", resp.Header.Get("Content-Type"))
				require.JSONEq(t, c.body, body)
			})
		}
	}
}

func TestAnErrorAfterATextComesInTheStream(t *testing.T) {
	want := map[ms.Protocol]string{ms.Chat: "server_error: broke", ms.Responses: "server_error: broke",
		ms.Messages: "api_error: broke", ms.Gemini: "INTERNAL: broke"}
	for _, w := range wires {
		t.Run(string(w.name), func(t *testing.T) {
			s := newServer(t, func(ms.Request) ms.Reply {
				return ms.Reply{Text: "half", Error: &ms.Error{Status: 500, Message: "broke"}}
			})
			resp, body := ask(t, s, w.path(true), w.encode("", true, user("hi"), nil))
			require.Equal(t, http.StatusOK, resp.StatusCode)
			h := w.hear(true, body)
			require.Equal(t, "half", h.Text)
			require.Equal(t, want[w.name], h.Problem)
		})
	}
}

func TestABrokenConnectionIsNoEnd(t *testing.T) {
	everyWire(t, func(t *testing.T, w wire, stream bool) {
		s := newServer(t, func(ms.Request) ms.Reply { return ms.Reply{Text: "half", Cut: true} })
		resp, err := start(t.Context(), s, w.path(stream), w.encode("", stream, user("hi"), nil))
		if !stream {
			require.Error(t, err)
			return
		}
		require.NoError(t, err)
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		require.ErrorIs(t, err, io.ErrUnexpectedEOF)
		h := w.hear(true, string(body))
		require.Equal(t, "half", h.Text)
		require.Empty(t, h.Finish)
	})
}

// Codex sends the tools of an MCP server as a namespace, and expects calls to name
// the namespace.
func TestToolsInANamespace(t *testing.T) {
	s := newServer(t, nil)
	tools := `"tools":[{"type":"namespace","name":"mcp__x","tools":[{"type":"function","name":"look","parameters":{"type":"object"}}]}]`
	_, body := ask(t, s, "/v1/responses", `{"model":"m","input":"@tool mcp__x__look {}\n@say seen",`+tools+`}`)
	require.Contains(t, body, `"name":"look"`)
	require.Contains(t, body, `"namespace":"mcp__x"`)
	_, body = ask(t, s, "/v1/responses", `{"model":"m","input":[{"role":"user","content":"@tool mcp__x__look {}\n@say seen"},`+
		`{"type":"function_call","call_id":"1","namespace":"mcp__x","name":"look","arguments":"{}"},{"type":"function_call_output","call_id":"1","output":"y"}],`+tools+`}`)
	require.Contains(t, body, "seen")
	last := s.Requests()[1]
	require.True(t, last.Offers("mcp__x__look"))
	require.Equal(t, "mcp__x__look", last.LastResults()[0].Name)
}

func TestCodexToolsThatTakeTextAreCalledWithText(t *testing.T) {
	s := newServer(t, nil)
	_, body := ask(t, s, "/v1/responses", `{"model":"m","input":"@tool apply_patch *** Begin Patch","tools":[{"type":"custom","name":"apply_patch"},{"type":"web_search"}]}`)
	require.Contains(t, body, `"type":"custom_tool_call"`)
	require.Equal(t, "*** Begin Patch", responsesWire.hear(false, body).Calls[0].Args)
	require.Len(t, s.Requests()[0].Tools, 1)
}

func TestGeminiStreamsAnArrayUnlessEventsAreAskedFor(t *testing.T) {
	s := newServer(t, func(ms.Request) ms.Reply { return ms.Reply{Text: "hello", Chunks: 2} })
	_, body := ask(t, s, "/v1beta/models/m:streamGenerateContent", geminiWire.encode("", true, user("hi"), nil))
	var h heard
	for _, chunk := range parse[[]json.RawMessage]([]byte(body)) {
		geminiHear(&h, chunk)
	}
	require.Equal(t, "hello", h.Text)
	require.Equal(t, "STOP", h.Finish)
}

func TestWhatCannotBeReadIsRefusedAndNamed(t *testing.T) {
	s := newServer(t, nil)
	for path, bodies := range map[string][]string{
		"/v1/chat/completions":             {"", "[", `{"messages":[{"role":"wizard","content":"x"}]}`, `{"messages":[{"role":"user","content":7}]}`},
		"/v1/responses":                    {`{"input":7}`, `{"input":[{"role":"wizard","content":"x"}]}`},
		"/v1/messages":                     {`{"messages":[{"role":"tool","content":"x"}]}`, `{"messages":[{"role":"user","content":{}}]}`},
		"/v1beta/models/m:generateContent": {`{"contents":[{"role":"wizard"}]}`},
	} {
		for _, body := range bodies {
			resp, text := ask(t, s, path, body)
			require.Equal(t, http.StatusBadRequest, resp.StatusCode, body)
			require.Contains(t, text, "reading the request: ", body)
		}
	}
	require.Empty(t, s.Requests())
	resp, text := ask(t, s, "/v3/wishes", "{}")
	require.Equal(t, http.StatusNotFound, resp.StatusCode)
	require.Contains(t, text, "/v3/wishes")
	require.Equal(t, []string{"POST /v3/wishes"}, s.Unknown())
}

func TestModelsAreListedAndTokensCounted(t *testing.T) {
	s := newServer(t, nil)
	resp, err := http.Get(s.URL + "/v1/models")
	require.NoError(t, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Contains(t, string(b), `"id":"scripted"`)
	_, body := ask(t, s, "/v1beta/models/m:countTokens", `{"contents":[]}`)
	require.JSONEq(t, `{"totalTokens":4}`, body)
	_, body = ask(t, s, "/v1/messages/count_tokens", `{"messages":[]}`)
	require.JSONEq(t, `{"input_tokens":4}`, body)
}

func TestCloseEndsWhatHangs(t *testing.T) {
	for _, rep := range []ms.Reply{{Hang: true}, {Text: "half", Hang: true}, {Mute: true}, {Delay: time.Hour}, {Text: "ab", Chunks: 2, Gap: time.Hour}} {
		everyWire(t, func(t *testing.T, w wire, stream bool) {
			s := ms.New(func(ms.Request) ms.Reply { return rep })
			over := make(chan error, 1)
			go func() {
				resp, err := start(context.Background(), s, w.path(stream), w.encode("", stream, user("hi"), nil))
				if err == nil {
					_, err = io.ReadAll(resp.Body)
					resp.Body.Close()
				}
				over <- err
			}()
			require.NoError(t, s.WaitFor(t.Context(), func(all []ms.Request) bool { return len(all) == 1 }))
			s.Close()
			require.Error(t, <-over)
			r := s.Requests()[0]
			require.True(t, r.Done && r.Left)
		})
	}
}

func TestAClientThatLeavesEndsItsRequest(t *testing.T) {
	everyWire(t, func(t *testing.T, w wire, stream bool) {
		left := make(chan struct{})
		s := newServer(t, func(r ms.Request) ms.Reply {
			<-r.Context().Done()
			close(left)
			return ms.Say("too late")
		})
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			if err := s.WaitFor(ctx, func(all []ms.Request) bool { return len(all) == 1 }); err == nil {
				cancel()
			}
		}()
		_, err := start(ctx, s, w.path(stream), w.encode("", stream, user("hi"), nil))
		require.ErrorIs(t, err, context.Canceled)
		<-left
		require.NoError(t, s.WaitFor(t.Context(), func(all []ms.Request) bool { return all[0].Left }))
		require.Zero(t, s.Open(nil))
	})
}

func TestCloseLeavesNoGoroutine(t *testing.T) {
	before := connections()
	for range 20 {
		s := ms.New(nil)
		client := &http.Client{Transport: &http.Transport{}} // keeps its connections open
		over := make(chan struct{})
		for _, script := range []string{"@hang", "@say hi"} {
			go func() {
				defer func() { over <- struct{}{} }()
				resp, err := client.Post(s.URL+"/v1/messages", "", strings.NewReader(messagesWire.encode("", true, user(script), nil)))
				if err == nil {
					io.Copy(io.Discard, resp.Body)
					resp.Body.Close()
				}
			}()
		}
		require.NoError(t, s.WaitFor(t.Context(), func(all []ms.Request) bool {
			return len(all) == 2 && (all[0].Done || all[1].Done)
		}))
		s.Close()
		for connections() > before { // a connection's goroutine might not have returned yet
			runtime.Gosched()
		}
		s.Close()
		<-over
		<-over
		client.CloseIdleConnections()
	}
}

// The function "connections" counts the goroutines of server connections.
func connections() int {
	buf := make([]byte, 1<<20)
	return strings.Count(string(buf[:runtime.Stack(buf, true)]), "net/http.(*conn).serve")
}
