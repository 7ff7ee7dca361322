package bench

import (
	"context"
	"fmt"
	"runtime"
	"strconv"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/inproc"
)

func memoryRows() []Row {
	return []Row{
		{
			ID:        "pending",
			What:      "heap per pending task (own id, indexes, queue entry and a tool-call id included; one shared prompt and parent)",
			Reference: "-",
			Run:       runPending,
		},
		{
			ID:        "ended",
			What:      "heap per ended task / per former task after a million have expired",
			Reference: "-",
			Run:       runEnded,
		},
	}
}

// pendingHeap returns the heap bytes per pending task, and the total number of goroutines for n pending
// tasks.
func pendingHeap(n int) (bytes, goroutines float64, err error) {
	gate := make(chan struct{})
	m, err := bgagent.New(&runner{turn: func(bgagent.Prompt) { <-gate }}, bgagent.Config{
		Limits:          bgagent.Limits{Default: 1},
		Wake:            bgagent.WakeNever,
		MaxTasksPerRoot: bgagent.Unlimited,
	})
	if err != nil {
		return 0, 0, err
	}
	launch := func(i int) error {
		_, err := m.Launch(context.Background(), bgagent.Caller{Session: "root", ToolCallID: "call_" + strconv.Itoa(i)}, input)
		return err
	}
	if err := launch(-1); err != nil { // this task holds the only slot
		return 0, 0, err
	}
	before := measureMemory()
	for i := range n {
		if err := launch(i); err != nil {
			return 0, 0, err
		}
	}
	after := measureMemory()
	// The pending tasks are cancelled first, so that they do not start when the channel "gate" is
	// closed.
	if _, err := m.CancelAll(context.Background(), bgagent.Caller{Session: "root"}, bgagent.CancelOptions{}); err != nil {
		return 0, 0, err
	}
	close(gate)
	err = closeManager(m)
	runtime.KeepAlive(m)
	return (after.heap - before.heap) / float64(n), float64(after.goroutines - before.goroutines), err
}

func runPending(o Options) ([]Check, error) {
	var checks []Check
	for _, n := range o.sizes(10_000, 100_000, 1_000_000) {
		o.note("%d pending", n)
		var bytes, goroutines Series
		for range min(o.Rounds, 3) { // three rounds are enough, because the figures hardly vary
			b, g, err := pendingHeap(n)
			if err != nil {
				return nil, err
			}
			bytes, goroutines = append(bytes, b), append(goroutines, g)
		}
		checks = append(checks,
			Check{count(n) + " pending", bytes, "B", 400, 288, ""},
			Check{count(n) + " pending, goroutines of all", goroutines, "", 2, None, ""})
	}
	return checks, nil
}

// endedHeap runs n tasks of Go functions until they end, and returns the heap bytes that remain per
// task. The manager retains at most retain tasks. The bytes include the client's session records.
func endedHeap(n, retain int) (float64, error) {
	t := newTold(n)
	sc := inproc.New(map[string]inproc.Agent{
		input.Agent: func(context.Context, *inproc.Turn) (string, error) { return "done", nil },
	})
	m, err := bgagent.New(sc, bgagent.Config{
		Limits:       bgagent.Limits{Default: limit},
		Notify:       t.notify,
		NoticeWindow: bgagent.Disabled,
		RetainTasks:  retain,
	})
	if err != nil {
		return 0, err
	}
	before := measureMemory()
	for i := range n {
		if _, err := m.Launch(context.Background(), bgagent.Caller{Session: root(i), ToolCallID: "call_" + strconv.Itoa(i)}, input); err != nil {
			return 0, err
		}
	}
	if err := t.wait(10 * time.Minute); err != nil {
		return 0, err
	}
	after := measureMemory()
	err = closeManager(m)
	runtime.KeepAlive(m)
	return (after.heap - before.heap) / float64(n), err
}

func runEnded(o Options) ([]Check, error) {
	var checks []Check
	n := min(o.Most, 100_000)
	o.note("%d ended", n)
	var ended, former Series
	for range min(o.Rounds, 3) {
		b, err := endedHeap(n, bgagent.Unlimited)
		if err != nil {
			return nil, err
		}
		ended = append(ended, b)
	}
	checks = append(checks, Check{count(n) + " ended", ended, "B", 800, 450, ""})
	for _, n := range o.sizes(1_000_000) {
		o.note("%d former", n)
		b, err := endedHeap(n, 1)
		if err != nil {
			return nil, err
		}
		former = append(former, b)
		checks = append(checks, Check{count(n) + " former", former, "B", 5, 1, fmt.Sprintf("%.3g MB in all", b*float64(n)/1e6)})
	}
	return checks, nil
}
