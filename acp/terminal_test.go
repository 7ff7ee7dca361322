//go:build unix

package acp

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

// The function "shell" returns a session whose agent is allowed to run the commands that the function
// "decide" accepts.
func shell(t *testing.T, decide func(context.Context, TerminalRequest) error) (*Client, string, string) {
	t.Helper()
	cfg := program(t, "")
	cfg.Terminal = decide
	c := open(t, cfg)
	return c, create(t, c), cfg.Dir
}

func all(context.Context, TerminalRequest) error { return nil }

func TestCommandsRunWhereTheSessionWorks(t *testing.T) {
	c, id, dir := shell(t, all)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "a"), nil, 0o600))
	require.Equal(t, "exit 0: a\n", prompt(t, c, id, "run ls").Text)
	require.Contains(t, prompt(t, c, id, "run ls missing").Text, "exit 2: ")
	require.Contains(t, prompt(t, c, id, "run no-such-program").Text, "there is no program")
}

func TestCommandsAreRefusedForAReason(t *testing.T) {
	c, id, _ := shell(t, nil)
	require.Contains(t, prompt(t, c, id, "run ls").Text, "the host does not run commands for agents")
	var got TerminalRequest
	c, id, dir := shell(t, func(_ context.Context, q TerminalRequest) error {
		got = q
		return errors.New("not on a Sunday")
	})
	require.Contains(t, prompt(t, c, id, "run ls -l").Text, "not on a Sunday")
	require.Equal(t, TerminalRequest{Session: id, Task: "bg_1", Agent: "fake", Command: []string{"ls", "-l"}, Directory: dir}, got)
	c, id, _ = shell(t, func(context.Context, TerminalRequest) error { panic("boom") })
	require.Contains(t, prompt(t, c, id, "run ls").Text, "the host's function panicked: boom")
	c, id, _ = shell(t, all)
	e := run(t, c, id, bgagent.Prompt{Text: "run rm -r x", Permissions: []bgagent.Permission{{Name: "bash", Pattern: "rm *", Action: bgagent.PermissionDeny}}}).wait()
	require.Contains(t, e.Text, "a rule of the host denies it")
}

func TestCommandsEndWithTheirTurn(t *testing.T) {
	c, id, dir := shell(t, all)
	script := filepath.Join(dir, "s.sh")
	// The script starts a child in a new operating system session.
	require.NoError(t, os.WriteFile(script, []byte("echo $$ >pids\nsetsid sleep 600 &\necho $! >>pids\nsleep 600\n"), 0o600))
	pids := func() []string {
		raw, err := os.ReadFile(filepath.Join(dir, "pids"))
		require.NoError(t, err)
		return strings.Fields(string(raw))
	}
	l := run(t, c, id, bgagent.Prompt{Text: "leave sh " + script + "\nwait"})
	require.Eventually(t, func() bool {
		raw, err := os.ReadFile(filepath.Join(dir, "pids"))
		return err == nil && len(strings.Fields(string(raw))) == 2
	}, time.Minute, time.Millisecond)
	require.True(t, alive(t, pids()[0]))
	require.NoError(t, c.Abort(t.Context(), id))
	require.Equal(t, bgagent.StopAborted, l.wait().Stop)
	for _, pid := range pids() {
		require.False(t, alive(t, pid))
	}
	require.Equal(t, "left", prompt(t, c, id, "leave sleep 600").Text) // the turn does not wait for the command
}

func TestTheEndOfTheOutputIsKept(t *testing.T) {
	for _, max := range []int{0, 1, 3, 10} {
		out := &tail{max: max}
		for range 7 {
			n, err := out.Write([]byte("äbc"))
			require.NoError(t, err)
			require.Equal(t, 4, n)
		}
		text, cut := out.text()
		require.True(t, cut)
		require.LessOrEqual(t, len(text), max)
		require.True(t, strings.HasSuffix(strings.Repeat("äbc", 7), text), text)
		require.GreaterOrEqual(t, len(text), max-1)
	}
	out := &tail{max: 100}
	_, _ = out.Write([]byte("one\n  two\n"))
	text, cut := out.text()
	require.Equal(t, "one\n  two\n", text)
	require.False(t, cut)
	require.Equal(t, "one two", out.lastLines(10))
	require.Equal(t, "…two", out.lastLines(3))
}
