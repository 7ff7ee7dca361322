package bgagent_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

// limitedTurn is a turn that a runner of the type "limited" has begun.
type limitedTurn struct {
	session string
	prompt  bgagent.Prompt
	at      time.Time
}

// The type "limited" is a runner that refuses the turns that the test chooses.
type limited struct {
	goRunner
	begun  []limitedTurn
	refuse func(n int, p bgagent.Prompt) error // result of the n-th turn, counted from 0; nil if the turn succeeds
	last   time.Duration                       // duration of a turn that succeeds; 1 s if it is 0
}

func newLimited(refuse func(n int, p bgagent.Prompt) error) *limited {
	f := &limited{refuse: refuse}
	f.run = func(ctx context.Context, session string, p bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
		f.mu.Lock()
		n := len(f.begun)
		f.begun = append(f.begun, limitedTurn{session, p, time.Now()})
		f.mu.Unlock()
		if err := f.refuse(n, p); err != nil {
			return bgagent.TurnEnd{}, err
		}
		r.Text("answer to " + p.Text)
		return works(max(f.last, time.Second))(ctx, session, p, r)
	}
	return f
}

func (f *limited) turns() []limitedTurn {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]limitedTurn(nil), f.begun...)
}

// The function "first" returns a function that refuses the first n turns.
func first(n int, e bgagent.ProviderError) func(int, bgagent.Prompt) error {
	return func(i int, _ bgagent.Prompt) error {
		if i < n {
			refused := e
			return fmt.Errorf("fake: %w", &refused)
		}
		return nil
	}
}

func TestARefusedTurnGoesOnAfterTheCoolDown(t *testing.T) {
	for next, check := range map[bgagent.ProviderNextStep]func(*testing.T, bgagent.Task, []limitedTurn){
		bgagent.NextContinue: func(t *testing.T, task bgagent.Task, turns []limitedTurn) {
			for _, turn := range turns[1:] {
				require.Equal(t, turns[0].prompt.ID, turn.prompt.Unanswered, "the original prompt is still unanswered")
				require.Contains(t, turn.prompt.Text, "rate limit")
				require.Equal(t, task.Session, turn.session)
			}
		},
		bgagent.NextRepeat: func(t *testing.T, task bgagent.Task, turns []limitedTurn) {
			for _, turn := range turns[1:] {
				require.Empty(t, turn.prompt.Unanswered)
				require.Equal(t, "p", turn.prompt.Text)
				require.Equal(t, task.Session, turn.session)
			}
		},
		bgagent.NextNewSession: func(t *testing.T, task bgagent.Task, turns []limitedTurn) {
			require.Equal(t, "p", turns[2].prompt.Text)
			require.Equal(t, task.Session, turns[2].session)
			require.NotEqual(t, turns[0].session, turns[1].session)
			require.NotEqual(t, turns[1].session, turns[2].session)
		},
	} {
		t.Run(fmt.Sprint(next), func(t *testing.T) {
			f := newLimited(first(2, bgagent.ProviderError{Kind: bgagent.ProviderRateLimited, Status: 429, Next: next, Message: "slow down"}))
			bubble(t, f, limit(2), func(t *testing.T, m *bgagent.BackgroundManager) {
				began := time.Now()
				id := launch(t, m, "p").ID
				synctest.Wait()
				parked := get(t, m, id)
				require.Equal(t, bgagent.Running, parked.Status)
				require.Equal(t, bgagent.PhaseParked, parked.Phase)
				require.Contains(t, parked.Reason, "rate limit, status 429")
				require.Contains(t, parked.Reason, "slow down")
				require.WithinRange(t, parked.Until, began.Add(5*time.Second), began.Add(6*time.Second))
				pools := m.Concurrency().Pools()
				require.Len(t, pools, 1)
				require.Zero(t, pools[0].InUse, "a parked task does not hold a slot")
				require.Equal(t, parked.Until, pools[0].CoolUntil.Local())
				require.Equal(t, 1, pools[0].Refusals)

				task := ended(t, m, id)[0]
				require.Equal(t, bgagent.Completed, task.Status, task.Reason)
				require.Empty(t, task.Reason)
				require.Zero(t, task.Until)
				turns := f.turns()
				require.Len(t, turns, 3)
				require.WithinRange(t, turns[1].at, began.Add(5*time.Second), began.Add(6*time.Second))
				require.WithinRange(t, turns[2].at, turns[1].at.Add(10*time.Second), turns[1].at.Add(12*time.Second))
				require.Equal(t, "answer to "+turns[2].prompt.Text, task.Result)
				check(t, task, turns)
				time.Sleep(time.Second)
				require.Empty(t, m.Concurrency().Pools(), "the pool must not cool down any more")
			})
		})
	}
}

