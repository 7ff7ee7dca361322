package main

import (
	"encoding/json"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/results"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/statedir"
	"github.com/bgagent/bgagent/sqlite"
	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/stretchr/testify/require"
)

// killedRun starts a run with one task for the agent "mindful" and kills it during the turn. It
// returns the store's folder.
func killedRun(t *testing.T, p *place) (store string) {
	p.write("tasks.jsonc", `[{"agent": "mindful", "prompt": "number 1"}]`)
	r := p.start("run", "tasks.jsonc", "-o", "out")
	p.awaitSaved(1)
	kill(t, r.Cmd)
	for _, k := range p.kept() {
		store = k.Store
	}
	require.NotEmpty(t, store)
	return store
}

// The method "continues" resumes the killed run in the folder and checks that its task is continued.
func (p *place) continues(dir string) {
	p.t.Helper()
	p.write("go", "")
	got := p.run("run", "--resume", dir, "--max-time", "10m")
	require.Equal(p.t, 0, got.code, got.out+got.stderr)
	require.Equal(p.t, map[string][]string{"1": {"", "--session=s-1"}}, p.askedOf())
}

func TestAResumedRunWhoseStoreCannotBeUsedStartsNothing(t *testing.T) {
	t.Parallel()
	p := withMindful(t)
	store := killedRun(t, p)
	about := filepath.Join(store, "about.json")
	original, err := os.ReadFile(about)
	require.NoError(t, err)
	for name, c := range map[string]struct {
		flags            []string
		broken, repaired func() error
		says             string
	}{
		"another state folder": {flags: []string{"--state", "other"}, says: "has no store " + filepath.Base(store)},
		"no description": {
			broken:   func() error { return os.Remove(about) },
			repaired: func() error { return os.WriteFile(about, original, 0o600) },
			says:     "has no store " + filepath.Base(store),
		},
		"a damaged description": {
			broken:   func() error { return os.WriteFile(about, []byte("{"), 0o600) },
			repaired: func() error { return os.WriteFile(about, original, 0o600) },
			says:     "the store " + filepath.Base(store),
		},
		"of a server": {
			broken: func() error {
				return os.WriteFile(about, []byte(strings.Replace(string(original), `"run"`, `"serve"`, 1)), 0o600)
			},
			repaired: func() error { return os.WriteFile(about, original, 0o600) },
			says:     "belongs to bgagent serve with",
		},
		"other users can read it": {
			broken:   func() error { return os.Chmod(store, 0o755) },
			repaired: func() error { return os.Chmod(store, 0o700) },
			says:     "tasks cannot be kept in " + store,
		},
		"it is a copy": {
			broken:   func() error { return os.Rename(filepath.Join(store, "lock"), filepath.Join(store, "../lock")) },
			repaired: func() error { return os.Rename(filepath.Join(store, "../lock"), filepath.Join(store, "lock")) },
			says:     "With --accept-copy, the store is used and none of its tasks is continued",
		},
		"the state folder is a file": {flags: []string{"--state", "tasks.jsonc"}, says: "cannot be continued"},
	} {
		if c.broken != nil {
			require.NoError(t, c.broken(), name)
		}
		got := p.run(append(c.flags, "run", "--resume", "out", "--max-time", "10m")...)
		require.Equal(t, 2, got.code, "%s: %s", name, got.out+got.stderr)
		require.Contains(t, got.stderr, "the kept tasks of this run cannot be continued", name)
		require.Contains(t, got.stderr, c.says, name)
		require.Contains(t, got.stderr, "use --state none", name)
		require.NotContains(t, got.stderr, "use another folder", name)
		require.Equal(t, filepath.Base(store), results.StateOf(filepath.Join(p.project, "out")), name)
		if c.repaired != nil {
			require.NoError(t, c.repaired(), name)
		}
	}
	require.Equal(t, map[string][]string{"1": {""}}, p.askedOf())
	p.continues("out")
}

func TestTheTasksOfARunBelongToItsFolder(t *testing.T) {
	t.Parallel()
	p := withMindful(t)
	killedRun(t, p)
	require.NoError(t, os.CopyFS(filepath.Join(p.project, "copy"), os.DirFS(filepath.Join(p.project, "out"))))
	got := p.run("run", "--resume", "copy", "--max-time", "10m")
	require.Equal(t, 2, got.code, got.out+got.stderr)
	require.Contains(t, got.stderr, "they belong to bgagent run into "+p.project+"/out, and this folder is a copy; resume the original")
	require.NoError(t, os.Rename(filepath.Join(p.project, "out"), filepath.Join(p.project, "moved")))
	p.continues("moved")
	for _, k := range p.kept() {
		require.Equal(t, p.project+"/moved", k.Path)
	}
	got = p.run("run", "--resume", "copy", "--max-time", "10m")
	require.Equal(t, 2, got.code, got.out+got.stderr)
	require.Contains(t, got.stderr, "they belong to bgagent run into "+p.project+"/moved")
	require.Len(t, p.askedOf()["1"], 2)
}

