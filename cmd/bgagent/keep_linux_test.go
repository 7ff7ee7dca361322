package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/sqlite"
	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/stretchr/testify/require"
)

// The agent "mindful" has sessions. It finds the number of its task in the prompt. It answers when
// the file "go" exists or, for task number N, the file "go-N". Like a real agent, it continues even
// if nobody reads its output.
const mindful = `#!/bin/sh
prompt=$(cat)
n=$(printf '%s\n' "$prompt" | grep -o 'number [0-9]*' | head -1 | cut -d' ' -f2)
echo "$n $1" >>asked
echo '{"type":"session","id":"s-'$n'"}'
echo '{"type":"message","text":"I begin."}'
while [ ! -e go ] && [ ! -e go-$n ]; do sleep 0.05; done
echo '{"type":"message","text":"the answer to '$n'"}'
echo '{"type":"end"}'
`

// withMindful returns a place with two agents: "mindful", and "forgetful", which has no
// sessions. At most three tasks run concurrently.
func withMindful(t *testing.T) *place {
	p := newPlace(t)
	p.write("mindful.sh", mindful)
	p.write("forgetful.sh", "#!/bin/sh\nn=$(grep -o 'number [0-9]*' | head -1 | cut -d' ' -f2)\necho \"$n \" >>asked\nwhile [ ! -e go ] && [ ! -e go-$n ]; do sleep 0.05; done\necho \"the answer to $n\"\n")
	p.write(".bgagent.jsonc", `{"background_task": {"totalConcurrency": 3}, "agents": {
		"mindful": {"kind": "command", "preset": "generic", "format": "lines", "command": ["./mindful.sh"]},
		"forgetful": {"kind": "command", "preset": "generic", "command": ["./forgetful.sh"]},
	}}`)
	t.Cleanup(func() { p.run("cleanup", "--yes") })
	return p
}

// askedOf returns, for each task number, one entry per prompt that the agent received, in order. Each entry
// is the argument that names the session, or is empty if the prompt began a new session.
func (p *place) askedOf() map[string][]string {
	b, _ := os.ReadFile(filepath.Join(p.project, "asked"))
	out := map[string][]string{}
	for line := range strings.Lines(string(b)) {
		n, arg, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		out[n] = append(out[n], arg)
	}
	return out
}

// awaitAsked waits until n tasks have received a prompt.
func (p *place) awaitAsked(n int) {
	p.t.Helper()
	require.Eventually(p.t, func() bool { return len(p.askedOf()) >= n }, atMost, 10*time.Millisecond)
}

// The method "kept" returns the kept tasks, by id, as "bgagent tasks" shows them.
func (p *place) kept(args ...string) map[string]keptTask {
	p.t.Helper()
	got := p.run(append([]string{"tasks", "--all", "--json"}, args...)...)
	require.Equal(p.t, 0, got.code, got.stderr)
	out := map[string]keptTask{}
	for line := range strings.Lines(got.out) {
		var k keptTask
		require.NoError(p.t, json.Unmarshal([]byte(line), &k), line)
		require.NotContains(p.t, out, k.Task.ID)
		out[k.Task.ID] = k
	}
	return out
}

// awaitEnded waits until all kept tasks have ended, and returns them, by id.
func (p *place) awaitEnded() map[string]keptTask {
	p.t.Helper()
	var all map[string]keptTask
	require.Eventually(p.t, func() bool {
		all = p.kept()
		for _, k := range all {
			if !k.Task.Status.Terminal() {
				return false
			}
		}
		return true
	}, atMost, 50*time.Millisecond)
	return all
}

// The method "saved" returns the saved states of the tasks that have not ended, from all stores.
func (p *place) saved() (states []string) {
	stores, _ := filepath.Glob(filepath.Join(p.project, "../../.local/state/bgagent/tasks/*"))
	for _, dir := range stores {
		r, err := sqlite.OpenReader(dir)
		if err != nil {
			continue
		}
		live, _ := r.Live(p.t.Context())
		_ = r.Close()
		for _, rec := range live {
			var data struct{ Session struct{ Saved []byte } }
			_ = json.Unmarshal(rec.Data, &data)
			states = append(states, string(data.Session.Saved))
		}
	}
	return states
}

// awaitSaved waits until the store contains, for each task with one of these numbers, the task's session and
// the fact that the agent has written to the session.
func (p *place) awaitSaved(numbers ...int) {
	p.t.Helper()
	require.Eventually(p.t, func() bool {
		missing := map[string]bool{}
		for _, n := range numbers {
			missing[strconv.Itoa(n)] = true
		}
		for _, saved := range p.saved() {
			for n := range missing {
				if strings.Contains(saved, `"own":"s-`+n+`"`) && strings.Contains(saved, `"wrote":true`) {
					delete(missing, n)
				}
			}
		}
		return len(missing) == 0
	}, atMost, 50*time.Millisecond)
}

