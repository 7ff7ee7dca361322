package bench

import (
	"testing"
	"time"

	"github.com/bgagent/bgagent"
)

// These benchmarks run parts of the measurements under go test -bench. The figures in
// BENCHMARKS.md come from cmd/report, which compares each part with its reference.

func benchSlots(b *testing.B, f acquirer) {
	b.ReportAllocs()
	f(b.N)
}

func newManager(b *testing.B) *bgagent.ConcurrencyManager {
	c, err := bgagent.NewConcurrencyManager(bgagent.Limits{})
	if err != nil {
		b.Fatal(err)
	}
	return c
}

func BenchmarkFreeSlotByName(b *testing.B)    { benchSlots(b, byName(newManager(b))) }
func BenchmarkFreeSlotByPool(b *testing.B)    { benchSlots(b, byPool(newManager(b))) }
func BenchmarkFreeSlotSemaphore(b *testing.B) { benchSlots(b, bySemaphore()) }
func BenchmarkFreeSlotBulkhead(b *testing.B)  { benchSlots(b, byBulkhead()) }

func BenchmarkSemaphoreHandOff(b *testing.B) {
	for b.Loop() {
		b.ReportMetric(semaphoreHandOff(10_000), "ns/handoff")
	}
}

// The function "each" runs f repeatedly and reports the last result of f. The function f executes n
// operations and returns the cost of one operation.
func each(b *testing.B, n int, f func(n int) (float64, error)) {
	var ns float64
	var err error
	for b.Loop() {
		if ns, err = f(n); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(ns, "ns/task")
}

const some = 1000

func BenchmarkPond(b *testing.B)       { each(b, some, submitAll) }
func BenchmarkAnts(b *testing.B)       { each(b, some, throughAnts) }
func BenchmarkConc(b *testing.B)       { each(b, some, throughConc) }
func BenchmarkWorkerpool(b *testing.B) { each(b, some, throughWorkerpool) }

func BenchmarkEndToNextStart(b *testing.B) { each(b, some, passAlong) }

func BenchmarkLaunchToTold(b *testing.B) {
	each(b, some, func(n int) (float64, error) {
		ns, allocs, err := launchAll(n)
		b.ReportMetric(allocs, "allocs/task")
		return ns, err
	})
}

func BenchmarkPendingHeap(b *testing.B) {
	for b.Loop() {
		bytes, _, err := pendingHeap(some)
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(bytes, "B/task")
	}
}

func BenchmarkEndedHeap(b *testing.B) {
	for b.Loop() {
		bytes, err := endedHeap(some, bgagent.Unlimited)
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(bytes, "B/task")
	}
}

func BenchmarkEvent(b *testing.B) {
	s := newStarter()
	m, err := live(some, s, bgagent.Config{PollInterval: time.Hour, HostUnreachable: bgagent.Disabled})
	if err != nil {
		b.Fatal(err)
	}
	for i := 0; b.Loop(); i++ {
		m.Observe(bgagent.HostEvent{Kind: bgagent.HostActivity, Session: s.all[i%some]})
	}
	if err := closeManager(m); err != nil {
		b.Fatal(err)
	}
}

func BenchmarkSweep(b *testing.B) {
	for b.Loop() {
		p, err := sweeps(some, 2, newStarter(), func() {})
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(p.reads, "reads/sweep")
	}
}

func BenchmarkEndToNotice(b *testing.B) {
	each(b, some, func(n int) (float64, error) {
		s, err := noticeLatency(n)
		return s.Median(), err
	})
}

func BenchmarkTurnOfACommandLine(b *testing.B) { each(b, 100, catTurns) }
func BenchmarkBareProcess(b *testing.B)        { each(b, 100, catBare) }

// The function "ratios" prints the median ratio of a subject to its reference.
func ratios(b *testing.B, f func(rounds int) (pair, error)) {
	for b.Loop() {
		p, err := f(1)
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(p.ratio.Median(), "x/reference")
		b.ReportMetric(p.subject.Median(), "subject-ns")
		b.ReportMetric(p.reference.Median(), "reference-ns")
	}
}

func BenchmarkStoreLatency(b *testing.B) {
	ratios(b, func(rounds int) (pair, error) { return storeLatency(rounds, 0) })
}

func BenchmarkStoreThroughput(b *testing.B) {
	ratios(b, func(rounds int) (pair, error) {
		raw, _, err := storeThroughput(rounds, 100, 500)
		return raw, err
	})
}

func BenchmarkStoreOpen(b *testing.B) {
	ratios(b, func(rounds int) (pair, error) { return storeOpen(rounds, some, 10*some) })
}
