package bgagent_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

func TestAChainOfDelegationsEndsWithATotalOfOne(t *testing.T) {
	for _, foreground := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			var m *bgagent.BackgroundManager
			var now, most atomic.Int64
			f := &goRunner{}
			f.run = func(ctx context.Context, s string, p bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
				most.Store(max(most.Load(), now.Add(1)))
				defer now.Add(-1)
				time.Sleep(time.Second)
				var depth int
				if _, err := fmt.Sscanf(p.Text, "depth %d", &depth); err == nil && depth < 4 {
					in := bgagent.LaunchInput{Agent: fmt.Sprint("agent", depth%2), Prompt: fmt.Sprintf("depth %d", depth+1)}
					by := bgagent.Caller{Session: s}
					if foreground {
						_, err = m.Run(ctx, by, in)
						if err != nil {
							require.ErrorIs(t, err, bgagent.ErrGoesOn)
						}
					} else {
						_, err = m.Launch(ctx, by, in)
						require.NoError(t, err)
					}
				}
				return bgagent.TurnEnd{Text: "done"}, nil
			}
			m = manage(t, f, bgagent.Config{MaxDepth: 10, Limits: bgagent.Limits{Total: 1, Agent: map[string]int{"agent0": 1}}})
			first, second := launch(t, m, "depth 0"), launch(t, m, "depth 0")
			for _, task := range ended(t, m, first.ID, second.ID) {
				require.Equal(t, bgagent.Completed, task.Status, task.Reason)
			}
			require.EqualValues(t, 1, most.Load())
			require.Len(t, m.List(bgagent.Query{Status: []bgagent.Status{bgagent.Completed}}), 10)
		})
	}
}

func TestQueueNamesTheCapThatATaskWaitsFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := manage(t, &goRunner{run: works(time.Minute)}, bgagent.Config{Limits: bgagent.Limits{Total: 3, Agent: map[string]int{"explore": 1}}})
		var ids []string
		for i, agent := range []string{"explore", "explore", "a", "b", "c"} {
			task, err := m.Launch(t.Context(), root, bgagent.LaunchInput{Agent: agent, Prompt: fmt.Sprint(i)})
			require.NoError(t, err)
			ids = append(ids, task.ID)
		}
		require.Equal(t, bgagent.PoolStats{Name: "cap explore", Limit: 1, InUse: 1, Waiting: 1}, get(t, m, ids[1]).Queue.Pool)
		require.Equal(t, bgagent.PoolStats{Name: "total", Limit: 3, InUse: 3, Waiting: 2}, get(t, m, ids[4]).Queue.Pool)
		require.Equal(t, 2, get(t, m, ids[4]).Queue.Place)
		names := []string{}
		for _, p := range m.Figures().Pools {
			names = append(names, p.Name)
		}
		require.Equal(t, []string{"agent a", "agent b", "agent c", "cap explore", "total"}, names)
		ended(t, m, ids...)
	})
}

func TestOneRootDoesNotHoldUpAnotherWithFairLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := manage(t, &goRunner{run: works(time.Minute)}, bgagent.Config{Limits: bgagent.Limits{Default: 1, Fair: true}})
		for i := range 10 {
			launch(t, m, fmt.Sprint(i))
		}
		task, err := m.Launch(t.Context(), bgagent.Caller{Session: "another"}, bgagent.LaunchInput{Agent: "worker", Prompt: "x"})
		require.NoError(t, err)
		require.Equal(t, 1, get(t, m, task.ID).Queue.Place)
		began := time.Now()
		ended(t, m, task.ID)
		require.LessOrEqual(t, time.Since(began), 3*time.Minute)
	})
}
