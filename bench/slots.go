package bench

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/failsafe-go/failsafe-go/bulkhead"
	"golang.org/x/sync/semaphore"
)

// models are the 16 keys of the comparison.
var models = func() (names [16]string) {
	for i := range names {
		names[i] = "anthropic/claude-model-" + strconv.Itoa(i)
	}
	return names
}()

func slotRows() []Row {
	return []Row{
		{
			ID:        "slot",
			What:      "acquire and release of a free slot, 16 keys, a handle that releases once",
			Reference: "x/sync semaphore, bare",
			Run:       runFreeSlot,
		},
		{
			ID:        "handoff",
			What:      "a freed slot is granted to the next of the pending ones (pools only)",
			Reference: "x/sync's hand-off to 10,000 waiting goroutines",
			Run:       runHandOff,
		},
	}
}

// acquirer acquires and releases a free slot n times.
type acquirer func(n int)

func byName(c *bgagent.ConcurrencyManager) acquirer {
	ctx := context.Background()
	return func(n int) {
		for i := range n {
			s, err := c.Acquire(ctx, models[i&15])
			if err != nil {
				panic(err)
			}
			s.Release()
		}
	}
}

func byPool(c *bgagent.ConcurrencyManager) acquirer {
	ctx := context.Background()
	var pools [16]*bgagent.Pool
	for i, m := range models {
		pools[i] = c.Pool(m)
	}
	return func(n int) {
		for i := range n {
			s, err := pools[i&15].Acquire(ctx)
			if err != nil {
				panic(err)
			}
			s.Release()
		}
	}
}

func bySemaphore() acquirer {
	ctx := context.Background()
	sem := semaphore.NewWeighted(bgagent.DefaultConcurrency)
	return func(n int) {
		for range n {
			if err := sem.Acquire(ctx, 1); err != nil {
				panic(err)
			}
			sem.Release(1)
		}
	}
}

func byBulkhead() acquirer {
	ctx := context.Background()
	b := bulkhead.New[any](bgagent.DefaultConcurrency)
	return func(n int) {
		for range n {
			if err := b.AcquirePermit(ctx); err != nil {
				panic(err)
			}
			b.ReleasePermit()
		}
	}
}

func runFreeSlot(o Options) ([]Check, error) {
	c, err := bgagent.NewConcurrencyManager(bgagent.Limits{})
	if err != nil {
		return nil, err
	}
	var checks []Check
	for _, x := range []struct {
		name       string
		run        acquirer
		bound, aim float64
	}{
		{"by name", byName(c), 2.5, 1.5},
		{"pool looked up beforehand", byPool(c), 2.5, 1},
		{"failsafe-go bulkhead", byBulkhead(), None, None},
	} {
		o.note("%s", x.name)
		ref := bySemaphore()
		p, err := interleave(max(o.Rounds, 21),
			func() (float64, error) { return perOp(x.run), nil },
			func() (float64, error) { return perOp(ref), nil })
		if err != nil {
			return nil, err
		}
		checks = append(checks, Check{x.name, p.ratio, "x", x.bound, x.aim, p.beside()})
	}
	before := mallocs()
	byName(c)(100_000)
	allocs := Series{(mallocs() - before) / 100_000}
	return append(checks, Check{"allocations by name", allocs, "", 0.01, None, ""}), nil
}

// runHandOff runs the benchmark of the root package, which has access to the line
// for a slot, and reads its figures.
func runHandOff(o Options) ([]Check, error) {
	root, err := RootDir()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("go", "test", "-run", "^$", "-bench", "^BenchmarkHandOff$", "-benchtime", fmt.Sprintf("%dx", o.Rounds), ".")
	cmd.Dir = root
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%v: %w\n%s", cmd.Args, err, out)
	}
	var checks []Check
	var own [2]Series
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		if len(f) < 4 || !strings.HasPrefix(f[0], "BenchmarkHandOff/") {
			continue
		}
		at := map[string]float64{}
		for i := 2; i+1 < len(f); i += 2 {
			if at[f[i+1]], err = strconv.ParseFloat(f[i], 64); err != nil {
				return nil, fmt.Errorf("reading %q: %w", line, err)
			}
		}
		name, large := "10,000 pending", strings.Contains(f[0], "=1000000")
		if large {
			name = "1,000,000 pending"
		}
		series := func(unit string) Series { return Series{at[unit+"-least"], at[unit], at[unit+"-most"]} }
		checks = append(checks, Check{name, series("ratio"), "x", 1.0 / 20, 1.0 / 50, nanos(at["own-ns"]) + " against " + nanos(at["semaphore-ns"])})
		if large {
			own[1] = series("own-ns")
		} else {
			own[0] = series("own-ns")
		}
	}
	if len(checks) != 2 {
		return nil, fmt.Errorf("the hand-off benchmark printed no figures:\n%s", out)
	}
	return append(checks, Check{"growth from 10,000 to 1,000,000", Series{own[1].Median() / own[0].Median()}, "x", 2, None, ""}), nil
}

// semaphoreHandOff returns the nanoseconds in which a semaphore's slot passes from
// one to the next of n waiting goroutines.
func semaphoreHandOff(n int) float64 {
	sem := semaphore.NewWeighted(1)
	ctx := context.Background()
	_ = sem.Acquire(ctx, 1)
	var begun, done sync.WaitGroup
	begun.Add(n)
	for range n {
		done.Go(func() {
			begun.Done()
			_ = sem.Acquire(ctx, 1)
			sem.Release(1)
		})
	}
	begun.Wait()
	start := time.Now()
	sem.Release(1)
	done.Wait()
	return float64(time.Since(start).Nanoseconds()) / float64(n)
}

// RootDir returns the directory of the module under test.
func RootDir() (string, error) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/bgagent/bgagent").Output()
	if err != nil {
		return "", fmt.Errorf("looking for the module: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}
