//go:build unix && !linux

package procs

import (
	"errors"
	"fmt"
	"syscall"
	"time"
)

func (p *Program) release() { running.remove(p.PID()) }

// await waits for the program to exit and reaps it. The system does not reuse the program's
// PID while its process group has members.
func (p *Program) await() { p.reap() }

// endRest terminates the remaining processes in the program's process group. On this system, this package
// does not search for processes that have left the group.
func (p *Program) endRest(grace time.Duration) error {
	sig, deadline := syscall.SIGTERM, time.Now().Add(grace)
	for pause, last := time.Millisecond, syscall.Signal(0); ; pause = min(2*pause, 50*time.Millisecond) {
		if late := time.Now().After(deadline); late && sig == syscall.SIGKILL {
			return fmt.Errorf("the processes that program %d left running in its process group could not be ended", p.PID())
		} else if late || grace <= 0 && sig != syscall.SIGKILL {
			sig, deadline = syscall.SIGKILL, time.Now().Add(killTime)
		}
		send := sig
		if send == last {
			send = 0 // only check whether the group exists
		}
		last = sig
		if err := syscall.Kill(-p.PID(), send); err != nil && !errors.Is(err, syscall.EPERM) {
			return nil
		}
		time.Sleep(pause)
	}
}
