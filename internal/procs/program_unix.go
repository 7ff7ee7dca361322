//go:build unix

package procs

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
)

// ownSession makes the command run in its own session and process group. The IDs of the session and the group
// equal the command's PID.
func ownSession(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} }

// The method "ask" sends the signal to the program's process group. It reports whether the caller
// should wait for the program to end.
func (p *Program) ask(sig os.Signal) bool {
	s, ok := sig.(syscall.Signal)
	if !ok {
		s = syscall.SIGTERM
	}
	if !p.signalGroup(s) {
		return false
	}
	p.signalGroup(syscall.SIGCONT) // a stopped process handles no signal
	return true
}

func (p *Program) kill() { p.signalGroup(syscall.SIGKILL) }

// signalGroup signals the program's process group, unless the program has been reaped.
// It reports whether the group exists.
func (p *Program) signalGroup(s syscall.Signal) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over {
		return false
	}
	err := syscall.Kill(-p.cmd.Process.Pid, s)
	return err == nil || errors.Is(err, syscall.EPERM)
}

// SignalOf returns the signal that terminated a program, or nil.
func SignalOf(state *os.ProcessState) os.Signal {
	if ws, ok := state.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return ws.Signal()
	}
	return nil
}
