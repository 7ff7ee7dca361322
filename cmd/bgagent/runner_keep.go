package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/results"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/statedir"
)

// This file contains the runner's methods that keep tasks and continue kept tasks.

// runScope is the scope from which all tasks of a run are launched.
const runScope = "run"

// keep selects the state folder. If the folder is unknown, the method "keep" prints a warning,
// and a new run continues without keeping its tasks. A resumed run whose tasks are kept needs
// the folder.
func (r *runner) keep(f stateFlags) error {
	folder, err := f.folder()
	switch {
	case err == nil:
		r.state = &folder
	case r.index.State != "":
		return r.cannotContinue(err)
	default:
		warn("the tasks of this run are lost if it is killed: %v", err)
	}
	return nil
}

// cannotContinue returns the error for a resumed run whose kept tasks cannot be used. In this case, the run
// must not start, because it would run these tasks a second time.
func (r *runner) cannotContinue(err error) error {
	return &exitError{exitInput, fmt.Errorf("the kept tasks of this run cannot be continued, and some may not have ended: %w. Nothing was started. To run again all tasks that have not completed, use --state none", err)}
}

// keptManager creates the manager with the run's store. If this run resumes an earlier run whose tasks are
// kept, it uses that run's store. Otherwise, it creates a store. If a new store cannot be used, keptManager
// prints a warning, and the manager has no store.
func (r *runner) keptManager() (*bgagent.BackgroundManager, error) {
	defer func() { sweep(*r.state) }()
	at, found, err := r.earlierStore()
	if err != nil {
		return nil, r.cannotContinue(err)
	}
	if found {
		return r.continuedManager(at)
	}
	var m *bgagent.BackgroundManager
	if at, err = r.state.Results(r.folder.Dir(), r.id); err == nil {
		m, err = openKept(at, copyFlags{}, r.newManager)
	}
	if err != nil {
		warn("the tasks of this run are lost if it is killed: %v", err)
		r.index.State = ""
		return r.newManager(nil)
	}
	r.index.State = at.Name()
	return m, nil
}

// earlierStore returns the store of the earlier run that this run resumes, and whether there is such a store.
// It returns an error if the store cannot be found or belongs to another results folder. There is one
// exception: if all tasks of the earlier run have ended, the store may be missing or belong to the folder
// from which this results folder was copied. The run then continues without the store.
func (r *runner) earlierStore() (at statedir.Store, found bool, err error) {
	if r.index.State == "" {
		return at, false, nil
	}
	here, err := r.state.Results(r.folder.Dir(), r.id)
	if err != nil {
		return at, false, err
	}
	at, err = r.state.Named(r.index.State)
	switch {
	case errors.Is(err, fs.ErrNotExist) && r.ended:
		return at, false, nil
	case errors.Is(err, fs.ErrNotExist):
		return at, false, fmt.Errorf("%s has no store %s", r.state.Dir(), r.index.State)
	case err != nil:
		return at, false, fmt.Errorf("the store %s: %w", r.index.State, err)
	case at.Kind != statedir.Run:
		return at, false, fmt.Errorf("the store %s belongs to %v", r.index.State, at)
	case at.Path == here.Path:
	case results.StateOf(at.Path) != at.Name(): // the folder was moved
		at.Path = here.Path
	case r.ended:
		return at, false, nil
	default:
		return at, false, fmt.Errorf("they belong to %v, and this folder is a copy; resume the original", at)
	}
	return at, true, nil
}

// continuedManager creates the manager with the earlier run's store, and reads the kept tasks.
func (r *runner) continuedManager(at statedir.Store) (*bgagent.BackgroundManager, error) {
	m, err := openKept(at, r.copies, r.newManager)
	var kept *keepError
	if errors.As(err, &kept) {
		err = errors.New(kept.reason())
	}
	if err != nil {
		return nil, r.cannotContinue(err)
	}
	sayRestored(m)
	if err = at.Describe(); err == nil {
		r.earlier, err = r.latest(m)
	}
	if err != nil {
		return nil, errors.Join(r.cannotContinue(err), m.Suspend(r.stop.hard))
	}
	return m, nil
}