// kill kills the program as in a crash, so that it cannot clean up.
func kill(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	require.NoError(t, cmd.Process.Kill())
	_ = cmd.Wait()
}

// launchNumbers launches the tasks 1 to n for the agent "mindful". It returns their ids.
func launchNumbers(t *testing.T, cs *mcp.ClientSession, n int) (ids []string) {
	t.Helper()
	for i := range n {
		text := callTool(t, cs, "delegate_task", map[string]any{"subagent_type": "mindful", "prompt": "number " + strconv.Itoa(i+1)})
		ids = append(ids, idIn.FindStringSubmatch(text)[1])
	}
	return ids
}

// dialServe connects to the server at the URL.
func dialServe(t *testing.T, url string) *mcp.ClientSession {
	return client(t, &mcp.StreamableClientTransport{Endpoint: url, DisableStandaloneSSE: true})
}

func TestAKilledServeGoesOnWithEveryTaskItHasAccepted(t *testing.T) {
	t.Parallel()
	p := withMindful(t)
	url, cmd := startServe(t, p)
	ids := launchNumbers(t, dialServe(t, url), 8)
	p.write("go-1", "")
	p.awaitSaved(2, 3, 4) // one task has ended, three are running, and four are pending
	kill(t, cmd)
	for i, k := range p.kept() {
		require.Zero(t, k.Owner, i)
	}
	before := p.askedOf()

	url, cmd = startServe(t, p)
	p.write("go", "")
	all := p.awaitEnded()
	require.Len(t, all, 8)
	cs := dialServe(t, url)
	for i, id := range ids {
		n := strconv.Itoa(i + 1)
		k := all[id]
		require.Equal(t, bgagent.Completed, k.Task.Status, "%s: %s", n, k.Task.Reason)
		require.Equal(t, cmd.Process.Pid, k.Owner)
		text := callTool(t, cs, "background_output", map[string]any{"task_id": id})
		require.Contains(t, text, "the answer to "+n)
		require.Contains(t, p.run("show", id).out, "\n\nthe answer to "+n+"\n")
		want := []string{""}
		if len(before[n]) > 0 && n != "1" {
			want = append(want, "--session=s-"+n) // the task was continued in its session
		}
		require.Equal(t, want, p.askedOf()[n], "task %s", n)
	}
}

func TestATerminatedServeSuspendsItsTasks(t *testing.T) {
	t.Parallel()
	p := withMindful(t)
	url, cmd := startServe(t, p)
	ids := launchNumbers(t, dialServe(t, url), 5)
	p.awaitSaved(1, 2, 3)
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	_ = cmd.Wait()
	require.Equal(t, 0, cmd.ProcessState.ExitCode())
	for id, k := range p.kept() {
		require.False(t, k.Task.Status.Terminal(), id)
		require.Zero(t, k.Owner)
	}
	require.Contains(t, p.run("tasks").out, "the next one with this configuration continues its tasks")
	_, _ = startServe(t, p)
	p.write("go", "")
	all := p.awaitEnded()
	for _, id := range ids {
		require.Equal(t, bgagent.Completed, all[id].Task.Status, all[id].Task.Reason)
	}
}

func TestAnInterruptedServeCancelsItsTasks(t *testing.T) {
	p := withMindful(t)
	url, cmd := startServe(t, p)
	ids := launchNumbers(t, dialServe(t, url), 4)
	p.awaitAsked(3)
	require.NoError(t, cmd.Process.Signal(os.Interrupt))
	_ = cmd.Wait()
	all := p.kept()
	for _, id := range ids {
		require.Equal(t, bgagent.Cancelled, all[id].Task.Status)
	}
}

func TestTwoServesOfOneConfigurationDoNotShareTasks(t *testing.T) {
	p := withMindful(t)
	_, cmd := startServe(t, p)
	got := p.run("serve", "--addr", "127.0.0.1:0")
	require.Equal(t, 2, got.code)
	require.Contains(t, got.stderr, "belong to a running bgagent (process "+strconv.Itoa(cmd.Process.Pid)+" since ")
	_, _ = startServe(t, p, "--state", "none")
	_, _ = startServe(t, p, "--state", "other")
	require.DirExists(t, filepath.Join(p.project, "other", "tasks"))
}

