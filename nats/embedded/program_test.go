//go:build unix

package embedded_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/stretchr/testify/require"

	"github.com/bgagent/bgagent/internal/race"
	"github.com/bgagent/bgagent/internal/tempdir"
)

// machine is a machine that runs "bgagent serve".
type machine struct {
	t      *testing.T
	binary string
	dir    string
	config string
	mcp    string // address of the tools
	token  string // the caller's token, or empty
	serve  *exec.Cmd
}

func (m *machine) command(args ...string) *exec.Cmd {
	cmd := exec.Command(m.binary, append([]string{"-c", m.config, "--state", filepath.Join(m.dir, "state")}, args...)...)
	cmd.Dir, cmd.Env = m.dir, []string{"HOME=" + m.dir, "PATH=/usr/bin:/bin", "TMPDIR=" + m.dir}
	return cmd
}

// run runs a command on the machine and returns what it prints.
func (m *machine) run(args ...string) (string, error) {
	out, err := m.command(args...).CombinedOutput()
	return string(out), err
}

func (m *machine) start(process string, args ...string) {
	m.serve = m.command(append([]string{"serve", "--addr", "127.0.0.1:0", "--process", process}, args...)...)
	m.serve.Stderr = os.Stderr
	out, err := m.serve.StdoutPipe()
	require.NoError(m.t, err)
	require.NoError(m.t, m.serve.Start())
	m.t.Cleanup(m.kill)
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(m.t, err)
	m.mcp = strings.TrimSpace(strings.TrimPrefix(line, "MCP: "))
}

// kill kills the server with SIGKILL. Later calls do nothing.
func (m *machine) kill() {
	_ = m.serve.Process.Kill()
	_ = m.serve.Wait()
}

