//go:build unix

package command

import (
	"regexp"
	"testing"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

func TestTheTaskOfAProgramIsKnownByTheMarkOfItsTurn(t *testing.T) {
	mark := regexp.MustCompile(TurnVariable + `=(\w+)`)
	var c *Client
	var value string
	during := "" // result of TaskInTurn while the turn is running
	c, err := New(Config{Agents: map[string]Agent{"a": fakeAgent(t, Lines("fake"))}, Printed: func(_ string, _ int, p []byte) {
		if m := mark.FindSubmatch(p); m != nil {
			value = string(m[1])
			during = c.TaskInTurn(value)
		}
	}})
	require.NoError(t, err)
	_, err = c.RunTurn(t.Context(), create(t, c), bgagent.Prompt{Task: "bg_1", Agent: "a", Text: "describe"}, bgagent.NewReporter(func(bgagent.Report) {}))
	require.NoError(t, err)
	require.Equal(t, "bg_1", during)
	require.NotEmpty(t, value)
	for _, v := range []string{value, value + "/inner", ""} {
		require.Empty(t, c.TaskInTurn(v), "no turn is running")
	}
}
