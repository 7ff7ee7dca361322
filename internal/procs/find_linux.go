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
// before. This process itself is left out.
//
// It looks again when somebody was in the middle of a call of exec, where a
// process shows no environment, and when somebody may have been missed. Where
// other processes cannot be looked at, the error is [errors.ErrUnsupported].
func Find(instance string) ([]Process, error) {
	e, err := ofRun(instance)
	if err != nil {
		return nil, err
	}
	began := time.Now()
	for blind, pause := 0, time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		l := e.again()
		left := e.left(l, nil)
		if l.blind {
			blind++
		}
		if (!l.blind || blind >= maxBlind) && (!l.unclear(e.since) || time.Since(began) > unclearTime) {
			list := make([]Process, len(left))
			for i, id := range left {
				list[i] = Process{PID: id.pid, Start: id.start, Command: commandOf(id.pid)}
			}
			slices.SortFunc(list, func(a, b Process) int { return a.PID - b.PID })
			return list, nil
		}
		time.Sleep(pause)
	}
}

// EndInstance ends every process that [Find] finds: each is asked with SIGTERM,
// and killed after the grace time, at once when that is 0. It goes on until
// nobody is found, and returns those that it has ended. The error names those
// that it could not end.
func EndInstance(instance string, grace time.Duration) ([]Process, error) {
	e, err := ofRun(instance)
	if err != nil {
		return nil, err
	}
	e.grace = grace
	return end(e)
}

// ofRun is the ending of the processes of a run.
func ofRun(instance string) (ending, error) {
	if err := CheckInstance(instance); err != nil || instance == "" {
		return ending{}, fmt.Errorf("looking for the processes of a run: %w", errors.Join(err, errNoInstance))
	}
	if _, err := os.Stat("/proc/self/environ"); err != nil {
		return ending{}, fmt.Errorf("looking for the processes of a run: %w: %w", errors.ErrUnsupported, err)
	}
	anew := func() look { return new(table).scan() }
	return ending{
		is:    func(s seen) bool { return ofInstance(s.instance, instance) && ours(s.pid) },
		since: func() uint64 { return 0 },
		first: anew, again: anew,
	}, nil
}

// errNoInstance is for those who look for nobody's processes.
var errNoInstance = errors.New("it has no instance id")
