package modelserver_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	ms "github.com/bgagent/bgagent/internal/modelserver"
)

// FuzzRequest checks that a body is either refused in the protocol's format, or read without loss.
// If the body is read, encoding and reading the conversation again must give the same result.
func FuzzRequest(f *testing.F) {
	conversation := []ms.Message{
		{Role: ms.User, Text: "hi"},
		{Role: ms.Assistant, Text: "look", Calls: []ms.Call{{ID: "1", Name: "a", Args: `{"x":1}`}}},
		{Role: ms.Tool, Results: []ms.Result{{CallID: "1", Name: "a", Text: "y"}}},
	}
	for i, w := range wires {
		f.Add(i, w.encode("rules", false, conversation, []ms.ToolDef{{Name: "a"}}))
		f.Add(i, w.encode("", true, user(""), nil))
	}
	f.Add(0, `{"messages":[{"role":"assistant"},{"role":"tool","content":[{"text":"a"},{}]},{"role":"user","content":null}]}`)
	f.Add(1, `{"input":"hi"}`)
	f.Add(1, `{"input":[{"type":"custom_tool_call","name":"a","input":"*"},{"role":"assistant","content":""}]}`)
	f.Add(2, `{"messages":[{"role":"user","content":[{"type":"tool_result","content":null},{"type":"text","text":"x"}]}]}`)
	f.Add(3, `{"contents":[{"parts":[{"functionResponse":{"response":{"error":"x"}}},{"thought":true}]},{"role":"model"}]}`)
	f.Fuzz(func(t *testing.T, i int, body string) {
		w := wires[uint(i)%uint(len(wires))]
		first, ok := read(t, w, body)
		if !ok {
			return
		}
		again, ok := read(t, w, w.encode("", first.Stream, first.Messages, nil))
		require.True(t, ok)
		require.Equal(t, plain(first.Messages), plain(again.Messages))
	})
}

// The function "read" returns the request that a server reads from a body.
func read(t *testing.T, w wire, body string) (ms.Request, bool) {
	s := ms.NewUnstarted(func(ms.Request) ms.Reply { return ms.Say("ok") })
	defer s.Close()
	rec := httptest.NewRecorder()
	s.ServeHTTP(rec, httptest.NewRequest(http.MethodPost, w.path(false), strings.NewReader(body)))
	all := s.Requests()
	if len(all) == 0 {
		require.Equal(t, http.StatusBadRequest, rec.Code)
		problem := parse[struct{ Error struct{ Message string } }](rec.Body.Bytes())
		require.Contains(t, problem.Error.Message, "reading the request: ")
		return ms.Request{}, false
	}
	require.Equal(t, http.StatusOK, rec.Code)
	require.Equal(t, "ok", w.hear(all[0].Stream, rec.Body.String()).Text)
	return all[0], true
}

// The function "plain" returns the messages with the JSON of all arguments in a canonical form.
func plain(messages []ms.Message) []ms.Message {
	var all []ms.Message
	for _, m := range messages {
		calls := m.Calls
		m.Calls = nil
		for _, c := range calls {
			var b bytes.Buffer
			if json.Compact(&b, []byte(c.Args)) == nil {
				c.Args = b.String()
			}
			m.Calls = append(m.Calls, c)
		}
		all = append(all, m)
	}
	return all
}
