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

func TestAParkedTaskIsParkedAgainByTheNextProcess(t *testing.T) {
	for _, next := range []bgagent.ProviderNextStep{bgagent.NextContinue, bgagent.NextRepeat, bgagent.NextNewSession} {
		for _, suspends := range []bool{false, true} {
			t.Run(fmt.Sprint(next, " ", suspends), func(t *testing.T) {
				inWorld(t, func(t *testing.T, w *world) {
					w.cfg = limit(1)
					var refused bgagent.Prompt
					reset := time.Now().Add(40 * time.Minute)
					w.refuse = func(_ string, p bgagent.Prompt) error {
						if refused = p; time.Now().Before(reset) {
							return &bgagent.ProviderError{Kind: bgagent.ProviderQuota, RetryAt: reset, Next: next, Message: "used up"}
						}
						return nil
					}
					m := w.begin()
					id := launch(t, m, "first").ID
					synctest.Wait()
					other := launch(t, m, "second").ID
					original := refused.ID
					parked := get(t, m, id)
					require.Equal(t, bgagent.PhaseParked, parked.Phase)
					time.Sleep(time.Minute)
					if suspends {
						require.NoError(t, m.Suspend(context.Background()))
					} else {
						w.crash()
					}
					time.Sleep(10 * time.Minute)

					m = w.begin()
					m.Start()
					synctest.Wait()
					again := get(t, m, id)
					require.Equal(t, bgagent.PhaseParked, again.Phase)
					require.Equal(t, parked.Reason, again.Reason)
					require.False(t, again.Until.Before(reset))
					tasks := ended(t, m, id, other)
					require.Equal(t, []bgagent.Status{bgagent.Completed, bgagent.Completed}, statuses(tasks), tasks[0].Reason)
					require.False(t, time.Now().Before(reset))
					w.mu.Lock()
					defer w.mu.Unlock()
					first := w.sessions[tasks[0].Session][0].prompt
					if next == bgagent.NextContinue {
						require.Equal(t, original, first.Unanswered)
					} else {
						require.Equal(t, "first", first.Text)
						require.Empty(t, first.Unanswered)
					}
					require.Equal(t, next == bgagent.NextNewSession, tasks[0].Session != parked.Session)
				})
			})
		}
	}
}

// In this test, the process ends while the session continues after a refusal.
func TestACrashInTheTurnAfterARefusalKeepsThePromptThatWasNotAnswered(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		refusals := 0
		w.refuse = func(string, bgagent.Prompt) error {
			if refusals++; refusals == 1 {
				return &bgagent.ProviderError{Kind: bgagent.ProviderRateLimited, Next: bgagent.NextContinue}
			}
			return nil
		}
		m := w.begin()
		task := launch(t, m, "first")
		time.Sleep(30 * time.Second)
		require.Equal(t, bgagent.PhaseTurn, get(t, m, task.ID).Phase)
		w.crash()
		w.answer = bgagent.PromptMissing
		m = w.begin()
		require.Equal(t, bgagent.Completed, ended(t, m, task.ID)[0].Status)
		require.Equal(t, task.ID+".1.1", w.last.Unanswered)
		require.Equal(t, task.ID+".1.1", w.restored[0].Last.Unanswered)
	})
}

