package bgagent_test

import (
	"context"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/storetest"
	"github.com/stretchr/testify/require"
)

func TestATaskIsForgottenOnRequest(t *testing.T) {
	sc := &forgetful{forgot: map[string]int{}}
	sc.run = works(time.Second)
	bubble(t, sc, bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager) {
		_, sub := m.Subscribe(100)
		defer sub.Close()
		gone, stays := launch(t, m, "explore").ID, launch(t, m, "read").ID
		session := ended(t, m, gone, stays)[0].Session
		_, err := m.Read(root, gone)
		require.NoError(t, err)
		synctest.Wait()
		require.NoError(t, m.Forget(t.Context(), root, gone, bgagent.ForgetOptions{}))
		for range 2 {
			_, err = m.Get(gone)
			require.ErrorIs(t, err, bgagent.ErrUnknownTask)
			require.NotErrorIs(t, err, bgagent.ErrExpired)
			_, err = m.Resume(t.Context(), root, session, bgagent.ResumeInput{Prompt: "more"})
			require.ErrorIs(t, err, bgagent.ErrUnknownTask)
			require.ErrorIs(t, m.Forget(t.Context(), root, gone, bgagent.ForgetOptions{}), bgagent.ErrUnknownTask)
			require.ErrorIs(t, m.Quiet(t.Context(), gone), bgagent.ErrUnknownTask)
			time.Sleep(time.Minute)
		}
		require.Equal(t, stays, m.List(bgagent.Query{})[0].ID)
		require.Equal(t, map[string]int{session: 1}, sc.forgot)
		for e := range sub.Events(t.Context()) {
			if e.Kind == bgagent.EventExpired {
				require.Equal(t, gone, e.Task.ID)
				break
			}
		}
	})
}

func TestATaskThatIsStillNeededIsForgottenOnlyByForce(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.cfg.NoticeWindow = time.Hour
		m := w.begin()
		id := launch(t, m, "explore").ID
		force := bgagent.ForgetOptions{Force: true}
		require.ErrorIs(t, m.Forget(t.Context(), root, id, force), bgagent.ErrStillLive)
		ended(t, m, id)
		require.ErrorIs(t, m.Forget(t.Context(), root, id, bgagent.ForgetOptions{}), bgagent.ErrStillNeeded)
		require.ErrorIs(t, m.Forget(t.Context(), bgagent.Caller{Session: "stranger"}, id, force), bgagent.ErrNotDescendant)
		require.ErrorIs(t, m.Forget(t.Context(), root, "bg_0000000000000000", force), bgagent.ErrUnknownTask)
		require.Equal(t, "answer to explore", get(t, m, id).Result, "a refusal deletes nothing")
		require.NoError(t, m.Forget(t.Context(), root, id, force))
		_, owed := m.Outstanding(root.Session)
		require.Zero(t, owed)
		w.crash()
		m = w.begin()
		m.Start()
		time.Sleep(2 * time.Hour)
		require.Empty(t, w.told.all())
		require.Empty(t, m.List(bgagent.Query{}))
	})
}

func TestAForgottenTaskIsNotInTheStore(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		m := w.begin()
		var ids []string
		for _, prompt := range []string{"one", "two", "three"} {
			ids = append(ids, launch(t, m, prompt).ID)
		}
		ended(t, m, ids...)
		time.Sleep(time.Minute) // during this time, the ends are reported to the parent
		require.NoError(t, m.Forget(t.Context(), host, ids[0], bgagent.ForgetOptions{}))
		w.crash() // nothing is written after Forget

		m = w.begin()
		m.Start()
		require.Empty(t, m.List(bgagent.Query{}), "the other tasks are only in the store")
		require.NoError(t, m.Forget(t.Context(), root, ids[1], bgagent.ForgetOptions{}))
		time.Sleep(time.Minute)
		w.crash()

		m = w.begin()
		m.Start()
		for _, id := range ids[:2] {
			_, err := m.Read(root, id)
			require.ErrorIs(t, err, bgagent.ErrUnknownTask)
			_, err = w.life.store.Text(t.Context(), id, "result.1")
			require.ErrorIs(t, err, bgagent.ErrNoText)
		}
		page, err := m.History(t.Context(), bgagent.Query{}, "")
		require.NoError(t, err)
		require.Len(t, page, 1)
		require.Equal(t, ids[2], page[0].ID)
	})
}

