package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The function "place" writes the configuration files of a user and of a project. It returns the
// project's directory.
func place(t *testing.T, user, own string) string {
	t.Helper()
	home, project := t.TempDir(), t.TempDir()
	t.Setenv("XDG_CONFIG_HOME", home)
	for path, text := range map[string]string{
		filepath.Join(home, "opencode", "oh-my-opencode.json"):      user,
		filepath.Join(project, ".opencode", "oh-my-opencode.jsonc"): own,
	} {
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
	}
	return project
}

// The function "output" replaces the names of the test's directories in the text.
func output(project, s string) string {
	s = strings.NewReplacer(os.Getenv("XDG_CONFIG_HOME"), "USER", project, "PROJECT").Replace(s)
	return "\n" + s
}

func TestOutput(t *testing.T) {
	tutorial, err := os.ReadFile("../../testdata/tutorial.json")
	require.NoError(t, err)
	project := place(t, string(tutorial), `{
  "background_task": {
    "modelConcurrency": { "claude-opus-4-5": 1, "gpt-5.2": null }, // one Opus at a time here
    "staleTimeoutMs": 0,
    "circuitBreaker": { "maxToolCalls": 200 },
    "maxToolCalls": 300,
  },
}`)
	var b strings.Builder
	require.NoError(t, run(&b, project, false))
	require.Equal(t, `
modelConcurrency["claude-opus-4-5"]  1    PROJECT/.opencode/oh-my-opencode.jsonc:3:27
providerConcurrency["anthropic"]     3    USER/opencode/oh-my-opencode.json:7:7
providerConcurrency["google"]        2    USER/opencode/oh-my-opencode.json:9:7
providerConcurrency["openai"]        2    USER/opencode/oh-my-opencode.json:8:7
defaultConcurrency                   3    USER/opencode/oh-my-opencode.json:19:5
circuitBreaker.maxToolCalls          200  PROJECT/.opencode/oh-my-opencode.jsonc:5:25
staleTimeoutMs                       0    PROJECT/.opencode/oh-my-opencode.jsonc:4:5
PROJECT/.opencode/oh-my-opencode.jsonc:6:5: background_task.maxToolCalls is ignored: background_task.circuitBreaker.maxToolCalls (PROJECT/.opencode/oh-my-opencode.jsonc:5:25) decides
`, output(project, filepath.ToSlash(b.String())))

	b.Reset()
	require.NoError(t, run(&b, project, true))
	require.Regexp(t, `(?m)^taskTtlMs +1800000 +default$`, b.String())
}

func TestMistakes(t *testing.T) {
	project := place(t, `{"background_task": {"maxDepth": 0}}`, "{\n\"background_task\": {\"staleTimeout\": 1}}")
	err := run(&strings.Builder{}, project, false)
	require.Error(t, err)
	require.Equal(t, `
USER/opencode/oh-my-opencode.json:1:34: background_task.maxDepth: is 0, but it cannot be switched off; it must be a whole number, at least 1
PROJECT/.opencode/oh-my-opencode.jsonc:2:21: background_task.staleTimeout: is not a known key; did you mean staleTimeoutMs?`,
		output(project, filepath.ToSlash(err.Error())))
}

func TestWithoutAFile(t *testing.T) {
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	var b strings.Builder
	require.NoError(t, run(&b, t.TempDir(), false))
	require.Equal(t, "There is no configuration file: all values are the defaults.\n", b.String())
}
