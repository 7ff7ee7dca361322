package bgagent_test

import (
	"context"
	"fmt"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

// Drain must not wait forever when the manager is closed.
func TestDrainReturnsWhenTheManagerIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hang := make(chan struct{})
		f := &goRunner{}
		f.run = func(context.Context, string, bgagent.Prompt, *bgagent.Reporter) (bgagent.TurnEnd, error) {
			<-hang // the turn ignores its context
			return bgagent.TurnEnd{}, nil
		}
		m := manage(t, f, bgagent.Config{})
		launch(t, m, "hangs")
		synctest.Wait()
		drained := make(chan error, 1)
		go func() { drained <- m.Drain(context.Background()) }()
		synctest.Wait()
		require.Error(t, m.Close(t.Context()))
		time.Sleep(time.Minute)
		synctest.Wait()
		select {
		case err := <-drained:
			require.ErrorIs(t, err, bgagent.ErrClosed)
		default:
			t.Error("Drain waits forever")
		}
		close(hang)
		synctest.Wait()
	})
}

// A session that never stops must not block Drain.
func TestDrainDoesNotWaitForASessionThatDoesNotStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hang := make(chan struct{})
		f := &goRunner{}
		f.run = func(context.Context, string, bgagent.Prompt, *bgagent.Reporter) (bgagent.TurnEnd, error) {
			<-hang
			return bgagent.TurnEnd{}, nil
		}
		m := manage(t, f, bgagent.Config{})
		a := launch(t, m, "hangs")
		synctest.Wait()
		_, err := m.Cancel(t.Context(), root, a.ID, bgagent.CancelOptions{})
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		require.NoError(t, m.Drain(ctx))
		close(hang)
		synctest.Wait()
	})
}

// A host deletes a task's directory after Quiet has returned nil. Therefore, Quiet must not return
// nil while the session might still be running.
func TestQuietIsNotSaidOfASessionThatStillRunsAfterItsRecordHasExpired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hang := make(chan struct{})
		f := &goRunner{}
		f.run = func(context.Context, string, bgagent.Prompt, *bgagent.Reporter) (bgagent.TurnEnd, error) {
			<-hang
			return bgagent.TurnEnd{}, nil
		}
		m := manage(t, f, bgagent.Config{Retention: time.Minute})
		a := launch(t, m, "hangs")
		synctest.Wait()
		_, err := m.Cancel(t.Context(), root, a.ID, bgagent.CancelOptions{})
		require.NoError(t, err)
		early := make(chan error, 1)
		go func() { early <- m.Quiet(context.Background(), a.ID) }()
		time.Sleep(time.Hour)
		synctest.Wait()
		_, err = m.Get(a.ID)
		require.ErrorIs(t, err, bgagent.ErrExpired)
		require.ErrorIs(t, m.Quiet(t.Context(), a.ID), bgagent.ErrNotStopped)
		select {
		case err := <-early:
			require.ErrorIs(t, err, bgagent.ErrNotStopped)
		default:
			t.Error("a caller that began to wait before the record expired waits forever")
		}
		close(hang)
		synctest.Wait()
		require.NoError(t, m.Quiet(t.Context(), a.ID))
	})
}

func TestCloseNamesWhatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		f := &goRunner{run: func(context.Context, string, bgagent.Prompt, *bgagent.Reporter) (bgagent.TurnEnd, error) {
			<-release // the turn ignores its context
			return bgagent.TurnEnd{}, nil
		}}
		m := manage(t, f, limit(1))
		task := launch(t, m, "p")
		synctest.Wait()
		began := time.Now()
		errs := make(chan error, 3)
		for range 3 {
			go func() { errs <- m.Close(context.Background()) }()
		}
		for range 3 {
			var closed *bgagent.CloseError
			require.ErrorAs(t, <-errs, &closed)
			require.Equal(t, []string{task.ID}, closed.NotStopped)
			require.Contains(t, closed.Hung, "CreateSession, RunTurn or StartTurn")
		}
		require.LessOrEqual(t, time.Since(began), 21*time.Second)
		close(release)
		synctest.Wait()
	})
}

func TestDrainLetsEverythingEndAndBeTold(t *testing.T) {
	var box inbox
	bubble(t, working(time.Minute), bgagent.Config{Limits: bgagent.Limits{Default: 1}, Notify: box.notify}, func(t *testing.T, m *bgagent.BackgroundManager) {
		launch(t, m, "a")
		launch(t, m, "b")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, m.Drain(ctx), context.DeadlineExceeded)
		_, err := m.Launch(t.Context(), root, bgagent.LaunchInput{Agent: "a", Prompt: "late"})
		require.ErrorIs(t, err, bgagent.ErrClosed)
		require.NoError(t, m.Drain(t.Context()))
		require.Len(t, box.told(), 2)
		require.NoError(t, m.Close(t.Context()))
	})
}

