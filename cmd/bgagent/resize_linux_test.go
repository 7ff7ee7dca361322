package main

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/charmbracelet/x/ansi"
	"github.com/creack/pty"
	"github.com/stretchr/testify/require"
)

// The table is redrawn whenever its terminal is resized. At each width, it shows which tasks are running,
// which failed and why, and how many tasks are not shown.
func TestTheTableFollowsTheSizeOfItsTerminal(t *testing.T) {
	t.Parallel()
	for _, tasks := range []int{10, 50} {
		t.Run(fmt.Sprintf("%d tasks", tasks), func(t *testing.T) {
			p := newPlace(t)
			p.write("a.sh", "#!/bin/sh\nread -r prompt\ncase $prompt in\nfail) echo no such key in the file that it reads >&2; exit 3;;\nesac\necho Reading the third of seven files.\nexec sleep 600\n")
			p.write(".bgagent.jsonc", `{"background_task": {"totalConcurrency": 3}, "agents": {"a": {"kind": "command", "preset": "generic", "command": ["./a.sh"]}}}`)
			list := []string{`{"agent": "a", "prompt": "fail", "description": "mend the test of the login"}`}
			for n := 2; n <= tasks; n++ {
				list = append(list, `{"agent": "a", "prompt": "wait", "description": "review the tests of the login"}`)
			}
			p.write("tasks.jsonc", "["+strings.Join(list, ",")+"]")
			out, code := p.inTerminalOf(pty.Winsize{Rows: 24, Cols: 130}, func(cmd *exec.Cmd, out *output, tty *os.File) {
				out.await(t, "number 1 in line")
				for _, size := range []struct {
					cols, rows int
					want       []string
				}{
					{80, 24, []string{`✗ +1 mend the test of the login +\d+\.?\d*s  exit 3: no such key in the file that it…`, `Reading the third of seven files`, `· +5 review the tests of the l… +number 1 in line for total \(3 of 3\)`}},
					{60, 24, []string{`✗ +1 mend the test of th… +\d+\.?\d*s  exit 3: no such key in th…`, `Reading the third of seve…`, `number 1 in line for tota…`}},
					{40, 24, []string{`✗ mend the tes… +\d+\.?\d*s  exit 3: no \S*…`, `Reading the th\S*…`, `number 1 in \S*…`}},
					{130, 24, []string{`✗ +1 mend the test of the login +\d+\.?\d*s  exit 3: no such key in the file that it reads`, `number 1 in line for total \(3 of 3\)`}},
					{80, 8, []string{fmt.Sprintf(`3 running · %d waiting · 1 failed · %d not shown`, tasks-4, tasks-6)}},
				} {
					from := len(out.String())
					require.NoError(t, pty.Setsize(tty, &pty.Winsize{Rows: uint16(size.rows), Cols: uint16(size.cols)}))
					awaitMatches(t, out, from, size.want...)
				}
				require.NoError(t, cmd.Process.Signal(syscall.SIGINT))
			}, "run", "tasks.jsonc", "-o", "out")
			require.Equal(t, 130, code, out)
		})
	}
}

// awaitMatches waits until each of the expressions matches the text printed after the offset.
func awaitMatches(t *testing.T, out *output, from int, want ...string) {
	t.Helper()
	timeout := time.After(atMost)
	for {
		text, missing := ansi.Strip(out.String()[from:]), ""
		for _, w := range want {
			if !regexp.MustCompile(w).MatchString(text) {
				missing = w
			}
		}
		if missing == "" {
			return
		}
		select {
		case <-out.new:
		case <-timeout:
			t.Fatalf("%q does not match\n%s", missing, text)
		}
	}
}
