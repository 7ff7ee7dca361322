package main

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// The function "modes" returns the modes of a terminal.
func modes(t *testing.T, tty *os.File) unix.Termios {
	t.Helper()
	m, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
	require.NoError(t, err)
	return *m
}

// awaitSilence waits until typed keys are not echoed.
func awaitSilence(t *testing.T, tty *os.File) {
	t.Helper()
	require.Eventually(t, func() bool { return modes(t, tty).Lflag&unix.ECHO == 0 }, atMost, 5*time.Millisecond)
}

// manyWaits writes a list of n tasks that each wait for the given time.
func (p *place) manyWaits(n int, time string) {
	var list []string
	for i := range n {
		list = append(list, fmt.Sprintf(`{"agent": "wait", "prompt": "%s", "description": "task %d with a title of some length"}`, time, i+1))
	}
	p.write("tasks.jsonc", "["+strings.Join(list, ",\n")+"]")
	p.write(".bgagent.jsonc", `{"background_task": {"defaultConcurrency": 20}, "agents": {"wait": {"kind": "inproc"}}}`)
}

// The method "gated" creates the file with a list of n tasks. The first task ends when the file "go" exists.
// The others end soon.
func (p *place) gated(n int) {
	p.manyWaits(n, "300 ms")
	p.write("gate.sh", "#!/bin/sh\nwhile [ ! -e go ]; do sleep 0.05; done\necho open\n")
	p.write(".bgagent.jsonc", `{"background_task": {"defaultConcurrency": 20}, "agents": {"wait": {"kind": "inproc"}, "gate": {"kind": "command", "preset": "generic", "command": ["./gate.sh"]}}}`)
	list, err := os.ReadFile(filepath.Join(p.project, "tasks.jsonc"))
	require.NoError(p.t, err)
	p.write("tasks.jsonc", strings.Replace(string(list), `"agent": "wait"`, `"agent": "gate"`, 1))
}

const typed = "rm -rf typed-by-mistake\n"

func TestTypingIntoTheTableChangesNothing(t *testing.T) {
	t.Parallel()
	for _, tasks := range []int{10, 50} {
		for _, cols := range []uint16{130, 80, 60, 40} {
			t.Run(fmt.Sprintf("%d tasks in %d columns", tasks, cols), func(t *testing.T) {
				p := newPlace(t)
				p.gated(tasks)
				var before, after unix.Termios
				out, code := p.inTerminalOf(pty.Winsize{Rows: 24, Cols: cols}, func(cmd *exec.Cmd, out *output, tty *os.File) {
					before = modes(t, tty)
					awaitSilence(t, tty)
					_, err := tty.WriteString(typed)
					require.NoError(t, err)
					require.NoError(t, pty.Setsize(tty, &pty.Winsize{Rows: 12, Cols: cols - 7}))
					p.write("go", "")
					out.await(t, " completed in ")
					require.Eventually(t, func() bool { after = modes(t, tty); return after.Lflag&unix.ECHO != 0 }, atMost, 5*time.Millisecond)
				}, "run", "tasks.jsonc", "-o", "out")
				require.Equal(t, 0, code, out)
				require.NotContains(t, out, "typed-by-mistake")
				require.Contains(t, out, fmt.Sprintf("%d completed in ", tasks))
				require.True(t, strings.LastIndex(out, "\x1b[?25h") > strings.LastIndex(out, "\x1b[?25l"), "the cursor is shown again")
				if before.Lflag&unix.ECHO != 0 { // the modes were read before the terminal was silenced
					require.Equal(t, before, after)
				}
			})
		}
	}
}

func TestWhatWasTypedIsNotLeftForTheShell(t *testing.T) {
	p := newPlace(t)
	p.gated(1)
	cmd := exec.Command("sh", "-c", `"$0" run tasks.jsonc -o out; read -t 1 x || x=nothing; echo "read: $x"`, binary)
	cmd.Args[0], cmd.Path = "bash", "/bin/bash"
	cmd.Dir, cmd.Env = p.project, append(p.env, "PATH="+p.path)
	tty, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 24, Cols: 80})
	require.NoError(t, err)
	defer tty.Close()
	out := newOutput()
	go func() {
		buf := make([]byte, 4096)
		for n, err := 0, error(nil); err == nil; _, _ = out.Write(buf[:n]) {
			n, err = tty.Read(buf)
		}
	}()
	awaitSilence(t, tty)
	_, err = tty.WriteString(typed)
	require.NoError(t, err)
	p.write("go", "")
	out.await(t, "read: nothing")
	_ = cmd.Wait()
	require.NotContains(t, out.String(), "typed-by-mistake")
}

