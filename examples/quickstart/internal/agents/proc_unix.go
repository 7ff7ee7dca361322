//go:build unix

package agents

import (
	"os/exec"
	"syscall"
)

// ownGroup makes the end of the context interrupt the command and all of its
// children. The go command starts compilers, which would outlive it.
func ownGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGINT) }
}
