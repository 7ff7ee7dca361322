package bench

import (
	"context"
	"fmt"
	"runtime"
	"time"

	"github.com/bgagent/bgagent"
)

func guardrailRows() []Row {
	return []Row{{
		ID:        "guardrails",
		What:      "launch -> told with all guardrails on; three reports of usage and four tool calls with digests in each turn",
		Reference: "the same with all guardrails off",
		Run:       runGuardrails,
	}}
}

// careful is a runner whose turns report usage and tool calls.
type careful struct{ runner }

var digests = [2]bgagent.Digest{bgagent.DigestOf("input"), bgagent.DigestOf("result")}

func (*careful) RunTurn(_ context.Context, _ string, _ bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
	for i := range 4 {
		if i < 3 {
			r.Usage(bgagent.Usage{InputTokens: 1000, OutputTokens: 100, Cost: 0.01})
		}
		r.Tool(bgagent.MessageTool{ID: callIDs[i], Name: "read", State: bgagent.ToolDone, Input: digests[0], Result: digests[1]})
	}
	return bgagent.TurnEnd{Text: "It is in auth.go."}, nil
}

var callIDs = [4]string{"1", "2", "3", "4"}

// The function "unguarded" returns a configuration with all guardrails off.
func unguarded() bgagent.Config {
	return bgagent.Config{MaxPark: bgagent.Disabled, MaxToolCalls: bgagent.Unlimited, RepeatedCalls: bgagent.Unlimited}
}

// The function "guarded" returns a configuration with all guardrails on. No limit is reached.
func guarded() bgagent.Config {
	b := bgagent.Budget{InputTokens: 1e15, OutputTokens: 1e15, TotalTokens: 1e15, Cost: 1e12, ToolCalls: 1e15}
	return bgagent.Config{
		TaskBudget: b, TreeBudget: b, BudgetPeriod: 1000 * time.Hour, Ask: true, ModelsMayPermit: true,
		Fallback: map[string][]string{"anthropic/claude": {"openai/gpt"}},
	}
}

// tellAll launches n tasks and waits until notices have reported all of them. It returns the time
// in nanoseconds and the number of allocations, both per task.
func tellAll(n int, cfg bgagent.Config) (ns, allocs float64, err error) {
	t := newTold(n)
	cfg.Limits.Default, cfg.Notify, cfg.NoticeWindow, cfg.RetainTasks = limit, t.notify, bgagent.Disabled, 1000
	cfg.Model = func(string, string) (string, error) { return "anthropic/claude", nil }
	m, err := bgagent.New(&careful{}, cfg)
	if err != nil {
		return 0, 0, err
	}
	runtime.GC()
	before, start := mallocs(), time.Now()
	for i := range n {
		if _, err := m.Launch(context.Background(), bgagent.Caller{Session: root(i)}, input); err != nil {
			return 0, 0, err
		}
	}
	if err := t.wait(5 * time.Minute); err != nil {
		return 0, 0, err
	}
	ns = float64(time.Since(start).Nanoseconds()) / float64(n)
	allocs = (mallocs() - before) / float64(n)
	return ns, allocs, closeManager(m)
}

func runGuardrails(o Options) ([]Check, error) {
	const n = 10_000
	var on, off, ratio Series
	p, err := interleave(o.Rounds,
		func() (float64, error) {
			ns, allocs, err := tellAll(n, guarded())
			on = append(on, allocs)
			return ns, err
		},
		func() (float64, error) {
			ns, allocs, err := tellAll(n, unguarded())
			off = append(off, allocs)
			return ns, err
		})
	if err != nil {
		return nil, err
	}
	for i := range on {
		ratio = append(ratio, on[i]/off[i])
	}
	return []Check{
		{"10,000 tasks, allocations", ratio, "x", 1.1, None, fmt.Sprintf("%.1f against %.1f", on.Median(), off.Median())},
		{"10,000 tasks, time", p.ratio, "x", None, None, p.beside()},
	}, nil
}
