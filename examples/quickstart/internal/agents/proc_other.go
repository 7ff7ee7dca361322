//go:build !unix

package agents

import "os/exec"

// ownGroup does nothing, because this system has no process groups. When the context ends, only
// the command itself is killed.
func ownGroup(*exec.Cmd) {}