func TestCtrlCIsHeardHoweverMuchWasTyped(t *testing.T) {
	p := newPlace(t)
	p.manyWaits(3, "9 m")
	out, code := p.inTerminalOf(pty.Winsize{Rows: 24, Cols: 80}, func(cmd *exec.Cmd, out *output, tty *os.File) {
		awaitSilence(t, tty)
		for range 2000 { // 1 MB
			_, err := tty.WriteString(strings.Repeat("x", 499) + "\n")
			require.NoError(t, err)
		}
		_, err := tty.Write([]byte{3})
		require.NoError(t, err)
	}, "run", "tasks.jsonc", "-o", "out")
	require.Equal(t, 130, code, out)
	require.NotContains(t, out, "xxx")
}

func TestAServerThatCannotBeReachedIsSaidWhileTasksWaitForIt(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.write(".bgagent.jsonc", `{"background_task": {"hostUnreachableMs": 5000, "pollIntervalMs": 500},
		"agents": {"away": {"kind": "opencode", "url": "http://127.0.0.1:1"}}}`)
	p.write("tasks.jsonc", `[{"agent": "away", "prompt": "review the API"}, {"agent": "away", "prompt": "mend the test"}]`)
	shown, code := p.inTerminalOf(pty.Winsize{Rows: 24, Cols: 80}, func(cmd *exec.Cmd, out *output, tty *os.File) {}, "run", "tasks.jsonc", "-o", "out")
	require.Equal(t, 1, code, shown)
	for _, title := range []string{"review the API", "mend the test "} {
		require.Regexp(t, title+` +\d+\.?\d*s  \S*out of reach \d\.\ds of 5\.0s\S*; looking for`, shown)
	}
	require.Contains(t, strings.Join(strings.Fields(shown), " "), "away is out of reach: looking for the agent: no answer from the opencode server at http://127.0.0.1:1: dial tcp 127.0.0.1:1: connect: connection refused")
	piped := p.run("run", "tasks.jsonc", "-o", "piped")
	for n := range 2 {
		require.Regexp(t, fmt.Sprintf(` %d  running    away: [a-zA-Z ]+: out of reach \d\.\ds of 5\.0s: looking for the agent: no answer from the opencode server at http://127\.0\.0\.1:1`, n+1), piped.out)
	}
}

// inShell starts a shell with job control in a terminal, and types a text into it.
func (p *place) inShell(typed string) (tty *os.File, out *output) {
	cmd := exec.Command("/bin/bash", "--norc", "--noediting", "-i")
	cmd.Dir, cmd.Env = p.project, append(p.env, "PATH="+p.path, "PS1=$ ", "bgagent="+binary)
	tty, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 24, Cols: 80})
	require.NoError(p.t, err)
	out = newOutput()
	read := make(chan struct{})
	go func() {
		defer close(read)
		buf := make([]byte, 4096)
		for n, err := 0, error(nil); err == nil; _, _ = out.Write(buf[:n]) {
			n, err = tty.Read(buf)
		}
	}()
	p.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = tty.Close()
		<-read
	})
	out.await(p.t, "$ ")
	p.say(tty, typed)
	return tty, out
}

func (p *place) say(tty *os.File, typed string) {
	p.t.Helper()
	_, err := tty.WriteString(typed)
	require.NoError(p.t, err)
}

func TestARunThatIsStoppedAndGoneOnWithGivesAndTakesTheTerminal(t *testing.T) {
	p := newPlace(t)
	p.manyWaits(3, "9 m")
	tty, out := p.inShell("$bgagent run tasks.jsonc -o out\n")
	awaitSilence(t, tty)
	out.await(t, "3 running")
	p.say(tty, "\x1a")
	out.await(t, "]+  Stopped")
	require.NotZero(t, modes(t, tty).Lflag&unix.ECHO, "the shell has its terminal back")
	stopped := out.String()
	require.True(t, strings.LastIndex(stopped, "\x1b[?25h") > strings.LastIndex(stopped, "\x1b[?25l"), "with a visible cursor")
	require.True(t, strings.LastIndex(stopped, "\x1b[?2004l") > strings.LastIndex(stopped, "\x1b[?2004h"), "without bracketed paste")
	p.say(tty, "fg\n")
	awaitSilence(t, tty)
	p.say(tty, typed+"\x03")
	out.await(t, "3 cancelled in ")
	p.say(tty, "echo code=$?\n")
	out.await(t, "code=130")
	require.NotContains(t, out.String(), "typed-by-mistake")
}

