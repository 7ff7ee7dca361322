package acp

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
	"unsafe"
)

// reap waits for the program and ends what is left of its process group.
func (c *child) reap() {
	if awaitExit(c.cmd.Process.Pid) {
		c.signal(killGroup)
		c.over()
		_ = c.cmd.Wait()
		return
	}
	_ = c.cmd.Wait()
	c.signal(killGroup)
	c.over()
}

// awaitExit returns true when the process has ended and can be waited for. It is
// a zombie then, so that its id, and that of its group, cannot be anybody else's.
// It returns false where the system cannot tell.
func awaitExit(pid int) bool {
	const (
		pPID    = 1         // P_PID of waitid(2)
		exited  = 0x4       // WEXITED
		dontEat = 0x1000000 // WNOWAIT
	)
	var info [128]byte // a siginfo_t, which nothing here reads
	for {
		_, _, errno := syscall.Syscall6(syscall.SYS_WAITID, pPID, uintptr(pid), uintptr(unsafe.Pointer(&info[0])), exited|dontEat, 0, 0)
		if errno != syscall.EINTR {
			return errno == 0
		}
	}
}

// killMarked ends every process that was started with the mark, or with one that
// begins with it, and those that they have started meanwhile.
func killMarked(mark string) {
	deadline := time.Now().Add(5 * time.Second)
	for pause := time.Millisecond; time.Now().Before(deadline); pause = min(2*pause, 50*time.Millisecond) {
		found := false
		for _, pid := range processes() {
			found = killIfMarked(pid, mark) || found
		}
		if !found {
			return
		}
		time.Sleep(pause)
	}
}

// processes returns the ids of all processes but this one.
func processes() []int {
	dirs, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var pids []int
	for _, d := range dirs {
		if pid, err := strconv.Atoi(d.Name()); err == nil && pid != os.Getpid() {
			pids = append(pids, pid)
		}
	}
	return pids
}

// killIfMarked reports whether the process has the mark; it is being ended then.
func killIfMarked(pid int, mark string) bool {
	p, err := os.FindProcess(pid) // holds on to the process before looking at it: the id may be used again
	if err != nil {
		return false
	}
	defer func() { _ = p.Release() }()
	env, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "environ"))
	if err != nil || !hasMark(env, mark) {
		return false
	}
	return p.Kill() == nil
}

// hasMark looks for the mark in an environment as /proc shows it.
func hasMark(env []byte, mark string) bool {
	want := []byte(childVar + "=" + mark)
	for entry := range bytes.SplitSeq(env, []byte{0}) {
		if rest, ok := bytes.CutPrefix(entry, want); ok && (len(rest) == 0 || rest[0] == '/') {
			return true
		}
	}
	return false
}
