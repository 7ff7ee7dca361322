package procs

import (
	"bytes"
	"os"
	"strconv"
	"syscall"
)

// ReapAdopted reaps the adopted children of this process that have ended, and
// returns their number. This process adopts a process whose parent has ended if
// this process is a subreaper or process 1 of a container.
//
// ReapAdopted may be called only in a program that starts all its child processes
// with this package. Otherwise it would also reap children that other code waits for.
//
// Adopted children of a turn that end while the turn is being ended are reaped
// without a call of ReapAdopted.
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

// reapAdopted reaps a child process if it has ended, and reports whether it did. No
// other code may wait for that child.
func reapAdopted(pid int) bool {
	got, err := syscall.Wait4(pid, nil, syscall.WNOHANG, nil)
	return err == nil && got == pid
}
