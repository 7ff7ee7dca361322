//go:build unix

package main

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/inproc"
	"github.com/bgagent/bgagent/mcpserver"
	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A scope's protocol server is forgotten when the scope's last bridge ends. The next bridge can open at the
// same moment. Whether that bridge uses the old protocol server or a new one, the server must be guarded.
func TestTheProtocolServerOfAnOpenBridgeIsTheOneThatIsGuarded(t *testing.T) {
	m, err := bgagent.New(inproc.New(map[string]inproc.Agent{"a": func(context.Context, *inproc.Turn) (string, error) { return "", nil }}), bgagent.Config{})
	require.NoError(t, err)
	t.Cleanup(func() { _ = m.Close(context.Background()) })
	server, err := mcpserver.New(m, mcpserver.Config{})
	require.NoError(t, err)
	scopes := newScopes(server)
	var guarded sync.Map
	var bridges sync.WaitGroup
	for range 8 {
		bridges.Go(func() {
			for range 100 {
				assert.NoError(t, scopes.enter("one", func(protocol *mcp.Server) { guarded.Store(protocol, true) }))
				protocol, err := server.MCP("one")
				assert.NoError(t, err)
				_, ok := guarded.Load(protocol)
				scopes.leave("one")
				if !assert.True(t, ok) {
					return
				}
			}
		})
	}
	bridges.Wait()
	require.Empty(t, scopes.open)
	require.Empty(t, scopes.guarded)
	require.False(t, server.Forget("one"), "the scope was forgotten too early")
}

// A scope is forgotten when its last bridge ends, unless a foreground delegation waits for the next bridge. The
// tasks remain.
func TestTheNextBridgeFindsTheTasksOfAForgottenScope(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, err := bgagent.New(inproc.New(map[string]inproc.Agent{"a": func(ctx context.Context, in *inproc.Turn) (string, error) {
			select {
			case <-time.After(time.Minute):
				return "the result of " + in.Prompt.Text, nil
			case <-ctx.Done():
				return "", ctx.Err()
			}
		}}), bgagent.Config{Wake: bgagent.WakeNever})
		require.NoError(t, err)
		defer func() { _ = m.Close(context.Background()) }()
		server, err := mcpserver.New(m, mcpserver.Config{})
		require.NoError(t, err)
		defer server.Close()
		scopes := newScopes(server)
		bridge := func(use func(*mcp.ClientSession)) {
			here, there := mcp.NewInMemoryTransports()
			require.NoError(t, scopes.enter("one", func(*mcp.Server) {}))
			done := make(chan struct{})
			go func() {
				defer close(done)
				defer scopes.leave("one")
				_ = server.Run(t.Context(), "one", there)
			}()
			cs, err := mcp.NewClient(&mcp.Implementation{Name: "alpha", Version: "1"}, nil).Connect(t.Context(), here, nil)
			require.NoError(t, err)
			use(cs)
			require.NoError(t, cs.Close())
			<-done
		}
		var background, foreground bgagent.Task
		bridge(func(cs *mcp.ClientSession) {
			callTool(t, cs, "delegate_task", map[string]any{"subagent_type": "a", "prompt": "background"})
			background = m.List(bgagent.Query{})[0]
		})
		require.False(t, scopes.owed("one"), "the notice waits in the manager")
		bridge(func(cs *mcp.ClientSession) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_, err := cs.CallTool(ctx, &mcp.CallToolParams{Meta: mcp.Meta{"claudecode/toolUseId": "toolu_1"}, Name: "delegate_task",
				Arguments: map[string]any{"subagent_type": "a", "prompt": "foreground", "run_in_background": false}})
			require.ErrorIs(t, err, context.DeadlineExceeded)
			synctest.Wait()
			for _, task := range m.List(bgagent.Query{}) {
				if task.ID != background.ID {
					foreground = task
				}
			}
		})
		require.True(t, scopes.owed("one"), "the caller can repeat the call")
		time.Sleep(time.Hour)
		require.True(t, scopes.owed("one"))
		bridge(func(cs *mcp.ClientSession) {
			require.Contains(t, callTool(t, cs, "background_output", map[string]any{"task_id": foreground.ID}), "the result of foreground")
		})
		require.False(t, scopes.owed("one"))
		require.Empty(t, scopes.guarded)
		bridge(func(cs *mcp.ClientSession) {
			require.Contains(t, callTool(t, cs, "background_output", map[string]any{"task_id": background.ID}), "the result of background")
		})

		bridge(func(cs *mcp.ClientSession) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_, err := cs.CallTool(ctx, &mcp.CallToolParams{Meta: mcp.Meta{"claudecode/toolUseId": "toolu_2"}, Name: "delegate_task",
				Arguments: map[string]any{"subagent_type": "a", "prompt": "foreground", "run_in_background": false}})
			require.ErrorIs(t, err, context.DeadlineExceeded)
		})
		scopes.drop("one")
		require.Empty(t, scopes.guarded)
		require.False(t, scopes.owed("one"))
	})
}
