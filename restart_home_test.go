package bgagent_test

import (
	"testing"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

// The type "housed" is a client with a home.
type housed struct {
	*life
	home string
}

func (h housed) Home() string { return h.home }

func (w *world) moves(home string) {
	w.client = func(l *life) bgagent.SessionClient { return housed{l, home} }
}

func TestASessionIsNotContinuedInAnotherHome(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.moves("1000@alpha")
		first := launch(t, w.begin(), "explore")
		time.Sleep(10 * time.Second)
		w.crash()

		w.moves("1000@beta")
		w.restoreFails = bgagent.ErrNoSession // what a client in the home 1000@beta would answer
		m := w.begin()
		task := ended(t, m, first.ID)[0]
		require.Equal(t, bgagent.CauseInterrupted, task.Cause, task.Reason)
		require.Contains(t, task.Reason, "it is on 1000@alpha, and the client's sessions are on 1000@beta")
		require.NotEmpty(t, task.Session)
		w.crash()

		m = w.begin() // the record still contains the home of the session
		_, err := m.Resume(t.Context(), root, first.ID, bgagent.ResumeInput{Prompt: "go on"})
		require.NoError(t, err)
		task = ended(t, m, first.ID)[0]
		require.Equal(t, bgagent.CauseInterrupted, task.Cause, task.Reason)
		require.Empty(t, w.restored, "a client was asked about a session of another home")
		require.Equal(t, []string{first.ID + ".1.1"}, w.prompts(task.Session))
		w.crash()

		w.moves("1000@alpha")
		w.restoreFails = nil
		m = w.begin()
		_, err = m.Resume(t.Context(), root, first.ID, bgagent.ResumeInput{Prompt: "go on"})
		require.NoError(t, err)
		task = ended(t, m, first.ID)[0]
		require.Equal(t, bgagent.Completed, task.Status, task.Reason)
	})
}

func TestASessionWhoseHomeIsUnknownIsContinued(t *testing.T) {
	for _, homes := range [][2]string{{"", "1000@beta"}, {"1000@alpha", ""}, {"1000@alpha", "1000@alpha"}} {
		inWorld(t, func(t *testing.T, w *world) {
			w.moves(homes[0])
			first := launch(t, w.begin(), "explore")
			time.Sleep(10 * time.Second)
			w.crash()
			w.moves(homes[1])
			task := ended(t, w.begin(), first.ID)[0]
			require.Equal(t, bgagent.Completed, task.Status, task.Reason)
		})
	}
}
