package bgagent_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

// poison makes every process crash in which a turn of the task with the given prompt begins. It
// returns the manager of the process in which no such turn has begun for two minutes.
func poison(t *testing.T, w *world, prompt string) *bgagent.BackgroundManager {
	deadly := make(chan struct{}, 1)
	w.reports = func(_ string, p bgagent.Prompt, _ *bgagent.Reporter) {
		if p.Task == prompt {
			deadly <- struct{}{}
		}
	}
	for crashes := 0; ; crashes++ {
		require.Less(t, crashes, 20)
		m := w.begin()
		m.Start()
		select {
		case <-deadly:
			w.crash()
		case <-time.After(2 * time.Minute):
			return m
		}
	}
}

func TestATaskThatCrashesTheProcessDoesNotExhaustTheRestartsOfOthers(t *testing.T) {
	for bad := range 3 { // place of the task among all tasks
		inWorld(t, func(t *testing.T, w *world) {
			m := w.begin()
			var ids []string
			for _, prompt := range []string{"a", "b", "c"} {
				ids = append(ids, launch(t, m, prompt).ID)
				time.Sleep(time.Second)
			}
			w.crash()
			m = poison(t, w, ids[bad])
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

// turnOf returns the ids of the tasks in a turn, and those of the tasks that wait to be continued.
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
		cancel(turns[0]) // the next one is continued at once
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
		w.called()
		m = w.begin()
		m.Start()
		time.Sleep(time.Second)
		require.Subset(t, w.called(), []string{"RunTurn", "RunTurn"})
		n := 0
		for _, task := range m.List(bgagent.Query{}) {
			if task.Progress.Detail == "" {
				n++
			}
		}
		require.Equal(t, 2, n)
	})
}

func TestATaskThatCrashesTheProcessAgainAndAgainEndsAtLast(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.takes(time.Hour)
		m := w.begin()
		id := launch(t, m, "a").ID
		crashes := 0
		for ; get(t, m, id).Status == bgagent.Running; crashes++ {
			require.Less(t, crashes, 20)
			time.Sleep(15 * time.Second) // longer than other attempts wait for it
			w.crash()
			m = w.begin()
			m.Start()
			time.Sleep(time.Second)
		}
		require.Equal(t, bgagent.CauseInterrupted, get(t, m, id).Cause)
		require.Equal(t, 13, crashes)
	})
}
