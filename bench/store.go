package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/sqlite"
)

func storeRows() []Row {
	return []Row{{
		ID:        "store-syncs",
		What:      "syncs of a task with its notice on SQLite; checkpoints apart",
		Reference: "counted",
		Run:       runStoreSyncs,
	}, {
		ID:        "store-latency",
		What:      "launch -> EventEnded on SQLite, one task in flight, instant in-process agent (p50)",
		Reference: "three commits of the same store with the batches of the task",
		Run:       runStoreLatency,
	}, {
		ID:        "store-throughput",
		What:      "launch -> told on SQLite, instant in-process agent, a parent per 100 tasks, window 0; time per task",
		Reference: "bare SQLite writes the same batches, without checksums and indexes",
		Run:       runStoreThroughput,
	}, storePeersRow, {
		ID:        "store-open",
		What:      "New and Start until the first turn begins, on a store with 10,000 live and 100,000 ended tasks",
		Reference: "a reader that decodes the live records",
		Run:       runStoreOpen,
	}, storeDayRow}
}

// keptStore is a store that keeps copies of the batches that it writes.
type keptStore struct {
	*sqlite.Store
	delay time.Duration // additional time that each batch takes

	mu      sync.Mutex
	batches []*bgagent.StoreBatch
}

func newKeptStore(dir string, delay time.Duration) *keptStore {
	return &keptStore{Store: sqlite.New(dir, sqlite.Options{KeepFor: -1, KeepTasks: -1, KeepBytes: -1}), delay: delay}
}

