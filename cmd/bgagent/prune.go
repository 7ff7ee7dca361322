package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/control"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/statedir"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/transcript"
	"github.com/bgagent/bgagent/sqlite"
)

// pruneCmd is the command "bgagent prune".
type pruneCmd struct {
	ID    string `arg:"" optional:"" help:"Id of the task. Without it, all tasks that have ended are deleted."`
	Yes   bool   `help:"Without ID: delete the tasks. Without this flag they are only counted."`
	Force bool   `help:"With ID: delete the task even if its end has not been reported, or if its session may still have to be stopped. A serve that is running deletes it only once its session has stopped."`
}

// Help implements kong's help provider.
func (pruneCmd) Help() string {
	return `Deletes tasks that have ended, with their prompts and results. Some ended tasks are kept: tasks whose end has not been reported to their caller, and tasks that the next process must stop again. Name such a task, with --force, to delete it. A running serve deletes its tasks itself when prune asks for it. The tasks of a running mcp or run are also kept: end the command first.

Exit codes: 0 the tasks were deleted or counted; 1 some could not be deleted; 2 invalid input, or there is no such task.`
}

// The type "pruned" counts tasks in one or more stores.
type pruned struct {
	ended int // number of tasks that were deleted, or that --yes would delete
	due   int // number of ended tasks that stay because the next process needs them
}

// Run implements the subcommand.
func (c pruneCmd) Run(all *cli, stop stops) error {
	if c.Force && c.ID == "" {
		return &exitError{exitInput, errors.New("--force needs the id of a task")}
	}
	folder, err := all.folder()
	if err != nil {
		return err
	}
	if c.ID != "" {
		return c.pruneOne(stop.soft, folder)
	}
	stores, err := folder.Stores()
	if err != nil {
		return fmt.Errorf("reading the state folder: %w", err)
	}
	var problems []error
	var total pruned
	for _, s := range stores {
		n, err := c.prune(stop.soft, s)
		total.ended += n.ended
		total.due += n.due
		if err != nil {
			problems = append(problems, fmt.Errorf("%v: %w", s, err))
		}
	}
	if c.Yes {
		fmt.Fprintf(&stdout, "deleted %d tasks\n", total.ended)
	} else {
		fmt.Fprintf(&stdout, "%d tasks have ended; bgagent prune --yes deletes them\n", total.ended)
	}
	if total.due > 0 {
		fmt.Fprintf(&stdout, "%d further tasks have ended but are kept, because their ends have not been reported or because they must be stopped again; bgagent prune ID --force deletes such a task\n", total.due)
	}
	return errors.Join(problems...)
}

// prune counts the ended tasks in a store. With --yes, it deletes those that the next process does
// not need. If a running serve uses the store, the serve deletes them. If the store belongs to a
// living process that accepts no commands, the method "prune" prints a warning and does not count the
// tasks.
func (c pruneCmd) prune(ctx context.Context, s statedir.Store) (n pruned, err error) {
	v, err := openView(s)
	if errors.Is(err, fs.ErrNotExist) {
		return n, nil
	}
	if err != nil {
		return n, err
	}
	if err := errors.Join(v.list(0), v.reader.Close()); err != nil {
		return n, err
	}
	var ids []string
	for _, t := range v.tasks {
		switch {
		case !t.Status.Terminal():
		case v.due[t.ID]:
			n.due++
		default:
			ids = append(ids, t.ID)
		}
	}
	n.ended = len(ids)
	server, err := v.server()
	switch {
	case v.lives && n.ended+n.due > 0 && errors.Is(err, control.ErrNone):
		warn("the %d ended tasks of %v are kept, because it is running (process %d)", n.ended+n.due, s, v.owner.PID)
		return pruned{}, nil
	case n.ended == 0, !c.Yes:
		return n, nil
	case v.lives && err != nil:
		return pruned{due: n.due}, err
	case v.lives:
		deleted, err := forgetAll(ctx, server, ids)
		deleted.due += n.due
		return deleted, err
	case s.Kind != statedir.Serve && n.ended == len(v.tasks):
		if remove(s, false) {
			return n, nil
		}
	}
	return n, deleteTasks(s, ids)
}

