package bgagent_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

func TestADeletedSessionIsNotResumedFromItsTombstone(t *testing.T) {
	for _, when := range []string{"before", "after"} {
		t.Run(when, func(t *testing.T) {
			bubble(t, working(time.Second), bgagent.Config{Retention: time.Minute}, func(t *testing.T, m *bgagent.BackgroundManager) {
				task := launch(t, m, "a")
				s := ended(t, m, task.ID)[0].Session
				if when == "before" {
					m.SessionDeleted(s)
					_, err := m.Resume(t.Context(), root, s, bgagent.ResumeInput{Prompt: "b"})
					require.ErrorIs(t, err, bgagent.ErrNoSession)
				}
				_, err := m.Read(root, task.ID)
				require.NoError(t, err)
				time.Sleep(2 * time.Minute)
				_, err = m.Get(task.ID)
				require.ErrorIs(t, err, bgagent.ErrExpired)
				if when == "after" {
					m.SessionDeleted(s)
				}
				_, err = m.Resume(t.Context(), root, s, bgagent.ResumeInput{Prompt: "b"})
				require.ErrorIs(t, err, bgagent.ErrNoSession)
			})
		})
	}
}

func TestATombstoneIsNotResumedWhileItsAbortHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var aborting atomic.Int64
		var together bool
		f := &goRunner{}
		f.abort = func(context.Context, string) error {
			aborting.Add(1)
			defer aborting.Add(-1)
			time.Sleep(time.Hour)
			return nil
		}
		f.run = func(_ context.Context, _ string, p bgagent.Prompt, _ *bgagent.Reporter) (bgagent.TurnEnd, error) {
			if p.Text == "a" {
				time.Sleep(10 * time.Minute) // the turn ignores its context
				return bgagent.TurnEnd{}, errors.New("stopped")
			}
			together = aborting.Load() > 0
			return bgagent.TurnEnd{Text: "x"}, nil
		}
		m := manage(t, f, bgagent.Config{Retention: time.Minute})
		task := launch(t, m, "a")
		synctest.Wait()
		s := get(t, m, task.ID).Session
		_, err := m.Cancel(t.Context(), root, task.ID, bgagent.CancelOptions{})
		require.NoError(t, err)
		time.Sleep(5 * time.Minute)
		_, err = m.Resume(t.Context(), root, s, bgagent.ResumeInput{Prompt: "b"})
		require.ErrorIs(t, err, bgagent.ErrNotStopped)
		time.Sleep(10 * time.Minute) // RunTurn has returned, but Abort has not
		_, err = m.Resume(t.Context(), root, s, bgagent.ResumeInput{Prompt: "b"})
		synctest.Wait()
		time.Sleep(3 * time.Hour)
		require.False(t, together, "RunTurn was called before an Abort of the session had returned")
		require.ErrorIs(t, err, bgagent.ErrNotStopped)
	})
}

// The function "slowly" runs a turn. It returns a second after its context has ended.
func slowly(ctx context.Context, _ string, p bgagent.Prompt, _ *bgagent.Reporter) (bgagent.TurnEnd, error) {
	<-ctx.Done()
	time.Sleep(time.Second)
	return bgagent.TurnEnd{}, ctx.Err()
}

func TestATombstoneIsResumableOnceItsAbortHasReturned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &goRunner{run: slowly}
		f.abort = func(context.Context, string) error { time.Sleep(10 * time.Minute); return nil }
		t.Cleanup(func() { time.Sleep(time.Hour) }) // wait until all Abort calls have returned
		m := manage(t, f, bgagent.Config{Retention: time.Minute})
		task := launch(t, m, "a")
		synctest.Wait()
		s := get(t, m, task.ID).Session
		_, err := m.Cancel(t.Context(), root, task.ID, bgagent.CancelOptions{})
		require.NoError(t, err)
		time.Sleep(time.Hour) // the turn has returned after 1 s, and every Abort call after 10 min
		_, err = m.Resume(t.Context(), root, s, bgagent.ResumeInput{Prompt: "b"})
		require.NoError(t, err)
	})
}

func TestTheEndedTurnOfAResumedTaskMayNotLaunch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m *bgagent.BackgroundManager
		var err1, err2 error
		f := &goRunner{}
		f.run = func(ctx context.Context, s string, p bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
			if p.Text == "a" {
				<-ctx.Done()
				in := bgagent.LaunchInput{Agent: "a", Prompt: "child"}
				time.Sleep(time.Second)
				_, err1 = m.Launch(context.Background(), bgagent.Caller{Session: s}, in)
				time.Sleep(2 * time.Second)
				_, err2 = m.Launch(context.Background(), bgagent.Caller{Session: s}, in)
				return bgagent.TurnEnd{}, ctx.Err()
			}
			return works(time.Second)(ctx, s, p, r)
		}
		m = manage(t, f, bgagent.Config{MaxDepth: 2})
		a := launch(t, m, "a")
		synctest.Wait()
		_, err := m.Cancel(t.Context(), root, a.ID, bgagent.CancelOptions{})
		require.NoError(t, err)
		time.Sleep(2 * time.Second)
		_, err = m.Resume(t.Context(), root, a.ID, bgagent.ResumeInput{Prompt: "go on"})
		require.NoError(t, err)
		time.Sleep(3 * time.Second)
		synctest.Wait()
		require.ErrorIs(t, err1, bgagent.ErrSessionEnded)
		require.ErrorIs(t, err2, bgagent.ErrSessionEnded)
	})
}

