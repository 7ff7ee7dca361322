package procs

import (
	"bytes"
	"os"
	"strconv"
	"syscall"
)

// ReapAdopted reaps the adopted children of this process that have ended, and
// returns their number. A process becomes a child of this one when its parent
// ends and this one is process 1 of a container or a subreaper.
//
// It may be called only where this package starts all programs. Otherwise it
// would also reap the programs that others have started.
//
// Adopted children that end while a turn is being ended are reaped without it.
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

// reapAdopted reaps a child that has ended and that nobody else waits for.
func reapAdopted(pid int) bool {
	got, err := syscall.Wait4(pid, nil, syscall.WNOHANG, nil)
	return err == nil && got == pid
}
