//go:build unix

package acp

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/bgagent/bgagent"
	sdk "github.com/coder/acp-go-sdk"
	"github.com/stretchr/testify/require"
)

// discard is the input of an agent that reads all of its input.
type discard struct{ io.Writer }

func (discard) Close() error { return nil }

// told is the input of an agent. It sends a signal for every line written to it.
type told chan struct{}

func (t told) Write(p []byte) (int, error) { t <- struct{}{}; return len(p), nil }
func (told) Close() error                  { return nil }

func TestAnAnswerJustBeforeTheEndCounts(t *testing.T) {
	written := make(told, 1)
	c := newConn(written, handlers{})
	asked := make(chan error)
	var got string
	go func() { asked <- c.call(context.Background(), "ask", nil, &got) }()
	<-written
	c.serve(strings.NewReader(`{"jsonrpc":"2.0","id":1,"result":"yes"}`))
	require.NoError(t, <-asked)
	require.Equal(t, "yes", got)
	require.ErrorIs(t, c.call(context.Background(), "ask", nil, &got), errOutputEnded)
	for range 100 { // the answer is available, and the connection has ended
		answer := make(chan received, 1)
		answer <- received{}
		_, err := c.wait(context.Background(), answer)
		require.NoError(t, err)
	}
}

func TestAnUnreadableAnswerIsAnError(t *testing.T) {
	for line, want := range map[string]string{
		`{"jsonrpc":"2.0","id":1,"error":{"code":"ECONNRESET","message":"boom"}}`:           "ECONNRESET: boom (code -32603)",
		`{"jsonrpc":"2.0","id":1,"error":{"code":7,"message":{"text":"boom"}}}`:             `{"text":"boom"} (code 7)`,
		`{"jsonrpc":"2.0","id":1,"error":{"code":1.5,"message":"boom","data":"why"}}`:       "1.5: boom: why (code -32603)",
		`{"jsonrpc":"2.0","id":1,"error":"boom"}`:                                           "boom (code -32603)",
		`{"jsonrpc":"2.0","id":1,"error":["boom"]}`:                                         `["boom"] (code -32603)`,
		`{"jsonrpc":"2.0","id":1,"error":{}}`:                                               "{} (code -32603)",
		`{"jsonrpc":"2.0","id":"1","error":{"code":-32603,"message":"boom"}}`:               "boom (code -32603)",
		`{"jsonrpc":"2.0","id":1,"method":null,"error":{"code":-32603,"message":"boom"}}`:   "boom (code -32603)",
		`{"jsonrpc":"2.0","id":1,"result":{"cost":NaN}}`:                                    "the answer to ask cannot be read: json: cannot unmarshal object", // NaN is read as null
		`{"jsonrpc":"2.0","meta":{"a":[1]},"id":1,"error":{"code":1,"message":log: hello}}`: `its answer cannot be read`,
		`{"jsonrpc":"2.0","id":1,"result":7}`:                                               "the answer to ask cannot be read: ",
		`{"jsonrpc":"2.0","id":"1","result":"yes","error":null}`:                            "",
		`{"jsonrpc":"2.0","id":1.0,"result":"yes"}`:                                         "",
		`{"jsonrpc":"2.0","id":1e0,"result":"yes"}`:                                         "",
		`{"jsonrpc":"2.0","id":" 1 ","result":"yes"}`:                                       "",
	} {
		written := make(told, 1)
		c := newConn(written, handlers{})
		asked := make(chan error)
		var got string
		go func() { asked <- c.call(context.Background(), "ask", nil, &got) }()
		<-written
		r, w := io.Pipe()
		go c.serve(r)
		_, err := io.WriteString(w, "{broken\n{\"id\":NaN}\n"+line+"\n")
		require.NoError(t, err)
		if err = <-asked; want == "" { // the answer is valid
			require.NoError(t, err, line)
			require.Equal(t, "yes", got)
		} else {
			var re *sdk.RequestError
			if errors.As(err, &re) {
				err = &agentError{re}
			}
			require.ErrorContains(t, err, want, line)
		}
		require.NoError(t, w.Close())
		<-c.done
	}
}

