package bgagent_test

import (
	"fmt"
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

// The method "process" returns a source for one more process.
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

// The method "reports" waits until all goroutines are idle, and returns the cool-downs that were
// reported.
func (h *coolHub) reports() []bgagent.CoolDown {
	synctest.Wait()
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]bgagent.CoolDown(nil), h.told...)
}

// The method "listeners" returns how many users the source has.
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
		cools map[string]bool // whether the model's pool is cooling down
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

// In this test, the provider refuses many turns that had begun in several processes. The cool-down
// must end as early as if all these turns had begun in a single process.
func TestReportsDoNotProlongEachOther(t *testing.T) {
	for _, wait := range []time.Duration{0, time.Minute} {
		for _, processes := range []int{1, 2, 4} {
			synctest.Test(t, func(t *testing.T) {
				const refused = 60
				var hub coolHub
				var clients []*limited
				began := time.Now()
				for p := range processes {
					clients = append(clients, newLimited(func(n int, _ bgagent.Prompt) error {
						if n >= refused/processes {
							return nil
						}
						time.Sleep(time.Duration(n*processes+p+1) * 22 * time.Millisecond)
						e := &bgagent.ProviderError{Kind: bgagent.ProviderOverloaded, Next: bgagent.NextRepeat}
						if wait > 0 {
							e.RetryAt = began.Add(wait)
						}
						return e
					}))
					source := hub.process()
					source.limits = &bgagent.Limits{Default: bgagent.Unlimited}
					m := manage(t, clients[p], bgagent.Config{Slots: source, MaxTasksPerRoot: 1000})
					for range refused / processes {
						by(t, m, "m")
					}
				}
				time.Sleep(time.Hour)
				synctest.Wait()
				first := time.Hour
				for _, f := range clients {
					turns := f.turns()
					require.Greater(t, len(turns), refused/processes)
					first = min(first, turns[refused/processes].at.Sub(began))
				}
				require.LessOrEqual(t, first, max(15*time.Second, wait+wait/5+time.Second), "%d processes", processes)
			})
		}
	}
}

// In this test, ten processes share a token bucket. A refusal in one process must not lengthen the
// cool-downs in the processes whose turns succeed.
func TestSharedCoolDownsDoNotStarveTheTasks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const all, processes = 100, 10
		var hub coolHub
		var mu sync.Mutex
		tokens, last := 5.0, time.Now()
		bucket := func(int, bgagent.Prompt) error {
			time.Sleep(300 * time.Millisecond)
			mu.Lock()
			defer mu.Unlock()
			now := time.Now()
			tokens, last = min(5, tokens+now.Sub(last).Seconds()), now
			if tokens < 1 {
				return &bgagent.ProviderError{Kind: bgagent.ProviderRateLimited, Next: bgagent.NextRepeat}
			}
			tokens--
			return nil
		}
		began := time.Now()
		var managers []*bgagent.BackgroundManager
		var ids [processes][]string
		for p := range processes {
			m := manage(t, newLimited(bucket), bgagent.Config{Slots: hub.process(), MaxTasksPerRoot: 1000})
			managers = append(managers, m)
			for range all / processes {
				ids[p] = append(ids[p], by(t, m, "m"))
			}
		}
		for p, m := range managers {
			for _, task := range ended(t, m, ids[p]...) {
				require.Equal(t, bgagent.Completed, task.Status)
			}
		}
		require.Less(t, time.Since(began), 15*time.Minute)
	})
}

