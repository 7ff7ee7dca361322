//go:build !linux

package children

import "time"

// Adopt does nothing, because only Linux lets a process adopt others.
func Adopt() {}

// Kill does nothing. The clients terminate their programs after the grace period.
func Kill(time.Duration) {}
