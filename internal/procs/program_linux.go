package procs

import (
	"strings"
	"syscall"
	"time"
	"unsafe"
)

// await returns when the program has exited. The program remains in the process table as a
// zombie until it is released, so no other process can get its PID or its session ID while
// endRest searches for the remaining processes.
func (p *Program) await() {
	const (
		pPID    = 1         // P_PID of waitid(2)
		exited  = 0x4       // WEXITED
		dontEat = 0x1000000 // WNOWAIT
	)
	var info [128]byte // a siginfo_t, which is not used
	for {
		_, _, errno := syscall.Syscall6(syscall.SYS_WAITID, pPID, uintptr(p.PID()), uintptr(unsafe.Pointer(&info[0])), exited|dontEat, 0, 0)
		switch errno {
		case 0:
			return
		case syscall.EINTR:
		default: // the system does not support waitid with these flags
			p.reap()
			return
		}
	}
}

// release removes the program from the process table.
func (p *Program) release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.over {
		_ = p.cmd.Wait() // the program has exited, so Wait returns immediately
		p.over = true
	}
	running.remove(p.PID())
}

// endRest terminates the remaining processes of the turn.
func (p *Program) endRest(grace time.Duration) error {
	p.mu.Lock()
	session := p.PID()
	if p.over {
		session = 0 // the program was reaped, so another session may have this ID
	}
	p.mu.Unlock()
	// The program's group is killed even if no process could be read.
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

// The function "within" reports whether a value of TurnVariable is the mark of the turn, or the
// mark of a turn within that turn.
func within(value, turn string) bool {
	rest, ok := strings.CutPrefix(value, turn)
	return ok && (rest == "" || rest[0] == '/')
}