// In this test, models of two providers share a pool. One provider refuses a turn, and the refusal
// applies to all its models. Then the other provider refuses a turn, and the refusal applies to one
// model.
func TestARefusalOfOneProviderDoesNotShutAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var hub coolHub
		f := newLimited(func(n int, _ bgagent.Prompt) error {
			e := &bgagent.ProviderError{Kind: bgagent.ProviderRateLimited, Next: bgagent.NextRepeat}
			switch n {
			case 0:
				time.Sleep(2 * time.Second)
			case 1:
				e.Scope, e.RetryAt = bgagent.ScopeProvider, time.Now().Add(time.Hour)
			default:
				return nil
			}
			return e
		})
		limits := &bgagent.Limits{Model: map[string]int{"gpt": 5}}
		one, two := hub.process(), hub.process()
		one.limits, two.limits = limits, limits
		m := manage(t, f, bgagent.Config{Slots: one})
		o := manage(t, working(time.Second), bgagent.Config{Slots: two})
		by(t, m, "azure/gpt")
		time.Sleep(time.Second)
		by(t, m, "openai/gpt")
		time.Sleep(2 * time.Second)
		require.Len(t, hub.reports(), 2)
		for _, x := range []*bgagent.BackgroundManager{m, o} {
			embeds := by(t, x, "azure/embed")
			waits := by(t, x, "azure/gpt")
			time.Sleep(10 * time.Second)
			require.Equal(t, bgagent.Completed, get(t, x, embeds).Status)
			require.Equal(t, bgagent.Pending, get(t, x, waits).Status)
		}
	})
}

// With MaxPark disabled, pools do not cool down.
func TestAManagerWithoutParkingHearsNoCoolDowns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var hub coolHub
		manage(t, working(time.Second), bgagent.Config{Slots: hub.process(), MaxPark: bgagent.Disabled})
		require.Zero(t, hub.listeners())
	})
}

// A report changes a cool-down only if it lengthens the cool-down. The number of reported cool-downs
// that the manager keeps is limited.
func TestAReportThatSaysNothingNewChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var hub coolHub
		m := manage(t, working(time.Second), bgagent.Config{Slots: hub.process()})
		hear := hub.hears[0]
		hear(bgagent.CoolDown{Model: "m", For: time.Hour})
		before := m.Concurrency().Stats("m")
		for range 30 {
			hear(bgagent.CoolDown{Model: "m", For: time.Hour})
			hear(bgagent.CoolDown{Model: "m", For: time.Minute})
		}
		require.Equal(t, before, m.Concurrency().Stats("m"))
		hear(bgagent.CoolDown{Model: "m", For: 2 * time.Hour})
		after := m.Concurrency().Stats("m")
		require.Equal(t, 2, after.Refusals)
		require.True(t, after.CoolUntil.After(time.Now().Add(2*time.Hour-1)))
		for i := range 3000 {
			hear(bgagent.CoolDown{Model: fmt.Sprint("x/", i), Provider: true, For: time.Hour})
		}
		require.LessOrEqual(t, len(m.Concurrency().Pools()), 1001)
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
		hear(bgagent.CoolDown{Agent: "worker", For: time.Hour})
		id := launch(t, o, "p").ID
		time.Sleep(time.Minute)
		require.Equal(t, bgagent.Pending, get(t, o, id).Status)
		_, err := o.Cancel(t.Context(), root, id, bgagent.CancelOptions{})
		require.NoError(t, err)
		_ = o.Close(t.Context()) // the end was not reported to the root session
		require.Zero(t, hub.listeners())
		hear(bgagent.CoolDown{Model: "m", For: time.Hour})
		again := manage(t, working(time.Second), bgagent.Config{Concurrency: m.Concurrency()})
		require.Equal(t, 1, hub.listeners())
		ended(t, again, by(t, again, "m"))
		require.Zero(t, again.Concurrency().Stats("m").Refusals)
		_ = again.Close(t.Context()) // the end was not reported to the root session
		require.Zero(t, hub.listeners())
	})
}

// Other processes can report any values.
func TestImpossibleCoolDownsAreIgnored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var hub coolHub
		m := manage(t, working(time.Second), bgagent.Config{Slots: hub.process()})
		for _, d := range []bgagent.CoolDown{
			{}, {For: -1}, {For: 1 << 62}, {For: time.Hour, RetryIn: -1}, {For: time.Hour, RetryIn: 1 << 62}, {For: time.Hour, Model: strings.Repeat("m", 5000)},
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
