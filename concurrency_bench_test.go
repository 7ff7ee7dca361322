package bgagent

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/bgagent/bgagent/internal/slots"
)

var benchModels = func() (names []string) {
	for i := range 16 {
		names = append(names, fmt.Sprintf("anthropic/claude-model-%d", i))
	}
	return names
}()

func BenchmarkFreeSlot(b *testing.B) {
	ctx := context.Background()
	c, err := NewConcurrencyManager(Limits{})
	if err != nil {
		b.Fatal(err)
	}
	b.Run("by=name", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			s, err := c.Acquire(ctx, benchModels[i&15])
			if err != nil {
				b.Fatal(err)
			}
			s.Release()
		}
	})
	b.Run("by=pool", func(b *testing.B) {
		b.ReportAllocs()
		var pools []*Pool
		for _, m := range benchModels {
			pools = append(pools, c.Pool(m))
		}
		for i := 0; b.Loop(); i++ {
			s, err := pools[i&15].Acquire(ctx)
			if err != nil {
				b.Fatal(err)
			}
			s.Release()
		}
	})
	b.Run("by=semaphore", func(b *testing.B) {
		b.ReportAllocs()
		var sems []*semaphore.Weighted
		for range benchModels {
			sems = append(sems, semaphore.NewWeighted(5))
		}
		for i := 0; b.Loop(); i++ {
			s := sems[i&15]
			if err := s.Acquire(ctx, 1); err != nil {
				b.Fatal(err)
			}
			s.Release(1)
		}
	})
}

