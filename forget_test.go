package bgagent_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/race"
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
		require.Equal(t, "answer to explore", get(t, m, id).Result, "a refused call must not delete anything")
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
		w.crash() // this process writes nothing after Forget has returned

		m = w.begin()
		m.Start()
		require.Empty(t, m.List(bgagent.Query{}), "the other tasks must be only in the store")
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

// A reader that read the record before it was deleted must not bring back the task.
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
		require.ErrorContains(t, err, "is deleted, but the deletion is not stored yet")
		full.Store(false)
		time.Sleep(time.Minute)
		_, err = h.Process.Text(t.Context(), one, "result.1")
		require.ErrorIs(t, err, bgagent.ErrNoText, "the deletion is repeated")

		err = m.Forget(t.Context(), root, two, bgagent.ForgetOptions{})
		require.ErrorIs(t, err, bgagent.ErrStore)
		require.ErrorContains(t, err, "refuses to delete")
		task, err := m.Read(root, two)
		require.NoError(t, err, "the task stays in the store")
		require.Equal(t, "answer to two", task.Result)
	})
}

// A caller that waits for several tasks must not wait for the deletion of one of them.
func TestADeletionHoldsUpNobodyWhoWaits(t *testing.T) {
	withHands(t, working(time.Minute), bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager, _ *storetest.Memory, h *hands) {
		gone := launch(t, m, "one").ID
		ended(t, m, gone)
		time.Sleep(time.Minute)
		later := launch(t, m, "two").ID
		writing, goOn := make(chan struct{}), make(chan struct{})
		h.mu.Lock()
		h.write = func(ctx context.Context, b *bgagent.StoreBatch) error {
			if slices.ContainsFunc(b.Records, func(r bgagent.StoreRecord) bool { return r.Key == later && r.Status.Terminal() }) {
				close(writing)
				<-goOn
				h.refuse(func(*bgagent.StoreBatch) bool { return false })
			}
			return h.Process.Write(ctx, b)
		}
		h.mu.Unlock()
		waited := make(chan []bgagent.Task)
		go func() { waited <- ended(t, m, later, gone) }()
		<-writing
		forgot := make(chan error)
		go func() { forgot <- m.Forget(t.Context(), root, gone, bgagent.ForgetOptions{Force: true}) }()
		synctest.Wait()
		close(goOn)
		require.NoError(t, <-forgot)
		began := time.Now()
		for _, task := range <-waited {
			require.Equal(t, bgagent.Completed, task.Status)
		}
		require.Zero(t, time.Since(began))
	})
}

func TestAForgottenTaskIsOwedToNobody(t *testing.T) {
	box := &inbox{}
	box.fails(errors.New("no"))
	withHands(t, working(time.Second), bgagent.Config{Notify: box.notify}, func(t *testing.T, m *bgagent.BackgroundManager, _ *storetest.Memory, _ *hands) {
		id := launch(t, m, "explore").ID
		ended(t, m, id)
		time.Sleep(5 * time.Second) // the manager has tried once to deliver the notice about the first attempt
		_, err := m.Resume(t.Context(), root, id, bgagent.ResumeInput{Prompt: "again"})
		require.NoError(t, err)
		_, err = m.Cancel(t.Context(), root, id, bgagent.CancelOptions{})
		require.NoError(t, err)
		time.Sleep(5 * time.Second)
		require.ErrorIs(t, m.Forget(t.Context(), root, id, bgagent.ForgetOptions{}), bgagent.ErrStillNeeded)
		require.NoError(t, m.Forget(t.Context(), root, id, bgagent.ForgetOptions{Force: true}))
		_, owed := m.Outstanding(root.Session)
		require.Zero(t, owed)
		box.answers()
		time.Sleep(time.Hour)
		require.Empty(t, box.all())
	})
}

func TestAForgottenTaskTakesNoPlaceOfAnExpiredOne(t *testing.T) {
	withoutStore(t)
	sc := &forgetful{forgot: map[string]int{}}
	sc.run = works(time.Millisecond)
	bubble(t, sc, bgagent.Config{RetainTasks: -1, Retention: time.Minute, MaxTasksPerRoot: bgagent.Unlimited}, func(t *testing.T, m *bgagent.BackgroundManager) {
		id := launch(t, m, "explore").ID
		ended(t, m, id)
		_, err := m.Read(root, id)
		require.NoError(t, err)
		time.Sleep(time.Hour)
		most := 10_300 // more than the number of tombstones
		if race.Enabled {
			most = 10
		}
		for range most {
			x := launch(t, m, "x").ID
			ended(t, m, x)
			require.NoError(t, m.Forget(t.Context(), root, x, bgagent.ForgetOptions{Force: true}))
		}
		_, err = m.Get(id)
		require.ErrorIs(t, err, bgagent.ErrExpired)
		synctest.Wait()
		require.Equal(t, most, len(sc.forgot), "the client forgets each session")
	})
}

