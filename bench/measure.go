// Package bench measures bgagent against its peers. A bound is never a figure in
// nanoseconds, which says more of the machine than of the code, but a ratio to a
// reference that was measured in the same process and run, turn by turn with it.
//
//	go run ./bench/cmd/report
//
// runs all rows and writes BENCHMARKS.md.
package bench

import (
	"fmt"
	"math"
	"runtime"
	"slices"
	"time"
)

// Series are the measurements of one thing, one a round.
type Series []float64

// Quantile returns the value below which the part q of the series lies.
func (s Series) Quantile(q float64) float64 {
	if len(s) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(s))
	return sorted[int(q*float64(len(sorted)-1)+0.5)]
}

// Median returns the middle of the series.
func (s Series) Median() float64 { return s.Quantile(0.5) }

// Check is one figure of a row that has a bound.
type Check struct {
	Name   string
	Value  Series
	Unit   string  // "x" for a ratio to the reference
	Bound  float64 // at most; NaN for a figure without one
	Aim    float64 // at most; NaN for none
	Beside string  // the absolute figures, for orientation
}

// Inside reports whether the median keeps to the bound.
func (c Check) Inside() bool { return math.IsNaN(c.Bound) || c.Value.Median() <= c.Bound }

// Reached reports whether the median reaches the aim.
func (c Check) Reached() bool { return math.IsNaN(c.Aim) || c.Value.Median() <= c.Aim }

// None is a bound or an aim that there is not.
var None = math.NaN()

// Options say how thoroughly to measure.
type Options struct {
	Rounds   int               // of each comparison
	Most     int               // largest number of tasks
	Progress func(note string) // told what goes on; may be nil
}

func (o Options) note(format string, args ...any) {
	if o.Progress != nil {
		o.Progress(fmt.Sprintf(format, args...))
	}
}

// sizes returns those of the sizes that are not larger than o.Most.
func (o Options) sizes(all ...int) []int {
	var out []int
	for _, n := range all {
		if n <= o.Most {
			out = append(out, n)
		}
	}
	return out
}

// Row is one line of the table of what must be reached.
type Row struct {
	ID, What, Reference string
	Run                 func(o Options) ([]Check, error)
}

// Rows returns all rows, in the order of the table.
func Rows() []Row {
	return slices.Concat(slotRows(), pathRows(), memoryRows(), eventRows(), pollRows(), latencyRows(), turnRows())
}

// pair is a subject and its reference, measured turn by turn.
type pair struct{ subject, reference, ratio Series }

// interleave measures both in each round, now the one first and now the other,
// after one round that does not count.
func interleave(rounds int, subject, reference func() (float64, error)) (pair, error) {
	var p pair
	for i := range rounds + 1 {
		first, second := subject, reference
		if i%2 == 1 {
			first, second = second, first
		}
		a, err := first()
		if err != nil {
			return p, err
		}
		b, err := second()
		if err != nil {
			return p, err
		}
		if i%2 == 1 {
			a, b = b, a
		}
		if i > 0 {
			p.subject, p.reference, p.ratio = append(p.subject, a), append(p.reference, b), append(p.ratio, a/b)
		}
	}
	return p, nil
}

// beside writes the absolute figures of a pair.
func (p pair) beside() string {
	return nanos(p.subject.Median()) + " against " + nanos(p.reference.Median())
}

func nanos(ns float64) string {
	if math.IsNaN(ns) {
		return "-"
	}
	d := time.Duration(ns)
	switch {
	case ns < 1000:
		return fmt.Sprintf("%.3g ns", ns)
	case d < time.Millisecond:
		return fmt.Sprintf("%.3g µs", ns/1e3)
	case d < time.Second:
		return fmt.Sprintf("%.3g ms", ns/1e6)
	default:
		return fmt.Sprintf("%.3g s", ns/1e9)
	}
}

// perOp runs f with a number of repetitions that lasts about 20 ms and returns
// the nanoseconds of one.
func perOp(f func(n int)) float64 {
	n := 1000
	for {
		start := time.Now()
		f(n)
		took := time.Since(start)
		if took > 10*time.Millisecond {
			return float64(took.Nanoseconds()) / float64(n)
		}
		n *= 4
	}
}

// memory is what the process holds and has asked for.
type memory struct {
	heap       float64 // bytes that live
	mallocs    float64 // objects ever allocated
	goroutines int
}

func measureMemory() memory {
	runtime.GC()
	runtime.GC() // finalizers and pools let go at the second
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return memory{float64(m.HeapAlloc), float64(m.Mallocs), runtime.NumGoroutine()}
}

func mallocs() float64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.Mallocs)
}