// BenchmarkHandOff measures how long it takes to hand a slot from one waiter to the next in a long
// line. Each round also measures a line of 10,000 goroutines that wait for a semaphore. The
// important figure is the ratio of the two times. The benchmark reports the median, the minimum and
// the maximum of each figure.
func BenchmarkHandOff(b *testing.B) {
	for _, n := range []int{10_000, 1_000_000} {
		b.Run(fmt.Sprintf("waiting=%d", n), func(b *testing.B) {
			var own, ref, ratio []float64
			for b.Loop() {
				own = append(own, handOff(b, n))
				ref = append(ref, semaphoreHandOff(10_000))
				ratio = append(ratio, own[len(own)-1]/ref[len(ref)-1])
			}
			for unit, series := range map[string][]float64{"own-ns": own, "semaphore-ns": ref, "ratio": ratio} {
				slices.Sort(series)
				b.ReportMetric(series[len(series)/2], unit)
				b.ReportMetric(series[0], unit+"-least")
				b.ReportMetric(series[len(series)-1], unit+"-most")
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}

// The type "counted" is the simplest possible waiter for a slot. It only counts its grants.
type counted struct {
	slots.Waiter
	n *int
}

func (w *counted) SlotGranted(*slots.Waiter) { *w.n++ }

// handOff returns how many nanoseconds it takes to hand a slot to the next of n waiters.
func handOff(b *testing.B, n int) float64 {
	c, err := NewConcurrencyManager(Limits{Default: 1})
	if err != nil {
		b.Fatal(err)
	}
	granted := 0
	line := make([]*counted, n+1)
	for i := range line {
		line[i] = &counted{n: &granted}
		line[i].Owner = line[i]
		takeSlot(c, &line[i].Waiter, "anthropic/claude", "agent", false, c.slots.Ticket())
	}
	runtime.GC()
	start := time.Now()
	for w := &line[0].Waiter; w != nil; {
		if w, _ = c.slots.Leave(w); w != nil {
			w.Owner.SlotGranted(w)
		}
	}
	took := time.Since(start)
	if granted != n {
		b.Fatalf("%d of %d got the slot", granted, n)
	}
	return float64(took.Nanoseconds()) / float64(n)
}

func semaphoreHandOff(n int) float64 {
	sem := semaphore.NewWeighted(1)
	_ = sem.Acquire(context.Background(), 1)
	var queued, done sync.WaitGroup
	queued.Add(n)
	for range n {
		done.Go(func() {
			queued.Done()
			_ = sem.Acquire(context.Background(), 1)
			sem.Release(1)
		})
	}
	queued.Wait()
	// All goroutines have started. It does not matter if some of them get in line later.
	runtime.GC()
	start := time.Now()
	sem.Release(1)
	done.Wait()
	return float64(time.Since(start).Nanoseconds()) / float64(n)
}

// BenchmarkCaps passes slots from task to task in a grid of n pools and n agents. Tasks of every
// agent wait in every pool. Each round measures two grids. In one grid, every agent has a cap, and
// both the caps and the pools are full. The other grid has no caps. The important figure is the
// ratio of the two times.
func BenchmarkCaps(b *testing.B) {
	for _, n := range []int{8, 64, 256} {
		for _, fair := range []bool{false, true} {
			b.Run(fmt.Sprintf("grid=%d/fair=%v", n, fair), func(b *testing.B) {
				caps := Limits{Default: 2, Agent: map[string]int{}, Fair: fair}
				for a := range n {
					caps.Agent[fmt.Sprint("agent", a)] = 2
				}
				own, ref := newTaskGrid(b, caps, n), newTaskGrid(b, Limits{Default: 2}, n)
				for range n * n {
					own.pass()
					ref.pass()
				}
				runtime.GC()
				series := map[string][]float64{}
				for b.Loop() {
					with, without := passes(own, ref)
					series["capped-ns"] = append(series["capped-ns"], with)
					series["plain-ns"] = append(series["plain-ns"], without)
					series["ratio"] = append(series["ratio"], with/without)
				}
				for unit, s := range series {
					slices.Sort(s)
					b.ReportMetric(s[len(s)/2], unit)
					b.ReportMetric(s[0], unit+"-least")
					b.ReportMetric(s[len(s)-1], unit+"-most")
				}
				b.ReportMetric(0, "ns/op")
			})
		}
	}
}

// taskGrid has n pools. In each pool, each of n agents has two tasks that want a slot.
type taskGrid struct {
	c       *ConcurrencyManager
	tasks   []gridTask
	holders []int
	at      int
}

type gridTask struct {
	slots.Waiter
	handle slots.Handle
	no     int
	grid   *taskGrid
}

// SlotGranted implements [slots.Grantee].
func (t *gridTask) SlotGranted(*slots.Waiter) { t.grid.holders = append(t.grid.holders, t.no) }

func newTaskGrid(b *testing.B, l Limits, n int) *taskGrid {
	g := &taskGrid{c: newConcurrency(b, l), tasks: make([]gridTask, 2*n*n)}
	roots := make([]slots.Root, 16)
	for i := range g.tasks {
		t := &g.tasks[i]
		t.no, t.grid, t.Owner, t.Root = i, g, t, &roots[i*7/n%len(roots)]
		t.handle = g.c.slots.For(slots.Models, fmt.Sprint("m", i%n), fmt.Sprint("agent", i/n%n))
		g.ask(t)
	}
	return g
}

func (g *taskGrid) ask(t *gridTask) {
	if g.c.slots.Take(&t.Waiter, &t.handle, false, g.c.slots.Ticket()) {
		t.SlotGranted(&t.Waiter)
	}
}

// The method "pass" makes a task release its slot and wait for another.
func (g *taskGrid) pass() {
	// Do not always choose the task that has held its slot longest, because tasks end in any order.
	i := g.at * 7919 % len(g.holders)
	g.at++
	t := &g.tasks[g.holders[i]]
	g.holders[i] = g.holders[len(g.holders)-1]
	g.holders = g.holders[:len(g.holders)-1]
	leaveSlot(g.c, &t.Waiter)
	g.ask(t)
}

// The function "passes" returns how many nanoseconds a pass takes in each of the two grids. It
// measures many short series, alternating between the grids, and takes the median, so that other
// work on the machine has little influence.
func passes(a, b *taskGrid) (forA, forB float64) {
	const several, series = 50, 400
	var took [2][]float64
	for range series {
		for i, g := range []*taskGrid{a, b} {
			start := time.Now()
			for range several {
				g.pass()
			}
			took[i] = append(took[i], float64(time.Since(start).Nanoseconds())/several)
		}
	}
	for i := range took {
		slices.Sort(took[i])
	}
	return took[0][series/2], took[1][series/2]
}