func TestAResumedRunWithoutItsStoreRunsAgainWhatFailed(t *testing.T) {
	p := withMindful(t)
	p.write("fails.sh", "#!/bin/sh\n[ -e fixed ] || exit 1\necho fixed\n")
	p.write(".bgagent.jsonc", `{"agents": {"fails": {"kind": "command", "preset": "generic", "command": ["./fails.sh"]}}}`)
	p.write("tasks.jsonc", `[{"agent": "fails", "prompt": "try"}]`)
	require.Equal(t, 1, p.run("run", "tasks.jsonc", "-o", "out").code)
	require.Contains(t, p.run("prune", "--yes").out, "deleted 1 tasks\n")
	require.Empty(t, p.kept())
	p.write("fixed", "")
	got := p.run("run", "--resume", "out", "--max-time", "10m")
	require.Equal(t, 0, got.code, got.out+got.stderr)
	require.Len(t, p.kept(), 1)
}

func TestARunThatIsResumedAfterALongTimeStillHasItsStore(t *testing.T) {
	t.Parallel()
	p := withMindful(t)
	store := killedRun(t, p)
	at := time.Now().Add(-60 * 24 * time.Hour)
	for _, name := range []string{"lock", "tasks.db", "about.json"} {
		require.NoError(t, os.Chtimes(filepath.Join(store, name), at, at))
	}
	p.continues("out")
}

func TestATaskThatAResumedRunNoLongerNeedsIsCancelled(t *testing.T) {
	t.Parallel()
	p := withMindful(t)
	killedRun(t, p)
	p.write("go-1", "")
	got := p.run("--state", "none", "run", "--resume", "out", "--max-time", "10m")
	require.Equal(t, 0, got.code, got.out+got.stderr)
	require.NoError(t, os.Remove(filepath.Join(p.project, "go-1")))
	got = p.run("run", "--resume", "out", "--max-time", "10m")
	require.Equal(t, 0, got.code, got.out+got.stderr)
	require.Equal(t, map[string][]string{"1": {"", ""}}, p.askedOf())
	for _, k := range p.kept() {
		require.Equal(t, bgagent.Cancelled, k.Task.Status)
	}
}

func TestACopyIsUsedIfItIsAcceptedAndNoneOfItsTasksIsContinued(t *testing.T) {
	t.Parallel()
	p := withMindful(t)
	url, cmd := startServe(t, p)
	ids := launchNumbers(t, dialServe(t, url), 5)
	p.awaitSaved(1, 2, 3)
	kill(t, cmd)
	stores, err := filepath.Glob(filepath.Join(p.project, "../../.local/state/bgagent/tasks/serve-*"))
	require.NoError(t, err)
	require.NoError(t, os.Remove(filepath.Join(stores[0], "lock"))) // without this file, the store is treated as a copy
	got := p.run("serve", "--addr", "127.0.0.1:0")
	require.Equal(t, 2, got.code)
	require.Contains(t, got.stderr, "With --accept-copy, the store is used and none of its tasks is continued")

	url, cmd = startServe(t, p, "--accept-copy")
	p.write("go", "")
	all := p.awaitEnded()
	for _, id := range ids {
		require.Equal(t, bgagent.CauseInterrupted, all[id].Task.Cause, all[id].Task.Reason)
		require.Contains(t, all[id].Task.Reason, "the store may be out of date")
	}
	require.Equal(t, map[string][]string{"1": {""}, "2": {""}, "3": {""}}, p.askedOf())
	require.Contains(t, callTool(t, dialServe(t, url), "background_output", nil), ids[4])
	kill(t, cmd)
	_, _ = startServe(t, p) // the command that accepted the copy has made it the original
}

func TestPruneLeavesWhatTheNextProcessNeeds(t *testing.T) {
	p := withMindful(t)
	p.write("go", "")
	url, cmd := startServe(t, p)
	ids := launchNumbers(t, dialServe(t, url), 2) // nobody reads the outcomes of the tasks
	p.awaitEnded()
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	_ = cmd.Wait()
	got := p.run("prune", "--yes")
	require.Equal(t, 0, got.code, got.stderr)
	require.Contains(t, got.out, "deleted 0 tasks\n2 further tasks have ended but are kept, because their ends have not been reported")
	got = p.run("prune", ids[0])
	require.Equal(t, 1, got.code)
	require.Contains(t, got.stderr, "--force deletes the task anyway")
	require.Equal(t, 2, p.run("prune", "--force").code)
	require.Equal(t, "deleted "+ids[0]+"\n", p.run("prune", ids[0], "--force").out)

	url, cmd = startServe(t, p)
	cs := dialServe(t, url)
	require.Contains(t, callTool(t, cs, "background_output", nil), ids[1])
	callTool(t, cs, "background_output", nil) // the second call acknowledges the answer to the first
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	_ = cmd.Wait()
	require.Equal(t, "deleted 1 tasks\n", p.run("prune", "--yes").out)
	require.Empty(t, p.kept())
}

