package mcpserver_test

import (
	"context"
	"encoding/json"
	"testing"
	"testing/synctest"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/stretchr/testify/require"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/inproc"
	"github.com/bgagent/bgagent/mcpserver"
)

// promise matches promises that cannot be kept over this protocol.
const promise = `(?i)end (your|the|its|this) turn|notices? (comes?|will|has told)|next notice|told in the same way|nothing has to be done`

func TestNoTextTellsTheCallerToEndItsTurnOrPromisesANotice(t *testing.T) {
	bubble(t, func(t *testing.T) {
		_, s := newServer(t, mcpserver.Config{})
		cs := connect(t, s, "me", nil)
		instructions := cs.InitializeResult().Instructions
		require.NotRegexp(t, promise, instructions)
		require.Contains(t, instructions, "call background_output with block=true")
		list, err := cs.ListTools(t.Context(), nil)
		require.NoError(t, err)
		raw, err := json.Marshal(list)
		require.NoError(t, err)
		require.NotRegexp(t, promise, string(raw))
		templates, err := cs.ListResourceTemplates(t.Context(), nil)
		require.NoError(t, err)
		raw, err = json.Marshal(templates)
		require.NoError(t, err)
		require.NotRegexp(t, promise, string(raw))

		say := func(tool string, args map[string]any) string {
			t.Helper()
			_, out := use(t, cs, tool, args)
			require.NotRegexp(t, promise, out.Text)
			return out.Text
		}
		id, short := delegate(t, cs, "2h"), delegate(t, cs, "1s")
		wait := `background_output(task_id="` + id + `", block=true)`
		require.Contains(t, say("background_output", map[string]any{"task_id": id}), wait)
		require.Contains(t, say("background_output", map[string]any{"task_id": id, "full_session": true}), "Full Session")
		require.Contains(t, say("background_output", nil), "background_output(block=true)")
		time.Sleep(2 * time.Second)
		require.Contains(t, say("background_output", map[string]any{"task_id": id}), "## Background Task Ended", "with what is owed")
		require.Contains(t, say("delegate_task", map[string]any{"task_id": short, "prompt": "1h"}), "block=true")
		require.Contains(t, say("delegate_task", map[string]any{"task_id": short, "prompt": "1h"}), "block=true", "a live task cannot be resumed")
		began := time.Now()
		require.Contains(t, say("background_output", map[string]any{"task_id": id, "block": true}), "did not end in the 50s")
		require.Equal(t, 50*time.Second, time.Since(began))
		say("background_cancel", map[string]any{"all": true})
	})
}

func TestInstructionsNameTheToolsThereAre(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m, err := bgagent.New(inproc.New(map[string]inproc.Agent{"worker": worker}), bgagent.Config{ToolNames: map[string]string{"delegate_task": "task", "background_cancel": ""}})
		require.NoError(t, err)
		defer m.Close(context.Background())
		s, err := mcpserver.New(m, mcpserver.Config{})
		require.NoError(t, err)
		defer s.Close()
		cs := connect(t, s, "me", nil)
		instructions := cs.InitializeResult().Instructions
		require.Contains(t, instructions, "task starts one")
		require.NotContains(t, instructions, "delegate_task")
		require.NotContains(t, instructions, "cancel")
		_, out := use(t, cs, "task", map[string]any{"subagent_type": "worker", "prompt": "1m", "run_in_background": false})
		require.Contains(t, out.Text, "did 1m", "under any tool name")
	})
}

