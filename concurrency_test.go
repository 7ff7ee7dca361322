package bgagent

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"unicode"
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

func newConcurrency(t testing.TB, l Limits) *ConcurrencyManager {
	t.Helper()
	c, err := NewConcurrencyManager(l)
	require.NoError(t, err)
	return c
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

// requireFullBatch is the strongest test for lost slots: at rest, as many as the
// limit says must get one.
func requireFullBatch(t testing.TB, c *ConcurrencyManager, model string) {
	t.Helper()
	require.NoError(t, c.checkInvariants())
	limit := c.Stats(model).Limit
	if limit == Unlimited {
		return
	}
	var slots []Slot
	for i := range limit {
		s, ok := c.TryAcquire(model)
		require.True(t, ok, "slot %d of %d of %q has been lost", i+1, limit, model)
		slots = append(slots, s)
	}
	_, ok := c.TryAcquire(model)
	require.False(t, ok, "%q gave more than %d slots", model, limit)
	for _, s := range slots {
		s.Release()
	}
	require.NoError(t, c.checkInvariants())
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

func TestTryAcquireDoesNotOvertake(t *testing.T) {
	c := newConcurrency(t, Limits{Default: 2})
	a, b, w := newGuest(), newGuest(), newGuest()
	require.True(t, a.take(c, "m"))
	require.True(t, b.take(c, "m"))
	require.False(t, w.take(c, "m"))
	_, ok := c.TryAcquire("m")
	require.False(t, ok)
	a.leave(c)
	_, ok = c.TryAcquire("m")
	require.False(t, ok, "the slot belonged to the one in line")
	requireHolds(t, c, w)
}

func TestSlotIsReleasedOnce(t *testing.T) {
	c := newConcurrency(t, Limits{Default: 2})
	old, ok := c.TryAcquire("m")
	require.True(t, ok)
	kept, ok := c.TryAcquire("m")
	require.True(t, ok)
	cp := old
	old.Release()
	old.Release()
	cp.Release()
	require.Equal(t, 1, c.Stats("m").InUse)

	// The same record serves the next slot, which the old handle must not touch.
	next, ok := c.TryAcquire("m")
	require.True(t, ok)
	require.Same(t, old.rec, next.rec)
	old.Release()
	require.Equal(t, 2, c.Stats("m").InUse)

	var all sync.WaitGroup
	for range 8 {
		all.Go(next.Release)
	}
	all.Wait()
	require.Equal(t, 1, c.Stats("m").InUse)
	kept.Release()
	Slot{}.Release()
	requireFullBatch(t, c, "m")
}

func TestAcquireWithAnEndedContextTakesNothing(t *testing.T) {
	c := newConcurrency(t, Limits{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s, err := c.Acquire(ctx, "m")
	require.ErrorIs(t, err, context.Canceled)
	require.Zero(t, s)
	_, err = c.Pool("m").Acquire(ctx)
	require.ErrorIs(t, err, context.Canceled)
	require.Empty(t, c.Pools())
}

func TestAcquireWaitsForItsTurnOrItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newConcurrency(t, Limits{Default: 1})
		held, err := c.Acquire(t.Context(), "m")
		require.NoError(t, err)
		type result struct {
			slot Slot
			err  error
		}
		start := func(ctx context.Context) chan result {
			ch := make(chan result, 1)
			go func() {
				s, err := c.Acquire(ctx, "m")
				ch <- result{s, err}
			}()
			synctest.Wait()
			return ch
		}
		ctx, cancel := context.WithCancel(t.Context())
		first, second, third := start(ctx), start(t.Context()), start(t.Context())
		require.Equal(t, PoolStats{"default m", 1, 1, 3}, c.Stats("m"))
		cancel()
		r := <-first
		require.ErrorIs(t, r.err, context.Canceled)
		require.Zero(t, r.slot)
		require.Equal(t, 2, c.Stats("m").Waiting)
		held.Release()
		r = <-second
		require.NoError(t, r.err)
		require.Empty(t, third)
		r.slot.Release()
		r = <-third
		require.NoError(t, r.err)
		r.slot.Release()
		requireFullBatch(t, c, "m")
	})
}

// lateContext ends before whoever waits for its end has come to run.
type lateContext struct {
	context.Context
	done  chan struct{}
	ended atomic.Bool
}

func (c *lateContext) Done() <-chan struct{} { return c.done }

func (c *lateContext) Err() error {
	if c.ended.Load() {
		return context.Canceled
	}
	return nil
}

// The grant has been made and not yet told when the context ends; or it is told
// and the context ends before Acquire goes on.
func TestGrantThatRacesWithTheCancellationIsPassedOn(t *testing.T) {
	for _, toldFirst := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			c := newConcurrency(t, Limits{Default: 1})
			a := newGuest()
			require.True(t, a.take(c, "m"))
			ctx := &lateContext{Context: t.Context(), done: make(chan struct{})}
			errc := make(chan error, 1)
			go func() {
				_, err := c.Acquire(ctx, "m")
				errc <- err
			}()
			synctest.Wait()
			b := newGuest()
			require.False(t, b.take(c, "m"))

			next := c.leave(&a.waiter)
			require.NotNil(t, next)
			ctx.ended.Store(true)
			if !toldFirst {
				close(ctx.done)
				synctest.Wait()
			}
			next.owner.slotGranted(next)
			require.ErrorIs(t, <-errc, context.Canceled)
			requireHolds(t, c, b)

			// The record that may still be told must not deceive its next user.
			blocked := make(chan Slot, 1)
			go func() {
				s, err := c.Acquire(context.Background(), "m")
				assert.NoError(t, err)
				blocked <- s
			}()
			synctest.Wait()
			require.Empty(t, blocked, "took an old grant for its own")
			b.leave(c)
			(<-blocked).Release()
			requireFullBatch(t, c, "m")
		})
	}
}

