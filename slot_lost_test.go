package bgagent_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/storetest"
	"github.com/stretchr/testify/require"
)

// In this test, an attempt loses its slot while it is being stopped. The task's next attempt is
// waiting for this attempt to end.
func TestAResumedTaskKeepsWaitingIfTheEarlierAttemptLosesItsSlot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scriptedSource{auto: true}
		f := &goRunner{run: func(_ context.Context, _ string, p bgagent.Prompt, _ *bgagent.Reporter) (bgagent.TurnEnd, error) {
			time.Sleep(2 * time.Second) // the turn takes this long even if it must stop
			return bgagent.TurnEnd{Text: "ok"}, nil
		}}
		m := manage(t, f, bgagent.Config{Slots: s})
		task := launch(t, m, "1")
		k := s.claim(t, 0)
		_, err := m.Cancel(t.Context(), bgagent.Caller{}, task.ID, bgagent.CancelOptions{})
		require.NoError(t, err)
		_, err = m.Resume(t.Context(), bgagent.Caller{Session: "root"}, task.ID, bgagent.ResumeInput{Prompt: "go on"})
		require.NoError(t, err)
		k.lose(3 * time.Second)
		require.Equal(t, bgagent.Pending, get(t, m, task.ID).Status)
		end := ended(t, m, task.ID)[0]
		require.Equal(t, bgagent.Completed, end.Status, end.Reason)
		require.Equal(t, 1, k.releases())
		require.Equal(t, 1, s.claim(t, 1).releases())
	})
}

// slowStore is a store whose writes take a second while the field "slow" is set.
type slowStore struct {
	bgagent.Store
	slow atomic.Bool
}

func (s *slowStore) Write(ctx context.Context, b *bgagent.StoreBatch) error {
	if s.slow.Load() {
		time.Sleep(time.Second)
	}
	return s.Store.Write(ctx, b)
}

// In this test, the slot is lost while the manager writes the records from which the next process
// will continue.
func TestASuspendedTaskDoesNotEndBecauseItsSlotIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scriptedSource{auto: true}
		memory := &storetest.Memory{}
		store := &slowStore{Store: memory.Process()}
		f := newServer()
		first := manage(t, f, bgagent.Config{Store: store, Slots: s})
		task, err := first.Launch(t.Context(), bgagent.Caller{Session: "root"}, bgagent.LaunchInput{Agent: "worker", Prompt: "p", Description: "d"})
		require.NoError(t, err)
		k := s.claim(t, 0)
		time.Sleep(10 * time.Second)
		store.slow.Store(true)
		done := make(chan error, 1)
		go func() { done <- first.Suspend(t.Context()) }()
		time.Sleep(time.Second / 2)
		k.lose(5 * time.Second)
		require.NoError(t, <-done)
		require.Equal(t, 1, k.releases())

		m := manage(t, f, bgagent.Config{Store: memory.Process(), Slots: &scriptedSource{auto: true}})
		m.Start()
		synctest.Wait()
		require.Equal(t, bgagent.Running, get(t, m, task.ID).Status)
	})
}

// In this test, the slot is lost while the store writes the record with the session. The session
// gets its prompt only afterwards, so the agent is not working yet.
func TestATaskThatHasNotUsedItsSlotWaitsForAnotherOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scriptedSource{}
		store := &slowStore{Store: (&storetest.Memory{}).Process()}
		var begun []string
		f := &goRunner{run: func(_ context.Context, _ string, p bgagent.Prompt, _ *bgagent.Reporter) (bgagent.TurnEnd, error) {
			begun = append(begun, p.Text)
			time.Sleep(time.Minute)
			return bgagent.TurnEnd{Text: "ok"}, nil
		}}
		f.create = func(context.Context, bgagent.SessionSpec) (string, error) {
			begun = append(begun, "create")
			return f.nextID(), nil
		}
		m := manage(t, f, bgagent.Config{Store: store, Slots: s, TimeToLive: time.Hour})
		task := launch(t, m, "prompt")
		k := s.claim(t, 0)
		time.Sleep(time.Second)
		store.slow.Store(true)
		k.h.SlotGranted()
		time.Sleep(time.Second / 2)
		k.lose(5 * time.Second)
		time.Sleep(2 * time.Hour) // the attempt's time to live is paused
		require.Equal(t, []string{"create"}, begun)
		require.Equal(t, 1, k.releases())
		require.Equal(t, bgagent.Running, get(t, m, task.ID).Status)
		k = s.claim(t, 1)
		require.True(t, k.Head)
		require.False(t, k.Running)
		k.h.SlotGranted()
		end := ended(t, m, task.ID)[0]
		require.Equal(t, bgagent.Completed, end.Status, end.Reason)
		require.Equal(t, []string{"create", "prompt"}, begun)
		require.Equal(t, 1, k.releases())
		require.Equal(t, 2, s.asked())
	})
}

