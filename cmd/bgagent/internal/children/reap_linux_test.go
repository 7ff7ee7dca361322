package children

import (
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// The function "orphan" starts a process whose parent exits immediately, so that this process adopts the
// started process. The started process exits when the returned function is called.
func orphan(t *testing.T) (pid int, end func()) {
	t.Helper()
	in, gate, err := os.Pipe()
	require.NoError(t, err)
	cmd := exec.Command("sh", "-c", `setsid sh -c 'read x <&3' >/dev/null 2>&1 & echo $!`)
	cmd.ExtraFiles = []*os.File{in}
	out, err := cmd.Output()
	require.NoError(t, err)
	require.NoError(t, in.Close())
	pid, err = strconv.Atoi(strings.TrimSpace(string(out)))
	require.NoError(t, err)
	return pid, func() { require.NoError(t, gate.Close()) }
}

// The function "gone" waits until a process is no longer in the process table.
func gone(t *testing.T, pid int) {
	t.Helper()
	require.Eventually(t, func() bool {
		_, err := os.Stat("/proc/" + strconv.Itoa(pid))
		return os.IsNotExist(err)
	}, 2*time.Minute, 5*time.Millisecond, "process %d is still there", pid)
}

func TestOnlyAdoptedChildrenAreWaitedFor(t *testing.T) {
	require.True(t, handlesShow())
	Adopt()
	// The process "late" exits immediately, but the test waits for it later. Its exit code must not be lost.
	late := exec.Command("sh", "-c", "exit 7")
	require.NoError(t, late.Start())
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for range 25 {
				cmd := exec.Command("sh", "-c", "exit "+strconv.Itoa(i+1))
				_ = cmd.Run()
				if got := cmd.ProcessState.ExitCode(); got != i+1 {
					t.Errorf("exit code %d instead of %d", got, i+1)
				}
			}
		})
	}
	for range 10 {
		pid, end := orphan(t)
		stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
		require.NoError(t, err)
		require.Contains(t, string(stat), " "+strconv.Itoa(os.Getpid())+" ", "this process has adopted it")
		end()
		gone(t, pid)
	}
	all.Wait()
	_ = late.Wait()
	require.Equal(t, 7, late.ProcessState.ExitCode())
	require.Empty(t, ended())
	require.NoError(t, unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0))
}
