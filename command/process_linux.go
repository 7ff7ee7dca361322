package command

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
)

// leftovers is what is known of the processes that a program has left running:
// the signal that each was sent last.
type leftovers struct{ sent map[int]syscall.Signal }

// signal sends a signal, once to each, to every process that is left of the
// turn and reports whether there is any: those of the program's group, and
// those that have its mark in their environment, because agents start their
// tools in process groups and sessions of their own.
func (l *leftovers) signal(p *process, s syscall.Signal) (any bool) {
	dirs, err := os.ReadDir("/proc")
	if err != nil {
		return false
	}
	// The program has been waited for, so a process with its number is another
	// one, whose group is not ours.
	_, err = os.Stat("/proc/" + strconv.Itoa(p.cmd.Process.Pid))
	byGroup := err != nil
	for _, d := range dirs {
		pid, err := strconv.Atoi(d.Name())
		if err != nil || pid == os.Getpid() || !p.owns(pid, byGroup) {
			continue
		}
		any = true
		if l.sent[pid] == s {
			continue
		}
		// The handle keeps the number from becoming another process's between
		// the look and the signal.
		h, err := os.FindProcess(pid)
		if err != nil {
			continue
		}
		if p.owns(pid, byGroup) && h.Signal(s) == nil {
			if l.sent == nil {
				l.sent = map[int]syscall.Signal{}
			}
			l.sent[pid] = s
		}
		_ = h.Release()
	}
	return any
}

// owns reports whether the process runs and is one of the turn's.
func (p *process) owns(pid int, byGroup bool) bool {
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	stat, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		return false
	}
	// proc_pid_stat(5): number, name in brackets, state, parent, group. The name
	// may hold anything, so it is skipped from behind.
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 3 || fields[0][0] == 'Z' || fields[0][0] == 'X' {
		return false
	}
	if group, err := strconv.Atoi(string(fields[2])); err == nil && byGroup && group == p.cmd.Process.Pid {
		return true
	}
	env, err := os.ReadFile(filepath.Join(dir, "environ"))
	if err != nil || len(env) == 0 {
		return false
	}
	return slices.ContainsFunc(bytes.Split(env, []byte{0}), func(v []byte) bool {
		rest, ok := bytes.CutPrefix(v, []byte(TurnVariable+"="+p.mark))
		return ok && (len(rest) == 0 || rest[0] == '/') // itself, or a turn within it
	})
}