func TestAResumedRunContinuesWhatWasLiveWhenItWasKilled(t *testing.T) {
	t.Parallel()
	p := withMindful(t)
	p.write("tasks.jsonc", `[{"agent": "mindful", "prompt": "number 1"}, {"agent": "mindful", "prompt": "number 2"},
		{"agent": "forgetful", "prompt": "number 3"}, {"agent": "mindful", "prompt": "number 4"}, {"agent": "mindful", "prompt": "number 5"}]`)
	p.write("go-1", "")
	r := p.start("run", "tasks.jsonc", "-o", "out")
	p.awaitAsked(4)
	p.awaitSaved(2, 4)
	r.out.await(t, "1  completed")
	kill(t, r.Cmd)
	p.write("go", "")
	got := p.run("run", "--resume", "out")
	require.Equal(t, 0, got.code, got.out+got.stderr)
	require.Contains(t, got.out, "4 tasks were running or waiting when the earlier run ended, and are continued")
	require.Contains(t, got.out, "task 3 cannot be continued and runs again: ")
	require.Contains(t, got.out, "5 completed in ")
	require.Equal(t, map[string][]string{
		"1": {""}, "2": {"", "--session=s-2"}, "3": {"", ""}, "4": {"", "--session=s-4"}, "5": {""},
	}, p.askedOf())
	for i, row := range p.rows("out") {
		b, err := os.ReadFile(filepath.Join(p.project, "out", row["file"].(string)))
		require.NoError(t, err)
		require.Equal(t, "the answer to "+strconv.Itoa(i+1)+"\n", string(b))
	}
	completed := 0
	for _, k := range p.kept() {
		require.True(t, k.Task.Status.Terminal())
		require.Equal(t, "run", k.Command)
		if k.Task.Status == bgagent.Completed {
			completed++
		}
	}
	require.Equal(t, 5, completed)
	require.Equal(t, 0, p.run("run", "--resume", "out").code)
	require.Len(t, p.askedOf()["2"], 2, "nothing is left to do")
}

// A run can be killed after the end of a task is stored but before the result is written.
func TestAResumedRunWritesResultsThatTheKilledOneCouldNotWrite(t *testing.T) {
	t.Parallel()
	p := withMindful(t)
	p.write("tasks.jsonc", `[{"agent": "mindful", "prompt": "number 1"}, {"agent": "mindful", "prompt": "number 2"}]`)
	p.write("go-1", "")
	r := p.start("run", "tasks.jsonc", "-o", "out")
	r.out.await(t, "1  completed")
	kill(t, r.Cmd)
	index := filepath.Join(p.project, "out", "index.json")
	b, err := os.ReadFile(index)
	require.NoError(t, err)
	require.NoError(t, os.Remove(filepath.Join(p.project, "out", "001-number-1.md")))
	pending := strings.Replace(string(b), `"status": "completed"`, `"status": "pending"`, 1)
	require.NotEqual(t, string(b), pending)
	require.NoError(t, os.WriteFile(index, []byte(pending), 0o644))
	p.write("go", "")
	got := p.run("run", "--resume", "out")
	require.Equal(t, 0, got.code, got.out+got.stderr)
	require.Equal(t, []string{""}, p.askedOf()["1"], "the task is not run again")
	b, err = os.ReadFile(filepath.Join(p.project, "out", "001-number-1.md"))
	require.NoError(t, err)
	require.Equal(t, "the answer to 1\n", string(b))
}

// mcpOf starts "bgagent mcp" and connects to it.
func mcpOf(t *testing.T, p *place) (*mcp.ClientSession, *exec.Cmd) {
	t.Helper()
	cmd := p.command("mcp")
	return client(t, &mcp.CommandTransport{Command: cmd, TerminateDuration: atMost}), cmd
}

// killMCP kills the "bgagent mcp" of a connection. It then closes the connection, and thereby waits until the
// process has ended.
func killMCP(t *testing.T, cs *mcp.ClientSession, cmd *exec.Cmd) {
	t.Helper()
	require.NoError(t, cmd.Process.Kill())
	_ = cs.Close()
}

