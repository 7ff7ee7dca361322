package procs

import (
	"bytes"
	"os"
	"strconv"
	"syscall"
)

// ReapAdopted waits for every child of this process that has ended and that
// nobody here has started: a process becomes the child of this one when it loses
// its parent and this one is process 1 of a container or a subreaper. It may be
// called only where all programs are started by this package: what somebody else
// starts here would be waited for too. It returns how many there were.
//
// Those that end while a turn is being ended are waited for without it.
func ReapAdopted() (n int) {
	running.starting.Lock()
	defer running.starting.Unlock()
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return 0
	}
	for _, t := range threads {
		list, _ := os.ReadFile("/proc/self/task/" + t.Name() + "/children")
		for field := range bytes.FieldsSeq(list) {
			pid, err := strconv.Atoi(string(field))
			if err == nil && !running.has(pid) && reapAdopted(pid) {
				n++
			}
		}
	}
	return n
}

// reapAdopted waits for a child that has ended, and that nobody else waits for.
func reapAdopted(pid int) bool {
	got, err := syscall.Wait4(pid, nil, syscall.WNOHANG, nil)
	return err == nil && got == pid
}
