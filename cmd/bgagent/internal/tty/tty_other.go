//go:build !(linux || darwin || dragonfly || freebsd || netbsd || openbsd)

package tty

import "os"

// Terminal is a silenced terminal. On this system, terminals are never silenced.
type Terminal struct{}

// Silence does nothing and returns nil.
func Silence(*os.File) *Terminal { return nil }

// Restore does nothing.
func (*Terminal) Restore() {}

// Guard does nothing.
func Guard() {}
