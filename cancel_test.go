package bgagent_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

func TestCancellingARunningTaskFreesItsSlot(t *testing.T) {
	bubble(t, working(time.Minute), limit(1), func(t *testing.T, m *bgagent.BackgroundManager) {
		a, b := launch(t, m, "a"), launch(t, m, "b")
		require.Equal(t, bgagent.Pending, b.Status)
		sourceAnswers()
		before, err := m.Cancel(t.Context(), root, a.ID, bgagent.CancelOptions{})
		require.NoError(t, err)
		require.Equal(t, bgagent.Running, before.Status)
		synctest.Wait()
		require.Equal(t, bgagent.Running, get(t, m, b.ID).Status)
		require.Equal(t, []bgagent.Status{bgagent.Cancelled, bgagent.Completed}, statuses(ended(t, m, a.ID, b.ID)))
	})
}

// Cancelling a pending task must not damage the line: the next task in line must not be
// lost, the next launch must start, and no waiting task may fail.
func TestCancellingInTheQueueConcernsNobodyElse(t *testing.T) {
	for name, cancel := range map[string]int{"head": 1, "middle": 2, "last": 3} {
		t.Run(name, func(t *testing.T) {
			bubble(t, working(time.Minute), limit(1), func(t *testing.T, m *bgagent.BackgroundManager) {
				var ids []string
				for i := range 4 {
					ids = append(ids, launch(t, m, fmt.Sprint(i)).ID)
				}
				_, err := m.Cancel(t.Context(), root, ids[cancel], bgagent.CancelOptions{})
				require.NoError(t, err)
				ids = append(ids, launch(t, m, "one more").ID)
				began := time.Now()
				for i, task := range ended(t, m, ids...) {
					want := bgagent.Completed
					if i == cancel {
						want = bgagent.Cancelled
						require.True(t, task.Started.IsZero(), "a task that was cancelled in the queue must not start")
					}
					require.Equal(t, want, task.Status, "task %d", i)
				}
				require.Equal(t, 4*time.Minute, time.Since(began))
			})
		})
	}
}

func TestAFailingAbortDoesNotPreventACancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newServer()
		tries := 0
		f.abort = func(_ context.Context, s string) error {
			tries++
			f.set(s, bgagent.SessionBusy)
			return errors.New("no")
		}
		m := manage(t, f, limit(1))
		id, session := turnOn(t, m, "a")
		b := launch(t, m, "b")
		_, err := m.Cancel(t.Context(), root, id, bgagent.CancelOptions{})
		require.NoError(t, err)
		require.Equal(t, bgagent.Cancelled, get(t, m, id).Status)
		time.Sleep(9 * time.Second)
		require.Equal(t, bgagent.Pending, get(t, m, b.ID).Status, "a session that is still running counts")
		time.Sleep(time.Second)
		synctest.Wait()
		require.Equal(t, bgagent.Running, get(t, m, b.ID).Status, "the slot must be free after the stopping deadline")
		require.Greater(t, tries, 2)
		require.False(t, get(t, m, id).Quiet)
		_, err = m.Resume(t.Context(), root, id, bgagent.ResumeInput{Prompt: "again"})
		require.ErrorIs(t, err, bgagent.ErrNotStopped)
		f.set(session, bgagent.SessionIdle)
		require.NoError(t, m.Quiet(t.Context(), id))
		_, err = m.Resume(t.Context(), root, id, bgagent.ResumeInput{Prompt: "again"})
		require.NoError(t, err)
	})
}

func TestCancelAllTakesDescendantsAndSparesTheForeground(t *testing.T) {
	bubble(t, working(time.Hour), bgagent.Config{MaxDepth: 3, Limits: bgagent.Limits{Default: 3}}, func(t *testing.T, m *bgagent.BackgroundManager) {
		a := launch(t, m, "a")
		synctest.Wait()
		child, err := m.Launch(t.Context(), bgagent.Caller{Session: get(t, m, a.ID).Session}, bgagent.LaunchInput{Agent: "worker", Prompt: "child"})
		require.NoError(t, err)
		done := make(chan bgagent.Task)
		go func() {
			task, _ := m.Run(context.Background(), root, bgagent.LaunchInput{Agent: "worker", Prompt: "fg"})
			done <- task
		}()
		synctest.Wait()
		queued := launch(t, m, "queued")
		other, err := m.Launch(t.Context(), bgagent.Caller{Session: "other"}, bgagent.LaunchInput{Agent: "worker", Prompt: "o"})
		require.NoError(t, err)
		out, err := m.CancelAll(t.Context(), root, bgagent.CancelOptions{Reason: "no longer needed"})
		require.NoError(t, err)
		require.Equal(t, []bgagent.Status{bgagent.Running, bgagent.Running, bgagent.Pending}, statuses(out))
		for _, id := range []string{a.ID, child.ID, queued.ID} {
			require.Equal(t, bgagent.Cancelled, get(t, m, id).Status)
		}
		require.Equal(t, bgagent.Running, func() bgagent.Status { synctest.Wait(); return get(t, m, other.ID).Status }())
		require.Equal(t, bgagent.Completed, (<-done).Status)
	})
}
