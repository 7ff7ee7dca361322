package bgagent_test

import (
	"testing"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

func TestResultsCanBeReadAgainAndOnlyByThoseTheyBelongTo(t *testing.T) {
	bubble(t, working(time.Second), bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager) {
		task := launch(t, m, "p")
		ended(t, m, task.ID)
		for range 3 {
			got, err := m.Read(root, task.ID)
			require.NoError(t, err)
			require.Equal(t, "answer to p", got.Result)
		}
		require.Equal(t, bgagent.NoticeRead, get(t, m, task.ID).Notice)
		stranger := bgagent.Caller{Session: "somebody else"}
		_, err := m.Read(stranger, task.ID)
		require.ErrorIs(t, err, bgagent.ErrNotDescendant)
		_, err = m.Cancel(t.Context(), stranger, task.ID, bgagent.CancelOptions{})
		require.ErrorIs(t, err, bgagent.ErrNotDescendant)
		_, err = m.Resume(t.Context(), stranger, task.ID, bgagent.ResumeInput{Prompt: "x"})
		require.ErrorIs(t, err, bgagent.ErrNotDescendant)
		_, err = m.Cancel(t.Context(), root, task.ID, bgagent.CancelOptions{})
		require.ErrorIs(t, err, bgagent.ErrAlreadyEnded)
		_, err = m.Get("bg_0000000000000000")
		require.ErrorIs(t, err, bgagent.ErrUnknownTask)
		_, err = m.Get("nonsense")
		require.ErrorIs(t, err, bgagent.ErrUnknownTask)
	})
}
