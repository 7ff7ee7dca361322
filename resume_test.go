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
			synctest.Test(t, func(t *testing.T) {
				m := manage(t, &goRunner{run: works(time.Second)}, bgagent.Config{Retention: time.Minute})
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
				time.Sleep(10 * time.Minute) // ignores its context
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
		time.Sleep(10 * time.Minute) // the turn has returned, Abort has not
		_, err = m.Resume(t.Context(), root, s, bgagent.ResumeInput{Prompt: "b"})
		synctest.Wait()
		time.Sleep(3 * time.Hour)
		require.False(t, together, "RunTurn was called while an Abort of the session had not returned")
		require.ErrorIs(t, err, bgagent.ErrNotStopped)
	})
}

// slowly returns a second after its context has ended.
func slowly(ctx context.Context, _ string, p bgagent.Prompt, _ *bgagent.Reporter) (bgagent.TurnEnd, error) {
	<-ctx.Done()
	time.Sleep(time.Second)
	return bgagent.TurnEnd{}, ctx.Err()
}

func TestATombstoneIsResumableOnceItsAbortHasReturned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &goRunner{run: slowly}
		f.abort = func(context.Context, string) error { time.Sleep(10 * time.Minute); return nil }
		t.Cleanup(func() { time.Sleep(time.Hour) }) // until all of them have returned
		m := manage(t, f, bgagent.Config{Retention: time.Minute})
		task := launch(t, m, "a")
		synctest.Wait()
		s := get(t, m, task.ID).Session
		_, err := m.Cancel(t.Context(), root, task.ID, bgagent.CancelOptions{})
		require.NoError(t, err)
		time.Sleep(time.Hour) // the turn returned after 1 s, every Abort after 10 min
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

func TestWhoResumesFromATombstoneKeepsItsParents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &finder{goRunner: &goRunner{run: works(time.Second)}, parents: map[string]string{"child": "root", "root": ""}}
		m := manage(t, f, bgagent.Config{MaxDepth: 2, Retention: time.Minute})
		by := bgagent.Caller{Session: "child"}
		task, err := m.Launch(t.Context(), by, bgagent.LaunchInput{Agent: "a", Prompt: "p"})
		require.NoError(t, err)
		s := ended(t, m, task.ID)[0].Session
		_, err = m.Read(by, task.ID)
		require.NoError(t, err)
		time.Sleep(2 * time.Minute)
		task, err = m.Resume(t.Context(), by, s, bgagent.ResumeInput{Prompt: "q"})
		require.NoError(t, err)
		require.Equal(t, "root", task.Root)
		_, err = m.Cancel(t.Context(), root, task.ID, bgagent.CancelOptions{})
		require.NoError(t, err, "it descends from root")
	})
}

type slowFinder struct {
	*goRunner
	slow bool
}

func (f *slowFinder) FindSession(_ context.Context, s string) (bgagent.SessionInfo, error) {
	if s == "child" {
		if f.slow {
			time.Sleep(5 * time.Second)
		}
		return bgagent.SessionInfo{Parent: "root"}, nil
	}
	return bgagent.SessionInfo{}, bgagent.ErrNoSession
}

func TestALookUpThatComesLateKeepsTheCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &slowFinder{&goRunner{run: works(10 * time.Second)}, false}
		m, err := bgagent.New(f, bgagent.Config{MaxDepth: 2, Retention: time.Minute, MaxTasksPerRoot: 2})
		require.NoError(t, err)
		defer m.Close(context.Background())
		by := bgagent.Caller{Session: "child"}
		task, err := m.Launch(t.Context(), by, bgagent.LaunchInput{Agent: "a", Prompt: "p"})
		require.NoError(t, err)
		s := ended(t, m, task.ID)[0].Session
		_, err = m.Read(by, task.ID)
		require.NoError(t, err)
		time.Sleep(2 * time.Minute)
		f.slow = true
		go func() {
			_, err := m.Launch(t.Context(), by, bgagent.LaunchInput{Agent: "a", Prompt: "r"})
			require.NoError(t, err)
		}()
		time.Sleep(time.Second)
		_, err = m.Resume(t.Context(), by, s, bgagent.ResumeInput{Prompt: "q"})
		require.NoError(t, err)
		time.Sleep(5 * time.Second)
		require.NoError(t, bgagent.CheckInvariantsNow(m))
	})
}

func TestARepeatedResumeOfATombstoneIsOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := manage(t, &goRunner{run: works(time.Second)}, bgagent.Config{Retention: time.Minute})
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
		"cancelled in the line":           {nil, true},
		"whose session could not be made": {func(f *server) { f.createErr = errors.New("no") }, false},
		"whose prompt was not taken":      {func(f *server) { f.startErr = errors.New("no") }, false},
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