// In this test, the process ends during a cool-down that is over when the next process begins.
func TestParkedTasksDoNotAllBeginAfterARestart(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.cfg = limit(5)
		var mu sync.Mutex
		var turns []time.Time
		down, tries := true, 4
		w.refuse = func(string, bgagent.Prompt) error {
			mu.Lock()
			defer mu.Unlock()
			if turns = append(turns, time.Now()); down {
				mu.Unlock()
				time.Sleep(time.Second) // the first turns run at the same time
				mu.Lock()
				return &bgagent.ProviderError{Kind: bgagent.ProviderRateLimited, Scope: bgagent.ScopeProvider, Tries: tries, Next: bgagent.NextRepeat}
			}
			return nil
		}
		count := func() int {
			mu.Lock()
			defer mu.Unlock()
			return len(turns)
		}
		m := w.begin()
		var ids []string
		for i := range 5 {
			task, err := m.Launch(t.Context(), root, bgagent.LaunchInput{Agent: "worker", Prompt: fmt.Sprint(i), Model: fmt.Sprintf("p/%d", i%2)})
			require.NoError(t, err)
			ids = append(ids, task.ID)
		}
		time.Sleep(10 * time.Second)
		require.Equal(t, 5, count())
		w.crash()
		time.Sleep(10 * time.Minute)
		mu.Lock()
		tries = 1
		mu.Unlock()

		m = w.begin()
		began := time.Now()
		m.Start()
		time.Sleep(4 * time.Second)
		require.Equal(t, 5, count(), "no turn may begin immediately")
		time.Sleep(3 * time.Second)
		require.Equal(t, 6, count(), "only one turn with the provider begins")
		time.Sleep(70 * time.Second)
		require.Equal(t, 6, count(), "the pause must depend on the number of earlier refusals")
		mu.Lock()
		down = false
		mu.Unlock()
		for _, task := range ended(t, m, ids...) {
			require.Equal(t, bgagent.Completed, task.Status, task.Reason)
		}
		require.Less(t, time.Since(began), 10*time.Minute)
	})
}

// In this test, the process ends while a refused task is getting a new session. If the manager
// reused the old session's key, the client could return the old session.
func TestACrashBeforeTheNewSessionKeepsItsKey(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		refusals := 0
		w.refuse = func(string, bgagent.Prompt) error {
			if refusals++; refusals == 1 {
				w.start = 20 * time.Second
				return &bgagent.ProviderError{Kind: bgagent.ProviderRateLimited, Next: bgagent.NextNewSession}
			}
			return nil
		}
		m := w.begin()
		task := launch(t, m, "first")
		time.Sleep(20 * time.Second)
		require.Equal(t, bgagent.PhaseStarting, get(t, m, task.ID).Phase)
		w.crash()
		m = w.begin()
		require.Equal(t, bgagent.Completed, ended(t, m, task.ID)[0].Status)
		require.Equal(t, []string{task.ID + ".1", task.ID + ".2", task.ID + ".2"}, w.keys)
	})
}

// In this test, another cool-down begins while a refused task is getting its new session.
func TestANewSessionThatGotNoPromptIsUsed(t *testing.T) {
	f := newLimited(first(2, bgagent.ProviderError{Kind: bgagent.ProviderRateLimited, Next: bgagent.NextNewSession}))
	created := 0
	f.create = func(context.Context, bgagent.SessionSpec) (string, error) {
		if created++; created == 3 { // creating the first new session takes a long time, during which another task of the pool is refused
			time.Sleep(10 * time.Second)
		}
		return f.nextID(), nil
	}
	other := 0
	refuse := f.refuse
	f.refuse = func(n int, p bgagent.Prompt) error {
		if p.Text == "other" {
			if other++; other == 1 {
				time.Sleep(8 * time.Second)
				return &bgagent.ProviderError{Kind: bgagent.ProviderRateLimited, RetryAt: time.Now().Add(20 * time.Second), Next: bgagent.NextContinue}
			}
			return nil
		}
		if n > 1 {
			return nil
		}
		return refuse(n, p)
	}
	bubble(t, f, limit(2), func(t *testing.T, m *bgagent.BackgroundManager) {
		slow := launch(t, m, "other").ID
		synctest.Wait()
		id := launch(t, m, "p").ID
		tasks := ended(t, m, id, slow)
		require.Equal(t, []bgagent.Status{bgagent.Completed, bgagent.Completed}, statuses(tasks))
		require.Equal(t, 3, created, "only one new session may be created")
		require.Equal(t, "ses_3", tasks[0].Session)
	})
}
