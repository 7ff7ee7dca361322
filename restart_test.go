package bgagent_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

func TestAnInterruptedTurnIsContinuedByAnotherAttempt(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		first := launch(t, w.begin(), "explore")
		time.Sleep(10 * time.Second)
		w.crash()

		m := w.begin()
		m.Start()
		task := ended(t, m, first.ID)[0]
		require.Equal(t, bgagent.Completed, task.Status, task.Reason)
		require.Equal(t, 2, task.Attempt)
		require.Len(t, task.Attempts, 1)
		require.Equal(t, bgagent.CauseSuperseded, task.Attempts[0].Cause)
		require.Contains(t, task.Result, "The request was:\n\nexplore")
		require.Equal(t, []string{first.ID + ".1.1", first.ID + ".2.1"}, w.prompts(task.Session))
		time.Sleep(time.Second)
		require.Equal(t, map[string][]bgagent.Status{first.ID: {bgagent.Completed}}, w.told.told())
	})
}

func TestAPendingTaskStaysInLineOverARestart(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.cfg = limit(1)
		m := w.begin()
		var ids []string
		for i := range 4 {
			ids = append(ids, launch(t, m, fmt.Sprint("task ", i)).ID)
			time.Sleep(time.Second)
		}
		w.crash()
		m = w.begin()
		var started time.Time
		for i, task := range ended(t, m, ids...) {
			require.Equal(t, bgagent.Completed, task.Status, task.Reason)
			require.Greater(t, task.Started, started, "task %d", i)
			started = task.Started
			if i > 0 {
				require.Equal(t, 1, task.Attempt)
				require.Equal(t, "answer to task "+strconv.Itoa(i), task.Result)
			}
		}
	})
}

func TestAnAnswerThatNobodyHeardIsTheResult(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.answer = bgagent.PromptAnswered
		first := launch(t, w.begin(), "explore")
		time.Sleep(10 * time.Second)
		w.crash()
		m := w.begin()
		task := ended(t, m, first.ID)[0]
		require.Equal(t, bgagent.Completed, task.Status, task.Reason)
		require.Equal(t, "found", task.Result)
		require.Equal(t, 1, task.Attempt)
		require.Len(t, w.prompts(task.Session), 1)
	})
}

func TestAPromptThatASessionLacksIsHandedOverAgainUnderItsID(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		first := launch(t, w.begin(), "explore")
		time.Sleep(10 * time.Second)
		w.crash()
		w.answer = bgagent.PromptMissing
		m := w.begin()
		task := ended(t, m, first.ID)[0]
		require.Equal(t, bgagent.Completed, task.Status, task.Reason)
		require.Equal(t, 1, task.Attempt)
		require.Equal(t, []string{first.ID + ".1.1", first.ID + ".1.1"}, w.prompts(task.Session))
	})
}

func TestWhatHasEndedBeforeARestartIsToldAfterIt(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.cfg.NoticeWindow = time.Hour
		m := w.begin()
		first := launch(t, m, "explore")
		task := ended(t, m, first.ID)[0]
		require.Equal(t, bgagent.NoticeOwed, task.Notice)
		w.crash()
		w.cfg.NoticeWindow = 0
		m = w.begin()
		time.Sleep(time.Minute)
		require.Empty(t, w.told.all(), "no notice may be delivered before Start")
		require.Equal(t, "answer to explore", get(t, m, first.ID).Result)
		m.Start()
		time.Sleep(time.Minute)
		require.Equal(t, map[string][]bgagent.Status{first.ID: {bgagent.Completed}}, w.told.told())
	})
}

func TestACancelSurvivesTheProcess(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m := w.begin()
		first := launch(t, m, "explore")
		time.Sleep(10 * time.Second)
		_, err := m.Cancel(t.Context(), root, first.ID, bgagent.CancelOptions{})
		require.NoError(t, err)
		time.Sleep(10 * time.Second)
		w.crash()
		m = w.begin()
		m.Start()
		time.Sleep(time.Hour)
		require.Equal(t, []string{first.ID + ".1.1"}, w.prompts("ses_1"))
	})
}

func TestATurnThatIsInterruptedTooOftenIsNotContinued(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		first := launch(t, w.begin(), "explore")
		for range 3 { // each crash comes before the turn has lasted for carefulPause
			time.Sleep(9 * time.Second)
			w.crash()
			w.begin().Start()
		}
		time.Sleep(9 * time.Second)
		require.Equal(t, bgagent.Running, get(t, w.life.m, first.ID).Status)
		w.crash()
		task := ended(t, w.begin(), first.ID)[0]
		require.Equal(t, bgagent.CauseInterrupted, task.Cause)
		require.Len(t, w.prompts("ses_1"), 4)
	})
}

