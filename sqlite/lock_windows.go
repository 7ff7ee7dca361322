package sqlite

import (
	"errors"
	"os"

	"golang.org/x/sys/windows"
)

const noFollow = 0

// tryLock tries to take the lock on the file, either exclusively or shared, and reports whether it has
// succeeded. The lock lasts until the file is closed. If the process dies, the system closes the file. The
// locked byte is far beyond the contents of the file, so that other processes can read the contents.
func tryLock(f *os.File, alone bool) (taken bool, err error) {
	flags := uint32(windows.LOCKFILE_FAIL_IMMEDIATELY)
	if alone {
		flags |= windows.LOCKFILE_EXCLUSIVE_LOCK
	}
	err = windows.LockFileEx(windows.Handle(f.Fd()), flags, 0, 1, 0, &windows.Overlapped{OffsetHigh: 1 << 20})
	if errors.Is(err, windows.ERROR_LOCK_VIOLATION) || errors.Is(err, windows.ERROR_IO_PENDING) {
		return false, nil
	}
	return err == nil, err
}

func fileID(f *os.File) int64 {
	var info windows.ByHandleFileInformation
	if windows.GetFileInformationByHandle(windows.Handle(f.Fd()), &info) != nil {
		return 0
	}
	return int64(info.FileIndexHigh)<<32 | int64(info.FileIndexLow)
}
