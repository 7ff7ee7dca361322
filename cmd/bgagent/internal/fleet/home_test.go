package fleet

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bgagent/bgagent/cmd/bgagent/internal/settings"
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
