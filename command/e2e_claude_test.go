//go:build linux

package command

import (
	"slices"
	"strings"
	"testing"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/modelserver"
	"github.com/stretchr/testify/require"
)

var realClaude = reals[slices.IndexFunc(reals, func(r real) bool { return r.name == "claude" })]

func TestRealClaudeTellsItsTodosEntryByEntry(t *testing.T) {
	t.Parallel()
	s := realClaude.scene(t, bgagent.Config{})
	task := s.run("@tool TaskCreate {\"subject\":\"look\",\"description\":\"around\"}\n@tool TaskCreate {\"subject\":\"write\",\"description\":\"it\"}\n" +
		"@tool TaskUpdate {\"taskId\":\"1\",\"status\":\"completed\"}\n@say done")
	s.completed(task, "done")
	require.Equal(t, "look completed, write pending", inWords(task.Progress.Todos))
	require.Equal(t, 1, task.OpenTodos)
	task, err := s.m.RunResume(t.Context(), root, task.ID, bgagent.ResumeInput{Prompt: "@tool TaskUpdate {\"taskId\":\"2\",\"status\":\"completed\"}\n@say again"})
	require.NoError(t, err)
	s.completed(task, "again")
	require.Equal(t, "look completed, write completed", inWords(task.Progress.Todos))
}

// The method "offered" returns the names of the tools that the program offered to its model.
func (s *scene) offered() string {
	s.Helper()
	requests := s.w.Model.Requests()
	i := slices.IndexFunc(requests, func(q modelserver.Request) bool { return q.Kind == modelserver.Main })
	require.GreaterOrEqual(s, i, 0)
	var names []string
	for _, tool := range requests[i].Tools {
		names = append(names, tool.Name)
	}
	return strings.Join(slices.Sorted(slices.Values(names)), " ")
}

func TestRealClaudeIsOfferedOnlyWhatItsRulesAllow(t *testing.T) {
	t.Parallel()
	const yes, no = bgagent.PermissionAllow, bgagent.PermissionDeny
	for want, rules := range map[string][]bgagent.Permission{
		"":                                       {rule("*", "*", no)},
		"Glob Grep Read":                         {rule("*", "*", no), rule("read", "*", yes)},
		"Agent Workflow":                         {rule("*", "*", no), rule("task", "*", yes)},
		"TaskCreate TaskGet TaskList TaskUpdate": {rule("*", "*", no), rule("todowrite", "*", yes)},
	} {
		s := realClaude.scene(t, bgagent.Config{Permissions: rules})
		s.completed(s.run("@say done"), "done")
		require.Equal(t, want, s.offered())
	}
	s := realClaude.scene(t, bgagent.Config{Permissions: []bgagent.Permission{rule("*", "*", yes), rule("task", "*", no)}})
	s.completed(s.run("@say done"), "done")
	require.Contains(t, s.offered(), "Bash")
	for _, name := range []string{"Task", "Agent", "Workflow"} {
		require.NotContains(t, strings.Fields(s.offered()), name)
	}
}