// forgetAll asks a running serve to delete tasks. It returns the number of deleted tasks, and the number of
// tasks that were kept because they are still needed. It stops if a task cannot be deleted for another
// reason.
func forgetAll(ctx context.Context, server *control.Client, ids []string) (n pruned, err error) {
	if err := inTask(); err != nil {
		return n, err
	}
	for part := range slices.Chunk(ids, control.MaxForget) {
		r, err := server.Forget(ctx, control.ForgetInput{IDs: part})
		if err != nil {
			return n, undone(err, "repeat the command")
		}
		n.ended += r.Deleted
		n.due += len(r.Needed)
		if len(r.Failed) > 0 {
			return n, fmt.Errorf("%d tasks are not deleted: %s", len(r.Failed), r.Failed[0])
		}
	}
	return n, nil
}

// forgetOne asks the serve that owns the task to delete it. The serve decides whether the deletion is
// allowed, because the store, which this command reads, can lag behind the serve. If the owner does not
// accept such a request, forgetOne returns an error. The argument "unreached" is the error, if any, from
// looking for the serve.
func forgetOne(ctx context.Context, v *view, server *control.Client, unreached error, id string, force bool) error {
	switch {
	case errors.Is(unreached, control.ErrNone):
		return fmt.Errorf("task %s belongs to %v, which runs (process %d); end it before you delete the task", id, v, v.owner.PID)
	case unreached != nil:
		return fmt.Errorf("%v: %w", v, unreached)
	}
	if err := inTask(); err != nil {
		return err
	}
	r, err := server.Forget(ctx, control.ForgetInput{IDs: []string{id}, Force: force})
	switch {
	case err != nil:
		return undone(err, "bgagent show "+id+" tells whether the task is still there")
	case len(r.Failed) > 0:
		return errors.New(r.Failed[0])
	case len(r.Needed) > 0 && !force:
		return fmt.Errorf("%s; if the task has ended, --force deletes it anyway", r.Needed[0])
	case len(r.Needed) > 0:
		return errors.New(r.Needed[0])
	}
	return nil
}

// deleteOne deletes a task from a store that no process uses.
func (c pruneCmd) deleteOne(v *view, t bgagent.Task) error {
	switch {
	case !t.Status.Terminal():
		return fmt.Errorf("task %s has not ended; %s", t.ID, v.state())
	case v.due[t.ID] && !c.Force:
		return fmt.Errorf("task %s has ended, but its end has not been reported, or it must be stopped again; %v does that when it runs again; --force deletes the task anyway", t.ID, v)
	}
	return deleteTasks(v.Store, []string{t.ID})
}

// pruneOne deletes the task that the command line names. It returns an error if the task has not
// ended, or if a living process other than a serve uses its store. Without --force, it also returns
// an error if the next process needs the task.
func (c pruneCmd) pruneOne(ctx context.Context, folder statedir.Folder) error {
	v, t, err := find(folder, c.ID)
	if err != nil {
		return err
	}
	server, unreached := v.server()
	if err := v.reader.Close(); err != nil {
		return err
	}
	if v.lives {
		err = forgetOne(ctx, v, server, unreached, t.ID, c.Force)
	} else {
		err = c.deleteOne(v, t)
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(&stdout, "deleted %s\n", t.ID)
	return nil
}

// deleteTasks deletes the tasks with the given ids from the store. It must open the store, so it fails if
// another process uses the store.
func deleteTasks(s statedir.Store, ids []string) (err error) {
	store := sqlite.New(s.Dir, sqlite.Options{Warn: func(err error) { warn("%v", err) }})
	c, err := store.Open(context.Background(), ownerHere("prune"))
	if err != nil {
		return &keepError{s.Dir, err}
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	if c.Outdated != "" {
		return fmt.Errorf("nothing was deleted, because the store is not the original: %s", c.Outdated)
	}
	for len(ids) > 0 && err == nil {
		n := min(len(ids), pageSize)
		c.Batch++
		err = store.Write(context.Background(), &bgagent.StoreBatch{Number: c.Batch, Delete: ids[:n]})
		for i := 0; i < n && err == nil; i++ {
			err = transcript.RemoveLog(s.Logs(), ids[i])
		}
		ids = ids[n:]
	}
	return err
}
