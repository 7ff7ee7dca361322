//go:build unix

package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/control"
	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/stretchr/testify/require"
)

// The agent "patient" has sessions. It answers a prompt once the file "go" exists.
const patient = `#!/bin/sh
prompt=$(cat)
echo "$prompt" >>asked
echo '{"type":"session","id":"s-1"}'
echo "a problem of $prompt" >&2
while [ ! -e go ]; do sleep 0.05; done
echo '{"type":"message","text":"the answer to '"$prompt"'"}'
echo '{"type":"end"}'
`

// withPatient returns a place with the agent "patient". Only one task runs at a time.
func withPatient(t *testing.T) *place {
	p := newPlace(t)
	p.write("patient.sh", patient)
	p.write(".bgagent.jsonc", `{"background_task": {"totalConcurrency": 1}, "agents": {"patient": {"kind": "command", "preset": "generic", "format": "lines", "command": ["./patient.sh"]}}}`)
	return p
}

// delegate launches a task in the background and returns its id.
func delegate(t *testing.T, cs *mcp.ClientSession, prompt string) string {
	t.Helper()
	text := callTool(t, cs, "delegate_task", map[string]any{"subagent_type": "patient", "prompt": prompt, "description": "task " + prompt})
	require.Regexp(t, idIn, text)
	return idIn.FindStringSubmatch(text)[1]
}

// The method "control" returns the path of the file through which commands find the running serve.
func (p *place) control() string {
	p.t.Helper()
	all, err := filepath.Glob(filepath.Join(p.project, "../../.local/state/bgagent/tasks/serve-*/control.json"))
	require.NoError(p.t, err)
	if len(all) == 0 {
		return ""
	}
	require.Len(p.t, all, 1)
	return all[0]
}

// The method "does" executes a command that must succeed, and returns its output.
func (p *place) does(args ...string) string {
	p.t.Helper()
	got := p.run(args...)
	require.Equal(p.t, 0, got.code, "%v: %s%s", args, got.out, got.stderr)
	return got.out
}

// The method "refuses" executes a command that must fail with the given exit code, and returns the command's
// error message.
func (p *place) refuses(code int, args ...string) string {
	p.t.Helper()
	got := p.run(args...)
	require.Equal(p.t, code, got.code, "%v: %s%s", args, got.out, got.stderr)
	return got.stderr
}

