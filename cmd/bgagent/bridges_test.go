package main

import (
	"context"
	"sync"
	"testing"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/inproc"
	"github.com/bgagent/bgagent/mcpserver"
	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A scope inside a turn is forgotten after its last bridge. The next bridge can open at the same moment.
func TestTheProtocolServerOfAnOpenBridgeIsTheOneThatIsGuarded(t *testing.T) {
	m, err := bgagent.New(inproc.New(map[string]inproc.Agent{"a": func(context.Context, *inproc.Turn) (string, error) { return "", nil }}), bgagent.Config{})
	require.NoError(t, err)
	t.Cleanup(func() { _ = m.Close(context.Background()) })
	server, err := mcpserver.New(m, mcpserver.Config{})
	require.NoError(t, err)
	scopes := &openScopes{server: server, guarded: map[string]bool{}, open: map[string]int{}}
	var guarded sync.Map
	var bridges sync.WaitGroup
	for range 8 {
		bridges.Go(func() {
			for range 100 {
				assert.NoError(t, scopes.enter("one", func(protocol *mcp.Server) { guarded.Store(protocol, true) }))
				protocol, err := server.MCP("one")
				assert.NoError(t, err)
				_, ok := guarded.Load(protocol)
				scopes.leave("one", true)
				if !assert.True(t, ok) {
					return
				}
			}
		})
	}
	bridges.Wait()
	require.Empty(t, scopes.open)
	require.Empty(t, scopes.guarded)
	require.False(t, server.Forget("one"), "it is forgotten already")

	require.NoError(t, scopes.enter("one", func(*mcp.Server) {}))
	scopes.leave("one", false)
	require.NotEmpty(t, scopes.guarded, "a scope outside of turns is kept")
	scopes.drop("one")
	require.Empty(t, scopes.guarded)
	require.False(t, server.Forget("one"))
}
