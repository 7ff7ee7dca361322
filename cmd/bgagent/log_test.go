//go:build unix

package main

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/notify"
	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/stretchr/testify/require"
)

func TestAServerLogsWhatHappens(t *testing.T) {
	p := newPlace(t)
	p.write("agent.sh", "#!/bin/sh\ncat >/dev/null\necho no key >&2\nexit 3\n")
	p.write("tell.sh", `#!/bin/sh
echo "$BGAGENT_EVENT: $1" >>"$(dirname "$0")/told"
`)
	p.write(".bgagent.jsonc", `{"notify": ["./tell.sh"], "agents": {"wait": {"kind": "inproc"}, "bad": {"kind": "command", "preset": "generic", "command": ["./agent.sh"]}}}`)
	cmd := p.command("mcp", "--log", "server.log", "-v")
	problems := newOutput()
	cmd.Stderr = problems
	cs := client(t, &mcp.CommandTransport{Command: cmd, TerminateDuration: atMost})
	callTool(t, cs, "delegate_task", map[string]any{"subagent_type": "wait", "prompt": "1 ms", "description": "a \x1b[2Jtitle", "run_in_background": false})
	callTool(t, cs, "delegate_task", map[string]any{"subagent_type": "bad", "prompt": "x", "description": "other", "run_in_background": false})
	p.awaitFile("told")
	require.NoError(t, cs.Close())

	path := filepath.Join(p.project, "server.log")
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	log := string(b)
	require.Equal(t, 8, strings.Count(log, "\n"), log)
	require.Regexp(t, `(?s)level=INFO msg="mcp begins" .*msg=launched task=bg_\w+ agent=wait by=mcp description="a title"
.*msg=started task=.* waited=.*
.*msg=ended task=.* agent=wait status=completed took=.*
.*msg=launched .* agent=bad by=mcp description=other
.*msg=started .*
.*level=WARN msg=ended .* agent=bad status=error reason="agent.sh: it exited with code 3: no key" took=.*
.*msg="the end"
$`, log)
	require.Contains(t, problems.String(), log[strings.Index(log, "msg=launched"):])
	require.NotContains(t, log, "\x1b")
	told, err := os.ReadFile(filepath.Join(p.project, "told"))
	require.NoError(t, err)
	require.Contains(t, string(told), "(other) has failed: agent.sh: it exited with code 3: no key\n")
	require.Contains(t, string(told), "done: bgagent: the last task has ended\n")

	got := p.run("serve", "--log", "none/server.log")
	require.Equal(t, 2, got.code)
	require.Equal(t, "bgagent: --log "+p.project+"/none/server.log: the file cannot be written: no such file or directory\n", got.stderr)
}

func TestServePrintsHowToUseItAndAnswersHealthChecks(t *testing.T) {
	p := newPlace(t)
	p.write(".bgagent.jsonc", `{"agents": {"wait": {"kind": "inproc"}}}`)
	p.env = append(p.env, "ALICE=0123456789abcdef")
	p.write("bob", "fedcba9876543210")
	r := p.start("serve", "--addr", "127.0.0.1:0", "--token", "alice=ALICE", "--token", "bob=@"+p.project+"/bob")
	r.out.await(t, "to use it as bob from")
	r.out.await(t, `"Bearer {file:`+p.project+`/bob}"`)
	out := r.out.String()
	_, url, _ := strings.Cut(out, "MCP: ")
	url, _, _ = strings.Cut(url, "\n")
	for _, want := range []string{
		"to use it as alice from\n  claude:   claude mcp add --transport http bgagent " + url + ` --header "Authorization: Bearer $ALICE"` + "\n",
		"  codex:    codex mcp add bgagent --url " + url + " --bearer-token-env-var ALICE\n",
		`  gemini:   gemini mcp add --transport http bgagent ` + url + ` --header "Authorization: Bearer $(cat ` + p.project + `/bob)"`,
		`"Bearer {env:ALICE}"`,
	} {
		require.Contains(t, out, want)
	}
	resp, err := http.Get(strings.TrimSuffix(url, "/mcp") + "/healthz")
	require.NoError(t, err)
	b, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	resp.Body.Close()
	require.Equal(t, http.StatusOK, resp.StatusCode)
	require.Equal(t, "ok\n", string(b))
	require.NoError(t, r.Process.Signal(syscall.SIGTERM))
	require.Equal(t, 0, r.code())
}

