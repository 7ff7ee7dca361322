package bgagent

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// The monotonic clock does not advance while the machine sleeps, but the wall clock does.
// Therefore, after the machine has slept, the wall time is later than the monotonic clock suggests.
func TestTheTimeOfAProviderCountsFromTheWallClock(t *testing.T) {
	const nap, wait = 8 * time.Hour, 5 * time.Hour
	began := time.Now()
	st := state{epoch: began}
	clock := began.Add(time.Hour)
	wall := clock.Round(0).Add(nap)
	now := int64(clock.Sub(began))
	require.Equal(t, int64(time.Hour), now)
	for _, at := range []time.Time{wall.Add(wait), wall.Add(wait).UTC(), began.Add(time.Hour + nap + wait)} {
		require.Equal(t, now+int64(wait), st.providerTime(onClockAt(at, wall, clock), now))
	}
	require.Zero(t, st.providerTime(onClockAt(wall.Add(-time.Minute), wall, clock), now), "the time has passed, although the monotonic clock has not reached it")
	require.Zero(t, st.providerTime(onClockAt(time.Time{}, wall, clock), now))
}

func TestTheTimeOfAProviderGetsAReadingOfTheMonotonicClock(t *testing.T) {
	at := time.Now().Add(time.Hour)
	for _, told := range []time.Time{at, at.Round(0), at.Round(0).UTC()} {
		got := onClock(told)
		require.True(t, got.Round(0).Equal(at.Round(0)), "the wall time stays the same")
		require.NotEqual(t, got.Round(0), got)
	}
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
		require.NotEqual(t, e.RetryAt.Round(0), e.RetryAt, "the time must have a reading of the monotonic clock")
		require.Zero(t, e.Tries)
		require.Zero(t, e.Status)
	}
	for _, at := range []time.Time{seen.Status.RetryAt, heard.RetryAt} {
		require.NotEqual(t, at.Round(0), at)
	}
	require.Equal(t, page.Messages[0], got.Messages[0])
}

// While the machine's clocks are being adjusted, the same wall time corresponds to a different
// monotonic time in each poll. This difference does not count as a change.
func TestARetryIsNoChangeIfItsWallTimeStaysTheSame(t *testing.T) {
	at := time.Now().Add(time.Hour)
	o := observation{status: SessionStatus{State: SessionRetrying, RetryAt: at}, answered: true, read: true, retryAt: sec(3600)}
	c, _ := judge(counters{began: 1, changed: 1}, o, usual, sec(1))
	require.Equal(t, sec(1), c.changed)
	o.status.RetryAt, o.retryAt = at.Round(0), o.retryAt-int64(time.Second)
	c, _ = judge(c, o, usual, sec(2))
	require.Equal(t, sec(1), c.changed)
	require.Equal(t, o.retryAt, c.retryAt)
	o.status.RetryAt = at.Add(time.Second)
	c, _ = judge(c, o, usual, sec(3))
	require.Equal(t, sec(3), c.changed)
}
