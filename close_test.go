package bgagent_test

import (
	"context"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

// Spec 12: waiters return when the manager is closed.
func TestDrainReturnsWhenTheManagerIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hang := make(chan struct{})
		f := &goRunner{}
		f.run = func(context.Context, string, bgagent.Prompt, *bgagent.Reporter) (bgagent.TurnEnd, error) {
			<-hang // ignores its context
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
			t.Error("Drain waits for ever")
		}
		close(hang)
		synctest.Wait()
	})
}

// Spec 6: the manager never hangs with the host.
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

// A host frees a task's directory once it is quiet, and not before.
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
			t.Error("whoever waited before the record expired waits for ever")
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
			<-release // ignores its context
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
	synctest.Test(t, func(t *testing.T) {
		var box inbox
		m := manage(t, &goRunner{run: works(time.Minute)}, bgagent.Config{Limits: bgagent.Limits{Default: 1}, Notify: box.notify})
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
			time.Sleep(time.Hour) // ignores its context
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
			require.Equal(t, first, m.Close(ctx), "with the context that has ended")
		}
		require.Equal(t, first, m.Close(t.Context()))
		time.Sleep(2 * time.Hour)
	})
}
