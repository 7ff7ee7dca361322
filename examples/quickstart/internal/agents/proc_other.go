//go:build !unix

package agents

import "os/exec"

// ownGroup does nothing, because this package uses process groups only on Unix systems. When the context
// ends, the command is killed, but not the processes that it has started.
func ownGroup(*exec.Cmd) {}
