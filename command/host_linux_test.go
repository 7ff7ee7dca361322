package command

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/tempdir"
	"github.com/stretchr/testify/require"
)

// patience is the time limit for one step of a host, which might start a real program more than
// once.
const patience = 5 * time.Minute

// host is a host that runs in its own process.
type host struct {
	testing.TB
	hostPlan
	cmd *exec.Cmd
}

func startHost(t testing.TB, h hostPlan) *host {
	t.Helper()
	h.Home = tempdir.New(t)
	if h.Prompt.Instance == "" {
		h.Prompt.Instance = "life-" + rand.Text() // must be unique, because other tests kill processes by instance concurrently
	}
	self, err := os.Executable()
	require.NoError(t, err)
	plan, err := json.Marshal(h)
	require.NoError(t, err)
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), hostVariable+"="+string(plan), "GORACE=atexit_sleep_ms=0")
	cmd.Stderr = os.Stderr
	require.NoError(t, cmd.Start())
	x := &host{t, h, cmd}
	t.Cleanup(func() { x.kill() })
	return x
}

// The method "kill" kills only the host, not its program.
func (h *host) kill() {
	_ = h.cmd.Process.Kill()
	_ = h.cmd.Wait()
}

// The method "program" returns the PID of the program that the host started, or 0 if there is none.
// The program might have ended and been reaped in the meantime, unless the host is stopped.
func (h *host) program() int {
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err == nil && parentOf(pid) == h.cmd.Process.Pid {
			return pid
		}
	}
	return 0
}

// killAll kills the host and the process group of its program. The host is stopped first, so that
// it does not reap the program.
func (h *host) killAll() {
	defer h.kill()
	require.NoError(h.TB, h.cmd.Process.Signal(syscall.SIGSTOP))
	var state syscall.WaitStatus
	_, err := syscall.Wait4(h.cmd.Process.Pid, &state, syscall.WUNTRACED, nil)
	require.NoError(h.TB, err)
	require.True(h.TB, state.Stopped(), "the host has ended: %v", state)
	if pid := h.program(); pid > 0 {
		_ = syscall.Kill(-pid, syscall.SIGKILL)
	}
}

func (h *host) read(name string) []byte {
	data, err := os.ReadFile(filepath.Join(h.Home, name))
	if err != nil {
		return nil
	}
	return data
}

// The method "waits" returns when the file contains the text.
func (h *host) waits(name, text string) {
	h.Helper()
	require.True(h, until(patience, func() bool { return strings.Contains(string(h.read(name)), text) }), "%s has no %q", name, text)
}

// The method "restored" restores the host's session as the next process would. It returns the
// client of that process and the results of RestoreSession.
func (h *host) restored(change ...func(*bgagent.SessionRestore)) (c *Client, state bgagent.PromptState, end bgagent.TurnEnd, err error) {
	h.Helper()
	c, err = New(Config{Agents: map[string]Agent{"a": h.agent()}, Directory: h.Dir})
	require.NoError(h, err)
	h.Cleanup(func() { require.NoError(h, c.Close(context.Background())) })
	r := h.restore()
	for _, f := range change {
		f(&r)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	state, end, err = c.RestoreSession(ctx, r)
	return c, state, end, err
}

func (h *host) restore() bgagent.SessionRestore {
	return bgagent.SessionRestore{
		Spec: bgagent.SessionSpec{Agent: "a", Depth: 1, Instance: secondLife}, Session: string(h.read("id")), Saved: h.read("saved"),
		Last: h.Prompt, Instance: h.Prompt.Instance,
	}
}

// The method "next" runs the next turn of the session in the next process.
func (h *host) next(c *Client, id, text string) (bgagent.TurnEnd, error) {
	h.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return c.RunTurn(ctx, string(h.read("id")), bgagent.Prompt{ID: id, Text: text, Instance: secondLife, Permissions: h.Prompt.Permissions}, nil)
}
