package bgagent_test

import (
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

// coolHub connects sources that simulate the processes of one service.
type coolHub struct {
	mu    sync.Mutex
	hears map[int]func(bgagent.CoolDown)
	told  []bgagent.CoolDown
	links int // number of calls to ShareCoolDowns
	panic bool
}

// process returns a source for one more process.
func (h *coolHub) process() *coolSource {
	return &coolSource{scriptedSource: scriptedSource{auto: true}, hub: h}
}

// coolSource grants each slot immediately and shares cool-downs.
type coolSource struct {
	scriptedSource
	hub *coolHub
}

func (s *coolSource) ShareCoolDowns(hear func(bgagent.CoolDown)) (tell func(bgagent.CoolDown), stop func()) {
	h := s.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	n := h.links
	h.links++
	if h.hears == nil {
		h.hears = map[int]func(bgagent.CoolDown){}
	}
	h.hears[n] = hear
	tell = func(d bgagent.CoolDown) {
		h.mu.Lock()
		h.told = append(h.told, d)
		var others []func(bgagent.CoolDown)
		for i, f := range h.hears {
			if i != n {
				others = append(others, f)
			}
		}
		h.mu.Unlock()
		if h.panic {
			panic("on purpose")
		}
		for _, f := range others {
			f(d)
		}
	}
	return tell, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.hears, n)
	}
}

// reports returns the cool-downs that were reported, once all goroutines are idle.
func (h *coolHub) reports() []bgagent.CoolDown {
	synctest.Wait()
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]bgagent.CoolDown(nil), h.told...)
}

// listeners returns how many users the source has.
func (h *coolHub) listeners() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.hears)
}

func by(t *testing.T, m *bgagent.BackgroundManager, model string) string {
	t.Helper()
	task, err := m.Launch(t.Context(), root, bgagent.LaunchInput{Agent: "worker", Prompt: "p", Model: model})
	require.NoError(t, err)
	return task.ID
}

// If a turn is refused in one process, no turn of the pool begins in the other process until the
// end of the cool-down.
func TestACoolDownAppliesToAllUsersOfASource(t *testing.T) {
	for name, c := range map[string]struct {
		scope bgagent.ProviderScope
		cools map[string]bool // whether the pool of the model cools down
	}{
		"of a model":    {cools: map[string]bool{"openai/gpt": true, "openai/other": false, "mistral/m": false}},
		"of a provider": {scope: bgagent.ScopeProvider, cools: map[string]bool{"openai/gpt": true, "openai/other": true, "mistral/m": false}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var hub coolHub
				began := time.Now()
				refused := newLimited(first(1, bgagent.ProviderError{Kind: bgagent.ProviderRateLimited, Scope: c.scope, Next: bgagent.NextRepeat, RetryAt: began.Add(time.Hour)}))
				other := newLimited(first(0, bgagent.ProviderError{}))
				m := manage(t, refused, bgagent.Config{Slots: hub.process()})
				o := manage(t, other, bgagent.Config{Slots: hub.process()})
				by(t, m, "openai/gpt")
				require.Len(t, hub.reports(), 1)
				require.Equal(t, time.Hour, hub.reports()[0].RetryIn)
				for model, cools := range c.cools {
					id := by(t, o, model)
					time.Sleep(time.Minute)
					require.Equal(t, cools, get(t, o, id).Status == bgagent.Pending, model)
					if cools {
						require.True(t, o.Concurrency().Stats(model).CoolUntil.After(began.Add(time.Hour-1)))
					}
				}
				early := len(other.turns())
				time.Sleep(2 * time.Hour)
				synctest.Wait()
				turns := other.turns()
				require.Len(t, turns, len(c.cools), "all tasks start after the cool-down")
				for _, turn := range turns[early:] {
					require.False(t, turn.at.Before(began.Add(time.Hour)))
				}
				require.Len(t, hub.reports(), 1, "a user must not report a cool-down again that another user reported")
			})
		})
	}
}

