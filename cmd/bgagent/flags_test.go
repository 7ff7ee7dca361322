//go:build unix

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

// The agent "picky" fails or hangs if its prompt says so, unless the file "mended" exists.
const picky = `#!/bin/sh
prompt=$(cat)
echo "$prompt" >>asked
case $prompt in
fail) [ -e mended ] || { echo "it is broken" >&2; exit 1; } ;;
hang) [ -e mended ] || exec sleep 600 ;;
esac
echo "done: $prompt"
`

// withPicky returns a place with the agent "picky" and a list of tasks with the given
// prompts. The tasks run one after the other.
func withPicky(t *testing.T, prompts ...string) *place {
	p := newPlace(t)
	p.write("agent.sh", picky)
	p.write(".bgagent.jsonc", `{"background_task": {"defaultConcurrency": 1}, "agents": {"a": {"kind": "command", "preset": "generic", "command": ["./agent.sh"]}}}`)
	var list []string
	for _, prompt := range prompts {
		list = append(list, `{"agent": "a", "prompt": "`+prompt+`"}`)
	}
	p.write("tasks.jsonc", "["+strings.Join(list, ", ")+"]")
	return p
}

// The method "asked" returns the prompts that the agent "picky" got, one per line.
func (p *place) asked() string {
	b, _ := os.ReadFile(filepath.Join(p.project, "asked"))
	return string(b)
}

func TestFailFastStopsTheRestAfterOneBadEnd(t *testing.T) {
	// The third task gets the slot as soon as the second ends, so the third agent might already be running
	// when the run is stopped. This agent hangs, so that the fourth task never gets a slot.
	p := withPicky(t, "one", "fail", "hang", "four")
	got := p.run("run", "tasks.jsonc", "-o", "out", "--fail-fast")
	require.Equal(t, 1, got.code, got.stderr)
	require.Contains(t, got.out, "1 completed, 1 failed, 2 cancelled in ")
	require.Contains(t, got.out, "     stopped because task 2 did not complete (--fail-fast)\n")
	require.Contains(t, []string{"one\nfail\n", "one\nfail\nhang\n"}, p.asked())
	rows := p.rows("out")
	require.Equal(t, "stopped because task 2 did not complete (--fail-fast)", rows[3]["reason"])
	require.False(t, p.index("out").Interrupted)
}

func TestARunEndsAfterItsMaxTime(t *testing.T) {
	t.Parallel()
	p := withPicky(t, "hang", "two")
	begin := time.Now()
	got := p.run("run", "tasks.jsonc", "-o", "out", "--max-time", "1500ms")
	require.Equal(t, 1, got.code, got.stderr)
	require.Less(t, time.Since(begin), atMost)
	require.Contains(t, got.out, "2 cancelled in ")
	for _, row := range p.rows("out") {
		require.Equal(t, "stopped after 1.5s (--max-time)", row["reason"])
	}

	got = p.run("run", "-", "-o", "out2", "--max-time", "1m")
	require.Equal(t, 2, got.code, "an empty list")
	got = p.feed(`[{"agent": "a", "prompt": "x"}]`, "run", "-", "-o", "out3", "--max-time", "10m")
	require.Equal(t, 0, got.code, "a run that is done in time")
	require.NotContains(t, got.out, "stopped")
}

func TestARunEndsWhenItHasCostItsMaxCost(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.write("agent.sh", `#!/bin/sh
prompt=$(cat)
echo '{"type":"tool","id":"1","name":"read","state":"done"}'
echo '{"type":"usage","input":100,"output":10,"cost":0.6}'
[ "$prompt" = a ] || exec sleep 600
echo '{"type":"end","text":"done"}'
`)
	p.write(".bgagent.jsonc", `{"background_task": {"defaultConcurrency": 1}, "agents": {
		"paid": {"kind": "command", "preset": "generic", "format": "lines", "command": ["./agent.sh"]},
		"plain": {"kind": "command", "preset": "generic", "command": ["./agent.sh"]}}}`)
	p.write("tasks.jsonc", `[{"agent": "paid", "prompt": "a"}, {"agent": "paid", "prompt": "b"}, {"agent": "paid", "prompt": "c"}]`)
	got := p.run("run", "tasks.jsonc", "-o", "out", "--max-cost", "1.00")
	require.Equal(t, 1, got.code, got.stderr)
	require.Contains(t, got.out, "1 completed, 2 cancelled in ")
	require.Contains(t, p.rows("out")[2]["reason"], `is used up: 1.20 of 1.00 US dollars; "budget.tree.cost" or the flag --max-cost of "run" sets the limit`)

	got = p.feed(`[{"agent": "plain", "prompt": "x"}]`, "run", "-", "-o", "out2", "--max-cost", "5")
	require.Equal(t, 1, got.code, got.stderr)
	require.Contains(t, p.rows("out2")[0]["reason"], `the client of agent "plain" reports no cost`)
	for _, wrong := range []string{"0", "-1", "two", "NaN"} {
		got = p.run("run", "tasks.jsonc", "-o", "out3", "--max-cost="+wrong)
		require.Equal(t, 2, got.code, got.stderr)
		require.Contains(t, got.stderr, "is not a number of US dollars such as 2.50")
	}
}