func TestNotificationsComeBeforeTheAnswerAfterThem(t *testing.T) {
	var lines strings.Builder
	for range 5000 {
		lines.WriteString(`{"jsonrpc":"2.0","method":"tick","params":{}}` + "\n")
	}
	lines.WriteString(`{"jsonrpc":"2.0","id":1,"result":null}` + "\n")
	ticks := 0
	written := make(told, 1)
	c := newConn(written, handlers{notify: func(string, json.RawMessage) { ticks++ }})
	asked := make(chan error)
	go func() {
		err := c.call(context.Background(), "ask", nil, nil)
		if ticks != 5000 {
			err = fmt.Errorf("the answer came after %d notifications", ticks)
		}
		asked <- err
	}()
	<-written
	go c.serve(strings.NewReader(lines.String()))
	require.NoError(t, <-asked)
	<-c.done
}

func TestTooManyRequestsOfTheAgentAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		release := make(chan struct{})
		c := newConn(discard{&out}, handlers{request: func(context.Context, string, json.RawMessage) (any, *sdk.RequestError) {
			<-release
			return "done", nil
		}})
		r, w := io.Pipe()
		served := make(chan struct{})
		go func() { defer close(served); c.serve(r) }()
		for range maxInbound + 3 {
			_, err := io.WriteString(w, `{"jsonrpc":"2.0","id":"q","method":"ask"}`+"\n")
			require.NoError(t, err)
		}
		synctest.Wait()
		close(release)
		synctest.Wait()
		_ = w.Close()
		<-served
		require.Equal(t, 3, strings.Count(out.String(), "too many requests at once"))
		require.Equal(t, maxInbound, strings.Count(out.String(), `"result":"done"`))
	})
}

// The function "notified" returns the notifications that a client reads from an agent's output,
// each as its method and parameters. noise is the first text that is not a message.
func notified(t *testing.T, printed string) (list []string, noise string, err error) {
	t.Helper()
	c := newConn(closer{io.Discard}, handlers{notify: func(method string, params json.RawMessage) {
		list = append(list, method+string(params))
	}})
	c.serve(strings.NewReader(printed))
	return list, c.noise().First, c.ended()
}

type closer struct{ io.Writer }

func (closer) Close() error { return nil }

func TestLinesMayBeLong(t *testing.T) {
	long := strings.Repeat("x", 5<<20)
	got, _, err := notified(t, `{"method":"a","params":"`+long+`"}`+"\n"+`{"method":"b"}`+"\n"+`{"method":"c"}`)
	require.ErrorIs(t, err, errOutputEnded)
	require.Equal(t, []string{`a"` + long + `"`, "b", "c"}, got)
	_, _, err = notified(t, `{"method":"a"}`+"\n"+strings.Repeat("x", maxLine+1))
	require.ErrorContains(t, err, "it wrote a line of more than 32 MiB")
}

func TestAMessageIsFoundAfterAnyOtherOutput(t *testing.T) {
	for name, before := range map[string]string{
		"nothing": "", "a terminal title": "\x1b]0;proj: ready\x07", "colours": "\x1b[1;31m", "a byte-order mark": "\ufeff",
		"a carriage return": "50 %\r", "a banner without an end": "Welcome! ", "a banner": "[LSP] Initialized\nWelcome!\n",
	} {
		got, _, err := notified(t, before+`{"method":"a"}`+"\r\n"+before+`{"method":"b"}`+"\n")
		require.ErrorIs(t, err, errOutputEnded)
		require.Equal(t, []string{"a", "b"}, got, name)
	}
	_, noise, _ := notified(t, "what is this\n"+`{"method":"a"}`+"\n")
	require.Equal(t, "what is this", noise)
}

