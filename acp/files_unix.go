//go:build unix

package acp

import (
	"io/fs"
	"os"
	"syscall"
)

// nonBlocking is the flag for opening a named pipe without waiting for its other end.
const nonBlocking = syscall.O_NONBLOCK

// The function "names" returns the number of hard links to a file.
func names(info fs.FileInfo) uint64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return uint64(st.Nlink)
	}
	return 1
}

// chownAs sets the user and the group of f to those of the file with the given info.
func chownAs(f *os.File, info fs.FileInfo) error {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return f.Chown(int(st.Uid), int(st.Gid))
	}
	return nil
}
