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
	"github.com/bgagent/bgagent/cmd/bgagent/internal/statedir"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/tasklist"
)

const (
	// killTime is how long the program waits for killed processes to disappear. leaveTime is how long
	// everything else may take after the second signal; then the program kills the remaining processes
	// and exits.
	killTime  = 2 * time.Second
	leaveTime = 4 * time.Second

	// lookTime is the pause between two polls for changes that events do not report. maxInLine is the maximum
	// number of waiting tasks that are polled; the tasks behind them will not start soon.
	lookTime  = 500 * time.Millisecond
	maxInLine = 100
)

// numberKey is the metadata key for a task's number.
const numberKey = "number"

// runner runs one list of tasks. Its methods run on one goroutine, except for leave, problem, haltAtBadEnd
// and fail.
type runner struct {
	stop     stops
	tasks    []tasklist.Task
	index    results.Index
	began    time.Time     // when this run began, even if it resumes an earlier run
	failFast bool          // whether the other tasks are stopped when a task does not complete
	maxTime  time.Duration // maximum duration of the run; 0 means no limit
	stale    time.Duration // time after which a silent task is cancelled; 0 means no limit
	notify   *notify.Notifier
	over     atomic.Bool     // the display has ended, or is about to end
	halted   context.Context // ends, with a reason, when --fail-fast or --max-time stops the run
	halt     context.CancelCauseFunc

	id      string           // id of this run of the program
	state   *statedir.Folder // state folder; nil if the tasks are not kept
	copies  copyFlags
	ended   bool            // all tasks of the earlier run had ended when the run itself ended
	earlier []bgagent.Task  // for each entry of the list, the task kept from the earlier run; empty if there is none
	resumed map[string]bool // ids of the earlier run's tasks that this run continues
	removed map[int]bool    // list indexes of tasks whose results were written and later removed
	crew    *fleet.Fleet
	manager *bgagent.BackgroundManager
	folder  *results.Folder
	show    display.Display
	ids     []string // ids of the tasks; empty for tasks that were not launched
	started []bool   // whether each task is running, as last seen
	open    int      // number of launched tasks whose results have not been written
	summary display.Summary

	behind  bool          // the index on disk lacks tasks that have ended
	indexed time.Time     // when the index was last written
	cost    time.Duration // how long the last write of the index took
}

