//go:build unix

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/creack/pty"
	"github.com/stretchr/testify/require"
)

// The agent "obedient" exits when it gets a signal. It has a child in a separate session.
const obedient = `#!/bin/sh
setsid sleep 600 & echo $! >>pids
echo $$ >>pids
cat >/dev/null
echo ready >>ready
exec sleep 600
`

// The agent "stubborn" is like the agent "obedient", but it and its child ignore signals.
const stubborn = `#!/bin/sh
trap '' TERM INT HUP
setsid sh -c 'trap "" TERM INT HUP; echo $$ >>pids; while :; do sleep 1; done' &
echo $$ >>pids
cat >/dev/null
while [ "$(wc -l <pids)" -lt 2 ]; do sleep 0.05; done
echo ready >>ready
while :; do sleep 1; done
`

// The agent "careless" exits when it gets a signal, and leaves behind a child that ignores signals.
const careless = `#!/bin/sh
setsid sh -c 'trap "" TERM INT HUP; echo $$ >>pids; while :; do sleep 1; done' &
echo $$ >>pids
cat >/dev/null
while [ "$(wc -l <pids)" -lt 2 ]; do sleep 0.05; done
echo ready >>ready
exec sleep 600
`

// withProgram returns a place with an agent whose program is the script, which must
// have two processes.
func withProgram(t *testing.T, script string) *place {
	p := newPlace(t)
	p.write("agent.sh", script)
	p.write(".bgagent.jsonc", `{"agents": {
		"program": { "kind": "command", "preset": "generic", "command": ["`+p.project+`/agent.sh"] },
		"wait": { "kind": "inproc", "model": "demo/none" },
	}}`)
	p.write("tasks.jsonc", `[{"agent": "wait", "prompt": "1 ms", "description": "quick"}, {"agent": "program", "prompt": "x"}, {"agent": "wait", "prompt": "9 m"}]`)
	return p
}

// awaitFile waits until a program has written a line to a file.
func (p *place) awaitFile(name string) {
	p.t.Helper()
	require.Eventually(p.t, func() bool {
		b, _ := os.ReadFile(filepath.Join(p.project, name))
		return strings.Contains(string(b), "\n")
	}, atMost, 5*time.Millisecond, name)
}

// requireGone fails the test unless the given number of processes have recorded their ids and all
// of them have exited.
func (p *place) requireGone(want int) {
	p.t.Helper()
	require.Len(p.t, p.pids(), want)
	require.Zero(p.t, p.live(), "processes are left")
}

func (p *place) pids() (out []int) {
	p.t.Helper()
	b, err := os.ReadFile(filepath.Join(p.project, "pids"))
	require.NoError(p.t, err)
	for _, line := range strings.Fields(string(b)) {
		pid, err := strconv.Atoi(line)
		require.NoError(p.t, err)
		out = append(out, pid)
	}
	return out
}

// The method "live" returns how many of the recorded processes have not exited. All of them run in the
// project's directory. A process with the same PID in another directory is a different process.
func (p *place) live() (n int) {
	p.t.Helper()
	project, err := filepath.EvalSymlinks(p.project)
	require.NoError(p.t, err)
	for _, pid := range p.pids() {
		proc := "/proc/" + strconv.Itoa(pid)
		stat, err := os.ReadFile(proc + "/stat")
		ended := err == nil && strings.Contains(string(stat), ") Z ") // a zombie has exited
		at, err := os.Readlink(proc + "/cwd")
		other := err == nil && at != project
		if !ended && !other && syscall.Kill(pid, 0) == nil {
			n++
		}
	}
	return n
}

func TestCtrlCStopsCleanlyAndWritesTheResultsSoFar(t *testing.T) {
	p := withProgram(t, obedient)
	r := p.start("run", "tasks.jsonc", "-o", "out")
	p.awaitFile("ready")
	r.out.await(t, "1  completed  wait: quick")
	r.interrupt(t)
	require.Equal(t, 130, r.code(), r.out)
	require.Contains(t, r.out.String(), "interrupted: stopping the running tasks; Ctrl-C again ends everything immediately")
	require.Contains(t, r.out.String(), "1 completed, 2 cancelled in ")
	p.requireGone(2)
	x := p.index("out")
	require.True(t, x.Interrupted)
	require.NotZero(t, x.Ended)
	require.Equal(t, bgagent.Completed, x.Tasks[0].Status)
	for _, e := range x.Tasks[1:] {
		require.Equal(t, bgagent.Cancelled, e.Status)
		require.Equal(t, "interrupted", e.Reason)
		b, err := os.ReadFile(filepath.Join(p.project, "out", e.File))
		require.NoError(t, err)
		require.True(t, strings.HasPrefix(string(b), "cancelled: interrupted\n"), string(b))
	}
}

