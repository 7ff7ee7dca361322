//go:build !linux

package procs

import (
	"errors"
	"fmt"
	"time"
)

// Find fails with [errors.ErrUnsupported]: the environment of other processes
// cannot be read here.
func Find(string) ([]Process, error) {
	return nil, fmt.Errorf("looking for the processes of a run: %w", errors.ErrUnsupported)
}

// EndInstance fails as Find does.
func EndInstance(instance string, _ time.Duration) ([]Process, error) { return Find(instance) }
