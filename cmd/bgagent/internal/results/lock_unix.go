//go:build unix

package results

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// lock locks the folder and reports whether it belongs to this run alone. The lock
// ends with the program, and what the program starts does not inherit it. On a file
// system without locks, lock reports true.
func lock(dir *os.File) bool {
	return !errors.Is(unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB), unix.EWOULDBLOCK)
}