func TestAKilledMCPContinuesNothingAndItsSuccessorSaysWhatEnded(t *testing.T) {
	t.Parallel()
	p := withMindful(t)
	cs, cmd := mcpOf(t, p)
	ids := launchNumbers(t, cs, 5)
	p.write("go-1", "") // if task 1 ended before the last launch, the answer to that launch would report its end
	p.awaitSaved(2, 3, 4)
	killMCP(t, cs, cmd)
	p.write("go", "") // agent programs that are still running can exit now

	cs, _ = mcpOf(t, p)
	text := callTool(t, cs, "background_output", nil)
	for i, id := range ids {
		require.Contains(t, text, id, "the first answer names task %d", i+1)
	}
	all := p.kept()
	require.Len(t, all, 5)
	for i, id := range ids[1:] {
		require.True(t, all[id].Task.Status.Terminal())
		require.NotEqual(t, bgagent.Completed, all[id].Task.Status, i+2)
		require.Contains(t, all[id].Task.Reason, "ended")
	}
	require.Equal(t, bgagent.Completed, all[ids[0]].Task.Status)
	require.Equal(t, map[string][]string{"1": {""}, "2": {""}, "3": {""}, "4": {""}}, p.askedOf(), "no task has begun")
	text = callTool(t, cs, "delegate_task", map[string]any{"session_id": ids[1], "prompt": "number 2, again", "run_in_background": false})
	require.Contains(t, text, "the answer to 2")
	require.Equal(t, []string{"", "--session=s-2"}, p.askedOf()["2"], "the task is continued in its session")
}

func TestProcessesOfMCPInOneProjectHaveAStoreEach(t *testing.T) {
	t.Parallel()
	p := withMindful(t)
	first, one := mcpOf(t, p)
	second, two := mcpOf(t, p)
	a, b := launchNumbers(t, first, 1)[0], launchNumbers(t, second, 1)[0]
	all := p.kept()
	require.Equal(t, one.Process.Pid, all[a].Owner)
	require.Equal(t, two.Process.Pid, all[b].Owner)
	require.NotEqual(t, all[a].Store, all[b].Store)
	killMCP(t, first, one)
	killMCP(t, second, two)

	third, three := mcpOf(t, p)
	callTool(t, third, "background_output", nil)
	all = p.kept()
	require.Len(t, all, 2)
	for id, k := range all {
		require.True(t, k.Task.Status.Terminal(), id)
	}
	owners := []int{all[a].Owner, all[b].Owner}
	require.ElementsMatch(t, []int{0, three.Process.Pid}, owners, "mcp uses one store, and has ended the tasks of the other")
}

func TestMCPCancelsItsTasksAtTheEndOfItsInput(t *testing.T) {
	p := withMindful(t)
	cs, _ := mcpOf(t, p)
	ids := launchNumbers(t, cs, 4)
	p.awaitAsked(3)
	require.NoError(t, cs.Close())
	all := p.kept()
	for _, id := range ids {
		require.Equal(t, bgagent.Cancelled, all[id].Task.Status)
	}
}

var anyID = regexp.MustCompile(`bg_[0-9a-z]+`)

func TestKeptTasksAreListedShownAndDeleted(t *testing.T) {
	p := withMindful(t)
	got := p.run("tasks")
	require.Equal(t, 0, got.code)
	require.Contains(t, got.stderr, "no tasks are kept in "+filepath.Join(p.project, "../../.local/state/bgagent/tasks"))
	got = p.run("show", "bg_0000000000000000")
	require.Equal(t, 2, got.code)
	require.Contains(t, got.stderr, "no task bg_0000000000000000 is kept in ")
	require.Equal(t, 2, p.run("--state", "none", "tasks").code)

	p.write("tasks.jsonc", `[{"agent": "forgetful", "prompt": "number 1 \u001b[31m", "description": "the first"}]`)
	r := p.start("run", "tasks.jsonc", "-o", "out")
	p.awaitAsked(1)
	got = p.run("tasks")
	require.Contains(t, got.out, "bgagent run into "+p.project+"/out: runs as process "+strconv.Itoa(r.Process.Pid)+"\n")
	id := anyID.FindString(got.out)
	require.Regexp(t, id+" +running +forgetful .* the first\n", got.out)
	require.Contains(t, p.run("show", id).out, "status:      running\n")
	got = p.run("prune", id)
	require.Equal(t, 1, got.code)
	require.Contains(t, got.stderr, "task "+id+" belongs to bgagent run into "+p.project+"/out, which runs (process "+strconv.Itoa(r.Process.Pid)+"); end it before you delete the task")
	p.write("go", "")
	require.Equal(t, 0, r.code(), r.out)

	require.Contains(t, p.run("show", id).out, "\n\nthe answer to 1\n")
	require.Equal(t, "number 1 \n", strings.ReplaceAll(p.run("show", id, "--prompt").out, "[31m", ""), "without its escape sequence")
	got = p.run("show", id, "--messages")
	require.Equal(t, 1, got.code)
	require.Contains(t, got.stderr, "the conversation of task "+id+" cannot be read here; only the process that ran the task has it")
	require.Contains(t, p.run("prune").out, "1 tasks have ended; bgagent prune --yes deletes them\n")
	require.Equal(t, "deleted "+id+"\n", p.run("prune", id).out)
	require.Equal(t, 2, p.run("show", id).code)
	require.Empty(t, p.kept())
}

