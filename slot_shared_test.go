package bgagent_test

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

// In this test, a manager uses the ConcurrencyManager of another manager, whose slots come from a
// source.
func TestAManagerAsksTheSourceOfTheManagerWhoseSlotsItShares(t *testing.T) {
	for name, share := range map[string]func(*bgagent.ConcurrencyManager) bgagent.Config{
		"Concurrency": func(c *bgagent.ConcurrencyManager) bgagent.Config { return bgagent.Config{Concurrency: c} },
		"Slots":       func(c *bgagent.ConcurrencyManager) bgagent.Config { return bgagent.Config{Slots: c} },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &scriptedSource{}
				first := manage(t, working(time.Minute), bgagent.Config{Slots: s})
				second := manage(t, working(time.Minute), share(first.Concurrency()))
				require.Same(t, first.Concurrency(), second.Concurrency(), "the managers also share cool-downs")
				task := launch(t, second, "1")
				k := s.claim(t, 0)
				time.Sleep(time.Hour)
				require.Equal(t, bgagent.Pending, get(t, second, task.ID).Status)
				k.h.SlotGranted()
				require.Equal(t, bgagent.Completed, ended(t, second, task.ID)[0].Status)
				require.Equal(t, 1, k.releases())
			})
		})
	}
}

// The type "granted" is a holder that appends its name to a list when it gets the slot.
type granted struct {
	name string
	all  *[]string
}

func (g granted) SlotGranted()              { *g.all = append(*g.all, g.name) }
func (g granted) SlotLost(time.Time, error) {}

// In this test, the last request has an earlier queue time than the request before it.
func TestARequestWithoutAQueueTimeIsQueuedWhenItIsMade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, err := bgagent.NewConcurrencyManager(bgagent.Limits{Default: 1})
		require.NoError(t, err)
		var all []string
		first := c.Request(bgagent.SlotRequest{Model: "m"}, granted{"first", &all})
		time.Sleep(time.Minute)
		third := c.Request(bgagent.SlotRequest{Model: "m"}, granted{"third", &all})
		second := c.Request(bgagent.SlotRequest{Model: "m", Queued: time.Now().Add(-time.Second)}, granted{"second", &all})
		first.Release()
		second.Release()
		third.Release()
		require.Equal(t, []string{"first", "second", "third"}, all)
	})
}

// In this test, the provider refuses the first turn. The source reports no figures for the pool.
func TestFiguresOfASourceHaveTheCoolDownsOfTheManager(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scriptedSource{auto: true}
		f := newLimited(first(1, bgagent.ProviderError{Kind: bgagent.ProviderRateLimited, Next: bgagent.NextRepeat, RetryAt: time.Now().Add(time.Hour)}))
		m := manage(t, f, bgagent.Config{Slots: s})
		by := func(model string) bgagent.Task {
			task, err := m.Launch(t.Context(), root, bgagent.LaunchInput{Agent: "worker", Prompt: "p", Model: model})
			require.NoError(t, err)
			return task
		}
		by("openai/gpt")
		synctest.Wait()
		waits := by("openai/gpt")
		pool := get(t, m, waits.ID).Queue.Pool
		require.Equal(t, "default openai/gpt", pool.Name)
		require.Equal(t, 2, pool.Limit)
		require.Equal(t, 1, pool.Refusals)
		require.True(t, pool.CoolUntil.After(time.Now().Add(time.Hour-1)))
		require.Contains(t, m.Figures().Pools, pool)
		require.Contains(t, m.Concurrency().Pools(), pool)
		require.Equal(t, pool, m.Concurrency().Stats("openai/gpt"))

		// The source puts all models of the provider into one pool.
		s.mu.Lock()
		s.limits = &bgagent.Limits{Default: 2, Provider: map[string]int{"openai": 3}}
		s.mu.Unlock()
		moved := m.Concurrency().Stats("openai/other")
		require.Equal(t, "provider openai", moved.Name)
		require.Equal(t, 3, moved.Limit)
		require.Equal(t, pool.CoolUntil, moved.CoolUntil)
		require.Equal(t, "provider openai", get(t, m, waits.ID).Queue.Pool.Name)
		time.Sleep(2 * time.Hour)
		ended(t, m, waits.ID)
	})
}

// In this test, the source's limits change before a task asks for a slot.
func TestARequestTakesOverTheLimitsOfTheSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scriptedSource{}
		m := manage(t, working(time.Minute), bgagent.Config{Slots: s})
		s.mu.Lock()
		s.limits = &bgagent.Limits{Default: 2, Provider: map[string]int{"openai": 3}}
		s.mu.Unlock()
		task, err := m.Launch(t.Context(), root, bgagent.LaunchInput{Agent: "worker", Prompt: "p", Model: "openai/gpt"})
		require.NoError(t, err)
		s.claim(t, 0)
		require.Equal(t, bgagent.PoolStats{Name: "provider openai", Limit: 3}, get(t, m, task.ID).Queue.Pool)
		_, err = m.Cancel(t.Context(), bgagent.Caller{}, task.ID, bgagent.CancelOptions{})
		require.NoError(t, err)
	})
}

// In this test, all requests of the first call come from one root session, except the request with
// the latest queue time.
func TestRequestsThatAreMadeTogetherAreAllInLineBeforeOneIsGranted(t *testing.T) {
	for _, c := range []struct {
		limits bgagent.Limits
		first  []string
	}{
		{bgagent.Limits{Default: 2}, []string{"r0", "r1"}},
		{bgagent.Limits{Default: 2, Fair: true}, []string{"r0", "s"}},
	} {
		own, err := bgagent.NewConcurrencyManager(c.limits)
		require.NoError(t, err)
		var all []string
		var requests []bgagent.SlotRequest
		var holders []bgagent.SlotHolder
		for i, name := range []string{"s", "r2", "r1", "r0"} {
			requests = append(requests, bgagent.SlotRequest{Model: "m", Root: name[:1], Queued: time.Unix(1_700_000_000, int64(-i))})
			holders = append(holders, granted{name, &all})
		}
		claims := own.RequestAll(requests, holders)
		require.Equal(t, c.first, all)
		for i, h := range holders {
			require.Equal(t, slices.Contains(all, h.(granted).name), claims[i].MayBegin())
		}
		runs := own.RequestAll([]bgagent.SlotRequest{{Model: "n"}, {Model: "n"}, {Model: "n", Running: true}},
			[]bgagent.SlotHolder{granted{"first", &all}, granted{"second", &all}, granted{"running", &all}})
		require.Equal(t, append(slices.Clone(c.first), "running", "first"), all)
		runs[2].Release()
		require.Equal(t, append(slices.Clone(c.first), "running", "first", "second"), all)
		require.Empty(t, own.RequestAll(nil, nil))
	}
}

// This test calls the ConcurrencyManager of a manager whose slots come from a source.
func TestRequestsThatAreMadeTogetherGoToTheSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scriptedSource{}
		m := manage(t, working(time.Minute), bgagent.Config{Slots: s})
		var all []string
		claims := m.Concurrency().RequestAll([]bgagent.SlotRequest{{Model: "m"}, {Model: "n"}}, []bgagent.SlotHolder{granted{"1", &all}, granted{"2", &all}})
		require.Empty(t, all)
		s.claim(t, 1).h.SlotGranted()
		require.Equal(t, []string{"2"}, all)
		for i, k := range claims {
			k.Release()
			require.Equal(t, 1, s.claim(t, i).releases())
		}
	})
}
