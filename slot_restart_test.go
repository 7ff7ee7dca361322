package bgagent_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

// This test uses a source with one slot. The attempt that continues gives back the slot for its
// earlier turn, and gets it again for its next turn.
func TestWhatGoesOnAfterARestartComesBeforeWhatWaits(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.cfg.Slots = late(t, bgagent.Limits{Default: 1})
		m := w.begin()
		first := launch(t, m, "first")
		time.Sleep(time.Second)
		second := launch(t, m, "second")
		time.Sleep(10 * time.Second)
		w.crash()
		w.cfg.Slots = late(t, bgagent.Limits{Default: 1})
		m = w.begin()
		m.Start()
		synctest.Wait()
		require.Equal(t, bgagent.PhaseTurn, get(t, m, first.ID).Phase)
		require.Equal(t, bgagent.Pending, get(t, m, second.ID).Status)
		for _, task := range ended(t, m, first.ID, second.ID) {
			require.Equal(t, bgagent.Completed, task.Status, task.Reason)
		}
	})
}

// In this test, the process restarts twice while a session is being created. Each time, the attempt
// waits for a slot for an hour.
func TestTheTimeToLiveOfAStartPassesAgainOnceItsSlotIsGranted(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.cfg.Slots = &scriptedSource{auto: true}
		w.cfg.TimeToLive, w.cfg.CreateTimeout = 30*time.Minute, time.Hour
		w.start = time.Hour
		m := w.begin()
		first := launch(t, m, "explore")
		for range 2 {
			time.Sleep(10 * time.Minute)
			w.crash()
			s := &scriptedSource{}
			w.cfg.Slots = s
			m = w.begin()
			m.Start()
			k := s.claim(t, 1)
			require.True(t, k.Head)
			time.Sleep(time.Hour)
			k.h.SlotGranted()
		}
		began := time.Now()
		task := ended(t, m, first.ID)[0]
		require.Equal(t, bgagent.CauseTimeToLive, task.Cause)
		require.InDelta(t, 10*time.Minute, time.Since(began), float64(3*time.Minute))
	})
}
