//go:build !linux

package procs

// ReapAdopted does nothing. It is implemented only for Linux.
func ReapAdopted() int { return 0 }
