package bgagent_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

// What the hammer has found.

// delegates returns turns that launch a task for each of the prompts when the
// session's own prompt is "delegate", and last for the time.
func delegates(m **bgagent.BackgroundManager, d time.Duration, prompts ...string) func(context.Context, string, bgagent.Prompt, *bgagent.Reporter) (bgagent.TurnEnd, error) {
	return func(ctx context.Context, session string, p bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
		if p.Text == "delegate" {
			for _, prompt := range prompts {
				_, _ = (*m).Launch(ctx, bgagent.Caller{Session: session}, bgagent.LaunchInput{Agent: "worker", Prompt: prompt})
			}
		}
		return works(d)(ctx, session, p, r)
	}
}

// While a cascade ends the children, records expire and leave the lists that
// the cascade goes through.
func TestCascadeReachesEveryChildWhileRecordsExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m *bgagent.BackgroundManager
		f := &goRunner{}
		m = manage(t, f, bgagent.Config{MaxDepth: 2, RetainTasks: 1, Limits: bgagent.Limits{Default: 2}})
		f.run = delegates(&m, time.Hour, "a", "b", "c", "d")
		parent := launch(t, m, "delegate")
		synctest.Wait()
		require.Len(t, m.List(bgagent.Query{Parent: "ses_1"}), 4)
		_, err := m.Cancel(t.Context(), bgagent.Caller{}, parent.ID, bgagent.CancelOptions{})
		require.NoError(t, err)
		for _, task := range m.List(bgagent.Query{}) {
			require.True(t, task.Status.Terminal(), "%s is %s", task.Description, task.Status)
		}
		synctest.Wait()
	})
}

// Only tasks that are owed to it keep the node of a session that ends.
func TestCascadeSurvivesTheForgettingOfItsNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m *bgagent.BackgroundManager
		f := &goRunner{}
		m = manage(t, f, bgagent.Config{MaxDepth: 2, RetainTasks: 1, Limits: bgagent.Limits{Default: 5}, NoticeMaxWait: bgagent.Disabled})
		f.run = func(ctx context.Context, session string, p bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
			switch p.Text {
			case "delegate":
				return delegates(&m, time.Hour, "quick")(ctx, session, p, r)
			case "quick":
				return works(time.Second)(ctx, session, p, r)
			}
			return works(time.Millisecond)(ctx, session, p, r)
		}
		for range 3 {
			launch(t, m, "before")
		}
		parent := launch(t, m, "delegate")
		time.Sleep(time.Minute)
		_, err := m.Cancel(t.Context(), root, parent.ID, bgagent.CancelOptions{})
		require.NoError(t, err)
		synctest.Wait()
	})
}

// A delivery that learns that nobody knows the session must not try again at
// once, and for ever.
func TestNoticeForAScopeIsHeldAfterOneTry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls atomic.Int32
		m := manage(t, &goRunner{run: works(time.Second)}, bgagent.Config{
			Notify: func(context.Context, string, bgagent.Notice) error {
				if calls.Add(1) > 3 {
					select {}
				}
				return bgagent.ErrNoSession
			},
		})
		task := launch(t, m, "work")
		ended(t, m, task.ID)
		time.Sleep(time.Minute)
		require.EqualValues(t, 1, calls.Load())
		n, ok := m.TakeNotice("root")
		require.True(t, ok)
		require.Len(t, n.Items, 1)
	})
}

// A slot of a ConcurrencyManager that others share comes back even when Close
// was not given the time to see the session come to rest.
func TestCloseCutShortLeavesNoSlotTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cm, err := bgagent.NewConcurrencyManager(bgagent.Limits{Default: 1})
		require.NoError(t, err)
		f := newServer()
		f.abort = func(ctx context.Context, _ string) error { <-ctx.Done(); return ctx.Err() }
		m := manage(t, f, bgagent.Config{Concurrency: cm})
		launch(t, m, "work")
		time.Sleep(time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		var left *bgagent.CloseError
		require.ErrorAs(t, m.Close(ctx), &left)
		require.Len(t, left.NotStopped, 1)
		require.Empty(t, cm.Pools())
	})
}

// What is owed of an earlier attempt goes with the record of its task.
func TestOldDebtsExpireWithTheirTask(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := manage(t, &goRunner{run: works(time.Second)}, bgagent.Config{Retention: time.Minute})
		task := launch(t, m, "work")
		ended(t, m, task.ID)
		_, err := m.RunResume(t.Context(), root, task.ID, bgagent.ResumeInput{Prompt: "more"})
		require.NoError(t, err)
		time.Sleep(time.Hour)
		_, err = m.Get(task.ID)
		require.ErrorIs(t, err, bgagent.ErrExpired)
		_, owed := m.Outstanding("root")
		require.Zero(t, owed)
		require.NoError(t, m.Close(t.Context()))
	})
}

