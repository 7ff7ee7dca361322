//go:build !(linux || darwin || dragonfly || freebsd || netbsd || openbsd)

package tty

import "os"

// Terminal is a silenced terminal. This system has none.
type Terminal struct{}

// Silence does nothing.
func Silence(*os.File) *Terminal { return nil }

// Restore does nothing.
func (*Terminal) Restore() {}

// Guard does nothing.
func Guard() {}
