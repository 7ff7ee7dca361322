package bgagent_test

import (
	"context"
	"runtime"
	"strconv"
	"testing"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/race"
	"github.com/stretchr/testify/require"
)

// allocsPerTask returns the number of allocations of one task from its launch to its end, with three
// reports of usage and a tool call.
func allocsPerTask(t *testing.T, cfg bgagent.Config) float64 {
	t.Helper()
	const tasks = 2000
	f := &goRunner{run: func(_ context.Context, _ string, _ bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
		for range 3 {
			r.Usage(bgagent.Usage{InputTokens: 100, OutputTokens: 10, Cost: 0.001})
		}
		r.Tool(bgagent.MessageTool{ID: "1", Name: "read", State: bgagent.ToolDone})
		return bgagent.TurnEnd{Text: "answer"}, nil
	}}
	m := manageUnchecked(t, f, cfg)
	one := func(i int) {
		task, err := m.Launch(context.Background(), bgagent.Caller{Session: "root" + strconv.Itoa(i%7)}, bgagent.LaunchInput{Agent: "worker", Prompt: "x"})
		require.NoError(t, err)
		_, err = m.Wait(context.Background(), bgagent.Caller{}, bgagent.WaitAll, task.ID)
		require.NoError(t, err)
	}
	for i := range 100 {
		one(i)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for i := range tasks {
		one(i)
	}
	runtime.ReadMemStats(&after)
	return float64(after.Mallocs-before.Mallocs) / tasks
}

func TestBudgetsTakeAtMostATenthMoreAllocations(t *testing.T) {
	if race.Enabled {
		t.Skip("the race detector allocates, too")
	}
	if *withStore {
		t.Skip("the bound is that of a manager without a store, which makes no records")
	}
	off := allocsPerTask(t, bgagent.Config{})
	on := allocsPerTask(t, bgagent.Config{
		TaskBudget: bgagent.Budget{InputTokens: 1e9, OutputTokens: 1e9, TotalTokens: 1e9, Cost: 1e6, ToolCalls: 1e6},
		TreeBudget: bgagent.Budget{InputTokens: 1e12, OutputTokens: 1e12, TotalTokens: 1e12, Cost: 1e9, ToolCalls: 1e9}, BudgetPeriod: 1e15,
	})
	t.Logf("allocations of a task: %.2f without budgets, %.2f with all of them", off, on)
	require.LessOrEqual(t, on, 1.1*off)
}