func TestARefusalThatCannotBeWaitedForEndsTheAttempt(t *testing.T) {
	now := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC) // time at which a synctest bubble begins
	for name, c := range map[string]struct {
		e      bgagent.ProviderError
		cause  bgagent.Cause
		reason string
		cfg    bgagent.Config
	}{
		"a client that cannot continue": {bgagent.ProviderError{Kind: bgagent.ProviderRateLimited}, bgagent.CauseRateLimited, "rate limit", limit(1)},
		"a quota without a reset":       {bgagent.ProviderError{Kind: bgagent.ProviderQuota, Next: bgagent.NextRepeat}, bgagent.CauseRateLimited, "quota", limit(1)},
		"a reset that is too late":      {bgagent.ProviderError{Kind: bgagent.ProviderQuota, Next: bgagent.NextRepeat, RetryAt: now.Add(7 * time.Hour)}, bgagent.CauseRateLimited, "from 2000-01-01T07:00:00Z", limit(1)},
		"authentication":                {bgagent.ProviderError{Kind: bgagent.ProviderAuthentication, Next: bgagent.NextRepeat, Message: "bad key"}, bgagent.CauseSessionError, "bad key", limit(1)},
		"an unknown model":              {bgagent.ProviderError{Kind: bgagent.ProviderUnknownModel, Next: bgagent.NextRepeat, Message: "no such"}, bgagent.CauseSessionError, "no such", limit(1)},
		"a long input":                  {bgagent.ProviderError{Kind: bgagent.ProviderTooLong, Next: bgagent.NextRepeat}, bgagent.CauseTooLong, "too long", limit(1)},
		"MaxPark is disabled":           {bgagent.ProviderError{Kind: bgagent.ProviderRateLimited, Next: bgagent.NextRepeat}, bgagent.CauseRateLimited, "rate limit", bgagent.Config{MaxPark: bgagent.Disabled}},
	} {
		t.Run(name, func(t *testing.T) {
			f := newLimited(first(1, c.e))
			bubble(t, f, c.cfg, func(t *testing.T, m *bgagent.BackgroundManager) {
				id := launch(t, m, "p").ID
				synctest.Wait()
				task := get(t, m, id)
				require.Equal(t, bgagent.Failed, task.Status)
				require.Equal(t, c.cause, task.Cause)
				require.Contains(t, task.Reason, c.reason)
			})
		})
	}
}

func TestTheClocksOfAParkedTaskStandStill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newLimited(func(n int, p bgagent.Prompt) error {
			if n == 0 {
				return &bgagent.ProviderError{Kind: bgagent.ProviderQuota, RetryAt: time.Now().Add(5 * time.Hour), Next: bgagent.NextContinue}
			}
			return nil
		})
		m := manage(t, f, bgagent.Config{Limits: bgagent.Limits{Default: 2}, QueueTimeToLive: time.Minute})
		began := time.Now()
		id := launch(t, m, "p").ID
		synctest.Wait()
		late := launch(t, m, "later").ID
		time.Sleep(4*time.Hour + 59*time.Minute)
		require.Equal(t, bgagent.PhaseParked, get(t, m, id).Phase)
		require.Equal(t, bgagent.Pending, get(t, m, late).Status, "the queue time to live is paused")
		require.Zero(t, m.Concurrency().Pools()[0].InUse, "a parked task holds no slot")
		for _, task := range ended(t, m, id, late) {
			require.Equal(t, bgagent.Completed, task.Status, task.Reason)
		}
		require.False(t, f.turns()[1].at.Before(began.Add(5*time.Hour)))
		require.Equal(t, id, f.turns()[1].prompt.Task, "the parked task comes before the task that never started")
	})
}

