package procs

import (
	"bytes"
	"os"
	"strconv"
	"syscall"
)

// ReapAdopted reaps the adopted children of this process that have ended, and returns their
// number. A subreaper, or process 1 of a container, adopts the processes below it whose
// parents have ended.
//
// Only a program that starts all its child processes with this package may call ReapAdopted. Otherwise,
// ReapAdopted would also reap children that other code waits for.
//
// If an adopted child of a turn ends while the turn is being terminated, it is reaped without
// a call to ReapAdopted.
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