func TestARepeatedResumeOfATombstoneIsOne(t *testing.T) {
	bubble(t, working(time.Second), bgagent.Config{Retention: time.Minute}, func(t *testing.T, m *bgagent.BackgroundManager) {
		id := launch(t, m, "a").ID
		s := ended(t, m, id)[0].Session
		_, err := m.Read(root, id)
		require.NoError(t, err)
		time.Sleep(2 * time.Minute)
		_, err = m.Get(id)
		require.ErrorIs(t, err, bgagent.ErrExpired)
		by := bgagent.Caller{Session: "root", ToolCallID: "c"}
		one, err := m.Resume(t.Context(), by, s, bgagent.ResumeInput{Prompt: "more"})
		require.NoError(t, err)
		two, err := m.Resume(t.Context(), by, s, bgagent.ResumeInput{Prompt: "more"})
		require.NoError(t, err)
		require.Equal(t, one.Attempt, two.Attempt)
	})
}

func TestAContinuedTaskThatNeverStartedGetsItsPromptFirst(t *testing.T) {
	const follow = "Continue: and say when you are done"
	for name, c := range map[string]struct {
		spoil func(f *server)
		stop  bool
	}{
		"cancelled in line":            {nil, true},
		"session could not be created": {func(f *server) { f.createErr = errors.New("no") }, false},
		"prompt was not accepted":      {func(f *server) { f.startErr = errors.New("no") }, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newServer().answers(time.Second)
				if c.spoil != nil {
					c.spoil(f)
				}
				m := manage(t, f, limit(1))
				ctx := t.Context()
				if c.stop {
					launch(t, m, "in the way")
				}
				id := launch(t, m, "count the files").ID
				if c.stop {
					_, err := m.Cancel(ctx, root, id, bgagent.CancelOptions{})
					require.NoError(t, err)
				}
				ended(t, m, id)
				f.do(func() { f.startErr = errors.New("no"); f.createErr = nil })
				_, err := m.Resume(ctx, root, id, bgagent.ResumeInput{Prompt: "in French"})
				require.NoError(t, err)
				require.Equal(t, bgagent.CausePromptFailed, ended(t, m, id)[0].Cause)
				time.Sleep(time.Minute)
				f.do(func() { f.startErr = nil })
				for _, want := range []string{"count the files\n\nin French\n\n" + follow, follow} {
					task, err := m.RunResume(ctx, root, id, bgagent.ResumeInput{Prompt: follow})
					require.NoError(t, err)
					require.Equal(t, bgagent.Completed, task.Status, task.Reason)
					prompts := f.prompted()
					require.Equal(t, want, prompts[len(prompts)-1].Text)
				}
			})
		})
	}
}

func TestAPromptThatIsTriedAgainIsSentOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newServer().answers(time.Second)
		f.startErr = errors.New("no")
		m := manage(t, f, limit(1))
		id := launch(t, m, "count the files").ID
		ended(t, m, id)
		for _, prompt := range []string{"count the files", "in French", "in French"} {
			time.Sleep(time.Minute)
			_, err := m.Resume(t.Context(), root, id, bgagent.ResumeInput{Prompt: prompt})
			require.NoError(t, err)
			require.Equal(t, bgagent.CausePromptFailed, ended(t, m, id)[0].Cause)
		}
		time.Sleep(time.Minute)
		f.do(func() { f.startErr = nil })
		task, err := m.RunResume(t.Context(), root, id, bgagent.ResumeInput{Prompt: "in French"})
		require.NoError(t, err)
		require.Equal(t, bgagent.Completed, task.Status, task.Reason)
		prompts := f.prompted()
		require.Equal(t, "count the files\n\nin French", prompts[len(prompts)-1].Text)
	})
}

func TestTwoResumesTakeOneSlot(t *testing.T) {
	bubble(t, working(time.Minute), limit(2), func(t *testing.T, m *bgagent.BackgroundManager) {
		a := launch(t, m, "a")
		ended(t, m, a.ID)
		errs := make(chan error, 2)
		for range 2 {
			go func() {
				_, err := m.Resume(context.Background(), root, a.ID, bgagent.ResumeInput{Prompt: "go on"})
				errs <- err
			}()
		}
		first, second := <-errs, <-errs
		if first != nil {
			first, second = second, first
		}
		require.NoError(t, first)
		require.ErrorIs(t, second, bgagent.ErrStillLive)
		task := ended(t, m, a.ID)[0]
		require.Equal(t, 2, task.Attempt)
		require.Len(t, task.Attempts, 1)
		require.Equal(t, 0, m.Concurrency().Stats("").InUse)
		fullBatch(t, m, 2)
	})
}

