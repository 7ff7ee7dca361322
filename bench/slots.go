package bench

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/failsafe-go/failsafe-go/bulkhead"
	"golang.org/x/sync/semaphore"
)

// models holds the names of 16 models, which serve as keys in the comparison.
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
			What:      "a freed slot is granted to the next waiter in line (pools without caps)",
			Reference: "x/sync's hand-off to 10,000 waiting goroutines",
			Run:       runHandOff,
		},
		{
			ID:        "caps",
			What:      "a task gives its slot back and waits again while tasks of every agent wait in every pool and the cap of every agent is full",
			Reference: "the same without caps",
			Run:       runCaps,
		},
	}
}

// An acquirer acquires and releases a free slot n times.
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

// runHandOff runs a benchmark in the root package and reads its figures. The benchmark is in the root
// package, because only that package has access to the line for a slot.
func runHandOff(o Options) ([]Check, error) {
	at, err := goBench(".", "BenchmarkHandOff", o.Rounds)
	if err != nil {
		return nil, err
	}
	var checks []Check
	var own [2]Series
	for i, x := range []struct{ name, key string }{{"10,000 pending", "waiting=10000"}, {"1,000,000 pending", "waiting=1000000"}} {
		f := at[x.key]
		if f == nil {
			return nil, fmt.Errorf("the hand-off benchmark printed no figures for %s", x.name)
		}
		checks = append(checks, Check{x.name, f.series("ratio"), "x", 1.0 / 20, 1.0 / 50, nanos(f["own-ns"]) + " against " + nanos(f["semaphore-ns"])})
		own[i] = f.series("own-ns")
	}
	return append(checks, Check{"growth from 10,000 to 1,000,000", Series{own[1].Median() / own[0].Median()}, "x", 2, None, ""}), nil
}

// runCaps runs a benchmark in the root package and reads its figures.
func runCaps(o Options) ([]Check, error) {
	at, err := goBench(".", "BenchmarkCaps", o.Rounds)
	if err != nil {
		return nil, err
	}
	var checks []Check
	for _, fair := range []string{"false", "true"} {
		var own []float64
		for _, n := range []string{"8", "64", "256"} {
			name := n + " pools, " + n + " agents"
			f := at["grid="+n+"/fair="+fair]
			if f == nil {
				return nil, fmt.Errorf("the benchmark of caps printed no figures for %s", name)
			}
			if fair == "true" {
				name += ", fair between 16 roots"
			}
			checks = append(checks, Check{name, f.series("ratio"), "x", 40, None, nanos(f["capped-ns"]) + " against " + nanos(f["plain-ns"])})
			own = append(own, f["ratio"])
		}
		name := "growth of the ratio from 8 to 256"
		if fair == "true" {
			name += ", fair"
		}
		checks = append(checks, Check{name, Series{own[2] / own[0]}, "x", 8, None, ""})
	}
	return checks, nil
}

// figures holds the figures of one benchmark by unit.
type figures map[string]float64

// series returns the minimum, the median and the maximum of the figures with the given unit.
func (f figures) series(unit string) Series {
	return Series{f[unit+"-least"], f[unit], f[unit+"-most"]}
}

// goBench runs a benchmark in a folder of the repository. It returns the figures of each
// sub-benchmark by name.
func goBench(folder, name string, rounds int) (map[string]figures, error) {
	root, err := RootDir()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("go", "test", "-run", "^$", "-bench", "^"+name+"$", "-benchtime", fmt.Sprintf("%dx", rounds), ".")
	cmd.Dir = filepath.Join(root, folder)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%v: %w\n%s", cmd.Args, err, out)
	}
	parts := map[string]figures{}
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		if len(f) < 4 || !strings.HasPrefix(f[0], name+"/") {
			continue
		}
		at := figures{}
		for i := 2; i+1 < len(f); i += 2 {
			if at[f[i+1]], err = strconv.ParseFloat(f[i], 64); err != nil {
				return nil, fmt.Errorf("reading %q: %w", line, err)
			}
		}
		part := strings.TrimPrefix(f[0], name+"/")
		if procs := strings.LastIndexByte(part, '-'); procs > 0 { // with one processor, there is no suffix
			part = part[:procs]
		}
		parts[part] = at
	}
	return parts, nil
}

// semaphoreHandOff lets n waiting goroutines acquire and release a semaphore one after another. It
// returns the time per goroutine in nanoseconds.
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

// RootDir returns the directory of the module github.com/bgagent/bgagent.
func RootDir() (string, error) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/bgagent/bgagent").Output()
	if err != nil {
		return "", fmt.Errorf("looking for the module: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}
