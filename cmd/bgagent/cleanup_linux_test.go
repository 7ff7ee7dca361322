package main

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The agent "lasting" continues even if nobody reads its answer, as real agents do.
const lasting = `echo $$ >>pids
cat >/dev/null
setsid sh -c 'echo $$ >>pids; while :; do sleep 1; done' &
while [ "$(wc -l <pids)" -lt 2 ]; do sleep 0.05; done
echo ready >>ready
while :; do sleep 1; done
`

// The function "killed" returns a place with the two processes that a killed run left behind. The processes
// are killed after the test.
func killed(t *testing.T) *place {
	p := withAgent(t, lasting)
	r := p.start("run", "tasks.jsonc", "-o", "out")
	p.awaitFile("ready")
	t.Cleanup(func() { p.run("cleanup", "--yes") })
	require.NoError(t, r.Process.Kill())
	r.code()
	require.Equal(t, 2, p.live(), "they continue")
	return p
}

func TestCleanupListsAndEndsWhatAKilledRunHasLeft(t *testing.T) {
	p := killed(t)
	for range 2 {
		got := p.run("cleanup")
		require.Equal(t, 0, got.code, got.stderr)
		require.Contains(t, got.out, "the bgagent run of ")
		for _, pid := range p.pids() {
			require.Contains(t, got.out, "\n  "+strconv.Itoa(pid)+" (")
		}
		require.Contains(t, got.out, "bgagent cleanup --yes ends them")
		require.Equal(t, 2, p.live(), "they are only listed")
	}
	got := p.run("cleanup", "--yes")
	require.Equal(t, 0, got.code, got.stderr)
	require.Contains(t, got.out, "ended the processes of the bgagent run of ")
	p.requireGone(2)
	require.Equal(t, "no processes of killed runs are left\n", p.run("cleanup").out)
}

func TestTheNextStartEndsWhatAKilledRunHasLeft(t *testing.T) {
	p := killed(t)
	p.write("other.jsonc", `{"agents": {"wait": {"kind": "inproc"}}}`)
	got := p.run("-c", "other.jsonc", "agents")
	require.Equal(t, 0, got.code, got.stderr)
	require.Contains(t, got.stderr, "bgagent: ended the processes of the bgagent run of ")
	p.requireGone(2)
}

func TestALivingRunIsLeftAlone(t *testing.T) {
	p := withAgent(t, lasting)
	r := p.start("run", "tasks.jsonc", "-o", "out")
	p.awaitFile("ready")
	p.write("other.jsonc", `{"agents": {"wait": {"kind": "inproc"}}}`)
	require.Equal(t, 0, p.run("-c", "other.jsonc", "agents").code)
	require.Equal(t, 0, p.run("cleanup", "--yes").code)
	require.Equal(t, 2, p.live())
	r.interrupt(t)
	require.Equal(t, 130, r.code())
	p.requireGone(2)
	notes, err := os.ReadDir(filepath.Join(p.project, "../../.local/state/bgagent/runs"))
	require.NoError(t, err)
	require.Empty(t, notes)
}

func TestAnUnusableStateFolderIsReportedAndStopsNothing(t *testing.T) {
	p := withAgent(t, "cat >/dev/null; echo fine\n")
	p.env = append(p.env, "XDG_STATE_HOME="+p.write("file", ""))
	got := p.run("run", "tasks.jsonc", "-o", "out")
	require.Equal(t, 0, got.code, got.stderr)
	require.Contains(t, got.stderr, "this run cannot be recorded (")
	require.Contains(t, got.stderr, "if it is killed, the processes that it leaves cannot be found")

	junk := filepath.Join(p.project, "state", "bgagent", "runs")
	require.NoError(t, os.MkdirAll(filepath.Join(junk, "aaaaaaaaaaaaaaaaaaaaaaaaaa.lock"), 0o700))
	p.env = append(p.env, "XDG_STATE_HOME="+filepath.Join(p.project, "state"))
	begin := time.Now()
	got = p.run("run", "tasks.jsonc", "-o", "out2")
	require.Equal(t, 0, got.code, got.stderr)
	require.Contains(t, got.stderr, "looking for processes of killed runs: ")
	require.Less(t, time.Since(begin), atMost)
	require.Equal(t, 1, p.run("cleanup").code)
}
