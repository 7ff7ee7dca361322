package procs

import (
	"strings"
	"syscall"
	"time"
	"unsafe"
)

// await returns when the program has exited. The program stays in the table of
// processes as a zombie. No other process can then take its number or that of its
// session while the processes that it has left are looked for.
func (p *Program) await() {
	const (
		pPID    = 1         // P_PID of waitid(2)
		exited  = 0x4       // WEXITED
		dontEat = 0x1000000 // WNOWAIT
	)
	var info [128]byte // a siginfo_t, which nothing here reads
	for {
		_, _, errno := syscall.Syscall6(syscall.SYS_WAITID, pPID, uintptr(p.PID()), uintptr(unsafe.Pointer(&info[0])), exited|dontEat, 0, 0)
		switch errno {
		case 0:
			return
		case syscall.EINTR:
		default: // the system has no such call
			p.reap()
			return
		}
	}
}

// release removes the program from the table of processes.
func (p *Program) release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.over {
		_ = p.cmd.Wait() // it has exited, so this returns at once
		p.over = true
	}
	running.remove(p.PID())
}

// endRest ends the processes that the turn has left.
func (p *Program) endRest(grace time.Duration) error {
	p.mu.Lock()
	session := p.PID()
	if p.over {
		session = 0 // another process may have the number
	}
	p.mu.Unlock()
	// The rest of its group is killed in any case, even if no process can be read.
	defer p.signalGroup(syscall.SIGKILL)
	_, err := end(ending{
		first: shared.look,
		again: func() look { return new(table).scan() },
		since: func() uint64 { st, _ := readStat(p.PID()); return st.start },
		grace: grace, send: send,
		is: func(s seen) bool {
			return s.pid != p.PID() && (session != 0 && s.session == session || within(s.turn, p.turn))
		},
	})
	return err
}

// within reports whether a value of TurnVariable is that of the turn or of a turn
// within it.
func within(value, turn string) bool {
	rest, ok := strings.CutPrefix(value, turn)
	return ok && (rest == "" || rest[0] == '/')
}
