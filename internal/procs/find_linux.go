package procs

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"time"
)

// Find returns the processes of this user that belong to the run with the given instance id,
// ordered by PID. A process belongs to the run if the variable [InstanceVariable] in its
// environment contains the id. The process must have the same identity before and after its
// environment is read.
//
// Find leaves out this process, its ancestors, and the processes for which keep returns true. The
// second result is the number of processes left out. keep may be nil.
//
// Find scans the processes again if a scan may have missed a process, or if a process was in
// the middle of exec. The environment of a process cannot be read during exec. If this system
// has no access to the environments of processes, the error is [errors.ErrUnsupported].
func Find(instance string, keep Keep) (list []Process, spared int, err error) {
	e, kept, err := ofRun(instance, keep)
	if err != nil {
		return nil, 0, err
	}
	began := time.Now()
	for blind, pause := 0, time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		l := e.again()
		left := e.left(&l, nil)
		if l.blind {
			blind++
		}
		if (!l.blind || blind >= maxBlind) && (!l.unclear(e.since) || time.Since(began) > unclearTime) {
			list = make([]Process, len(left))
			for i, id := range left {
				list[i] = Process{PID: id.pid, Start: id.start, Command: commandOf(id.pid)}
			}
			slices.SortFunc(list, func(a, b Process) int { return a.PID - b.PID })
			return list, len(kept), nil
		}
		time.Sleep(pause)
	}
}

// EndInstance terminates every process that [Find] finds. It sends SIGTERM, and SIGKILL after the grace
// period. If the grace period is 0, it sends SIGKILL immediately. It continues until a scan finds no further
// process. It returns the processes that it terminated and the number of processes that it spared. The error
// names the processes that could not be terminated.
func EndInstance(instance string, keep Keep, grace time.Duration) (ended []Process, spared int, err error) {
	e, kept, err := ofRun(instance, keep)
	if err != nil {
		return nil, 0, err
	}
	e.grace = grace
	ended, err = end(e)
	return ended, len(kept), err
}

// ofRun returns the data that the function "end" needs to terminate the processes of a run. The returned set
// receives each process that is spared.
func ofRun(instance string, keep Keep) (ending, map[int]struct{}, error) {
	if err := CheckInstance(instance); err != nil || instance == "" {
		return ending{}, nil, fmt.Errorf("looking for the processes of a run: %w", errors.Join(err, errNoInstance))
	}
	if _, err := os.Stat("/proc/self/environ"); err != nil {
		return ending{}, nil, fmt.Errorf("looking for the processes of a run: %w: %w", errors.ErrUnsupported, err)
	}
	above, kept := ancestors(), map[int]struct{}{}
	if _, own := behind(os.Getenv(InstanceVariable), instance); own {
		kept[os.Getpid()] = struct{}{} // scans leave out this process
	}
	anew := func() look { return new(table).scan() }
	return ending{
		is: func(s seen) bool {
			inner, its := behind(s.instance, instance)
			if !its || !ours(s.pid) {
				return false
			}
			if above[s.pid] || keep != nil && keep(s.pid, inner) {
				kept[s.pid] = struct{}{}
				return false
			}
			return true
		},
		since: func() uint64 { return 0 },
		first: anew, again: anew, send: send,
	}, kept, nil
}

// ancestors returns the ancestors of this process, except process 1.
func ancestors() map[int]bool {
	all := map[int]bool{}
	for pid := os.Getppid(); pid > 1 && !all[pid]; {
		all[pid] = true
		st, _ := readStat(pid)
		pid = st.parent
	}
	return all
}

// errNoInstance is the error for an empty instance id.
var errNoInstance = errors.New("the run has no instance id")
