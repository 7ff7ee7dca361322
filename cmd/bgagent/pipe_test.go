//go:build unix

package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The list "quick" has one task, which ends immediately.
const quick = `[{"agent": "demo-wait", "prompt": "1 ms", "description": "quick"}]`

// pipe makes a named pipe in the project.
func (p *place) pipe(name string) string {
	p.t.Helper()
	path := filepath.Join(p.project, name)
	require.NoError(p.t, syscall.Mkfifo(path, 0o600))
	return path
}

// endsWith fails the test unless the program exits with the given code. A program that does not
// exit in time is killed, and has no exit code.
func (r *running) endsWith(t *testing.T, code int) {
	t.Helper()
	defer time.AfterFunc(atMost, func() { _ = r.Process.Kill() }).Stop()
	require.Equal(t, code, r.code(), r.out)
}

func TestASignalEndsTheWaitForAPipe(t *testing.T) {
	const asked = "there is no configuration file" // printed after the signal handlers have been installed, just before the pipe is read
	for name, x := range map[string]struct {
		args []string
		code int
	}{
		"list":        {[]string{"run", "pipe"}, 130},
		"prompt file": {[]string{"run", "tasks.jsonc"}, 130},
		"password":    {[]string{"serve", "--addr", "127.0.0.1:0", "--page", "@pipe"}, 0},
		"log":         {[]string{"mcp", "--log", "pipe"}, 0},
	} {
		for _, signal := range []os.Signal{os.Interrupt, syscall.SIGTERM} {
			for _, writer := range []bool{false, true} {
				t.Run(name, func(t *testing.T) {
					p := newPlace(t)
					path := p.pipe("pipe")
					p.write("tasks.jsonc", `[{"agent": "demo-wait", "promptFile": "pipe"}]`)
					// The test holds the pipe open but does not write anything, so the program
					// waits when it reads the pipe, not when it opens it.
					if writer && name != "log" {
						f, err := os.OpenFile(path, os.O_RDWR, 0)
						require.NoError(t, err)
						defer f.Close()
					}
					r := p.start(x.args...)
					r.out.await(t, asked)
					require.NoError(t, r.Process.Signal(signal))
					r.endsWith(t, x.code)
				})
			}
		}
	}
}

func TestASignalEndsTheWaitForATokenInAPipe(t *testing.T) {
	p := newPlace(t)
	first := p.pipe("first")
	p.pipe("second")
	r := p.start("serve", "--addr", "127.0.0.1:0", "--token", "a=@first", "--token", "b=@second")
	f, err := os.OpenFile(first, os.O_WRONLY, 0) // returns when the program opens the pipe
	require.NoError(t, err)
	_, err = f.WriteString(strings.Repeat("x", 20))
	require.NoError(t, errors.Join(err, f.Close()))
	require.NoError(t, r.Process.Signal(syscall.SIGTERM))
	r.endsWith(t, 0)
}

func TestAListFromAPipeIsReadToItsEnd(t *testing.T) {
	p := newPlace(t)
	path := p.pipe("pipe")
	p.write("tasks.jsonc", `[{"agent": "demo-wait", "promptFile": "pipe", "description": "quick"}]`)
	for name, text := range map[string]string{"pipe": quick, "tasks.jsonc": "1 ms"} {
		r := p.start("run", name)
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		require.NoError(t, err)
		for i := range text { // a slow writer
			_, err = f.WriteString(text[i : i+1])
			require.NoError(t, err)
		}
		require.NoError(t, f.Close())
		r.endsWith(t, 0)
		require.Contains(t, r.out.String(), "quick")
	}
}

func TestProcessSubstitutionIsAList(t *testing.T) {
	p := newPlace(t)
	for _, name := range []string{"/dev/fd/3", "/dev/stdin"} {
		r, w, err := os.Pipe()
		require.NoError(t, err)
		cmd := p.command("run", name, "-o", "out"+filepath.Base(name))
		out := newOutput()
		cmd.Stdin, cmd.ExtraFiles, cmd.Stdout, cmd.Stderr = r, []*os.File{r}, out, out
		require.NoError(t, cmd.Start())
		_, err = w.WriteString(quick)
		require.NoError(t, errors.Join(err, w.Close(), r.Close()))
		(&running{cmd, out}).endsWith(t, 0)
		require.Contains(t, out.String(), "quick", name)
	}
}

func TestAConfigurationInAPipeIsRefused(t *testing.T) {
	p := newPlace(t)
	p.write("tasks.jsonc", quick)
	p.pipe(".bgagent.jsonc")
	for _, args := range [][]string{{"config"}, {"run", "tasks.jsonc"}, {"config", "--config", ".bgagent.jsonc"}} {
		r := p.start(args...)
		r.endsWith(t, 2)
		require.Contains(t, r.out.String(), ".bgagent.jsonc: is not a regular file")
		require.Equal(t, 1, strings.Count(r.out.String(), "regular file"))
	}
}

func TestWhatCannotBeReadIsLeftBehindWhenItIsTimeToStop(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	release := make(chan struct{})
	defer close(release)
	value, err := untilStopped(ctx, func() (int, error) { return 7, nil })
	require.NoError(t, err)
	require.Equal(t, 7, value)
	cancel()
	_, err = untilStopped(ctx, func() (int, error) { <-release; return 7, nil })
	require.ErrorIs(t, err, context.Canceled)
}
