//go:build unix

package command

import (
	"testing"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

func TestAProgramLeavesRetriesToTheManagerOnlyIfItIsAsked(t *testing.T) {
	for name, want := range map[string]bool{"asked": true, "not asked": false} {
		t.Run(name, func(t *testing.T) {
			a := fakeAgent(t, Lines("fake"))
			a.Program.NoRetries, a.LeaveRetries = []string{"FAKE_RETRIES=0"}, want
			printed := ""
			c, err := New(Config{Agents: map[string]Agent{"a": a}, Printed: func(_ string, _ int, p []byte) { printed += string(p) }})
			require.NoError(t, err)
			_, err = c.RunTurn(t.Context(), create(t, c), bgagent.Prompt{Task: "bg_1", Agent: "a", Text: "describe"}, bgagent.NewReporter(func(bgagent.Report) {}))
			require.NoError(t, err)
			require.Contains(t, printed, TurnVariable+"=", "the fake prints its environment")
			if want {
				require.Contains(t, printed, "FAKE_RETRIES=0")
			} else {
				require.NotContains(t, printed, "FAKE_RETRIES")
			}
		})
	}
}

func TestAProgramThatCannotLeaveRetriesIsRefused(t *testing.T) {
	for want, a := range map[string]Agent{
		"codex has no switch for this that works with every provider": {Program: Codex()},
		"gemini has no switch":   {Program: Gemini()},
		"opencode has no switch": {Program: Opencode()},
		"Agent.Env also sets CLAUDE_CODE_MAX_RETRIES; remove one of them": {Program: Claude(), Env: []string{"CLAUDE_CODE_MAX_RETRIES=3"}},
		"is true, and Agent.Env also sets CLAUDE_CODE_MAX_RETRIES":        {Program: ClaudeAsking(), Env: []string{"CLAUDE_CODE_*"}},
	} {
		a.LeaveRetries = true
		_, err := New(Config{Agents: map[string]Agent{"a": a}})
		var input *bgagent.InputError
		require.ErrorAs(t, err, &input, want)
		require.Equal(t, `command.Config.Agents["a"].LeaveRetries`, input.Field)
		require.Contains(t, input.Problem, want)
	}
	for _, p := range []Program{Claude(), ClaudeAsking()} {
		_, err := New(Config{Agents: map[string]Agent{"a": {Program: p, LeaveRetries: true}}})
		require.NoError(t, err)
	}
}
