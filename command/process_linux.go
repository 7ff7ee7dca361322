package command

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
)

// leftovers is what is known of the processes that a program has left running,
// by their numbers.
type leftovers struct{ found map[int]leftover }

type leftover struct {
	begun uint64 // when it was started; with the number it is unique
	sent  syscall.Signal
}

// signal sends a signal, once to each, to every process that is left of the
// turn and reports whether there is any: those of the program's group, and
// those that have its mark in their environment, because agents start their
// tools in process groups and sessions of their own.
func (l *leftovers) signal(p *process, s syscall.Signal) (any bool) {
	dirs, err := os.ReadDir("/proc")
	if err != nil {
		return false
	}
	if l.found == nil {
		l.found = map[int]leftover{}
	}
	// The program has been waited for, so a process with its number is another
	// one, whose group is not ours.
	_, reused := statOf(p.cmd.Process.Pid)
	for _, d := range dirs {
		pid, err := strconv.Atoi(d.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		st, ok := statOf(pid)
		if !ok {
			continue
		}
		known, seen := l.found[pid]
		if seen = seen && known.begun == st.begun; seen && known.sent == s {
			any = true // on its way out it has lost its environment before it is gone
			continue
		}
		if !seen && !p.owns(pid, st, !reused) {
			continue
		}
		any = true
		l.found[pid] = leftover{st.begun, s}
		// The handle keeps the number from becoming another process's between
		// the look and the signal.
		if h, err := os.FindProcess(pid); err == nil {
			if now, ok := statOf(pid); ok && now.begun == st.begun {
				_ = h.Signal(s)
			}
			_ = h.Release()
		}
	}
	return any
}

// owns reports whether the process is one of the turn's.
func (p *process) owns(pid int, st procStat, byGroup bool) bool {
	if byGroup && st.group == p.cmd.Process.Pid {
		return true
	}
	if st.begun < p.origin.begun {
		return false // it cannot come from the program
	}
	env, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "environ"))
	if err != nil {
		return false
	}
	return slices.ContainsFunc(bytes.Split(env, []byte{0}), func(v []byte) bool {
		rest, ok := bytes.CutPrefix(v, []byte(TurnVariable+"="+p.mark))
		return ok && (len(rest) == 0 || rest[0] == '/') // itself, or a turn within it
	})
}

// origin tells when a program was started; zero when that is not known.
type origin struct{ begun uint64 }

func originOf(pid int) origin {
	st, _ := statOf(pid)
	return origin{st.begun}
}

// procStat is what matters of proc_pid_stat(5).
type procStat struct {
	group int
	begun uint64 // starttime, in ticks since boot
}

// statOf looks at a process that has not ended.
func statOf(pid int) (st procStat, ok bool) {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return st, false
	}
	// The number, the name in brackets, the state, and so on. The name may hold
	// anything, so it is skipped from behind.
	fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
	if len(fields) < 20 || fields[0][0] == 'Z' || fields[0][0] == 'X' {
		return st, false
	}
	var bad error
	st.group, err = strconv.Atoi(string(fields[2]))
	st.begun, bad = strconv.ParseUint(string(fields[19]), 10, 64)
	return st, err == nil && bad == nil
}
