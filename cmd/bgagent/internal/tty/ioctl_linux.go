package tty

import "golang.org/x/sys/unix"

const (
	ioctlGet      = unix.TCGETS
	ioctlSet      = unix.TCSETS
	ioctlSetFlush = unix.TCSETSF
)

// flush throws away what was typed and has not been read.
func flush(fd int) { _ = unix.IoctlSetInt(fd, unix.TCFLSH, unix.TCIFLUSH) }
