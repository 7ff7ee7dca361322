//go:build unix

package results

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// nonBlocking is a flag for opening a pipe without waiting for a program that writes into it.
const nonBlocking = unix.O_NONBLOCK

// The function "lock" locks the folder and reports whether no other run has locked it. The lock is released
// when this program exits. Programs that this program starts do not inherit the lock. On a file system
// without locks, the result is true.
func lock(dir *os.File) bool {
	return !errors.Is(unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB), unix.EWOULDBLOCK)
}