// The method "call" makes an MCP request and returns the whole answer.
func (m *machine) call(session *string, method string, params any) string {
	message := map[string]any{"jsonrpc": "2.0", "method": method, "params": params}
	if !strings.HasPrefix(method, "notifications/") {
		message["id"] = 1
	}
	body, err := json.Marshal(message)
	require.NoError(m.t, err)
	r, err := http.NewRequestWithContext(m.t.Context(), http.MethodPost, m.mcp, bytes.NewReader(body))
	require.NoError(m.t, err)
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Accept", "application/json, text/event-stream")
	if m.token != "" {
		r.Header.Set("Authorization", "Bearer "+m.token)
	}
	if *session != "" {
		r.Header.Set("Mcp-Session-Id", *session)
	}
	resp, err := http.DefaultClient.Do(r)
	require.NoError(m.t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	require.NoError(m.t, err)
	require.Less(m.t, resp.StatusCode, 300, "%s", text)
	if id := resp.Header.Get("Mcp-Session-Id"); id != "" {
		*session = id
	}
	return string(text)
}

// The method "tool" calls a tool and returns the whole answer.
func (m *machine) tool(name string, arguments map[string]any) string {
	session := ""
	m.call(&session, "initialize", map[string]any{"protocolVersion": "2025-06-18", "capabilities": map[string]any{}, "clientInfo": map[string]any{"name": "test", "version": "1"}})
	m.call(&session, "notifications/initialized", map[string]any{})
	return m.call(&session, "tools/call", map[string]any{"name": name, "arguments": arguments})
}

// launch launches a task that waits for minutes, and returns its id.
func (m *machine) launch() string {
	text := m.tool("delegate_task", map[string]any{"subagent_type": "wait", "prompt": "500 s", "description": "a long wait"})
	id := regexp.MustCompile(`bg_[0-9a-z]+`).FindString(text)
	require.NotEmpty(m.t, id, text)
	return id
}

// twoMachines returns two machines of a cluster. Their servers have not started yet.
func twoMachines(t *testing.T, url string, takeOver bool) (one, two *machine) {
	if race.Enabled {
		t.Skip("the program is built without the race detector")
	}
	binary := filepath.Join(tempdir.New(t), "bgagent")
	out, err := exec.Command("go", "build", "-o", binary, "../../cmd/bgagent").CombinedOutput()
	require.NoError(t, err, "%s", out)
	var machines [2]*machine
	for i := range machines {
		m := &machine{t: t, binary: binary, dir: tempdir.New(t)}
		m.config = filepath.Join(m.dir, "bgagent.jsonc")
		require.NoError(t, os.WriteFile(m.config, fmt.Appendf(nil, `{"cluster": {"url": %q, "takeOver": %v}, "agents": {"wait": {"kind": "inproc"}}}`, url, takeOver), 0o600))
		machines[i] = m
	}
	return machines[0], machines[1]
}

// takesOver waits until the machine lists the tasks of the process "dead" as taken over by the process
// "by".
func (m *machine) takesOver(dead, by string) {
	until(m.t, func() bool {
		list, err := m.run("tasks")
		return err == nil && strings.Contains(list, "process "+dead+" of the cluster, taken over by "+by)
	})
}

// A process is treated as dead only when its lease has expired, so the test takes more than 30 s.
func TestAServeRunsTheTasksOfAnotherUntilItStartsAgain(t *testing.T) {
	t.Parallel()
	s := listening(t, func(*server.Options) {})
	one, two := twoMachines(t, s.URL(), true)
	one.start("m1")
	two.start("m2")
	first, second := one.launch(), one.launch()
	one.kill()
	two.takesOver("m1", "m2")
	told, err := two.run("cancel", first, "--reason", "not needed")
	require.NoError(t, err, told)

	one.start("m1")
	list, err := two.run("tasks")
	require.NoError(t, err, list)
	require.NotContains(t, list, "taken over")
	for id, status := range map[string]string{first: "not needed", second: "running"} {
		shown, err := one.run("show", id)
		require.NoError(t, err, shown)
		require.Contains(t, shown, status)
	}
}

// Like TestAServeRunsTheTasksOfAnotherUntilItStartsAgain, this test waits until a lease has expired.
func TestAServeWhoseTasksWereTakenOverWhileItWasFrozenExits(t *testing.T) {
	t.Parallel()
	s := listening(t, func(*server.Options) {})
	one, two := twoMachines(t, s.URL(), true)
	one.start("m1")
	two.start("m2")
	id := one.launch()
	require.NoError(t, one.serve.Process.Signal(syscall.SIGSTOP))
	two.takesOver("m1", "m2")
	require.NoError(t, one.serve.Process.Signal(syscall.SIGCONT))
	ended := make(chan error, 1)
	go func() { ended <- one.serve.Wait() }()
	select {
	case err := <-ended:
		require.Equal(t, 1, exitCode(err))
	case <-time.After(time.Minute):
		require.Fail(t, "the serve continues without its tasks")
	}
	shown, err := two.run("show", id)
	require.NoError(t, err, shown)
	require.Contains(t, shown, "running")
}

func TestTwoServesOfAClusterAreOneService(t *testing.T) {
	s := listening(t, func(*server.Options) {}) // this server is closed in the middle of the test
	one, two := twoMachines(t, s.URL(), false)
	one.start("m1")
	two.start("m2")
	first, second := one.launch(), one.launch()

	list, err := two.run("tasks")
	require.NoError(t, err, list)
	require.Contains(t, list, "process m1 of the cluster")
	require.Contains(t, list, "process m2 of the cluster")
	require.Contains(t, list, first)
	status, err := two.run("status", "--json")
	require.NoError(t, err, status)
	require.Contains(t, status, `"process":"m1"`)
	shown, err := two.run("show", first)
	require.NoError(t, err, shown)
	require.Contains(t, shown, "process m1 of the cluster")

	told, err := two.run("cancel", first, "--reason", "not needed")
	require.NoError(t, err, told)
	shown, err = one.run("show", first)
	require.NoError(t, err, shown)
	require.Contains(t, shown, "cancelled")
	require.Contains(t, shown, "not needed")

	one.kill()
	until(t, func() bool { // until the servers notice that the connection of m1 is gone
		list, err = two.run("tasks")
		return err == nil && strings.Contains(list, "its process is dead")
	})
	require.Contains(t, list, second)
	require.Contains(t, list, "was ")
	told, err = two.run("cancel", second)
	require.Error(t, err)
	require.Contains(t, told, "its process is dead or has lost its connection")
	require.Contains(t, told, "the process m1 of the cluster")
	require.Equal(t, 2, exitCode(err), "like a serve on the same machine that does not run")

	list, err = one.run("tasks")
	require.NoError(t, err, "after kill -9: %s", list)
	status, err = one.run("status")
	require.NoError(t, err, status)

	third := two.launch()
	log, err := two.run("logs", third)
	require.NoError(t, err, log)

	require.NoError(t, s.Close())
	began := time.Now()
	shown, err = two.run("show", third)
	require.NoError(t, err, shown)
	require.Contains(t, shown, "process m2 of the cluster")
	require.Less(t, time.Since(began), 20*time.Second, "without the servers")
	told, err = two.run("show", second)
	require.Error(t, err)
	require.Equal(t, 1, exitCode(err), told)
	require.NotContains(t, told, "did you mean")
}

func exitCode(err error) int {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	return -1
}
