package mcpserver

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"github.com/modelcontextprotocol/go-sdk/jsonrpc"
	"github.com/stretchr/testify/require"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/inproc"
)

// FuzzListens checks two rules of the translation. Messages that do not listen to tasks pass
// unchanged in both directions. Messages that listen to tasks keep all of their other fields.
func FuzzListens(f *testing.F) {
	wait := func(ctx context.Context, _ *inproc.Turn) (string, error) {
		<-ctx.Done()
		return "", ctx.Err()
	}
	m, err := bgagent.New(inproc.New(map[string]inproc.Agent{"wait": wait}), bgagent.Config{})
	require.NoError(f, err)
	f.Cleanup(func() { _ = m.Close(context.Background()) }) // the error lists notices that have not been taken
	s, err := New(m, Config{})
	require.NoError(f, err)
	f.Cleanup(func() { require.NoError(f, s.Close()) })
	sc, err := s.scope("me")
	require.NoError(f, err)
	task, err := m.Launch(f.Context(), bgagent.Caller{Session: "me"}, bgagent.LaunchInput{Agent: "wait", Prompt: "x"})
	require.NoError(f, err)
	for _, seed := range []string{
		`{"jsonrpc":"2.0","id":1,"method":"subscriptions/listen","params":{"notifications":{"toolsListChanged":true,"taskIds":["HANDLE.1","x"],"resourceSubscriptions":["a"]},"_meta":{"a":1}}}`,
		`{"jsonrpc":"2.0","id":"1","method":"subscriptions/listen","params":{"notifications":{"taskIds":"HANDLE.1"}}}`,
		`{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{"uri":"bgagent://task/HANDLE","_meta":{"io.modelcontextprotocol/subscriptionId":1}}}`,
		`{"jsonrpc":"2.0","method":"notifications/subscriptions/acknowledged","params":{"notifications":null,"_meta":{"io.modelcontextprotocol/subscriptionId":1}}}`,
		`{"jsonrpc":"2.0","id":1,"result":{}}`, `{"jsonrpc":"2.0","id":3,"method":"subscriptions/listen","params":[]}`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		msg, err := jsonrpc.DecodeMessage([]byte(strings.ReplaceAll(text, "HANDLE", task.ID)))
		if err != nil {
			return
		}
		l := newListens(sc)
		in := l.in(msg)
		if len(l.by) == 0 {
			require.Same(t, msg, in)
			require.Equal(t, []jsonrpc.Message{msg}, l.out(t.Context(), msg), "nobody listens")
			return
		}
		var before, after fields
		require.NoError(t, json.Unmarshal(msg.(*jsonrpc.Request).Params, &before))
		require.NoError(t, json.Unmarshal(in.(*jsonrpc.Request).Params, &after))
		said, passed := before.object("notifications"), after.object("notifications")
		require.NotContains(t, passed, "taskIds")
		require.Subset(t, passed.strings("resourceSubscriptions"), said.strings("resourceSubscriptions"))
		for _, f := range []fields{before, after, said, passed} {
			delete(f, "notifications")
			delete(f, "taskIds")
			delete(f, "resourceSubscriptions")
		}
		requireSame(t, before, after)
		requireSame(t, said, passed)
	})
}

// requireSame compares objects by their content.
func requireSame(t *testing.T, want, got fields) {
	t.Helper()
	require.Len(t, got, len(want))
	for name, v := range want {
		require.JSONEq(t, string(v), string(got[name]), name)
	}
}
