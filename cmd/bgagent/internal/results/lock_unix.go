//go:build unix

package results

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// lock reports whether the folder is this run's alone. The lock ends with the
// program, and what is started does not inherit it. A file system without locks is
// no hindrance.
func lock(dir *os.File) bool {
	return !errors.Is(unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB), unix.EWOULDBLOCK)
}
