//go:build unix

package command

import (
	"os"
	"os/exec"
	"syscall"
	"time"
)

// ownGroup has the command run in a process group of its own, whose number is
// that of the process.
func ownGroup(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

// interrupt sends the signal to the program's process group and reports whether
// it is worth waiting for the program to end. It must not be called after the
// program was waited for: its number may be another's by then.
func (p *process) interrupt(sig os.Signal) bool {
	s, ok := sig.(syscall.Signal)
	if !ok {
		s = syscall.SIGTERM
	}
	return p.signalGroup(s)
}

// kill ends the program's process group.
func (p *process) kill() { p.signalGroup(syscall.SIGKILL) }

func (p *process) signalGroup(s syscall.Signal) bool {
	select {
	case <-p.exited:
		return false
	default:
	}
	return syscall.Kill(-p.cmd.Process.Pid, s) == nil
}

// endLeftovers ends what the program, which has exited, has left running: it is
// asked to end, and killed after the grace time. Two looks must find nothing,
// because one can miss a process that is started while it goes through the
// table.
func (p *process) endLeftovers(grace time.Duration) {
	var left leftovers
	sig, deadline := syscall.SIGTERM, time.Now().Add(grace)
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		if any := left.signal(p, sig); !any && !left.signal(p, sig) {
			return
		}
		if time.Now().After(deadline) {
			if sig == syscall.SIGKILL {
				return
			}
			sig, deadline = syscall.SIGKILL, time.Now().Add(killTime)
		}
		time.Sleep(pause)
	}
}

// killTime is how long killed processes may take to disappear: one that waits
// for a disk or a network file system does not.
const killTime = 2 * time.Second

// signalOf returns the signal that has ended the program, or nil.
func signalOf(state *os.ProcessState) os.Signal {
	if ws, ok := state.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return ws.Signal()
	}
	return nil
}