func TestAMessageAboutAStoreIsOneLineWhateverItsPathContains(t *testing.T) {
	p := withMindful(t)
	p.write("tasks.jsonc", `[{"agent": "forgetful", "prompt": "number 1"}]`)
	p.write("go", "")
	out := "out\nbgagent: all is lost\x1b[31m"
	require.Equal(t, 0, p.run("run", "tasks.jsonc", "-o", out).code)
	for _, k := range p.kept() {
		require.Equal(t, p.project+"/"+out, k.Path)
		require.NoError(t, os.Chmod(k.Store, 0o755))
	}
	for _, command := range []string{"tasks", "prune"} {
		got := p.run(command)
		require.Equal(t, 1, got.code)
		require.Contains(t, got.stderr, "bgagent run into "+p.project+"/out bgagent: all is lost", command)
		require.NotContains(t, got.stderr, "\nbgagent: all is lost", command)
	}
}

// The index of a results folder names the store of the run, and an agent might have changed the index.
func TestARunTakesNoStoreOfAnotherKind(t *testing.T) {
	t.Parallel()
	p := withMindful(t)
	killedRun(t, p)
	url, cmd := startServe(t, p)
	launchNumbers(t, dialServe(t, url), 2)
	p.awaitSaved(2)
	kill(t, cmd)
	var x map[string]any
	index := filepath.Join(p.project, "out", results.IndexName)
	b, err := os.ReadFile(index)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(b, &x))
	for _, k := range p.kept() {
		if k.Command == statedir.Serve {
			x["state"] = filepath.Base(k.Store)
		}
	}
	b, err = json.Marshal(x)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(index, b, 0o644))
	got := p.run("run", "--resume", "out", "--max-time", "10m")
	require.Equal(t, 2, got.code, got.out+got.stderr)
	require.Contains(t, got.stderr, "belongs to bgagent serve with")
}

func TestAResumedRunRunsTheTasksOfAnAcceptedCopyAgain(t *testing.T) {
	t.Parallel()
	p := withMindful(t)
	store := killedRun(t, p)
	require.NoError(t, os.Remove(filepath.Join(store, "lock")))
	require.Equal(t, 2, p.run("run", "tasks.jsonc", "--accept-copy").code)
	p.write("go", "")
	got := p.run("run", "--resume", "out", "--accept-copy", "--max-time", "10m")
	require.Equal(t, 0, got.code, got.out+got.stderr)
	require.Contains(t, got.out, "task 1 cannot be continued and runs again: ")
	require.Equal(t, map[string][]string{"1": {"", ""}}, p.askedOf())
}

func TestKeptTasksCanBeReadWhileTheyAreWritten(t *testing.T) {
	p := withMindful(t)
	p.write(".bgagent.jsonc", `{"background_task": {"maxTasksPerRoot": 1000}, "agents": {"wait": {"kind": "inproc"}}}`)
	url, cmd := startServe(t, p)
	cs := dialServe(t, url)
	const tasks = 100
	launched := make(chan string, tasks)
	go func() {
		defer close(launched)
		for range tasks {
			r, err := cs.CallTool(t.Context(), &mcp.CallToolParams{Name: "delegate_task", Arguments: map[string]any{"subagent_type": "wait", "prompt": "Wait for 1 ms"}})
			if err != nil || r.IsError {
				return
			}
			launched <- idIn.FindStringSubmatch(r.Content[0].(*mcp.TextContent).Text)[1]
		}
	}()
	var ids []string
	for id := range launched {
		ids = append(ids, id)
		if len(ids)%20 != 1 {
			continue
		}
		require.Contains(t, p.kept(), id)
		got := p.run("show", id)
		require.Equal(t, 0, got.code, got.stderr)
		got = p.run("prune")
		require.Equal(t, 0, got.code, got.stderr)
		require.Contains(t, got.out, "tasks have ended")
	}
	require.Len(t, ids, tasks)
	all := p.awaitEnded()
	require.Len(t, all, tasks)
	for id, k := range all {
		require.Equal(t, bgagent.Completed, k.Task.Status, id)
		require.Equal(t, cmd.Process.Pid, k.Owner)
	}
}

