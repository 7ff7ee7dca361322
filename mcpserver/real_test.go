package mcpserver_test

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/realagent"
	"github.com/bgagent/bgagent/mcpserver"
)

// The variable "scenarios" lists those of the conformance package's scenarios that do not need the tools,
// resources and prompts of the package's own example server.
var scenarios = []string{"server-initialize", "ping", "tools-list", "resources-list", "server-sse-multiple-streams", "dns-rebinding-protection"}

func TestTheProtocolsConformancePackage(t *testing.T) {
	w := realagent.New(t, "conformance")
	_, server := serve(t, mcpserver.HTTPConfig{Scope: "here"})
	for _, name := range scenarios {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
			defer cancel()
			out, err := w.Command(ctx, w.Conformance("server", "--url", server.URL, "--scenario", name)...).CombinedOutput()
			require.NoError(t, err, "%s", out)
			require.Contains(t, string(out), ", 0 failed")
			require.NotContains(t, string(out), "Passed: 0/")
		})
	}
}

// runScript runs a script from testdata and returns its output. The script has access to the
// protocol's npm packages.
func runScript(t *testing.T, w *realagent.World, name string, args ...string) []byte {
	t.Helper()
	node, modules := w.Requester()
	script, err := os.ReadFile(filepath.Join("testdata", name))
	require.NoError(t, err)
	// Node looks for the packages in the script's folder.
	require.NoError(t, os.Symlink(modules, filepath.Join(w.Dir, "node_modules")))
	require.NoError(t, os.WriteFile(filepath.Join(w.Dir, name), script, 0o644))
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	var problems strings.Builder
	cmd := w.Command(ctx, append([]string{node, name}, args...)...)
	cmd.Stderr = &problems
	out, err := cmd.Output()
	require.NoError(t, err, &problems)
	return out
}

func TestTheReferenceRequesterOfTheTasksExtension(t *testing.T) {
	w := realagent.New(t, "requester")
	m, server := serve(t, mcpserver.HTTPConfig{Scope: "here"})
	out := runScript(t, w, "requester.mjs", server.URL, "delegate_task", `{"subagent_type":"worker","prompt":"1500ms","run_in_background":false}`)
	var got struct {
		Kind, Text string
		Structured mcpserver.Structured
	}
	require.NoError(t, json.Unmarshal(out, &got), "%s", out)
	require.Equal(t, "task", got.Kind)
	require.Contains(t, got.Text, "did 1500ms")
	require.Len(t, got.Structured.Tasks, 1)
	task, err := m.Get(got.Structured.Tasks[0].ID)
	require.NoError(t, err)
	require.Equal(t, bgagent.NoticeRead, task.Notice)
}

func TestTheNotificationIsAsTheReferenceWantsIt(t *testing.T) {
	w := realagent.New(t, "requester")
	_, server := serve(t, mcpserver.HTTPConfig{Scope: "here"})
	out := runScript(t, w, "listener.mjs", server.URL, "delegate_task", `{"subagent_type":"worker","prompt":"1500ms","run_in_background":false}`)
	var got struct {
		Created, Accepted bool
		Statuses          []string
		Invalid           []json.RawMessage
		Text              string
	}
	require.NoError(t, json.Unmarshal(out, &got), "%s", out)
	require.True(t, got.Created && got.Accepted, "%s", out)
	require.Empty(t, got.Invalid)
	require.Equal(t, "completed", got.Statuses[len(got.Statuses)-1])
	require.Contains(t, got.Text, "did 1500ms")
}

// The inspector uses both versions of the protocol. In the new version, the inspector gets a
// handle and uses the handle to fetch the result.
func TestTheProtocolsInspector(t *testing.T) {
	w := realagent.New(t, "inspector")
	m, server := serve(t, mcpserver.HTTPConfig{Scope: "here"})
	ask := func(t *testing.T, args ...string) string {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		defer cancel()
		var problems strings.Builder
		cmd := w.Command(ctx, w.Inspector(append([]string{server.URL, "--transport", "http"}, args...)...)...)
		cmd.Stderr = &problems
		out, err := cmd.Output()
		require.NoError(t, err, "%s%s", out, &problems)
		return string(out)
	}
	for _, era := range []string{"legacy", "modern"} {
		t.Run(era, func(t *testing.T) {
			require.Contains(t, ask(t, "--protocol-era", era, "--method", "tools/list", "--strict"), `"delegate_task"`, "the schemas are portable")
			var got struct {
				Structured mcpserver.Structured `json:"structuredContent"`
			}
			out := ask(t, "--protocol-era", era, "--method", "tools/call", "--tool-name", "delegate_task",
				"--tool-arg", "subagent_type=worker", "--tool-arg", "prompt=1500ms", "--tool-arg", "run_in_background=false")
			require.NoError(t, json.Unmarshal([]byte(out), &got), out)
			require.Contains(t, got.Structured.Text, "did 1500ms")
			require.Len(t, got.Structured.Tasks, 1)
			task, err := m.Get(got.Structured.Tasks[0].ID)
			require.NoError(t, err)
			require.Equal(t, bgagent.NoticeRead, task.Notice)
			require.Contains(t, ask(t, "--protocol-era", era, "--method", "resources/templates/list"), "bgagent://task/{id}")
			require.Contains(t, ask(t, "--protocol-era", era, "--method", "resources/read", "--uri", got.Structured.Tasks[0].URI), "did 1500ms")
		})
	}
}
