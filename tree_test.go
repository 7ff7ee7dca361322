package bgagent_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/inside"
	"github.com/stretchr/testify/require"
)

// orphan returns a running task whose parent task has expired.
func orphan(t *testing.T, m *bgagent.BackgroundManager) bgagent.Task {
	parent := launch(t, m, "work")
	ended(t, m, parent.ID)
	orphan, err := m.Launch(t.Context(), bgagent.Caller{Session: "ses_1"}, bgagent.LaunchInput{Agent: "other", Prompt: "long"})
	require.NoError(t, err)
	m.TakeNotice("root")
	time.Sleep(5 * time.Minute)
	_, err = m.Get(parent.ID)
	require.ErrorIs(t, err, bgagent.ErrExpired)
	return orphan
}

// longOr returns a RunTurn function. A turn with the prompt "long" takes an hour,
// and any other turn takes the duration d.
func longOr(d time.Duration) func(context.Context, string, bgagent.Prompt, *bgagent.Reporter) (bgagent.TurnEnd, error) {
	return func(ctx context.Context, session string, p bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
		if p.Text == "long" {
			return works(time.Hour)(ctx, session, p, r)
		}
		return works(d)(ctx, session, p, r)
	}
}

// A task whose parent tasks have expired still belongs to its root session: the
// root session counts it, lists it and can cancel it.
func TestTaskUnderExpiredOnesBelongsToItsRoot(t *testing.T) {
	bubble(t, &goRunner{run: longOr(time.Second)}, bgagent.Config{MaxDepth: 3, Retention: time.Minute, TimeToLive: 2 * time.Hour, Wake: bgagent.WakeNever}, func(t *testing.T, m *bgagent.BackgroundManager) {
		launch(t, m, "long")
		synctest.Wait() // now the task has the session ses_1
		by := root
		for _, prompt := range []string{"first", "second", "long"} {
			task, err := m.Launch(t.Context(), by, bgagent.LaunchInput{Agent: "worker", Prompt: prompt})
			require.NoError(t, err)
			synctest.Wait()
			by = bgagent.Caller{Session: get(t, m, task.ID).Session}
			if prompt != "long" {
				ended(t, m, task.ID)
			}
		}
		for _, session := range []string{"ses_2", "root"} { // tasks whose notices were taken can expire
			m.TakeNotice(session)
			time.Sleep(2 * time.Minute)
		}
		require.Len(t, m.List(bgagent.Query{}), 2, "the tasks above must have expired")
		require.Len(t, m.List(bgagent.Query{Under: "root"}), 2)
		live, _ := m.Outstanding("root")
		require.Equal(t, 2, live)
		_, err := m.Launch(t.Context(), by, bgagent.LaunchInput{Agent: "worker", Prompt: "deeper"})
		require.ErrorIs(t, err, bgagent.ErrDepth)
		deeper, err := m.Launch(t.Context(), bgagent.Caller{Session: "ses_2"}, bgagent.LaunchInput{Agent: "worker", Prompt: "another second"})
		require.NoError(t, err, "the session of a completed task may delegate, even if the record of the task has expired")
		require.Equal(t, 2, deeper.Depth)
		require.Equal(t, "root", deeper.Root)
		cancelled, err := m.CancelAll(t.Context(), root, bgagent.CancelOptions{})
		require.NoError(t, err)
		require.Len(t, cancelled, 3)
	})
}

// If the parent of a resumed task has expired, the root session becomes the task's parent and gets
// the notice.
func TestResumeUnderAnExpiredParentTellsTheRoot(t *testing.T) {
	bubble(t, &goRunner{run: longOr(time.Second)}, bgagent.Config{MaxDepth: 2, Retention: time.Minute, TimeToLive: 2 * time.Hour}, func(t *testing.T, m *bgagent.BackgroundManager) {
		task := orphan(t, m)
		_, err := m.Cancel(t.Context(), bgagent.Caller{}, task.ID, bgagent.CancelOptions{})
		require.NoError(t, err)
		task, err = m.Resume(t.Context(), bgagent.Caller{}, task.ID, bgagent.ResumeInput{Prompt: "more"})
		require.NoError(t, err)
		require.Equal(t, "root", task.Parent)
		ended(t, m, task.ID)
		n, ok := m.TakeNotice("root")
		require.True(t, ok)
		require.Equal(t, task.ID, n.Items[0].Task)
	})
}