func TestCtrlCTwiceEndsEverythingAtOnce(t *testing.T) {
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		t.Skip("only on Linux can a program find the processes below it; elsewhere, it waits for the grace time")
	}
	for name, script := range map[string]string{"stubborn": stubborn, "careless": careless} {
		t.Run(name, func(t *testing.T) {
			end := func() time.Duration {
				p := withProgram(t, script)
				r := p.start("run", "tasks.jsonc", "-o", "out")
				p.awaitFile("ready")
				r.interrupt(t)
				r.out.await(t, "Ctrl-C again ends everything immediately")
				if name == "careless" {
					p.awaitOrphan()
				}
				begin := time.Now()
				r.interrupt(t)
				require.Equal(t, 130, r.code(), r.out)
				took := time.Since(begin)
				p.requireGone(2)
				require.True(t, p.index("out").Interrupted)
				return took
			}
			const most = 3500 * time.Millisecond // less than the grace periods, which add up to 4 s, so the program did not wait for all of them
			took := end()
			for try := 1; took >= most && try < 5; try++ { // a busy machine can need longer
				took = end()
			}
			require.Less(t, took, most)
		})
	}
}

// awaitOrphan waits until one of the program's two processes has exited.
func (p *place) awaitOrphan() {
	p.t.Helper()
	require.Eventually(p.t, func() bool { return p.live() == 1 }, atMost, 5*time.Millisecond)
}

func TestAProgramThatIgnoresSignalsIsEndedAfterOneCtrlC(t *testing.T) {
	t.Parallel()
	p := withProgram(t, stubborn)
	r := p.start("run", "tasks.jsonc", "-o", "out")
	p.awaitFile("ready")
	r.interrupt(t)
	require.Equal(t, 130, r.code(), r.out)
	p.requireGone(2)
}

func TestSIGTERMCountsAsCtrlC(t *testing.T) {
	p := withProgram(t, obedient)
	r := p.start("run", "tasks.jsonc", "-o", "out")
	p.awaitFile("ready")
	require.NoError(t, r.Process.Signal(syscall.SIGTERM))
	require.Equal(t, 130, r.code(), r.out)
	p.requireGone(2)
}

func TestAReaderThatGoesAwayLeavesNoProcess(t *testing.T) {
	p := withProgram(t, obedient)
	cmd := p.command("run", "tasks.jsonc", "-o", "out")
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	p.awaitFile("ready")
	require.NoError(t, out.Close())
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM)) // makes the program write to the closed pipe
	_ = cmd.Wait()
	require.Equal(t, 130, cmd.ProcessState.ExitCode())
	p.requireGone(2)
	require.True(t, p.index("out").Interrupted)
}

func TestCtrlCEndsTheWaitForStandardInput(t *testing.T) {
	p := newPlace(t)
	cmd := p.command("run", "-")
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	defer in.Close()
	problems := newOutput()
	cmd.Stderr = problems
	require.NoError(t, cmd.Start())
	problems.await(t, "there is no configuration file") // after this line, the list is read
	require.NoError(t, cmd.Process.Signal(syscall.SIGINT))
	_ = cmd.Wait()
	require.Equal(t, 130, cmd.ProcessState.ExitCode())
}

// inTerminal runs the program in a terminal, and calls the function "then" while the program runs. It returns
// the output and the exit code.
func (p *place) inTerminal(rows uint16, then func(*output, *os.File), args ...string) (string, int) {
	p.t.Helper()
	return p.inTerminalOf(pty.Winsize{Rows: rows, Cols: 120}, func(_ *exec.Cmd, out *output, tty *os.File) {
		if then != nil {
			then(out, tty)
		}
	}, args...)
}

