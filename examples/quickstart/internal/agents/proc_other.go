//go:build !unix

package agents

import "os/exec"

// ownGroup does nothing, because this package uses process groups only on Unix systems. When the context
// ends, only the command itself is killed.
func ownGroup(*exec.Cmd) {}
