package children

import (
	"bytes"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Adopt makes this process the new parent of every process below it that loses its own parent, so that [Kill]
// finds such processes. When an adopted process exits, this process reaps it, so that it leaves the process
// table. Call Adopt once, before any program is started.
func Adopt() {
	// Without adoption, Kill would miss processes that a program left running in their own session. The
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
		for _, pid := range below(os.Getpid()) {
			found = true
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		if quiet++; found {
			quiet = 0 // the search can miss a process that starts during the search
		}
		time.Sleep(pause)
	}
}

// The function "below" returns the PIDs of all running processes below the process "root".
func below(root int) []int {
	dirs, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil
	}
	children := map[int][]int{}
	live := map[int]bool{}
	for _, path := range dirs {
		text, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		// The file contains the process id, the name in brackets, the state and the parent. The name can
		// itself contain brackets, so the code searches for the last bracket.
		fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
		if len(fields) < 2 {
			continue
		}
		parent, _ := strconv.Atoi(string(fields[1]))
		children[parent] = append(children[parent], pid)
		live[pid] = fields[0][0] != 'Z' && fields[0][0] != 'X'
	}
	var out []int
	for next := children[root]; len(next) > 0; {
		pid := next[0]
		next = append(next[1:], children[pid]...)
		if live[pid] {
			out = append(out, pid)
		}
	}
	return out
}
