package bgagent_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

func TestNothingIsContinuedAfterClose(t *testing.T) {
	for name, end := range map[string]func(*bgagent.BackgroundManager) error{
		"Close":   func(m *bgagent.BackgroundManager) error { return m.Close(context.Background()) },
		"Suspend": func(m *bgagent.BackgroundManager) error { return m.Suspend(context.Background()) },
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				running := launch(t, w.begin(), "explore")
				time.Sleep(10 * time.Second)
				w.crash()
				var err error
				w.cfg.Concurrency, err = bgagent.NewConcurrencyManager(bgagent.Limits{Default: 1})
				require.NoError(t, err)
				m := w.begin()
				require.NoError(t, end(m))
				w.called()
				m.Start()
				_, ok := m.TakeNotice(root.Session)
				require.False(t, ok)
				_, err = m.Wait(t.Context(), bgagent.Caller{}, bgagent.WaitAll, running.ID)
				require.ErrorIs(t, err, bgagent.ErrSuspended)
				require.Empty(t, w.called())
				require.Zero(t, w.cfg.Concurrency.Stats("").InUse)

				task := ended(t, w.begin(), running.ID)[0]
				require.Equal(t, bgagent.Completed, task.Status, task.Reason)
			})
		})
	}
}

// slowContext makes every call to Config.RestoreContext wait until the returned channel is closed.
func (w *world) slowContext() chan struct{} {
	ready := make(chan struct{})
	w.cfg.CallTimeout = time.Hour
	w.cfg.RestoreContext = func(ctx context.Context, _ bgagent.Task) (context.Context, error) {
		select {
		case <-ready:
			return ctx, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return ready
}

func TestCloseEndsAStartThatWaitsForAContext(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		running := launch(t, w.begin(), "explore")
		time.Sleep(10 * time.Second)
		w.crash()
		w.slowContext()
		m := w.begin()
		started := false
		go func() { m.Start(); started = true }()
		time.Sleep(time.Second)
		require.False(t, started)
		w.called()
		require.NoError(t, m.Close(t.Context()))
		synctest.Wait()
		require.True(t, started)
		require.Empty(t, w.called())
		require.Zero(t, m.Concurrency().Stats("").InUse)

		w.cfg.RestoreContext = nil
		task := ended(t, w.begin(), running.ID)[0]
		require.Equal(t, bgagent.Completed, task.Status, task.Reason)
	})
}

func TestACallWaitsForTheStartUntilItsContextEnds(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.cfg = limit(1)
		running := launch(t, w.begin(), "explore")
		time.Sleep(10 * time.Second)
		w.crash()
		ready := w.slowContext()
		m := w.begin()
		go m.Start()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := m.Launch(ctx, root, bgagent.LaunchInput{Agent: "worker", Prompt: "too early"})
		require.ErrorIs(t, err, context.DeadlineExceeded)
		_, err = m.Cancel(ctx, root, running.ID, bgagent.CancelOptions{})
		require.ErrorIs(t, err, context.DeadlineExceeded)
		_, err = m.NextNotice(ctx, root.Session)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		list, err := m.Wait(ctx, bgagent.Caller{}, bgagent.WaitAll, running.ID)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, bgagent.Running, list[0].Status)

		go func() {
			time.Sleep(time.Second)
			close(ready)
		}()
		next := launch(t, m, "later")
		require.Equal(t, bgagent.Pending, next.Status, "the recovered task must get its slot first")
		for _, task := range ended(t, m, running.ID, next.ID) {
			require.Equal(t, bgagent.Completed, task.Status, task.Reason)
		}
	})
}

func TestRestoreContextCannotWaitForItself(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		running := launch(t, w.begin(), "explore")
		time.Sleep(10 * time.Second)
		w.crash()
		var m *bgagent.BackgroundManager
		w.cfg.RestoreContext = func(ctx context.Context, _ bgagent.Task) (context.Context, error) {
			_, err := m.Launch(ctx, root, bgagent.LaunchInput{Agent: "worker", Prompt: "too early"})
			require.ErrorContains(t, err, "RestoreContext")
			_, err = m.Wait(ctx, bgagent.Caller{}, bgagent.WaitAll, running.ID)
			require.ErrorContains(t, err, "RestoreContext")
			return ctx, nil
		}
		w.seen = func(ctx context.Context) {
			_, err := m.NextNotice(ctx, "a session without tasks")
			require.ErrorIs(t, err, bgagent.ErrNothingOwed)
		}
		m = w.begin()
		task := ended(t, m, running.ID)[0]
		require.Equal(t, bgagent.Completed, task.Status, task.Reason)
	})
}
