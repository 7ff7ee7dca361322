//go:build unix

package agents

import (
	"os/exec"
	"syscall"
)

// ownGroup makes the end of the context interrupt the command and all of its children. The go
// command starts compilers, and they would otherwise outlive the command.
func ownGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGINT) }
}
