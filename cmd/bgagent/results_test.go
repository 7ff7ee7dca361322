//go:build unix

package main

import (
	"bufio"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// withAgent returns a place with one agent, which is a shell script.
func withAgent(t *testing.T, script string) *place {
	p := newPlace(t)
	p.write("agent.sh", "#!/bin/sh\n"+script)
	p.write(".bgagent.jsonc", `{"agents": {"a": {"kind": "command", "preset": "generic", "command": ["`+p.project+`/agent.sh"]}}}`)
	p.write("tasks.jsonc", `[{"agent": "a", "prompt": "x", "description": "review"}]`)
	return p
}

// The method "rows" returns the tasks of an index as raw JSON objects.
func (p *place) rows(dir string) []map[string]any {
	p.t.Helper()
	var x struct{ Tasks []map[string]any }
	b, err := os.ReadFile(filepath.Join(p.project, dir, "index.json"))
	require.NoError(p.t, err)
	require.NoError(p.t, json.Unmarshal(b, &x))
	return x.Tasks
}

func TestAFileHoldsAllOfALongAnswer(t *testing.T) {
	p := withAgent(t, "cat >/dev/null; seq 1 1300000\n") // 9.3 MB
	got := p.run("run", "tasks.jsonc", "-o", "out")
	require.Equal(t, 0, got.code, got.out+got.stderr)
	require.NotContains(t, got.out, "beginning")
	f, err := os.Open(filepath.Join(p.project, "out", "001-review.md"))
	require.NoError(t, err)
	defer f.Close()
	lines, last := 0, ""
	for s := bufio.NewScanner(f); s.Scan(); last = s.Text() {
		lines++
	}
	require.Equal(t, 1300000, lines)
	require.Equal(t, "1300000", last)
	require.NotContains(t, p.rows("out")[0], "cut")
	left, err := os.ReadDir(filepath.Join(p.project, "out"))
	require.NoError(t, err)
	var names []string
	for _, e := range left {
		names = append(names, e.Name())
	}
	require.Equal(t, []string{"001-review.log", "001-review.md", "index.json", "list.json"}, names, "no other file is left")
}

func TestAnAnswerBeyondTheBoundIsCutAndMarkedEverywhere(t *testing.T) {
	p := withAgent(t, "cat >/dev/null; head -c 100000000 /dev/zero | tr '\\0' 'x'\n")
	cmd := p.command("run", "tasks.jsonc", "--plain", "-o", "out")
	// This limit forces timely garbage collection on a busy machine. A program that needs more memory still exceeds
	// the limit that the test checks below.
	cmd.Env = append(cmd.Environ(), "GOMEMLIMIT=48MiB")
	out := newOutput()
	cmd.Stdout, cmd.Stderr = out, out
	require.NoError(t, cmd.Run(), out)
	require.Contains(t, out.String(), "001-review.md (only the beginning of an answer of 100000000 bytes)")
	require.Contains(t, out.String(), "(1 file holds only the beginning of an answer)")
	row := p.rows("out")[0]
	require.Equal(t, true, row["cut"])
	require.EqualValues(t, 100000000, row["bytes"])
	const end = "x\n\n[cut: the answer has 100000000 bytes; only the first 64 MiB are kept]\n"
	f, err := os.Open(filepath.Join(p.project, "out", "001-review.md"))
	require.NoError(t, err)
	defer f.Close()
	info, err := f.Stat()
	require.NoError(t, err)
	require.EqualValues(t, 64<<20-1+len(end), info.Size())
	b := make([]byte, len(end))
	_, err = f.ReadAt(b, info.Size()-int64(len(b)))
	require.NoError(t, err)
	require.Equal(t, end, string(b))
	used := cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss // in KiB on Linux, in bytes on macOS
	t.Logf("maximum resident set: %d", used)
	require.Less(t, used, int64(100<<10*perKiB), "the answer is not held in memory")
}

func TestAFailedTaskKeepsAllThatWasWritten(t *testing.T) {
	p := withAgent(t, "cat >/dev/null; seq 1 100000; exit 3\n")
	got := p.run("run", "tasks.jsonc", "-o", "out")
	require.Equal(t, 1, got.code)
	b, err := os.ReadFile(filepath.Join(p.project, "out", "001-review.md"))
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(string(b), "error: "))
	require.True(t, strings.HasSuffix(string(b), "\n99999\n100000\n"))
}

func TestNothingLeavesAResultsFolderThatAnAgentReplaces(t *testing.T) {
	p := withAgent(t, `cat >/dev/null; d=$(ls -d bgagent-results-*|head -1); mv "$d" .old; ln -s ../home/.claude/commands "$d"; echo 'agent-chosen text'`+"\n")
	p.write("../home/.claude/commands/.keep", "")
	got := p.run("run", "--plain", "tasks.jsonc")
	require.Equal(t, 1, got.code, got.out)
	require.Contains(t, got.stderr, "was moved during the run; nothing was written to the folder that is there now; the results are in "+p.project+"/.old")
	require.Contains(t, got.out, "results in "+p.project+"/.old")
	outside, err := os.ReadDir(filepath.Join(p.project, "../home/.claude/commands"))
	require.NoError(t, err)
	require.Len(t, outside, 1)
	b, err := os.ReadFile(filepath.Join(p.project, ".old", "001-review.md"))
	require.NoError(t, err)
	require.Equal(t, "agent-chosen text\n", string(b))
}

func TestAResultsFolderThatAnAgentRemovesIsReported(t *testing.T) {
	p := withAgent(t, `cat >/dev/null; rm -r out; mkdir out; echo 'the answer'`+"\n")
	got := p.run("run", "--plain", "tasks.jsonc", "-o", "out")
	require.Equal(t, 1, got.code)
	require.Contains(t, got.out, "     | the answer\n", "the answer is printed, because it has no file")
	require.Contains(t, got.stderr, "was removed or replaced during the run")
	inside, err := os.ReadDir(filepath.Join(p.project, "out"))
	require.NoError(t, err)
	require.Empty(t, inside)
}

func TestNothingOfAnAgentActsOnATerminal(t *testing.T) {
	const dirty = `\033]0;title\007\033[31mred\033[0m\r\nsecond\b\r\n`
	p := withAgent(t, "cat >/dev/null; printf '"+dirty+"'; printf '"+dirty+"' >&2; exit 3\n")
	p.write("codex", "#!/bin/sh\nprintf 'codex \\033[2J9.9\\n'\n")
	p.write("broken", "#!/bin/sh\nprintf '\\033[2Jno\\n' >&2; exit 1\n")
	got := p.run("run", "--plain", "tasks.jsonc", "-o", "out")
	require.Equal(t, 1, got.code)
	require.Contains(t, got.out, "exited with code 3: second; the end of its standard error: red | second\n")
	b, err := os.ReadFile(filepath.Join(p.project, "out", "001-review.md"))
	require.NoError(t, err)
	require.True(t, strings.HasSuffix(string(b), "\n\nred\nsecond\n"), "%q", b)
	p.write(".bgagent.jsonc", `{"agents": {
		"a": {"kind": "command", "preset": "codex", "command": ["`+p.project+`/codex"]},
		"b": {"kind": "command", "preset": "codex", "command": ["`+p.project+`/broken"]},
	}}`)
	list := p.run("agents")
	require.Contains(t, list.out, "codex 9.9\n")
	for _, text := range []string{got.out, got.stderr, string(b), list.out, list.stderr} {
		require.NotRegexp(t, "[\x00-\x08\x0b-\x1f\x7f]", text)
	}
}
