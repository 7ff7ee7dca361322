package bgagent_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/storetest"
	"github.com/stretchr/testify/require"
)

// In this test, the parent of the resumed task has ended, so the task becomes a task of the host,
// which is the nearest caller above it. When the task is resumed, memory does not contain the
// parent's record.
func TestATaskBelowAnExpiredTaskOfTheHostIsResumedForTheHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLives(t, 0, false)
		l.fake.Fates, l.fake.NoRestore = nil, false
		l.begin()
		parent, err := l.m.Launch(t.Context(), bgagent.Caller{}, bgagent.LaunchInput{Agent: "explore", Prompt: "delegate"})
		require.NoError(t, err)
		parent = ended(t, l.m, parent.ID)[0]
		tasks := l.m.List(bgagent.Query{Parent: parent.Session})
		require.Len(t, tasks, 1)
		_, ok := l.m.TakeNotice("")
		require.True(t, ok)
		time.Sleep(time.Hour)
		l.die()
		l.begin()
		require.Empty(t, l.m.List(bgagent.Query{}))

		below, err := l.m.Resume(t.Context(), bgagent.Caller{}, tasks[0].ID, bgagent.ResumeInput{Prompt: "again"})
		require.NoError(t, err)
		require.Empty(t, below.Parent)
		_, err = l.m.Read(bgagent.Caller{}, parent.ID) // brings the parent's record back into memory
		require.NoError(t, err)
		below = ended(t, l.m, below.ID)[0]
		require.Equal(t, bgagent.Completed, below.Status, below.Reason)
		require.Empty(t, below.Parent)
		time.Sleep(time.Hour)
		require.Empty(t, l.fake.Inbox(parent.Session), "no notice may be sent to a session whose task has ended")
		n, ok := l.m.TakeNotice("")
		require.True(t, ok)
		require.Equal(t, below.ID, n.Items[0].Task)
	})
}

// In this test, a task of the host fails and is forgotten while the task below it is being stopped.
// The store then contains a record for the forgotten task's session. The parent in this record is
// the host's session, whose id is empty.
func TestASessionBelowTheHostKeepsItsPlaceInTheNextProcess(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.cfg.MaxDepth = 2
		w.hangs = true // the task below is still being stopped when the process ends, so the next process loads it
		w.refuse = func(_ string, p bgagent.Prompt) error {
			if p.Text != "delegate" {
				return nil
			}
			time.Sleep(time.Second)
			return errors.New("the agent failed")
		}
		m := w.begin()
		parent, err := m.Launch(t.Context(), bgagent.Caller{}, bgagent.LaunchInput{Agent: "explore", Prompt: "delegate"})
		require.NoError(t, err)
		synctest.Wait()
		session := get(t, m, parent.ID).Session
		below, err := m.Launch(t.Context(), bgagent.Caller{Session: session}, bgagent.LaunchInput{Agent: "worker", Prompt: "read"})
		require.NoError(t, err)
		require.Equal(t, bgagent.Failed, ended(t, m, parent.ID)[0].Status)
		require.NoError(t, m.Forget(t.Context(), bgagent.Caller{}, parent.ID, bgagent.ForgetOptions{Force: true}))
		require.Equal(t, session, get(t, m, below.ID).Parent)
		w.crash()
		m = w.begin()

		again, err := m.Resume(t.Context(), bgagent.Caller{}, below.ID, bgagent.ResumeInput{Prompt: "again"})
		require.NoError(t, err)
		require.Empty(t, again.Parent, "the task is resumed for the nearest caller above it, which is the host")
		require.Equal(t, bgagent.Completed, ended(t, m, below.ID)[0].Status)
		n, ok := m.TakeNotice("")
		require.True(t, ok)
		require.Equal(t, below.ID, n.Items[0].Task)
	})
}

// The record of the expired task's session says which root session the task below it belongs to.
// Therefore, the next process does not have to load the expired task.
func TestATaskThatExpiredAboveALiveTaskIsNotLoadedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := &storetest.Memory{}
		cfg := bgagent.Config{Store: mem.Process(), MaxDepth: 2, TimeToLive: bgagent.Disabled}
		f := &goRunner{run: func(ctx context.Context, _ string, p bgagent.Prompt, _ *bgagent.Reporter) (bgagent.TurnEnd, error) {
			if p.Text == "wait" {
				<-ctx.Done()
				return bgagent.TurnEnd{}, ctx.Err()
			}
			return bgagent.TurnEnd{Text: "done"}, nil
		}}
		m := manage(t, f, cfg)
		top := launch(t, m, "a")
		top = ended(t, m, top.ID)[0]
		below, err := m.Launch(t.Context(), bgagent.Caller{Session: top.Session}, bgagent.LaunchInput{Agent: "worker", Prompt: "wait"})
		require.NoError(t, err)
		_, err = m.Read(root, top.ID) // the notice counts as read
		require.NoError(t, err)
		time.Sleep(2 * bgagent.DefaultRetention)
		_, err = m.Get(top.ID)
		require.ErrorIs(t, err, bgagent.ErrExpired)
		require.False(t, get(t, m, below.ID).Status.Terminal())
		time.Sleep(time.Minute)
		require.False(t, recordOf(t, mem, top.ID).Due)
		cfg.Store.(*storetest.Process).Crash()

		cfg.Store = mem.Process()
		m = manage(t, f, cfg)
		require.Equal(t, 1, m.Restored().Tasks)
		require.Equal(t, root.Session, get(t, m, below.ID).Root)
		require.Equal(t, top.Session, get(t, m, below.ID).Parent)
	})
}
