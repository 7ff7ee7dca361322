package fleet

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/settings"
	"github.com/stretchr/testify/require"
)

// crewOf returns a fleet and its manager.
func crewOf(t *testing.T, agents ...settings.Agent) (*Fleet, *bgagent.BackgroundManager) {
	return crewWith(t, bgagent.Config{}, agents...)
}

func crewWith(t *testing.T, cfg bgagent.Config, agents ...settings.Agent) (*Fleet, *bgagent.BackgroundManager) {
	f, err := New(&settings.Settings{Agents: agents}, Options{})
	require.NoError(t, err)
	m, err := f.Manager(cfg)
	require.NoError(t, err)
	t.Cleanup(func() {
		_ = m.Close(context.Background()) // the error names tasks whose notice is still owed
		require.NoError(t, f.Close(context.Background()))
	})
	return f, m
}

func TestTheErrorAboutAnUnknownAgentNamesTheAgents(t *testing.T) {
	_, m := crewOf(t, settings.Demo()...)
	task, err := m.Run(t.Context(), bgagent.Caller{}, bgagent.LaunchInput{Agent: "oracle", Prompt: "hello"})
	require.NoError(t, err)
	require.Equal(t, bgagent.Failed, task.Status)
	require.Contains(t, task.Reason, "oracle")
	require.Contains(t, task.Reason, "demo-count")
}

func TestModelDirectoryAndPermissionsComeFromTheAgent(t *testing.T) {
	dir := t.TempDir()
	_, m := crewOf(t,
		settings.Agent{Name: "mine", Kind: settings.InProc, Remote: "largest", Model: "x/y", Directory: dir},
		settings.Agent{Name: "blind", Kind: settings.InProc, Remote: "largest", Directory: "..", Permissions: []bgagent.Permission{{Name: "read", Pattern: "*", Action: bgagent.PermissionDeny}}},
	)
	task, err := m.Run(t.Context(), bgagent.Caller{}, bgagent.LaunchInput{Agent: "mine", Prompt: "hello"})
	require.NoError(t, err)
	require.Equal(t, "x/y", task.Model)
	require.Equal(t, "There is no file.", task.Result)
	task, err = m.Run(t.Context(), bgagent.Caller{}, bgagent.LaunchInput{Agent: "mine", Model: "other", Prompt: "hello", Directory: ".."})
	require.NoError(t, err)
	require.Equal(t, "other", task.Model)
	require.Contains(t, task.Result, "settings/bgagent.schema.json")
	task, err = m.Run(t.Context(), bgagent.Caller{}, bgagent.LaunchInput{Agent: "blind", Prompt: "hello"})
	require.NoError(t, err)
	require.Equal(t, "There is no file.", task.Result)
}

func TestAgentsOfOneProgramShareItsProcess(t *testing.T) {
	acp := func(name, mode string, command ...string) settings.Agent {
		return settings.Agent{Name: name, Kind: settings.ACP, Command: command, Mode: mode}
	}
	f, _ := crewOf(t, acp("a", "build", "oc", "acp"), acp("b", "plan", "oc", "acp"), acp("c", "", "oc", "acp", "-v"))
	require.Equal(t, f.route["a"], f.route["b"])
	require.NotEqual(t, f.route["a"], f.route["c"])
	require.Len(t, f.clients, 2)
}

func TestARefusalOfAClientNamesTheAgent(t *testing.T) {
	_, err := New(&settings.Settings{Agents: []settings.Agent{
		{Name: "a", Kind: settings.Opencode, URL: "no url"},
		{Name: "b", Kind: settings.Command, Preset: "codex", Env: []string{"=x"}},
	}}, Options{})
	require.ErrorContains(t, err, `agents.a.url: is refused: "no url" is not the address of a server`)
	require.ErrorContains(t, err, `agents.b: is refused: "env" has "=x"; write NAME=value`)
	require.NotContains(t, err.Error(), "Config.")
}

func TestRequestsAndChecksGetMoreTimeIfACreationDoes(t *testing.T) {
	for create, want := range map[int]time.Duration{1000: 0, 30_000: 0, 240_000: 2 * time.Minute} {
		limits, err := bgagent.ParseConfig("f", fmt.Appendf(nil, `{"background_task": {"createTimeoutMs": %d}}`, create))
		require.NoError(t, err)
		f, err := New(&settings.Settings{Limits: limits}, Options{})
		require.NoError(t, err)
		require.Equal(t, want, f.requestTimeout())
		require.Equal(t, max(30*time.Second, 2*want), f.checkTime())
	}
}
