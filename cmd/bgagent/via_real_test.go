//go:build unix

package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/bgagent/bgagent/internal/realagent"
	"github.com/stretchr/testify/require"
)

func TestRealHostProgramsShareOneServeOverBridges(t *testing.T) {
	w := realagent.New(t, "claude", "codex", "gemini")
	p := newPlace(t)
	p.write(".bgagent.jsonc", `{"background_task": {"totalConcurrency": 1}, "agents": {"wait": {"kind": "inproc"}}}`)
	url, _ := startServe(t, p, "--root", w.Dir)
	w.Env = append(w.Env, "PATH="+filepath.Dir(binary)+string(os.PathListSeparator)+os.Getenv("PATH"))
	const tool = "delegate_task {\"subagent_type\":\"wait\",\"prompt\":\"1 ms\",\"run_in_background\":false}\n@say it was: ${re:I have waited for (\\w+)}"

	out, err := w.Command(t.Context(), w.Claude("mcp", "add", "bgagent", "--", "bgagent", "mcp", "--via", url)...).CombinedOutput()
	require.NoError(t, err, string(out))
	require.Contains(t, hosted(t, w, w.Claude("-p", "--allowedTools=mcp__bgagent", "@tool mcp__bgagent__"+tool)), "it was: 1ms")

	w.CodexConfig(t, "[mcp_servers.bgagent]\ncommand = \"bgagent\"\nargs = [\"mcp\", \"--via\", \""+url+"\"]\n")
	require.Contains(t, hosted(t, w, w.Codex("exec", "--json", "--skip-git-repo-check", "@tool mcp__bgagent__"+tool)), "it was: 1ms")

	settings, err := json.Marshal(map[string]any{"mcpServers": map[string]any{"bgagent": map[string]any{"command": "bgagent", "args": []string{"mcp", "--via", url}}}})
	require.NoError(t, err)
	require.NoError(t, os.MkdirAll(filepath.Join(w.Dir, ".gemini"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(w.Dir, ".gemini", "settings.json"), settings, 0o644))
	require.Contains(t, hosted(t, w, w.Gemini("--yolo", "-p", "@tool mcp_bgagent_"+tool)), "it was: 1ms")

	scopes := map[string]bool{}
	for _, task := range p.keptTasks() {
		require.Regexp(t, `^local/[a-z0-9]+-(claudecode|codex[a-z]*|gemini[a-z]*)-[0-9a-f]{16}-1$`, task.Root)
		scopes[task.Root] = true
	}
	require.Len(t, scopes, 3, "each program has its own scope")
}
