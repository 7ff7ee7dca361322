// Package bench compares bgagent with other libraries. Most bounds limit the ratio of the
// subject's time to a reference's time, because absolute times depend too much on the
// machine. Subject and reference are measured alternately.
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

// Series holds the measurements of one quantity. Each round adds one measurement.
type Series []float64

// Quantile returns the value below which a fraction q of the series lies.
func (s Series) Quantile(q float64) float64 {
	if len(s) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(s))
	return sorted[int(q*float64(len(sorted)-1)+0.5)]
}

// Median returns the median of the series.
func (s Series) Median() float64 { return s.Quantile(0.5) }

// Check is one measured figure of a row, with its bound.
type Check struct {
	Name   string
	Value  Series
	Unit   string  // unit of Value; "x" means a ratio to the reference
	Bound  float64 // upper bound; NaN if there is no bound
	Aim    float64 // desired upper bound; NaN if there is no aim
	Beside string  // absolute figures, for information
}

// Inside reports whether the median is within the bound. It returns true if there is no bound.
func (c Check) Inside() bool { return math.IsNaN(c.Bound) || c.Value.Median() <= c.Bound }

// Reached reports whether the median reaches the aim. It returns true if there is no aim.
func (c Check) Reached() bool { return math.IsNaN(c.Aim) || c.Value.Median() <= c.Aim }

// None is the value of Check.Bound if there is no bound, and of Check.Aim if there is no aim.
var None = math.NaN()

// Options determine the extent of the measurements.
type Options struct {
	Rounds   int               // number of rounds per comparison
	Most     int               // largest number of tasks
	Progress func(note string) // receives progress notes; can be nil
}

func (o Options) note(format string, args ...any) {
	if o.Progress != nil {
		o.Progress(fmt.Sprintf(format, args...))
	}
}

// The method "sizes" returns the sizes that do not exceed o.Most.
func (o Options) sizes(all ...int) []int {
	var out []int
	for _, n := range all {
		if n <= o.Most {
			out = append(out, n)
		}
	}
	return out
}

// Row is one row of the benchmark table.
type Row struct {
	ID, What, Reference string
	Run                 func(o Options) ([]Check, error)
}

// Rows returns all rows in table order.
func Rows() []Row {
	return slices.Concat(slotRows(), pathRows(), guardrailRows(), memoryRows(), []Row{beforeRow}, eventRows(), pollRows(), latencyRows(), turnRows(), storeRows())
}

// pair holds the measurements of a subject and of its reference, and their ratios.
type pair struct{ subject, reference, ratio Series }

// The method "add" adds one measurement of the subject and one of the reference.
func (p *pair) add(subject, reference float64) {
	p.subject, p.reference, p.ratio = append(p.subject, subject), append(p.reference, reference), append(p.ratio, subject/reference)
}

// The function "interleave" measures the subject and the reference in each round. Their order
// alternates from round to round. One warm-up round precedes the counted rounds.
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
			p.add(a, b)
		}
	}
	return p, nil
}

// The method "beside" formats the absolute figures of a pair.
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

// perOp calls f with increasing numbers of repetitions until a call takes more than 10 ms. It
// returns the time per repetition of that last call, in nanoseconds.
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

// memory holds the memory figures of this process.
type memory struct {
	heap       float64 // bytes of live objects
	mallocs    float64 // number of objects allocated so far
	goroutines int
}

func measureMemory() memory {
	runtime.GC()
	runtime.GC() // the second collection frees objects with finalizers and the contents of pools
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return memory{float64(m.HeapAlloc), float64(m.Mallocs), runtime.NumGoroutine()}
}

func mallocs() float64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.Mallocs)
}
