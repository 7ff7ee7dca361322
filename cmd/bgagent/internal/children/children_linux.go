package children

import (
	"bytes"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Adopt makes this process the new parent of every process below it that loses its own parent, so that [Kill]
// finds such processes. When an adopted process exits, this process reaps it, so that it leaves the process
// table. Call Adopt once, before any program is started.
func Adopt() {
	// Without adoption, Kill would miss processes that a program left running in separate sessions. The
	// clients also terminate these processes, but only later.
	if unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == nil && handlesShow() {
		ends := make(chan os.Signal, 1)
		signal.Notify(ends, unix.SIGCHLD)
		go reapAll(ends)
	}
}

// Kill kills every process below this process. It returns when no process is left or the time limit
// is reached. Call it only when this process will not start any more programs.
func Kill(most time.Duration) {
	deadline := time.Now().Add(most)
	quiet := 0
	for pause := time.Millisecond; quiet < 2 && time.Now().Before(deadline); pause = min(2*pause, 20*time.Millisecond) {
		found := false
		for _, c := range below(os.Getpid()) {
			found = true
			c.kill()
		}
		if quiet++; found {
			quiet = 0 // the search can miss a process that starts during the search
		}
		time.Sleep(pause)
	}
}

// child is a running process.
type child struct {
	pid   int
	start string // when it was started; distinguishes it from a later process with the same PID
}

// The method "kill" kills the process if it is still running. The handle ensures that the signal cannot reach
// another process that gets the PID after the check.
func (c child) kill() {
	h, err := os.FindProcess(c.pid)
	if err != nil {
		return
	}
	defer func() { _ = h.Release() }()
	if now, _, _ := read(c.pid); now == c {
		_ = h.Kill()
	}
}

// The function "read" reads the process with the given PID. The result "live" is false if the process has
// exited.
func read(pid int) (c child, parent int, live bool) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return child{}, 0, false
	}
	// The file contains the process id, the name in brackets, the state and the parent. The start time is
	// the 20th field after the name. The name can itself contain brackets, so the code searches for the last
	// bracket.
	fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
	if len(fields) < 20 {
		return child{}, 0, false
	}
	parent, _ = strconv.Atoi(string(fields[1]))
	return child{pid, string(fields[19])}, parent, fields[0][0] != 'Z' && fields[0][0] != 'X'
}

// The function "below" returns all running processes below the process "root".
func below(root int) []child {
	dirs, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil
	}
	children := map[int][]child{}
	live := map[child]bool{}
	for _, path := range dirs {
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		c, parent, lives := read(pid)
		if c.pid == 0 {
			continue
		}
		children[parent] = append(children[parent], c)
		live[c] = lives
	}
	var out []child
	for next := children[root]; len(next) > 0; {
		c := next[0]
		next = append(next[1:], children[c.pid]...)
		if live[c] {
			out = append(out, c)
		}
	}
	return out
}
