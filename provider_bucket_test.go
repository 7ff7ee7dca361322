package bgagent_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

// bucket is a provider that accepts one request per token. It gets one token in each period, and
// holds at most size tokens.
type bucket struct {
	mu     sync.Mutex
	size   int
	period time.Duration
	tells  bool // refusals state when the next token is available
	tokens int
	filled time.Time
}

// The method "take" takes a token. If there is none, the method returns a refusal.
func (b *bucket) take() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	if b.filled.IsZero() {
		b.filled, b.tokens = now, b.size
	}
	for b.filled.Add(b.period).Compare(now) <= 0 {
		b.filled = b.filled.Add(b.period)
		b.tokens = min(b.tokens+1, b.size)
	}
	if b.tokens > 0 {
		b.tokens--
		return nil
	}
	e := &bgagent.ProviderError{Kind: bgagent.ProviderRateLimited, Status: 429, Next: bgagent.NextRepeat}
	if b.tells {
		e.RetryAt = b.filled.Add(b.period)
	}
	return e
}

// In this test, 100 tasks that use a provider with a token bucket run alongside tasks in two other
// pools.
func TestAHundredTasksGetThroughATokenBucket(t *testing.T) {
	const tasks, work = 100, 4 * time.Second
	for _, tells := range []bool{true, false} {
		t.Run(fmt.Sprint("tells ", tells), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := &bucket{size: 10, period: 3 * time.Second, tells: tells}
				var mu sync.Mutex
				var m *bgagent.BackgroundManager
				starts := map[string][]time.Time{}
				var coolUntil time.Time
				f := &goRunner{}
				f.run = func(ctx context.Context, session string, p bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
					now := time.Now()
					mu.Lock()
					starts[p.Model] = append(starts[p.Model], now)
					if p.Model == "limited/m" && now.Before(coolUntil) {
						t.Errorf("a turn starts at %v, in the cool-down until %v", now, coolUntil)
					}
					mu.Unlock()
					if p.Model == "limited/m" {
						if err := b.take(); err != nil {
							defer func() { // the manager gets the refusal only when the call has returned
								go func() {
									time.Sleep(time.Nanosecond)
									mu.Lock()
									defer mu.Unlock()
									coolUntil = m.Concurrency().Stats("limited/m").CoolUntil
								}()
							}()
							return bgagent.TurnEnd{}, err
						}
						r.Text("begun")
					}
					return works(work)(ctx, session, p, r)
				}
				m = manageUnchecked(t, f, bgagent.Config{Limits: bgagent.Limits{Default: 5}, MaxTasksPerRoot: 1000})
				began := time.Now()
				var ids []string
				for i := range tasks {
					for _, model := range []string{"limited/m", "other/a", "other/b"} {
						if model != "limited/m" && i >= 20 {
							continue
						}
						task, err := m.Launch(t.Context(), root, bgagent.LaunchInput{Agent: "worker", Prompt: "p", Model: model})
						require.NoError(t, err)
						if model == "limited/m" {
							ids = append(ids, task.ID)
						}
					}
				}
				ended, err := m.Wait(t.Context(), bgagent.Caller{}, bgagent.WaitAll, ids...)
				require.NoError(t, err)
				for _, task := range ended {
					require.Equal(t, bgagent.Completed, task.Status, task.Reason)
				}
				took := time.Since(began)
				// An ideal scheduler, which could see the tokens, would start a turn whenever there is
				// a token and a slot.
				best := max(time.Duration(tasks-b.size)*b.period, tasks/5*work) + work
				t.Logf("%v, at best %v, with %d turns", took, best, len(starts["limited/m"]))
				require.LessOrEqual(t, took, best*5/4+6*time.Second, "it may take 1.25 times the best time, plus one backoff")
				for _, model := range []string{"other/a", "other/b"} {
					var at []time.Duration
					for _, start := range starts[model] {
						at = append(at, start.Sub(began))
					}
					slices.Sort(at)
					for i, start := range at {
						require.Equal(t, time.Duration(i/5)*work, start, "another pool is delayed")
					}
				}
			})
		})
	}
}
