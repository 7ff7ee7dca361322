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

// BenchmarkHandOff lets a slot go from one to the next through a line of so many
// who wait. One round of it is one such line and, beside it, a line of 10,000
// goroutines at a semaphore; what matters is the ratio of the two. The ends of
// the range stand beside the median.
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

// counted is the least that can wait for a slot.
type counted struct {
	slots.Waiter
	n *int
}

func (w *counted) SlotGranted(*slots.Waiter) { *w.n++ }

// handOff returns the nanoseconds from one to the next.
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
	// All have begun; one that comes to stand in line only later changes nothing.
	runtime.GC()
	start := time.Now()
	sem.Release(1)
	done.Wait()
	return float64(time.Since(start).Nanoseconds()) / float64(n)
}