func TestResumeRunsWhatIsMissingOrHasFailed(t *testing.T) {
	t.Parallel()
	p := withPicky(t, "one", "fail", "hang", "four")
	r := p.start("run", "tasks.jsonc", "-o", "out")
	require.Eventually(t, func() bool { return p.asked() == "one\nfail\nhang\n" }, atMost, 10*time.Millisecond)
	r.interrupt(t)
	require.Equal(t, 130, r.code(), r.out)
	before, err := os.Stat(filepath.Join(p.project, "out", "001-one.md"))
	require.NoError(t, err)

	p.write("mended", "")
	require.NoError(t, os.Remove(filepath.Join(p.project, "tasks.jsonc")), "the folder has the list")
	got := p.run("run", "--resume", "out")
	require.Equal(t, 0, got.code, got.out+got.stderr)
	require.Contains(t, got.out, "1 of 4 tasks are already done and are left as they are")
	require.Contains(t, got.out, "4 completed in ")
	require.Equal(t, "one\nfail\nhang\nfail\nhang\nfour\n", p.asked())
	x := p.index("out")
	require.Len(t, x.Tasks, 4)
	for i, prompt := range []string{"one", "fail", "hang", "four"} {
		require.Equal(t, bgagent.Completed, x.Tasks[i].Status)
		b, err := os.ReadFile(filepath.Join(p.project, "out", x.Tasks[i].File))
		require.NoError(t, err)
		require.Equal(t, "done: "+prompt+"\n", string(b))
	}
	after, err := os.Stat(filepath.Join(p.project, "out", "001-one.md"))
	require.NoError(t, err)
	require.True(t, os.SameFile(before, after), "completed tasks are left alone")

	// A run treats a removed result as missing.
	require.NoError(t, os.Remove(filepath.Join(p.project, "out", "004-four.md")))
	require.Equal(t, 0, p.run("run", "--resume", "out").code)
	require.True(t, strings.HasSuffix(p.asked(), "four\nfour\n"))
}

func TestAKilledRunCanBeResumed(t *testing.T) {
	t.Parallel()
	p := withPicky(t, "one", "hang", "three")
	r := p.start("run", "tasks.jsonc", "-o", "out")
	r.out.await(t, "1  completed")
	r.out.await(t, "2  running")
	got := p.run("run", "--resume", "out")
	require.Equal(t, 2, got.code)
	require.Contains(t, got.stderr, "another run is writing into the folder "+p.project+"/out; wait until it has ended")
	require.NoError(t, r.Process.Kill())
	r.code()
	p.write("mended", "")
	got = p.run("run", "--resume", "out")
	require.Equal(t, 0, got.code, got.out+got.stderr)
	require.Contains(t, got.out, "3 completed in ")
}

func TestAFolderThatIsNotARunIsNotResumed(t *testing.T) {
	p := withPicky(t, "one")
	require.Equal(t, 0, p.run("run", "tasks.jsonc", "-o", "out").code)
	p.write("empty/file", "")
	p.write("broken/index.json", "{")
	p.write("broken/list.json", "[]")
	p.write("apart/index.json", `{"tasks": []}`)
	p.write("apart/list.json", `{"tasks": [{"agent": "a", "prompt": "x"}]}`)
	p.write("other/index.json", `{"tasks": [{"status": "pending"}]}`)
	p.write("other/list.json", `{"tasks": [{"agent": "gone", "prompt": "x"}]}`)
	for args, want := range map[string]string{
		"--resume none":               "opening the folder " + p.project + "/none of the run: no such file or directory",
		"--resume empty":              "is not the folder of a run, which has index.json and list.json",
		"--resume broken":             "index.json in the folder " + p.project + "/broken is not the index of a run",
		"--resume apart":              "do not belong together: one has 1 tasks and the other 0",
		"--resume other":              `names the agent "gone", which does not exist; the agents are a`,
		"--resume out tasks.jsonc":    "--resume takes no list: " + p.project + "/out contains the list that was run; leave tasks.jsonc out",
		"--resume out -o out2":        "writes into that folder; leave --output out",
		"tasks.jsonc --max-time soon": `--max-time "soon" is not a time such as 90s, 10m or 2h`,
		"tasks.jsonc --max-time 0s":   `--max-time "0s" is not a time`,
		"tasks.jsonc --max-time -5m":  `--max-time`,
	} {
		got := p.run(append([]string{"run"}, strings.Fields(args)...)...)
		require.Equal(t, 2, got.code, "%s\n%s", args, got.stderr)
		require.Contains(t, got.stderr, want, args)
		require.Empty(t, got.out, args)
	}
	require.Equal(t, "one\n", p.asked())
}

