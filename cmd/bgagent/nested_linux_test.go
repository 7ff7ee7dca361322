package main

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The agent "nesting" starts another bgagent. The agent of the inner bgagent does not exit on its
// own.
const nesting = `cat >/dev/null
cd inner
BGAGENT_DEPTH= exec "$BGAGENT" -c inner.jsonc run inner-tasks.jsonc -o ../inner-out
`

func TestARunInsideAKilledOneIsLeftAlone(t *testing.T) {
	t.Parallel()
	p := withAgent(t, nesting)
	p.write("inner/agent.sh", "#!/bin/sh\n"+lasting)
	inner := filepath.Join(p.project, "inner")
	p.write("inner/inner.jsonc", `{"agents": {"lasting": {"kind": "command", "preset": "generic", "command": ["`+inner+`/agent.sh"]}}}`)
	p.write("inner/inner-tasks.jsonc", `[{"agent": "lasting", "prompt": "x"}]`)
	p.write("agent.sh", "#!/bin/sh\nBGAGENT="+binary+"\nexport BGAGENT\n"+nesting)
	r := p.start("run", "tasks.jsonc", "-o", "out")
	q := &place{t: t, project: inner, path: p.path, env: p.env}
	q.awaitFile("ready")
	require.NoError(t, r.Process.Kill())
	r.code()

	got := p.run("cleanup", "--yes")
	require.Equal(t, 0, got.code, got.stderr)
	require.Equal(t, 2, q.live(), "the inner run and its agent are still running:\n%s", got.out)
	notes := filepath.Join(p.project, "../../.local/state/bgagent/runs")
	list, err := os.ReadDir(notes)
	require.NoError(t, err)
	require.Len(t, list, 2, "the dead run must still be known")

	// Once the inner run is also dead, all its processes are terminated.
	p.killRunOf(inner)
	got = p.run("cleanup", "--yes")
	require.Equal(t, 0, got.code, got.stderr)
	q.requireGone(2)
	list, err = os.ReadDir(notes)
	require.NoError(t, err)
	require.Empty(t, list)
}

// killRunOf kills the bgagent whose working directory is the folder.
func (p *place) killRunOf(dir string) {
	p.t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/cwd")
	require.NoError(p.t, err)
	killed := false
	for _, link := range all {
		at, _ := os.Readlink(link)
		exe, _ := os.Readlink(filepath.Join(filepath.Dir(link), "exe"))
		if at == dir && exe == binary {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(link)))
			require.NoError(p.t, err)
			h, err := os.FindProcess(pid)
			require.NoError(p.t, err)
			require.NoError(p.t, h.Kill())
			require.Eventually(p.t, func() bool { // its files are locked until it has exited
				at, err := os.Readlink(link)
				return err != nil || at != dir
			}, time.Minute, 5*time.Millisecond)
			killed = true
		}
	}
	require.True(p.t, killed)
}
