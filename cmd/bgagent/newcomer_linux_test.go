package main

import (
	"flag"
	"html"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"github.com/stretchr/testify/require"
)

// keepPicture is a flag that makes the tests rewrite their pictures for the README.
var keepPicture = flag.Bool("picture", false, "write docs/images/run.svg and docs/images/glance*")

const (
	fixScript = `#!/bin/sh
read -r prompt
case $prompt in
*database*) echo "error: password authentication failed for user \"app\"" >&2; exit 1;;
*benchmark*) exec sleep 600;;
esac
echo "done: $prompt"
`
	logScript = `#!/bin/sh
head -c 10000000 /dev/zero | tr '\0' 'x'
`
	reviewScript = `#!/bin/sh
read -r prompt
echo '{"type": "tool", "id": "1", "name": "grep", "state": "running"}'
echo '{"type": "tool", "id": "1", "name": "grep", "state": "done"}'
case $prompt in
*tests*)
	echo '{"type": "message", "text": "Reading the third of seven files."}'
	while [ ! -e go ]; do echo '{"type": "activity"}'; sleep 0.2; done;;
*) echo '{"type": "message", "text": "It is fine."}';;
esac
echo '{"type": "usage", "input": 12000, "output": 80, "cost": 0.04}'
echo '{"type": "end"}'
`
)

// tenTasks returns a project with ten tasks for three agents, which are scripts. One
// task fails, one hangs, and one prints 10 MB. The task "review the tests" runs until
// the file "go" exists.
func tenTasks(t *testing.T) *place {
	p := newPlace(t)
	p.write("fix.sh", fixScript)
	p.write("log.sh", logScript)
	p.write("review.sh", reviewScript)
	p.write(".bgagent.jsonc", `{
		"background_task": {"totalConcurrency": 2, "staleTimeoutMs": 30000},
		"agents": {
			"fix": {"kind": "command", "preset": "generic", "command": ["./fix.sh"]},
			"log": {"kind": "command", "preset": "generic", "command": ["./log.sh"]},
			"review": {"kind": "command", "preset": "generic", "format": "lines", "command": ["./review.sh"]},
		},
	}`)
	p.write("tasks.jsonc", `[
		{"agent": "fix", "prompt": "mend the login test"},
		{"agent": "fix", "prompt": "move the database to version 17"},
		{"agent": "log", "prompt": "print the whole log"},
		{"agent": "fix", "prompt": "run the benchmark"},
		{"agent": "review", "prompt": "review the API"},
		{"agent": "review", "prompt": "review the documentation of the API"},
		{"agent": "review", "prompt": "review the tests"},
		{"agent": "review", "prompt": "review the command line"},
		{"agent": "fix", "prompt": "mend the flaky build"},
		{"agent": "review", "prompt": "review the build"},
	]`)
	return p
}

// awaitScreen waits until each of the expressions matches a line of the screen.
func awaitScreen(t *testing.T, out *output, cols int, want ...string) *screen {
	t.Helper()
	timeout := time.After(atMost)
	for {
		s := screenOf(out.String(), cols)
		missing := ""
		for _, w := range want {
			if !regexp.MustCompile(`(?m)^` + w + `$`).MatchString(s.String()) {
				missing = w
			}
		}
		if missing == "" {
			return s
		}
		select {
		case <-out.new:
		case <-timeout:
			t.Fatalf("%q is not on the screen:\n%s", missing, s)
		}
	}
}

func TestTenTasksOverThreeScriptsAreUnderstoodAtAGlance(t *testing.T) {
	t.Parallel()
	const cols = 80
	p := tenTasks(t)
	shown, code := p.inTerminalOf(pty.Winsize{Rows: 24, Cols: cols}, func(cmd *exec.Cmd, out *output, _ *os.File) {
		s := awaitScreen(t, out, cols,
			`✓  1 mend the login test +\d+\.\ds  001-mend-the-login-test\.md`,
			`✗  2 move the database to vers… +\d+\.\ds  exit 1: error: password authentication.*`,
			`✓  3 print the whole log +\d+\.\ds  003-print-the-whole-log\.md`,
			`. +4 run the benchmark +\d+\.?\d*s  quiet for \d+\.?\d*s`,
			`✓  5 review the API +\d+\.\ds  005-review-the-api\.md`,
			`✓  6 review the documentation …   \d+\.\ds  006-review-the-documentation-of-the-a.*…`,
			`. +7 review the tests +\d+\.?\d*s  Reading the third of seven files\.`,
			`·  8 review the command line +number 1 in line for total \(2 of 2\)`,
			`·  9 mend the flaky build +number 2 in line for total \(2 of 2\)`,
			`· 10 review the build +number 3 in line for total \(2 of 2\)`,
			`  \d+\.?\d*s · 2 running · 3 waiting · 4 completed · 1 failed · \$0\.08, 24k\+160 tokens`,
		)
		t.Logf("\n%s", s)
		if *keepPicture {
			require.NoError(t, os.WriteFile("../../docs/images/run.svg", []byte(s.from("✓").svg("bgagent run tasks.jsonc -o results")), 0o644))
		}
		p.write("go", "")
		awaitScreen(t, out, cols, `  .* · 1 running · 8 completed · 1 failed · .*`)
		require.NoError(t, cmd.Process.Signal(syscall.SIGINT))
	}, "run", "tasks.jsonc", "-o", "results")
	require.Equal(t, 130, code, shown)
	left := screenOf(shown, cols).String()
	t.Logf("\n%s", left)
	require.Regexp(t, `✗ 2  move the database to version 17 \(fix, after \d+\.\ds\)\n`, left)
	require.Contains(t, strings.Join(strings.Fields(left), " "), `error: password authentication failed for user "app"`)
	require.Regexp(t, `8 completed, 1 failed, 1 cancelled in \d+\.\d s; `, left)
	whole, err := os.Stat(filepath.Join(p.project, "results", "003-print-the-whole-log.md"))
	require.NoError(t, err)
	require.EqualValues(t, 10_000_001, whole.Size(), "the answer is whole, with a newline at its end")
}

// The picture in the README shows the screen that the test above checks.
func TestThePictureInTheReadmeShowsTenTasks(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	require.NoError(t, err)
	require.Contains(t, string(readme), "(docs/images/run.svg)")
	b, err := os.ReadFile("../../docs/images/run.svg")
	require.NoError(t, err)
	picture := html.UnescapeString(regexp.MustCompile(`<[^>]*>`).ReplaceAllString(string(b), " "))
	picture = strings.Join(strings.Fields(picture), " ")
	for _, want := range []string{
		`\$ bgagent run tasks.jsonc -o results ✓ 1 mend the login test \d+\.\ds 001-mend-the-login-test\.md`,
		`✗ 2 move the database to vers… \d+\.\ds exit 1: error: password authentication`,
		`✓ 3 print the whole log \d+\.\ds 003-print-the-whole-log\.md`,
		`4 run the benchmark \d+\.?\d*s quiet for \d+\.?\d*s`,
		`7 review the tests \d+\.?\d*s Reading the third of seven files\.`,
		`10 review the build number 3 in line for total \(2 of 2\) \d+\.?\d*s · 2 running · 3 waiting · 4 completed · 1 failed · \$0\.08, 24k\+160 tokens$`,
	} {
		require.Regexp(t, want, picture)
	}
}
