package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/bridge"
	"github.com/bgagent/bgagent/command"
	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/stretchr/testify/require"
)

// bossScript is an agent that delegates over a bridge. Its prompt contains the arguments for
// delegate_task, and its answer is the tool's answer. If it gets any other prompt, such as a
// notice, it answers with that prompt.
const bossScript = `#!/bin/sh
prompt=$(cat)
case $prompt in {*) ;; *) echo "$prompt"; exit;; esac
mkfifo in.$$ out.$$
"$BGAGENT" mcp --via "$VIA" <in.$$ >out.$$ 2>err.$$ &
exec 3>in.$$ 4<out.$$
echo '{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"boss","version":"1"}}}' >&3
read -r line <&4 || { cat err.$$; exit; }
echo '{"jsonrpc":"2.0","method":"notifications/initialized"}' >&3
echo '{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"delegate_task","arguments":'"$prompt"'}}' >&3
read -r answer <&4
echo "$answer"
`

// withBoss starts a serve with an agent that delegates over a bridge. It launches no task.
func withBoss(t *testing.T, limits string) (p *place, url string) {
	p = newPlace(t)
	p.write("one/x", "")
	p.write("boss.sh", bossScript)
	p.write("boss", "#!/bin/sh\nVIA=$(cat "+p.project+"/url) BGAGENT="+binary+" exec ./../boss.sh\n")
	p.write(".bgagent.jsonc", `{"background_task": {`+limits+`}, "agents": {
		"boss": {"kind": "command", "preset": "generic", "command": ["`+p.project+`/boss"]},
		"fail": {"kind": "inproc"},
		"wait": {"kind": "inproc"},
	}}`)
	url, _ = startServe(t, p, "--root", ".")
	p.write("url", url)
	return p, url
}

const failing = `{"subagent_type": "fail", "prompt": "the disk is full", "description": "deep", "run_in_background": false}`

// The task of an agent program and the tasks that the program delegates over a bridge form one tree on one
// server: the limits apply to them together, the depth is known, and each delegated task is below the task
// that delegated it.
func TestATaskDelegatesOverABridgeAsItself(t *testing.T) {
	t.Parallel()
	p, url := withBoss(t, `"totalConcurrency": 1, "maxDepth": 2`)
	cs := host(t, p.via(url, "one"), "alpha")
	text := callTool(t, cs, "delegate_task", map[string]any{"subagent_type": "boss", "prompt": failing, "run_in_background": false})
	require.Contains(t, text, "as asked: the disk is full")
	var top, deep bgagent.Task
	for _, task := range p.keptTasks() {
		if task.Depth == 1 {
			top = task
		} else {
			deep = task
		}
	}
	require.Equal(t, bgagent.Completed, top.Status)
	require.Equal(t, bgagent.Failed, deep.Status)
	require.Equal(t, 2, deep.Depth)
	require.Equal(t, top.Session, deep.Parent)
	require.Equal(t, top.Root, deep.Root)
	for _, task := range []bgagent.Task{top, deep} {
		require.Equal(t, map[string]string{"bgagent.bridge": "[]"}, task.Metadata, "the restrictions of the task's launch")
	}

	callTool(t, cs, "delegate_task", map[string]any{"subagent_type": "boss", "run_in_background": false,
		"prompt": `{"subagent_type": "boss", "description": "too deep", "prompt": "{}"}`})
	for id, task := range p.keptTasks() {
		if task.Description == "too deep" {
			require.Regexp(t, `it refuses this bridge: it is inside a turn of task `+id+`, whose depth is 2: .*; background_task.maxDepth of the server allows more`, p.does("show", id))
			return
		}
	}
	require.Fail(t, "the task on the second level is missing")
}

func TestTheRestrictionsOfABridgeAlsoHoldBelowItsTasks(t *testing.T) {
	t.Parallel()
	p, url := withBoss(t, `"maxDepth": 2`)
	delegate := func(in string) string {
		cs := host(t, p.via(url, in), "alpha")
		defer cs.Close()
		return callTool(t, cs, "delegate_task", map[string]any{"subagent_type": "boss", "prompt": failing, "run_in_background": false})
	}
	require.Contains(t, delegate("one"), "as asked: the disk is full")
	p.write("one/.bgagent.jsonc", `{"agents": {"fail": null}}`)
	file := filepath.Join(p.project, "one", ".bgagent.jsonc")
	// The task removes the file after the server has read it.
	p.write("boss", strings.Replace(bossScript, "prompt=$(cat)\n", "prompt=$(cat); rm -f "+file+"\nVIA="+url+" BGAGENT="+binary+"\n", 1))
	require.Contains(t, delegate("one"), "the project's file removes the agent fail")
	require.NoFileExists(t, file)
}

// A project's file can set a budget for all tasks of a bridge. For a bridge inside a turn, the budget limits
// each task that the bridge launches. Otherwise, the budget could end the other tasks of the program that
// launched the turn's task.
func TestTheBudgetOfABridgeInATurnDoesNotLimitTheTreeAbove(t *testing.T) {
	t.Parallel()
	p, url := withBoss(t, `"maxDepth": 2`)
	cs := host(t, p.via(url, "one"), "alpha")
	callTool(t, cs, "delegate_task", map[string]any{"subagent_type": "wait", "prompt": "1 h", "description": "beside"})
	// The program opened its own bridge before this file existed.
	p.write("one/.bgagent.jsonc", `{"background_task": {"budget": {"tree": {"toolCalls": 3}}}}`)
	text := callTool(t, cs, "delegate_task", map[string]any{"subagent_type": "boss", "prompt": failing, "run_in_background": false})
	require.Contains(t, text, "as asked: the disk is full")
	for id, task := range p.keptTasks() {
		if task.Depth == 2 {
			require.EqualValues(t, 3, task.Budget.Limit.ToolCalls)
		} else {
			require.Zero(t, task.Budget.Limit, id)
		}
	}
}