// inTerminalOf is like inTerminal, but for a terminal of the given size.
func (p *place) inTerminalOf(size pty.Winsize, then func(*exec.Cmd, *output, *os.File), args ...string) (string, int) {
	p.t.Helper()
	cmd := p.command(args...)
	tty, err := pty.StartWithSize(cmd, &size)
	require.NoError(p.t, err)
	defer tty.Close()
	out := newOutput()
	read := make(chan struct{})
	go func() {
		defer close(read)
		buf := make([]byte, 4096)
		for {
			n, err := tty.Read(buf)
			_, _ = out.Write(buf[:n])
			if err != nil {
				return
			}
		}
	}()
	then(cmd, out, tty)
	_ = cmd.Wait()
	<-read
	return out.String(), cmd.ProcessState.ExitCode()
}

func TestATerminalGetsATable(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	out, code := p.inTerminal(40, nil, "run", "-o", "out")
	require.Equal(t, 0, code, out)
	require.Contains(t, out, "\x1b[32m✓\x1b[m")
	require.Contains(t, out, "in line", "tasks that wait for a slot are shown")
	require.Contains(t, out, "8 completed in ")
	require.NotContains(t, out, "s]   1  running", "no plain lines")
	require.True(t, strings.LastIndex(out, "\x1b[?25h") > strings.LastIndex(out, "\x1b[?25l"), "the cursor is shown again")
}

func TestPlainLinesInATerminal(t *testing.T) {
	p := newPlace(t)
	p.write("tasks.jsonc", `[{"agent": "demo-wait", "prompt": "1 ms"}]`)
	out, code := p.inTerminal(40, nil, "run", "tasks.jsonc", "--plain", "-o", "out")
	require.Equal(t, 0, code, out)
	require.Contains(t, out, "s]   1  completed")
	p.env = append(p.env, "NO_COLOR=1")
	out, code = p.inTerminal(40, nil, "run", "tasks.jsonc", "-o", "out2")
	require.Equal(t, 0, code, out)
	require.NotContains(t, out, "\x1b[")
}

func TestASmallTerminalShowsRunningTasks(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	out, code := p.inTerminal(6, nil, "run", "-o", "out")
	require.Equal(t, 0, code, out)
	require.Contains(t, out, " not shown")
	require.Contains(t, out, "8 completed in ")
}

func TestCtrlCTypedIntoTheTableEndsTheRun(t *testing.T) {
	p := withProgram(t, stubborn)
	out, code := p.inTerminal(40, func(out *output, tty *os.File) {
		p.awaitFile("ready")
		_, err := tty.Write([]byte{3})
		require.NoError(t, err)
		out.await(t, "Ctrl-C again")
		_, err = tty.Write([]byte{3})
		require.NoError(t, err)
	}, "run", "tasks.jsonc", "-o", "out")
	require.Equal(t, 130, code, out)
	require.True(t, strings.LastIndex(out, "\x1b[?25h") > strings.LastIndex(out, "\x1b[?25l"), "the cursor is shown again")
	p.requireGone(2)
}

// A program that reads from the terminal must get an error. Otherwise, the system would stop the program, and
// the program would never continue.
func TestAnAgentThatReadsTheTerminalIsNotStopped(t *testing.T) {
	p := withAgent(t, `cat >/dev/null
if read x </dev/tty; then echo "read $x"; else echo no terminal; fi
`)
	out, code := p.inTerminal(40, nil, "run", "tasks.jsonc", "-o", "out")
	require.Equal(t, 0, code, out)
	b, err := os.ReadFile(filepath.Join(p.project, "out", p.index("out").Tasks[0].File))
	require.NoError(t, err)
	require.Equal(t, "no terminal\n", string(b))
}

// A program that does not read its prompt breaks only its own pipe.
func TestABrokenPipeToAChildInterruptsNothing(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.write("agent.sh", "#!/bin/sh\nexec <&-\nsleep 0.3\necho not read\n")
	p.write(".bgagent.jsonc", `{"agents": {
		"program": { "kind": "command", "preset": "generic", "command": ["`+p.project+`/agent.sh"] },
		"wait": { "kind": "inproc", "model": "demo/none" },
	}}`)
	p.write("tasks.jsonc", `[{"agent": "program", "prompt": "`+strings.Repeat("long ", 100_000)+`"}, {"agent": "wait", "prompt": "1 s"}]`)
	got := p.run("run", "tasks.jsonc", "-o", "out")
	require.NotEqual(t, 130, got.code, got.out+got.stderr)
	require.False(t, p.index("out").Interrupted)
	require.Equal(t, bgagent.Completed, p.index("out").Tasks[1].Status)
}
