package children

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// An adopted process must be waited for when it ends, or it stays in the process
// table. Nothing else may be waited for: a wait for any child would take the ends of
// processes from those who have started them. Package os opens a handle (pidfd)
// together with a process and holds it until it has waited for the process. So an
// ended child without a handle in this process is an adopted one.

// pause is how long ends are collected before a look, so that a program that starts
// and ends many processes does not spend its time looking.
const pause = 200 * time.Millisecond

// reapAll waits for adopted children after each signal that a child has ended.
func reapAll(ends <-chan os.Signal) {
	for range ends {
		time.Sleep(pause)
		for reap() > 0 { // later ends leave another signal
		}
	}
}

// reap waits for all adopted children that have ended, each by its process id. It
// returns how many there were.
func reap() (n int) {
	zombies := ended()
	if len(zombies) == 0 {
		return 0
	}
	// The handles are read last: a child that has none now was not started here, or
	// was waited for already.
	started, ok := handles()
	if !ok {
		return 0
	}
	for _, pid := range zombies {
		if started[pid] {
			continue
		}
		if got, err := unix.Wait4(pid, nil, unix.WNOHANG, nil); err == nil && got == pid {
			n++
		}
	}
	return n
}

// ended returns the children of this process that have ended.
func ended() (pids []int) {
	lists, _ := filepath.Glob("/proc/self/task/[0-9]*/children")
	for _, path := range lists {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // the thread is gone; another one has its children
		}
		for _, field := range bytes.Fields(text) {
			pid, err := strconv.Atoi(string(field))
			if err != nil {
				continue
			}
			stat, err := os.ReadFile("/proc/" + string(field) + "/stat")
			if err != nil {
				continue
			}
			// The name in brackets may hold anything, so the search starts at the
			// end.
			if rest := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:]); len(rest) > 0 && rest[0][0] == 'Z' {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// handles returns the processes that this one holds handles of.
func handles() (pids map[int]bool, ok bool) {
	dir, err := os.Open("/proc/self/fdinfo")
	if err != nil {
		return nil, false
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, false
	}
	pids = map[int]bool{}
	for _, name := range names {
		text, err := os.ReadFile("/proc/self/fdinfo/" + name)
		if os.IsNotExist(err) {
			continue // closed meanwhile
		}
		if err != nil {
			return nil, false
		}
		for line := range strings.Lines(string(text)) {
			if rest, found := strings.CutPrefix(line, "Pid:"); found {
				if pid, err := strconv.Atoi(strings.TrimSpace(rest)); err == nil {
					pids[pid] = true
				}
			}
		}
	}
	return pids, true
}

// handlesShow reports whether package os uses handles here and they can be seen. If
// not, adopted processes are not waited for.
func handlesShow() bool {
	p, err := os.FindProcess(os.Getpid())
	if err != nil {
		return false
	}
	defer func() { _ = p.Release() }()
	pids, ok := handles()
	return ok && pids[os.Getpid()]
}
