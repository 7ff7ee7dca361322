package bgagent

import (
	"sync/atomic"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// guest is what a task is to the ConcurrencyManager.
type guest struct {
	waiter
	told atomic.Int32
}

func (g *guest) slotGranted(*waiter) { g.told.Add(1) }

func newGuest() *guest {
	g := &guest{}
	g.owner = g
	return g
}

func (g *guest) take(c *ConcurrencyManager, model string) bool {
	return c.take(&g.waiter, model, "agent", false, c.ticket())
}

// leave tells the next one, as the contract asks.
func (g *guest) leave(c *ConcurrencyManager) {
	if next := c.leave(&g.waiter); next != nil {
		next.owner.slotGranted(next)
	}
}

// line returns a manager with a limit of 1 for "m", the one who holds the slot
// and n who wait.
func line(t *testing.T, n int) (c *ConcurrencyManager, holder *guest, waiting []*guest) {
	c = newConcurrency(t, Limits{Default: 1})
	holder = newGuest()
	require.True(t, holder.take(c, "m"))
	for range n {
		g := newGuest()
		require.False(t, g.take(c, "m"))
		waiting = append(waiting, g)
	}
	return c, holder, waiting
}

func requireHolds(t *testing.T, c *ConcurrencyManager, g *guest) {
	t.Helper()
	require.NoError(t, c.checkInvariants())
	require.True(t, c.holds(&g.waiter), "does not hold the slot")
	require.EqualValues(t, 1, g.told.Load(), "times told")
}

// Lesson 2.
func TestReleasedSlotGoesToTheNextInLine(t *testing.T) {
	c, a, w := line(t, 2)
	a.leave(c)
	requireHolds(t, c, w[0])
	require.False(t, c.holds(&w[1].waiter))
	_, ok := c.TryAcquire("m")
	require.False(t, ok, "the slot was free for somebody else")
	w[0].leave(c)
	requireHolds(t, c, w[1])
	w[1].leave(c)
	requireFullBatch(t, c, "m")
}

// Lesson 3.
func TestCancelledHeadOfQueueDoesNotDropTheNext(t *testing.T) {
	c, a, w := line(t, 2)
	w[0].leave(c)
	a.leave(c)
	requireHolds(t, c, w[1])
	require.Zero(t, w[0].told.Load())
}

// Lesson 4.
func TestCancelledLastOfQueueDoesNotStrandTheNextOne(t *testing.T) {
	c, a, w := line(t, 1)
	w[0].leave(c)
	d := newGuest()
	require.False(t, d.take(c, "m"))
	a.leave(c)
	requireHolds(t, c, d)
	d.leave(c)
	e := newGuest()
	require.True(t, e.take(c, "m"))
	e.leave(c)
	requireFullBatch(t, c, "m")
}

// Lesson 5.
func TestCancelledWaiterDoesNotDisturbTheOthers(t *testing.T) {
	c, a, w := line(t, 5)
	w[2].leave(c)
	w[4].leave(c)
	a.leave(c)
	for _, i := range []int{0, 1, 3} {
		requireHolds(t, c, w[i])
		w[i].leave(c)
	}
	require.Zero(t, w[2].told.Load()+w[4].told.Load())
	requireFullBatch(t, c, "m")
}

// asker asks the manager back when it is told, which hangs if a lock is held.
type asker struct {
	waiter
	c     *ConcurrencyManager
	stats PoolStats
}

func (a *asker) slotGranted(w *waiter) { a.stats = a.c.Stats("m"); a.c.leave(w) }

func TestNobodyIsToldWhileALockIsHeld(t *testing.T) {
	c := newConcurrency(t, Limits{Default: 1})
	for name, free := range map[string]func(held Slot){
		"Release":   func(held Slot) { held.Release() },
		"SetLimits": func(held Slot) { require.NoError(t, c.SetLimits(Limits{Default: 2})) },
	} {
		held, ok := c.TryAcquire("m")
		require.True(t, ok)
		a := &asker{c: c}
		a.owner = a
		require.False(t, c.take(&a.waiter, "m", "", false, c.ticket()))
		free(held)
		require.Equal(t, "default m", a.stats.Name, name)
		held.Release()
		require.NoError(t, c.SetLimits(Limits{Default: 1}))
		requireFullBatch(t, c, "m")
	}
}

// Lesson 10: whoever shuts down takes the waiters out first.
func TestNobodyIsGrantedASlotAfterLeavingTheLine(t *testing.T) {
	c, a, w := line(t, 3)
	for _, g := range w {
		g.leave(c)
	}
	a.leave(c)
	for _, g := range w {
		require.Zero(t, g.told.Load())
		require.False(t, c.holds(&g.waiter))
	}
	requireFullBatch(t, c, "m")
}

func TestLeaveIsIdempotent(t *testing.T) {
	c, a, w := line(t, 2)
	a.leave(c)
	a.leave(c)
	w[1].leave(c)
	w[1].leave(c)
	requireHolds(t, c, w[0])
	w[0].leave(c)
	w[0].leave(c)
	newGuest().leave(c)
	requireFullBatch(t, c, "m")
}

func TestLeftWaiterCanComeBack(t *testing.T) {
	c, a, w := line(t, 2)
	w[0].leave(c)
	require.False(t, w[0].take(c, "m"))
	a.leave(c)
	requireHolds(t, c, w[1])
	w[1].leave(c)
	requireHolds(t, c, w[0])
}

func TestAskingTwiceIsABug(t *testing.T) {
	c, a, w := line(t, 1)
	for _, g := range []*guest{a, w[0]} {
		require.PanicsWithValue(t, "bgagent: bug: a slot is asked for by one who waits or holds one already", func() { g.take(c, "m") })
	}
	require.Panics(t, func() { c.take(&newGuest().waiter, "m", "a", false, 0) })
	require.NoError(t, c.checkInvariants(), "the panic changed something or kept the lock")
}

func TestHeadOfLineGoesBeforeEarlierTickets(t *testing.T) {
	c, a, w := line(t, 2)
	early := c.ticket()
	late := newGuest()
	require.False(t, late.take(c, "m"))
	h1, h2, between := newGuest(), newGuest(), newGuest()
	t1 := c.ticket()
	require.False(t, c.take(&h2.waiter, "m", "", true, c.ticket()))
	require.False(t, c.take(&h1.waiter, "m", "", true, t1))
	require.False(t, c.take(&between.waiter, "m", "", false, early))
	for i, g := range []*guest{h1, h2, w[0], w[1], between, late} {
		place, s := c.place(&g.waiter)
		require.Equal(t, i+1, place)
		require.Equal(t, PoolStats{"default m", 1, 1, 6}, s)
	}
	for _, g := range []*guest{h1, h2, w[0], w[1], between, late} {
		a.leave(c)
		requireHolds(t, c, g)
		a = g
	}
}

func TestPlaceIsCountedSoFarAndNoFurther(t *testing.T) {
	c, a, w := line(t, maxPlace+1)
	place, s := c.place(&a.waiter)
	require.Zero(t, place, "one who holds a slot has no place")
	require.Equal(t, PoolStats{"default m", 1, 1, maxPlace + 1}, s)
	place, _ = c.place(&w[maxPlace-1].waiter)
	require.Equal(t, maxPlace, place)
	place, s = c.place(&w[maxPlace].waiter)
	require.Zero(t, place)
	require.Equal(t, maxPlace+1, s.Waiting)
	place, s = c.place(&newGuest().waiter)
	require.Zero(t, place)
	require.Zero(t, s)
}

func TestPendingTaskCostsLittle(t *testing.T) {
	require.LessOrEqual(t, unsafe.Sizeof(waiter{}), uintptr(48))
}

func TestWaitingTaskCostsNoAllocation(t *testing.T) {
	c, a, w := line(t, 2)
	assert.Zero(t, testing.AllocsPerRun(100, func() {
		next := c.leave(&a.waiter)
		c.take(&a.waiter, "m", "", false, c.ticket())
		next = c.leave(next)
		c.leave(next)
		c.leave(&a.waiter)
		for _, g := range []*guest{a, w[0], w[1]} {
			c.leave(&g.waiter)
			c.take(&g.waiter, "m", "", false, c.ticket())
		}
	}))
}
