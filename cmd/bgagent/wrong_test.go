package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Each message states what is wrong and how to correct it.
func TestWrongInputIsNamedWithItsRemedy(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.env = append(p.env, "CONTROL=0123456789abcdef\x01")
	p.write(".bgagent.jsonc", `{"agents": {"w": {"kind": "inproc", "agent": "wait"}}}`)
	p.write("none.jsonc", `{"agents": {}}`)
	p.write("url.jsonc", `{"agents": {"a": {"kind": "opencode", "url": "http://u:p@x"}}}`)
	p.write("tasks.jsonc", `[{"agent": "w", "prompt": "1 ms"}]`)
	p.write("empty.jsonc", "// nothing\n")
	p.write("lines.jsonc", "{\"agent\": \"w\", \"prompt\": \"1 ms\"}\n{\"agent\": \"w\", \"prompt\": \"1 ms\"}\n")
	p.write("damaged/index.json", `{"tasks": "x"}`)
	p.write("damaged/list.json", `[]`)
	p.write("utf16", "\xff\xfe0\x001\x002\x003\x004\x005\x006\x007\x008\x009\x00")
	require.NoError(t, os.Symlink("nowhere", filepath.Join(p.project, "dangling")))
	for _, c := range []struct{ args, want string }{
		{"run empty.jsonc", `empty.jsonc:1:1: is empty; write a list of tasks like [ { "agent": "codex", "prompt": "…" } ]`},
		{"run lines.jsonc", `lines.jsonc:2:1: is not JSON with comments: invalid character '{' after top-level value; put all tasks into one list like [ {`},
		{"-c none.jsonc run tasks.jsonc", `names the agent "w", which does not exist; no agent is configured; bgagent init writes a configuration file`},
		{"-c url.jsonc config", `url.jsonc:1:39: agents.a.url: is refused: contains a user or a password; remove them, and use "username" and "passwordEnv"`},
		{"run tasks.jsonc -o tasks.jsonc", "creating the folder for the results: " + p.project + "/tasks.jsonc is not a folder; name another with --output"},
		{"run tasks.jsonc -o tasks.jsonc/x", "creating the folder for the results: " + p.project + "/tasks.jsonc is not a folder; name another with --output"},
		{"run tasks.jsonc -o dangling", "creating the folder for the results: " + p.project + "/dangling is a link to nowhere, which cannot be used: no such file or directory; name another with --output"},
		{"run tasks.jsonc -o /proc/x", "creating the folder for the results: /proc/x: no such file or directory; name another with --output"},
		{"run --resume damaged", `is not the index of a run: "tasks" is a string; it was changed or damaged, so run the list again into a new folder`},
		{"run tasks.jsonc -o", "--output needs a value; see bgagent run --help"},
		{"serve --root tasks.jsonc", "--root " + p.project + "/tasks.jsonc: it is not a directory; name a directory"},
		{"serve --token a=CONTROL", "--token a=CONTROL: the token in CONTROL contains bytes that are not text; save it as UTF-8 text, in one line"},
		{"serve --token a=@utf16", "--token a=@utf16: the token in @utf16 contains bytes that are not text; save it as UTF-8 text, in one line"},
		{"serve --page @utf16", "--page @utf16: the password in @utf16 contains bytes that are not text; save it as UTF-8 text, in one line"},
		{"show bg\nx", `no task "bg\nx" is kept in `},
		{"show " + strings.Repeat("x", 1000), "no task " + strings.Repeat("x", 80) + "… is kept in "},
		{"-c none/x.jsonc init", "none/x.jsonc: there is no folder " + p.project + "/none; make it, or name another file"},
	} {
		got := p.run(strings.Split(c.args, " ")...)
		require.Equal(t, 2, got.code, "%s: %s%s", c.args, got.out, got.stderr)
		require.Contains(t, got.stderr, c.want, c.args)
		require.Equal(t, 1, strings.Count(got.stderr, "\n")-strings.Count(got.stderr, "bgagent: configuration"), got.stderr)
		require.Empty(t, got.out, c.args)
	}
}

func TestALimitOfAnAgentThatDoesNotExistIsReported(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.write(".bgagent.jsonc", `{"background_task": {"agentConcurrency": {"W": 1, "wiat": 2}}, "agents": {"w": {"kind": "inproc", "agent": "wait"}}}`)
	got := p.run("config")
	require.Equal(t, 0, got.code, got.stderr)
	require.Equal(t, "bgagent: "+p.project+`/.bgagent.jsonc:1:51: background_task.agentConcurrency["wiat"]: there is no agent of this name, so the limit has no effect`+"\n", got.stderr)
}

// The home directory of some users is /dev/null.
func TestAHomeThatIsNoFolderIsLikeNone(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.env = []string{"HOME=/dev/null"}
	p.write(".bgagent.jsonc", `{"agents": {"w": {"kind": "inproc", "agent": "wait"}}}`)
	p.write("tasks.jsonc", `[{"agent": "w", "prompt": "1 ms"}]`)
	require.Equal(t, 0, p.run("run", "tasks.jsonc", "-o", "out").code)
	p.env = nil
	require.Contains(t, p.run("tasks").stderr, "the state folder is not known: $HOME is not defined; set HOME or XDG_STATE_HOME, or name a folder with --state DIR")
}

func TestEveryCommandReportsOutputThatCannotBeWritten(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	if _, err := os.Stat("/dev/full"); err != nil {
		t.Skip(err)
	}
	p.write(".bgagent.jsonc", `{"agents": {"w": {"kind": "inproc", "agent": "wait"}}}`)
	p.write("tasks.jsonc", `[{"agent": "w", "prompt": "1 ms"}]`)
	require.Equal(t, 0, p.run("run", "tasks.jsonc", "-o", "out").code)
	for _, args := range []string{"config", "config --json", "config --schema", "status", "tasks", "tasks --json", "agents", "version", "--version", "help", "run --help", "completion bash", "run --schema", "cleanup", "prune", "-c new.jsonc init"} {
		cmd := p.command(strings.Split(args, " ")...)
		full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
		require.NoError(t, err)
		var problems strings.Builder
		cmd.Stdout, cmd.Stderr = full, &problems
		require.Error(t, cmd.Run(), args)
		require.NoError(t, full.Close())
		require.Equal(t, 1, cmd.ProcessState.ExitCode(), args)
		require.Contains(t, problems.String(), "no space left on device\n", args)
		require.Equal(t, 1, strings.Count(problems.String(), "no space left"), "%s: %s", args, problems.String())
	}
}

func TestAConfigurationThatCannotBeWrittenLeavesNothing(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	cmd := exec.Command("/bin/sh", "-c", `ulimit -f 0; "$0" init`, binary)
	cmd.Dir, cmd.Env = p.project, append(p.env, "PATH="+p.path)
	out, err := cmd.CombinedOutput()
	require.Error(t, err)
	require.Equal(t, 1, cmd.ProcessState.ExitCode())
	require.Contains(t, string(out), "writing .bgagent.jsonc: file too large")
	left, err := os.ReadDir(p.project)
	require.NoError(t, err)
	require.Empty(t, left)
}
