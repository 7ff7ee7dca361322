//go:build unix

package agents

import (
	"os/exec"
	"syscall"
)

// ownGroup has the whole family of the command interrupted when its context
// ends: the go command starts compilers, which would outlive it.
func ownGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGINT) }
}
