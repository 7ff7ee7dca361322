package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"

	"github.com/bgagent/bgagent"
)

// body is one call to a task's function. Its begin and end times come from the machine's clock.
type body struct {
	title, pool string
	begin, end  int64
}

// The function "unfinished" returns the process's bodies that have begun but not ended, by task
// title.
func unfinished(log []line, of *process) map[string]body {
	_, open := bodies(log)
	return open[of]
}

// bodies returns the bodies that have ended, and those that have not, by process and task title.
func bodies(log []line) (ended []body, open map[*process]map[string]body) {
	open = map[*process]map[string]body{}
	for _, x := range log {
		if x.words[0] != "begin" && x.words[0] != "end" {
			continue
		}
		if open[x.life] == nil {
			open[x.life] = map[string]body{}
		}
		title, pool := x.words[1], x.words[2]
		stamp, _ := strconv.ParseInt(x.words[3], 10, 64) // the worker printed it
		if x.words[0] == "begin" {
			open[x.life][title] = body{title: title, pool: pool, begin: stamp}
			continue
		}
		b := open[x.life][title]
		delete(open[x.life], title)
		b.end = stamp
		ended = append(ended, b)
	}
	return ended, open
}

// The function "most" returns the largest number of the pool's bodies that ran at the same time.
func most(all []body, pool string) (most int) {
	type change struct {
		at int64
		by int
	}
	var changes []change
	for _, b := range all {
		if b.pool == pool {
			changes = append(changes, change{b.begin, 1}, change{b.end, -1})
		}
	}
	slices.SortFunc(changes, func(x, y change) int { return cmp.Or(cmp.Compare(x.at, y.at), cmp.Compare(x.by, y.by)) })
	n := 0
	for _, c := range changes {
		n += c.by
		most = max(most, n)
	}
	return most
}

// The function "judge" compares what the workers printed with the limits and with the records on
// the servers. It does not ask the library whether the limits were kept.
func judge(w io.Writer, log []line, records []record) error {
	var wrong []error
	complain := func(format string, args ...any) { wrong = append(wrong, fmt.Errorf(format, args...)) }

	all, open := bodies(log)
	ended, cut := len(all), 0
	for life, some := range open {
		for title, b := range some {
			if life.killed.IsZero() {
				complain("the body of %s has never ended", title)
			}
			cut++
			b.end = life.killed.UnixNano() // the body ended with its process, a moment before this time
			all = append(all, b)
		}
	}
	fmt.Fprintln(w, "The judge:")
	for _, pool := range slices.Sorted(maps.Keys(limits)) {
		n := most(all, pool)
		fmt.Fprintf(w, "  The pool %q had at most %d bodies at the same time; its limit is %d.\n", pool, n, limits[pool])
		if n > limits[pool] {
			complain("the limit of the pool %q was exceeded", pool)
		}
	}
	fmt.Fprintf(w, "  %d bodies began. %d of them ended, and %d were cut off by a kill and repeated.\n", len(all), ended, cut)

	done := map[string]int{} // number of recorded ends, by task
	completed, lostSlot := 0, 0
	for _, r := range records {
		t := r.task
		switch {
		case t.Status == bgagent.Completed && r.result == answer(t.Description):
			completed++
		case t.Cause == bgagent.CauseSlotLost:
			lostSlot++
		default:
			complain("the task %s is %v (%v), with the result %q", t.ID, t.Status, t.Cause, r.result)
		}
		if t.Attempt != 1 {
			complain("the task %s has ended %d times", t.ID, t.Attempt)
		}
		done[t.ID]++
	}
	accepted := map[string]string{} // parent of each task
	for _, x := range log {
		if x.words[0] == "accepted" {
			accepted[x.words[1]] = x.words[2]
		}
	}
	told, parents := map[string]map[string]bool{}, map[string]bool{} // ids under which each task was reported
	for _, x := range log {
		if x.words[0] != "told" {
			continue
		}
		task, parent, id := x.words[1], x.words[2], x.words[3]
		if told[task] == nil {
			told[task] = map[string]bool{}
		}
		told[task][id] = true
		parents[parent] = true
		if accepted[task] != parent {
			complain("%s was notified of the task %s of %s", parent, task, accepted[task])
		}
	}
	for id := range accepted {
		if done[id] != 1 {
			complain("the record contains the task %s %d times", id, done[id])
		}
		if len(told[id]) != 1 {
			complain("the end of the task %s was reported under %d ids", id, len(told[id]))
		}
	}
	if len(done) != len(accepted) {
		complain("%d tasks were accepted, and %d are in the record", len(accepted), len(done))
	}
	fmt.Fprintf(w, "  %d tasks were accepted. The record has %d ends: %d completed, %d lost their slots.\n", len(accepted), len(records), completed, lostSlot)
	if n := ended - len(records); n > 0 {
		fmt.Fprintf(w, "  %d ended just before a kill, so the record did not contain the end, and were repeated.\n", n)
	}
	fmt.Fprintf(w, "  %d parents were notified of %d ends.\n", len(parents), len(told))
	if len(wrong) > 0 {
		return errors.Join(wrong...)
	}
	fmt.Fprintln(w, "No limit was exceeded, no task was lost, each ended once, and each end was reported under one id.")
	return nil
}