// If the provider does not give a time, each further cool-down is longer, whichever process was
// refused.
func TestRefusalsInARowCountInAllProcesses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var hub coolHub
		refusal := bgagent.ProviderError{Kind: bgagent.ProviderOverloaded, Next: bgagent.NextRepeat}
		a := manage(t, newLimited(first(1, refusal)), bgagent.Config{Slots: hub.process()})
		second := newLimited(first(1, refusal))
		b := manage(t, second, bgagent.Config{Slots: hub.process()})
		by(t, a, "m")
		synctest.Wait()
		by(t, b, "m")
		time.Sleep(5 * time.Minute)
		told := hub.reports()
		require.Len(t, told, 2)
		require.Equal(t, []int{1, 2}, []int{told[0].Tries, told[1].Tries})
		require.GreaterOrEqual(t, told[1].For, 2*5*time.Second)
		turns := second.turns()
		require.Len(t, turns, 2)
		require.GreaterOrEqual(t, turns[1].at.Sub(turns[0].at), 2*5*time.Second)
	})
}

// Managers that share a ConcurrencyManager count as one user of the source.
func TestManagersAreConnectedWhileTheyAreOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var hub coolHub
		m := manage(t, working(time.Second), bgagent.Config{Slots: hub.process()})
		o := manage(t, working(time.Second), bgagent.Config{Concurrency: m.Concurrency()})
		require.Equal(t, 1, hub.listeners())
		hear := hub.hears[0]
		require.NoError(t, m.Close(t.Context()))
		require.Equal(t, 1, hub.listeners(), "the second manager still uses the source")
		hear(bgagent.CoolDown{Agent: "worker", For: time.Hour, Tries: 1})
		id := launch(t, o, "p").ID
		time.Sleep(time.Minute)
		require.Equal(t, bgagent.Pending, get(t, o, id).Status)
		_, err := o.Cancel(t.Context(), root, id, bgagent.CancelOptions{})
		require.NoError(t, err)
		_ = o.Close(t.Context()) // the end was not reported to the root session
		require.Zero(t, hub.listeners())
		hear(bgagent.CoolDown{Agent: "worker", For: time.Hour, Tries: 1})
		again := manage(t, working(time.Second), bgagent.Config{Concurrency: m.Concurrency()})
		require.Equal(t, 1, hub.listeners())
		require.NoError(t, again.Close(t.Context()))
		require.Zero(t, hub.listeners())
	})
}

// Other processes can report any values.
func TestImpossibleCoolDownsAreIgnored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var hub coolHub
		m := manage(t, working(time.Second), bgagent.Config{Slots: hub.process()})
		for _, d := range []bgagent.CoolDown{
			{}, {For: -1}, {For: 1 << 62}, {For: time.Hour, RetryIn: -1}, {For: time.Hour, RetryIn: 1 << 62}, {For: time.Hour, Tries: -1}, {For: time.Hour, Tries: 1 << 40},
		} {
			d.Agent = "worker"
			hub.hears[0](d)
			require.Zero(t, m.Concurrency().Stats("").Refusals, "%+v", d)
			ended(t, m, launch(t, m, "p").ID)
			require.Empty(t, m.Concurrency().Pools()[0].CoolUntil, "%+v", d)
		}
	})
}

// If a source panics when a cool-down is reported to it, the refused task still continues.
func TestASourceThatPanicsWhenItIsToldOfACoolDownStopsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := coolHub{panic: true}
		m := manage(t, newLimited(first(1, bgagent.ProviderError{Kind: bgagent.ProviderOverloaded, Next: bgagent.NextRepeat})), bgagent.Config{Slots: hub.process()})
		id := by(t, m, "m")
		require.Equal(t, bgagent.Completed, ended(t, m, id)[0].Status)
		require.Len(t, hub.reports(), 1)
	})
}

// If the slots come from a source, a tree can have tasks in several processes.
func TestNewSaysThatBudgetsOfTreesHoldPerProcess(t *testing.T) {
	for _, c := range []struct {
		cfg  bgagent.Config
		says bool
	}{
		{bgagent.Config{Slots: &scriptedSource{}, TreeBudget: bgagent.Budget{Cost: 1}}, true},
		{bgagent.Config{Slots: &scriptedSource{}, TaskBudget: bgagent.Budget{Cost: 1}}, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			var log strings.Builder
			c.cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
			manage(t, working(time.Second), c.cfg)
			synctest.Wait()
			require.Equal(t, c.says, strings.Contains(log.String(), "budgets of trees count only the tasks of this process"), log.String())
		})
	}
}