func TestOnlyInterruptionsSinceTheLastProgressCount(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m := w.begin()
		id := launch(t, m, "explore").ID
		for range 3 {
			for range 3 { // one more crash would be too many
				time.Sleep(9 * time.Second)
				w.crash()
				m = w.begin()
				m.Start()
			}
			task := ended(t, m, id)[0]
			require.Equal(t, bgagent.Completed, task.Status, task.Reason)
			_, err := m.Resume(t.Context(), root, id, bgagent.ResumeInput{Prompt: "go on"})
			require.NoError(t, err)
		}
	})
}

// The method "broken" reports the first violation of an invariant as a test failure, and ignores
// later ones.
func (w *world) broken(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.failed {
		w.failed = true
		w.t.Error(err)
	}
}

func TestASuspendedManagerIsContinuedByTheNextOne(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.cfg = limit(1)
		m := w.begin()
		running, pending := launch(t, m, "first"), launch(t, m, "second")
		var waited error
		go func() { _, waited = m.Wait(t.Context(), bgagent.Caller{}, bgagent.WaitAll, running.ID) }()
		time.Sleep(10 * time.Second)
		require.NoError(t, m.Suspend(t.Context()))
		synctest.Wait()
		require.ErrorIs(t, waited, bgagent.ErrSuspended)
		_, err := m.Launch(t.Context(), root, bgagent.LaunchInput{Agent: "worker", Prompt: "third"})
		require.ErrorIs(t, err, bgagent.ErrClosed)
		require.NoError(t, m.Close(t.Context()))

		for range 5 { // a suspension does not count as a crash
			m = w.begin()
			m.Start()
			time.Sleep(10 * time.Second)
			require.NoError(t, m.Suspend(t.Context()))
		}
		m = w.begin()
		tasks := ended(t, m, running.ID, pending.ID)
		require.Equal(t, bgagent.Completed, tasks[0].Status, tasks[0].Reason)
		require.Equal(t, 7, tasks[0].Attempt)
		require.Equal(t, "answer to second", tasks[1].Result)
	})
}

func TestTurnsCanEndUntilTheDeadlineOfASuspension(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.cfg = limit(1)
		m := w.begin()
		running, pending := launch(t, m, "first"), launch(t, m, "second")
		time.Sleep(time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		defer cancel()
		require.NoError(t, m.Suspend(ctx))
		require.Empty(t, w.told.all(), "no delivery may begin")
		m = w.begin()
		require.Equal(t, "answer to first", get(t, m, running.ID).Result)
		require.Equal(t, bgagent.Pending, get(t, m, pending.ID).Status)
		ended(t, m, pending.ID)
		require.Len(t, w.sessions, 2)
	})
}

func TestATaskThatMemoryHasForgottenIsReadAndResumedFromTheStore(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m := w.begin()
		var ids []string
		for i := range 5 {
			ids = append(ids, launch(t, m, fmt.Sprint("task ", i)).ID)
			time.Sleep(time.Second)
		}
		ended(t, m, ids...)
		time.Sleep(time.Minute) // during this time, the ends are reported to the parent
		require.NoError(t, m.Close(t.Context()))

		m = w.begin()
		require.Empty(t, m.List(bgagent.Query{}))
		page, err := m.History(t.Context(), bgagent.Query{Limit: 3}, "")
		require.NoError(t, err)
		require.Len(t, page, 3)
		require.Equal(t, ids[4], page[0].ID)
		rest, err := m.History(t.Context(), bgagent.Query{}, page[2].ID)
		require.NoError(t, err)
		require.Len(t, rest, 2)
		require.Equal(t, ids[0], rest[1].ID)
		require.Equal(t, bgagent.Completed, rest[1].Status)
		require.Equal(t, time.Minute, rest[1].Duration(time.Now()))

		task, err := m.Read(root, ids[0])
		require.NoError(t, err)
		require.Equal(t, "answer to task 0", task.Result)
		_, err = m.Read(bgagent.Caller{Session: "stranger"}, ids[1])
		require.ErrorIs(t, err, bgagent.ErrNotDescendant)

		again, err := m.Resume(t.Context(), root, ids[2], bgagent.ResumeInput{Prompt: "once more"})
		require.NoError(t, err)
		require.Equal(t, 2, again.Attempt)
		require.Equal(t, "answer to once more", ended(t, m, ids[2])[0].Result)
	})
}

func TestTheToolsFindATaskThatMemoryHasForgotten(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m := w.begin()
		one, two := launch(t, m, "task one").ID, launch(t, m, "task two").ID
		ended(t, m, one, two)
		time.Sleep(time.Minute) // during this time, the ends are reported to the parent
		require.NoError(t, m.Close(t.Context()))

		m = w.begin()
		require.Empty(t, m.List(bgagent.Query{}))
		shown, err := bgagent.BackgroundOutput(t.Context(), m, root, bgagent.BackgroundOutputArgs{TaskID: one})
		require.NoError(t, err)
		require.Contains(t, shown.Text, "answer to task one")
		cancelled, err := bgagent.BackgroundCancel(t.Context(), m, root, bgagent.BackgroundCancelArgs{TaskID: two})
		require.NoError(t, err)
		require.Contains(t, cancelled.Text, "completed", "the task must not be reported as unknown")
		for _, args := range []bgagent.BackgroundOutputArgs{{TaskID: one}, {TaskID: "bg_0000000000000000"}} {
			other, err := bgagent.BackgroundOutput(t.Context(), m, bgagent.Caller{Session: "stranger"}, args)
			require.NoError(t, err)
			require.True(t, other.IsError)
			require.NotContains(t, other.Text, "answer")
		}
	})
}

