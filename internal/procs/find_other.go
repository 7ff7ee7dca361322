//go:build !linux

package procs

import (
	"errors"
	"fmt"
	"time"
)

// Find fails with [errors.ErrUnsupported], because this package can read the environments of other processes
// only on Linux.
func Find(string, Keep) (list []Process, spared int, err error) {
	return nil, 0, fmt.Errorf("looking for the processes of a run: %w", errors.ErrUnsupported)
}

// EndInstance fails for the same reason as Find.
func EndInstance(instance string, keep Keep, _ time.Duration) (ended []Process, spared int, err error) {
	return Find(instance, keep)
}
