package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/answers"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/children"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/display"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/fleet"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/notify"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/results"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/tasklist"
)

const (
	// killTime is how long killed processes may take to disappear after the
	// second signal, and leaveTime how long all the rest may take then.
	killTime  = 2 * time.Second
	leaveTime = 4 * time.Second

	// lookTime is how often it is looked up what no event tells, and maxInLine for
	// how many of the waiting tasks: the rest is far off.
	lookTime  = 500 * time.Millisecond
	maxInLine = 100
)

// numberKey is the entry of a task's metadata that holds its number in the list.
const numberKey = "number"

// runner does one list of tasks. All of it but leave runs on one goroutine.
type runner struct {
	stop     stops
	tasks    []tasklist.Task
	index    results.Index
	began    time.Time     // of this run, not of the one that it goes on with
	failFast bool          // the first bad end stops the rest
	maxTime  time.Duration // that the run may take; 0 for any
	stale    time.Duration // after which silence ends a task; 0 for never
	notify   *notify.Notifier
	over     atomic.Bool     // the display has ended, or is about to
	halted   context.Context // ends, with the reason as its cause, when a flag stops the run
	halt     context.CancelCauseFunc

	crew    *fleet.Fleet
	manager *bgagent.BackgroundManager
	folder  *results.Folder
	show    display.Display
	ids     []string // of the tasks; empty for those that were not launched
	started []bool   // by the same order
	open    int      // tasks that were launched and have not been written
	summary display.Summary

	behind  bool          // the index on the disk does not have the last ends
	indexed time.Time     // when it was written
	cost    time.Duration // how long that took
}

// run does everything from the manager to the summary. What is wrong is found
// before there is a folder, and a folder that cannot be written to before any
// agent works for it.
func (r *runner) run(crew *fleet.Fleet, open func() (*results.Folder, error), newDisplay func() display.Display) error {
	r.halted, r.halt = context.WithCancelCause(context.Background())
	defer r.halt(nil)
	long := answers.New(0)
	crew.KeepAnswers(long)
	r.crew = crew
	var err error
	r.manager, err = crew.Manager(bgagent.Config{
		Wake:            bgagent.WakeNever, // nobody is told: the events are followed
		MaxTasksPerRoot: max(bgagent.DefaultMaxTasksPerRoot, len(r.tasks)),
		Retention:       bgagent.Disabled,
		RetainTasks:     bgagent.Unlimited,
	})
	if err != nil {
		return &exitError{exitInput, err}
	}
	if r.folder, err = open(); err == nil {
		err = r.writeFirst()
	}
	if err != nil {
		return errors.Join(err, r.manager.Close(r.stop.hard))
	}
	long.SpoolTo(r.folder.Spool)
	_, events := r.manager.Subscribe(1024 + 16*len(r.tasks))
	defer events.Close()
	r.show = newDisplay()
	// Whatever hangs after the second signal hangs without us.
	defer context.AfterFunc(r.stop.hard, func() { time.AfterFunc(leaveTime, r.leave) })()

	if n := r.kept(); n > 0 {
		r.show.Note(fmt.Sprintf("%d of %d tasks are done already, and are left as they are", n, len(r.tasks)))
	}
	if r.maxTime > 0 {
		defer time.AfterFunc(r.maxTime, func() { r.halt(fmt.Errorf("stopped after %v (--max-time)", r.maxTime)) }).Stop()
	}
	r.launch()
	defer context.AfterFunc(r.halted, func() {
		_, _ = r.manager.CancelAll(context.Background(), bgagent.Caller{}, bgagent.CancelOptions{Reason: context.Cause(r.halted).Error()})
	})()
	defer context.AfterFunc(r.stop.soft, func() {
		_, _ = r.manager.CancelAll(context.Background(), bgagent.Caller{}, bgagent.CancelOptions{Reason: "interrupted"})
	})()
	r.follow(events)
	interrupted := r.stop.soft.Err() != nil
	r.close(crew)
	return r.end(interrupted)
}

// problem tells the person at the screen what is wrong beside the tasks. It is called
// from any goroutine. Standard error is often the terminal of the table, which a line
// from elsewhere would tear apart.
func (r *runner) problem(err error) {
	if table, ok := r.show.(*display.Table); ok && !r.over.Load() {
		table.Note(err.Error())
		return
	}
	warn("%v", err)
}

// leave is leave for a program that has a terminal to give back.
func (r *runner) leave() {
	if table, ok := r.show.(*display.Table); ok {
		table.Abandon()
	}
	leave()
}

// leave ends the program and everything below it.
func leave() {
	children.Kill(killTime)
	os.Exit(exitInterrupted)
}

