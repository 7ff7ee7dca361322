package bgagent_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/bgagenttest"
	"github.com/bgagent/bgagent/internal/inside"
	"github.com/bgagent/bgagent/storetest"
	"github.com/stretchr/testify/require"
)

// In this test, a server appends the messages of the next turn directly to the messages of the
// refused turn, without a prompt between them.
func TestARefusedTurnThatGoesOnIsCountedOnce(t *testing.T) {
	refusal := bgagent.ProviderError{Kind: bgagent.ProviderRateLimited, Status: 429, Next: bgagent.NextContinue, Message: "slow down"}
	work := func(turn *bgagenttest.Turn, d time.Duration) {
		turn.Sleep(d)
		turn.Tool("bash", time.Second)
		turn.Usage(bgagent.Usage{InputTokens: 10, OutputTokens: 10})
	}
	for _, c := range []struct {
		name    string
		crashes []time.Duration // how long each process lives
		halts   bool            // the program repeats the request, and its turn is stopped
	}{
		{name: "one process"},
		{name: "the turn is stopped and its messages cannot be read", halts: true},
		{name: "a crash while the task is parked", crashes: []time.Duration{4 * time.Second}},
		{name: "a crash in the turn that continues", crashes: []time.Duration{15 * time.Second}},
		{name: "two crashes", crashes: []time.Duration{4 * time.Second, 15 * time.Second}},
	} {
		for _, stream := range []bool{false, true} {
			t.Run(fmt.Sprint(c.name, ", stream ", stream), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var unreadable atomic.Bool
					unreadable.Store(c.halts)
					s := bgagenttest.NewStarter(func(turn *bgagenttest.Turn) {
						if turn.N == 1 {
							work(turn, time.Second)
							turn.Say("old")
							if c.halts {
								turn.Retrying(refusal, time.Hour)
							}
							turn.Refuse(refusal)
						}
						unreadable.Store(false)
						work(turn, 30*time.Second)
						turn.Say("new")
					})
					s.Stream, s.Continues = stream, true
					s.Faults = func(call bgagenttest.Call) (fault bgagenttest.Fault) {
						if call.Kind == bgagenttest.CallMessages && unreadable.Load() && call.N < 100 {
							fault.Err = fmt.Errorf("the messages cannot be read")
						}
						return fault
					}
					var memory storetest.Memory
					begin := func() (*bgagent.BackgroundManager, *storetest.Process) {
						store := memory.Process()
						m, err := bgagent.New(s, bgagent.Config{Store: store, TaskBudget: bgagent.Budget{ToolCalls: 100}})
						require.NoError(t, err)
						require.NoError(t, inside.CheckUnchanged(m))
						inside.CheckAlways(m, func(err error) { t.Error(err) })
						m.Start()
						return m, store
					}
					m, store := begin()
					defer func() {
						closeNow(m)
						s.Close()
						time.Sleep(time.Minute)
					}()
					id := launch(t, m, "p").ID
					for _, d := range c.crashes {
						time.Sleep(d)
						require.Equal(t, bgagent.Running, get(t, m, id).Status)
						store.Crash()
						next := s.NextProcess()
						closeNow(m)
						s = next
						m, store = begin()
					}
					task := ended(t, m, id)[0]
					require.Equal(t, bgagent.Completed, task.Status, task.Reason)
					require.Equal(t, "new", task.Result)
					require.Equal(t, bgagent.Budget{InputTokens: 20, OutputTokens: 20, TotalTokens: 40, ToolCalls: 2}, task.Budget.Used)
					require.Equal(t, 2, task.Progress.ToolCalls)
					require.Equal(t, 2, task.Progress.Turns)
					switch {
					case c.halts: // usage that is reported after its turn was stopped counts only towards budgets
						require.Contains(t, []int64{10, 20}, task.Progress.Usage.InputTokens)
					case len(c.crashes) == 0:
						require.Equal(t, bgagent.Usage{InputTokens: 20, OutputTokens: 20}, task.Progress.Usage)
					}
					require.Empty(t, s.Violations())
				})
			})
		}
	}
}