// In this test, the second task waits for a slot when the first task is parked.
func TestAParkedTaskGoesBeforeTasksThatHaveNotStarted(t *testing.T) {
	f := newLimited(func(n int, _ bgagent.Prompt) error {
		if n > 0 {
			return nil
		}
		time.Sleep(time.Second)
		return &bgagent.ProviderError{Kind: bgagent.ProviderRateLimited, Next: bgagent.NextRepeat}
	})
	bubble(t, f, limit(1), func(t *testing.T, m *bgagent.BackgroundManager) {
		first, second := launch(t, m, "first").ID, launch(t, m, "second").ID
		ended(t, m, first, second)
		var order []string
		for _, turn := range f.turns() {
			order = append(order, turn.prompt.Task)
		}
		require.Equal(t, []string{first, first, second}, order)
	})
}

func TestAWaitWithoutProgressEnds(t *testing.T) {
	f := newLimited(func(int, bgagent.Prompt) error {
		return &bgagent.ProviderError{Kind: bgagent.ProviderOverloaded, Status: 529, Next: bgagent.NextRepeat}
	})
	bubble(t, f, limit(1), func(t *testing.T, m *bgagent.BackgroundManager) {
		began := time.Now()
		task := ended(t, m, launch(t, m, "p").ID)[0]
		require.Equal(t, bgagent.CauseRateLimited, task.Cause)
		require.Contains(t, task.Reason, "overload, status 529")
		require.Equal(t, 30*time.Minute, time.Since(began))
	})
}

func TestAParkedTaskCanBeCancelled(t *testing.T) {
	f := newLimited(first(1, bgagent.ProviderError{Kind: bgagent.ProviderBroken, Next: bgagent.NextContinue}))
	bubble(t, f, limit(1), func(t *testing.T, m *bgagent.BackgroundManager) {
		id := launch(t, m, "p").ID
		synctest.Wait()
		_, err := m.Cancel(t.Context(), root, id, bgagent.CancelOptions{})
		require.NoError(t, err)
		require.Equal(t, bgagent.CauseCaller, get(t, m, id).Cause)
		time.Sleep(time.Minute)
		require.Len(t, f.turns(), 1)
	})
}

// In this test, a task has a slot. While its session is being created, its pool begins to cool
// down.
func TestASlotFromBeforeTheCoolDownIsGivenBack(t *testing.T) {
	f := newLimited(func(n int, _ bgagent.Prompt) error {
		if n > 0 {
			return nil
		}
		time.Sleep(time.Second)
		return &bgagent.ProviderError{Kind: bgagent.ProviderRateLimited, Next: bgagent.NextRepeat}
	})
	slow := map[int]time.Duration{1: 2 * time.Second} // creating the second session takes 2 s
	var mu sync.Mutex
	n := 0
	f.create = func(context.Context, bgagent.SessionSpec) (string, error) {
		mu.Lock()
		d := slow[n]
		n++
		mu.Unlock()
		time.Sleep(d)
		return f.nextID(), nil
	}
	bubble(t, f, limit(3), func(t *testing.T, m *bgagent.BackgroundManager) {
		began := time.Now()
		a := launch(t, m, "a").ID
		synctest.Wait()
		b := launch(t, m, "b").ID
		time.Sleep(3 * time.Second)
		held := get(t, m, b)
		require.Equal(t, bgagent.PhaseParked, held.Phase)
		require.NotEmpty(t, held.Session)
		require.Contains(t, held.Reason, "has not begun")
		for _, task := range ended(t, m, a, b) {
			require.Equal(t, bgagent.Completed, task.Status, task.Reason)
		}
		turns := f.turns()
		require.Len(t, turns, 3)
		for _, turn := range turns[1:] {
			require.False(t, turn.at.Before(began.Add(6*time.Second)))
		}
		require.Equal(t, a, turns[1].prompt.Task)
	})
}

