package embedded_test

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/inproc"
	bgnats "github.com/bgagent/bgagent/nats"
	"github.com/bgagent/bgagent/nats/embedded"
)

// BenchmarkBatch writes batches of 700-byte records to a server in this process, which syncs each batch to
// the disk.
func BenchmarkBatch(b *testing.B) {
	server, err := embedded.Start(embedded.Options{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = server.Close() }) // an error does not matter, because the folder is deleted
	nc, err := nats.Connect("", server.Connection())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(nc.Close)
	for _, n := range []int{1, 10, 100} {
		b.Run(fmt.Sprint(n, " records"), func(b *testing.B) {
			s := bgnats.NewStore(nc, fmt.Sprint("bench", n), bgnats.StoreOptions{Grace: -1})
			c, err := s.Open(b.Context(), owner(1))
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			for number := c.Batch + 1; b.Loop(); number++ {
				batch := &bgagent.StoreBatch{Number: number}
				for i := range n {
					r := task(fmt.Sprint("task_", (int(number)*n+i)%10_000))
					r.Data = make([]byte, 700)
					batch.Records = append(batch.Records, r)
				}
				if err := s.Write(b.Context(), batch); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkSharedSlots runs tasks that do nothing, without a store, in one, two and four managers that share
// a pool of 50 slots. All of them and the server are in this process, so the result shows how many tasks one
// allocator can serve at best. For each task, the allocator handles a request, a grant and a release.
func BenchmarkSharedSlots(b *testing.B) {
	server, err := embedded.Start(embedded.Options{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = server.Close() }) // an error does not matter, because the folder is deleted
	nothing := func(context.Context, *inproc.Turn) (string, error) { return "", nil }
	for _, n := range []int{1, 2, 4} {
		b.Run(fmt.Sprint(n, " managers"), func(b *testing.B) {
			managers := make([]*bgagent.BackgroundManager, n)
			for i := range managers {
				nc, err := nats.Connect("", server.Connection())
				if err != nil {
					b.Fatal(err)
				}
				b.Cleanup(nc.Close)
				slots, err := bgnats.NewSlots(b.Context(), nc, fmt.Sprint("bench", n), bgnats.SlotOptions{Limits: bgagent.Limits{Default: 50}})
				if err != nil {
					b.Fatal(err)
				}
				managers[i], err = bgagent.New(inproc.New(map[string]inproc.Agent{"nothing": nothing}), bgagent.Config{Slots: slots, MaxTasksPerRoot: 1000})
				if err != nil {
					b.Fatal(err)
				}
				b.Cleanup(func() {
					_ = managers[i].Close(context.Background()) // an error does not matter, because all tasks have ended
					_ = slots.Close(context.Background())
				})
			}
			var work sync.WaitGroup
			b.ResetTimer()
			for i, m := range managers {
				for worker := range 100 {
					work.Go(func() {
						for k := 100*i + worker; k < b.N; k += 100 * n {
							if _, err := m.Run(context.Background(), bgagent.Caller{}, bgagent.LaunchInput{Agent: "nothing", Prompt: "x", Description: "x"}); err != nil {
								b.Error(err)
								return
							}
						}
					})
				}
			}
			work.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "tasks/s")
		})
	}
}
