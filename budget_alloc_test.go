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

// allocsBefore is the number of allocations of such a task at commit 9ebc198, the last one without
// guardrails.
const allocsBefore = 23.05

// everything switches all guardrails on. No limit is reached.
var everything = bgagent.Config{
	TaskBudget: bgagent.Budget{InputTokens: 1e9, OutputTokens: 1e9, TotalTokens: 1e9, Cost: 1e6, ToolCalls: 1e6},
	TreeBudget: bgagent.Budget{InputTokens: 1e12, OutputTokens: 1e12, TotalTokens: 1e12, Cost: 1e9, ToolCalls: 1e9}, BudgetPeriod: 1e15,
	Ask: true, ModelsMayPermit: true, Fallback: map[string][]string{"a/b": {"c/d"}},
}

// Guardrails that are off take no allocations, and all of them together take at most a tenth more.
func TestGuardrailsTakeFewAllocations(t *testing.T) {
	if race.Enabled {
		t.Skip("the race detector allocates, too")
	}
	if *withStore || *withSlots {
		t.Skip("the bounds are those of a manager with neither a store, which needs records, nor a source of slots, which needs calls")
	}
	off, on := bgagent.Config{MaxPark: bgagent.Disabled, MaxToolCalls: bgagent.Unlimited, RepeatedCalls: bgagent.Unlimited}, everything
	none := allocsPerTask(t, off)
	off.Model = func(string, string) (string, error) { return "a/b", nil } // fallbacks are for tasks with a model
	on.Model = off.Model
	least, most := allocsPerTask(t, off), allocsPerTask(t, on)
	t.Logf("allocations of a task: %.2f without guardrails, %.2f before there were any; with a model %.2f without and %.2f with all of them", none, allocsBefore, least, most)
	require.LessOrEqual(t, none, allocsBefore+0.25, "the same")
	require.LessOrEqual(t, most, 1.1*least)
}
