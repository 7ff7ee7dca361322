//go:build !unix

package bench

import (
	"errors"
	"fmt"
)

func ProcessorTime() (float64, error) {
	return 0, fmt.Errorf("reading the processor time: %w", errors.ErrUnsupported)
}
