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

// When an adopted process exits, it must be reaped. Otherwise, it stays in the process table. The code here
// must not reap any other process, because the code that started that process needs its exit status. Package
// os opens a handle (pidfd) when it starts a process, and holds the handle until it has waited for the
// process. Therefore, a child that has exited and for which this process has no handle is an adopted process.

// pause is the time between a signal and the search for children that have exited. This way, one
// search finds many children that exit in quick succession.
const pause = 200 * time.Millisecond

// reapAll reaps adopted children after each signal that a child has exited.
func reapAll(ends <-chan os.Signal) {
	for range ends {
		time.Sleep(pause)
		for reap() > 0 { // a child that exits later causes another signal
		}
	}
}

// The function "reap" reaps all adopted children that have exited, each by its process id. It returns their
// number.
func reap() (n int) {
	zombies := ended()
	if len(zombies) == 0 {
		return 0
	}
	// The handles are read after the list of ended children. Therefore, an ended child without a handle
	// was adopted, or package os has reaped it since.
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

// The function "ended" returns the children of this process that have exited.
func ended() (pids []int) {
	lists, _ := filepath.Glob("/proc/self/task/[0-9]*/children")
	for _, path := range lists {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // the thread has ended, and another thread has its children
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
			// The name in brackets can itself contain brackets, so the code searches for the last bracket.
			if rest := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:]); len(rest) > 0 && rest[0][0] == 'Z' {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// The function "handles" returns the ids of the processes for which this process holds handles.
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
			continue // the handle was closed after the folder was read
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

// handlesShow reports whether package os uses handles on this system and whether the function "handles" can
// find them. If it returns false, adopted processes are not reaped.
func handlesShow() bool {
	p, err := os.FindProcess(os.Getpid())
	if err != nil {
		return false
	}
	defer func() { _ = p.Release() }()
	pids, ok := handles()
	return ok && pids[os.Getpid()]
}