// run runs the list. It does everything from creating the manager to printing the summary. Invalid settings
// are reported before a folder is created. A folder that cannot be written to is reported before any agent
// starts to work.
func (r *runner) run(crew *fleet.Fleet, open func() (*results.Folder, error), newDisplay func() display.Display) error {
	r.halted, r.halt = context.WithCancelCause(context.Background())
	defer r.halt(nil)
	long := answers.New(0)
	crew.KeepAnswers(long)
	r.crew = crew
	if err := r.prepare(open); err != nil {
		return err
	}
	long.SpoolTo(r.folder.Spool)
	_, events := r.manager.Subscribe(1024 + 16*len(r.tasks))
	defer events.Close()
	if r.failFast {
		_, ends := r.manager.Subscribe(1024 + 16*len(r.tasks))
		defer ends.Close()
		go r.haltAtBadEnd(ends)
	}
	r.show = newDisplay()
	// After the second signal, the program does not wait for hanging calls.
	defer context.AfterFunc(r.stop.hard, func() { time.AfterFunc(leaveTime, r.leave) })()

	if n := r.kept(); n > 0 {
		r.show.Note(fmt.Sprintf("%d of %d tasks are already done and are left as they are", n, len(r.tasks)))
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

// prepare creates the manager, opens the results folder, and writes the first index. If it returns
// an error, the manager is closed.
func (r *runner) prepare(open func() (*results.Folder, error)) (err error) {
	if r.manager, err = r.newManager(nil); err != nil {
		return &exitError{exitInput, err}
	}
	if r.folder, err = open(); err == nil && r.state != nil {
		// The results folder identifies the store, so the manager with the store can be created only after
		// the folder. The first manager's only purpose was to find errors in the configuration before the
		// folder was created.
		if err = r.manager.Close(r.stop.hard); err == nil {
			r.manager, err = r.keptManager()
		}
	}
	if err == nil {
		err = r.writeFirst()
	}
	if err != nil && r.manager != nil {
		err = errors.Join(err, r.manager.Suspend(r.stop.hard)) // Close would cancel the kept tasks of an earlier run
	}
	return err
}

// newManager creates a manager with the store. The store can be nil.
func (r *runner) newManager(store bgagent.Store) (*bgagent.BackgroundManager, error) {
	return r.crew.Manager(bgagent.Config{
		Wake:            bgagent.WakeNever, // the runner follows events and does not need notices
		MaxTasksPerRoot: max(bgagent.DefaultMaxTasksPerRoot, len(r.tasks)),
		Retention:       bgagent.Disabled,
		RetainTasks:     bgagent.Unlimited,
		Store:           store,
		Instance:        r.id,
		RestartWithin:   bgagent.Disabled, // the user decides when the run is resumed
	})
}

// The method "problem" reports a problem to the user. Tasks that end badly are reported by endedBadly
// instead. The method "problem" can be called concurrently. While the table is shown, the table prints the
// problem, because standard error is often the same terminal, and a line written there would damage the
// table.
func (r *runner) problem(err error) {
	if table, ok := r.show.(*display.Table); ok && !r.over.Load() {
		table.Note(err.Error())
		return
	}
	warn("%v", err)
}

// leave restores the terminal and exits the program.
func (r *runner) leave() {
	if table, ok := r.show.(*display.Table); ok {
		table.Abandon()
	}
	leave()
}

// leave kills all processes below this program and exits.
func leave() {
	children.Kill(killTime)
	os.Exit(exitInterrupted)
}

// launch launches the tasks. A task that cannot be launched is recorded as failed.
func (r *runner) launch() {
	r.ids, r.started = make([]string, len(r.tasks)), make([]bool, len(r.tasks))
	r.adopt()
	for i, t := range r.tasks {
		switch {
		case r.index.Tasks[i].Status.Terminal(), r.ids[i] != "":
			continue // an earlier run completed the task, or this run continues it
		case r.stop.soft.Err() != nil:
			r.index.Tasks[i].Status, r.index.Tasks[i].Reason = bgagent.Cancelled, "interrupted before it was launched"
			continue
		case r.halted.Err() != nil:
			r.index.Tasks[i].Status, r.index.Tasks[i].Reason = bgagent.Cancelled, context.Cause(r.halted).Error()
			continue
		}
		r.launchTask(i, t)
	}
}

// launchTask launches the task at index i in the list. If the launch fails, the task is recorded as failed.
func (r *runner) launchTask(i int, t tasklist.Task) {
	task, err := r.manager.Launch(context.Background(), bgagent.Caller{Session: runScope}, bgagent.LaunchInput{
		Agent: t.Agent, Prompt: t.Prompt, Description: t.Description, Model: t.Model, Directory: t.Directory,
		Metadata: map[string]string{numberKey: strconv.Itoa(i + 1)},
	})
	if err != nil {
		r.index.Tasks[i].Status, r.index.Tasks[i].Reason = bgagent.Failed, err.Error()
		r.show.Note(fmt.Sprintf("task %d cannot be launched: %v", i+1, err))
		r.endedBadly(i+1, bgagent.Task{Status: bgagent.Failed, Description: t.Description, Reason: err.Error()})
		return
	}
	r.ids[i] = task.ID
	r.open++ // the task is shown when its first event is read
}

// The method "follow" shows the progress of the tasks until every task has ended and its result is
// written.
func (r *runner) follow(events *bgagent.Subscription) {
	told := false
	looked := time.Now() // there is no poll at the beginning, because most tasks get a slot immediately
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
			r.show.Note("interrupted: stopping the running tasks; Ctrl-C again ends everything immediately")
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

// The function "next" waits for an event, but no longer than lookTime, so that the display is updated
// even without events.
func next(events *bgagent.Subscription) (bgagent.Event, error) {
	ctx, cancel := context.WithTimeout(context.Background(), lookTime)
	defer cancel()
	return events.Next(ctx)
}

func numberOf(t bgagent.Task) (int, bool) {
	n, err := strconv.Atoi(t.Metadata[numberKey])
	return n, err == nil && t.Depth <= 1
}

// The method "take" stores and shows the current state of a task. If the task has ended, the method "take"
// also writes its result.
func (r *runner) take(number int, t bgagent.Task) {
	entry := &r.index.Tasks[number-1]
	switch {
	case !t.Status.Terminal():
		r.started[number-1] = t.Status == bgagent.Running
		r.row(number, t)
		return
	case entry.Status.Terminal():
		return // the end of the task was already recorded
	case t.Cause == bgagent.CauseSuperseded:
		return // another attempt continues the task
	case r.mustRunAgain(number, t):
		return
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
		panic("bgagent: bug: a result was not written, and the reason is unknown: " + err.Error())
	default:
		entry.File, row.File, row.Cut, row.Bytes = name, name, entry.Cut, entry.Bytes
		r.settle(t)
		if entry.Cut {
			r.summary.Cut++
		}
		row.Task.Result = "" // the result is in the file
	}
	r.open--
	r.reindex() // the index is written before readers of the output see that the task has ended
	row.Task.Prompt = ""
	r.show.Show(row)
	if bad(t) {
		r.endedBadly(number, t)
	}
}

// badEndError is the reason why --fail-fast stopped the run.
type badEndError struct{ task int } // number of the first task that did not complete

func (e *badEndError) Error() string {
	return fmt.Sprintf("stopped because task %d did not complete (--fail-fast)", e.task)
}

// haltAtBadEnd stops the run when a task does not complete. The goroutine that follows the events for the display
// could stop the run too late: it also writes files, and while it writes, the next task could start. Therefore,
// haltAtBadEnd has its own subscription.
func (r *runner) haltAtBadEnd(ends *bgagent.Subscription) {
	for {
		e, err := ends.Next(r.halted)
		if err != nil {
			return
		}
		if n, ok := numberOf(e.Task); ok && bad(e.Task) && e.Task.Cause != bgagent.CauseSuperseded {
			r.fail(n)
		}
	}
}

// fail stops the run because the task with the given number did not complete. If the run has already been
// stopped, by the user or for another reason, the method "fail" does nothing, because the stop has ended the
// task.
func (r *runner) fail(number int) {
	if r.stop.soft.Err() == nil {
		r.halt(&badEndError{number}) // only the first reason is kept
	}
}

// endedBadly notifies the user that a task did not complete and, with --fail-fast, stops the other tasks. It
// does nothing if the task ended because the run was stopped.
func (r *runner) endedBadly(number int, t bgagent.Task) {
	if r.failFast {
		r.fail(number)
	}
	var first *badEndError
	if r.stop.soft.Err() != nil || r.halted.Err() != nil && !(errors.As(context.Cause(r.halted), &first) && first.task == number) {
		return
	}
	r.notify.Tell(notify.Event{Kind: kindOfEnd(t), Text: endText(fmt.Sprintf("task %d", number), t), Task: t.ID, Folder: r.folder.Dir()})
}

// write writes a task's result: the whole answer if it was kept, otherwise the result that the
// manager kept, which might be cut.
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

// writeLog writes the output of a task's programs. It returns the name of the file, or "" if the
// programs did not print anything or the log could not be written.
func (r *runner) writeLog(number int, t bgagent.Task, entry *results.Entry) string {
	log := r.crew.Log(t.ID)
	if log == nil {
		return ""
	}
	name, err := r.folder.WriteLog(number, t, log)
	if err != nil {
		r.show.Note(fmt.Sprintf("task %d: its log could not be written: %v", number, err))
		return ""
	}
	entry.Log = name
	return name
}

// The method "row" shows the row of a task that has not ended.
func (r *runner) row(number int, t bgagent.Task) {
	t.Result, t.Prompt = "", ""
	r.show.Show(display.Row{Number: number, Task: t, Stale: r.stale})
}

// lookAgain reads the state of every task whose result has not been written. It is called when
// events were missed.
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

// lookAtTasks shows changes that are not reported by events: the queue positions of the first
// waiting tasks, and the last of several messages that an agent wrote in quick succession.
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

// close closes the manager and terminates the agent programs. After the second signal, it kills the processes
// that are still running instead of waiting for them.
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

// The method "end" writes the index, shows the summary and returns the error with the run's exit code, or nil
// if all went well.
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
	// If the output can no longer be read, the run ends as interrupted. An error from writing the summary is
	// then not reported as an additional problem.
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
