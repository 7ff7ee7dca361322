package bgagent_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/bgagenttest"
	"github.com/bgagent/bgagent/storetest"
	"github.com/stretchr/testify/require"
)

// takeTwice calls TakeNotice twice at the same time, so that neither call acknowledges the notice
// that the other returns. Each notice reports the end of one task.
func takeTwice(t *testing.T, w *world, m *bgagent.BackgroundManager) (all []bgagent.Notice) {
	first, second := launch(t, m, "first").ID, launch(t, m, "second").ID
	time.Sleep(10 * time.Second)
	slow(&w.memory, 2*time.Second)
	cancel := func(id string) {
		_, err := m.Cancel(t.Context(), bgagent.Caller{}, id, bgagent.CancelOptions{})
		require.NoError(t, err)
	}
	cancel(first)
	var done sync.WaitGroup
	done.Go(func() {
		n, ok := m.TakeNotice("root")
		require.True(t, ok)
		all = append(all, n)
	})
	synctest.Wait()
	done.Go(func() { cancel(second) })
	synctest.Wait()
	n, ok := m.TakeNotice("root")
	require.True(t, ok)
	done.Wait()
	w.memory.SetFaults(nil)
	return append(all, n)
}

func TestNoticesThatWereHandedOutComeBackUnchanged(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.cfg.Wake = bgagent.WakeNever
		m := w.begin()
		want := takeTwice(t, w, m)
		require.Len(t, want, 2)
		time.Sleep(10 * time.Second)
		for range 3 {
			w.crash()
			m = w.begin()
			_, owed := m.Outstanding("root")
			require.Equal(t, 2, owed)
			time.Sleep(10 * time.Second)
		}
		last := ""
		for range want {
			got, ok := m.TakeNotice("root")
			require.True(t, ok)
			i := slices.IndexFunc(want, func(n bgagent.Notice) bool { return n.ID == got.ID })
			require.GreaterOrEqual(t, i, 0)
			require.NotEqual(t, last, got.ID)
			last = got.ID
			require.Equal(t, want[i].Text, got.Text)
			require.Len(t, got.Items, 1)
			require.Equal(t, want[i].Items[0].ID, got.Items[0].ID)
		}
		m.Ack(last)
		time.Sleep(10 * time.Second)
		w.crash()
		_, ok := w.begin().TakeNotice("root")
		require.False(t, ok)
	})
}

func TestAnAcknowledgedItemOfANoticeIsNotOwedAgain(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.cfg.Wake = bgagent.WakeNever
		m := w.begin()
		ended(t, m, launch(t, m, "first").ID, launch(t, m, "second").ID)
		n, ok := m.TakeNotice("root")
		require.True(t, ok)
		m.Ack(n.Items[0].ID)
		time.Sleep(10 * time.Second)
		w.crash()
		m = w.begin()
		_, owed := m.Outstanding("root")
		require.Equal(t, 1, owed)
		again, ok := m.TakeNotice("root")
		require.True(t, ok)
		require.Equal(t, n.ID, again.ID)
		m.Ack(n.Items[1].ID)
		time.Sleep(10 * time.Second)
		for _, r := range w.memory.Records() {
			require.False(t, r.Due && r.Kind == bgagent.StoreTask, string(r.Data))
		}
	})
}

func TestATaskThatWasTouchedByAToolGetsOnAfterARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLives(t, 0, false)
		l.fake.Fates = func(bgagent.Prompt) bgagenttest.Fate { return bgagenttest.FateAnswered }
		var session, child string
		l.begin()
		id := launch(t, l.m, "explore").ID
		time.Sleep(time.Second)
		session = get(t, l.m, id).Session
		task, err := l.m.Launch(t.Context(), bgagent.Caller{Session: session}, bgagent.LaunchInput{Agent: "worker", Prompt: "help"})
		require.NoError(t, err)
		child = task.ID
		_, err = l.m.Cancel(t.Context(), bgagent.Caller{}, child, bgagent.CancelOptions{})
		require.NoError(t, err)
		n, ok := l.m.TakeNotice(session)
		require.True(t, ok)
		require.Equal(t, child, n.Items[0].Task)
		time.Sleep(6 * time.Second)
		l.die()
		l.begin()
		require.Equal(t, bgagent.Completed, ended(t, l.m, id)[0].Status)
		time.Sleep(time.Hour)
		got, err := l.m.Get(child)
		require.True(t, err != nil || got.Notice.Settled(), "the end of the child must be reported")
	})
}

