package main

import (
	"context"
	"fmt"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/notify"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/results"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/tasklist"
)

// begin creates the index. It keeps the entries of tasks that an earlier run completed.
func (r *runner) begin(j *job) {
	r.index.Began, r.removed = r.began, map[int]bool{}
	if j.folder != nil {
		r.index.Began, r.index.Resumed = j.index.Began, r.began
		r.index.State, r.ended = j.index.State, !j.index.Ended.IsZero()
	}
	for i, t := range r.tasks {
		e := results.Entry{Number: i + 1, Description: t.Description, Agent: t.Agent, Model: t.Model}
		if j.folder != nil && j.folder.Done(j.index.Tasks[i]) {
			e = j.index.Tasks[i]
		} else if j.folder != nil && j.index.Tasks[i].Status == bgagent.Completed {
			r.removed[i] = true
		}
		r.index.Tasks = append(r.index.Tasks, e)
	}
}

// The method "kept" returns the number of tasks that an earlier run completed.
func (r *runner) kept() (n int) {
	for _, e := range r.index.Tasks {
		if e.Status.Terminal() {
			n++
		}
	}
	return n
}

// writeFirst writes the list and the index before any task runs, so that the run can
// be resumed.
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

// indexShare limits the time for writing the index: at most 1/indexShare of the time is spent on it. The
// index is always written as a whole, which is slow if the list has thousands of tasks.
const indexShare = 20

// reindex writes the index after a task ends, so that the index is current if this program is killed. It
// writes immediately unless writing would take too large a share of the time; see indexShare. In that case,
// the method "follow" calls the method "reindex" again later. Errors are ignored here; a lasting problem is
// reported when the index is written at the end of the run.
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

// whereabouts sets the path of the results in the summary. It returns an error if the
// folder was moved or removed during the run.
func (r *runner) whereabouts() error {
	path, moved := r.folder.Where()
	r.summary.Folder = path
	switch {
	case !moved:
		return nil
	case path == "":
		r.summary.Folder = r.folder.Dir()
		return fmt.Errorf("the folder for the results, %s, was removed or replaced during the run; the results that were written into it are not there", r.folder.Dir())
	}
	return fmt.Errorf("the folder for the results, %s, was moved during the run; nothing was written to the folder that is there now; the results are in %s", r.folder.Dir(), path)
}

// notifyTime is how long a run waits at its end for the notification program.
const notifyTime = 10 * time.Second

// tellEnd notifies the user that the last task has ended.
func (r *runner) tellEnd() {
	r.notify.Tell(notify.Event{Kind: "done", Text: "bgagent: " + r.summary.String(), Folder: r.summary.Folder})
	ctx, cancel := context.WithTimeout(r.stop.hard, notifyTime)
	defer cancel()
	r.notify.Close(ctx)
}
