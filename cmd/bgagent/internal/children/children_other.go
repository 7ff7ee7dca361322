//go:build !linux

package children

import "time"

// Adopt does nothing: only Linux can do this.
func Adopt() {}

// Kill does nothing: the clients end their programs after their grace time.
func Kill(time.Duration) {}
