package bgagent

import (
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/bgagent/bgagent/internal/slots"
	"github.com/stretchr/testify/require"
)

// The function "ask" returns a new guest that has asked for a slot.
func ask(c *ConcurrencyManager, model, agent string, root *slots.Root) *guest {
	g := newGuest()
	g.Root = root
	if takeSlot(c, &g.Waiter, model, agent, false, c.slots.Ticket()) {
		g.told.Store(1)
	}
	return g
}

func holds(c *ConcurrencyManager, g *guest) bool { return c.slots.Holds(&g.Waiter) }

func pools(t *testing.T, c *ConcurrencyManager) map[string]PoolStats {
	t.Helper()
	require.NoError(t, c.slots.Check())
	out := map[string]PoolStats{}
	for _, p := range c.Pools() {
		out[p.Name] = p
	}
	return out
}

func TestTheTotalHoldsOverAllPools(t *testing.T) {
	c := newConcurrency(t, Limits{Default: 2, Total: 3})
	var all []*guest
	for i := range 8 {
		all = append(all, ask(c, "", fmt.Sprint("script", i%4), nil))
	}
	require.Equal(t, PoolStats{Name: "total", Limit: 3, InUse: 3, Waiting: 5}, pools(t, c)["total"])
	require.Equal(t, PoolStats{Name: "agent script3", Limit: 2, InUse: 0, Waiting: 2}, pools(t, c)["agent script3"])
	place, s := c.slots.Place(&all[4].Waiter)
	require.Equal(t, "total", s.Name)
	require.Equal(t, 2, place)
	for i, g := range all[3:] { // the longest-waiting guest comes first
		all[i].leave(c)
		requireHolds(t, c, g)
	}
	_, ok := c.TryAcquire("any/model")
	require.False(t, ok, "Acquire also counts towards the total")
	for _, g := range all[5:] {
		g.leave(c)
	}
	require.Empty(t, c.Pools())
}

func TestAnAgentsCapHoldsForAllItsModels(t *testing.T) {
	c := newConcurrency(t, Limits{Default: 1, Agent: map[string]int{" Explore ": 2, "free": Unlimited}})
	a, b := ask(c, "p/x", "explore", nil), ask(c, "", "explore", nil)
	third := ask(c, "p/y", "EXPLORE", nil)
	require.True(t, holds(c, a) && holds(c, b))
	_, s := c.slots.Place(&third.Waiter)
	require.Equal(t, PoolStats{Name: "cap explore", Limit: 2, InUse: 2, Waiting: 1}, poolStats(c.epoch, s))
	require.NotContains(t, pools(t, c), "agent explore", "the cap replaces the default")
	s2, ok := c.TryAcquire("p/y")
	require.True(t, ok, "the cap applies only to its agent")
	b.leave(c)
	require.False(t, holds(c, third), "its pool is now full")
	_, s = c.slots.Place(&third.Waiter)
	require.Equal(t, "default p/y", s.Name)
	s2.Release()
	requireHolds(t, c, third)
	for range 10 {
		require.True(t, holds(c, ask(c, "", "free", nil)), "Unlimited replaces the default")
	}
}

func TestACappedHeadOfLineHoldsUpNobody(t *testing.T) {
	c := newConcurrency(t, Limits{Default: 1, Agent: map[string]int{"slow": 1}})
	elsewhere, first := ask(c, "q/m", "slow", nil), ask(c, "p/m", "other", nil)
	head, next := ask(c, "p/m", "slow", nil), ask(c, "p/m", "other", nil)
	first.leave(c)
	requireHolds(t, c, next)
	require.False(t, holds(c, head))
	next.leave(c)
	elsewhere.leave(c)
	requireHolds(t, c, head)
}

func TestAHeadOfLineIsPassedOverAHundredTimesAtMost(t *testing.T) {
	for _, limits := range []Limits{
		{Default: 1, Agent: map[string]int{"slow": 1}},
		{Default: 1, Agent: map[string]int{"slow": 1}, Fair: true},
	} {
		c := newConcurrency(t, limits)
		elsewhere := ask(c, "q/m", "slow", nil)
		head := ask(c, "p/m", "slow", nil)
		for i := range slots.MaxPassed {
			g := ask(c, "p/m", "other", nil)
			require.True(t, holds(c, g), i)
			g.leave(c)
		}
		late := ask(c, "p/m", "other", nil)
		require.False(t, holds(c, late), "the next slot is reserved")
		require.Zero(t, pools(t, c)["default p/m"].InUse)
		require.Equal(t, 1, pools(t, c)["cap slow"].InUse, "a reserved slot does not count towards a cap")
		waits := ask(c, "q/m", "slow", nil)
		elsewhere.leave(c)
		requireHolds(t, c, head)
		require.False(t, holds(c, waits))
		head.leave(c)
		requireHolds(t, c, late)
		requireHolds(t, c, waits)
	}
}

func TestAKeptSlotIsFreeAgainWhenItsOwnerLeaves(t *testing.T) {
	c := newConcurrency(t, Limits{Default: 1, Agent: map[string]int{"slow": 1}})
	ask(c, "q/m", "slow", nil)
	head := ask(c, "p/m", "slow", nil)
	for range slots.MaxPassed {
		ask(c, "p/m", "other", nil).leave(c)
	}
	late := ask(c, "p/m", "other", nil)
	require.False(t, holds(c, late))
	head.leave(c)
	requireHolds(t, c, late)
}

