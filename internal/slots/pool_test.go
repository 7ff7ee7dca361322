package slots

import (
	"sync/atomic"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// alone is a set of rules that gives each name its own pool. Its value is the limit of every
// pool.
type alone int

func (n alone) Caps() Caps { return Caps{} }

func (n alone) Pool(_ Space, name string) (pool string, limit int, shared bool) {
	return "pool " + name, int(n), false
}

// requireFullBatch checks that no slot is lost or still held: exactly as many acquires must succeed as the
// limit allows.
func requireFullBatch(t *testing.T, m *Manager, model string) {
	t.Helper()
	require.NoError(t, m.Check())
	limit := m.Stats(model).Limit
	var slots []Slot
	for i := range limit {
		s, ok := m.TryAcquire(model)
		require.True(t, ok, "slot %d of %d of %q is lost", i+1, limit, model)
		slots = append(slots, s)
	}
	_, ok := m.TryAcquire(model)
	require.False(t, ok, "%q granted more than %d slots", model, limit)
	for _, s := range slots {
		s.Release()
	}
	require.NoError(t, m.Check())
}

// guest is the Grantee that these tests use in place of a task.
type guest struct {
	Waiter
	told atomic.Int32
}

func (g *guest) SlotGranted(*Waiter) { g.told.Add(1) }

func newGuest() *guest {
	g := &guest{}
	g.Owner = g
	return g
}

func takeModel(c *Manager, w *Waiter, model string, head bool, ticket uint64) bool {
	h := c.For(Models, model, "")
	return c.Take(w, &h, head, ticket)
}

func (g *guest) take(c *Manager, model string) bool {
	return takeModel(c, &g.Waiter, model, false, c.Ticket())
}

// The method "leave" calls Leave and reports the grants that Leave returns.
func (g *guest) leave(c *Manager) {
	Tell(c.Leave(&g.Waiter))
}

// The function "line" returns a manager with a limit of 1, the holder of the only slot of the pool
// "m", and n waiters in its line.
func line(t *testing.T, n int) (c *Manager, holder *guest, waiting []*guest) {
	c = New(alone(1))
	holder = newGuest()
	require.True(t, holder.take(c, "m"))
	for range n {
		g := newGuest()
		require.False(t, g.take(c, "m"))
		waiting = append(waiting, g)
	}
	return c, holder, waiting
}

func requireHolds(t *testing.T, c *Manager, g *guest) {
	t.Helper()
	require.NoError(t, c.Check())
	require.True(t, c.Holds(&g.Waiter), "does not hold the slot")
	require.EqualValues(t, 1, g.told.Load(), "times told")
}

func TestReleasedSlotGoesToTheNextInLine(t *testing.T) {
	c, a, w := line(t, 2)
	a.leave(c)
	requireHolds(t, c, w[0])
	require.False(t, c.Holds(&w[1].Waiter))
	_, ok := c.TryAcquire("m")
	require.False(t, ok, "another caller could take the slot")
	w[0].leave(c)
	requireHolds(t, c, w[1])
	w[1].leave(c)
	requireFullBatch(t, c, "m")
}

func TestCancelledHeadOfQueueDoesNotDropTheNext(t *testing.T) {
	c, a, w := line(t, 2)
	w[0].leave(c)
	a.leave(c)
	requireHolds(t, c, w[1])
	require.Zero(t, w[0].told.Load())
}

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

// asker calls the manager when it is notified of a grant. The call hangs if the manager holds
// its lock.
type asker struct {
	Waiter
	c     *Manager
	stats Figures
}

func (a *asker) SlotGranted(w *Waiter) { a.stats = a.c.Stats("m"); a.c.Leave(w) }

func TestNobodyIsToldWhileALockIsHeld(t *testing.T) {
	c := New(alone(1))
	for name, free := range map[string]func(held Slot){
		"Release":  func(held Slot) { held.Release() },
		"SetRules": func(Slot) { c.SetRules(alone(2)) },
	} {
		held, ok := c.TryAcquire("m")
		require.True(t, ok)
		a := &asker{c: c}
		a.Owner = a
		require.False(t, takeModel(c, &a.Waiter, "m", false, c.Ticket()))
		free(held)
		require.Equal(t, "pool m", a.stats.Name, name)
		held.Release()
		c.SetRules(alone(1))
		requireFullBatch(t, c, "m")
	}
}

// The waiters leave before the holder, as in a shutdown.
func TestNobodyIsGrantedASlotAfterLeavingTheLine(t *testing.T) {
	c, a, w := line(t, 3)
	for _, g := range w {
		g.leave(c)
	}
	a.leave(c)
	for _, g := range w {
		require.Zero(t, g.told.Load())
		require.False(t, c.Holds(&g.Waiter))
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
		require.PanicsWithValue(t, "bgagent: bug: Take of a waiter that already waits or holds a slot", func() { g.take(c, "m") })
	}
	require.Panics(t, func() { takeModel(c, &newGuest().Waiter, "m", false, 0) })
	require.NoError(t, c.Check(), "the panic changed something or kept the lock")
}

func TestHeadOfLineGoesBeforeEarlierTickets(t *testing.T) {
	c, a, w := line(t, 2)
	early := c.Ticket()
	late := newGuest()
	require.False(t, late.take(c, "m"))
	h1, h2, between := newGuest(), newGuest(), newGuest()
	t1 := c.Ticket()
	require.False(t, takeModel(c, &h2.Waiter, "m", true, c.Ticket()))
	require.False(t, takeModel(c, &h1.Waiter, "m", true, t1))
	require.False(t, takeModel(c, &between.Waiter, "m", false, early))
	for i, g := range []*guest{h1, h2, w[0], w[1], between, late} {
		place, s := c.Place(&g.Waiter)
		require.Equal(t, i+1, place)
		require.Equal(t, Figures{Name: "pool m", Limit: 1, InUse: 1, Waiting: 6}, s)
	}
	for _, g := range []*guest{h1, h2, w[0], w[1], between, late} {
		a.leave(c)
		requireHolds(t, c, g)
		a = g
	}
}

func TestPlaceIsCountedSoFarAndNoFurther(t *testing.T) {
	c, a, w := line(t, MaxPlace+1)
	place, s := c.Place(&a.Waiter)
	require.Zero(t, place, "the holder of a slot must have no place")
	require.Equal(t, Figures{Name: "pool m", Limit: 1, InUse: 1, Waiting: MaxPlace + 1}, s)
	place, _ = c.Place(&w[MaxPlace-1].Waiter)
	require.Equal(t, MaxPlace, place)
	place, s = c.Place(&w[MaxPlace].Waiter)
	require.Zero(t, place)
	require.Equal(t, MaxPlace+1, s.Waiting)
	place, s = c.Place(&newGuest().Waiter)
	require.Zero(t, place)
	require.Zero(t, s)
}

func TestPendingTaskCostsLittle(t *testing.T) {
	require.LessOrEqual(t, unsafe.Sizeof(Waiter{}), uintptr(56))
}

func TestWaitingTaskCostsNoAllocation(t *testing.T) {
	c, a, w := line(t, 2)
	assert.Zero(t, testing.AllocsPerRun(100, func() {
		next, _ := c.Leave(&a.Waiter)
		takeModel(c, &a.Waiter, "m", false, c.Ticket())
		next, _ = c.Leave(next)
		c.Leave(next)
		c.Leave(&a.Waiter)
		for _, g := range []*guest{a, w[0], w[1]} {
			c.Leave(&g.Waiter)
			takeModel(c, &g.Waiter, "m", false, c.Ticket())
		}
	}))
}
