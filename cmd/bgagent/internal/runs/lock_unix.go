//go:build unix

package runs

import (
	"errors"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// errLocked says that somebody else has locked a file.
var errLocked = errors.New("it is locked")

// lock locks a file until it is closed. Programs that are started do not inherit the
// lock.
func lock(f *os.File) error {
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case errors.Is(err, unix.EWOULDBLOCK):
			return errLocked
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return &fs.PathError{Op: "locking", Path: f.Name(), Err: err}
		}
		return nil
	}
}

// openFile opens a file. It follows no link and waits for no pipe.
func openFile(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
}

// mine reports whether something belongs to this user.
func mine(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(st.Uid) == os.Geteuid()
}

// othersWrite reports whether anybody but the owner may write to it.
func othersWrite(info fs.FileInfo) bool { return info.Mode().Perm()&0o022 != 0 }
