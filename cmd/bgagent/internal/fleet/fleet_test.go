package fleet

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/settings"
	"github.com/bgagent/bgagent/command"
	"github.com/bgagent/bgagent/internal/tempdir"
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
		_ = m.Close(context.Background()) // the error names tasks whose notices have not been delivered
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
	dir := tempdir.New(t)
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
		{Name: "c", Kind: settings.Command, Preset: "codex", LeaveRetries: true},
	}}, Options{})
	require.ErrorContains(t, err, `agents.c.leaveRetries: is refused: is true; codex has no switch`)
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

func TestTheNameOfAClientDependsOnlyOnItsOwnSettings(t *testing.T) {
	acp := func(name string, env ...string) settings.Agent {
		return settings.Agent{Name: name, Kind: settings.ACP, Command: []string{"agent"}, Env: env}
	}
	one, two := acp("one", "CODEX_HOME=/a"), acp("two", "CODEX_HOME=/b")
	files, auth := acp("files"), acp("auth")
	files.Files, auth.Auth = "read", "key"
	other := acp("other")
	other.Directory = "/elsewhere"
	served := settings.Agent{Name: "served", Kind: settings.Opencode, URL: "http://127.0.0.1:1"}
	user := served
	t.Setenv("SERVER_PASSWORD", "of the server")
	user.Name, user.PasswordEnv = "user", "SERVER_PASSWORD"
	all := []settings.Agent{one, two, files, auth, other, served, user}
	names := func(agents ...settings.Agent) map[string]string {
		f, err := New(&settings.Settings{Agents: agents}, Options{})
		require.NoError(t, err)
		return f.route
	}
	want := names(all...)
	different := map[string]bool{}
	for _, a := range all {
		different[want[a.Name]] = true
		require.Equal(t, want[a.Name], names(a)[a.Name], "alone")
	}
	require.Len(t, different, len(all))
	slices.Reverse(all)
	require.Equal(t, want, names(all...))
}

// When a run launches a task, all tasks that it launched earlier might have ended. Their cost must
// still count.
func TestTheCostOfARunCountsAlsoWhileNothingIsLive(t *testing.T) {
	paid := settings.Agent{Name: "paid", Kind: settings.Command, Preset: "generic", Format: "lines", Command: []string{"sh", "-c",
		`cat >/dev/null; echo '{"type":"usage","input":100,"cost":0.6}'; echo '{"type":"end","text":"done"}'`}}
	f, err := New(&settings.Settings{Agents: []settings.Agent{paid}}, Options{MaxCost: 0.5})
	require.NoError(t, err)
	m, err := f.Manager(bgagent.Config{})
	require.NoError(t, err)
	defer func() {
		_ = m.Close(context.Background()) // the error names tasks whose notices have not been delivered
		require.NoError(t, f.Close(context.Background()))
	}()
	run := func() error {
		_, err := m.Run(t.Context(), bgagent.Caller{}, bgagent.LaunchInput{Agent: "paid", Prompt: "hello"})
		return err
	}
	require.NoError(t, run())
	var used *bgagent.BudgetError
	require.ErrorAs(t, run(), &used)
	require.Equal(t, 0.6, used.Limit.Used)
}

// If the file sets "ask", Claude Code asks questions, unless nobody can answer them.
func TestClaudeAsksIfTheFileSaysSo(t *testing.T) {
	for name, c := range map[string]struct {
		file    string
		options Options
		asks    bool
	}{
		"off":              {"{}", Options{}, false},
		"on":               {`{"ask": true}`, Options{}, true},
		"nobody to answer": {`{"ask": true}`, Options{NobodyAnswers: true}, false},
	} {
		t.Run(name, func(t *testing.T) {
			limits, err := bgagent.ParseConfig("test", []byte(`{"background_task": `+c.file+`}`))
			require.NoError(t, err)
			f, err := New(&settings.Settings{Limits: limits}, c.options)
			require.NoError(t, err)
			defer f.Close(context.Background())
			for preset, asks := range map[string]bool{"claude": c.asks, "codex": false} {
				p := f.programFor(settings.Agent{Kind: settings.Command, Preset: preset})
				require.Equal(t, asks, slices.Contains(p.Start.Args, "--permission-prompt-tool=stdio"), preset)
			}
		})
	}
}

func TestTheMaximumDepthIsKnownBeforeAManagerIsMade(t *testing.T) {
	file := filepath.Join(tempdir.New(t), "bgagent.jsonc")
	require.NoError(t, os.WriteFile(file, []byte(`{"background_task": {"maxDepth": 3}}`), 0o600))
	limits, err := bgagent.LoadConfig(file)
	require.NoError(t, err)
	for depth, want := range map[string]int{"0": 3, "1": 2, "3": 0} {
		t.Setenv(command.DepthVariable, depth)
		f, err := New(&settings.Settings{Agents: settings.Demo(), Limits: limits}, Options{})
		require.NoError(t, err)
		made := make(chan error)
		go func() {
			m, err := f.Manager(bgagent.Config{})
			if err == nil {
				err = m.Close(context.Background())
			}
			made <- err
		}()
		require.Equal(t, want, f.MaxDepth())
		if err := <-made; want == 0 {
			require.ErrorIs(t, err, bgagent.ErrDepth)
		} else {
			require.NoError(t, err)
		}
		require.Equal(t, want, f.MaxDepth())
		require.NoError(t, f.Close(context.Background()))
	}
}