func TestATurnThatHasReturnedIsNotOverTheLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &goRunner{run: slowly}
		f.abort = func(context.Context, string) error { time.Sleep(10 * time.Minute); return nil }
		m := manage(t, f, bgagent.Config{})
		task := launch(t, m, "a")
		synctest.Wait()
		_, sub := m.Subscribe(0)
		_, err := m.Cancel(t.Context(), root, task.ID, bgagent.CancelOptions{})
		require.NoError(t, err)
		time.Sleep(time.Hour)
		sub.Close()
		require.Zero(t, m.Figures().OverLimit)
	})
}

func TestTurnsThatExitWhileDrainAndCloseRun(t *testing.T) {
	for range 200 {
		synctest.Test(t, func(t *testing.T) {
			m := manage(t, &goRunner{run: func(ctx context.Context, _ string, p bgagent.Prompt, _ *bgagent.Reporter) (bgagent.TurnEnd, error) {
				<-ctx.Done()
				runtime.Goexit()
				return bgagent.TurnEnd{}, nil
			}}, limit(2))
			for range 4 {
				launch(t, m, "x")
			}
			go m.Drain(context.Background())
			go m.Close(context.Background())
			synctest.Wait()
			err := m.Close(context.Background())
			var ce *bgagent.CloseError
			require.ErrorAs(t, err, &ce)
			require.Empty(t, ce.Hung)
			require.Empty(t, ce.NotStopped)
		})
	}
}

func TestCloseAgainGivesTheSameAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &goRunner{}
		f.run = func(context.Context, string, bgagent.Prompt, *bgagent.Reporter) (bgagent.TurnEnd, error) {
			time.Sleep(time.Hour) // the turn ignores its context
			return bgagent.TurnEnd{}, nil
		}
		m := manage(t, f, bgagent.Config{})
		launch(t, m, "hangs")
		time.Sleep(time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		first := m.Close(ctx)
		require.ErrorContains(t, first, "did not stop")
		for range 50 {
			require.Equal(t, first, m.Close(ctx), "a call with an ended context returns the same error")
		}
		require.Equal(t, first, m.Close(t.Context()))
		time.Sleep(2 * time.Hour)
	})
}

// The slots that Close frees must not be given to pending tasks.
func TestCloseStartsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		created := 0
		f := &goRunner{run: works(time.Minute)}
		f.create = func(context.Context, bgagent.SessionSpec) (string, error) { created++; return f.nextID(), nil }
		m := manage(t, f, limit(1))
		var ids []string
		for i := range 5 {
			ids = append(ids, launch(t, m, fmt.Sprint(i)).ID)
		}
		synctest.Wait()
		err := m.Close(t.Context())
		var closed *bgagent.CloseError
		require.ErrorAs(t, err, &closed)
		require.Empty(t, closed.NotStopped)
		require.Len(t, closed.Owed, 5, "these ends were not reported to anybody")
		require.Equal(t, 1, created)
		for _, id := range ids {
			require.Equal(t, bgagent.CauseClosed, get(t, m, id).Cause)
		}
		_, err = m.Launch(t.Context(), root, bgagent.LaunchInput{Agent: "a", Prompt: "p"})
		require.ErrorIs(t, err, bgagent.ErrClosed)
		n, ok := m.TakeNotice("root")
		require.True(t, ok)
		require.Len(t, n.Items, 5)
	})
}

// A shared ConcurrencyManager gets its slot back even if Close's context ends before the session
// has stopped.
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

// After Close has returned, all goroutines of the manager end.
func TestNothingOfAManagerIsLeftAfterClose(t *testing.T) {
	before := runtime.NumGoroutine()
	for i := range 20 {
		m, err := bgagent.New(working(time.Hour), bgagent.Config{})
		require.NoError(t, err)
		for j := range 10 {
			_, err := m.Launch(t.Context(), root, bgagent.LaunchInput{Agent: "a", Prompt: fmt.Sprint(i, j)})
			require.NoError(t, err)
		}
		_ = m.Close(t.Context())
	}
	require.Eventually(t, func() bool { return runtime.NumGoroutine() <= before+1 }, time.Minute, time.Millisecond)
}