// adopt takes over the kept tasks of an earlier run. It continues the tasks that have not ended. It also
// writes the missing results of completed tasks, but not the results that were written and later removed.
func (r *runner) adopt() {
	r.resumed = map[string]bool{}
	live := 0
	for i, t := range r.earlier {
		switch {
		case t.ID == "" || r.index.Tasks[i].Status.Terminal():
		case !t.Status.Terminal():
			r.ids[i], r.resumed[t.ID] = t.ID, true
			r.open++
			live++
		case t.Status == bgagent.Completed && !r.removed[i]:
			r.ids[i] = t.ID
			r.open++
			r.take(i+1, t)
		}
	}
	if live > 0 {
		r.show.Note(fmt.Sprintf("%d tasks were running or waiting when the earlier run ended, and are continued", live))
	}
	r.manager.Start()
	unwritten := map[string]bool{}
	for _, e := range r.index.Tasks {
		unwritten[e.ID] = e.Problem != ""
	}
	for _, t := range r.manager.List(bgagent.Query{}) {
		switch {
		case unwritten[t.ID]:
		case t.Status.Terminal():
			r.settle(t)
		case !r.resumed[t.ID]: // for example, because a later run with --state none has completed this entry of the list
			_, _ = r.manager.Cancel(context.Background(), bgagent.Caller{}, t.ID, bgagent.CancelOptions{Reason: "the run no longer needs this task"})
		}
	}
}

// settle is called when the end of the task has been reported, and records this fact in the store. The store
// keeps an ended task until its end is settled.
func (r *runner) settle(t bgagent.Task) {
	if r.index.State == "" {
		return
	}
	for range 2 { // the second call acknowledges the result of the first
		_, _ = r.manager.Read(bgagent.Caller{Session: runScope}, t.ID)
	}
}

// mustRunAgain is called when the task t, which has the given number in the list, has ended. A resumed run
// repeats all tasks that have not completed. Therefore, if t belongs to the earlier run and could not be
// continued, mustRunAgain launches the task again. It returns true if the end of t must not be recorded. This is
// the case if the task was launched again, or if t is not the latest task with this number.
func (r *runner) mustRunAgain(number int, t bgagent.Task) bool {
	if !r.resumed[t.ID] {
		return t.ID != r.ids[number-1] // true if another task has replaced t
	}
	if t.Cause != bgagent.CauseInterrupted || r.stop.soft.Err() != nil || r.halted.Err() != nil {
		return false
	}
	delete(r.resumed, t.ID)
	r.open--
	r.show.Note(fmt.Sprintf("task %d cannot be continued and runs again: %s", number, plainReason(t)))
	r.settle(t)
	r.launchTask(number-1, r.tasks[number-1])
	return true
}

// The method "latest" returns, for each entry of the list, the kept task that was launched last. If an entry
// has no kept task, the returned task has no id. If the result of a completed task is not in the results
// folder, the task contains the result.
func (r *runner) latest(m *bgagent.BackgroundManager) ([]bgagent.Task, error) {
	kept, err := keptTasks(m)
	if err != nil {
		return nil, err
	}
	last := make([]bgagent.Task, len(r.tasks))
	for _, t := range kept {
		n, ok := numberOf(t)
		if ok && n >= 1 && n <= len(last) && (last[n-1].ID == "" || t.Queued.After(last[n-1].Queued)) {
			last[n-1] = t
		}
	}
	for i, t := range last {
		if t.Status != bgagent.Completed || t.ID == "" || r.index.Tasks[i].Status.Terminal() || r.removed[i] {
			continue
		}
		last[i], err = m.Read(bgagent.Caller{}, t.ID)
		if err == nil && last[i].Dropped {
			err = errors.New("it is damaged or was deleted")
		}
		if err != nil {
			return nil, fmt.Errorf("the result of task %d: %w (bgagent prune %s --force deletes the task, so that it runs again)", i+1, err, t.ID)
		}
	}
	return last, nil
}

// keptTasks returns the tasks in memory and the ended tasks in the store. The tasks from the store come
// without their texts. A task can appear twice.
func keptTasks(m *bgagent.BackgroundManager) ([]bgagent.Task, error) {
	for tries := 0; ; tries++ {
		all := m.List(bgagent.Query{})
		before := ""
		for {
			page, err := m.History(context.Background(), bgagent.Query{Limit: pageSize}, before)
			if errors.Is(err, bgagent.ErrNoRecord) && tries < 3 {
				break // the store deleted the last task of the previous page, so all pages are read again
			}
			if err != nil || len(page) == 0 {
				return all, err
			}
			all = append(all, page...)
			before = page[len(page)-1].ID
		}
	}
}