func TestErrorsOfAgentsAreReadable(t *testing.T) {
	for want, e := range map[string]sdk.RequestError{
		"plain (code 1)":                 {Code: 1, Message: "plain"},
		"Internal error: why (code 2)":   {Code: 2, Message: "Internal error", Data: map[string]any{"details": "why"}},
		"Internal error: why (code 3)":   {Code: 3, Message: "Internal error: why", Data: "why"},
		"no such model (code 400)":       {Code: 400, Message: `{"error":{"code":"x","message":"no such model"}}`},
		`{"error": (code 4)`:             {Code: 4, Message: `{"error":`},
		"it gave no reason (code 5)":     {Code: 5},
		"Internal error (code 6)":        {Code: 6, Message: "Internal error", Data: []any{1}},
		"Internal error: text (code 7)":  {Code: 7, Message: "Internal error", Data: map[string]any{"message": "text"}},
		"Internal error: other (code 8)": {Code: 8, Message: "Internal error", Data: map[string]any{"error": "other", "details": 3}},
	} {
		err := error(&agentError{&e})
		require.Equal(t, want, err.Error())
		var re *sdk.RequestError
		require.True(t, errors.As(err, &re))
	}
}

// FuzzServe lets an agent write arbitrary output. The client must neither panic nor hang.
func FuzzServe(f *testing.F) {
	for _, s := range []string{
		`{"jsonrpc":"2.0","id":1,"result":{}}`, `{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"x"}}`,
		`{"jsonrpc":"2.0","method":"session/update","params":{"sessionId":"s","update":{"sessionUpdate":"agent_message_chunk","content":{"type":"text","text":"x"}}}}`,
		`{"jsonrpc":"2.0","method":"session/update","params":{"sessionId":"s","update":{"sessionUpdate":"tool_call_update","toolCallId":"1","rawInput":{"todos":[{"content":"a","status":"b"}]}}}}`,
		`{"jsonrpc":"2.0","method":"session/update","params":{"sessionId":"s","update":{"sessionUpdate":"new kind"}}}`,
		`{"jsonrpc":"2.0","id":"x","method":"session/request_permission","params":{"sessionId":"s","toolCall":{"toolCallId":"1"},"options":[]}}`,
		`{"jsonrpc":"2.0","id":null,"method":"fs/read_text_file","params":{"sessionId":"s","path":"/x"}}`,
		`{"jsonrpc":"2.0","id":[1],"method":"terminal/create","params":{"sessionId":"s","command":"x"}}`,
		`{"jsonrpc":"2.0","id":"1","error":"boom"}`, `{"id":1,"error":{"code":"x"}}`, `{"jsonrpc":"2.0","id":1,"result":NaN}`,
		"garbage\n\n[]\n{}\n\x00", `{"id":1e999}`,
	} {
		f.Add([]byte(s + "\n"))
	}
	f.Fuzz(func(t *testing.T, input []byte) {
		c, err := New(Config{Command: []string{"x"}, Dir: "/nowhere"})
		require.NoError(t, err)
		p := &process{c: c, turns: map[*turn]struct{}{}, dead: make(chan struct{}), ending: make(chan struct{}), run: &running{}}
		p.conn = newConn(discard{io.Discard}, handlers{request: p.request, notify: p.update})
		s := &session{id: "s", dir: "/nowhere", proc: p, conv: conversation{max: 1000}}
		c.sessions["s"], c.all[p] = s, struct{}{}
		turn, err := c.begin(context.Background(), "s", bgagent.Prompt{}, nil)
		require.NoError(t, err)
		defer c.wg.Done()
		served := make(chan struct{})
		go func() { defer close(served); p.conn.serve(bytes.NewReader(input)) }()
		_ = p.conn.call(t.Context(), "ask", nil, nil)
		<-served
		c.quiet(turn)
		c.mu.Lock()
		defer c.mu.Unlock()
		page, err := s.conv.page("", 0)
		require.NoError(t, err)
		for _, m := range page.Messages {
			require.NotEmpty(t, m.ID)
		}
	})
}