// In this test, the host resumes a task that has expired and whose parent was cancelled. The root
// session gets the notice, as it would if the task had not expired.
func TestTombstoneUnderACancelledParentTellsTheRoot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m *bgagent.BackgroundManager
		f := &goRunner{}
		m = manage(t, f, bgagent.Config{MaxDepth: 2, Retention: time.Minute, TimeToLive: 2 * time.Hour})
		f.run = func(ctx context.Context, session string, p bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
			if p.Text == "delegate" {
				return delegates(&m, time.Hour, "child")(ctx, session, p, r)
			}
			return works(time.Second)(ctx, session, p, r)
		}
		parent := launch(t, m, "delegate")
		time.Sleep(2 * time.Second)
		child := m.List(bgagent.Query{Parent: "ses_1"})[0]
		_, err := m.Read(bgagent.Caller{Session: "ses_1"}, child.ID)
		require.NoError(t, err)
		time.Sleep(5 * time.Minute)
		_, err = m.Cancel(t.Context(), bgagent.Caller{}, parent.ID, bgagent.CancelOptions{})
		require.NoError(t, err)
		again, err := m.Resume(t.Context(), bgagent.Caller{}, child.Session, bgagent.ResumeInput{Prompt: "more"})
		require.NoError(t, err)
		require.Equal(t, "root", again.Parent)
		ended(t, m, again.ID)
	})
}

// When a task is revived from its tombstone, its children become part of the
// tree's counts again.
func TestRevivedTaskCountsItsChildren(t *testing.T) {
	bubble(t, &goRunner{run: longOr(time.Second)}, bgagent.Config{MaxDepth: 2, Retention: time.Minute, TimeToLive: 2 * time.Hour}, func(t *testing.T, m *bgagent.BackgroundManager) {
		orphan(t, m)
		task, err := m.Resume(t.Context(), bgagent.Caller{}, "ses_1", bgagent.ResumeInput{Prompt: "more"})
		require.NoError(t, err)
		live, _ := m.Outstanding("root")
		require.Equal(t, 2, live)
		_, err = m.Cancel(t.Context(), bgagent.Caller{}, task.ID, bgagent.CancelOptions{})
		require.NoError(t, err)
		live, _ = m.Outstanding("root")
		require.Zero(t, live)
	})
}

// A session whose task has expired can still be resumed by its id, so no new session may
// get the same id.
func TestSessionOfAnExpiredTaskIsInUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &goRunner{run: works(time.Second)}
		f.create = func(context.Context, bgagent.SessionSpec) (string, error) { return "ses_same", nil }
		m := manage(t, f, bgagent.Config{Retention: time.Minute})
		task := launch(t, m, "work")
		ended(t, m, task.ID)
		m.TakeNotice("root")
		time.Sleep(time.Hour)
		other := launch(t, m, "other")
		require.Equal(t, bgagent.CauseStartFailed, ended(t, m, other.ID)[0].Cause)
		again, err := m.Resume(t.Context(), root, "ses_same", bgagent.ResumeInput{Prompt: "more"})
		require.NoError(t, err)
		require.Equal(t, task.ID, again.ID)
	})
}

func TestWhoResumesFromATombstoneKeepsItsParents(t *testing.T) {
	f := &finder{goRunner: &goRunner{run: works(time.Second)}, parents: map[string]string{"child": "root", "root": ""}}
	bubble(t, f, bgagent.Config{MaxDepth: 2, Retention: time.Minute}, func(t *testing.T, m *bgagent.BackgroundManager) {
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
		require.NoError(t, err, "the task descends from root")
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
		require.NoError(t, inside.CheckNow(m))
	})
}
