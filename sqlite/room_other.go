//go:build !(linux || darwin || freebsd)

package sqlite

// roomIn returns false, because this package reads the free space only on Linux, macOS and FreeBSD.
func roomIn(string) (r room, known bool) { return r, false }
