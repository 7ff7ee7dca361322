//go:build !(linux || darwin || freebsd)

package sqlite

// roomIn returns false, because this system has no call for it.
func roomIn(string) (r room, known bool) { return r, false }
