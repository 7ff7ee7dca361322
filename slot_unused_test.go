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

// In this test, a task runs another task in the foreground. The other task loses its slot before
// its turn begins. The call must not wait for the other task to get another slot, because the
// caller might hold the only slot.
func TestAForegroundCallDoesNotWaitForATaskThatLosesItsUnusedSlot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scriptedSource{}
		store := &slowStore{Store: (&storetest.Memory{}).Process()}
		var m *bgagent.BackgroundManager
		returned := make(chan error, 1)
		f := &goRunner{run: func(ctx context.Context, session string, p bgagent.Prompt, _ *bgagent.Reporter) (bgagent.TurnEnd, error) {
			if p.Text == "parent" {
				_, err := m.Run(ctx, bgagent.Caller{Session: session}, bgagent.LaunchInput{Agent: "worker", Prompt: "child"})
				returned <- err
			}
			return bgagent.TurnEnd{Text: "ok"}, nil
		}}
		m = manage(t, f, bgagent.Config{Store: store, Slots: s, MaxDepth: 3})
		launch(t, m, "parent")
		s.claim(t, 0).h.SlotGranted()
		k := s.claim(t, 1)
		time.Sleep(900 * time.Millisecond)
		store.slow.Store(true)
		k.h.SlotGranted()
		time.Sleep(600 * time.Millisecond)
		k.lose(5 * time.Second)
		again := s.claim(t, 2)
		time.Sleep(2 * time.Second)
		select {
		case err := <-returned:
			require.ErrorIs(t, err, bgagent.ErrGoesOn)
		default:
			t.Fatal("Run waits for a task that has no slot")
		}
		store.slow.Store(false)
		s.mu.Lock()
		s.auto = true // the parent needs a slot for its turn with the notice
		s.mu.Unlock()
		again.h.SlotGranted()
		for _, task := range m.List(bgagent.Query{}) {
			require.Equal(t, bgagent.Completed, ended(t, m, task.ID)[0].Status)
		}
	})
}

// In this test, the runtime cannot be reached, and a task that waits to start loses its slot. When
// the runtime can be reached again, the tasks behind this task must start.
func TestALostSlotDoesNotProlongAnOutage(t *testing.T) {
	for _, stage := range []string{"create", "prompt"} {
		t.Run(stage, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &scriptedSource{}
				var down atomic.Bool
				down.Store(true)
				f := &goRunner{}
				f.create = func(context.Context, bgagent.SessionSpec) (string, error) {
					if stage == "create" && down.Load() {
						return "", errRefused
					}
					return f.nextID(), nil
				}
				f.run = func(context.Context, string, bgagent.Prompt, *bgagent.Reporter) (bgagent.TurnEnd, error) {
					if down.Load() {
						return bgagent.TurnEnd{}, errRefused
					}
					return bgagent.TurnEnd{Text: "ok"}, nil
				}
				m := manage(t, f, bgagent.Config{Slots: s})
				first, second := launch(t, m, "first"), launch(t, m, "second")
				s.claim(t, 0).h.SlotGranted()
				synctest.Wait()
				s.claim(t, 1).h.SlotGranted()
				time.Sleep(10 * time.Second)
				s.claim(t, 0).lose(5 * time.Second)
				time.Sleep(10 * time.Second)
				down.Store(false)
				time.Sleep(10 * time.Second)
				require.Equal(t, bgagent.CauseSlotLost, get(t, m, first.ID).Cause)
				require.Equal(t, bgagent.Completed, get(t, m, second.ID).Status)
			})
		})
	}
}