func TestOtherPoolsAreNotHeldBack(t *testing.T) {
	for scope, want := range map[bgagent.ProviderScope]time.Duration{bgagent.ScopeModel: 0, bgagent.ScopeProvider: 5 * time.Second} {
		f := newLimited(first(1, bgagent.ProviderError{Kind: bgagent.ProviderRateLimited, Next: bgagent.NextRepeat, Scope: scope}))
		bubble(t, f, limit(1), func(t *testing.T, m *bgagent.BackgroundManager) {
			began := time.Now()
			start := func(model string) string {
				task, err := m.Launch(t.Context(), root, bgagent.LaunchInput{Agent: "worker", Prompt: "p", Model: model})
				require.NoError(t, err)
				synctest.Wait()
				return task.ID
			}
			ids := []string{start("p/a"), start("p/b"), start("q/a")}
			ended(t, m, ids...)
			at := map[string]time.Duration{}
			for _, turn := range f.turns() {
				at[turn.prompt.Task] = turn.at.Sub(began)
			}
			require.Zero(t, at[ids[2]], "another provider is not affected")
			require.GreaterOrEqual(t, at[ids[1]], want)
			require.Equal(t, want == 0, at[ids[1]] == 0, "the scope decides whether another model of the provider is affected")
		})
	}
}

func TestAForegroundCallDoesNotWaitForALongPause(t *testing.T) {
	for pause, goesOn := range map[time.Duration]bool{30 * time.Second: false, 2 * time.Minute: true} {
		synctest.Test(t, func(t *testing.T) {
			f := newLimited(func(n int, _ bgagent.Prompt) error {
				if n == 0 {
					return &bgagent.ProviderError{Kind: bgagent.ProviderRateLimited, RetryAt: time.Now().Add(pause), Next: bgagent.NextRepeat}
				}
				return nil
			})
			m := manage(t, f, limit(1))
			task, err := m.Run(t.Context(), root, bgagent.LaunchInput{Agent: "worker", Prompt: "p"})
			if !goesOn {
				require.NoError(t, err)
				require.Equal(t, bgagent.Completed, task.Status)
				return
			}
			require.ErrorIs(t, err, bgagent.ErrGoesOn)
			require.Equal(t, bgagent.PhaseParked, task.Phase)
			require.False(t, task.Foreground)
			by := bgagent.WithCaller(t.Context(), root)
			out, err := bgagent.BackgroundOutput(by, m, root, bgagent.BackgroundOutputArgs{TaskID: task.ID, Block: true})
			require.NoError(t, err)
			require.False(t, out.TimedOut)
			require.Contains(t, out.Text, "waits for the provider of its model until")
			require.Contains(t, out.Text, "| Phase | parked |")
			require.Equal(t, bgagent.Completed, ended(t, m, task.ID)[0].Status)
		})
	}
}

func TestTooManyTasksSaysUntilWhenTheyArePaused(t *testing.T) {
	f := newLimited(first(1, bgagent.ProviderError{Kind: bgagent.ProviderRateLimited, Next: bgagent.NextRepeat}))
	bubble(t, f, bgagent.Config{MaxTasksPerRoot: 1}, func(t *testing.T, m *bgagent.BackgroundManager) {
		id := launch(t, m, "p").ID
		synctest.Wait()
		_, err := m.Launch(t.Context(), root, bgagent.LaunchInput{Agent: "worker", Prompt: "p"})
		require.ErrorIs(t, err, bgagent.ErrTooManyTasks)
		require.ErrorContains(t, err, "1 wait for the provider of their model until "+get(t, m, id).Until.UTC().Format(time.RFC3339))
	})
}