// launch launches the tasks. One that cannot be launched has failed.
func (r *runner) launch() {
	r.ids, r.started = make([]string, len(r.tasks)), make([]bool, len(r.tasks))
	for i, t := range r.tasks {
		switch {
		case r.index.Tasks[i].Status.Terminal():
			continue // an earlier run has done it
		case r.stop.soft.Err() != nil:
			r.index.Tasks[i].Status, r.index.Tasks[i].Reason = bgagent.Cancelled, "interrupted before it was launched"
			continue
		case r.halted.Err() != nil:
			r.index.Tasks[i].Status, r.index.Tasks[i].Reason = bgagent.Cancelled, context.Cause(r.halted).Error()
			continue
		}
		task, err := r.manager.Launch(context.Background(), bgagent.Caller{}, bgagent.LaunchInput{
			Agent: t.Agent, Prompt: t.Prompt, Description: t.Description, Model: t.Model, Directory: t.Directory,
			Metadata: map[string]string{numberKey: strconv.Itoa(i + 1)},
		})
		if err != nil {
			r.index.Tasks[i].Status, r.index.Tasks[i].Reason = bgagent.Failed, err.Error()
			r.show.Note(fmt.Sprintf("task %d cannot be launched: %v", i+1, err))
			r.endedBadly(i+1, bgagent.Task{Status: bgagent.Failed, Description: t.Description, Reason: err.Error()})
			continue
		}
		r.ids[i] = task.ID
		r.open++ // the events show it
	}
}

// follow shows what happens until every task has ended and is written.
func (r *runner) follow(events *bgagent.Subscription) {
	told := false
	looked := time.Now() // most get their slot at once
	for r.open > 0 {
		e, err := next(events)
		switch {
		case errors.Is(err, context.DeadlineExceeded):
		case err != nil:
			panic("bgagent: bug: events end before the tasks do: " + err.Error())
		case e.Kind == bgagent.EventMissed:
			r.lookAgain()
		default:
			if n, ok := numberOf(e.Task); ok {
				r.take(n, e.Task)
			}
		}
		if r.stop.soft.Err() != nil && !told {
			told = true
			r.show.Note("interrupted: stopping what runs; Ctrl-C again ends everything at once")
		}
		if r.halted.Err() != nil && r.index.Stopped == "" {
			r.index.Stopped = context.Cause(r.halted).Error()
			r.show.Note(r.index.Stopped)
		}
		r.show.Tick()
		if r.behind {
			r.reindex()
		}
		if time.Since(looked) > lookTime {
			looked = time.Now()
			r.lookAtTasks()
		}
	}
}

// next waits for an event, but no longer than the places in line are good for.
func next(events *bgagent.Subscription) (bgagent.Event, error) {
	ctx, cancel := context.WithTimeout(context.Background(), lookTime)
	defer cancel()
	return events.Next(ctx)
}

func numberOf(t bgagent.Task) (int, bool) {
	n, err := strconv.Atoi(t.Metadata[numberKey])
	return n, err == nil && t.Depth <= 1
}

// take takes note of a task as it is now, and writes its result once it has
// ended.
func (r *runner) take(number int, t bgagent.Task) {
	entry := &r.index.Tasks[number-1]
	switch {
	case !t.Status.Terminal():
		r.started[number-1] = t.Status == bgagent.Running
		r.row(number, t)
		return
	case entry.Status.Terminal():
		return // what happens after its end
	}
	t.Reason = fleet.InKeys(strings.TrimPrefix(t.Reason, "the turn: "))
	*entry = results.EntryOf(number, t)
	row := display.Row{Number: number, Task: t}
	row.Log = r.writeLog(number, t, entry)
	var unwritten *results.WriteError
	switch name, err := r.write(number, t, entry); {
	case errors.As(err, &unwritten):
		entry.Problem, row.Problem = err.Error(), unwritten.Err.Error()
		r.summary.Unwritten++
	case err != nil:
		panic("bgagent: bug: a result is not written, and nothing says why: " + err.Error())
	default:
		entry.File, row.File, row.Cut, row.Bytes = name, name, entry.Cut, entry.Bytes
		if entry.Cut {
			r.summary.Cut++
		}
		row.Task.Result = "" // it is in the file, and need not be held twice
	}
	r.open--
	r.reindex() // before it is shown: whoever has read that it ended finds it there
	row.Task.Prompt = ""
	r.show.Show(row)
	if bad(t) {
		r.endedBadly(number, t)
	}
}

