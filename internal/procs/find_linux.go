package procs

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Find returns the processes of this user that belong to the run with the
// instance id, in the order of their numbers. A process is one of them when its
// environment says so, and when it is the same process after that was read as
// before. This process itself is left out.
//
// It looks until two looks have found the same and nobody was in the middle of
// a call of exec, when a process shows no environment; after a second it returns
// what it has found. Where other processes cannot be looked at, the error is
// [errors.ErrUnsupported].
func Find(instance string) ([]Process, error) {
	if instance == "" {
		return nil, errNoInstance
	}
	var before []Process
	deadline := time.Now().Add(time.Second)
	for first, pause := true, time.Millisecond; ; first, pause = false, min(2*pause, 20*time.Millisecond) {
		now, unclear, err := find(instance)
		if err != nil {
			return nil, err
		}
		if !first && !unclear && slices.Equal(before, now) || time.Now().After(deadline) {
			return now, nil
		}
		before = now
		time.Sleep(pause)
	}
}

// find looks once. It is unclear when the environment of somebody could not be
// seen for the moment.
func find(instance string) (list []Process, unclear bool, err error) {
	dirs, err := os.ReadDir("/proc")
	if err != nil {
		return nil, false, fmt.Errorf("looking for processes: %w", err)
	}
	for _, d := range dirs {
		pid, err := strconv.Atoi(d.Name())
		if err != nil || pid == os.Getpid() || !ours(pid) {
			continue
		}
		before, ok := statOf(pid)
		if !ok {
			continue
		}
		env, _ := environOf(pid, before)
		after, ok := statOf(pid)
		if !ok || after.start != before.start {
			continue
		}
		unclear = unclear || len(env) == 0 && (before.inExec() || after.inExec())
		if ofInstance(valueOf(env, InstanceVariable), instance) {
			list = append(list, Process{PID: pid, Start: after.start, Command: commandOf(pid)})
		}
	}
	slices.SortFunc(list, byNumber)
	return list, unclear, nil
}

// EndInstance ends every process that [Find] finds: each is asked with SIGTERM,
// and killed after the grace time. It goes on until nobody is found, and returns
// those that it has ended. The error names those that it could not end.
func EndInstance(instance string, grace time.Duration) ([]Process, error) {
	tried := map[identity]attempt{}
	sig, deadline := syscall.SIGTERM, time.Now().Add(grace)
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		left, err := Find(instance)
		if err != nil {
			return nil, err
		}
		late := time.Now().After(deadline)
		if late && sig == syscall.SIGKILL || !slices.ContainsFunc(left, func(p Process) bool { return !refused(tried[p.identity()].err) }) {
			return ended(tried, left)
		}
		if late {
			sig, deadline = syscall.SIGKILL, time.Now().Add(killTime)
		}
		for _, p := range left {
			if tried[p.identity()].sent != sig {
				tried[p.identity()] = attempt{p, sig, send(p.PID, p.Start, sig)}
			}
		}
		time.Sleep(pause)
	}
}

// identity belongs to one process and no other.
type identity struct {
	pid   int
	start uint64
}

func (p Process) identity() identity { return identity{p.PID, p.Start} }

// attempt is the last signal that a process was sent, and what came of it.
type attempt struct {
	process Process
	sent    syscall.Signal
	err     error
}

// ended tells those that are gone from those that are left.
func ended(tried map[identity]attempt, left []Process) ([]Process, error) {
	var names []string
	for _, p := range left {
		delete(tried, p.identity())
		names = append(names, p.String())
	}
	var list []Process
	for _, a := range tried {
		list = append(list, a.process)
	}
	slices.SortFunc(list, byNumber)
	if len(names) > 0 {
		return list, errors.New("these processes could not be ended: " + strings.Join(names, ", "))
	}
	return list, nil
}

func byNumber(a, b Process) int { return a.PID - b.PID }
