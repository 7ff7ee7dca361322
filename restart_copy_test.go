package bgagent_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/bgagenttest"
	"github.com/bgagent/bgagent/internal/inside"
	"github.com/bgagent/bgagent/storetest"
	"github.com/stretchr/testify/require"
)

func TestTheManagerOfACopyLeavesTheOriginalAlone(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.cfg, w.hangs = limit(3), true
		w.cfg.RestoreContext = func(ctx context.Context, _ bgagent.Task) (context.Context, error) { return ctx, nil }
		m := w.begin()
		w.told.fail = func(int) error { return errors.New("not now") }
		told := launch(t, m, "told")
		ended(t, m, told.ID)
		time.Sleep(time.Second) // during this time, the delivery of the notice fails
		running, stopping, again := launch(t, m, "running"), launch(t, m, "stopping"), launch(t, m, "again")
		pending := launch(t, m, "pending")
		time.Sleep(time.Second)
		for _, id := range []string{stopping.ID, again.ID} {
			_, err := m.Cancel(t.Context(), root, id, bgagent.CancelOptions{})
			require.NoError(t, err)
		}
		_, err := m.Resume(t.Context(), root, again.ID, bgagent.ResumeInput{Prompt: "once more"})
		require.NoError(t, err)
		require.NotContains(t, w.told.told(), told.ID)
		w.crash()

		w.told.fail, w.hangs = nil, false
		w.memory.SetOutdated("it is a copy")
		w.cfg.RestoreContext = func(context.Context, bgagent.Task) (context.Context, error) {
			t.Error("a context is restored for a task that is not continued")
			return nil, nil
		}
		m = w.begin()
		w.called()
		m.Start()
		time.Sleep(20 * time.Minute)
		require.Empty(t, w.called())
		require.Empty(t, w.told.told())
		for _, id := range []string{running.ID, again.ID, pending.ID} {
			task := get(t, m, id)
			require.Equal(t, bgagent.CauseInterrupted, task.Cause)
			require.Contains(t, task.Reason, "it is a copy")
		}
		require.Equal(t, bgagent.CauseCaller, get(t, m, stopping.ID).Cause)
		require.Zero(t, m.Concurrency().Stats("").InUse)
		require.NoError(t, m.Close(t.Context()))

		m = w.begin() // the copy has been written to, so it no longer counts as a copy; a host can still take the notices about the old tasks
		m.Start()
		time.Sleep(time.Hour)
		require.Empty(t, w.told.told())
		require.Empty(t, w.called())
	})
}

func TestTheTasksOfACopyCanBeTakenAndResumed(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		first := launch(t, w.begin(), "explore")
		time.Sleep(10 * time.Second)
		w.crash()
		w.memory.SetOutdated("it is a copy")
		m := w.begin()
		m.Start()
		notice, ok := m.TakeNotice(root.Session)
		require.True(t, ok)
		require.Equal(t, first.ID, notice.Items[0].Task)
		_, err := m.Resume(t.Context(), root, first.ID, bgagent.ResumeInput{Prompt: "go on"})
		require.NoError(t, err)
		task := ended(t, m, first.ID)[0]
		require.Equal(t, bgagent.Completed, task.Status, task.Reason)
		require.Len(t, w.restored, 1)
		require.Empty(t, w.restored[0].Instance, "the processes of the original manager must not be terminated")
		time.Sleep(time.Minute)
		require.Equal(t, map[string][]bgagent.Status{first.ID: {bgagent.Completed}}, w.told.told())
	})
}

// The type "touched" is a starter that reports calls.
type touched struct {
	bgagenttest.Starter
	call func(name string)
}

func (s touched) Abort(ctx context.Context, session string) error {
	s.call("Abort")
	return s.Starter.Abort(ctx, session)
}

func (s touched) StartTurn(ctx context.Context, session string, p bgagent.Prompt) error {
	s.call("StartTurn")
	return s.Starter.StartTurn(ctx, session, p)
}

func TestTheSessionsOfAServerAreLeftAloneByTheManagerOfACopy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var memory storetest.Memory
		s := bgagenttest.NewStarter(func(turn *bgagenttest.Turn) {
			turn.Sleep(time.Hour)
			turn.Say("done")
		})
		s.Root(root.Session)
		store := memory.Process()
		original, err := bgagent.New(s, bgagent.Config{Store: store})
		require.NoError(t, err)
		running, stopping := launch(t, original, "running"), launch(t, original, "stopping")
		time.Sleep(time.Second)
		_, err = original.Cancel(t.Context(), root, stopping.ID, bgagent.CancelOptions{})
		require.NoError(t, err)
		store.Crash()
		memory.SetOutdated("it is a copy")

		m, err := bgagent.New(touched{s, func(name string) { t.Error("the copy has called " + name) }}, bgagent.Config{Store: memory.Process()})
		require.NoError(t, err)
		inside.CheckAlways(m, func(err error) { t.Error(err) })
		task := ended(t, m, running.ID)[0]
		require.Equal(t, bgagent.CauseInterrupted, task.Cause)
		require.NoError(t, m.Quiet(t.Context(), running.ID))
		time.Sleep(time.Minute)
		require.NoError(t, m.Close(t.Context()))
		require.Empty(t, s.Inbox(root.Session))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_ = original.Close(ctx)
		s.Close()
		time.Sleep(time.Minute)
	})
}
