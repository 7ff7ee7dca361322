package embedded_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/bgagent/bgagent"
	bgnats "github.com/bgagent/bgagent/nats"
)

// holder sends its grants and losses to channels.
type holder struct {
	granted chan time.Time
	lost    chan error
	until   chan time.Time
}

func newHolder() *holder {
	return &holder{make(chan time.Time, 1), make(chan error, 1), make(chan time.Time, 1)}
}

func (h *holder) SlotGranted() { h.granted <- time.Now() }
func (h *holder) SlotLost(until time.Time, why error) {
	h.lost <- why
	h.until <- until
}

// The function "within" returns the next value, and fails if no value arrives for a long time.
func within[T any](t testing.TB, c chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(30 * time.Second):
		t.Fatal("no value has arrived for 30 s")
	}
	return v
}

func TestStoredLimitsApplyToAllProcessesAndCanBeChanged(t *testing.T) {
	shorterLease(t)
	server := startServer(t)
	a, _ := joins(t, server, bgnats.SlotOptions{Limits: bgagent.Limits{Default: 1}})
	first := newHolder()
	a.Request(bgagent.SlotRequest{Model: "m"}, first)
	within(t, first.granted)
	var mu sync.Mutex
	var warned []error
	b, _ := joins(t, server, bgnats.SlotOptions{Limits: bgagent.Limits{Default: 5}, Warn: func(err error) {
		mu.Lock()
		defer mu.Unlock()
		warned = append(warned, err)
	}})
	require.Equal(t, 1, b.Limits().Default)
	until(t, func() bool { mu.Lock(); defer mu.Unlock(); return len(warned) == 1 })
	require.ErrorContains(t, warned[0], "stored limits differ")

	second, third := newHolder(), newHolder()
	b.Request(bgagent.SlotRequest{Model: "m"}, second)
	b.Request(bgagent.SlotRequest{Model: "m"}, third)
	until(t, func() bool {
		for _, p := range a.Pools() {
			if p.Waiting == 2 {
				return true
			}
		}
		return false
	})
	require.Empty(t, second.granted)
	require.NoError(t, b.SetLimits(t.Context(), bgagent.Limits{Default: 2}))
	within(t, second.granted)
	require.Empty(t, third.granted)
	until(t, func() bool { return a.Limits().Default == 2 && b.Limits().Default == 2 })
	var wrong *bgagent.InputError
	require.ErrorAs(t, a.SetLimits(t.Context(), bgagent.Limits{Default: -2}), &wrong)
}

// TestCloseGivesBackWhatWasReleased uses a process that releases its slot and then leaves.
func TestCloseGivesBackWhatWasReleased(t *testing.T) {
	shorterLease(t)
	server := startServer(t)
	limits := bgagent.Limits{Default: 1}
	a, _ := joins(t, server, bgnats.SlotOptions{Limits: limits})
	b, _ := joins(t, server, bgnats.SlotOptions{Limits: limits})
	first, waits, second := newHolder(), newHolder(), newHolder()
	k := a.Request(bgagent.SlotRequest{Model: "m"}, first)
	within(t, first.granted)
	a.Request(bgagent.SlotRequest{Model: "m"}, waits)
	b.Request(bgagent.SlotRequest{Model: "m"}, second)
	began := time.Now()
	k.Release()
	require.NoError(t, a.Close(t.Context()))
	require.ErrorIs(t, within(t, waits.lost), bgagent.ErrSlotLost)
	require.Less(t, within(t, second.granted).Sub(began), testLease, "no process waits for the lease of a process without slots")
}

func TestSlotsThatAreHeldAtCloseAreGrantedOnceTheirHoldersHaveHadTheirTime(t *testing.T) {
	shorterLease(t)
	server := startServer(t)
	limits := bgagent.Limits{Default: 1}
	a, _ := joins(t, server, bgnats.SlotOptions{Limits: limits})
	b, _ := joins(t, server, bgnats.SlotOptions{Limits: limits})
	first, second, late := newHolder(), newHolder(), newHolder()
	k := a.Request(bgagent.SlotRequest{Model: "m"}, first)
	within(t, first.granted)
	b.Request(bgagent.SlotRequest{Model: "m"}, second)
	require.NoError(t, a.Close(t.Context()))
	require.ErrorIs(t, within(t, first.lost), bgagent.ErrSlotLost)
	require.False(t, k.MayBegin())
	require.False(t, within(t, second.granted).Before(within(t, first.until)), "the work of the first holder may run until then")
	a.Request(bgagent.SlotRequest{Model: "m"}, late)
	require.ErrorIs(t, within(t, late.lost), bgagent.ErrSlotLost)
	require.NoError(t, a.Close(t.Context()))
}

func TestSlotsRefuseWrongOptions(t *testing.T) {
	server := startServer(t)
	nc, err := nats.Connect("", server.Connection())
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	for name, o := range map[string]bgnats.SlotOptions{
		"agents":    {Lease: 14 * time.Second},
		"two words": {},
		"limits":    {Limits: bgagent.Limits{Default: -2}},
	} {
		_, err := bgnats.NewSlots(t.Context(), nc, name, o)
		require.Error(t, err, name)
	}
	_, err = bgnats.NewSlots(t.Context(), nil, "agents", bgnats.SlotOptions{})
	require.ErrorContains(t, err, "connection")

	shorterLease(t)
	joins(t, server, bgnats.SlotOptions{})
	until(t, func() bool {
		_, err := bgnats.NewSlots(context.Background(), nc, "agents", bgnats.SlotOptions{Lease: 2 * testLease})
		return err != nil
	})
}

// BenchmarkHandOver measures the time from the release of a slot in one process to the grant in another.
func BenchmarkHandOver(b *testing.B) {
	server := startServer(b)
	var all []*bgnats.Slots
	for range 2 {
		s, _ := joins(b, server, bgnats.SlotOptions{Limits: bgagent.Limits{Default: 1}, Lease: 30 * time.Second})
		all = append(all, s)
	}
	h := newHolder()
	k := all[0].Request(bgagent.SlotRequest{Model: "m"}, h)
	within(b, h.granted)
	var took []time.Duration
	for i := 1; b.Loop(); i++ {
		next := newHolder()
		waits := all[i%2].Request(bgagent.SlotRequest{Model: "m"}, next)
		time.Sleep(2 * time.Millisecond) // time for the request to get into line
		began := time.Now()
		k.Release()
		took = append(took, within(b, next.granted).Sub(began))
		k = waits
	}
	k.Release()
	reportTimes(b, took)
}

// reportTimes reports the median and the 99th percentile.
func reportTimes(b *testing.B, took []time.Duration) {
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "µs-p50")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "µs-p99")
}
