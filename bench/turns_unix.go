//go:build unix

package bench

import (
	"fmt"
	"syscall"
)

// ProcessorTime returns the processor time, in nanoseconds, of this process and of the child processes that
// it has waited for.
func ProcessorTime() (float64, error) {
	var sum float64
	for _, who := range []int{syscall.RUSAGE_SELF, syscall.RUSAGE_CHILDREN} {
		var u syscall.Rusage
		if err := syscall.Getrusage(who, &u); err != nil {
			return 0, fmt.Errorf("reading the processor time: %w", err)
		}
		sum += float64(u.Utime.Nano() + u.Stime.Nano())
	}
	return sum, nil
}
