package bgagent

import (
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
)

// slept returns the time t as if the machine had slept for the duration d before it: the wall time is
// later by d, and the reading of the monotonic clock is the same. A whole second of the wall time is
// 1<<30 in the first word of a time with such a reading.
func slept(t time.Time, d time.Duration) time.Time {
	*(*uint64)(unsafe.Pointer(&t)) += uint64(d/time.Second) << 30
	return t
}

func TestTheTimeOfAProviderCountsFromTheWallClock(t *testing.T) {
	const nap, wait, slack = 8 * time.Hour, 5 * time.Hour, time.Minute
	st := state{epoch: slept(time.Now().Add(-time.Hour), -nap)} // the machine has slept since the epoch
	require.InDelta(t, nap+time.Hour, time.Now().Round(0).Sub(st.epoch.Round(0)), float64(slack))
	now := int64(time.Since(st.epoch))
	require.InDelta(t, time.Hour, now, float64(slack))
	for _, at := range []time.Time{time.Now().Add(wait), time.Now().Add(wait).Round(0).UTC()} {
		got := onClock(at)
		require.InDelta(t, now+int64(wait), st.providerTime(got, now), float64(slack))
		require.True(t, got.Round(0).Equal(at.Round(0)), "the wall time stays the same")
	}
	require.Zero(t, st.providerTime(onClock(time.Now().Add(-time.Minute)), int64(time.Since(st.epoch))))
	require.Zero(t, st.providerTime(onClock(time.Time{}), now))
}

func TestATimeThatIsTooFarAwayIsUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for d, kept := range map[time.Duration]bool{resetMost: true, resetMost + 1: false, -resetMost: true, -resetMost - 1: false} {
			require.Equal(t, kept, !onClock(time.Now().Add(d)).IsZero(), d)
		}
		for _, at := range []time.Time{time.Unix(1<<62, 0), time.Unix(-1<<62, 0), time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC), time.Unix(0, 0), {}} {
			require.Zero(t, onClock(at), at)
		}
	})
}

func TestWhatAClientHasReportedStaysAsItIs(t *testing.T) {
	at := time.Now().Add(time.Hour).Round(0)
	told := ProviderError{Kind: ProviderOverloaded, Tries: -5, Status: -1, RetryAt: at}
	same := told
	page := Page{Messages: []Message{{ID: "1"}, {ID: "2", Provider: &told}}}
	event := HostEvent{Message: &page.Messages[1], Provider: &told, Status: SessionStatus{RetryAt: at, Provider: &told}}
	report := Report{Provider: &told, RetryAt: at}
	got, seen, heard := page.received(), event.received(), report.received()
	require.Equal(t, same, told)
	require.Same(t, &told, page.Messages[1].Provider)
	for _, e := range []*ProviderError{got.Messages[1].Provider, seen.Message.Provider, seen.Provider, seen.Status.Provider, heard.Provider} {
		require.NotSame(t, &told, e)
		require.True(t, e.RetryAt.Round(0).Equal(at))
		require.NotEqual(t, e.RetryAt.Round(0), e.RetryAt, "it has a reading of the monotonic clock")
		require.Zero(t, e.Tries)
		require.Zero(t, e.Status)
	}
	for _, at := range []time.Time{seen.Status.RetryAt, heard.RetryAt} {
		require.NotEqual(t, at.Round(0), at)
	}
	require.Equal(t, page.Messages[0], got.Messages[0])
}

// While the clocks of the machine are adjusted, the same wall time gets another reading in each poll.
func TestARetryIsNoChangeIfItsWallTimeStaysTheSame(t *testing.T) {
	at := time.Now().Add(time.Hour)
	o := observation{status: SessionStatus{State: SessionRetrying, RetryAt: at}, answered: true, read: true, retryAt: sec(3600)}
	c, _ := judge(counters{began: 1, changed: 1}, o, usual, sec(1))
	require.Equal(t, sec(1), c.changed)
	o.status.RetryAt, o.retryAt = slept(at.Add(-time.Second), time.Second), o.retryAt-int64(time.Second)
	c, _ = judge(c, o, usual, sec(2))
	require.Equal(t, sec(1), c.changed)
	require.Equal(t, o.retryAt, c.retryAt)
	o.status.RetryAt = at.Add(time.Second)
	c, _ = judge(c, o, usual, sec(3))
	require.Equal(t, sec(3), c.changed)
}