func TestAfterALongTimeNothingBeginsByItself(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.cfg = limit(1)
		m := w.begin()
		running, pending := launch(t, m, "first"), launch(t, m, "second")
		time.Sleep(10 * time.Second)
		w.crash()
		time.Sleep(2 * time.Hour)
		m = w.begin()
		tasks := ended(t, m, running.ID, pending.ID)
		for _, task := range tasks {
			require.Equal(t, bgagent.CauseInterrupted, task.Cause)
			require.Regexp(t, "^the program was not running for .*; Config.RestartWithin decides how long is too long$", task.Reason)
		}
		require.Len(t, w.prompts(tasks[0].Session), 1)
		_, err := m.Resume(t.Context(), root, pending.ID, bgagent.ResumeInput{Prompt: "go on"})
		require.NoError(t, err)
		require.Equal(t, "answer to second\n\ngo on", ended(t, m, pending.ID)[0].Result)
	})
}

func TestAManagerThatInterruptsBeginsNothingOfTheEarlierProcess(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.cfg = limit(1)
		m := w.begin()
		running := launch(t, m, "first")
		var pending []string
		for i := range 3 {
			pending = append(pending, launch(t, m, fmt.Sprint("task ", i)).ID)
		}
		synctest.Wait()
		w.crash() // according to the clock, no time passes between the crash and the next process, as if the clock had been set back
		w.cfg.InterruptRestored = true
		m = w.begin()
		_, err := m.Cancel(t.Context(), bgagent.Caller{}, pending[0], bgagent.CancelOptions{}) // this call begins the recovery
		require.ErrorIs(t, err, bgagent.ErrAlreadyEnded)
		for _, task := range ended(t, m, append(pending, running.ID)...) {
			require.Equal(t, bgagent.CauseInterrupted, task.Cause)
			require.Contains(t, task.Reason, "continues no tasks")
		}
		require.Len(t, w.prompts("ses_1"), 1)
		require.Empty(t, w.prompts("ses_2"))
		_, err = m.Resume(t.Context(), root, pending[2], bgagent.ResumeInput{Prompt: "go on"})
		require.NoError(t, err)
		require.Equal(t, "answer to task 2\n\ngo on", ended(t, m, pending[2])[0].Result)
	})
}

func TestAnAnswerIsReadHoweverOldItIs(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		first := launch(t, w.begin(), "explore")
		time.Sleep(10 * time.Second)
		w.crash()
		time.Sleep(3 * time.Hour)
		w.answer = bgagent.PromptAnswered
		require.Equal(t, "found", ended(t, w.begin(), first.ID)[0].Result)
	})
}

type tenantKey struct{}

func TestTheContextOfATaskIsGivenBack(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m := w.begin()
		good, bad := launch(t, m, "good"), launch(t, m, "bad")
		time.Sleep(10 * time.Second)
		w.crash()
		w.cfg.RestoreContext = func(ctx context.Context, task bgagent.Task) (context.Context, error) {
			if task.ID == bad.ID {
				return nil, errors.New("the tenant is gone")
			}
			return context.WithValue(ctx, tenantKey{}, "acme"), nil
		}
		w.seen = func(ctx context.Context) { require.Equal(t, "acme", ctx.Value(tenantKey{})) }
		m = w.begin()
		tasks := ended(t, m, good.ID, bad.ID)
		require.Equal(t, bgagent.Completed, tasks[0].Status, tasks[0].Reason)
		require.Equal(t, "restoring its context: the tenant is gone", tasks[1].Reason)
	})
}

func TestAContextThatIsRestoredSlowlyAndFailsLeavesNoSlot(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.cfg.Limits = bgagent.Limits{Default: 3}
		m := w.begin()
		var ids []string
		for range 5 {
			ids = append(ids, launch(t, m, "p").ID)
		}
		time.Sleep(10 * time.Second)
		w.crash()
		w.cfg.RestoreContext = func(ctx context.Context, _ bgagent.Task) (context.Context, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		m = w.begin()
		for _, task := range ended(t, m, ids...) {
			require.Equal(t, bgagent.CauseInterrupted, task.Cause)
			require.Contains(t, task.Reason, "restoring its context")
			require.NoError(t, m.Quiet(t.Context(), task.ID))
		}
		require.Len(t, w.restored, 3, "the processes that the turns left behind must be terminated")
		sourceAnswers()
		for _, pool := range m.Concurrency().Pools() {
			require.Zero(t, pool.InUse, pool.Name)
		}
	})
}