// This test uses a source whose calls take some time.
func TestSuspendReturnsOnceTheSourceHasAllSlotsBack(t *testing.T) {
	for _, takes := range []time.Duration{time.Second / 2, time.Hour} {
		t.Run(takes.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &scriptedSource{auto: true, takes: takes}
				m := manage(t, newServer(), bgagent.Config{Store: (&storetest.Memory{}).Process(), Slots: s})
				launch(t, m, "1")
				k := s.claim(t, 0)
				time.Sleep(time.Second)
				err := m.Suspend(t.Context())
				k.mu.Lock()
				released := k.released
				k.mu.Unlock()
				if takes < time.Second {
					require.NoError(t, err)
					require.Equal(t, 1, released)
					return
				}
				var left *bgagent.CloseError
				require.ErrorAs(t, err, &left)
				require.Equal(t, []string{"a call to Config.Slots"}, left.Hung)
				time.Sleep(takes)
			})
		})
	}
}

// In this test, the slot for a task's second turn is lost before the turn begins. The turn's prompt
// is a notice or a message.
func TestAParentWhoseSlotIsLostHasGotNothing(t *testing.T) {
	for _, prompt := range []string{"notice", "message"} {
		t.Run(prompt, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &scriptedSource{}
				var m *bgagent.BackgroundManager
				var child bgagent.Task
				var prompts []string
				f := &goRunner{run: func(_ context.Context, session string, p bgagent.Prompt, _ *bgagent.Reporter) (bgagent.TurnEnd, error) {
					if prompts = append(prompts, p.Text); p.Text == "parent" {
						var err error
						child, err = m.Launch(t.Context(), bgagent.Caller{Session: session}, bgagent.LaunchInput{Agent: "worker", Prompt: "child", Description: "child"})
						require.NoError(t, err)
					}
					time.Sleep(time.Minute)
					return bgagent.TurnEnd{Text: "ok"}, nil
				}}
				m = manage(t, f, bgagent.Config{Slots: s, MaxDepth: 2})
				task := launch(t, m, "parent")
				s.claim(t, 0).h.SlotGranted()
				waits := s.claim(t, 1)
				want := []string{"parent"}
				time.Sleep(time.Hour)
				if prompt == "notice" {
					want = append(want, "child")
					waits.h.SlotGranted()
					time.Sleep(time.Hour)
				} else {
					_, err := m.Send(t.Context(), root, task.ID, bgagent.SendInput{Key: "k", Text: "more"})
					require.NoError(t, err)
				}
				k := s.claim(t, 2)
				require.True(t, k.Head)
				k.expire()
				k.h.SlotGranted()
				end := ended(t, m, task.ID)[0]
				synctest.Wait()
				require.Equal(t, bgagent.CauseSlotLost, end.Cause)
				require.Equal(t, want, prompts)
				require.Equal(t, 1, end.Progress.Turns)
				if prompt == "notice" {
					require.Equal(t, bgagent.NoticeGivenUp, get(t, m, child.ID).Notice)
				} else {
					require.Equal(t, []bgagent.UnconsumedMessage{{Key: "k", Text: "more"}}, end.Unconsumed)
				}
				require.Equal(t, 1, k.releases())
			})
		})
	}
}

// In this test, the process restarts after a prompt that the session did not get. The next process
// first requests a slot for the turn that might still be running. This slot does not allow a new turn.
func TestAPromptThatIsHandedOverAgainNeedsASlotOfItsOwn(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.cfg.Slots = &scriptedSource{auto: true}
		w.cfg.TimeToLive = time.Hour
		first := launch(t, w.begin(), "explore")
		time.Sleep(10 * time.Second)
		w.crash()

		w.answer = bgagent.PromptMissing
		s := &scriptedSource{}
		w.cfg.Slots = s
		m := w.begin()
		m.Start()
		runs := s.claim(t, 0)
		require.True(t, runs.Running)
		runs.expire()
		runs.h.SlotGranted()
		time.Sleep(2 * time.Hour) // the attempt's time to live is paused
		k := s.claim(t, 1)
		require.Equal(t, 1, runs.releases())
		require.Equal(t, bgagent.Running, get(t, m, first.ID).Status)
		require.True(t, k.Head)
		require.False(t, k.Running)
		require.WithinDuration(t, first.Queued, k.Queued, time.Second)
		require.Len(t, w.prompts("ses_1"), 1)
		k.h.SlotGranted()
		task := ended(t, m, first.ID)[0]
		require.Equal(t, bgagent.Completed, task.Status, task.Reason)
		require.Equal(t, []string{first.ID + ".1.1", first.ID + ".1.1"}, w.prompts(task.Session))
		require.Equal(t, 1, k.releases())
	})
}

func TestASourceThatReturnsNoClaimEndsTheTask(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := manage(t, working(time.Minute), bgagent.Config{Slots: &scriptedSource{none: true, auto: true}})
		end := ended(t, m, launch(t, m, "1").ID)[0]
		require.Equal(t, bgagent.CauseSlotLost, end.Cause)
		require.Contains(t, end.Reason, "no claim")
	})
}

func TestASlotCanBeLostWithoutAReason(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scriptedSource{}
		m := manage(t, working(time.Minute), bgagent.Config{Slots: s})
		task := launch(t, m, "1")
		s.claim(t, 0).h.SlotLost(time.Now(), nil)
		require.Equal(t, "its slot is lost: the slot is lost", ended(t, m, task.ID)[0].Reason)
	})
}
