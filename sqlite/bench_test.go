package sqlite

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/bgagent/bgagent"
)

// BenchmarkBatch writes batches of 700-byte records. For comparison, the case "append and sync" appends the
// same number of bytes to a file and syncs the file.
func BenchmarkBatch(b *testing.B) {
	data := make([]byte, 700)
	b.Run("append and sync", func(b *testing.B) {
		f, err := os.Create(filepath.Join(b.TempDir(), "log"))
		if err != nil {
			b.Fatal(err)
		}
		defer f.Close()
		for b.Loop() {
			if _, err := f.Write(data); err != nil {
				b.Fatal(err)
			}
			if err := f.Sync(); err != nil {
				b.Fatal(err)
			}
		}
	})
	for _, n := range []int{1, 10, 100} {
		b.Run(fmt.Sprint(n, " records"), func(b *testing.B) {
			s := New(folder(b), Options{})
			open(b, s)
			number := uint64(0)
			for b.Loop() {
				number++
				batch := &bgagent.StoreBatch{Number: number}
				for i := range n {
					r := task((int(number)*n + i) % 10_000)
					r.Data = data
					batch.Records = append(batch.Records, r)
				}
				write(b, s, batch)
			}
		})
	}
}

// BenchmarkOpen opens a store that contains 10,000 live tasks and 100,000 tasks that have
// ended.
func BenchmarkOpen(b *testing.B) {
	s := New(folder(b), Options{KeepFor: -1, KeepTasks: -1, KeepBytes: -1})
	open(b, s)
	number := uint64(0)
	for part := range 110 {
		number++
		batch := &bgagent.StoreBatch{Number: number}
		for i := range 1000 {
			r := task(part*1000 + i)
			r.Data, r.Due = make([]byte, 700), part < 10
			batch.Records = append(batch.Records, r)
		}
		write(b, s, batch)
	}
	for b.Loop() {
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
		if c := open(b, s); len(c.Records) != 10_000 {
			b.Fatal(len(c.Records))
		}
	}
}
