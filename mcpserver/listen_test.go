package mcpserver_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/stretchr/testify/require"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/mcpserver"
)

// heard is a message from the server.
type heard struct {
	ID     any
	Method string
	Params struct {
		Meta          map[string]any `json:"_meta"`
		URI           string
		TaskID        string
		Status        string
		Result        *mcp.CallToolResult
		Notifications struct {
			TaskIDs               []string
			ResourceSubscriptions []string
			ToolsListChanged      bool
		}
	}
	Result json.RawMessage
}

// line is a raw connection to a server. It can send messages that the library's client cannot
// send.
type line struct {
	t   *testing.T
	in  *io.PipeWriter
	out *bufio.Reader
}

func newLine(t *testing.T, s *mcpserver.Server, scope string) *line {
	theirIn, in := io.Pipe()
	out, theirOut := io.Pipe()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, scope, &mcp.IOTransport{Reader: theirIn, Writer: theirOut}) }()
	t.Cleanup(func() {
		cancel()
		_, _ = in.Close(), out.Close()
		<-done
	})
	return &line{t, in, bufio.NewReader(out)}
}

// meta is the part of every request that describes the client.
const meta = `"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"c","version":"1"},"io.modelcontextprotocol/clientCapabilities":{"extensions":{"io.modelcontextprotocol/tasks":{}}}}`

func request(id, method, params string) string {
	return fmt.Sprintf(`{"jsonrpc":"2.0","id":%s,"method":%q,"params":{%s,%s}}`, id, method, params, meta)
}

func (l *line) say(message string) {
	l.t.Helper()
	_, err := io.WriteString(l.in, message+"\n")
	require.NoError(l.t, err)
}

func (l *line) hear() (h heard) {
	l.t.Helper()
	text, err := l.out.ReadString('\n')
	require.NoError(l.t, err)
	require.NoError(l.t, json.Unmarshal([]byte(text), &h), text)
	return h
}

// delegate delegates a task in the foreground and returns the task's handle.
func (l *line) delegate(id, prompt string) string {
	l.t.Helper()
	l.say(request(id, "tools/call", fmt.Sprintf(`"name":"delegate_task","arguments":{"subagent_type":"worker","prompt":%q,"run_in_background":false}`, prompt)))
	var created struct{ TaskID string }
	require.NoError(l.t, json.Unmarshal(l.hear().Result, &created))
	require.NotEmpty(l.t, created.TaskID)
	return created.TaskID
}

func TestWhoListensToTasksIsToldOfThem(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m, s := newServer(t, mcpserver.Config{})
		l := newLine(t, s, "me")
		done := l.delegate("1", "1s")
		slow := l.delegate("2", "1m")
		stuck := l.delegate("3", "1h")
		time.Sleep(2 * time.Second)

		l.say(request(`"ears"`, "subscriptions/listen", fmt.Sprintf(`"notifications":{"toolsListChanged":true,"taskIds":[%q,%q,%q,"bg_0000000000000000.1",%q]}`, done, slow, stuck, slow)))
		ack := l.hear()
		require.Equal(t, "notifications/subscriptions/acknowledged", ack.Method)
		require.Equal(t, []string{done, slow, stuck}, ack.Params.Notifications.TaskIDs, "existing handles only, each once")
		require.Empty(t, ack.Params.Notifications.ResourceSubscriptions, "the client did not request these")
		require.True(t, ack.Params.Notifications.ToolsListChanged)

		told := func(handle, status string) {
			t.Helper()
			h := l.hear()
			require.Equal(t, "notifications/tasks", h.Method)
			require.Equal(t, "ears", h.Params.Meta["io.modelcontextprotocol/subscriptionId"])
			require.Equal(t, handle, h.Params.TaskID)
			require.Equal(t, status, h.Params.Status)
			if status == "completed" {
				require.Contains(t, structured(t, h.Params.Result).Text, "did 1")
			}
		}
		told(done, "completed") // the task has already ended
		told(slow, "completed") // the task ends a minute later
		id, _, _ := strings.Cut(slow, ".")
		task, err := m.Get(id)
		require.NoError(t, err)
		require.Equal(t, bgagent.NoticeRead, task.Notice, "the notification settles the notice")

		id, _, _ = strings.Cut(stuck, ".")
		_, err = m.Cancel(t.Context(), bgagent.Caller{}, id, bgagent.CancelOptions{})
		require.NoError(t, err)
		told(stuck, "cancelled")

		// The end of the task is reported only once per handle, even if the task is resumed.
		_, err = m.Resume(t.Context(), bgagent.Caller{Session: "me"}, id, bgagent.ResumeInput{Prompt: "again"})
		require.NoError(t, err)
		synctest.Wait()
		l.say(`{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"ears"}}`)
		last := l.hear()
		require.Equal(t, "ears", last.ID)
	})
}

