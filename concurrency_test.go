package bgagent

import (
	"context"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/bgagent/bgagent/internal/race"
	"github.com/bgagent/bgagent/internal/slots"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A guest waits for slots in the same way as a task.
type guest struct {
	slots.Waiter
	told atomic.Int32
}

func (g *guest) SlotGranted(*slots.Waiter) { g.told.Add(1) }

func newGuest() *guest {
	g := &guest{}
	g.Owner = g
	return g
}

func (g *guest) take(c *ConcurrencyManager, model string) bool {
	return takeSlot(c, &g.Waiter, model, "agent", false, c.slots.Ticket())
}

// The method "leave" gives back the guest's slot or place in line.
func (g *guest) leave(c *ConcurrencyManager) {
	leaveSlot(c, &g.Waiter)
}

// takeSlot asks for a slot in the same way as a task.
func takeSlot(c *ConcurrencyManager, w *slots.Waiter, model, agent string, head bool, ticket uint64) bool {
	space, name := countedAs(model, agent)
	h := c.slots.For(space, name, agent)
	return c.slots.Take(w, &h, head, ticket)
}

// leaveSlot gives up w's slot or its place in line. If other waiters get a slot as a result,
// leaveSlot notifies them, as the contract of slots.Manager.Leave requires.
func leaveSlot(c *ConcurrencyManager, w *slots.Waiter) {
	next, more := c.slots.Leave(w)
	if next != nil {
		next.Owner.SlotGranted(next)
	}
	for _, w := range more {
		w.Owner.SlotGranted(w)
	}
}

func requireHolds(t *testing.T, c *ConcurrencyManager, g *guest) {
	t.Helper()
	require.NoError(t, c.slots.Check())
	require.True(t, c.slots.Holds(&g.Waiter), "the guest does not hold the slot")
	require.EqualValues(t, 1, g.told.Load(), "the guest must be notified once")
}

func newConcurrency(t testing.TB, l Limits) *ConcurrencyManager {
	t.Helper()
	c, err := NewConcurrencyManager(l)
	require.NoError(t, err)
	return c
}

// requireFullBatch checks that no slot was lost: if no slot is in use, exactly as many waiters must
// get a slot as the limit allows.
func requireFullBatch(t testing.TB, c *ConcurrencyManager, model string) {
	t.Helper()
	require.NoError(t, c.slots.Check())
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
	require.NoError(t, c.slots.Check())
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
	require.False(t, ok, "the slot belonged to the waiter in line")
	requireHolds(t, c, w)
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
		require.Equal(t, PoolStats{Name: "default m", Limit: 1, InUse: 1, Waiting: 3}, c.Stats("m"))
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

// lateContext is a context whose method Err can return an error while its Done channel is still
// open.
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

// The context can end after the grant was made but before the grant is reported to Acquire. It can
// also end after the report, before Acquire continues.
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

			next, _ := c.slots.Leave(&a.Waiter)
			require.NotNil(t, next)
			ctx.ended.Store(true)
			if !toldFirst {
				close(ctx.done)
				synctest.Wait()
			}
			next.Owner.SlotGranted(next)
			require.ErrorIs(t, <-errc, context.Canceled)
			requireHolds(t, c, b)

			// The slots.Manager reuses a caller's record once the caller has stopped waiting. A
			// late report of the first grant must not look like a grant to the next caller that
			// uses the record.
			blocked := make(chan Slot, 1)
			go func() {
				s, err := c.Acquire(context.Background(), "m")
				assert.NoError(t, err)
				blocked <- s
			}()
			synctest.Wait()
			require.Empty(t, blocked, "the waiter mistook an old grant for its own")
			b.leave(c)
			(<-blocked).Release()
			requireFullBatch(t, c, "m")
		})
	}
}

