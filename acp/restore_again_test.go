//go:build unix

package acp

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/tempdir"
	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
)

// In this test, the client "c" runs a task, a client of another process continues the task, and then the
// first client takes over the task again. The agent process of the first client still has the session open,
// without the turn of the other client.
func TestAClientLearnsWhatAnotherProcessDidInItsSession(t *testing.T) {
	one, two, three, four := uuid.NewString(), uuid.NewString(), uuid.NewString(), uuid.NewString()
	store := tempdir.New(t)
	cfg := program(t, "", "FAKE_STORE="+store)
	c, other := open(t, cfg), open(t, cfg)
	spec := bgagent.SessionSpec{Task: "bg_1", Agent: "fake", Directory: tempdir.New(t), Instance: one}
	id, err := c.CreateSession(t.Context(), spec)
	require.NoError(t, err)
	in := bgagent.SessionRestore{Spec: spec, Session: id}
	turn := func(c *Client, prompt, text, instance string) (saved []byte) {
		t.Helper()
		in.Last = bgagent.Prompt{ID: prompt, Task: "bg_1", Attempt: 1, Turn: 1, Agent: "fake", Text: text, Instance: instance}
		e := run(t, c, id, in.Last).wait()
		require.NoError(t, e.err)
		states := e.of(bgagent.ReportState)
		require.NotEmpty(t, states)
		return states[len(states)-1].Saved
	}
	in.Saved = turn(c, "p1", "say one", one)
	in.Instance, in.Spec.Instance = uuid.NewString(), two // with an unknown instance, the other client does not terminate the agent process of c
	states(t, other, in, bgagent.PromptAnswered)
	in.Saved = turn(other, "p2", "say two", two)
	in.Instance, in.Spec.Instance = two, three
	require.Equal(t, "two", states(t, c, in, bgagent.PromptAnswered).Text)
	require.Len(t, c.sessions[id].memory.Sent, 2)
	require.Equal(t, "say one", goesOn(t, c, in, "recall"))
	require.Equal(t, 1, c.processes())
	stored, err := os.ReadFile(filepath.Join(store, id))
	require.NoError(t, err)
	require.Contains(t, string(stored), "say two", "the turn ran in an agent process that had the session as it was before")

	// The manager's last record can be older than what its client knows.
	turn(c, "p3", "say three", three)
	in.Instance, in.Spec.Instance = three, four
	require.Equal(t, "three", states(t, c, in, bgagent.PromptAnswered).Text)
}

// If the last turn of a session is over, the session is loaded only for its next prompt. Otherwise,
// RestoreSession loads it.
func TestARestoredSessionHasTheMCPServersOfItsManager(t *testing.T) {
	for script, want := range map[string]bgagent.PromptState{"say hello": bgagent.PromptAnswered, "wait": bgagent.PromptInterrupted} {
		t.Run(want.String(), func(t *testing.T) {
			h, last := kept(t, "", script)
			if want == bgagent.PromptAnswered {
				h.read("end0")
			} else {
				require.Eventually(t, func() bool { return h.read("text") == "I wait" }, time.Minute, time.Millisecond)
			}
			in := h.restore(last)
			h.killWithAgent(true)
			cfg := h.o.config()
			cfg.MCPServers = func(s bgagent.SessionSpec) []MCPServer {
				require.Equal(t, in.Spec.Instance, s.Instance)
				return []MCPServer{{Name: "one", Command: []string{"server"}}}
			}
			c := open(t, cfg)
			states(t, c, in, want)
			require.Equal(t, "1", goesOn(t, c, in, "mcp"))
		})
	}
}
