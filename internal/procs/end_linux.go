package procs

import (
	"errors"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"
)

// ending describes the processes to end and how to find them.
type ending struct {
	is    func(seen) bool // reports whether a process is to be ended
	since func() uint64   // returns a time, as in stat.start, before which no process to end was started
	first func() look     // scans the processes; may wait before the scan and may use results of earlier scans
	again func() look     // scans at once without earlier results; used if processes start faster than first finds them
	grace time.Duration
	send  func(pid int, start uint64, sig os.Signal) error
}

// unclearTime is the longest time for which scans are repeated because a process is in the
// middle of exec. An exec usually takes a few milliseconds, but the exec of a program on a
// dead file system can hang.
const unclearTime = time.Second

// maxBlind is the maximum number of consecutive blind scans; see look.
const maxBlind = 4

// chase is the number of scans that may find new processes before again replaces first.
const chase = 3

// attempt is the last signal sent to a process, and the result of sending it.
type attempt struct {
	sent    syscall.Signal
	err     error
	command string
}

// end sends SIGTERM to the processes and kills them after the grace time. It returns
// when a scan that was not blind finds no process that it may signal, or when killed
// processes do not disappear in time. It also returns after maxBlind blind scans in a
// row that find no such process. The error names the remaining processes.
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
		left := e.left(l, tried)
		if l.blind {
			blind++
		} else {
			blind = 0
		}
		done := !slices.ContainsFunc(left, func(id identity) bool { return !refused(tried[id].err) })
		clear := (!l.blind || blind >= maxBlind) && (!l.unclear(e.since) || time.Since(began) > unclearTime)
		if len(tried) == 0 { // the grace time begins after the first scan, which may take long
			deadline = time.Now().Add(max(e.grace, 0))
			if sig == syscall.SIGKILL {
				deadline = time.Now().Add(killTime)
			}
		}
		late := len(tried) > 0 && time.Now().After(deadline)
		if done && clear || late && sig == syscall.SIGKILL {
			return e.split(tried, left)
		}
		if late {
			sig, deadline, pause = syscall.SIGKILL, time.Now().Add(killTime), time.Millisecond
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
			time.Sleep(pause) // no pause after a kill: new processes may start faster than scans find them
		}
	}
}

// try sends a signal to a process. It reads the command line first, because a process
// loses its command line when it ends.
func (e ending) try(id identity, sig syscall.Signal, command string) attempt {
	if command == "" {
		command = commandOf(id.pid)
	}
	return attempt{sig, e.send(id.pid, id.start, sig), command}
}

// left returns the processes in l that are to be ended. It adds the processes that were
// signalled and have not ended. Such a process may be missing from l, because a process
// loses its environment before it disappears.
func (e ending) left(l look, tried map[identity]attempt) (left []identity) {
	for _, s := range l.list {
		if _, known := tried[s.identity]; !known && s.cached && e.is(s) {
			s, _ = read(s.pid) // the process may have executed another program since the earlier scan
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

// split returns the processes that were ended, and an error for the remaining processes.
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
