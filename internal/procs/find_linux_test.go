package procs

import (
	"bufio"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// sh starts a script with additional environment variables, and returns the first line that
// the script prints. The processes of the script are terminated at the end of the test.
func sh(t *testing.T, script string, env ...string) string {
	t.Helper()
	cmd := exec.Command("sh", "-c", script)
	cmd.Env = append(os.Environ(), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		killGroup(cmd.Process)
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	return strings.TrimSpace(line)
}

// killGroup kills the process group of a program, and reports whether it did. If the program has been
// reaped, another process group can have the same ID, so killGroup does nothing. A program may already have
// been reaped, because the tested functions terminate children of this process and reap them.
func killGroup(p *os.Process) bool {
	return p.Signal(syscall.Signal(0)) == nil && syscall.Kill(-p.Pid, syscall.SIGKILL) == nil
}

func TestTheGroupOfAReapedProgramIsNotKilled(t *testing.T) {
	cmd := exec.Command("sh", "-c", "sleep 600 & exit 0")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	require.NoError(t, cmd.Start())
	_, err := syscall.Wait4(cmd.Process.Pid, nil, 0, nil)
	require.NoError(t, err)
	defer func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }() // no other group can have the ID while sleep is in the group
	require.NoError(t, syscall.Kill(-cmd.Process.Pid, 0), "sleep must be in the group")
	require.False(t, killGroup(cmd.Process))
}

func TestTheProcessesOfARunAreFoundAndEnded(t *testing.T) {
	id := "test-" + strconv.Itoa(os.Getpid()) + "-run"
	mine := InstanceVariable + "=" + id
	sleeper := sh(t, "setsid sh -c 'echo $$; exec sleep 600'", mine)
	deaf := sh(t, "trap '' TERM; setsid sh -c 'echo $$; while :; do sleep 600; done'", InstanceVariable+"=outer/"+id+"/inner")
	stopped := sh(t, "sh -c 'echo $$; kill -STOP $$; sleep 600'", mine)
	var others []string
	for _, value := range []string{"outer", id + "x", "x" + id, id[:len(id)-1]} {
		others = append(others, sh(t, "echo $$; exec sleep 600", InstanceVariable+"="+value))
	}
	others = append(others, sh(t, "echo $$; exec sleep 600", "OTHER="+id, "X"+mine))

	found, _, err := Find(id, nil)
	require.NoError(t, err)
	var pids []string
	for _, p := range found {
		pids = append(pids, strconv.Itoa(p.PID))
	}
	require.Subset(t, pids, []string{sleeper, deaf, stopped})
	require.Equal(t, "sleep 600", commandOf(number(t, sleeper)))

	gone, _, err := EndInstance(id, nil, 300*time.Millisecond)
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(gone), 3)
	for _, pid := range []string{sleeper, deaf, stopped} {
		require.False(t, runs(number(t, pid)), "a process of the run is still running")
	}
	for _, pid := range others {
		require.True(t, runs(number(t, pid)), "a process that does not belong to the run was ended")
	}
	found, _, err = Find(id, nil)
	require.NoError(t, err)
	require.Empty(t, found)
	_, _, err = Find("", nil)
	require.Error(t, err, "without an id, the processes belong to no run")
}

func TestARunWithinADeadOneIsLeftAloneAndSoIsWhoLooks(t *testing.T) {
	dead, inner := "test-"+strconv.Itoa(os.Getpid())+"-dead", "inner"
	left := sh(t, "echo $$; exec sleep 600", InstanceVariable+"="+dead)
	within := sh(t, "echo $$; exec sleep 600", InstanceVariable+"="+dead+"/gone/"+inner)
	keep := func(_ int, ids []string) bool { return slices.Contains(ids, inner) }

	list, spared, err := Find(dead, keep)
	require.NoError(t, err)
	require.Len(t, list, 1)
	require.Equal(t, left, strconv.Itoa(list[0].PID))
	require.Equal(t, 1, spared)
	ended, spared, err := EndInstance(dead, keep, 0)
	require.NoError(t, err)
	require.Len(t, ended, 1)
	require.Equal(t, 1, spared)
	require.True(t, runs(number(t, within)), "an agent of a live run was ended")

	// The test starts itself again within a dead run. Neither the inner test nor its ancestors may be
	// terminated.
	if os.Getenv("TEST_WITHIN") == "" {
		cmd := exec.Command("sh", "-c", `"$0" -test.run=TestARunWithinADeadOneIsLeftAloneAndSoIsWhoLooks; exit $?`, os.Args[0])
		cmd.Env = append(os.Environ(), "TEST_WITHIN="+dead+"-above", InstanceVariable+"="+dead+"-above")
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
		return
	}
	ended, spared, err = EndInstance(os.Getenv("TEST_WITHIN"), nil, 0)
	require.NoError(t, err)
	require.Empty(t, ended)
	require.Equal(t, 2, spared, "the test and its shell")
}

// The function "runs" reports whether the process is running. A process that is exiting is no
// longer running, but it stays in the process table for a moment.
func runs(pid int) bool {
	st, there := statOf(pid)
	return there && !(st.flags&flagExiting != 0 && st.threads <= 1)
}

func number(t *testing.T, text string) int {
	t.Helper()
	n, err := strconv.Atoi(text)
	require.NoError(t, err)
	return n
}

func TestAnInstanceIDIsPlain(t *testing.T) {
	for _, id := range []string{"", "a", "A-z_0.9", strings.Repeat("x", 128)} {
		require.NoError(t, CheckInstance(id))
	}
	for _, id := range []string{"a/b", "a b", "a=b", "ä", "a\x00", strings.Repeat("x", 129)} {
		require.Error(t, CheckInstance(id))
	}
}

func TestMarksAreWithinThoseOfTheHost(t *testing.T) {
	for _, name := range []string{DepthVariable, TurnVariable, InstanceVariable} {
		t.Setenv(name, "")
	}
	m := NewMarks(1, "")
	require.NotEmpty(t, m.Turn)
	require.Equal(t, []string{TurnVariable + "=" + m.Turn, DepthVariable + "=1"}, m.Environ())
	require.Equal(t, "a", NewMarks(1, "a").Instance)
	t.Setenv(DepthVariable, "2")
	t.Setenv(TurnVariable, "outer")
	t.Setenv(InstanceVariable, "outer")
	require.Equal(t, "outer", NewMarks(1, "").Instance)
	m = NewMarks(1, "a")
	require.Equal(t, []string{TurnVariable + "=" + m.Turn, DepthVariable + "=3", InstanceVariable + "=outer/a"}, m.Environ())
	require.True(t, within(m.Turn, "outer"))
	require.True(t, within(m.Within().Turn, m.Turn))
	require.False(t, within(m.Turn, m.Within().Turn))
	require.False(t, within("outer2", "outer"))
	t.Setenv(DepthVariable, "nonsense")
	require.Equal(t, 1, NewMarks(1, "").Depth)
}