func TestRaisedLimitServesAsManyAsFit(t *testing.T) {
	c, a, w := line(t, 5)
	require.NoError(t, c.SetLimits(Limits{Default: 3}))
	for i, g := range w {
		require.Equal(t, i < 2, c.holds(&g.waiter), "waiter %d", i)
	}
	requireHolds(t, c, w[0])
	requireHolds(t, c, w[1])
	require.NoError(t, c.SetLimits(Limits{Default: Unlimited}))
	for _, g := range w {
		requireHolds(t, c, g)
	}
	require.Equal(t, PoolStats{"default m", Unlimited, 6, 0}, c.Stats("m"))
	for _, g := range append(w, a) {
		g.leave(c)
	}
	require.Empty(t, c.Pools())
}

func TestLoweredLimitTakesNothingAndGrantsNothingUntilBelow(t *testing.T) {
	c := newConcurrency(t, Limits{Default: 3})
	var in []*guest
	for range 3 {
		g := newGuest()
		require.True(t, g.take(c, "m"))
		in = append(in, g)
	}
	w := newGuest()
	require.False(t, w.take(c, "m"))
	require.NoError(t, c.SetLimits(Limits{Default: 1}))
	require.Equal(t, PoolStats{"default m", 1, 3, 1}, c.Stats("m"))
	in[0].leave(c)
	in[1].leave(c)
	require.False(t, c.holds(&w.waiter), "granted at the limit")
	require.NoError(t, c.checkInvariants())
	in[2].leave(c)
	requireHolds(t, c, w)
}

