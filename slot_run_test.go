package bgagent_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

// In this test, a task runs another task in the foreground. The first task holds its own slot while
// it waits for the other task. Therefore, if no slot is free, the first task does not wait for
// long.
func TestATaskRunsAnotherOneIfTheSourceGrantsTheSlotInTime(t *testing.T) {
	for name, after := range map[string]time.Duration{"in time": 900 * time.Millisecond, "too late": 1100 * time.Millisecond} {
		t.Run(name, func(t *testing.T) { runsAnother(t, after, false) })
		t.Run("launched and waited for, "+name, func(t *testing.T) { runsAnother(t, after, true) })
	}
}

// runsAnother tests a task that runs another task. The source grants the other task's slot once the
// time in the parameter "after" has passed. If waits is true, the task launches the other task in
// the background and waits for it.
func runsAnother(t *testing.T, after time.Duration, waits bool) {
	synctest.Test(t, func(t *testing.T) {
		s := &scriptedSource{}
		var m *bgagent.BackgroundManager
		var child bgagent.Task
		var err error
		var took time.Duration
		f := &goRunner{}
		f.run = func(ctx context.Context, session string, p bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
			if p.Text == "parent" {
				began := time.Now()
				by, in := bgagent.Caller{Session: session}, bgagent.LaunchInput{Agent: "worker", Prompt: "child"}
				if waits {
					child, err = m.Launch(ctx, by, in)
					var tasks []bgagent.Task
					if tasks, err = m.Wait(ctx, by, bgagent.WaitAll, child.ID); len(tasks) > 0 {
						child = tasks[0]
					}
				} else {
					child, err = m.Run(ctx, by, in)
				}
				took = time.Since(began)
				return bgagent.TurnEnd{Text: "the result"}, nil
			}
			return works(time.Minute)(ctx, session, p, r)
		}
		m = manage(t, f, bgagent.Config{MaxDepth: 2, Slots: s})
		launch(t, m, "parent")
		s.claim(t, 0).h.SlotGranted()
		k := s.claim(t, 1)
		time.Sleep(after)
		k.h.SlotGranted()
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		if after < time.Second {
			require.NoError(t, err)
			require.Equal(t, bgagent.Completed, child.Status)
			require.Equal(t, after+time.Minute, took)
		} else {
			require.ErrorIs(t, err, bgagent.ErrGoesOn)
			require.Equal(t, bgagent.Pending, child.Status)
			require.Equal(t, time.Second, took)
		}
	})
}
