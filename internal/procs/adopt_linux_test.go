package procs

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bgagent/bgagent/internal/tempdir"
	"github.com/stretchr/testify/require"
)

// TestAHostThatAdoptsKeepsNoZombies runs itself again in a separate process, because the
// setting that turns a process into a subreaper applies to the whole process.
func TestAHostThatAdoptsKeepsNoZombies(t *testing.T) {
	const again = "PROCS_TEST_ADOPTS"
	if os.Getenv(again) == "" {
		cmd := exec.Command(os.Args[0], "-test.run", "^"+t.Name()+"$", "-test.v")
		cmd.Env = append(os.Environ(), again+"=1")
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, string(out))
		return
	}
	const setChildSubreaper = 36 // PR_SET_CHILD_SUBREAPER
	_, _, errno := syscall.Syscall(syscall.SYS_PRCTL, setChildSubreaper, 1, 0)
	require.Zero(t, errno)
	for range 10 {
		dir := tempdir.New(t)
		p := shell(t, dir, escapes["a session in a session"]+"\nuntil [ -s $dir/pids ]; do sleep 0.01; done")
		require.NoError(t, p.Finish(0))
		for _, pid := range written(t, dir) {
			require.ErrorIs(t, syscall.Kill(pid, 0), syscall.ESRCH, "the turn left a zombie")
		}
	}
	// The orphan ends during the turn, so no scan sees the orphan alive.
	dir := tempdir.New(t)
	p := shell(t, dir, `setsid sh -c 'setsid sh -c "echo \$\$ >>$dir/pids" & exit' & sleep 600`)
	require.Eventually(t, func() bool {
		text, _ := os.ReadFile(dir + "/pids")
		return bytes.HasSuffix(text, []byte("\n"))
	}, time.Minute, time.Millisecond)
	orphan := written(t, dir)[0]
	require.Eventually(t, func() bool {
		ReapAdopted()
		return syscall.Kill(orphan, 0) == syscall.ESRCH
	}, time.Minute, time.Millisecond)
	p.Stop(nil, 0)
	require.NoError(t, p.Finish(0))
	require.Equal(t, "signal: killed", p.State().String(), "the program was reaped, but not by the code that started it")
	require.Empty(t, strings.Fields(string(childrenOfSelf(t))))
}

func childrenOfSelf(t *testing.T) (all []byte) {
	t.Helper()
	ReapAdopted()
	threads, err := os.ReadDir("/proc/self/task")
	require.NoError(t, err)
	for _, thread := range threads {
		list, _ := os.ReadFile("/proc/self/task/" + thread.Name() + "/children")
		all = append(all, list...)
	}
	return all
}
