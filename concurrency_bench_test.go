package bgagent

import (
	"context"
	"fmt"
	"testing"

	"golang.org/x/sync/semaphore"
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