func TestAParentWhoseTasksAreOverIsForgotten(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.cfg.MaxDepth, w.cfg.Retention = 2, -1
		m := w.begin()
		top := launch(t, m, "explore").ID
		synctest.Wait()
		below, err := m.Launch(t.Context(), bgagent.Caller{Session: get(t, m, top).Session}, bgagent.LaunchInput{Agent: "worker", Prompt: "read"})
		require.NoError(t, err)
		ended(t, m, below.ID, top)
		time.Sleep(time.Minute)
		require.NoError(t, m.Forget(t.Context(), root, top, bgagent.ForgetOptions{}))
		require.NoError(t, m.Forget(t.Context(), root, below.ID, bgagent.ForgetOptions{}))
	})
}

func TestATaskWhoseSessionHasNotStoppedIsNotForgotten(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.hangs, w.work, w.cfg.StopTimeout = true, 10*time.Minute, time.Minute
		m := w.begin()
		id := launch(t, m, "explore").ID
		synctest.Wait()
		_, err := m.Cancel(t.Context(), root, id, bgagent.CancelOptions{})
		require.NoError(t, err)
		for range 2 { // at the second call to Forget, the stopping deadline has passed
			require.ErrorIs(t, m.Forget(t.Context(), root, id, bgagent.ForgetOptions{Force: true}), bgagent.ErrNotStopped)
			time.Sleep(2 * time.Minute)
		}
		time.Sleep(10 * time.Minute)
		require.NoError(t, m.Forget(t.Context(), root, id, bgagent.ForgetOptions{Force: true}))
	})
}

func TestASecondForgetWaitsForTheSameDeletion(t *testing.T) {
	withHands(t, working(time.Second), bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager, _ *storetest.Memory, h *hands) {
		id := launch(t, m, "explore").ID
		ended(t, m, id)
		time.Sleep(time.Minute)
		var full atomic.Bool
		full.Store(true)
		h.refuse(func(*bgagent.StoreBatch) bool { return full.Load() })
		force := bgagent.ForgetOptions{Force: true}
		for range 2 {
			err := m.Forget(t.Context(), root, id, force)
			require.ErrorIs(t, err, bgagent.ErrStore)
			require.ErrorContains(t, err, "is deleted, but the deletion is not stored yet")
		}
		require.ErrorIs(t, m.Forget(t.Context(), bgagent.Caller{Session: "stranger"}, id, force), bgagent.ErrUnknownTask)
		full.Store(false)
		require.NoError(t, m.Forget(t.Context(), root, id, force))
		require.ErrorIs(t, m.Forget(t.Context(), root, id, force), bgagent.ErrUnknownTask)
	})
}

// The record of a deleted task's session shows who owns the tasks that this session launched. It
// must be written no later than the deletion of the task's record, even if the store refuses the
// batch that contains both changes.
func TestADeletionWaitsForTheRecordOfItsSession(t *testing.T) {
	for name, c := range map[string]struct {
		bad     func(b *bgagent.StoreBatch, top, other string) bool
		deleted bool
	}{
		"another record is refused": {func(b *bgagent.StoreBatch, _, other string) bool { return holds(b, other) }, true},
		"the record of the session is refused": {func(b *bgagent.StoreBatch, _, _ string) bool {
			return slices.ContainsFunc(b.Records, isSession)
		}, false},
		"the deletion is refused": {func(b *bgagent.StoreBatch, top, _ string) bool { return slices.Contains(b.Delete, top) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			withHands(t, working(time.Second), bgagent.Config{MaxDepth: 2}, func(t *testing.T, m *bgagent.BackgroundManager, _ *storetest.Memory, h *hands) {
				top, other := launch(t, m, "top").ID, launch(t, m, "other").ID
				synctest.Wait()
				session := get(t, m, top).Session
				below, err := m.Launch(t.Context(), bgagent.Caller{Session: session}, bgagent.LaunchInput{Agent: "worker", Prompt: "below"})
				require.NoError(t, err)
				ended(t, m, top, other, below.ID)
				time.Sleep(time.Minute)
				var kept, gone atomic.Bool // whether the store contains the session's record, and whether it has deleted the task
				refused := h.refuse(func(b *bgagent.StoreBatch) bool {
					if c.bad(b, top, other) {
						return true
					}
					if slices.ContainsFunc(b.Records, func(r bgagent.StoreRecord) bool { return isSession(r) && strings.HasSuffix(r.Key, session) }) {
						kept.Store(true)
					}
					if slices.Contains(b.Delete, top) {
						gone.Store(true)
					}
					if gone.Load() && !kept.Load() {
						t.Error("the task is deleted, but the record of its session is not written")
					}
					return false
				})
				go func() { _, _ = m.Resume(t.Context(), root, other, bgagent.ResumeInput{Prompt: "more"}) }() // changes another record
				err = m.Forget(t.Context(), root, top, bgagent.ForgetOptions{Force: true})
				time.Sleep(time.Minute)
				require.NotZero(t, refused.Load())
				require.Equal(t, c.deleted, gone.Load())
				if c.deleted {
					require.NoError(t, err)
					return
				}
				require.ErrorContains(t, err, "refuses to delete")
				task, err := m.Read(root, top)
				require.NoError(t, err, "the task stays in the store")
				require.NotEmpty(t, task.Result)
			})
		})
	}
}

func isSession(r bgagent.StoreRecord) bool { return r.Kind == bgagent.StoreSession }
