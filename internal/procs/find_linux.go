package procs

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"time"
)

// Find returns the processes of this user that belong to the run with the
// instance id, in the order of their numbers. A process is one of them when its
// environment says so, and when it is the same process after that was read as
// before.
//
// This process and those above it are left out, and so is what keep says; spared is
// how many there were of them. Nil keeps nobody.
//
// It looks again when somebody was in the middle of a call of exec, where a
// process shows no environment, and when somebody may have been missed. Where
// other processes cannot be looked at, the error is [errors.ErrUnsupported].
func Find(instance string, keep Keep) (list []Process, spared int, err error) {
	e, kept, err := ofRun(instance, keep)
	if err != nil {
		return nil, 0, err
	}
	began := time.Now()
	for blind, pause := 0, time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		l := e.again()
		left := e.left(l, nil)
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

// EndInstance ends every process that [Find] finds: each is asked with SIGTERM,
// and killed after the grace time, at once when that is 0. It goes on until
// nobody is found, and returns those that it has ended, and how many were spared.
// The error names those that it could not end.
func EndInstance(instance string, keep Keep, grace time.Duration) (ended []Process, spared int, err error) {
	e, kept, err := ofRun(instance, keep)
	if err != nil {
		return nil, 0, err
	}
	e.grace = grace
	ended, err = end(e)
	return ended, len(kept), err
}

// ofRun is the ending of the processes of a run. The set is filled with those that
// are spared.
func ofRun(instance string, keep Keep) (ending, map[int]struct{}, error) {
	if err := CheckInstance(instance); err != nil || instance == "" {
		return ending{}, nil, fmt.Errorf("looking for the processes of a run: %w", errors.Join(err, errNoInstance))
	}
	if _, err := os.Stat("/proc/self/environ"); err != nil {
		return ending{}, nil, fmt.Errorf("looking for the processes of a run: %w: %w", errors.ErrUnsupported, err)
	}
	above, kept := ancestors(), map[int]struct{}{}
	if _, own := behind(os.Getenv(InstanceVariable), instance); own {
		kept[os.Getpid()] = struct{}{} // no look sees it
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

// ancestors are the processes above this one.
func ancestors() map[int]bool {
	all := map[int]bool{}
	for pid := os.Getppid(); pid > 1 && !all[pid]; {
		all[pid] = true
		st, _ := readStat(pid)
		pid = st.parent
	}
	return all
}

// errNoInstance is for those who look for nobody's processes.
var errNoInstance = errors.New("it has no instance id")
