//go:build !(linux || darwin || dragonfly || freebsd || netbsd || openbsd)

package tty

import "os"

// Terminal is a terminal that was silenced; here nothing is.
type Terminal struct{}

// Silence does nothing: this system has no such terminals.
func Silence(*os.File) *Terminal { return nil }

// Restore does nothing.
func (*Terminal) Restore() {}

// Guard does nothing.
func Guard() {}