// The session of a start that took too long may come when even the record of
// its task has gone.
func TestLateSessionOfAnExpiredTaskIsAborted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &goRunner{run: works(time.Second)}
		f.create = func(context.Context, bgagent.SessionSpec) (string, error) {
			time.Sleep(time.Hour)
			return "ses_late", nil
		}
		m := manage(t, f, bgagent.Config{Retention: time.Minute})
		task := launch(t, m, "work")
		ended(t, m, task.ID)
		m.TakeNotice("root")
		time.Sleep(2 * time.Hour)
		_, err := m.Get(task.ID)
		require.ErrorIs(t, err, bgagent.ErrExpired)
		require.Equal(t, 1, f.aborted("ses_late"))
	})
}

// A session that did not stop is not prompted, even when the record of its task
// has gone meanwhile.
func TestExpiredTaskWhoseSessionDidNotStopIsNotResumed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stop := make(chan struct{})
		f := &goRunner{run: func(context.Context, string, bgagent.Prompt, *bgagent.Reporter) (bgagent.TurnEnd, error) {
			<-stop
			return bgagent.TurnEnd{}, errors.New("stopped")
		}}
		m := manage(t, f, bgagent.Config{Retention: time.Minute})
		task := launch(t, m, "work")
		synctest.Wait()
		_, err := m.Cancel(t.Context(), root, task.ID, bgagent.CancelOptions{})
		require.NoError(t, err)
		time.Sleep(time.Hour)
		_, err = m.Get(task.ID)
		require.ErrorIs(t, err, bgagent.ErrExpired)
		_, err = m.Resume(t.Context(), root, "ses_1", bgagent.ResumeInput{Prompt: "more"})
		require.ErrorIs(t, err, bgagent.ErrNotStopped)
		close(stop)
		synctest.Wait()
		f.run = works(time.Second)
		_, err = m.Resume(t.Context(), root, "ses_1", bgagent.ResumeInput{Prompt: "more"})
		require.NoError(t, err)
		ended(t, m, task.ID)
	})
}

// Run returns the attempt that it waited for, also when somebody was quick to
// resume the task.
func TestRunReturnsItsOwnAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := manage(t, &goRunner{run: works(time.Hour)}, bgagent.Config{})
		got := make(chan bgagent.Task)
		go func() {
			task, _ := m.Run(context.Background(), root, bgagent.LaunchInput{Agent: "worker", Prompt: "work"})
			got <- task
		}()
		synctest.Wait()
		id := m.List(bgagent.Query{})[0].ID
		// Both happen before Run has come to look.
		_, err := m.Cancel(t.Context(), bgagent.Caller{}, id, bgagent.CancelOptions{})
		require.NoError(t, err)
		_, err = m.Resume(t.Context(), bgagent.Caller{}, id, bgagent.ResumeInput{Prompt: "more"})
		require.NoError(t, err)
		task := <-got
		require.Equal(t, bgagent.Cancelled, task.Status)
		require.Equal(t, 1, task.Attempt)
	})
}

// orphan leaves a running task whose parent's record has expired, and that of
// the root session with it.
func orphan(t *testing.T, m *bgagent.BackgroundManager) bgagent.Task {
	parent := launch(t, m, "work")
	ended(t, m, parent.ID)
	orphan, err := m.Launch(t.Context(), bgagent.Caller{Session: "ses_1"}, bgagent.LaunchInput{Agent: "other", Prompt: "long"})
	require.NoError(t, err)
	m.TakeNotice("root")
	time.Sleep(5 * time.Minute)
	_, err = m.Get(parent.ID)
	require.ErrorIs(t, err, bgagent.ErrExpired)
	return orphan
}

// longOr returns turns of an hour for the prompt "long", and of the time for
// others.
func longOr(d time.Duration) func(context.Context, string, bgagent.Prompt, *bgagent.Reporter) (bgagent.TurnEnd, error) {
	return func(ctx context.Context, session string, p bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
		if p.Text == "long" {
			return works(time.Hour)(ctx, session, p, r)
		}
		return works(d)(ctx, session, p, r)
	}
}

// The invariants look at the counts and the indexes after each step.
func TestResumeUnderAnExpiredParentTellsTheRoot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := manage(t, &goRunner{run: longOr(time.Second)}, bgagent.Config{MaxDepth: 2, Retention: time.Minute, TimeToLive: 2 * time.Hour})
		task := orphan(t, m)
		_, err := m.Cancel(t.Context(), bgagent.Caller{}, task.ID, bgagent.CancelOptions{})
		require.NoError(t, err)
		task, err = m.Resume(t.Context(), bgagent.Caller{}, task.ID, bgagent.ResumeInput{Prompt: "more"})
		require.NoError(t, err)
		require.Equal(t, "root", task.Parent)
		ended(t, m, task.ID)
		n, ok := m.TakeNotice("root")
		require.True(t, ok)
		require.Equal(t, task.ID, n.Items[0].Task)
	})
}

