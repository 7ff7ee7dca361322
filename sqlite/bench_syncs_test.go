package sqlite

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/inproc"
)

// BenchmarkSyncs counts the syncs of the WAL while tasks run. The completions of the tasks are reported to
// their parents one by one. Syncs of the database file belong to checkpoints and are counted separately.
func BenchmarkSyncs(b *testing.B) {
	for _, inFlight := range []int{1, 100} {
		b.Run(fmt.Sprint(inFlight, " in flight"), func(b *testing.B) {
			var commits, checkpoints atomic.Int64
			layer := newSpy(b, func(a act) error {
				switch {
				case a.what != "sync":
				case strings.HasSuffix(a.file, "-wal"):
					commits.Add(1)
				default:
					checkpoints.Add(1)
				}
				return nil
			})
			layer.syncs = true
			s := New(folder(b), Options{})
			s.vfs = layer.name
			run := countedTasks(b, s, inFlight)
			run(inFlight) // not counted, because the first batches also create the store
			commits.Store(0)
			checkpoints.Store(0)
			tasks := 0
			for b.Loop() {
				run(20 * inFlight)
				tasks += 20 * inFlight
			}
			b.ReportMetric(float64(commits.Load())/float64(tasks), "syncs/task")
			b.ReportMetric(float64(checkpoints.Load())/float64(tasks), "checkpoint-syncs/task")
		})
	}
}

// countedTasks returns a function that launches n tasks and waits until their completions have
// been reported. The given number of tasks are in flight at the same time.
func countedTasks(b *testing.B, s *Store, inFlight int) func(n int) {
	told := make(chan struct{}, inFlight)
	client := inproc.New(map[string]inproc.Agent{"worker": func(context.Context, *inproc.Turn) (string, error) { return "done", nil }})
	m, err := bgagent.New(client, bgagent.Config{
		Store: s, Limits: bgagent.Limits{Default: inFlight}, Wake: bgagent.WakeEach, NoticeWindow: bgagent.Disabled,
		MaxTasksPerRoot: bgagent.Unlimited,
		Notify: func(_ context.Context, _ string, n bgagent.Notice) error {
			for range n.Items {
				told <- struct{}{}
			}
			return nil
		},
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := m.Close(context.Background()); err != nil {
			b.Error(err)
		}
	})
	return func(n int) {
		var wg sync.WaitGroup
		slots := make(chan struct{}, inFlight)
		for range n {
			slots <- struct{}{}
			wg.Go(func() {
				_, err := m.Launch(b.Context(), bgagent.Caller{Session: "main"}, bgagent.LaunchInput{Agent: "worker", Prompt: "Do it."})
				if err != nil {
					b.Error(err)
				}
				<-told
				<-slots
			})
		}
		wg.Wait()
	}
}
