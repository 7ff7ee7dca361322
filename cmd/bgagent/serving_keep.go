package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/settings"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/statedir"
	"github.com/bgagent/bgagent/sqlite"
)

// This file contains the methods of the commands "mcp" and "serve" that keep tasks and take over
// kept tasks.

// makeManager creates the manager with the command's store. If the store cannot be used, the
// command "serve" fails. The command "mcp" prints a warning and continues without a store, because
// the program that started it needs the tools.
func (s *serving) makeManager(ctx context.Context, set *settings.Settings, state stateFlags) (*bgagent.BackgroundManager, error) {
	if s.command == statedir.Serve && set.Cluster != nil {
		return s.clusterManager(ctx, set, state)
	}
	if !state.keeps() {
		return s.crew.Manager(s.config(nil))
	}
	folder, err := state.folder()
	switch {
	case err != nil && s.command == statedir.MCP:
		warn("%v; tasks are not kept", err)
		return s.crew.Manager(s.config(nil))
	case err != nil:
		return nil, err
	}
	defer sweep(folder)
	if s.command == statedir.Serve {
		at, err := folder.Served(set.Files)
		if err != nil {
			return nil, err
		}
		return s.open(at)
	}
	m, err := s.projectManager(folder)
	var kept *keepError
	if err == nil || !errors.As(err, &kept) {
		return m, err
	}
	warn("the tasks of this process are lost when it ends: %v", err)
	return s.crew.Manager(s.config(nil))
}

// open creates the manager with the given store. The logs of its tasks are written next to the
// store.
func (s *serving) open(at statedir.Store) (*bgagent.BackgroundManager, error) {
	m, err := openKept(at, s.copies, s.withStore)
	if err == nil {
		s.at, s.files = at, s.crew.LogTo(at.Logs(), func(err error) { warn("%v", err) })
	}
	return m, err
}

// The method "log" returns the function that reads a task's log, or nil if there are no logs.
func (s *serving) log() func(ctx context.Context, task string, from int64) (string, int64, error) {
	if s.files == nil {
		return nil
	}
	return func(_ context.Context, task string, from int64) (string, int64, error) {
		if t, err := s.manager.Get(task); err != nil || t.Status.Terminal() {
			s.files.End(task) // the event for the end might not have been handled yet
		}
		return s.files.Read(task, from)
	}
}

// withStore creates a manager with the store.
func (s *serving) withStore(store bgagent.Store) (*bgagent.BackgroundManager, error) {
	return s.crew.Manager(s.config(store))
}

// config returns the configuration of a manager with the store, which can be nil. Tasks of mcp are not
// continued: if the host killed its MCP server, that server's tasks must not cause costs in a later
// conversation.
func (s *serving) config(store bgagent.Store) bgagent.Config {
	cfg := bgagent.Config{
		Wake: bgagent.WakeNever, Limits: bgagent.Limits{Fair: true}, Logger: library(s.logger),
		PrepareLaunch: s.prepareLaunch, Store: store, Instance: s.life.id, InterruptRestored: s.command == statedir.MCP,
	}
	if s.cluster != nil {
		cfg.Slots = s.cluster.Slots
	}
	return cfg
}

// projectManager creates the manager for the command "mcp". Among the project's stores whose processes are
// dead, it uses the store that was written last. If there is no such store, it creates one. The method
// interruptOlder ends the tasks in the remaining stores.
func (s *serving) projectManager(folder statedir.Folder) (*bgagent.BackgroundManager, error) {
	old, fresh, err := folder.Project(".", s.life.id)
	if err != nil {
		return nil, &keepError{folder.Dir(), err}
	}
	for i, at := range old {
		m, err := s.open(at)
		var owned *bgagent.StoreOwnedError
		var kept *keepError
		switch {
		case errors.As(err, &owned):
		case errors.As(err, &kept):
			warn("%v", err)
		default: // the store can be used, or the error does not come from the store
			s.older = older{stores: old[i+1:], end: s.interruptStore}
			return m, err
		}
	}
	return s.open(fresh)
}

// The type "older" lists a project's older stores, whose tasks must be ended.
type older struct {
	stores []statedir.Store
	end    func(context.Context, statedir.Store) // ends the tasks in one store
	stop   context.CancelFunc                    // nil if there is nothing to do
	done   chan struct{}                         // closed when all stores have been handled, or after the function "stop" is called
}