func TestAResumeWaitsUntilTheOldTurnHasStopped(t *testing.T) {
	for name, stops := range map[string]bool{"it stops": true, "it does not": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newServer()
				f.abort = func(_ context.Context, s string) error { f.set(s, bgagent.SessionBusy); return nil } // the session stays busy
				m := manage(t, f, limit(1))
				id, session := turnOn(t, m, "p")
				_, err := m.Cancel(t.Context(), root, id, bgagent.CancelOptions{})
				require.NoError(t, err)
				synctest.Wait()
				_, err = m.Resume(t.Context(), root, id, bgagent.ResumeInput{Prompt: "go on"})
				require.NoError(t, err)
				time.Sleep(5 * time.Second)
				require.Equal(t, bgagent.Pending, get(t, m, id).Status)
				require.Len(t, f.prompted(), 1, "a busy session must not be prompted")
				if !stops {
					task := ended(t, m, id)[0]
					require.Equal(t, bgagent.CauseNotStopped, task.Cause)
					_, err = m.Resume(t.Context(), root, id, bgagent.ResumeInput{Prompt: "go on"})
					require.ErrorIs(t, err, bgagent.ErrNotStopped)
					return
				}
				f.set(session, bgagent.SessionIdle)
				time.Sleep(time.Second)
				synctest.Wait()
				require.Len(t, f.prompted(), 2)
				f.say(session, "second")
				require.Equal(t, "second", ended(t, m, id)[0].Result)
			})
		})
	}
}

// In this test, CreateSession hangs beyond the stopping deadline. No session exists yet, so none
// can be marked as stuck. The resume must still be refused, because the new attempt would wait
// forever.
func TestResumeDuringAHangingStartIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &goRunner{run: works(time.Second)}
		f.create = func(context.Context, bgagent.SessionSpec) (string, error) {
			time.Sleep(time.Hour)
			return f.nextID(), nil
		}
		m := manage(t, f, bgagent.Config{})
		task := launch(t, m, "work")
		time.Sleep(time.Minute)
		require.Equal(t, bgagent.Failed, get(t, m, task.ID).Status)
		_, err := m.Resume(t.Context(), root, task.ID, bgagent.ResumeInput{Prompt: "more"})
		require.ErrorIs(t, err, bgagent.ErrNotStopped)
		time.Sleep(time.Hour)
		_, err = m.Resume(t.Context(), root, task.ID, bgagent.ResumeInput{Prompt: "more"})
		require.NoError(t, err)
		ended(t, m, task.ID)
	})
}

// A session that did not stop is not prompted, even if the record of its task has expired.
func TestExpiredTaskWhoseSessionDidNotStopIsNotResumed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stop := make(chan struct{})
		f := &goRunner{run: func(context.Context, string, bgagent.Prompt, *bgagent.Reporter) (bgagent.TurnEnd, error) {
			<-stop
			return bgagent.TurnEnd{}, errors.New("stopped")
		}}
		m := manage(t, f, bgagent.Config{Retention: time.Minute})
		task := launch(t, m, "work")
		synctest.Wait()
		_, err := m.Cancel(t.Context(), root, task.ID, bgagent.CancelOptions{})
		require.NoError(t, err)
		time.Sleep(time.Hour)
		_, err = m.Get(task.ID)
		require.ErrorIs(t, err, bgagent.ErrExpired)
		_, err = m.Resume(t.Context(), root, "ses_1", bgagent.ResumeInput{Prompt: "more"})
		require.ErrorIs(t, err, bgagent.ErrNotStopped)
		close(stop)
		synctest.Wait()
		f.run = works(time.Second)
		_, err = m.Resume(t.Context(), root, "ses_1", bgagent.ResumeInput{Prompt: "more"})
		require.NoError(t, err)
		ended(t, m, task.ID)
	})
}

// When another caller resumes a task, the notice that the earlier parent was owed is abandoned. As
// a result, records can expire, but the record of the resumed task must not.
func TestResumeByAnotherDoesNotExpireTheTask(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m *bgagent.BackgroundManager
		f := &goRunner{}
		m = manage(t, f, bgagent.Config{
			MaxDepth: 2, RetainTasks: 1, Limits: bgagent.Limits{Default: 9},
			Notify: func(context.Context, string, bgagent.Notice) error { return bgagent.ErrBusy },
		})
		f.run = func(ctx context.Context, session string, p bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
			if p.Text == "delegate" {
				return delegates(&m, 2*time.Second, "child")(ctx, session, p, r)
			}
			return works(time.Second)(ctx, session, p, r)
		}
		for range 3 {
			launch(t, m, "work")
		}
		parent := launch(t, m, "delegate")
		time.Sleep(1500 * time.Millisecond)
		child := m.List(bgagent.Query{Parent: get(t, m, parent.ID).Session})[0]
		require.Equal(t, bgagent.Completed, child.Status)
		_, err := m.Resume(t.Context(), root, child.ID, bgagent.ResumeInput{Prompt: "more"})
		require.NoError(t, err)
		require.Equal(t, 2, get(t, m, child.ID).Attempt)
		synctest.Wait()
	})
}
