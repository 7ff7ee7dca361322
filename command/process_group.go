//go:build unix && !linux

package command

import (
	"errors"
	"syscall"
)

// leftovers is what is known of the processes that a program has left running.
type leftovers struct{ last syscall.Signal }

// signal sends a signal, once, to what is left of the program's process group
// and reports whether there is anything. Processes that have left the group
// cannot be found here.
func (l *leftovers) signal(p *process, s syscall.Signal) bool {
	if s == l.last {
		s = 0 // only look
	} else {
		l.last = s
	}
	err := syscall.Kill(-p.cmd.Process.Pid, s)
	return err == nil || errors.Is(err, syscall.EPERM)
}

// origin is nothing here: what a program has started cannot be looked for.
type origin struct{}

func originOf(int) origin { return origin{} }