func TestATerminalSeesAndControlsARunningServe(t *testing.T) {
	t.Parallel()
	p := withPatient(t)
	at, cmd := startServe(t, p)
	cs := client(t, &mcp.StreamableClientTransport{Endpoint: at, DisableStandaloneSSE: true})
	first, second := delegate(t, cs, "one"), delegate(t, cs, "two")
	p.awaitFile("asked")

	info, err := os.Stat(p.control())
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())

	text := p.does("status")
	require.Contains(t, text, "runs as process "+strconv.Itoa(cmd.Process.Pid)+"\n")
	require.Contains(t, text, "MCP: "+at+", page: http://")
	require.Contains(t, text, "1 running, 1 queued, 0 parked; in the last 24 hours: 0 completed, 0 failed, 0 cancelled\n")
	require.Regexp(t, first+` +running +patient .* task one\n`, text)
	require.Regexp(t, second+` +queued +patient +- +for \S+, place 1; total: 1 of 1 in use +task two\n`, text)

	var st standing
	require.NoError(t, json.Unmarshal([]byte(p.does("status", "--json")), &st))
	require.Equal(t, cmd.Process.Pid, st.Owner)
	require.Equal(t, at, st.MCP)
	require.Equal(t, []int{1, 1, 0}, []int{st.Running, st.Queued, st.Parked})
	require.Len(t, st.Tasks, 2)

	require.Regexp(t, second+` +queued `, p.does("tasks"))
	require.Regexp(t, `doing: +for \S+, place 1; total: 1 of 1 in use\n`, p.does("show", second))

	require.Regexp(t, `^message \S+ to `+first+`: accepted; it waits for its turn\n$`, p.does("send", first, "and more"))
	require.Regexp(t, `^message k to `+first+`: accepted`, p.does("send", first, "--key", "k", "and yet more"))
	require.Regexp(t, `^message k to `+first+`: accepted`, p.does("send", first, "--key", "k", "and yet more"))
	require.Contains(t, p.refuses(1, "send", "--now", first, "now"), "cannot join")

	require.Equal(t, "cancelled "+second+", which was pending: task two\n", p.does("cancel", second, "--reason", "not needed"))
	require.Contains(t, p.does("show", second), "not needed")
	require.Contains(t, p.refuses(1, "cancel", second), "has already ended")
	require.Equal(t, "bgagent: send: task "+second+" is cancelled: the task has already ended; bgagent resume "+second+" PROMPT continues it\n", p.refuses(1, "send", second, "more"))
	require.Contains(t, p.refuses(2, "cancel", "bg_0123456789abcdef"), "no task bg_0123456789abcdef is kept in ")
	require.Contains(t, p.refuses(2, "cancel", first[:8]), "; did you mean "+first+"?\n")
	require.Regexp(t, `; 2 tasks begin with it: (`+first+`, `+second+`|`+second+`, `+first+`); write the whole id\n$`, p.refuses(2, "cancel", "bg_"))
	require.Contains(t, p.refuses(1, "resume", first, "next"), "has not ended")
	require.Contains(t, p.refuses(2, "resume", first), "bgagent resume ID PROMPT")
	require.Contains(t, p.refuses(2, "send", first, " "), "the message is empty")

	p.write("go", "")
	log := p.does("logs", "-f", first)
	require.Contains(t, log, "stderr: a problem of one\n")
	require.Contains(t, log, "the answer to and yet more")
	require.Equal(t, log, p.does("logs", first))
	require.Regexp(t, `(?s)status: +completed.*the answer to one.*the answer to and more`, p.does("show", first))

	got := p.feed("three\n", "resume", first, "-")
	require.Equal(t, 0, got.code, got.stderr)
	require.Equal(t, "resumed "+first+", attempt 2: task one\n", got.out)
	require.Contains(t, p.does("logs", "-f", first), "the answer to three")
	require.Contains(t, p.does("resume", first, "--again"), "attempt 3")
	p.does("logs", "-f", first)
	b, err := os.ReadFile(filepath.Join(p.project, "asked"))
	require.NoError(t, err)
	require.Equal(t, 2, strings.Count(string(b), "three\n"), "the prompt was repeated")

	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	_ = cmd.Wait()
	require.Empty(t, p.control(), "a serve that ends removes the file")
	require.Contains(t, p.refuses(2, "resume", first, "next"), ", which has task "+first+", does not run; start it with this configuration, and repeat the command\n")
	require.Contains(t, p.does("logs", first), "the answer to three", "the log is read from its files")
	require.Contains(t, p.does("logs", "-f", first), "the answer to three")
	require.Equal(t, "nothing runs and no task waits; bgagent tasks lists the tasks that have ended\n", p.does("status"))

	p.does("prune", first, "--force")
	require.NoDirExists(t, filepath.Join(filepath.Dir(st.Store), filepath.Base(st.Store), "logs", first))
}

func TestARunningServeDeletesEndedTasks(t *testing.T) {
	t.Parallel()
	p := withPatient(t)
	at, cmd := startServe(t, p)
	cs := client(t, &mcp.StreamableClientTransport{Endpoint: at, DisableStandaloneSSE: true})
	ids := []string{delegate(t, cs, "one"), delegate(t, cs, "two"), delegate(t, cs, "three")}
	require.Contains(t, p.refuses(1, "prune", ids[0]), "has not ended")
	p.write("go", "")
	for _, id := range ids {
		require.Contains(t, p.does("logs", "-f", id), "the answer to")
	}
	require.Contains(t, p.refuses(1, "prune", ids[0]), "its end has not been reported, or tasks below it are not over; if the task has ended, --force deletes it anyway\n")
	require.Equal(t, "deleted 0 tasks\n", strings.SplitAfter(p.does("prune", "--yes"), "\n")[0])
	require.Equal(t, "deleted "+ids[0]+"\n", p.does("prune", ids[0], "--force"))
	require.Contains(t, p.refuses(2, "show", ids[0]), "no task "+ids[0]+" is kept in ")
	require.NoDirExists(t, filepath.Join(filepath.Dir(p.control()), "logs", ids[0]))
	require.DirExists(t, filepath.Join(filepath.Dir(p.control()), "logs", ids[1]))

	for range 2 { // the answer to the first call also reports the third task; the second call acknowledges that answer
		callTool(t, cs, "background_output", map[string]any{"task_id": ids[1]})
	}
	require.Eventually(t, func() bool { return strings.HasPrefix(p.does("prune"), "2 tasks have ended") }, 2*time.Minute, 10*time.Millisecond)
	require.Equal(t, "deleted 2 tasks\n", p.does("prune", "--yes"))
	require.Contains(t, p.refuses(2, "show", ids[1]), "no task ")
	require.NotContains(t, callTool(t, cs, "background_output", map[string]any{"task_id": ids[1]}), "the answer to two")

	require.NoError(t, cmd.Process.Kill())
	_ = cmd.Wait()
	require.Contains(t, p.refuses(2, "show", ids[0]), "no task ", "the deletion is durable")
}

