//go:build unix

package agents

import (
	"os/exec"
	"syscall"
)

// ownGroup puts the command into its own process group, which is interrupted when the context
// ends. The go command starts compilers, which would otherwise outlive the command.
func ownGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGINT) }
}
