package embedded_test

import (
	"fmt"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/bgagent/bgagent"
	bgnats "github.com/bgagent/bgagent/nats"
	"github.com/bgagent/bgagent/nats/embedded"
)

// BenchmarkBatch writes batches of records of 700 bytes each to a server in this process, which syncs
// each batch to the disk.
func BenchmarkBatch(b *testing.B) {
	server, err := embedded.Start(embedded.Options{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = server.Close() }) // the folder is deleted
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
