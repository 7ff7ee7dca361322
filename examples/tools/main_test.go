package main

import (
	"context"
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/inproc"
	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write the output to testdata")

func TestOutput(t *testing.T) {
	const golden = "testdata/output.txt"
	var b strings.Builder
	require.NoError(t, run(t.Context(), &b))
	if *update {
		require.NoError(t, os.WriteFile(golden, []byte(b.String()), 0o644))
	}
	want, err := os.ReadFile(golden)
	require.NoError(t, err)
	require.Equal(t, strings.ReplaceAll(string(want), "\r\n", "\n"), b.String())
}

func TestCallTool(t *testing.T) {
	release := make(chan struct{})
	slow := func(ctx context.Context, t *inproc.Turn) (string, error) {
		select {
		case <-release:
			return t.Prompt.Text, nil
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
	m, err := bgagent.New(inproc.New(map[string]inproc.Agent{"slow": slow}), bgagent.Config{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, m.Close(context.Background())) })
	defs := bgagent.Tools(m, bgagent.ToolOptions{})

	t.Run("no such tool", func(t *testing.T) {
		r, err := callTool(t.Context(), defs, "call_1", "delegate", nil)
		require.NoError(t, err)
		require.True(t, r.IsError)
		require.Equal(t, "There is no tool delegate.", r.Text)
	})
	t.Run("no caller", func(t *testing.T) {
		_, err := callTool(t.Context(), defs, "call_1", bgagent.ToolBackgroundOutput, nil)
		require.ErrorContains(t, err, "WithCaller")
	})
	t.Run("the same call again", func(t *testing.T) {
		ctx := bgagent.WithCaller(t.Context(), bgagent.Caller{Session: "main"})
		call := func(args string) {
			r, err := callTool(ctx, defs, "call_1", bgagent.ToolDelegateTask, []byte(args))
			require.NoError(t, err)
			require.False(t, r.IsError, r.Text)
		}
		call(`{"prompt":"p","subagent_type":"slow","run_in_background":true}`)
		call(`{"prompt":"p","subagent_type":"slow","run_in_background":true}`)
		tasks := m.List(bgagent.Query{Under: "main"})
		require.Len(t, tasks, 1, "the task is live, so the call is a retry")
		close(release)
		_, err := m.Wait(ctx, bgagent.Caller{Session: "main"}, bgagent.WaitAll, tasks[0].ID)
		require.NoError(t, err)
		call(`{"prompt":"p","subagent_type":"slow","run_in_background":false}`)
		require.Len(t, m.List(bgagent.Query{Under: "main"}), 2, "the task has ended, so the call is a new one")
	})
}
