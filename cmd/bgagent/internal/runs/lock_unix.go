//go:build unix

package runs

import (
	"errors"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// errLocked is returned if another program has locked a file.
var errLocked = errors.New("it is locked")

// The function "lock" locks a file until it is closed. Programs that this program starts do not inherit the
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

// openFile opens a file. It fails for a link and does not block at a named pipe.
func openFile(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
}

// The function "mine" reports whether a file or folder belongs to this user.
func mine(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(st.Uid) == os.Geteuid()
}

// othersWrite reports whether anyone except the owner may write to a file or folder.
func othersWrite(info fs.FileInfo) bool { return info.Mode().Perm()&0o022 != 0 }
