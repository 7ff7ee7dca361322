package bgagent_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

// The list of attempts shows for each attempt whether its end was reported.
func TestEachAttemptSaysWhatBecameOfItsNotice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := manage(t, &goRunner{run: works(time.Second)}, bgagent.Config{})
		task := launch(t, m, "first")
		ended(t, m, task.ID)
		_, err := m.Resume(t.Context(), root, task.ID, bgagent.ResumeInput{Prompt: "second"})
		require.NoError(t, err)
		of := func() []bgagent.NoticeState {
			now, err := m.Get(task.ID)
			require.NoError(t, err)
			states := []bgagent.NoticeState{}
			for _, a := range now.Attempts {
				states = append(states, a.Notice)
			}
			return append(states, now.Notice)
		}
		require.Equal(t, []bgagent.NoticeState{bgagent.NoticeOwed, bgagent.NoticeNone}, of())
		ended(t, m, task.ID)
		_, ok := m.TakeNotice(root.Session)
		require.True(t, ok)
		require.Equal(t, []bgagent.NoticeState{bgagent.NoticeTaken, bgagent.NoticeTaken}, of())
		_, err = m.Resume(t.Context(), root, task.ID, bgagent.ResumeInput{Prompt: "third"})
		require.NoError(t, err)
		ended(t, m, task.ID)
		_, err = m.Read(root, task.ID)
		require.NoError(t, err)
		require.Equal(t, []bgagent.NoticeState{bgagent.NoticeTaken, bgagent.NoticeTaken, bgagent.NoticeRead}, of())
	})
}