func TestManyResumesLeaveNothingBehind(t *testing.T) {
	withMemory(t, working(time.Second), bgagent.Config{Retention: time.Hour}, func(t *testing.T, m *bgagent.BackgroundManager, mem *storetest.Memory) {
		id := launch(t, m, "a").ID
		for range 30 {
			ended(t, m, id)
			_, err := m.Read(root, id)
			require.NoError(t, err)
			_, err = m.Resume(t.Context(), bgagent.Caller{}, id, bgagent.ResumeInput{Prompt: "more"})
			require.NoError(t, err)
		}
		ended(t, m, id)
		_, err := m.Read(root, id)
		require.NoError(t, err)
		time.Sleep(48 * time.Hour)
		require.Zero(t, m.Figures().Kept)
		require.Empty(t, sessionsIn(mem))
	})
}

func TestAReadEndIsNotToldBesideTheNoticeThatReportsIt(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.told.fail = func(int) error { return errors.New("not now") }
		m := w.begin()
		first, second := launch(t, m, "first").ID, launch(t, m, "second").ID
		ended(t, m, first, second)
		time.Sleep(10 * time.Second)
		require.Positive(t, w.told.called())
		_, err := m.Read(bgagent.Caller{Session: "root"}, first)
		require.NoError(t, err)
		time.Sleep(10 * time.Second)
		w.crash() // nobody has acknowledged Read's answer
		w.told.answers()
		m = w.begin()
		_, owed := m.Outstanding("root")
		require.Equal(t, 2, owed)
		m.Start()
		time.Sleep(time.Hour)
		require.Equal(t, map[string][]bgagent.Status{first: {bgagent.Completed}, second: {bgagent.Completed}}, w.told.told())
		require.Len(t, w.told.all(), 1)
		_, owed = m.Outstanding("root")
		require.Zero(t, owed)
	})
}

func TestANoticeThatIsWrittenWhenCloseBeginsIsNotDelivered(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m := w.begin()
		id := launch(t, m, "explore").ID
		time.Sleep(30 * time.Second)
		slow(&w.memory, 2*time.Second)
		ended(t, m, id)
		time.Sleep(time.Second) // the notice is being written
		err := m.Close(context.Background())
		var left *bgagent.CloseError
		require.ErrorAs(t, err, &left)
		require.Len(t, left.Owed, 1)
		require.Equal(t, id, left.Owed[0].Task)
		require.Zero(t, w.told.called())
		w.memory.SetFaults(nil)
		w.begin().Start()
		time.Sleep(time.Minute)
		require.Equal(t, map[string][]bgagent.Status{id: {bgagent.Completed}}, w.told.told())
	})
}

// pushesOf runs the given number of processes, and ends each one while it is pushing a notice. It
// returns the notices that were pushed.
func pushesOf(t *testing.T, w *world, processes int) ([]bgagent.Notice, *bgagent.BackgroundManager) {
	var pushed []bgagent.Notice // guarded by w.told.mu
	w.takes(time.Second)
	w.told.fails(errors.New("the process ends before the session has recorded the notice"))
	w.told.seen = func(n bgagent.Notice) { pushed = append(pushed, n) }
	m := w.begin()
	launch(t, m, "a")
	m.Start()
	for range processes {
		time.Sleep(1500 * time.Millisecond) // the task ends after one second, and the first notice follows immediately
		w.crash()
		m = w.begin()
		m.Start()
	}
	w.told.mu.Lock()
	defer w.told.mu.Unlock()
	return slices.Clone(pushed), m
}