func TestAServeThatCannotServeChangesNoTask(t *testing.T) {
	t.Parallel()
	p := withMindful(t)
	url, cmd := startServe(t, p)
	ids := launchNumbers(t, dialServe(t, url), 5)
	p.awaitSaved(1, 2, 3)
	kill(t, cmd)
	other, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer other.Close()
	for range 2 {
		got := p.run("serve", "--addr", other.Addr().String())
		require.Equal(t, 2, got.code, got.stderr)
		require.Contains(t, got.stderr, "choose another port with --addr")
	}
	for id, k := range p.kept() {
		require.False(t, k.Task.Status.Terminal(), id)
	}
	require.Equal(t, map[string][]string{"1": {""}, "2": {""}, "3": {""}}, p.askedOf())
	_, _ = startServe(t, p)
	p.write("go", "")
	all := p.awaitEnded()
	for _, id := range ids {
		require.Equal(t, bgagent.Completed, all[id].Task.Status, all[id].Task.Reason)
	}
}

// A terminal that is closed sends SIGHUP.
func TestAServeWhoseTerminalIsClosedSuspendsItsTasks(t *testing.T) {
	t.Parallel()
	// If the tests were started with SIGHUP ignored, for example by nohup, the server would also ignore it.
	// This process therefore handles the signal, because the children of a process that handles a signal do
	// not ignore that signal.
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	t.Cleanup(func() { signal.Stop(hangup) })
	p := withMindful(t)
	url, cmd := startServe(t, p)
	launchNumbers(t, dialServe(t, url), 2)
	p.awaitSaved(1, 2)
	require.NoError(t, cmd.Process.Signal(syscall.SIGHUP))
	_ = cmd.Wait()
	all := p.kept()
	require.Len(t, all, 2)
	for id, k := range all {
		require.False(t, k.Task.Status.Terminal(), id)
	}
}

func TestAResumedRunThatCannotReadAResultCancelsNothing(t *testing.T) {
	t.Parallel()
	p := withMindful(t)
	p.write("tasks.jsonc", `[{"agent": "mindful", "prompt": "number 1"}, {"agent": "mindful", "prompt": "number 2"}]`)
	p.write("go-1", "")
	r := p.start("run", "tasks.jsonc", "-o", "out")
	r.out.await(t, "1  completed")
	p.awaitSaved(2)
	kill(t, r.Cmd)
	unwrite(t, filepath.Join(p.project, "out"))
	var database string
	for _, k := range p.kept() {
		database = filepath.Join(k.Store, "tasks.db")
	}
	store := sqlite.New(filepath.Dir(database), sqlite.Options{}) // moves everything into the database
	_, err := store.Open(t.Context(), ownerHere("test"))
	require.NoError(t, err)
	require.NoError(t, store.Close())
	b, err := os.ReadFile(database)
	require.NoError(t, err)
	text := regexp.MustCompile(`([^"n])the answer to 1`) // in a record, a quotation mark or an escaped line break precedes it
	require.True(t, text.Match(b))
	require.NoError(t, os.WriteFile(database, text.ReplaceAll(b, []byte("${1}the Answer to 1")), 0o600))

	got := p.run("run", "--resume", "out", "--max-time", "10m")
	require.Equal(t, 2, got.code, got.out+got.stderr)
	require.Contains(t, got.stderr, "the result of task 1: ")
	live := 0
	for _, k := range p.kept() {
		if !k.Task.Status.Terminal() {
			live++
		}
	}
	require.Equal(t, 1, live)
	id := anyID.FindString(got.stderr)
	require.Contains(t, got.stderr, "bgagent prune "+id+" --force deletes the task, so that it runs again")
	require.Equal(t, "deleted "+id+"\n", p.run("prune", id, "--force").out)
	p.write("go", "")
	got = p.run("run", "--resume", "out", "--max-time", "10m")
	require.Equal(t, 0, got.code, got.out+got.stderr)
	require.Equal(t, map[string][]string{"1": {"", ""}, "2": {"", "--session=s-2"}}, p.askedOf())
}

// unwrite restores the results folder to its state before the first task's result was written.
func unwrite(t *testing.T, dir string) {
	t.Helper()
	index := filepath.Join(dir, results.IndexName)
	b, err := os.ReadFile(index)
	require.NoError(t, err)
	require.NoError(t, os.Remove(filepath.Join(dir, "001-number-1.md")))
	pending := strings.Replace(string(b), `"status": "completed"`, `"status": "pending"`, 1)
	require.NotEqual(t, string(b), pending)
	require.NoError(t, os.WriteFile(index, []byte(pending), 0o644))
}