func TestTheConfigurationIsPrintedAsJSON(t *testing.T) {
	p := newPlace(t)
	file := p.write(".bgagent.jsonc", `{"background_task": {"maxDepth": 2}, "agents": {"wait": {"kind": "inproc", "permissions": {"edit": "deny"}}}}`)
	got := p.run("config", "--json")
	require.Equal(t, 0, got.code, got.stderr)
	require.Contains(t, got.out, "\"files\": [\n    \""+file+"\"")
	require.Contains(t, got.out, "\"key\": \"background_task.maxDepth\",\n      \"value\": 2,\n      \"origin\": \""+file+":1:22\"")
	require.Contains(t, got.out, "\"key\": \"agents.wait.permissions\",\n      \"value\": {\n        \"edit\": \"deny\"\n      }")
	require.Equal(t, 2, p.run("config", "--json", "--schema").code)
}

// When the user stops the server, it might not yet have read the events about the tasks that ended last. The
// user must still be notified of the tasks that ended before the stop.
func TestAnEndBeforeTheEndOfTheServerIsTold(t *testing.T) {
	p := newPlace(t)
	tell := p.write("tell.sh", "#!/bin/sh\necho \"$BGAGENT_EVENT $BGAGENT_TASK\" >>\"$(dirname \"$0\")/told\"\n")
	s := &serving{notify: notify.New([]string{tell}, "test", func(err error) { t.Error(err) })}
	at := time.Now()
	s.ending.Store(&at)
	s.tell(bgagent.Task{ID: "before", Status: bgagent.Failed, Ended: at.Add(-time.Millisecond)}, false)
	s.tell(bgagent.Task{ID: "after", Status: bgagent.Cancelled, Ended: at}, false)
	s.tell(bgagent.Task{ID: "before, by a wrong clock", Status: bgagent.Failed, Ended: onWrongClock(t, at.Add(-time.Millisecond), time.Hour)}, false)
	s.tell(bgagent.Task{ID: "after a suspension", Status: bgagent.Cancelled, Ended: onWrongClock(t, at, -time.Hour)}, false)
	s.tell(bgagent.Task{ID: "last", Status: bgagent.Completed, Ended: at.Add(-time.Millisecond)}, true)
	s.notify.Close(t.Context())
	told, err := os.ReadFile(filepath.Join(p.project, "told"))
	require.NoError(t, err)
	require.Equal(t, "failed before\nfailed before, by a wrong clock\ndone \n", string(told))
}

// onWrongClock returns a time whose wall clock differs from that of "at". Both times have the same reading of
// the monotonic clock. A manager reports such times if the clock was set or the computer was suspended after
// the manager was created.
func onWrongClock(t *testing.T, at time.Time, by time.Duration) time.Time {
	t.Helper()
	wrong := at
	*(*uint64)(unsafe.Pointer(&wrong)) += uint64(by/time.Second) << 30 // the first field contains the seconds of the wall clock
	require.Zero(t, wrong.Sub(at))
	require.Equal(t, by, wrong.Round(0).Sub(at.Round(0)))
	return wrong
}

func TestServeLogsLaunchesStartsAndEnds(t *testing.T) {
	p := newPlace(t)
	p.write(".bgagent.jsonc", `{"agents": {"wait": {"kind": "inproc"}}}`)
	r := p.start("serve", "--addr", "127.0.0.1:0", "--log", "server.log", "-v")
	r.out.await(t, "to use it from")
	_, url, _ := strings.Cut(r.out.String(), "MCP: ")
	url, _, _ = strings.Cut(url, "\n")
	cs := client(t, &mcp.StreamableClientTransport{Endpoint: url, DisableStandaloneSSE: true})
	callTool(t, cs, "delegate_task", map[string]any{"subagent_type": "wait", "prompt": "1 ms", "description": "look", "run_in_background": false})
	require.NoError(t, cs.Close())
	require.NoError(t, r.Process.Signal(syscall.SIGTERM))
	require.Equal(t, 0, r.code())
	path := filepath.Join(p.project, "server.log")
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	log, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Regexp(t, `(?s)^[^\n]*level=INFO msg="serve begins" [^\n]*
[^\n]*msg=launched task=bg_\w+ agent=wait by=\S+ description=look
[^\n]*msg=started task=bg_\w+ [^\n]*
[^\n]*msg=ended task=bg_\w+ agent=wait status=completed took=[^\n]*
[^\n]*msg="the end"
$`, string(log))
	for line := range strings.Lines(string(log)) {
		require.Contains(t, r.out.String(), line, "-v writes the same lines to standard error")
	}
}