// A delegation runs in the foreground if the value of run_in_background is any accepted spelling of
// false. If the client abandons the call, the task continues.
func TestADelegationThatIsGivenUpGoesOnHoweverItWasWritten(t *testing.T) {
	for _, args := range []string{`"run_in_background":false`, `"run_in_background":"false"`, `"background":"FALSE"`, `"run_in_background":" false ","background":false`} {
		bubble(t, func(t *testing.T) {
			m, s := newServer(t, mcpserver.Config{})
			cs := connect(t, s, "me", nil)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			_, err := cs.CallTool(ctx, &mcp.CallToolParams{Name: "delegate_task", Arguments: json.RawMessage(`{"subagent_type":"worker","prompt":"5m",` + args + `}`)})
			cancel()
			require.ErrorIs(t, err, context.DeadlineExceeded, args)
			synctest.Wait()
			require.Equal(t, bgagent.Running, m.List(bgagent.Query{Parent: "me"})[0].Status, args)
			time.Sleep(5 * time.Minute)
			_, out := use(t, cs, "background_output", map[string]any{"block": true})
			require.Contains(t, out.Text, "## All Background Tasks Ended", args)
		})
	}
	bubble(t, func(t *testing.T) {
		m, s := newServer(t, mcpserver.Config{})
		cs := connect(t, s, "me", nil)
		r, _ := use(t, cs, "delegate_task", map[string]any{"subagent_type": "worker", "prompt": "1m", "run_in_background": "false", "background": true})
		require.True(t, r.IsError, "contradictory arguments are refused")
		require.Empty(t, m.List(bgagent.Query{}))
	})
}

func TestARetryOfAToolUseFindsItsTask(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m, s := newServer(t, mcpserver.Config{})
		cs := connect(t, s, "me", nil)
		launch := func(ctx context.Context, use string, token int, args map[string]any) (*mcp.CallToolResult, error) {
			args["subagent_type"] = "worker"
			p := &mcp.CallToolParams{Meta: mcp.Meta{"claudecode/toolUseId": use}, Name: "delegate_task", Arguments: args}
			if token > 0 {
				p.SetProgressToken(token)
			}
			return cs.CallTool(ctx, p)
		}
		count := func() int { return len(m.List(bgagent.Query{})) }

		for token := range 2 { // each call has a new token
			_, err := launch(t.Context(), "toolu_1", token+1, map[string]any{"prompt": "1h"})
			require.NoError(t, err)
		}
		require.Equal(t, 1, count(), "in the background, while it is live")
		_, err := launch(t.Context(), "toolu_2", 1, map[string]any{"prompt": "1h"})
		require.NoError(t, err)
		require.Equal(t, 2, count(), "another tool use under the same token launches another task")

		// The client abandons the call, and the task ends before the client repeats the call.
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		_, err = launch(ctx, "toolu_3", 0, map[string]any{"prompt": "2m", "run_in_background": false})
		cancel()
		require.ErrorIs(t, err, context.DeadlineExceeded)
		time.Sleep(5 * time.Minute)
		r, err := launch(t.Context(), "toolu_3", 0, map[string]any{"prompt": "2m", "run_in_background": "false"})
		require.NoError(t, err)
		require.Contains(t, structured(t, r).Text, "did 2m")
		require.Equal(t, 3, count(), "in the foreground, until its answer has been returned")
		r, err = launch(t.Context(), "toolu_3", 0, map[string]any{"prompt": "fail", "run_in_background": false})
		require.NoError(t, err)
		require.Contains(t, structured(t, r).Text, "Task Error")
		require.Equal(t, 4, count(), "another prompt makes another call")

		for _, none := range []any{"", 7, nil, map[string]any{}} {
			p := &mcp.CallToolParams{Meta: mcp.Meta{"claudecode/toolUseId": none}, Name: "delegate_task", Arguments: map[string]any{"subagent_type": "worker", "prompt": "1h"}}
			_, err := cs.CallTool(t.Context(), p)
			require.NoError(t, err)
		}
		require.Equal(t, 8, count(), "a malformed id never matches")
	})
}

func TestAToolUseWhoseAnswerWasHandedOutIsANewCall(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m, s := newServer(t, mcpserver.Config{})
		cs := connect(t, s, "me", nil)
		for n := range 3 {
			p := &mcp.CallToolParams{Meta: mcp.Meta{"claudecode/toolUseId": "call_0"}, Name: "delegate_task",
				Arguments: map[string]any{"subagent_type": "worker", "prompt": "1m", "run_in_background": false}}
			r, err := cs.CallTool(t.Context(), p)
			require.NoError(t, err)
			require.Contains(t, structured(t, r).Text, "did 1m")
			require.Len(t, m.List(bgagent.Query{}), n+1)
		}
	})
}
