package bgagent_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

// The function "hangs" returns a function for Abort that ignores its context and returns when
// the function "release" is called.
func hangs() (abort func(context.Context, string) error, release func()) {
	over := make(chan struct{})
	return func(context.Context, string) error { <-over; return nil }, func() { close(over) }
}

// In this test, a turn ends on its own while it is being stopped.
func TestAnAbortThatNeverReturnsKeepsNoSlot(t *testing.T) {
	for _, delegates := range []bool{false, true} { // if the task delegates, its session gets another turn
		f := newServer()
		var retrying atomic.Bool
		retrying.Store(true)
		f.started = func(session string, p bgagent.Prompt) {
			if !retrying.Load() {
				f.say(session, "answer to "+p.Text)
			}
		}
		f.statuses = func(all map[string]bgagent.SessionStatus) {
			for id, s := range all {
				if retrying.Load() && s.State == bgagent.SessionBusy {
					e := overloaded
					all[id] = bgagent.SessionStatus{State: bgagent.SessionRetrying, RetryAt: time.Now().Add(time.Hour), Provider: &e}
				}
			}
		}
		synctest.Test(t, func(t *testing.T) {
			abort, release := hangs()
			f.abort = func(ctx context.Context, session string) error {
				f.put(session, bgagent.Message{ID: "msg", Text: "answer", Finished: true, Stop: bgagent.StopEndOfTurn})
				return abort(ctx, session)
			}
			cfg := limit(1)
			cfg.MaxDepth, cfg.StopTimeout = 2, time.Minute
			m := manage(t, f, cfg)
			defer release()
			id, session := turnOn(t, m, "p")
			if retrying.Store(false); delegates {
				_, err := m.Launch(t.Context(), bgagent.Caller{Session: session}, bgagent.LaunchInput{Agent: "worker", Prompt: "child"})
				require.NoError(t, err)
			}
			retrying.Store(true)
			time.Sleep(10 * time.Second)
			retrying.Store(false)
			require.Equal(t, 1, f.session(session).aborts)
			other := launch(t, m, "other").ID
			time.Sleep(2 * time.Hour)
			task := get(t, m, id)
			if delegates {
				require.Equal(t, bgagent.CauseNotStopped, task.Cause, task.Reason)
				require.Contains(t, task.Reason, "within 1m")
			} else {
				require.Equal(t, bgagent.Completed, task.Status, task.Reason)
				require.Equal(t, "answer", task.Result)
			}
			require.Equal(t, bgagent.Completed, get(t, m, other).Status)
		})
	}
}

func TestAParkedTaskDoesNotWaitForEverForAnAbort(t *testing.T) {
	for _, cancels := range []bool{false, true} {
		f := retries(func(r *bgagent.Reporter) { r.Retrying(overloaded, time.Now().Add(time.Hour)) })
		run := f.run
		f.run = func(ctx context.Context, session string, p bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
			defer time.Sleep(time.Second) // the Abort call begins before the end of the turn
			return run(ctx, session, p, r)
		}
		synctest.Test(t, func(t *testing.T) {
			var release func()
			f.abort, release = hangs()
			cfg := limit(1)
			cfg.StopTimeout = time.Minute
			m := manage(t, f, cfg)
			defer release()
			id := launch(t, m, "p").ID
			time.Sleep(time.Second)
			synctest.Wait()
			require.Equal(t, bgagent.PhaseParked, get(t, m, id).Phase)
			if cancels {
				_, err := m.Cancel(t.Context(), root, id, bgagent.CancelOptions{})
				require.NoError(t, err)
				_, err = m.Resume(t.Context(), root, id, bgagent.ResumeInput{Prompt: "again"})
				require.NoError(t, err)
				require.Equal(t, bgagent.Pending, get(t, m, id).Status)
			}
			time.Sleep(59 * time.Second)
			require.False(t, get(t, m, id).Status.Terminal())
			time.Sleep(2 * time.Second)
			require.Equal(t, bgagent.CauseNotStopped, get(t, m, id).Cause)
		})
	}
}
