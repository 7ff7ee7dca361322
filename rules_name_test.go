package bgagent_test

import (
	"testing"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

func TestARuleThatCanBeAboutNothingIsRefused(t *testing.T) {
	rules := []bgagent.Permission{{Name: "*", Pattern: "*", Action: bgagent.PermissionAllow}, {Name: "Bash(rm *)", Action: bgagent.PermissionDeny}}
	_, err := bgagent.New(working(0), bgagent.Config{Permissions: rules})
	var input *bgagent.InputError
	require.ErrorAs(t, err, &input)
	require.Equal(t, "Config.Permissions[1]", input.Field)
	require.Contains(t, input.Problem, `use "Bash" as the name, and "rm *" as the pattern`)

	bubble(t, working(0), bgagent.Config{AgentPermissions: func(string) []bgagent.Permission { return rules }}, func(t *testing.T, m *bgagent.BackgroundManager) {
		_, err := m.Launch(t.Context(), root, bgagent.LaunchInput{Agent: "a", Prompt: "p"})
		require.ErrorContains(t, err, `as the pattern`)
		require.Empty(t, m.List(bgagent.Query{}))
		rules[1].Name = "bash"
		_, err = m.Launch(t.Context(), root, bgagent.LaunchInput{Agent: "a", Prompt: "p"})
		require.NoError(t, err)
	})
}
