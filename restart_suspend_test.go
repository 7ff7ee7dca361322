package bgagent_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/storetest"
	"github.com/stretchr/testify/require"
)

// The method "shared" returns a manager that has no store, and that shares the slots of the world's
// managers.
func (w *world) shared(t *testing.T) *bgagent.BackgroundManager {
	t.Helper()
	other := newWorld(t)
	other.cfg.Concurrency = w.cfg.Concurrency
	return other.begin()
}

func TestASuspensionGivesSharedSlotsBack(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		var err error
		w.cfg.Concurrency, err = bgagent.NewConcurrencyManager(bgagent.Limits{Default: 1})
		require.NoError(t, err)
		m, other := w.begin(), w.shared(t)
		running, pending := launch(t, m, "running"), launch(t, m, "pending")
		waits := launch(t, other, "of another manager")
		require.NoError(t, m.Suspend(t.Context()))
		require.Equal(t, bgagent.Running, get(t, other, waits.ID).Status)
		ended(t, other, waits.ID)
		require.Zero(t, w.cfg.Concurrency.Stats("").InUse)

		for _, task := range ended(t, w.begin(), running.ID, pending.ID) {
			require.Equal(t, bgagent.Completed, task.Status, task.Reason)
		}
		time.Sleep(time.Second)
		require.Zero(t, w.cfg.Concurrency.Stats("").InUse)
	})
}

func TestSlotsThatBecomeFreeDuringASuspensionGoToOthers(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		var err error
		w.cfg.Concurrency, err = bgagent.NewConcurrencyManager(bgagent.Limits{Default: 1})
		require.NoError(t, err)
		m, other := w.begin(), w.shared(t)
		hold := launch(t, other, "of another manager")
		pending := launch(t, m, "pending")
		next := launch(t, other, "next of another manager")
		go func() {
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			_ = m.Suspend(ctx)
		}()
		ended(t, other, hold.ID, next.ID)
		require.Equal(t, bgagent.Pending, get(t, m, pending.ID).Status)
		time.Sleep(time.Hour)
	})
}

func TestSuspendWaitsNoLongerThanForTheStore(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.abort = 150 * time.Millisecond
		m := w.begin()
		task := launch(t, m, "explore")
		time.Sleep(time.Second)
		slow(&w.memory, 100*time.Millisecond)
		_, err := m.Cancel(t.Context(), root, task.ID, bgagent.CancelOptions{})
		require.NoError(t, err)
		began := time.Now()
		require.NoError(t, m.Suspend(t.Context())) // the Abort call returns during the last write
		require.Less(t, time.Since(began), time.Second)
	})
}

func TestCloseWaitsNoLongerThanForTheStore(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.cfg.StopTimeout = 10 * time.Second
		w.hangs, w.work = true, 10*time.Second+50*time.Millisecond
		m := w.begin()
		launch(t, m, "explore")
		slow(&w.memory, 100*time.Millisecond)
		began := time.Now()
		_ = m.Close(t.Context()) // the turn returns during a write
		require.Less(t, time.Since(began), 11*time.Second)
	})
}

func TestTheStoreIsClosedAlthoughTheContextOfCloseHasEnded(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m := w.begin()
		launch(t, m, "explore")
		slow(&w.memory, time.Hour)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		var e *bgagent.CloseError
		require.ErrorAs(t, m.Close(ctx), &e)
		require.Empty(t, e.Hung)
		c, err := w.memory.Process().Open(t.Context(), bgagent.StoreOwner{})
		require.NoError(t, err)
		require.NotEmpty(t, c.Records)
	})
}

func TestASuspendedManagerDoesNotSpin(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.cfg = limit(1)
		w.cfg.QueueTimeToLive = 10 * time.Second
		m := w.begin()
		launch(t, m, "first")
		launch(t, m, "second")
		time.Sleep(9 * time.Second)
		breakFor(&w.memory, time.Minute, storetest.Refused)
		require.Error(t, m.Suspend(t.Context())) // the queue time to live passes while the last write fails
	})
}

func TestASuspensionIsRecordedAlthoughAWriteIsRefused(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m := w.begin()
		first := launch(t, m, "explore")
		for range 5 { // a task would not survive this many crashes
			time.Sleep(10 * time.Second)
			breakFor(&w.memory, 100*time.Millisecond, storetest.Refused)
			require.NoError(t, m.Suspend(t.Context()))
			m = w.begin()
			m.Start()
		}
		task := ended(t, m, first.ID)[0]
		require.Equal(t, bgagent.Completed, task.Status, task.Reason)
	})
}

func TestNoTurnBeginsAfterASuspensionHasBegun(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.start = 10 * time.Second
		m := w.begin()
		launch(t, m, "first")
		time.Sleep(11 * time.Second)
		second := launch(t, m, "second")
		time.Sleep(5 * time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		defer cancel()
		require.NoError(t, m.Suspend(ctx)) // while Suspend waits for the first task's turn, the second task gets its session
		require.Len(t, w.sessions, 2)
		require.Empty(t, w.prompts("ses_2"))
		m = w.begin()
		require.Equal(t, "answer to second", ended(t, m, second.ID)[0].Result)
	})
}

// closedStore is a store that records when it was closed.
type closedStore struct {
	bgagent.Store
	closed chan time.Time
}

func (s *closedStore) Close() error {
	s.closed <- time.Now()
	return s.Store.Close()
}

// After the store is closed, another process can begin the turn again. Therefore, the store stays
// open until the turn has returned, but for no longer than half of StopTimeout.
func TestSuspendClosesTheStoreOnceTheStoppedTurnsHaveReturned(t *testing.T) {
	for name, test := range map[string]struct {
		takes  time.Duration // how long a turn runs after it must stop
		closed time.Duration // time from the moment when the turn must stop until the store is closed
		ends   time.Duration // time from the moment when the turn must stop until Suspend returns
	}{
		"slowly":         {2 * time.Second, 2 * time.Second, 2 * time.Second},
		"just in time":   {5*time.Second - 1, 5*time.Second - 1, 5*time.Second - 1},
		"after the half": {7 * time.Second, 5 * time.Second, 7 * time.Second},
		"never":          {time.Hour, 5 * time.Second, 10 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store := &closedStore{(&storetest.Memory{}).Process(), make(chan time.Time, 2)}
				stops := make(chan time.Time, 1)
				f := &goRunner{run: func(ctx context.Context, _ string, _ bgagent.Prompt, _ *bgagent.Reporter) (bgagent.TurnEnd, error) {
					<-ctx.Done()
					stops <- time.Now()
					time.Sleep(test.takes)
					return bgagent.TurnEnd{}, ctx.Err()
				}}
				m := manage(t, f, bgagent.Config{Store: store, StopTimeout: 10 * time.Second})
				launch(t, m, "explore")
				synctest.Wait() // the turn begins
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				err := m.Suspend(ctx)
				ended, closed, stopped := time.Now(), <-store.closed, <-stops
				require.Equal(t, test.closed, closed.Sub(stopped))
				require.Equal(t, test.ends, ended.Sub(stopped))
				if test.takes < time.Minute {
					require.NoError(t, err)
					return
				}
				var left *bgagent.CloseError
				require.ErrorAs(t, err, &left)
				require.Len(t, left.Hung, 1)
				time.Sleep(test.takes)
			})
		})
	}
}