func TestWaitersMoveToTheNewPoolByQueueTime(t *testing.T) {
	c := newConcurrency(t, Limits{Default: 1})
	holdX, holdY := newGuest(), newGuest()
	require.True(t, holdX.take(c, "p/x"))
	require.True(t, holdY.take(c, "p/y"))
	var w []*guest
	for i := range 6 {
		g := newGuest()
		require.False(t, g.take(c, []string{"p/x", "p/y"}[i%2]))
		w = append(w, g)
	}
	require.NoError(t, c.SetLimits(Limits{Provider: map[string]int{"P": 2}}))
	require.Equal(t, []PoolStats{{"provider p", 2, 2, 6}}, c.Pools(), "slots that are out count in the new pool")
	for i, g := range w {
		place, _ := c.place(&g.waiter)
		require.Equal(t, i+1, place)
	}
	// One that comes now stands behind them, and a slot of y serves one of x.
	late := newGuest()
	require.False(t, late.take(c, "p/y"))
	holdY.leave(c)
	requireHolds(t, c, w[0])

	// And apart again.
	require.NoError(t, c.SetLimits(Limits{Default: 1, Model: map[string]int{"x": 2}}))
	require.Equal(t, []PoolStats{{"default p/y", 1, 1, 3}, {"model x", 2, 2, 2}}, c.Pools())
	requireHolds(t, c, w[1])
	for _, g := range append(w, holdX, late) {
		g.leave(c)
	}
	require.Empty(t, c.Pools())
	requireFullBatch(t, c, "p/x")
	requireFullBatch(t, c, "p/y")
}

func TestPoolIsNamedByTheEntryThatDecided(t *testing.T) {
	c := newConcurrency(t, Limits{
		Model:    map[string]int{" Opus ": 2, "anthropic/OPUS": 1, "zero": 0, "free": Unlimited, "r/a/b": 7, "a/b": 8},
		Provider: map[string]int{"Anthropic": 3, "r": 6},
		Default:  4,
	})
	for model, want := range map[string]PoolStats{
		"anthropic/opus":      {Name: "model anthropic/opus", Limit: 1},
		" Bedrock/Opus":       {Name: "model opus", Limit: 2},
		"OPUS":                {Name: "model opus", Limit: 2},
		"anthropic/sonnet":    {Name: "provider anthropic", Limit: 3},
		"anthropic/zero":      {Name: "provider anthropic", Limit: 3},
		"zero":                {Name: "default zero", Limit: 4},
		"openai/free":         {Name: "model free", Limit: Unlimited},
		"r/a/b":               {Name: "model r/a/b", Limit: 7},
		"a/b":                 {Name: "model a/b", Limit: 8},
		"r/x/b":               {Name: "provider r", Limit: 6},
		"s/a/b":               {Name: "default s/a/b", Limit: 4},
		"s/a/opus":            {Name: "default s/a/opus", Limit: 4},
		"anthropic":           {Name: "default anthropic", Limit: 4},
		"/opus":               {Name: "model opus", Limit: 2},
		"/":                   {Name: "default /", Limit: 4},
		"":                    {Name: "default", Limit: 4},
		" \t":                 {Name: "default", Limit: 4},
		"OpenAI/Größe ":       {Name: "default openai/größe", Limit: 4},
		"openai/" + long("g"): {Name: "default openai/" + long("g"), Limit: 4},
	} {
		require.Equal(t, want, c.Stats(model), "%q", model)
		require.Equal(t, want, c.Pool(model).Stats(), "%q", model)
		s, ok := c.TryAcquire(model)
		require.True(t, ok)
		want.InUse = 1
		require.Equal(t, want, c.Stats(model), "%q", model)
		require.Equal(t, []PoolStats{want}, c.Pools())
		s.Release()
		require.Empty(t, c.Pools())
	}
	require.NoError(t, c.checkInvariants())
}

func long(s string) string { return strings.Repeat(s, 1000) }

