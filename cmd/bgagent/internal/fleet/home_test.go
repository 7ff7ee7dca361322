package fleet

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/settings"
	"github.com/bgagent/bgagent/internal/tempdir"
)

func TestTheHomeOfAFleetSaysWhereItsSessionsLive(t *testing.T) {
	home := func(agents ...settings.Agent) string {
		f, err := New(&settings.Settings{Agents: agents}, Options{})
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, f.Close(context.Background())) })
		return f.Home()
	}
	here := machine()
	require.NotEmpty(t, here)
	server := settings.Agent{Name: "build", Kind: settings.Opencode, Remote: "build", URL: "http://10.0.0.7:4096"}
	other := server
	other.URL = "http://10.0.0.8:4096"
	require.Contains(t, home(server), "http://10.0.0.7:4096")
	require.NotContains(t, home(server), here, "the server is the same on all machines")
	require.NotEqual(t, home(server), home(other))
	for _, url := range []string{"http://127.0.0.1:4096", "http://localhost:4096", "http://[::1]:4096"} {
		local := server
		local.URL = url
		require.Contains(t, home(local), here, url)
	}
	program := settings.Agent{Name: "mine", Kind: settings.Command, Preset: "generic", Command: []string{"/bin/cat"}}
	require.Contains(t, home(program), here, "its sessions are files")
	require.Contains(t, home(settings.Agent{Name: "mine", Kind: settings.ACP, Command: []string{"/bin/cat"}}), here)
	require.NotContains(t, home(settings.Agent{Name: "wait", Kind: settings.InProc, Remote: "wait"}), here)
	require.Equal(t, home(server, program), home(program, server))
	require.NotEqual(t, home(server), home(server, program), "the other process must have all agents")
}

func TestTheHomeOfAFleetDiffersIfAnAgentRunsSomethingElse(t *testing.T) {
	home := func(change func(a *settings.Agent)) string {
		a := settings.Agent{Name: "mine", Kind: settings.Command, Preset: "generic", Command: []string{"/bin/cat"}, Env: []string{"MODE=a", "MY_TOKEN=a", "MY_PLACE"}, Directory: "/tmp"}
		change(&a)
		f, err := New(&settings.Settings{Agents: []settings.Agent{a}}, Options{})
		require.NoError(t, err)
		defer func() { require.NoError(t, f.Close(context.Background())) }()
		return f.Home()
	}
	same := func(*settings.Agent) {}
	first := home(same)
	require.Equal(t, first, home(same))
	require.Equal(t, first, home(func(a *settings.Agent) { a.Description = "other" }))
	require.Equal(t, first, home(func(a *settings.Agent) { a.Env[1] = "MY_TOKEN=b" }), "the home does not help to guess a secret")
	for name, change := range map[string]func(a *settings.Agent){
		"command":   func(a *settings.Agent) { a.Command = []string{"/bin/sh"} },
		"args":      func(a *settings.Agent) { a.Args = []string{"-u"} },
		"env":       func(a *settings.Agent) { a.Env[0] = "MODE=b" },
		"directory": func(a *settings.Agent) { a.Directory = "/" },
		"model":     func(a *settings.Agent) { a.Model = "x" },
		"format":    func(a *settings.Agent) { a.Format = "lines" },
		"permissions": func(a *settings.Agent) {
			a.Permissions = []bgagent.Permission{{Name: "edit", Pattern: "*", Action: bgagent.PermissionAllow}}
		},
		"preset": func(a *settings.Agent) { a.Preset, a.Command = "codex", nil },
	} {
		require.NotEqual(t, first, home(change), name)
	}
	nowhere := func(a *settings.Agent) { a.Directory = "" }
	first = home(nowhere)
	t.Chdir(tempdir.New(t))
	require.NotEqual(t, first, home(nowhere), "the program runs in the directory of this process")

	claude := func(a *settings.Agent) { a.Preset, a.Command = "claude", nil }
	for _, name := range []string{"HOME", "XDG_DATA_HOME", "CLAUDE_CONFIG_DIR", "MY_PLACE", "PATH"} {
		first = home(claude)
		dir := tempdir.New(t)
		require.NoError(t, os.WriteFile(filepath.Join(dir, "claude"), nil, 0o700))
		t.Setenv(name, dir)
		require.NotEqual(t, first, home(claude), name)
	}
	t.Setenv("ANTHROPIC_API_KEY", "a key")
	first = home(claude)
	t.Setenv("ANTHROPIC_API_KEY", "another key")
	t.Setenv("XDG_SESSION_ID", "another login")
	require.Equal(t, first, home(claude))
}

func TestTheAddressOfAServerCanBeLocalToAMachine(t *testing.T) {
	for home, want := range map[string]bool{
		"http://10.0.0.7:4096": true, "http://[fd00::7]:4096": true, "https://build.example.org": true, "http://localhost.example.org": true,
		"http://127.0.0.1:4096": false, "http://127.1.2.3": false, "http://[::1]:4096": false, "http://[::ffff:127.0.0.1]": false,
		"http://0.0.0.0:4096": false, "http://[::]:4096": false, "http://169.254.1.2": false, "http://[fe80::1%25eth0]:4096": false,
		"http://localhost": false, "http://LocalHost.:4096": false, "http://build.localhost": false, "http://localhost.localdomain": false,
		"http://build:4096": false, "me@machine": false, "": false,
	} {
		require.Equal(t, want, isElsewhere(home), home)
	}
}
