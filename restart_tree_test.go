package bgagent_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

// The parent of the resumed task has ended, so the task becomes a task of the host, which is the nearest
// caller above it. When the task is resumed, memory does not contain the record of the parent.
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
		_, err = l.m.Read(bgagent.Caller{}, parent.ID) // brings the record of the parent back into memory
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