func (s *keptStore) Write(ctx context.Context, b *bgagent.StoreBatch) error {
	time.Sleep(s.delay)
	if err := s.Store.Write(ctx, b); err != nil {
		return err
	}
	kept := &bgagent.StoreBatch{Number: b.Number, Records: slices.Clone(b.Records), Texts: slices.Clone(b.Texts), Delete: slices.Clone(b.Delete)}
	for i := range kept.Records {
		kept.Records[i].Data = slices.Clone(kept.Records[i].Data)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.batches = append(s.batches, kept)
	return nil
}

// The method "take" returns the batches that were written since the last call.
func (s *keptStore) take() []*bgagent.StoreBatch {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.batches
	s.batches = nil
	return b
}

func runStoreSyncs(o Options) ([]Check, error) {
	o.note("counting the syncs of the module sqlite")
	parts, err := goBench("sqlite", "BenchmarkSyncs", 1)
	if err != nil {
		return nil, err
	}
	var checks []Check
	for _, row := range []struct {
		part       string
		bound, aim float64
	}{{"1", 4, 4}, {"100", 0.2, 0.1}} {
		at := parts[row.part+"_in_flight"]
		beside := fmt.Sprintf("%.3g more of checkpoints", at["checkpoint-syncs/task"])
		checks = append(checks, Check{row.part + " in flight", Series{at["syncs/task"]}, "", row.bound, row.aim, beside})
	}
	return checks, nil
}

const (
	latencyTasks  = 50  // tasks per round
	latencyWarmUp = 400 // tasks before the first round; after these tasks, SQLite overwrites its log instead of extending it
)

func runStoreLatency(o Options) ([]Check, error) {
	var checks []Check
	for _, row := range []struct {
		name       string
		delay      time.Duration
		bound, aim float64
	}{{"as it is", 0, 2, 1.3}, {"5 ms more for each commit, in both", 5 * time.Millisecond, 1.2, None}} {
		o.note("%s", row.name)
		p, err := storeLatency(o.Rounds, row.delay)
		if err != nil {
			return nil, err
		}
		checks = append(checks, Check{row.name, p.ratio, "x", row.bound, row.aim, p.beside()})
	}
	return checks, nil
}

func storeLatency(rounds int, delay time.Duration) (p pair, err error) {
	err = InFolder(func(dir string) error {
		kept := newKeptStore(filepath.Join(dir, "subject"), delay)
		m, err := newStoreManager(kept, 10)
		if err != nil {
			return err
		}
		bare := newKeptStore(filepath.Join(dir, "reference"), delay)
		if _, err := bare.Open(context.Background(), bgagent.StoreOwner{Instance: "reference", PID: os.Getpid()}); err != nil {
			return err
		}
		_, events := m.Subscribe(1 << 12)
		n, number := 0, uint64(0)
		var three []*bgagent.StoreBatch
		subject := func() (float64, error) {
			n++
			start := time.Now()
			id, err := m.launch(n)
			for e := (bgagent.Event{}); err == nil && e.Kind != bgagent.EventEnded; {
				e, err = events.Next(context.Background())
			}
			if err != nil {
				return 0, err
			}
			took := float64(time.Since(start).Nanoseconds())
			m.await(id)
			three = kept.take()
			three = three[:min(3, len(three))]
			return took, nil
		}
		reference := func() (float64, error) {
			start := time.Now()
			for _, b := range three {
				number++
				again := *b
				again.Number = number
				if err := bare.Write(context.Background(), &again); err != nil {
					return 0, err
				}
			}
			return float64(time.Since(start).Nanoseconds()), nil
		}
		if _, err = interleave(latencyWarmUp, subject, reference); err != nil {
			return err
		}
		for range rounds {
			part, err := interleave(latencyTasks, subject, reference)
			if err != nil {
				return err
			}
			p.add(part.subject.Median(), part.reference.Median())
		}
		return errors.Join(err, closeManager(m.BackgroundManager), bare.Close())
	})
	return p, err
}

func runStoreThroughput(o Options) ([]Check, error) {
	var checks []Check
	for _, n := range o.sizes(100, 1000) {
		o.note("%d in flight", n)
		raw, alone, err := storeThroughput(o.Rounds, n, 5*n)
		if err != nil {
			return nil, err
		}
		name := strconv.Itoa(n) + " in flight"
		checks = append(checks, Check{name, raw.ratio, "x", 2, 1.25, raw.perSecond()},
			Check{name + ", against the store without the manager", alone.ratio, "x", None, None, alone.perSecond()})
	}
	return checks, nil
}

func (p pair) perSecond() string {
	return fmt.Sprintf("%.0f tasks/s against %.0f", 1e9/p.subject.Median(), 1e9/p.reference.Median())
}

// storeThroughput measures a manager's time per task. The references, which are bare SQLite and
// the store without the manager, write the batches that the manager wrote in the same round.
func storeThroughput(rounds, inFlight, tasks int) (raw, alone pair, err error) {
	err = InFolder(func(dir string) error {
		kept := newKeptStore(filepath.Join(dir, "subject"), 0)
		m, err := newStoreManager(kept, inFlight)
		if err != nil {
			return err
		}
		bare, err := openBare(filepath.Join(dir, "bare.db"))
		if err != nil {
			return err
		}
		store := newKeptStore(filepath.Join(dir, "alone"), 0)
		if _, err := store.Open(context.Background(), bgagent.StoreOwner{Instance: "alone", PID: os.Getpid()}); err != nil {
			return err
		}
		perTask := func(f func() error) (float64, error) {
			start := time.Now()
			err := f()
			return float64(time.Since(start).Nanoseconds()) / float64(tasks), err
		}
		for i := range rounds + 1 { // the manager is always first, because the references write its batches
			a, err := perTask(func() error { return InParallel(inFlight, tasks, func(k int) error { return m.task(i*tasks + k) }) })
			same := kept.take()
			b, err2 := perTask(func() error { return eachBatch(same, bare.write) })
			c, err3 := perTask(func() error {
				return eachBatch(same, func(b *bgagent.StoreBatch) error { return store.Store.Write(context.Background(), b) })
			})
			if err := errors.Join(err, err2, err3); err != nil {
				return err
			}
			if i > 0 { // the first round is a warm-up
				raw.add(a, b)
				alone.add(a, c)
			}
		}
		return errors.Join(closeManager(m.BackgroundManager), bare.close(), store.Close())
	})
	return raw, alone, err
}

func eachBatch(batches []*bgagent.StoreBatch, f func(b *bgagent.StoreBatch) error) error {
	for _, b := range batches {
		if err := f(b); err != nil {
			return err
		}
	}
	return nil
}