func TestCrossedCapsDoNotBlockEachOther(t *testing.T) {
	c := newConcurrency(t, Limits{Default: 1, Agent: map[string]int{"a": 1, "b": 1}})
	holdsA, holdsB := ask(c, "q/m", "a", nil), ask(c, "r/m", "b", nil)
	waitsB, waitsA := ask(c, "q/m", "b", nil), ask(c, "r/m", "a", nil)
	more := []*guest{ask(c, "r/m", "b", nil), ask(c, "q/m", "a", nil)}
	holdsA.leave(c)
	holdsB.leave(c)
	for _, g := range more { // these guests get the slots, because caps hold back the guests before them in line
		requireHolds(t, c, g)
		g.leave(c)
	}
	requireHolds(t, c, waitsB)
	requireHolds(t, c, waitsA)
	waitsB.leave(c)
	waitsA.leave(c)
	require.Empty(t, pools(t, c))
}

func TestKeptSlotsThatCrossDoNotBlockEachOther(t *testing.T) {
	c := newConcurrency(t, Limits{Default: 1, Agent: map[string]int{"a": 1, "b": 1}})
	holdsA, holdsB := ask(c, "other/m", "a", nil), ask(c, "another/m", "b", nil)
	waitsA, waitsB := ask(c, "q/m", "a", nil), ask(c, "r/m", "b", nil)
	for range slots.MaxPassed {
		ask(c, "q/m", "x", nil).leave(c)
		ask(c, "r/m", "x", nil).leave(c)
	}
	crossB, crossA := ask(c, "q/m", "b", nil), ask(c, "r/m", "a", nil)
	for _, g := range []*guest{waitsA, waitsB, crossA, crossB} {
		require.False(t, holds(c, g))
	}
	holdsA.leave(c)
	requireHolds(t, c, waitsA)
	waitsA.leave(c)
	require.False(t, holds(c, crossA), "the slot is reserved for r")
	holdsB.leave(c)
	requireHolds(t, c, waitsB)
	waitsB.leave(c)
	requireHolds(t, c, crossA)
	requireHolds(t, c, crossB)
}

func TestOneReleaseCanLetSeveralStart(t *testing.T) {
	c := newConcurrency(t, Limits{Default: 1, Agent: map[string]int{"a": 1, "b": 2}})
	both := ask(c, "p/m", "a", nil)
	ofPool, ofCap := ask(c, "p/m", "b", nil), ask(c, "q/m", "a", nil)
	both.leave(c)
	requireHolds(t, c, ofPool)
	requireHolds(t, c, ofCap)
}

func TestRootsHaveTurnsInRounds(t *testing.T) {
	c := newConcurrency(t, Limits{Default: 1, Fair: true})
	roots := make([]slots.Root, 3)
	running := ask(c, "m", "x", &roots[0])
	var lines [3][]*guest
	for root, n := range []int{4, 2, 1} {
		for range n {
			lines[root] = append(lines[root], ask(c, "m", "x", &roots[root]))
		}
	}
	place, _ := c.slots.Place(&lines[1][1].Waiter)
	require.Equal(t, 2, place, "only waiters of the same root count")
	for _, turn := range [][2]int{{0, 0}, {1, 0}, {2, 0}, {0, 1}, {1, 1}, {0, 2}, {0, 3}} {
		running.leave(c)
		running = lines[turn[0]][turn[1]]
		requireHolds(t, c, running)
	}
}

func TestCapsCanComeAndGoWhileThingsRun(t *testing.T) {
	c := newConcurrency(t, Limits{Default: 2})
	var all []*guest
	for range 3 {
		all = append(all, ask(c, "p/m", "a", nil), ask(c, "q/m", "b", nil))
	}
	require.NoError(t, c.SetLimits(Limits{Default: 5, Total: 5, Agent: map[string]int{"a": 1}}))
	stats := pools(t, c)
	require.Equal(t, PoolStats{Name: "total", Limit: 5, InUse: 5, Waiting: 1}, stats["total"])
	require.Equal(t, PoolStats{Name: "cap a", Limit: 1, InUse: 2, Waiting: 1}, stats["cap a"], "slots that were already in use count")
	all[0].leave(c)
	require.False(t, holds(c, all[4]))
	all[2].leave(c)
	requireHolds(t, c, all[4])
	more := ask(c, "q/m", "a", nil)
	require.False(t, holds(c, more))
	require.NoError(t, c.SetLimits(Limits{Default: 5}))
	requireHolds(t, c, more)
	require.NotContains(t, pools(t, c), "total")
}

func TestAcquireWaitsForTheTotal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newConcurrency(t, Limits{Total: 1})
		held, ok := c.TryAcquire("a/x")
		require.True(t, ok)
		got := make(chan Slot, 1)
		go func() {
			s, err := c.Acquire(t.Context(), "b/y")
			require.NoError(t, err)
			got <- s
		}()
		synctest.Wait()
		require.Empty(t, got)
		held.Release()
		(<-got).Release()
		require.Empty(t, c.Pools())
	})
}
