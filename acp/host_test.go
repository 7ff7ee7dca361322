//go:build unix

package acp

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/tempdir"
	"github.com/stretchr/testify/require"
)

// hostVariable is the environment variable that contains an order. If it is set, the test binary runs
// as a host, which a test can kill.
const hostVariable = "ACP_TEST_HOST"

// order describes the work of a host. The host creates or restores a session, runs one turn for each
// prompt, and then waits until it is killed.
type order struct {
	Command []string // Config.Command
	Dir     string   // Config.Dir
	Env     []string // Config.Env
	Auth    string   // Config.Auth
	Folder  string   // directory for files that the host writes
	Spec    bgagent.SessionSpec
	Restore *bgagent.SessionRestore // session to restore; nil if the host creates a session
	Prompts []bgagent.Prompt
}

// config returns the configuration of the client.
func (o order) config() Config {
	return Config{
		Command: o.Command, Dir: o.Dir, Env: o.Env, Auth: o.Auth, StartTimeout: 5 * time.Minute,
		Permit: func(context.Context, PermissionRequest) PermissionAnswer { return PermissionAnswer{Allow: true} },
	}
}

// The method "note" writes a file under another name and then renames it, so that the test never
// reads an incomplete file.
func (o order) note(name, text string) {
	file := filepath.Join(o.Folder, name)
	if err := os.WriteFile(file+".new", []byte(text), 0o600); err != nil {
		panic(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		panic(err)
	}
}

// runHost executes an order.
func runHost(text string) {
	var o order
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		panic(err)
	}
	c, err := New(o.config())
	if err != nil {
		panic(err)
	}
	ctx := context.Background()
	var session string
	if o.Restore != nil {
		session = o.Restore.Session
		if state, _, err := c.RestoreSession(ctx, *o.Restore); err != nil {
			panic(state.String() + ": " + err.Error())
		}
	} else if session, err = c.CreateSession(ctx, o.Spec); err != nil {
		panic(err)
	}
	c.mu.Lock()
	for p := range c.all {
		o.note("agent", strconv.Itoa(p.run.pid))
	}
	c.mu.Unlock()
	o.note("session", session)
	for i, p := range o.Prompts {
		end, err := c.RunTurn(ctx, session, p, bgagent.NewReporter(func(r bgagent.Report) {
			switch r.Kind {
			case bgagent.ReportState:
				o.note("saved", string(r.Saved))
			case bgagent.ReportText:
				o.note("text", r.Text)
				if _, err := os.Stat(filepath.Join(o.Folder, "first")); err != nil {
					o.note("first", r.Text)
				}
			}
		}))
		if err != nil {
			o.note("error", err.Error())
		}
		o.note("end"+strconv.Itoa(i), end.Text)
	}
	select {}
}

// host is a host that runs in its own process.
type host struct {
	t   *testing.T
	cmd *exec.Cmd
	dir string
	o   order
}

// startHost starts a host that executes the order.
func startHost(t *testing.T, o order) *host {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	o.Folder = tempdir.New(t)
	text, err := json.Marshal(o)
	require.NoError(t, err)
	h := &host{t: t, dir: o.Folder, o: o, cmd: exec.Command(self)}
	h.cmd.Env = append(os.Environ(), hostVariable+"="+string(text), "GORACE=atexit_sleep_ms=0")
	var stderr bytes.Buffer
	h.cmd.Stderr = &stderr
	require.NoError(t, h.cmd.Start())
	t.Cleanup(func() {
		h.kill()
		if t.Failed() && stderr.Len() > 0 {
			t.Logf("the host wrote: %s", stderr.String())
		}
		if text, err := os.ReadFile(filepath.Join(h.dir, "error")); t.Failed() && err == nil {
			t.Logf("the turn failed: %s", text)
		}
	})
	return h
}

// The method "kill" kills only the host, not its agent.
func (h *host) kill() {
	if h.cmd.ProcessState == nil {
		_ = h.cmd.Process.Kill()
		_ = h.cmd.Wait()
	}
}

// killWithAgent kills the host and the agent process that it started. If group is true, it kills
// the agent's whole process group. The agent is stopped first, so that it does not notice the death
// of the host.
func (h *host) killWithAgent(group bool) {
	h.t.Helper()
	pid, err := strconv.Atoi(h.read("agent"))
	require.NoError(h.t, err)
	if group {
		pid = -pid
	}
	require.NoError(h.t, syscall.Kill(pid, syscall.SIGSTOP))
	h.kill()
	require.NoError(h.t, syscall.Kill(pid, syscall.SIGKILL))
}

// The method "read" waits until the host has written the file, and returns its content.
func (h *host) read(name string) string {
	h.t.Helper()
	var text []byte
	require.Eventually(h.t, func() bool {
		var err error
		text, err = os.ReadFile(filepath.Join(h.dir, name))
		return err == nil
	}, 5*time.Minute, 5*time.Millisecond, "the host does not write "+name)
	return string(text)
}

// The method "restore" returns the argument that the next manager passes to RestoreSession.
func (h *host) restore(last bgagent.Prompt) bgagent.SessionRestore {
	h.t.Helper()
	in := bgagent.SessionRestore{Spec: h.o.Spec, Session: h.read("session"), Last: last, Instance: h.o.Spec.Instance}
	in.Spec.Instance = "next-" + in.Instance
	if saved, err := os.ReadFile(filepath.Join(h.dir, "saved")); err == nil {
		in.Saved = saved
	}
	return in
}

// isBusy reports whether the manager would call RestoreSession again after the error.
func isBusy(err error) bool { return errors.Is(err, bgagent.ErrBusy) }
