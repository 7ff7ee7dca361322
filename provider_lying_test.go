package bgagent_test

import (
	"context"
	"fmt"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

// inTheBubble is the time at which a synctest bubble begins.
var inTheBubble = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// wrongTimes holds times at which no provider really accepts requests again.
var wrongTimes = map[string]time.Time{
	"a second ago":    inTheBubble.Add(-time.Second),
	"a year ago":      inTheBubble.AddDate(-1, 0, 0),
	"the year 1970":   time.Unix(0, 0),
	"in 100 years":    inTheBubble.AddDate(100, 0, 0),
	"the year 9999":   time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC),
	"the end of time": time.Unix(math.MaxInt64, 0),
	"the first time":  time.Unix(math.MinInt64, 0),
}

func TestAWrongTimeOfAProviderCountsAsUnknown(t *testing.T) {
	for name, at := range wrongTimes {
		t.Run(name, func(t *testing.T) {
			f := newLimited(first(1, bgagent.ProviderError{Kind: bgagent.ProviderRateLimited, Next: bgagent.NextContinue, RetryAt: at}))
			bubble(t, f, limit(1), func(t *testing.T, m *bgagent.BackgroundManager) {
				id := launch(t, m, "p").ID
				synctest.Wait()
				parked := get(t, m, id)
				require.Equal(t, bgagent.PhaseParked, parked.Phase)
				require.WithinRange(t, parked.Until, inTheBubble.Add(5*time.Second), inTheBubble.Add(6*time.Second))
				require.Equal(t, bgagent.Completed, ended(t, m, id)[0].Status)
			})
			f = newLimited(first(1, bgagent.ProviderError{Kind: bgagent.ProviderQuota, Next: bgagent.NextContinue, RetryAt: at}))
			bubble(t, f, limit(1), func(t *testing.T, m *bgagent.BackgroundManager) {
				task := ended(t, m, launch(t, m, "p").ID)[0]
				require.Equal(t, bgagent.CauseRateLimited, task.Cause)
				require.NotContains(t, task.Reason, "accepts requests again", "a wrong time must not be shown")
			})
		})
	}
}

func TestAProgramThatRetriesAtAWrongTimeIsStopped(t *testing.T) {
	for name, at := range wrongTimes {
		t.Run(name, func(t *testing.T) {
			f := retries(func(r *bgagent.Reporter) { r.Retrying(overloaded, at) })
			bubble(t, f, limit(1), func(t *testing.T, m *bgagent.BackgroundManager) {
				id := launch(t, m, "p").ID
				time.Sleep(59 * time.Second)
				require.Equal(t, bgagent.PhaseTurn, get(t, m, id).Phase)
				time.Sleep(2 * time.Second)
				synctest.Wait()
				require.Equal(t, bgagent.PhaseParked, get(t, m, id).Phase)
				require.Equal(t, bgagent.Completed, ended(t, m, id)[0].Status)
			})
		})
	}
}

func TestAnAbsurdNumberOfRefusalsKeepsNoTaskForEver(t *testing.T) {
	for _, tries := range []int{math.MinInt, -1, 0, math.MaxInt} {
		e := bgagent.ProviderError{Kind: bgagent.ProviderOverloaded, Next: bgagent.NextContinue, Tries: tries}
		bubble(t, newLimited(first(math.MaxInt, e)), limit(1), func(t *testing.T, m *bgagent.BackgroundManager) {
			began := time.Now()
			task := ended(t, m, launch(t, m, "p").ID)[0]
			require.Equal(t, bgagent.CauseRateLimited, task.Cause, "%d", tries)
			require.WithinRange(t, time.Now(), began.Add(30*time.Minute), began.Add(2*time.Hour), "%d", tries)
		})
	}
}

func TestUnknownValuesOfAClientDoNotParkATask(t *testing.T) {
	for name, x := range map[string]struct {
		e     bgagent.ProviderError
		cause bgagent.Cause
	}{
		"no kind":         {bgagent.ProviderError{Next: bgagent.NextContinue, Message: "odd"}, bgagent.CauseSessionError},
		"an unknown kind": {bgagent.ProviderError{Kind: 200, Next: bgagent.NextContinue, RetryAt: inTheBubble.Add(time.Minute), Message: "odd"}, bgagent.CauseSessionError},
		"an unknown step": {bgagent.ProviderError{Kind: bgagent.ProviderRateLimited, Next: 200, Scope: 200, Status: -7, Message: "odd"}, bgagent.CauseRateLimited},
		"a huge status":   {bgagent.ProviderError{Kind: bgagent.ProviderRateLimited, Status: math.MaxInt, Message: "odd"}, bgagent.CauseRateLimited},
	} {
		t.Run(name, func(t *testing.T) {
			f := newLimited(first(1, x.e))
			f.refuse = func(n int, p bgagent.Prompt) error {
				e := x.e
				return &e
			}
			bubble(t, f, limit(1), func(t *testing.T, m *bgagent.BackgroundManager) {
				task := ended(t, m, launch(t, m, "p").ID)[0]
				require.Equal(t, inTheBubble.UnixNano(), time.Now().UnixNano(), "the task must end immediately")
				require.Equal(t, x.cause, task.Cause)
				require.Contains(t, task.Reason, "odd")
				require.NotContains(t, task.Reason, "status")
			})
		})
	}
}

func TestAnAnnouncedRetryIsNotWaitedForForEver(t *testing.T) {
	for name, x := range map[string]struct {
		at    time.Time
		after time.Duration // how long the manager waits for the announced retry before the stale timeout begins
	}{
		"a retry soon":         {inTheBubble.Add(time.Hour), time.Hour},
		"a retry in some days": {inTheBubble.AddDate(0, 0, 9), bgagent.DefaultMaxPark},
		"in 100 years":         {wrongTimes["in 100 years"], 0},
		"the end of time":      {wrongTimes["the end of time"], 0},
		"the first time":       {wrongTimes["the first time"], 0},
	} {
		server := func() bgagent.SessionClient {
			f := newServer()
			f.statuses = func(all map[string]bgagent.SessionStatus) {
				for id, s := range all {
					if s.State == bgagent.SessionBusy { // Provider is nil, as after a failed connection
						all[id] = bgagent.SessionStatus{State: bgagent.SessionRetrying, RetryAt: x.at}
					}
				}
			}
			f.abort = func(_ context.Context, session string) error { return nil }
			return f
		}
		runner := func() bgagent.SessionClient {
			e := overloaded
			e.Next = bgagent.NextNone // with another value, the manager could stop the turn and park the task
			return retries(func(r *bgagent.Reporter) { r.Retrying(e, x.at) })
		}
		for client, create := range map[string]func() bgagent.SessionClient{"server": server, "runner": runner} {
			for _, park := range []time.Duration{0, bgagent.Disabled} {
				t.Run(fmt.Sprintf("%s, %s, MaxPark %d", name, client, park), func(t *testing.T) {
					cfg := limit(1)
					cfg.TimeToLive, cfg.MaxPark = bgagent.Disabled, park
					bubble(t, create(), cfg, func(t *testing.T, m *bgagent.BackgroundManager) {
						began := time.Now()
						task := ended(t, m, launch(t, m, "p").ID)[0]
						require.Equal(t, bgagent.CauseStale, task.Cause, task.Reason)
						require.WithinDuration(t, began.Add(x.after+bgagent.DefaultStaleTimeout), task.Ended, 10*time.Second)
					})
				})
			}
		}
	}
}
