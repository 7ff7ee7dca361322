//go:build !unix

package agents

import "os/exec"

// ownGroup does nothing: there are no process groups to interrupt, so only the
// command itself is killed.
func ownGroup(*exec.Cmd) {}