// interruptOlder starts ending the tasks in the project's older stores whose processes are dead. It returns
// when this work is done or when ctx ends. If ctx ends first, the work continues while the server begins to
// answer, because the program that started the server waits only for a limited time.
func (s *serving) interruptOlder(ctx context.Context) {
	o := &s.older
	o.stores = slices.DeleteFunc(o.stores, func(at statedir.Store) bool { return !hasLive(at) })
	if len(o.stores) == 0 {
		return
	}
	working, stop := context.WithCancel(context.Background())
	o.stop, o.done = stop, make(chan struct{})
	go func() {
		defer close(o.done)
		for _, at := range o.stores {
			if working.Err() != nil {
				return
			}
			o.end(working, at)
		}
	}()
	select {
	case <-o.done:
	case <-ctx.Done():
	}
}

// interruptStore ends the tasks in a store, unless a living process uses the store.
func (s *serving) interruptStore(ctx context.Context, at statedir.Store) {
	m, err := openKept(at, s.copies, s.withStore)
	var owned *bgagent.StoreOwnedError
	switch {
	case errors.As(err, &owned):
	case err != nil:
		warn("%v", err)
	default:
		ctx, cancel := context.WithTimeout(ctx, interruptTime)
		defer cancel()
		interrupt(ctx, m)
		closing, cancel := context.WithTimeout(context.Background(), stopTime)
		defer cancel()
		_ = m.Close(closing)
	}
}

// The method "quit" tells interruptOlder to stop its work, but does not wait until the work has stopped.
func (o *older) quit() {
	if o.stop != nil {
		o.stop()
	}
}

// The method "await" waits until interruptOlder has stopped its work, or until ctx ends.
func (o *older) await(ctx context.Context) {
	if o.stop == nil {
		return
	}
	select {
	case <-o.done:
	case <-ctx.Done():
	}
}

// hasLive reports whether a store contains tasks that have not ended. If the store cannot be
// read, it returns false.
func hasLive(at statedir.Store) bool {
	r, err := sqlite.OpenReader(at.Dir)
	if err != nil {
		return false
	}
	defer r.Close()
	live, err := r.Live(context.Background())
	return err == nil && len(live) > 0
}

// interruptTime is the time limit for ending the tasks of an earlier process before mcp answers,
// and for ending the tasks in each of the project's other stores. Tasks that have not ended within
// this time are cancelled.
const interruptTime = 5 * time.Second

// restore takes over the tasks of an earlier process. The command "serve" continues them, and the command
// "mcp" ends them. It must be called after all start-up steps that can fail, so that a command that cannot
// serve changes no task.
func (s *serving) restore() {
	found := s.manager.Restored()
	if s.command == statedir.MCP {
		ctx, cancel := context.WithTimeout(context.Background(), interruptTime)
		defer cancel()
		interrupt(ctx, s.manager)
		s.interruptOlder(ctx)
		return
	}
	if found.Tasks == 0 {
		return
	}
	warn("%s", takingOver(found))
	s.manager.Start()
}

// takingOver returns the message about the tasks of an earlier process. Some of these tasks might have
// ended already, and are kept only because their parents have not been notified.
func takingOver(found bgagent.Restored) string {
	tasks := "1 task"
	if found.Tasks != 1 {
		tasks = fmt.Sprintf("%d tasks", found.Tasks)
	}
	if found.Seen.IsZero() { // for example, because the record of the earlier manager is damaged
		return "taking over " + tasks + " of an earlier bgagent"
	}
	return fmt.Sprintf("taking over %s of the bgagent that ended after %s", tasks, found.Seen.Local().Format(time.DateTime))
}

// interrupt starts a manager with the option InterruptRestored, and waits until the tasks of an earlier
// process have ended. If ctx ends first, it cancels the tasks that have not ended yet. These might still
// be stopping when the function "interrupt" returns.
func interrupt(ctx context.Context, m *bgagent.BackgroundManager) {
	if m.Restored().Tasks == 0 {
		return
	}
	var ids []string
	for _, t := range m.List(bgagent.Query{Status: []bgagent.Status{bgagent.Pending, bgagent.Running}}) {
		ids = append(ids, t.ID)
	}
	m.Start()
	if len(ids) == 0 {
		return
	}
	if _, err := m.Wait(ctx, bgagent.Caller{}, bgagent.WaitAll, ids...); err != nil {
		_, _ = m.CancelAll(ctx, bgagent.Caller{}, bgagent.CancelOptions{Reason: reasonInterrupted})
	}
}

// reasonInterrupted is the reason for cancelling a task that did not end in time.
const reasonInterrupted = "interrupted: the bgagent mcp that had this task was ended"

// suspend suspends the manager of the command "serve", unless the user interrupted the command. If
// the tasks are kept, the next serve continues them. Otherwise, they are cancelled.
func (s *serving) suspend(ctx context.Context, stop stops) {
	if s.command == statedir.Serve && !stop.interrupted.Load() {
		_ = s.manager.Suspend(ctx) // Close returns the same error
	}
}