func TestErrorsOfTheConfigurationAndTheListAreReportedTogether(t *testing.T) {
	p := newPlace(t)
	p.user(`{"background_task": {"maxDepth": 0}}`)
	p.write(".bgagent.jsonc", `{"background_task": {"taskTtlMs": "x"}, "agents": {"a": {"kind": "command", "preset": "codex", "env": ["=x"]}}}`)
	p.write("tasks.jsonc", `[{"agent": "b", "prompt": "x"}, {"agent": "a"}]`)
	got := p.run("run", "tasks.jsonc")
	require.Equal(t, 2, got.code)
	for _, want := range []string{
		"bgagent.jsonc:1:34: background_task.maxDepth: ", ".bgagent.jsonc:1:35: background_task.taskTtlMs: ", `agents.a: is refused: "env" has "=x"`,
		`tasks.jsonc:1:12: [0].agent: names the agent "b"`, "tasks.jsonc:1:33: [1]: has no prompt",
	} {
		require.Contains(t, got.stderr, want)
	}
	require.Equal(t, 5, strings.Count(got.stderr, "bgagent: "), got.stderr)

	// If the configuration is broken, it is unknown which agents exist, so no agent in the list is reported
	// as unknown.
	p.write(".bgagent.jsonc", `{"agents": {"a": 1}}`)
	got = p.run("run", "tasks.jsonc")
	require.NotContains(t, got.stderr, `names the agent`)
	require.Contains(t, got.stderr, "[1]: has no prompt")
	p.write(".bgagent.jsonc", `{"agents": {`)
	got = p.run("config")
	require.Equal(t, 1, strings.Count(got.stderr, ".bgagent.jsonc:1"), "said once:\n%s", got.stderr)
}

func TestAPathCountsFromTheFileThatNamesIt(t *testing.T) {
	p := withPicky(t, "one")
	p.write("deep/down/tasks.jsonc", `[{"agent": "a", "promptFile": "prompts/p.md"}]`)
	p.write("deep/down/prompts/p.md", "from a file")
	p.project = filepath.Join(p.project, "deep")
	got := p.run("run", "down/tasks.jsonc", "-o", "out")
	require.Equal(t, 0, got.code, got.out+got.stderr)
	b, err := os.ReadFile(filepath.Join(p.project, "out", "001-from-a-file.md"))
	require.NoError(t, err)
	require.Equal(t, "done: from a file\n", string(b))
}

func TestTheUserIsNotifiedOfBadEndsAndOfTheLastEnd(t *testing.T) {
	p := withPicky(t, "one", "fail", "three")
	p.write("tell.sh", `#!/bin/sh
echo "$BGAGENT_EVENT: $1" >>"$(dirname "$0")/told"
`)
	p.write(".bgagent.jsonc", `{"notify": ["./tell.sh"], "agents": {"a": {"kind": "command", "preset": "generic", "command": ["./agent.sh"]}}}`)
	require.Equal(t, 1, p.run("run", "tasks.jsonc", "-o", "out").code)
	b, err := os.ReadFile(filepath.Join(p.project, "told"))
	require.NoError(t, err)
	require.Regexp(t, `^failed: bgagent: task 2 \(fail\) has failed: agent.sh: it exited with code 1: it is broken
done: bgagent: 2 completed, 1 failed in [0-9.]+ s; results in .*/out
$`, string(b))
	require.Regexp(t, `notify +\["`+p.project+`/tell.sh"\]`, p.run("config").out)

	p.write(".bgagent.jsonc", `{"notify": ["./none.sh"], "agents": {"a": {"kind": "command", "preset": "generic", "command": ["./agent.sh"]}}}`)
	got := p.run("run", "tasks.jsonc", "-o", "out2")
	require.Equal(t, 1, got.code)
	require.Contains(t, got.stderr, "bgagent: notify: "+p.project+"/none.sh cannot be started")
}

func TestTheVersionHasACommand(t *testing.T) {
	p := newPlace(t)
	got := p.run("version")
	require.Equal(t, 0, got.code)
	require.Equal(t, p.run("--version").out, got.out)
}

func TestTheSchemaOfAListIsPrinted(t *testing.T) {
	got := newPlace(t).run("run", "--schema")
	require.Equal(t, 0, got.code)
	require.Contains(t, got.out, `"promptFile"`)
}
