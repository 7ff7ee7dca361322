//go:build linux || darwin || freebsd

package sqlite

import "golang.org/x/sys/unix"

// roomIn returns the space on the folder's file system.
func roomIn(dir string) (r room, known bool) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return r, false
	}
	const readOnly = 1 // value of ST_RDONLY and of MNT_RDONLY
	return room{free: int64(st.Bavail) * int64(st.Bsize), readOnly: st.Flags&readOnly != 0}, true
}
