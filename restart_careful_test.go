package bgagent_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

// The function "poison" crashes the process whenever a value is sent to the channel "deadly". It
// returns the manager of the first process that sends nothing for five minutes, and the number of
// crashes.
func poison(t *testing.T, w *world, deadly <-chan struct{}) (m *bgagent.BackgroundManager, crashes int) {
	for ; ; crashes++ {
		require.Less(t, crashes, 40)
		m = w.begin()
		m.Start()
		select {
		case <-deadly:
			w.crash()
		case <-time.After(5 * time.Minute):
			return m, crashes
		}
	}
}

// deadlyTurns returns a channel that gets a value when a turn of one of the tasks begins. The
// function "poison" then crashes the process.
func (w *world) deadlyTurns(ids ...string) <-chan struct{} {
	deadly := make(chan struct{}, 1)
	w.reports = func(_ string, p bgagent.Prompt, _ *bgagent.Reporter) {
		if slices.Contains(ids, p.Task) {
			select {
			case deadly <- struct{}{}:
			default:
			}
		}
	}
	return deadly
}

func TestATaskThatCrashesTheProcessDoesNotExhaustTheRestartsOfOthers(t *testing.T) {
	for bad := range 3 { // index of the task whose turns crash the process
		inWorld(t, func(t *testing.T, w *world) {
			m := w.begin()
			var ids []string
			for _, prompt := range []string{"a", "b", "c"} {
				ids = append(ids, launch(t, m, prompt).ID)
				time.Sleep(time.Second)
			}
			w.crash()
			m, _ = poison(t, w, w.deadlyTurns(ids[bad]))
			for i, task := range ended(t, m, ids...) {
				if i == bad {
					require.Equal(t, bgagent.CauseInterrupted, task.Cause)
					require.Contains(t, task.Reason, "3 times")
				} else {
					require.Equal(t, bgagent.Completed, task.Status, task.Reason)
				}
			}
		})
	}
}

// turnOf returns the ids of the tasks in a turn, and those of the tasks that are waiting to be
// continued.
func turnOf(m *bgagent.BackgroundManager) (turns, waits []string) {
	for _, x := range m.List(bgagent.Query{Status: []bgagent.Status{bgagent.Running}}) {
		switch {
		case x.Phase == bgagent.PhaseTurn:
			turns = append(turns, x.ID)
		case strings.HasPrefix(x.Progress.Detail, "waits until the tasks before it are continued"):
			waits = append(waits, x.ID)
		}
	}
	return turns, waits
}

func TestAttemptsAreContinuedOneAfterTheOtherAfterTwoCrashes(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.takes(time.Hour)
		m := w.begin()
		for _, prompt := range []string{"a", "b", "c", "d"} {
			launch(t, m, prompt)
		}
		again := func(after time.Duration) {
			time.Sleep(after)
			w.crash()
			m = w.begin()
			m.Start()
			time.Sleep(time.Second)
		}
		expect := func(inTurn, waiting int) (turns, waits []string) {
			t.Helper()
			turns, waits = turnOf(m)
			require.Len(t, turns, inTurn)
			require.Len(t, waits, waiting)
			return turns, waits
		}
		cancel := func(id string) {
			_, err := m.Cancel(t.Context(), root, id, bgagent.CancelOptions{})
			require.NoError(t, err)
			time.Sleep(time.Second)
			require.True(t, get(t, m, id).Quiet)
		}
		again(time.Second)
		expect(4, 0)
		again(0)
		turns, _ := expect(1, 3)
		time.Sleep(8 * time.Second)
		expect(1, 3)
		cancel(turns[0]) // the manager continues the next task immediately
		_, waits := expect(1, 2)
		cancel(waits[1])
		expect(1, 1)
		time.Sleep(10 * time.Second)
		expect(2, 0)
		again(5 * time.Minute)
		expect(2, 0)
	})
}

func TestASuspensionIsNoCrash(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.takes(time.Hour)
		m := w.begin()
		for _, prompt := range []string{"a", "b"} {
			launch(t, m, prompt)
		}
		time.Sleep(time.Second)
		w.crash()
		m = w.begin()
		m.Start()
		time.Sleep(time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		require.NoError(t, m.Suspend(ctx))
		m = w.begin()
		m.Start()
		time.Sleep(time.Second)
		turns, waits := turnOf(m)
		require.Len(t, turns, 2)
		require.Empty(t, waits)
	})
}

func TestATaskThatCrashesTheProcessAgainAndAgainEndsAtLast(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.takes(time.Hour)
		m := w.begin()
		id := launch(t, m, "a").ID
		sourceAnswers()
		crashes := 0
		for ; get(t, m, id).Status == bgagent.Running; crashes++ {
			require.Less(t, crashes, 20)
			time.Sleep(15 * time.Second) // longer than the pause before the next attempt
			w.crash()
			m = w.begin()
			m.Start()
			time.Sleep(time.Second)
		}
		require.Equal(t, bgagent.CauseInterrupted, get(t, m, id).Cause)
		require.Equal(t, 13, crashes)
	})
}

func TestAttemptsAreContinuedOneAfterTheOtherUntilTheLast(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.cfg.Limits.Default = bgagent.Unlimited
		w.takes(30 * time.Minute)
		m := w.begin()
		var ids []string
		for range 16 {
			ids = append(ids, launch(t, m, "work").ID)
		}
		time.Sleep(time.Second)
		bad := ids[13:]
		w.crash()
		m, _ = poison(t, w, w.deadlyTurns(bad...))
		for _, id := range ids {
			task, err := m.Read(bgagent.Caller{}, id) // Get does not find an ended task of an earlier process, because the task is not loaded
			require.NoError(t, err)
			if slices.Contains(bad, id) {
				require.Equal(t, bgagent.CauseInterrupted, task.Cause)
			} else {
				require.Equal(t, bgagent.Running, task.Status, task.Reason)
			}
		}
	})
}

func TestASessionWhoseRestoreCrashesTheProcessIsLeftAloneAtLast(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.takes(time.Hour)
		m := w.begin()
		bad, good := launch(t, m, "bad").ID, launch(t, m, "good").ID
		time.Sleep(time.Second)
		w.crash()
		deadly := make(chan struct{}, 1)
		w.restores = func(r bgagent.SessionRestore) bool {
			if r.Spec.Task != bad {
				return false
			}
			deadly <- struct{}{}
			return true
		}
		m, crashes := poison(t, w, deadly)
		require.LessOrEqual(t, crashes, 6)
		end, err := m.Read(bgagent.Caller{}, bad)
		require.NoError(t, err)
		require.Equal(t, bgagent.CauseInterrupted, end.Cause)
		require.False(t, end.Quiet, "it is unknown what its session does")
		require.Equal(t, bgagent.Running, get(t, m, good).Status)
	})
}

func TestAttemptsThatWaitForTheirTurnAreNotContinuedDuringASuspension(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.takes(time.Hour)
		m := w.begin()
		for range 4 {
			launch(t, m, "work")
		}
		for range 2 {
			time.Sleep(time.Second)
			w.crash()
			m = w.begin()
			m.Start()
		}
		time.Sleep(time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
		defer cancel()
		require.NoError(t, m.Suspend(ctx))
		m = w.begin()
		m.Start()
		time.Sleep(time.Second)
		turns, waits := turnOf(m)
		require.Len(t, turns, 4, "a suspension does not count as a crash")
		require.Empty(t, waits)
	})
}