// A task that comes back from its tombstone brings its children along.
func TestRevivedTaskCountsItsChildren(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := manage(t, &goRunner{run: longOr(time.Second)}, bgagent.Config{MaxDepth: 2, Retention: time.Minute, TimeToLive: 2 * time.Hour})
		orphan(t, m)
		task, err := m.Resume(t.Context(), bgagent.Caller{}, "ses_1", bgagent.ResumeInput{Prompt: "more"})
		require.NoError(t, err)
		live, _ := m.Outstanding("root")
		require.Equal(t, 2, live)
		_, err = m.Cancel(t.Context(), bgagent.Caller{}, task.ID, bgagent.CancelOptions{})
		require.NoError(t, err)
		live, _ = m.Outstanding("root")
		require.Zero(t, live)
	})
}

// The resume gives up what the earlier parent was owed, by which records may
// expire: not the one that is being resumed.
func TestResumeByAnotherDoesNotExpireTheTask(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m *bgagent.BackgroundManager
		f := &goRunner{}
		m = manage(t, f, bgagent.Config{
			MaxDepth: 2, RetainTasks: 1, Limits: bgagent.Limits{Default: 9},
			Notify: func(context.Context, string, bgagent.Notice) error { return bgagent.ErrBusy },
		})
		f.run = func(ctx context.Context, session string, p bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
			if p.Text == "delegate" {
				return delegates(&m, 2*time.Second, "child")(ctx, session, p, r)
			}
			return works(time.Second)(ctx, session, p, r)
		}
		for range 3 {
			launch(t, m, "work")
		}
		parent := launch(t, m, "delegate")
		time.Sleep(1500 * time.Millisecond)
		child := m.List(bgagent.Query{Parent: get(t, m, parent.ID).Session})[0]
		require.Equal(t, bgagent.Completed, child.Status)
		_, err := m.Resume(t.Context(), root, child.ID, bgagent.ResumeInput{Prompt: "more"})
		require.NoError(t, err)
		require.Equal(t, 2, get(t, m, child.ID).Attempt)
		synctest.Wait()
	})
}

// What a task stands in line to be told may be read, and expire, before it gets
// its slot.
func TestTurnWhoseNoticeHasExpired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m *bgagent.BackgroundManager
		f := &goRunner{}
		m = manage(t, f, bgagent.Config{MaxDepth: 2, Retention: time.Second, Limits: bgagent.Limits{Default: 1}})
		f.run = func(ctx context.Context, session string, p bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
			switch p.Text {
			case "delegate":
				return delegates(&m, time.Second, "child")(ctx, session, p, r)
			case "child":
				_, _ = m.Launch(ctx, root, bgagent.LaunchInput{Agent: "worker", Prompt: "long"})
				return works(time.Second)(ctx, session, p, r)
			}
			return longOr(time.Second)(ctx, session, p, r)
		}
		parent := launch(t, m, "delegate")
		time.Sleep(5 * time.Second)
		child := m.List(bgagent.Query{Parent: "ses_1"})[0]
		_, err := m.Read(bgagent.Caller{Session: "ses_1"}, child.ID)
		require.NoError(t, err)
		time.Sleep(10 * time.Second)
		_, err = m.Get(child.ID)
		require.ErrorIs(t, err, bgagent.ErrExpired)
		require.Equal(t, bgagent.Completed, ended(t, m, parent.ID)[0].Status)
	})
}

// A session whose task has expired can be resumed by its id, so it is in use.
func TestSessionOfAnExpiredTaskIsInUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &goRunner{run: works(time.Second)}
		f.create = func(context.Context, bgagent.SessionSpec) (string, error) { return "ses_same", nil }
		m := manage(t, f, bgagent.Config{Retention: time.Minute})
		task := launch(t, m, "work")
		ended(t, m, task.ID)
		m.TakeNotice("root")
		time.Sleep(time.Hour)
		other := launch(t, m, "other")
		require.Equal(t, bgagent.CauseStartFailed, ended(t, m, other.ID)[0].Cause)
		again, err := m.Resume(t.Context(), root, "ses_same", bgagent.ResumeInput{Prompt: "more"})
		require.NoError(t, err)
		require.Equal(t, task.ID, again.ID)
	})
}