func TestAgentsAreCountedApartFromModels(t *testing.T) {
	c := newConcurrency(t, Limits{Default: 1, Model: map[string]int{"explore": 9}, Provider: map[string]int{"explore": 9}})
	a, b, m, e := newGuest(), newGuest(), newGuest(), newGuest()
	require.True(t, c.take(&a.waiter, " ", "Explore", false, c.ticket()))
	require.False(t, c.take(&b.waiter, "", "explore", false, c.ticket()))
	require.True(t, c.take(&m.waiter, "explore", "explore", false, c.ticket()))
	require.True(t, c.take(&e.waiter, "", "", false, c.ticket()))
	require.Equal(t, []PoolStats{{"agent explore", 1, 1, 1}, {"default", 1, 1, 0}, {"model explore", 9, 1, 0}}, c.Pools())
	require.NoError(t, c.SetLimits(Limits{Default: 2}))
	requireHolds(t, c, b)
	require.Equal(t, PoolStats{"default explore", 2, 1, 0}, c.Stats("explore"))
}

func TestPoolHandleFollowsTheLimits(t *testing.T) {
	c := newConcurrency(t, Limits{Default: 1})
	p := c.Pool(" P/X ")
	require.Equal(t, PoolStats{Name: "default p/x", Limit: 1}, p.Stats())
	s, err := p.Acquire(t.Context())
	require.NoError(t, err)
	_, ok := c.TryAcquire("p/x")
	require.False(t, ok)
	require.NoError(t, c.SetLimits(Limits{Provider: map[string]int{"p": 2}}))
	require.Equal(t, PoolStats{"provider p", 2, 1, 0}, p.Stats())
	s2, ok := p.TryAcquire()
	require.True(t, ok)
	_, ok = c.TryAcquire("p/other")
	require.False(t, ok)
	s.Release()
	s2.Release()

	// Its name has been forgotten in the meantime, and looked up again by others.
	require.NoError(t, c.SetLimits(Limits{Default: 1}))
	s, ok = c.TryAcquire("p/x")
	require.True(t, ok)
	_, ok = p.TryAcquire()
	require.False(t, ok, "counts in a pool of its own")
	s.Release()
	s, ok = p.TryAcquire()
	require.True(t, ok)
	s.Release()
	requireFullBatch(t, c, "p/x")
}

func TestWrongLimitsAreRefusedAndChangeNothing(t *testing.T) {
	c := newConcurrency(t, Limits{Default: 7, Model: map[string]int{" X": 3, "y": 0}})
	before := c.Limits()
	require.Equal(t, Limits{Default: 7, Model: map[string]int{"x": 3}, Provider: map[string]int{}}, before)
	for field, l := range map[string]Limits{
		`Limits.Default`:          {Default: -2},
		`Limits.Model["x"]`:       {Model: map[string]int{"x": -2}},
		`Limits.Model[" x"]`:      {Model: map[string]int{" x": -2, "x": 5}},
		`Limits.Model["x "]`:      {Model: map[string]int{"X": 1, "x ": 2}},
		`Limits.Provider["p"]`:    {Provider: map[string]int{"P": 1, "p": 0}},
		`Limits.Provider[" "]`:    {Provider: map[string]int{" ": 1}},
		`Limits.Provider["p/x"]`:  {Provider: map[string]int{"P/x": 1}},
		`Limits.Model[""]`:        {Model: map[string]int{"": 1}},
		`Limits.Provider["p\n1"]`: {Provider: map[string]int{"p\n1": -9}},
	} {
		err := c.SetLimits(l)
		var in *InputError
		require.ErrorAs(t, err, &in, "%v", l)
		assert.Contains(t, err.Error(), field)
		require.Equal(t, before, c.Limits())
		_, err = NewConcurrencyManager(l)
		require.ErrorAs(t, err, &in)
	}
	require.NoError(t, c.SetLimits(Limits{Model: map[string]int{"X": 2, " x": 2}}), "the same twice is no contradiction")
}

func TestLimitsAreCopies(t *testing.T) {
	in := Limits{Model: map[string]int{"x": 3}, Provider: map[string]int{"p": 3}}
	c := newConcurrency(t, in)
	in.Model["x"], in.Provider["p"] = 1, 1
	out := c.Limits()
	out.Model["x"], out.Provider["p"] = 1, 1
	require.Equal(t, 3, c.Limits().Model["x"])
	require.Equal(t, 3, c.Stats("x").Limit)
	require.Equal(t, 3, c.Limits().Provider["p"])
	require.NoError(t, c.SetLimits(c.Limits()))
}