func TestANoticeIsPushedByAtMostThreeProcesses(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		pushed, m := pushesOf(t, w, 5)
		require.Len(t, pushed, 3)
		for _, n := range pushed {
			require.Equal(t, pushed[0], n)
		}
		_, owed := m.Outstanding("root")
		require.Equal(t, 1, owed)

		w.told.answers()
		second := launch(t, m, "b") // the notice about a later end is pushed, and the waiting notice does not prevent this
		time.Sleep(5 * time.Second)
		require.Len(t, w.told.all(), 1)
		require.Equal(t, second.ID, w.told.all()[0].Items[0].Task)

		n, ok := m.TakeNotice("root")
		require.True(t, ok)
		require.Equal(t, pushed[0].ID, n.ID)
		require.Equal(t, pushed[0].Text, n.Text)
		m.Ack(n.ID)
		_, ok = m.TakeNotice("root")
		require.False(t, ok)
		time.Sleep(10 * time.Second)
		w.crash()
		m = w.begin()
		m.Start()
		_, owed = m.Outstanding("root")
		require.Zero(t, owed)
	})
}

func TestANoticeThatWaitsIsTakenWithNextNoticeAndHoldsUpNoDrain(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		pushed, m := pushesOf(t, w, 4)
		require.NoError(t, m.Drain(t.Context()))
		n, err := m.NextNotice(t.Context(), "root")
		require.NoError(t, err)
		require.Equal(t, pushed[0].ID, n.ID)
		_, err = m.NextNotice(t.Context(), "root")
		require.ErrorIs(t, err, bgagent.ErrNothingOwed)
	})
}

func TestANoticeToABusySessionIsNotCountedAsPushed(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.takes(time.Second)
		w.told.fails(bgagent.ErrBusy)
		m := w.begin()
		launch(t, m, "a")
		for range 6 {
			time.Sleep(10 * time.Second)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			require.NoError(t, m.Suspend(ctx))
			cancel()
			m = w.begin()
			m.Start()
		}
		w.told.answers()
		time.Sleep(10 * time.Second)
		require.Len(t, w.told.all(), 1)
	})
}

func TestANoticeThatWaitsIsNotPushedAfterAnother(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		pushed, m := pushesOf(t, w, 4)
		w.told.fails(errors.New("the process ends"))
		launch(t, m, "b")
		time.Sleep(1500 * time.Millisecond)
		calls := w.told.called()
		w.told.answers()
		w.crash()
		m = w.begin()
		m.Start()
		time.Sleep(time.Minute)
		require.Equal(t, calls+1, w.told.called(), "the notice about b must be pushed")
		require.NotEqual(t, pushed[0].ID, w.told.all()[0].ID)
		_, owed := m.Outstanding("root")
		require.Equal(t, 1, owed)
	})
}

func TestReadingATaskSettlesItsNoticeThatWaits(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		pushed, m := pushesOf(t, w, 4)
		require.Len(t, pushed, 3)
		_, err := m.Read(root, pushed[0].Items[0].Task)
		require.NoError(t, err)
		_, owed := m.Outstanding("root")
		require.Zero(t, owed)
		_, ok := m.TakeNotice("root")
		require.False(t, ok)
	})
}

// The type "recognizing" is a client that recognizes a notice that it has already received.
type recognizing struct{ *life }

func (c recognizing) NoticeIDs() bool { return true }

func (c recognizing) Notify(ctx context.Context, session string, n bgagent.Notice) error {
	return c.notify(ctx, session, n)
}

func TestANotifierThatRecognizesNoticesGetsThemFromEveryProcess(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.client = func(l *life) bgagent.SessionClient { return recognizing{l} }
		pushesOf(t, w, 5)
		require.Greater(t, w.told.called(), 4)
	})
}
