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

// allocsPerTask returns how many allocations one task makes from its launch to its end. The task
// reports usage three times and makes one tool call.
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

// allocsBefore is how many allocations the same task made at commit 9ebc198, the last commit
// without guardrails.
const allocsBefore = 23.05

// The variable "everything" is a configuration that enables all guardrails, with limits that are
// never reached.
var everything = bgagent.Config{
	TaskBudget: bgagent.Budget{InputTokens: 1e9, OutputTokens: 1e9, TotalTokens: 1e9, Cost: 1e6, ToolCalls: 1e6},
	TreeBudget: bgagent.Budget{InputTokens: 1e12, OutputTokens: 1e12, TotalTokens: 1e12, Cost: 1e9, ToolCalls: 1e9}, BudgetPeriod: 1e15,
	Ask: true, ModelsMayPermit: true, Fallback: map[string][]string{"a/b": {"c/d"}},
}

// Disabled guardrails add no allocations. All guardrails together add at most a tenth to a task's
// allocations.
func TestGuardrailsTakeFewAllocations(t *testing.T) {
	if race.Enabled {
		t.Skip("the race detector also allocates")
	}
	if *withStore || *withSlots {
		t.Skip("the bounds apply only without a store, which allocates records, and without a slot source, which needs extra calls")
	}
	off, on := bgagent.Config{MaxPark: bgagent.Disabled, MaxToolCalls: bgagent.Unlimited, RepeatedCalls: bgagent.Unlimited}, everything
	none := allocsPerTask(t, off)
	off.Model = func(string, string) (string, error) { return "a/b", nil } // only tasks with a model use fallbacks
	on.Model = off.Model
	least, most := allocsPerTask(t, off), allocsPerTask(t, on)
	t.Logf("allocations of a task: %.2f without guardrails, %.2f before guardrails existed; with a model: %.2f without and %.2f with all guardrails", none, allocsBefore, least, most)
	require.LessOrEqual(t, none, allocsBefore+0.25, "disabled guardrails must not allocate")
	require.LessOrEqual(t, most, 1.1*least)
}