func TestTheStateFolderBelongsToItsUserAlone(t *testing.T) {
	p := withMindful(t)
	p.write("tasks.jsonc", `[{"agent": "forgetful", "prompt": "number 1"}]`)
	p.write("go", "")
	require.Equal(t, 0, p.run("--state", "kept", "run", "tasks.jsonc", "-o", "out").code)
	all := p.kept("--state", "kept")
	require.Len(t, all, 1)
	for _, k := range all {
		require.NoError(t, filepath.WalkDir(filepath.Join(p.project, "kept"), func(path string, e os.DirEntry, err error) error {
			require.NoError(t, err)
			info, err := e.Info()
			require.NoError(t, err)
			require.Zero(t, info.Mode().Perm()&0o077, path)
			return nil
		}))
		require.NoError(t, os.Chmod(k.Store, 0o755))
	}
	got := p.run("--state", "kept", "tasks")
	require.Equal(t, 1, got.code)
	require.Contains(t, got.stderr, "the tasks of bgagent run into "+p.project+"/out cannot all be read: ")
	require.Empty(t, p.kept(), "the default folder was not used")
}

func TestAStoreThatCannotBeUsedIsNamed(t *testing.T) {
	p := withMindful(t)
	_, cmd := startServe(t, p)
	kill(t, cmd)
	stores, err := filepath.Glob(filepath.Join(p.project, "../../.local/state/bgagent/tasks/serve-*"))
	require.NoError(t, err)
	require.Len(t, stores, 1)
	require.NoError(t, os.WriteFile(filepath.Join(stores[0], "tasks.db"), []byte(strings.Repeat("not a database\n", 1000)), 0o600))
	got := p.run("serve", "--addr", "127.0.0.1:0")
	require.Equal(t, 2, got.code)
	require.Contains(t, got.stderr, "tasks cannot be kept in "+stores[0]+": ")
	require.Contains(t, got.stderr, "use another folder with --state DIR, or keep no tasks with --state none")
	got = p.run("tasks")
	require.Equal(t, 1, got.code)
	require.Contains(t, got.stderr, "cannot all be read")
}

func TestTheTasksOfACopyAreNotContinued(t *testing.T) {
	t.Parallel()
	p := withMindful(t)
	url, cmd := startServe(t, p)
	launchNumbers(t, dialServe(t, url), 1)
	p.awaitSaved(1)
	kill(t, cmd)
	original := filepath.Join(p.project, "../../.local/state/bgagent")
	require.NoError(t, os.CopyFS(filepath.Join(p.project, "copy"), os.DirFS(original)))
	stores, err := filepath.Glob(filepath.Join(p.project, "copy/tasks/*"))
	require.NoError(t, err)
	require.Len(t, stores, 1)
	require.NoError(t, os.Chmod(stores[0], 0o700))
	for _, name := range []string{"lock", "tasks.db", "tasks.db-wal", "tasks.db-shm"} {
		require.NoError(t, os.Chmod(filepath.Join(stores[0], name), 0o600))
	}
	for range 2 {
		got := p.run("serve", "--addr", "127.0.0.1:0", "--state", "copy")
		require.Equal(t, 2, got.code)
		require.Contains(t, got.stderr, "its tasks may have ended or may run elsewhere: ")
	}
	require.Len(t, p.kept("--state", "copy"), 1)
}

func TestARunKeepsItsTasksOnlyIfItCan(t *testing.T) {
	p := withMindful(t)
	p.write("tasks.jsonc", `[{"agent": "forgetful", "prompt": "number 1"}]`)
	p.write("go", "")
	p.write("file", "")
	got := p.run("--state", "file", "run", "tasks.jsonc", "-o", "out")
	require.Equal(t, 0, got.code, got.stderr)
	require.Contains(t, got.stderr, "the tasks of this run are lost if it is killed: ")
	got = p.run("--state", "file", "serve", "--addr", "127.0.0.1:0")
	require.Equal(t, 2, got.code)
	got = p.run("--state", "none", "run", "tasks.jsonc", "-o", "out2")
	require.Equal(t, 0, got.code)
	require.NoDirExists(t, filepath.Join(p.project, "../../.local/state/bgagent/tasks"))
}
