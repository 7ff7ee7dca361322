package mcpserver_test

import (
	"context"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/stretchr/testify/require"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/inproc"
	"github.com/bgagent/bgagent/mcpserver"
)

// newDeepServer is like newServer, but tasks may delegate.
func newDeepServer(t *testing.T) (*bgagent.BackgroundManager, *mcpserver.Server) {
	t.Helper()
	m, err := bgagent.New(inproc.New(map[string]inproc.Agent{"worker": worker}),
		bgagent.Config{StaleTimeout: bgagent.Disabled, TimeToLive: bgagent.Disabled, MaxDepth: 3, Limits: bgagent.Limits{Default: 20}})
	require.NoError(t, err)
	s, err := mcpserver.New(m, mcpserver.Config{})
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, s.Close())
		_ = m.Close(context.Background()) // the error lists notices that have not been taken
	})
	return m, s
}

// The function "running" launches a task and returns it once it has a session.
func running(t *testing.T, m *bgagent.BackgroundManager, by, prompt string) bgagent.Task {
	t.Helper()
	task, err := m.Launch(t.Context(), bgagent.Caller{Session: by}, bgagent.LaunchInput{Agent: "worker", Prompt: prompt})
	require.NoError(t, err)
	synctest.Wait()
	task, err = m.Get(task.ID)
	require.NoError(t, err)
	require.NotEmpty(t, task.Session)
	return task
}

// A scope can be the session of a task. Such a scope contains the tasks below this task, on every level,
// and no others.
func TestTheScopeOfATaskHasTheTasksBelowIt(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m, s := newDeepServer(t)
		top, other := running(t, m, "me", "10h"), running(t, m, "me", "11h")
		var mu sync.Mutex
		updated, progress := map[string]int{}, []string{}
		caps := &mcp.ClientCapabilities{}
		caps.AddExtension(mcpserver.ExtensionTasks, nil)
		cs := connect(t, s, top.Session, &mcp.ClientOptions{
			Capabilities: caps,
			ResourceUpdatedHandler: func(_ context.Context, r *mcp.ResourceUpdatedNotificationRequest) {
				mu.Lock()
				defer mu.Unlock()
				updated[r.Params.URI]++
			},
			ProgressNotificationHandler: func(_ context.Context, r *mcp.ProgressNotificationClientRequest) {
				mu.Lock()
				defer mu.Unlock()
				progress = append(progress, r.Params.Message)
			},
		})
		get := func(id string) (*handle, error) {
			return mcp.CallCustomMethod[*handleParams, *handle](t.Context(), cs, "tasks/get", &handleParams{TaskID: id + ".1"})
		}
		// The error is ignored: the library's client cannot decode a handle, because a handle is not a
		// tool result.
		_, _ = cs.CallTool(t.Context(), &mcp.CallToolParams{Name: "delegate_task", Arguments: map[string]any{"subagent_type": "worker", "prompt": "1h", "run_in_background": false}})
		synctest.Wait()
		below := m.List(bgagent.Query{Parent: top.Session})
		require.Len(t, below, 1)
		child := below[0]
		deep, strange := running(t, m, child.Session, "5m"), running(t, m, other.Session, "6m")
		for _, task := range []bgagent.Task{child, deep} {
			h, err := get(task.ID)
			require.NoError(t, err)
			require.Equal(t, "working", h.Status)
			require.NoError(t, cs.Subscribe(t.Context(), &mcp.SubscribeParams{URI: "bgagent://task/" + task.ID}))
		}
		for _, task := range []bgagent.Task{top, other, strange} {
			_, err := get(task.ID)
			require.ErrorContains(t, err, "there is no task", task.Prompt)
		}

		synctest.Wait()
		p := &mcp.CallToolParams{Name: "background_output", Arguments: map[string]any{"task_id": child.ID, "block": true, "timeout": 600_000}}
		p.SetProgressToken("token")
		_, err := cs.CallTool(t.Context(), p)
		require.NoError(t, err)
		synctest.Wait()
		mu.Lock()
		require.Contains(t, progress, "worker (5m): completed")
		require.NotContains(t, progress, "worker (6m): completed")
		require.Positive(t, updated["bgagent://task/"+deep.ID])
		require.Zero(t, updated["bgagent://task/"+child.ID], "the task has not changed")
		mu.Unlock()

		_, err = mcp.CallCustomMethod[*handleParams, *handle](t.Context(), cs, "tasks/cancel", &handleParams{TaskID: child.ID + ".1"})
		require.NoError(t, err)
		h, err := get(child.ID)
		require.NoError(t, err)
		require.Equal(t, "cancelled", h.Status)
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		require.Positive(t, updated["bgagent://task/"+child.ID])
	})
}

func TestAScopeWhoseForegroundDelegationsAreOverIsForgotten(t *testing.T) {
	bubble(t, func(t *testing.T) {
		_, s := newServer(t, mcpserver.Config{})
		cs := connect(t, s, "me", nil)
		delegate := func(ctx context.Context) error {
			_, err := cs.CallTool(ctx, &mcp.CallToolParams{Meta: mcp.Meta{"claudecode/toolUseId": "toolu_1"}, Name: "delegate_task",
				Arguments: map[string]any{"subagent_type": "worker", "prompt": "1m", "run_in_background": false}})
			return err
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, delegate(ctx), context.DeadlineExceeded)
		synctest.Wait()
		require.False(t, s.Forget("me"), "the caller can repeat the call")
		require.NoError(t, delegate(t.Context()))
		require.NoError(t, cs.Close())
		require.True(t, s.Forget("me"), "the answer has been returned")
	})
}

func TestADroppedScopeKeepsNothing(t *testing.T) {
	following := func() bool {
		synctest.Wait()
		stacks := make([]byte, 1<<20)
		return strings.Contains(string(stacks[:runtime.Stack(stacks, true)]), "(*scope).follow")
	}
	for name, drop := range map[string]func(s *mcpserver.Server){
		"forget": func(s *mcpserver.Server) { require.True(t, s.Forget("me")) },
		"drop":   func(s *mcpserver.Server) { s.Drop("nobody"); s.Drop("me") },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				m, s := newDeepServer(t)
				protocol, err := s.MCP("me")
				require.NoError(t, err)
				cs := connect(t, s, "me", nil)
				top := running(t, m, "me", "1h")
				deep := running(t, m, top.Session, "1h")
				for _, id := range []string{top.ID, deep.ID} {
					require.NoError(t, cs.Subscribe(t.Context(), &mcp.SubscribeParams{URI: "bgagent://task/" + id}))
				}
				require.True(t, following())
				require.NoError(t, cs.Close())
				drop(s)
				require.False(t, following(), "the server no longer follows the tasks")
				later, err := s.MCP("me")
				require.NoError(t, err)
				require.NotSame(t, protocol, later)

				// The next client of the scope can subscribe to the same tasks.
				var updated atomic.Int32
				next := connect(t, s, "me", &mcp.ClientOptions{ResourceUpdatedHandler: func(_ context.Context, r *mcp.ResourceUpdatedNotificationRequest) {
					if r.Params.URI == "bgagent://task/"+deep.ID {
						updated.Add(1)
					}
				}})
				require.NoError(t, next.Subscribe(t.Context(), &mcp.SubscribeParams{URI: "bgagent://task/" + deep.ID}))
				synctest.Wait()
				_, err = m.Cancel(t.Context(), bgagent.Caller{}, deep.ID, bgagent.CancelOptions{})
				require.NoError(t, err)
				synctest.Wait()
				require.Positive(t, updated.Load())
			})
		})
	}
}
