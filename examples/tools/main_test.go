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

func echo(_ context.Context, t *inproc.Turn) (string, error) { return t.Prompt.Text, nil }

func TestCallTool(t *testing.T) {
	m, err := bgagent.New(inproc.New(map[string]inproc.Agent{inproc.Fallback: echo}), bgagent.Config{})
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
	t.Run("the same call twice", func(t *testing.T) {
		ctx := bgagent.WithCaller(t.Context(), bgagent.Caller{Session: "main"})
		for range 2 {
			r, err := callTool(ctx, defs, "call_1", bgagent.ToolDelegateTask,
				[]byte(`{"prompt":"p","subagent_type":"a","run_in_background":false}`))
			require.NoError(t, err)
			require.False(t, r.IsError, r.Text)
		}
		require.Len(t, m.List(bgagent.Query{Under: "main"}), 1)
	})
}