func TestRaisedLimitServesAsManyAsFit(t *testing.T) {
	c, a := newConcurrency(t, Limits{Default: 1}), newGuest()
	require.True(t, a.take(c, "m"))
	var w []*guest
	for range 5 {
		g := newGuest()
		require.False(t, g.take(c, "m"))
		w = append(w, g)
	}
	require.NoError(t, c.SetLimits(Limits{Default: 3}))
	for i, g := range w {
		require.Equal(t, i < 2, c.slots.Holds(&g.Waiter), "waiter %d", i)
	}
	requireHolds(t, c, w[0])
	requireHolds(t, c, w[1])
	require.NoError(t, c.SetLimits(Limits{Default: Unlimited}))
	for _, g := range w {
		requireHolds(t, c, g)
	}
	require.Equal(t, PoolStats{Name: "default m", Limit: Unlimited, InUse: 6, Waiting: 0}, c.Stats("m"))
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
	require.Equal(t, PoolStats{Name: "default m", Limit: 1, InUse: 3, Waiting: 1}, c.Stats("m"))
	in[0].leave(c)
	in[1].leave(c)
	require.False(t, c.slots.Holds(&w.Waiter), "the slot was granted although the limit was reached")
	require.NoError(t, c.slots.Check())
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
	require.Equal(t, []PoolStats{{Name: "provider p", Limit: 2, InUse: 2, Waiting: 6}}, c.Pools(), "slots in use count in the new pool")
	for i, g := range w {
		place, _ := c.slots.Place(&g.Waiter)
		require.Equal(t, i+1, place)
	}
	// A new guest gets in line behind the other guests. The slot that holdY gives back goes to
	// w[0], although w[0] waits for the model p/x.
	late := newGuest()
	require.False(t, late.take(c, "p/y"))
	holdY.leave(c)
	requireHolds(t, c, w[0])

	// The pools are separated again.
	require.NoError(t, c.SetLimits(Limits{Default: 1, Model: map[string]int{"x": 2}}))
	require.Equal(t, []PoolStats{{Name: "default p/y", Limit: 1, InUse: 1, Waiting: 3}, {Name: "model x", Limit: 2, InUse: 2, Waiting: 2}}, c.Pools())
	requireHolds(t, c, w[1])
	for _, g := range append(w, holdX, late) {
		g.leave(c)
	}
	require.Empty(t, c.Pools())
	requireFullBatch(t, c, "p/x")
	requireFullBatch(t, c, "p/y")
}

func TestFreeSlotCostsNoAllocation(t *testing.T) {
	c := newConcurrency(t, Limits{Model: map[string]int{"opus": 2}, Provider: map[string]int{"openai": 3}})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	p := c.Pool("anthropic/opus")
	g := newGuest()
	model, agent := c.slots.For(slots.Models, "openai/gpt", "a"), c.slots.For(slots.Agents, "Explore", "")
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
		"task":       func() { c.slots.Take(&g.Waiter, &model, false, c.slots.Ticket()); c.slots.Leave(&g.Waiter) },
		"agent":      func() { c.slots.Take(&g.Waiter, &agent, false, c.slots.Ticket()); c.slots.Leave(&g.Waiter) },
		"no room":    func() { c.TryAcquire("none/none") },
	} {
		assert.Zero(t, testing.AllocsPerRun(100, f), name)
	}
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func TestMemoryIsBoundedWhateverTheNames(t *testing.T) {
	if race.Enabled {
		t.Skip("takes long with the race detector, and only one goroutine asks for slots")
	}
	c := newConcurrency(t, Limits{})
	grown := func(f func()) int64 {
		before := heap()
		f()
		after := heap()
		require.Empty(t, c.Pools())
		require.NoError(t, c.slots.Check())
		return int64(after) - int64(before)
	}
	assert.Less(t, grown(func() {
		for i := range 1_000_000 {
			s, ok := c.TryAcquire("provider/model-" + strconv.Itoa(i))
			require.True(t, ok)
			s.Release()
		}
	}), int64(1<<20), "a million names in succession")
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
	}), int64(1<<20), "many names at the same time")
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