func TestTheFileOfAKilledServeIsKnownToBeStale(t *testing.T) {
	t.Parallel()
	p := withPatient(t)
	at, cmd := startServe(t, p)
	cs := client(t, &mcp.StreamableClientTransport{Endpoint: at, DisableStandaloneSSE: true})
	id := delegate(t, cs, "one")
	require.Eventually(t, func() bool { return strings.Contains(p.run("logs", id).out, "a problem of one") }, 2*time.Minute, 10*time.Millisecond)
	require.NoError(t, cmd.Process.Kill())
	_ = cmd.Wait()
	require.NotEmpty(t, p.control(), "a killed serve leaves its file")
	for _, args := range [][]string{{"cancel", id}, {"send", id, "x"}, {"resume", id, "x"}, {"answer", id, "x"}, {"logs", "-f", id}} {
		require.Regexp(t, `^bgagent: bgagent serve with \S+, which has task `+id+`, does not run; start it with this configuration, and repeat the command\n$`, p.refuses(2, args...))
	}
	text := p.does("status")
	require.Contains(t, text, "has ended; the next one with this configuration continues its tasks\n")
	require.Regexp(t, id+` +was running `, text)
	require.Contains(t, p.does("logs", id), "stderr: a problem of one\n")
	require.Regexp(t, id+` +was running `, p.does("tasks"))

	// The next serve has its own file.
	at, _ = startServe(t, p)
	another := delegate(t, client(t, &mcp.StreamableClientTransport{Endpoint: at, DisableStandaloneSSE: true}), "two")
	require.Contains(t, p.does("cancel", another), "cancelled "+another)
}

func TestAServeThatDoesNotAnswerIsReported(t *testing.T) {
	t.Parallel()
	p := withPatient(t)
	at, _ := startServe(t, p)
	cs := client(t, &mcp.StreamableClientTransport{Endpoint: at, DisableStandaloneSSE: true})
	id := delegate(t, cs, "one")
	p.awaitFile("asked")
	b, err := os.ReadFile(p.control())
	require.NoError(t, err)
	var file map[string]string
	require.NoError(t, json.Unmarshal(b, &file))

	// Nothing listens on port 1.
	file["address"] = "127.0.0.1:1"
	b, err = json.Marshal(file)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(p.control(), b, 0o600))
	require.Contains(t, p.refuses(1, "cancel", id), "the server does not answer: ")
	got := p.run("status")
	require.Equal(t, 0, got.code)
	require.Contains(t, got.stderr, "; the output comes from its store\n")
	require.Contains(t, got.out, id)

	require.NoError(t, os.WriteFile(p.control(), []byte("{"), 0o600))
	require.Contains(t, p.refuses(1, "cancel", id), "reading the address for commands: ")
}

func TestAServeThatHangsIsNotAwaitedForEver(t *testing.T) {
	t.Parallel()
	p := withPatient(t)
	at, cmd := startServe(t, p)
	cs := client(t, &mcp.StreamableClientTransport{Endpoint: at, DisableStandaloneSSE: true})
	id := delegate(t, cs, "one")
	p.awaitFile("asked")
	require.NoError(t, cmd.Process.Signal(syscall.SIGSTOP))
	defer func() { _ = cmd.Process.Signal(syscall.SIGCONT) }()
	got := p.run("cancel", id)
	require.Equal(t, 1, got.code)
	require.Contains(t, got.stderr, "waiting for the answer of the bgagent serve that has task "+id)
	require.Contains(t, got.stderr, "the server does not answer: it was silent for 10s; if it hangs, end it and start it again\n")
	require.Contains(t, p.does("tasks", "--kept"), id)
}

