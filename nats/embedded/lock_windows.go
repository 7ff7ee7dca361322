package embedded

import (
	"errors"
	"os"

	"golang.org/x/sys/windows"
)

// tryLock tries to take the lock of the file, and reports whether it has succeeded. The lock lasts until the
// file is closed. If the process dies, the system closes the file.
func tryLock(f *os.File) (taken bool, err error) {
	err = windows.LockFileEx(windows.Handle(f.Fd()), windows.LOCKFILE_FAIL_IMMEDIATELY|windows.LOCKFILE_EXCLUSIVE_LOCK, 0, 1, 0, &windows.Overlapped{})
	if errors.Is(err, windows.ERROR_LOCK_VIOLATION) || errors.Is(err, windows.ERROR_IO_PENDING) {
		return false, nil
	}
	return err == nil, err
}