func TestARunInTheBackgroundLeavesTheTerminalAloneUntilItIsBroughtToTheFront(t *testing.T) {
	p := newPlace(t)
	p.manyWaits(3, "9 m")
	tty, out := p.inShell("$bgagent run tasks.jsonc -o out &\n")
	out.await(t, "3 running")
	require.NotZero(t, modes(t, tty).Lflag&unix.ECHO, "the terminal belongs to the shell")
	p.say(tty, "fg\n")
	awaitSilence(t, tty)
	p.say(tty, typed+"\x03")
	out.await(t, "3 cancelled in ")
	require.Eventually(t, func() bool { return modes(t, tty).Lflag&unix.ECHO != 0 }, atMost, 5*time.Millisecond)
	p.say(tty, "echo code=$?\n")
	out.await(t, "code=130")
	require.NotContains(t, out.String(), "typed-by-mistake")
}

func TestWhatGoesWrongBesideTheTasksDoesNotTearTheTable(t *testing.T) {
	p := newPlace(t)
	p.write("tell.sh", "#!/bin/sh\nexit 3\n")
	p.write(".bgagent.jsonc", `{"notify": ["./tell.sh"], "agents": {"wait": {"kind": "inproc"}, "fail": {"kind": "inproc"}}}`)
	p.write("tasks.jsonc", `[{"agent": "fail", "prompt": "x"}, {"agent": "wait", "prompt": "9 m"}]`)
	var s *screen
	_, code := p.inTerminalOf(pty.Winsize{Rows: 24, Cols: 200}, func(cmd *exec.Cmd, out *output, tty *os.File) {
		s = awaitScreen(t, out, 200, `  notify: \S+/tell\.sh failed \(exit status 3\)`, `  \d+\.\ds · 1 running · 1 failed`)
		require.NoError(t, cmd.Process.Signal(syscall.SIGINT))
	}, "run", "tasks.jsonc", "-o", "out")
	require.Equal(t, 130, code)
	require.Equal(t, 1, strings.Count(s.String(), "notify:"))
}

// bytesRead returns how many bytes a process has read from files and terminals.
func bytesRead(t *testing.T, pid int) (n int) {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", pid))
	require.NoError(t, err)
	_, err = fmt.Sscanf(string(b), "rchar: %d", &n)
	require.NoError(t, err)
	return n
}

func TestAKilledRunGivesTheTerminalBack(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT} {
		if signal.Ignored(sig) {
			continue // the signal is ignored, for example under nohup, and the program would also ignore it
		}
		p := newPlace(t)
		p.manyWaits(3, "9 m")
		out, _ := p.inTerminalOf(pty.Winsize{Rows: 24, Cols: 80}, func(cmd *exec.Cmd, out *output, tty *os.File) {
			awaitSilence(t, tty)
			out.await(t, "\x1b[?25l")
			before := bytesRead(t, cmd.Process.Pid)
			_, err := tty.WriteString(typed)
			require.NoError(t, err)
			// The terminal handles keys with a short delay. It would echo keys that it handles
			// after the program has exited. Therefore, the test waits until the program has read the keys.
			require.Eventually(t, func() bool { return bytesRead(t, cmd.Process.Pid) >= before+len(typed) }, atMost, time.Millisecond)
			require.NoError(t, cmd.Process.Signal(sig))
			require.Eventually(t, func() bool {
				m := modes(t, tty)
				return m.Lflag&unix.ECHO != 0 && m.Lflag&unix.ICANON != 0
			}, atMost, 5*time.Millisecond, "%v", sig)
		}, "run", "tasks.jsonc", "-o", "out")
		require.NotContains(t, out, "typed-by-mistake")
		require.True(t, strings.LastIndex(out, "\x1b[?25h") > strings.LastIndex(out, "\x1b[?25l"), "%v: the cursor is shown again", sig)
		require.True(t, strings.LastIndex(out, "\x1b[?2004l") > strings.LastIndex(out, "\x1b[?2004h"), "%v: bracketed paste is off", sig)
		left, err := filepath.Glob("/proc/[0-9]*/cmdline")
		require.NoError(t, err)
		for _, path := range left {
			require.Eventually(t, func() bool {
				line, _ := os.ReadFile(path)
				return !strings.HasPrefix(string(line), binary+"\x00--give")
			}, atMost, 5*time.Millisecond, "the guard exits")
		}
	}
}