func TestListeningToTasksAndTheirResourcesTellsBoth(t *testing.T) {
	bubble(t, func(t *testing.T) {
		_, s := newServer(t, mcpserver.Config{})
		l := newLine(t, s, "me")
		handle := l.delegate("1", "1m")
		id, _, _ := strings.Cut(handle, ".")
		l.say(request("7", "subscriptions/listen", fmt.Sprintf(`"notifications":{"resourceSubscriptions":["bgagent://task/%s"],"taskIds":[%q]}`, id, handle)))
		ack := l.hear()
		require.Equal(t, []string{"bgagent://task/" + id}, ack.Params.Notifications.ResourceSubscriptions)
		require.Equal(t, []string{handle}, ack.Params.Notifications.TaskIDs)
		h := l.hear() // arrives a minute later
		require.Equal(t, "notifications/resources/updated", h.Method)
		require.Equal(t, "bgagent://task/"+id, h.Params.URI)
		require.Equal(t, "notifications/tasks", l.hear().Method)
	})
}

func TestListeningToNoTaskOfOnesOwnTellsNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		_, s := newServer(t, mcpserver.Config{})
		handle := newLine(t, s, "me").delegate("1", "1m")
		theirs := newLine(t, s, "somebody else")
		for i, ids := range []string{`[]`, fmt.Sprintf("[%q]", handle), `["",7]`, `{}`, `"x"`} {
			theirs.say(request(fmt.Sprint(i), "subscriptions/listen", fmt.Sprintf(`"notifications":{"taskIds":%s}`, ids)))
			ack := theirs.hear()
			require.Equal(t, "notifications/subscriptions/acknowledged", ack.Method, ids)
			require.Empty(t, ack.Params.Notifications.TaskIDs)
			require.EqualValues(t, i, theirs.hear().ID, "there is no task to listen to")
		}
	})
}

func TestWhoListensOverHTTPIsToldToo(t *testing.T) {
	m, server := serve(t, mcpserver.HTTPConfig{Tokens: map[string]string{aliceToken: "alice", bobToken: "bob"}})
	post := func(token, method, name, body string) *http.Response {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL, strings.NewReader(body))
		require.NoError(t, err)
		for key, value := range map[string]string{"Content-Type": "application/json", "Accept": "application/json, text/event-stream",
			"Mcp-Protocol-Version": "2026-07-28", "Mcp-Method": method, "Mcp-Name": name} {
			if value != "" {
				req.Header.Set(key, value)
			}
		}
		resp, err := bearer(token).RoundTrip(req)
		require.NoError(t, err)
		t.Cleanup(func() { resp.Body.Close() })
		return resp
	}
	next := func(r *bufio.Reader) (h heard) {
		for {
			text, err := r.ReadString('\n')
			require.NoError(t, err)
			if data, ok := strings.CutPrefix(text, "data: "); ok {
				require.NoError(t, json.Unmarshal([]byte(data), &h), data)
				return h
			}
		}
	}
	created := post(aliceToken, "tools/call", "delegate_task", request("1", "tools/call", `"name":"delegate_task","arguments":{"subagent_type":"worker","prompt":"1h","run_in_background":false}`))
	var handle struct{ TaskID string }
	require.NoError(t, json.Unmarshal(next(bufio.NewReader(created.Body)).Result, &handle))

	listen := request("2", "subscriptions/listen", fmt.Sprintf(`"notifications":{"toolsListChanged":true,"taskIds":[%q]}`, handle.TaskID))
	theirs := next(bufio.NewReader(post(bobToken, "subscriptions/listen", "", listen).Body))
	require.Empty(t, theirs.Params.Notifications.TaskIDs, "the tasks belong to another caller")

	stream := bufio.NewReader(post(aliceToken, "subscriptions/listen", "", listen).Body)
	require.Equal(t, []string{handle.TaskID}, next(stream).Params.Notifications.TaskIDs)
	id, _, _ := strings.Cut(handle.TaskID, ".")
	_, err := m.Cancel(t.Context(), bgagent.Caller{}, id, bgagent.CancelOptions{})
	require.NoError(t, err)
	told := next(stream)
	require.Equal(t, "notifications/tasks", told.Method)
	require.Equal(t, "cancelled", told.Params.Status)

	long := post(aliceToken, "subscriptions/listen", "", strings.Repeat(" ", 2<<20))
	require.Equal(t, http.StatusBadRequest, long.StatusCode)
}
