//go:build !linux

package children

import "time"

// Adopt does nothing, because only Linux lets a process adopt others.
func Adopt() {}

// Kill does nothing. The clients end their programs after the grace time.
func Kill(time.Duration) {}
