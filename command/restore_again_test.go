//go:build linux

package command

import (
	"crypto/rand"
	"testing"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

// savedBy runs a turn for the manager with the given instance, and returns the last saved state.
func savedBy(t *testing.T, c *Client, session string, p bgagent.Prompt) (data []byte) {
	t.Helper()
	_, err := c.RunTurn(t.Context(), session, p, bgagent.NewReporter(func(r bgagent.Report) {
		if r.Kind == bgagent.ReportState {
			data = r.Saved
		}
	}))
	require.NoError(t, err)
	require.NotEmpty(t, data)
	return data
}

// In this test, the client "c" runs a task, a client of another process continues the task, and then the
// first client takes over the task again.
func TestAClientLearnsWhatAnotherProcessDidInItsSession(t *testing.T) {
	t.Parallel()
	one, two, three, four := rand.Text(), rand.Text(), rand.Text(), rand.Text()
	a := fakeAgent(t, Lines("fake"))
	c, other := clientOf(t, a), clientOf(t, a)
	id, err := c.CreateSession(t.Context(), bgagent.SessionSpec{Agent: "a", Instance: one})
	require.NoError(t, err)
	p := bgagent.Prompt{ID: "bg_1.1.1", Text: "say one", Instance: one}
	r := bgagent.SessionRestore{Session: id, Spec: bgagent.SessionSpec{Agent: "a", Instance: two}, Saved: savedBy(t, c, id, p), Last: p, Instance: one}
	answers := func(c *Client, want string) {
		t.Helper()
		state, end, err := c.RestoreSession(t.Context(), r)
		require.NoError(t, err)
		require.Equal(t, bgagent.PromptAnswered.String(), state.String())
		require.Equal(t, want, end.Text)
	}
	answers(other, "As you wish: one")
	p = bgagent.Prompt{ID: "bg_1.2.1", Text: "say two", Instance: two}
	r.Saved, r.Last, r.Instance, r.Spec.Instance = savedBy(t, other, id, p), p, two, three
	answers(c, "As you wish: two")
	require.Len(t, c.sessions[id].sent, 2)

	// The manager's last record can be older than what its client knows.
	p = bgagent.Prompt{ID: "bg_1.3.1", Text: "say three", Instance: three}
	savedBy(t, c, id, p)
	r.Last, r.Instance, r.Spec.Instance = p, three, four
	answers(c, "As you wish: three")
}