func TestTasksBelowAForgottenTaskStay(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.cfg.MaxDepth = 2
		m := w.begin()
		top := launch(t, m, "explore").ID
		synctest.Wait()
		below, err := m.Launch(t.Context(), bgagent.Caller{Session: get(t, m, top).Session}, bgagent.LaunchInput{Agent: "worker", Prompt: "read"})
		require.NoError(t, err)
		again := func() (err error) { return m.Forget(t.Context(), root, top, bgagent.ForgetOptions{Force: true}) }
		require.ErrorIs(t, again(), bgagent.ErrStillLive)
		ended(t, m, below.ID, top)
		time.Sleep(time.Minute)
		require.NoError(t, again())
		w.crash()
		m = w.begin()
		m.Start()
		task, err := m.Read(root, below.ID)
		require.NoError(t, err)
		require.Equal(t, bgagent.Completed, task.Status, task.Reason)
		require.Equal(t, "answer to read", task.Result, "%+v", task)
		_, err = m.Read(root, top)
		require.ErrorIs(t, err, bgagent.ErrUnknownTask)
	})
}

// A reader that has read the record before it was deleted must not bring the task back.
func TestAForgottenTaskIsNotBroughtBackByASlowReader(t *testing.T) {
	withHands(t, working(time.Second), bgagent.Config{RetainTasks: -1, Retention: time.Minute}, func(t *testing.T, m *bgagent.BackgroundManager, _ *storetest.Memory, h *hands) {
		id := launch(t, m, "explore").ID
		ended(t, m, id)
		_, err := m.Read(root, id)
		require.NoError(t, err)
		time.Sleep(time.Hour)
		require.Empty(t, m.List(bgagent.Query{}))
		reads := make(chan struct{})
		h.mu.Lock()
		h.history = func(ctx context.Context, q bgagent.StoreQuery) ([]bgagent.StoreRecord, error) {
			page, err := h.Process.History(ctx, q)
			reads <- struct{}{}
			<-reads
			return page, err
		}
		h.mu.Unlock()
		read := make(chan error)
		go func() {
			_, err := m.Read(root, id)
			read <- err
		}()
		<-reads
		h.mu.Lock()
		h.history = nil
		h.mu.Unlock()
		require.NoError(t, m.Forget(t.Context(), root, id, bgagent.ForgetOptions{}))
		reads <- struct{}{}
		require.ErrorIs(t, <-read, bgagent.ErrUnknownTask)
		require.Empty(t, m.List(bgagent.Query{}))
	})
}

func TestForgetReportsAStoreThatDoesNotDelete(t *testing.T) {
	withHands(t, working(time.Second), bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager, _ *storetest.Memory, h *hands) {
		one, two := launch(t, m, "one").ID, launch(t, m, "two").ID
		for _, task := range ended(t, m, one, two) {
			_, err := m.Read(root, task.ID)
			require.NoError(t, err)
		}
		time.Sleep(time.Minute)
		var full atomic.Bool
		full.Store(true)
		h.refuse(func(b *bgagent.StoreBatch) bool { return full.Load() || slices.Contains(b.Delete, two) })
		err := m.Forget(t.Context(), root, one, bgagent.ForgetOptions{})
		require.ErrorIs(t, err, bgagent.ErrStore)
		require.ErrorContains(t, err, "is deleted, which is not stored yet")
		full.Store(false)
		time.Sleep(time.Minute)
		_, err = h.Process.Text(t.Context(), one, "result.1")
		require.ErrorIs(t, err, bgagent.ErrNoText, "the deletion is repeated")

		err = m.Forget(t.Context(), root, two, bgagent.ForgetOptions{})
		require.ErrorIs(t, err, bgagent.ErrStore)
		require.ErrorContains(t, err, "refuses to delete")
	})
}
