package bgagent

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/bgagent/bgagent/internal/slots"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The function "hammer" lets goroutines compete for slots. For each pool, it returns the largest
// number of goroutines that held a slot at the same time.
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
				case 1: // the context ends at about the time of the grant
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
					if !takeSlot(c, &w.Waiter, model, "", i%8 == 3, c.slots.Ticket()) {
						<-w.woken
					}
					entered(pool)()
					leaveSlot(c, &w.Waiter)
				}
				disturb(i)
			}
		})
	}
	all.Wait()
	require.NoError(t, c.slots.Check())
	require.Empty(t, c.Pools(), "slots or waiters are left")
	for _, m := range models {
		requireFullBatch(t, c, m)
	}
	out := map[string]int64{}
	most.Range(func(k, v any) bool { out[k.(string)] = v.(*atomic.Int64).Load(); return true })
	return out
}

type wakeable struct {
	slots.Waiter
	woken chan struct{}
}

func newWakeable() *wakeable {
	w := &wakeable{woken: make(chan struct{})}
	w.Owner = w
	return w
}

func (w *wakeable) SlotGranted(*slots.Waiter) { close(w.woken) }

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
			if err := c.slots.Check(); err != nil {
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
