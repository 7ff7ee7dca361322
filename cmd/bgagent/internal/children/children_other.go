//go:build !linux

package children

import "time"

// Adopt does nothing: other systems cannot.
func Adopt() {}

// Kill does nothing: the clients end their programs, after their time of grace.
func Kill(time.Duration) {}
