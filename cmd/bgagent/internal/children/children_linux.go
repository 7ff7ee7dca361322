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

// Adopt has this process become the parent of every process that loses its own
// below it, so that [Kill] finds those, too, and waits for those of them that
// end. It is called once, before anything is started.
func Adopt() {
	// Without it Kill misses what a program has left running in a session of
	// its own; the clients end that as well, only later.
	if unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == nil && handlesShow() {
		ends := make(chan os.Signal, 1)
		signal.Notify(ends, unix.SIGCHLD)
		go reapAll(ends)
	}
}

// Kill ends every process below this one at once, and returns when none is left
// or the time is over. It must not be called before new ones can start no more.
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
			quiet = 0 // one look can miss a process that is started meanwhile
		}
		time.Sleep(pause)
	}
}

// below returns the processes below one that have not ended.
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
		// The number, the name in brackets, the state, the parent. The name may
		// hold anything, so it is skipped from behind.
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
