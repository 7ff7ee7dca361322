package procs

import (
	"errors"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"
)

// ending describes which processes must be terminated and how to find them.
type ending struct {
	is    func(seen) bool // reports whether a process must be terminated
	since func() uint64   // returns a time in the unit of stat.start; all processes that must be terminated were started at or after this time
	first func() look     // scans the processes; may wait before the scan and may use results of earlier scans
	again func() look     // scans immediately, without earlier results; used if the function "first" is too slow to find all new processes
	grace time.Duration
	send  func(pid int, start uint64, sig os.Signal) error
}

// unclearTime limits how long scans are repeated while a process is in the middle of exec. An exec usually
// takes a few milliseconds, but it can hang if the program is on a file system that does not respond.
const unclearTime = time.Second

// maxBlind is the maximum number of consecutive blind scans (see look.blind). If each process starts a
// successor and then ends, about every second scan misses the current one.
const maxBlind = 12

// chase is the number of scans that may find new processes. After these scans, the function "end" calls
// ending.again instead of ending.first.
const chase = 3

// maxKilling is the maximum time from the first SIGKILL until the function "end" returns. It is
// much longer than killTime, because killed processes can start others until they are found, and
// because scans take a long time if the machine is busy.
const maxKilling = 5 * killTime

// attempt is the last signal sent to a process, and the result of sending it.
type attempt struct {
	sent    syscall.Signal
	at      time.Time
	err     error
	command string
}

// The function "end" sends SIGTERM to the processes, and kills them after the grace period. It
// returns in any of these cases:
//
//   - A scan finds no process that can be signalled. The scan must not be blind, unless at least
//     maxBlind scans in a row were blind. No process may be in the middle of exec, unless
//     unclearTime has passed.
//   - A process has not disappeared although it was sent SIGKILL killTime ago.
//   - The first SIGKILL was sent maxKilling ago.
//
// The error names the remaining processes.
func end(e ending) ([]Process, error) {
	tried := map[identity]attempt{}
	began := time.Now()
	sig, deadline, looking := syscall.SIGTERM, began, e.first
	blind, chased := 0, 0
	if e.grace <= 0 {
		sig = syscall.SIGKILL
	}
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		l := looking()
		left := e.left(&l, tried)
		if l.blind {
			blind++
		} else {
			blind = 0
		}
		done := !slices.ContainsFunc(left, func(id identity) bool { return !refused(tried[id].err) })
		clear := (!l.blind || blind >= maxBlind) && (!l.unclear(e.since) || time.Since(began) > unclearTime)
		if len(tried) == 0 { // the grace period begins after the first scan, which can take a long time
			deadline = time.Now().Add(max(e.grace, 0))
			if sig == syscall.SIGKILL {
				deadline = time.Now().Add(maxKilling)
			}
		}
		late := len(tried) > 0 && time.Now().After(deadline)
		if done && clear || sig == syscall.SIGKILL && (late || stuck(left, tried)) {
			left = e.left(&l, tried) // also reaps the signalled processes that this process has adopted
			return e.split(tried, slices.DeleteFunc(left, gone))
		}
		if late {
			sig, deadline, pause = syscall.SIGKILL, time.Now().Add(maxKilling), time.Millisecond
		}
		fresh := false
		for _, id := range left {
			if last := tried[id]; last.sent != sig {
				tried[id] = e.try(id, sig, last.command)
				fresh = true
			}
		}
		if fresh {
			chased++
		}
		if chased > chase && sig == syscall.SIGKILL {
			looking = e.again
		}
		if !fresh || sig != syscall.SIGKILL {
			time.Sleep(pause) // there is no pause after a new kill, because new processes may start faster than scans find them
		}
	}
}

// The method "try" sends a signal to a process. It reads the command line first, because a process
// loses its command line when it ends.
func (e ending) try(id identity, sig syscall.Signal, command string) attempt {
	if command == "" {
		command = commandOf(id.pid)
	}
	return attempt{sig, time.Now(), e.send(id.pid, id.start, sig), command}
}

// stuck reports whether a process that was killed long ago still exists. Scans can be slow, so the
// function "stuck" checks again whether the process exists.
func stuck(left []identity, tried map[identity]attempt) bool {
	return slices.ContainsFunc(left, func(id identity) bool {
		a := tried[id]
		return a.sent == syscall.SIGKILL && a.err == nil && time.Since(a.at) > killTime && !gone(id)
	})
}

// The function "gone" reports whether the process has ended.
func gone(id identity) bool {
	st, ok := statOf(id.pid)
	return !ok || st.start != id.start
}

// The method "left" returns the processes in l that must be terminated. It adds the processes that were
// signalled but have not ended. Such a process can be missing from l, because an ending process loses its
// environment before it disappears.
//
// The state of a process in l can be from an earlier scan, so the method reads it again. If the
// process has ended since then, it may have started another process after the scan, and the method
// sets l.blind. It also sets l.blind if the scan may have missed a child of one of the processes.
func (e ending) left(l *look, tried map[identity]attempt) (left []identity) {
	for _, s := range l.list {
		if s.wrapped && e.is(s) {
			l.blind = true
		}
		if _, known := tried[s.identity]; !known && s.cached && e.is(s) {
			before, how := s.identity, readWhole
			s, how = read(s.pid) // the process may have executed another program since the earlier scan
			switch {
			case s.identity != before || how == readLeaving || how == readOver:
				l.blind = true
			case how == readInExec:
				l.inExec = append(slices.Clip(l.inExec), s.start) // Clip makes append copy the slice, because other turns may share it
			}
		}
		if e.is(s) {
			left = append(left, s.identity)
		}
	}
	for id := range tried {
		switch st, there := readStat(id.pid); {
		case !there || st.start != id.start:
		case st.over() && st.parent == os.Getpid():
			reapAdopted(id.pid)
		case !st.over() && !slices.Contains(left, id):
			left = append(left, id)
		}
	}
	return left
}

// split returns the processes that were terminated, and an error for the remaining processes.
func (e ending) split(tried map[identity]attempt, left []identity) (ended []Process, err error) {
	var names []string
	for _, id := range left {
		if _, known := tried[id]; !known { // the process was found after the deadline
			tried[id] = e.try(id, syscall.SIGKILL, "")
		}
	}
	for id, a := range tried {
		p := Process{PID: id.pid, Start: id.start, Command: a.command}
		switch {
		case !slices.Contains(left, id):
			ended = append(ended, p)
		case refused(a.err):
			names = append(names, p.String()+", which belongs to another user")
		default:
			names = append(names, p.String())
		}
	}
	slices.SortFunc(ended, func(a, b Process) int { return a.PID - b.PID })
	if len(names) == 0 {
		return ended, nil
	}
	slices.Sort(names)
	return ended, errors.New("these processes could not be ended: " + strings.Join(names, "; "))
}