// What is left of a task under one that was cancelled is told to the root when
// the host resumes it, as the task itself would be.
func TestTombstoneUnderACancelledParentTellsTheRoot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m *bgagent.BackgroundManager
		f := &goRunner{}
		m = manage(t, f, bgagent.Config{MaxDepth: 2, Retention: time.Minute, TimeToLive: 2 * time.Hour})
		f.run = func(ctx context.Context, session string, p bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
			if p.Text == "delegate" {
				return delegates(&m, time.Hour, "child")(ctx, session, p, r)
			}
			return works(time.Second)(ctx, session, p, r)
		}
		parent := launch(t, m, "delegate")
		time.Sleep(2 * time.Second)
		child := m.List(bgagent.Query{Parent: "ses_1"})[0]
		_, err := m.Read(bgagent.Caller{Session: "ses_1"}, child.ID)
		require.NoError(t, err)
		time.Sleep(5 * time.Minute)
		_, err = m.Cancel(t.Context(), bgagent.Caller{}, parent.ID, bgagent.CancelOptions{})
		require.NoError(t, err)
		again, err := m.Resume(t.Context(), bgagent.Caller{}, child.Session, bgagent.ResumeInput{Prompt: "more"})
		require.NoError(t, err)
		require.Equal(t, "root", again.Parent)
		ended(t, m, again.ID)
	})
}

// A start that hangs beyond the stopping deadline has no session yet that could
// be marked; a resume would wait for it without an end.
func TestResumeDuringAHangingStartIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &goRunner{run: works(time.Second)}
		f.create = func(context.Context, bgagent.SessionSpec) (string, error) {
			time.Sleep(time.Hour)
			return f.nextID(), nil
		}
		m := manage(t, f, bgagent.Config{})
		task := launch(t, m, "work")
		time.Sleep(time.Minute)
		require.Equal(t, bgagent.Failed, get(t, m, task.ID).Status)
		_, err := m.Resume(t.Context(), root, task.ID, bgagent.ResumeInput{Prompt: "more"})
		require.ErrorIs(t, err, bgagent.ErrNotStopped)
		time.Sleep(time.Hour)
		_, err = m.Resume(t.Context(), root, task.ID, bgagent.ResumeInput{Prompt: "more"})
		require.NoError(t, err)
		ended(t, m, task.ID)
	})
}

// Giving up one notice may expire the record of another that is owed to the same
// parent.
func TestGivingUpManyNoticesUnderALimitOfRecords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := manage(t, &goRunner{run: works(time.Second)}, bgagent.Config{RetainTasks: 1, Limits: bgagent.Limits{Default: 9}, Notify: func(context.Context, string, bgagent.Notice) error { return bgagent.ErrBusy }})
		var ids []string
		for i := range 5 {
			ids = append(ids, launch(t, m, fmt.Sprint(i)).ID)
		}
		ended(t, m, ids...)
		m.SessionDeleted("root")
		require.LessOrEqual(t, len(m.List(bgagent.Query{})), 1)
		_, owed := m.Outstanding("root")
		require.Zero(t, owed)
	})
}

// A task whose parents have expired still belongs to its root: it counts there,
// is listed there and is cancelled from there.
func TestTaskUnderExpiredOnesBelongsToItsRoot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := manage(t, &goRunner{run: longOr(time.Second)}, bgagent.Config{MaxDepth: 3, Retention: time.Minute, TimeToLive: 2 * time.Hour, Wake: bgagent.WakeNever})
		launch(t, m, "long")
		synctest.Wait() // its session is ses_1
		by := root
		for _, prompt := range []string{"first", "second", "long"} {
			task, err := m.Launch(t.Context(), by, bgagent.LaunchInput{Agent: "worker", Prompt: prompt})
			require.NoError(t, err)
			synctest.Wait()
			by = bgagent.Caller{Session: get(t, m, task.ID).Session}
			if prompt != "long" {
				ended(t, m, task.ID)
			}
		}
		for _, session := range []string{"ses_2", "root"} { // what was told may go
			m.TakeNotice(session)
			time.Sleep(2 * time.Minute)
		}
		require.Len(t, m.List(bgagent.Query{}), 2, "the ones above have expired")
		require.Len(t, m.List(bgagent.Query{Under: "root"}), 2)
		live, _ := m.Outstanding("root")
		require.Equal(t, 2, live)
		_, err := m.Launch(t.Context(), by, bgagent.LaunchInput{Agent: "worker", Prompt: "deeper"})
		require.ErrorIs(t, err, bgagent.ErrDepth)
		deeper, err := m.Launch(t.Context(), bgagent.Caller{Session: "ses_2"}, bgagent.LaunchInput{Agent: "worker", Prompt: "another second"})
		require.NoError(t, err, "the session of a completed task may delegate although its record has gone")
		require.Equal(t, 2, deeper.Depth)
		require.Equal(t, "root", deeper.Root)
		cancelled, err := m.CancelAll(t.Context(), root, bgagent.CancelOptions{})
		require.NoError(t, err)
		require.Len(t, cancelled, 3)
	})
}