// endedBadly stops the rest where a flag says so, and tells the user, unless the
// task was only stopped itself.
func (r *runner) endedBadly(number int, t bgagent.Task) {
	if r.stop.soft.Err() != nil || r.halted.Err() != nil {
		return
	}
	r.notify.Tell(notify.Event{Kind: kindOfEnd(t), Text: endText(fmt.Sprintf("task %d", number), t), Task: t.ID, Folder: r.folder.Dir()})
	if r.failFast {
		r.halt(fmt.Errorf("stopped, as task %d did not complete (--fail-fast)", number))
	}
}

// write writes the result of a task: the whole answer where it was kept, else
// what the task has of it.
func (r *runner) write(number int, t bgagent.Task, entry *results.Entry) (string, error) {
	long := r.crew.Answer(t)
	if long == nil {
		entry.Cut = t.Cut
		return r.folder.Write(number, t, nil)
	}
	defer long.Close()
	if whole, cut := long.Whole(); cut {
		entry.Cut, entry.Bytes = true, whole
	}
	return r.folder.Write(number, t, long)
}

// writeLog writes what the programs of a task have printed, and returns the name of
// the file; "" where they have printed nothing.
func (r *runner) writeLog(number int, t bgagent.Task, entry *results.Entry) string {
	log := r.crew.Log(t.ID)
	if log == nil {
		return ""
	}
	name, err := r.folder.WriteLog(number, t, log)
	if err != nil {
		r.show.Note(fmt.Sprintf("task %d: its log is lost: %v", number, err))
		return ""
	}
	entry.Log = name
	return name
}

// row shows a task that has not ended.
func (r *runner) row(number int, t bgagent.Task) {
	t.Result, t.Prompt = "", ""
	r.show.Show(display.Row{Number: number, Task: t, Stale: r.stale})
}

// lookAgain looks at every task that is not written, after events were lost.
func (r *runner) lookAgain() {
	for i, id := range r.ids {
		if id == "" || r.index.Tasks[i].Status.Terminal() {
			continue
		}
		if t, err := r.manager.Get(id); err == nil {
			r.take(i+1, t)
		}
	}
}

// lookAtTasks shows what no event tells: the places of the first in line, and the last
// of what an agent has said quickly one after the other.
func (r *runner) lookAtTasks() {
	inLine := 0
	for i, id := range r.ids {
		if id == "" || r.index.Tasks[i].Status.Terminal() {
			continue
		}
		want := bgagent.Running
		if !r.started[i] {
			want = bgagent.Pending
			if inLine++; inLine > maxInLine {
				continue
			}
		}
		if t, err := r.manager.Get(id); err == nil && t.Status == want {
			r.row(i+1, t)
		}
	}
}

// close ends the manager and the programs. After the second signal nothing is
// waited for: what still runs is killed.
func (r *runner) close(crew *fleet.Fleet) {
	err := r.manager.Close(r.stop.hard)
	var left *bgagent.CloseError
	if errors.As(err, &left) && len(left.NotStopped) > 0 && r.stop.hard.Err() == nil {
		r.show.Note("these tasks did not stop in time: " + strings.Join(left.NotStopped, ", "))
	}
	if err := crew.Close(r.stop.hard); err != nil && r.stop.hard.Err() == nil {
		r.show.Note("ending the agent programs: " + err.Error())
	}
	if r.stop.hard.Err() != nil {
		children.Kill(killTime)
	}
}

// end writes the index, shows the summary, and says how it went.
func (r *runner) end(interrupted bool) error {
	r.index.Ended, r.index.Interrupted = time.Now(), interrupted
	for _, e := range r.index.Tasks {
		r.summary.Input += e.Input
		r.summary.Output += e.Output
		r.summary.Cost += e.Cost
		switch e.Status {
		case bgagent.Completed:
			r.summary.Completed++
		case bgagent.Failed:
			r.summary.Failed++
		default:
			r.summary.Cancelled++
		}
	}
	if r.halted.Err() != nil && r.summary.Completed < len(r.tasks) {
		r.index.Stopped = context.Cause(r.halted).Error()
	}
	problem := r.folder.WriteIndex(r.index)
	r.summary.Seconds = results.Seconds(r.index.Ended.Sub(r.began))
	r.summary.Interrupted, r.summary.Stopped = interrupted, r.index.Stopped
	problem = errors.Join(problem, r.whereabouts())
	// A reader that has gone away is no problem: it has interrupted the run.
	r.over.Store(true)
	if err := r.show.End(r.summary); !interrupted || !errors.Is(err, syscall.EPIPE) {
		problem = errors.Join(problem, err)
	}
	r.tellEnd()
	switch {
	case interrupted:
		return &exitError{exitInterrupted, problem}
	case problem != nil:
		return problem
	case r.summary.Completed < len(r.tasks) || r.summary.Unwritten > 0:
		return &exitError{Code: exitFailed}
	}
	return nil
}