func TestARequestWithoutAnAnswerCanStillTakeEffect(t *testing.T) {
	err := undone(fmt.Errorf("%w: EOF", control.ErrUnanswered), "look")
	require.EqualError(t, err, "the request was sent, but its answer did not arrive: EOF; it can still take effect: look")
	require.ErrorIs(t, err, control.ErrUnanswered)
}

func TestCommandsThatControlAreRefusedInsideATurn(t *testing.T) {
	t.Parallel()
	p := withAgent(t, "cat >/dev/null\nfor command in 'cancel bg_x' 'resume bg_x y' 'send bg_x y' 'answer bg_x y'; do "+binary+" $command >>said 2>&1; echo $? >>codes; done\n"+binary+" status >>seen 2>&1; echo $? >>codes\necho done\n")
	at, _ := startServe(t, p)
	cs := client(t, &mcp.StreamableClientTransport{Endpoint: at, DisableStandaloneSSE: true})
	require.Contains(t, callTool(t, cs, "delegate_task", map[string]any{"subagent_type": "a", "prompt": "x", "run_in_background": false}), "done")
	said, err := os.ReadFile(filepath.Join(p.project, "said"))
	require.NoError(t, err)
	require.Equal(t, 4, strings.Count(string(said), "refused inside a turn of a task; "), string(said))
	codes, err := os.ReadFile(filepath.Join(p.project, "codes"))
	require.NoError(t, err)
	require.Equal(t, "2\n2\n2\n2\n0\n", string(codes))
}

func TestOnlyTheTasksOfServeAreControlled(t *testing.T) {
	t.Parallel()
	p := withPatient(t)
	p.write("tasks.jsonc", `[{"agent": "patient", "prompt": "one"}]`)
	r := p.start("run", "tasks.jsonc", "-o", "out", "--json")
	p.awaitFile("asked")
	var id string
	for k := range p.keptTasks() {
		id = k
	}
	require.Contains(t, p.refuses(2, "cancel", id), "only the tasks of bgagent serve can be controlled from here")
	require.Contains(t, p.refuses(2, "logs", id), "its log is in that folder")
	require.Contains(t, p.does("status"), "bgagent run into ")
	p.write("go", "")
	require.Equal(t, 0, r.code(), r.out)
	require.Contains(t, p.refuses(2, "resume", id, "x"), ", which had task "+id+", has ended")
}

// keptTasks returns the kept tasks, by id.
func (p *place) keptTasks() map[string]bgagent.Task {
	p.t.Helper()
	out := map[string]bgagent.Task{}
	for line := range strings.Lines(p.does("tasks", "--all", "--json")) {
		var k keptTask
		require.NoError(p.t, json.Unmarshal([]byte(line), &k))
		out[k.Task.ID] = k.Task
	}
	return out
}

func TestThePageShowsTheLogOfATask(t *testing.T) {
	t.Parallel()
	p := withPatient(t)
	p.write("go", "")
	at, _ := startServe(t, p)
	cs := client(t, &mcp.StreamableClientTransport{Endpoint: at, DisableStandaloneSSE: true})
	id := delegate(t, cs, "one")
	require.Contains(t, callTool(t, cs, "background_output", map[string]any{"task_id": id, "block": true}), "the answer to one")
	status, body := get(t, strings.TrimSuffix(at, "mcp")+"log?"+url.Values{"id": {id}, "from": {"0"}}.Encode(), "")
	require.Equal(t, http.StatusOK, status, body)
	var part struct {
		Text string
		Next int64
	}
	require.NoError(t, json.Unmarshal([]byte(body), &part))
	require.Contains(t, part.Text, "stderr: a problem of one\n")
	require.Contains(t, part.Text, `{"type":"end"}`)
	require.EqualValues(t, len(part.Text), part.Next)

	p2 := withPatient(t)
	p2.write("go", "")
	at, _ = startServe(t, p2, "--state", "none")
	cs = client(t, &mcp.StreamableClientTransport{Endpoint: at, DisableStandaloneSSE: true})
	id = delegate(t, cs, "one")
	status, body = get(t, strings.TrimSuffix(at, "mcp")+"log?"+url.Values{"id": {id}, "from": {"0"}}.Encode(), "")
	require.Equal(t, http.StatusNotFound, status, body)
}