// lockKey looks names up as they were written, which is right only if no normal
// name changes by being made normal.
func TestNormalNamesStayAsTheyAre(t *testing.T) {
	for r := range rune(unicode.MaxRune + 1) {
		n := normalName("a" + string(r))
		if normalName(n) != n {
			t.Errorf("%q becomes %q and then %q", string(r), n, normalName(n))
		}
	}
}

func TestFreeSlotCostsNoAllocation(t *testing.T) {
	c := newConcurrency(t, Limits{Model: map[string]int{"opus": 2}, Provider: map[string]int{"openai": 3}})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	p := c.Pool("anthropic/opus")
	g := newGuest()
	for range DefaultConcurrency {
		c.TryAcquire("none/none")
	}
	for name, f := range map[string]func(){
		"Acquire": func() {
			s, err := c.Acquire(ctx, "anthropic/opus")
			if err != nil {
				t.Fatal(err)
			}
			s.Release()
		},
		"TryAcquire": func() { s, _ := c.TryAcquire("openai/gpt"); s.Release() },
		"capitals":   func() { s, _ := c.TryAcquire(" OpenAI/GPT"); s.Release() },
		"no slash":   func() { s, _ := c.TryAcquire("default"); s.Release() },
		"Pool":       func() { s, _ := p.TryAcquire(); s.Release() },
		"task":       func() { c.take(&g.waiter, "openai/gpt", "a", false, c.ticket()); c.leave(&g.waiter) },
		"agent":      func() { c.take(&g.waiter, "", "Explore", false, c.ticket()); c.leave(&g.waiter) },
		"no room":    func() { c.TryAcquire("none/none") },
	} {
		assert.Zero(t, testing.AllocsPerRun(100, f), name)
	}
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

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func TestMemoryIsBoundedWhateverTheNames(t *testing.T) {
	c := newConcurrency(t, Limits{})
	grown := func(f func()) int64 {
		before := heap()
		f()
		after := heap()
		require.Empty(t, c.Pools())
		require.NoError(t, c.checkInvariants())
		return int64(after) - int64(before)
	}
	assert.Less(t, grown(func() {
		for i := range 1_000_000 {
			s, ok := c.TryAcquire("provider/model-" + strconv.Itoa(i))
			require.True(t, ok)
			s.Release()
		}
	}), int64(1<<20), "a million names one after the other")
	assert.Less(t, grown(func() {
		var slots []Slot
		for i := range 100_000 {
			s, _ := c.TryAcquire("provider/model-" + strconv.Itoa(i))
			slots = append(slots, s)
		}
		require.Len(t, c.Pools(), len(slots))
		for _, s := range slots {
			s.Release()
		}
	}), int64(1<<20), "many names at once")
	assert.Less(t, grown(func() {
		for i := range 200 {
			s, _ := c.TryAcquire(fmt.Sprintf("%s-%d", strings.Repeat("Long", 16<<10), i))
			s.Release()
		}
	}), int64(1<<20), "long names")
	assert.Less(t, grown(func() {
		for i := range 1000 {
			text := fmt.Sprintf("é%05d", i) + strings.Repeat(".", 64<<10)
			s, _ := c.TryAcquire(text[:7])
			s.Release()
		}
	}), int64(1<<20), "short names cut out of long texts")
	assert.Less(t, grown(func() {
		for i := range 100_000 {
			c.Pool(fmt.Sprint("looked up only ", i))
		}
	}), int64(1<<20), "pools that are only looked up")
	runtime.KeepAlive(c)
}

// hammer lets goroutines fight for slots and reports how many held one of a pool
// at once.
func hammer(t *testing.T, c *ConcurrencyManager, rounds int, disturb func(i int)) map[string]int64 {
	models := []string{"p/x", "p/y", "q/x", "z", " Z "}
	var now, most sync.Map
	entered := func(pool string) (leave func()) {
		n, _ := now.LoadOrStore(pool, new(atomic.Int64))
		m, _ := most.LoadOrStore(pool, new(atomic.Int64))
		in := n.(*atomic.Int64).Add(1)
		for max := m.(*atomic.Int64); ; {
			old := max.Load()
			if in <= old || max.CompareAndSwap(old, in) {
				break
			}
		}
		runtime.Gosched()
		return func() { n.(*atomic.Int64).Add(-1) }
	}
	var all sync.WaitGroup
	for g := range 16 {
		all.Go(func() {
			for i := range rounds {
				model := models[(g*7+i)%len(models)]
				pool := c.Stats(model).Name
				switch (g + i) % 4 {
				case 0:
					s, ok := c.TryAcquire(model)
					if ok {
						entered(pool)()
					}
					s.Release()
					s.Release()
				case 1: // cancelled at about the time of the grant
					ctx, cancel := context.WithCancel(context.Background())
					all.Go(cancel)
					s, err := c.Acquire(ctx, model)
					if err == nil {
						entered(pool)()
					} else if !errors.Is(err, context.Canceled) {
						t.Errorf("Acquire: %v", err)
					}
					s.Release()
				case 2:
					s, err := c.Pool(model).Acquire(context.Background())
					if err != nil {
						t.Errorf("Acquire: %v", err)
					}
					leave := entered(pool)
					all.Go(func() { leave(); s.Release(); s.Release() })
				case 3:
					w := newWakeable()
					if !c.take(&w.waiter, model, "", i%8 == 3, c.ticket()) {
						<-w.woken
					}
					entered(pool)()
					if next := c.leave(&w.waiter); next != nil {
						next.owner.slotGranted(next)
					}
				}
				disturb(i)
			}
		})
	}
	all.Wait()
	require.NoError(t, c.checkInvariants())
	require.Empty(t, c.Pools(), "slots or waiters are left")
	for _, m := range models {
		requireFullBatch(t, c, m)
	}
	out := map[string]int64{}
	most.Range(func(k, v any) bool { out[k.(string)] = v.(*atomic.Int64).Load(); return true })
	return out
}

type wakeable struct {
	waiter
	woken chan struct{}
}

func newWakeable() *wakeable {
	w := &wakeable{woken: make(chan struct{})}
	w.owner = w
	return w
}

func (w *wakeable) slotGranted(*waiter) { close(w.woken) }

func TestNeverMoreHoldersThanTheLimit(t *testing.T) {
	c := newConcurrency(t, Limits{Default: 1, Provider: map[string]int{"p": 2}, Model: map[string]int{"q/x": 3}})
	most := hammer(t, c, 300, func(int) {})
	for name, limit := range map[string]int64{"provider p": 2, "model q/x": 3, "default z": 1} {
		assert.LessOrEqual(t, most[name], limit, name)
		assert.Positive(t, most[name], name)
	}
}

func TestNothingIsLostWhileLimitsChange(t *testing.T) {
	c := newConcurrency(t, Limits{Default: 2})
	limits := []Limits{
		{Default: 1},
		{Default: 2, Provider: map[string]int{"p": 1}},
		{Default: 2, Model: map[string]int{"x": 1}},
		{Default: Unlimited, Model: map[string]int{"p/x": 2, "x": 1}},
	}
	hammer(t, c, 200, func(i int) {
		if i%3 == 0 {
			if err := c.SetLimits(limits[i/3%len(limits)]); err != nil {
				t.Error(err)
			}
		}
		if i%50 == 0 {
			if err := c.checkInvariants(); err != nil {
				t.Error(err)
			}
			for _, p := range c.Pools() {
				if p.InUse+p.Waiting == 0 {
					t.Errorf("an empty pool is listed: %v", p)
				}
			}
		}
	})
	names := c.Pools()
	require.True(t, slices.IsSortedFunc(names, func(a, b PoolStats) int { return strings.Compare(a.Name, b.Name) }))
}
