package main

import (
	"context"
	"fmt"
	"time"

	"github.com/bgagent/bgagent/cmd/bgagent/internal/notify"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/results"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/tasklist"
)

// begin makes the index. What an earlier run has done stays in it.
func (r *runner) begin(j *job) {
	r.index.Began = r.began
	if j.folder != nil {
		r.index.Began, r.index.Resumed = j.index.Began, r.began
	}
	for i, t := range r.tasks {
		e := results.Entry{Number: i + 1, Description: t.Description, Agent: t.Agent, Model: t.Model}
		if j.folder != nil && j.folder.Done(j.index.Tasks[i]) {
			e = j.index.Tasks[i]
		}
		r.index.Tasks = append(r.index.Tasks, e)
	}
}

// kept counts the tasks that an earlier run has done.
func (r *runner) kept() (n int) {
	for _, e := range r.index.Tasks {
		if e.Status.Terminal() {
			n++
		}
	}
	return n
}

// writeFirst writes what the folder has before any task runs: the list, so that the
// run can be gone on with, and the index.
func (r *runner) writeFirst() error {
	list, err := tasklist.Format(r.tasks)
	if err == nil {
		err = r.folder.WriteList(list)
	}
	if err == nil {
		err = r.folder.WriteIndex(r.index)
	}
	return err
}

// indexShare bounds the time that goes into indexes before the last: they are
// written as a whole, and for a list of thousands each one takes a while.
const indexShare = 20

// reindex writes the index after an end, so that it says what there is when this
// program is killed. It does so at once, unless the last time was so long that
// one twentieth of all time would be spent on it; then a later event or look
// does. What fails here is told by the last index.
func (r *runner) reindex() {
	r.behind = true
	begin := time.Now()
	if begin.Sub(r.indexed) < indexShare*r.cost {
		return
	}
	_ = r.folder.WriteIndex(r.index)
	r.behind, r.indexed = false, time.Now()
	r.cost = r.indexed.Sub(begin)
}

// whereabouts puts the place of the results into the summary. That it is not the
// one that was asked for is an error.
func (r *runner) whereabouts() error {
	path, moved := r.folder.Where()
	r.summary.Folder = path
	switch {
	case !moved:
		return nil
	case path == "":
		r.summary.Folder = r.folder.Dir()
		return fmt.Errorf("the folder for the results, %s, has been removed or replaced while the run went on; what was written into it is not there", r.folder.Dir())
	}
	return fmt.Errorf("the folder for the results, %s, has been moved away while the run went on; nothing was written into what stands there now, the results are in %s", r.folder.Dir(), path)
}

// notifyTime is how long the end of the run waits for the program that is told.
const notifyTime = 10 * time.Second

// tellEnd has the user told that the last task has ended.
func (r *runner) tellEnd() {
	r.notify.Tell(notify.Event{Kind: "done", Text: "bgagent: " + r.summary.String(), Folder: r.summary.Folder})
	ctx, cancel := context.WithTimeout(r.stop.hard, notifyTime)
	defer cancel()
	r.notify.Close(ctx)
}
