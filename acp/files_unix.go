//go:build unix

package acp

import (
	"io/fs"
	"os"
	"syscall"
)

// nonBlocking keeps open from waiting for the other end of a named pipe.
const nonBlocking = syscall.O_NONBLOCK

// names returns the number of hard links of a file.
func names(info fs.FileInfo) uint64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return uint64(st.Nlink)
	}
	return 1
}

// chownAs gives a file the user and the group of another file.
func chownAs(f *os.File, info fs.FileInfo) error {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return f.Chown(int(st.Uid), int(st.Gid))
	}
	return nil
}