// The type "holding" is a serve with a task whose turn lasts until the file "go" exists in the
// project.
type holding struct {
	*place
	url   string
	serve *exec.Cmd
	host  *mcp.ClientSession // session over the bridge that launched the task
	task  string
}

// holdScript is an agent with sessions. It writes the mark of its turn to a file.
const holdScript = `#!/bin/sh
cat >/dev/null
echo '{"type":"session","id":"s-1"}'
echo '{"type":"message","text":"I begin."}'
echo "$` + command.TurnVariable + `" >mark.new
mv mark.new mark
while [ ! -e go ]; do sleep 0.05; done
echo '{"type":"message","text":"I end."}'
echo '{"type":"end"}'
`

// withHeld starts a serve and launches the task.
func withHeld(t *testing.T) holding {
	p := newPlace(t)
	p.write("one/x", "")
	p.write("hold.sh", holdScript)
	p.write(".bgagent.jsonc", `{"background_task": {"maxDepth": 2}, "agents": {
		"hold": {"kind": "command", "preset": "generic", "format": "lines", "command": ["./hold.sh"], "directory": "."},
		"wait": {"kind": "inproc"},
	}}`)
	t.Cleanup(func() { p.run("cleanup", "--yes") })
	url, serve := startServe(t, p, "--root", ".")
	cs := host(t, p.via(url, "one"), "alpha")
	text := callTool(t, cs, "delegate_task", map[string]any{"subagent_type": "hold", "prompt": "hold", "description": "hold"})
	require.Regexp(t, idIn, text)
	return holding{p, url, serve, cs, idIn.FindStringSubmatch(text)[1]}
}

// The method "inside" connects to a bridge, as a program inside the task's turn does.
func (h holding) inside(narrow bridge.Narrow) *mcp.ClientSession {
	t := h.t
	t.Helper()
	h.awaitFile("mark")
	mark, err := os.ReadFile(filepath.Join(h.project, "mark"))
	require.NoError(t, err)
	at, err := bridge.ParseAddress(h.url)
	require.NoError(t, err)
	dir := filepath.Join(h.project, "one")
	conn, err := at.Connect(t.Context(), "", bridge.Hello{Key: bridge.KeyOf("me", dir, "boss"), Directory: dir, Narrow: narrow, Turn: strings.TrimSpace(string(mark))})
	require.NoError(t, err)
	inside, err := mcp.NewClient(&mcp.Implementation{Name: "boss", Version: "1"}, nil).Connect(t.Context(), &mcp.IOTransport{Reader: conn, Writer: conn}, nil)
	require.NoError(t, err)
	t.Cleanup(func() { _ = inside.Close() })
	return inside
}

// A bridge can outlive its turn, for example because it runs on another machine.
func TestABridgeThatOutlivesItsTurnIsRefusedByTheServer(t *testing.T) {
	t.Parallel()
	h := withHeld(t)
	inside := h.inside(bridge.Narrow{})
	launch := map[string]any{"subagent_type": "wait", "prompt": "1 ms", "description": "deep", "run_in_background": false}
	text := callTool(t, inside, "delegate_task", launch)
	require.Contains(t, text, "I have waited")
	require.Regexp(t, idIn, text)
	resume := map[string]any{"task_id": idIn.FindStringSubmatch(text)[1], "prompt": "1 ms", "run_in_background": false}
	require.Contains(t, callTool(t, inside, "delegate_task", resume), "I have waited", "the turn is running")

	h.write("go", "")
	callTool(t, h.host, "background_output", map[string]any{"task_id": h.task, "block": true})
	require.Contains(t, callTool(t, inside, "delegate_task", launch), "inside which this bridge was started has ended")
	require.Regexp(t, "^Nothing was resumed: the turn of task .* inside which this bridge was started has ended, so the bridge launches and resumes nothing any more.$", callTool(t, inside, "delegate_task", resume))
}

// The task's metadata contains only the restrictions that applied to its launch. The restrictions of a bridge
// inside the task's turn must also outlive the server.
func TestWhatABridgeInATurnForbidsHoldsAfterARestartOfTheServer(t *testing.T) {
	t.Parallel()
	h := withHeld(t)
	launch := map[string]any{"subagent_type": "wait", "prompt": "1 ms", "description": "deep", "run_in_background": false}
	inside := h.inside(bridge.Narrow{Without: []string{"wait"}})
	require.Contains(t, callTool(t, inside, "delegate_task", launch), "removes the agent wait")
	files, err := filepath.Glob(filepath.Join(h.project, "../../.local/state/bgagent/tasks/*/bridges.json"))
	require.NoError(t, err)
	require.Len(t, files, 1)
	info, err := os.Stat(files[0])
	require.NoError(t, err)
	require.EqualValues(t, 0o600, info.Mode().Perm())
	h.awaitSaved(1)
	require.NoError(t, h.serve.Process.Signal(syscall.SIGTERM))
	require.NoError(t, h.serve.Wait())
	require.NoError(t, os.Remove(filepath.Join(h.project, "mark")))
	h.url, h.serve = startServe(t, h.place, "--root", ".")
	host(t, h.via(h.url, "one"), "alpha")
	require.Contains(t, callTool(t, h.inside(bridge.Narrow{}), "delegate_task", launch), "removes the agent wait")
}
