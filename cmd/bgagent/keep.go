package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/statedir"
	"github.com/bgagent/bgagent/sqlite"
)

// stateFlags contains the flag that selects the state folder. Every command has it.
type stateFlags struct {
	State string `placeholder:"DIR" help:"Keep the tasks of run, mcp and serve in this folder, or keep none with \"none\". Default: $XDG_STATE_HOME/bgagent, or ~/.local/state/bgagent."`
}

// The method "keeps" reports whether tasks are kept.
func (f stateFlags) keeps() bool { return f.State != statedir.None }

// folder returns the folder with the stores. With --state none, it returns an error.
func (f stateFlags) folder() (statedir.Folder, error) {
	if !f.keeps() {
		return statedir.Folder{}, &exitError{exitInput, errors.New("with --state none, no tasks are kept; leave the flag out, or name a folder")}
	}
	dir := f.State
	if dir != "" {
		var err error
		if dir, err = filepath.Abs(dir); err != nil {
			return statedir.Folder{}, err
		}
	}
	return statedir.Open(dir)
}

// copyFlags contains the flag that makes a command use a store even if the store might be out of date.
type copyFlags struct {
	AcceptCopy bool `help:"Use kept tasks even if they may be a copy or lack the latest changes. None of them is continued: tasks that have not ended end as interrupted."`
}

// openKept creates the store if it does not exist, and calls the function "build", which
// creates a manager with the store. If the store cannot be used, the error is a [*keepError].
func openKept(at statedir.Store, copies copyFlags, build func(bgagent.Store) (*bgagent.BackgroundManager, error)) (*bgagent.BackgroundManager, error) {
	if err := at.Make(); err != nil {
		return nil, &keepError{at.Dir, err}
	}
	var store bgagent.Store
	kept := sqlite.New(at.Dir, sqlite.Options{Warn: func(err error) { warn("%v", err) }})
	if store = kept; !copies.AcceptCopy {
		store = original{kept}
	}
	m, err := build(store)
	if errors.Is(err, bgagent.ErrStore) {
		err = &keepError{at.Dir, err}
	}
	return m, err
}

// original is a store that must be up to date. If the store is a copy or lacks batches, Open returns an
// error unless all its tasks have ended.
type original struct{ *sqlite.Store }

// Open implements [bgagent.Store].
func (s original) Open(ctx context.Context, owner bgagent.StoreOwner) (bgagent.StoreContents, error) {
	c, err := s.Store.Open(ctx, owner)
	if err == nil && c.Outdated != "" && slices.ContainsFunc(c.Records, isLive) {
		// The store is closed before anything is written to it, because a store that has been written to is treated
		// as the original.
		err = errors.Join(fmt.Errorf("its tasks may have ended or may run elsewhere: %s. With --accept-copy, the store is used and none of its tasks is continued", c.Outdated), s.Store.Close())
	}
	return c, err
}

// isLive reports whether a record describes a task that has not ended.
func isLive(r bgagent.StoreRecord) bool {
	return r.Kind == bgagent.StoreTask && !r.Status.Terminal()
}

// keepError is the reason why tasks cannot be kept in a store.
type keepError struct {
	dir string // folder of the store
	err error
}

// Error implements error. The text also describes how the user can run the command anyway.
func (e *keepError) Error() string {
	var owned *bgagent.StoreOwnedError
	if errors.As(e.err, &owned) {
		return e.reason() + "; end that process first, or use another folder with --state DIR"
	}
	return e.reason() + "; use another folder with --state DIR, or keep no tasks with --state none"
}

// The method "reason" describes only the problem.
func (e *keepError) reason() string {
	var owned *bgagent.StoreOwnedError
	if errors.As(e.err, &owned) {
		return fmt.Sprintf("the tasks in %s belong to a running bgagent (process %d since %s)", e.dir, owned.Owner.PID, owned.Owner.Since.Local().Format(time.DateTime))
	}
	return fmt.Sprintf("tasks cannot be kept in %s: %v", e.dir, reasonOfStore(e.err))
}

// Unwrap returns the reason.
func (e *keepError) Unwrap() error { return e.err }

// reasonOfStore returns the error that the store itself returned. It leaves out the errors that the manager
// joined with that error.
func reasonOfStore(err error) error {
	for {
		joined, ok := err.(interface{ Unwrap() []error })
		if !ok || !errors.Is(err, bgagent.ErrStore) {
			return err
		}
		all := joined.Unwrap()
		err = all[len(all)-1]
	}
}

// sayRestored prints warnings about damaged records, and about a store that is not up to
// date.
func sayRestored(m *bgagent.BackgroundManager) {
	found := m.Restored()
	for _, d := range found.Damage {
		name := "a record"
		if d.Key != "" {
			name = "the record of " + d.Key
		}
		warn("%s cannot be used and is left as it is: %s", name, d.Problem)
	}
	if found.Outdated != "" {
		warn("the kept tasks may not be complete: %s", found.Outdated)
	}
}

// sweep removes old stores of the commands "run" and "mcp"; the constants below contain the limits. It also
// removes what unfinished removals left behind. A store of "serve" limits its own size, so the function
// "sweep" removes it only if its configuration file no longer exists. Errors are ignored, because the next
// call retries the removals. A command must open its own store before it calls the function "sweep", so that
// its store is not removed.
func sweep(f statedir.Folder) {
	stores, err := f.Stores()
	if err != nil {
		return
	}
	left, _ := filepath.Glob(filepath.Join(f.Dir(), gonePrefix+"*")) // stores that were only partly removed
	for _, dir := range left {
		_ = os.RemoveAll(dir)
	}
	var total int64
	removed := 0
	for _, s := range stores {
		if s.Kind == statedir.Serve {
			if s.Lost() && time.Since(s.Used()) > keepLive && removed < sweepMost && remove(s, false) {
				removed++
			}
			continue
		}
		size := s.Size()
		total += size
		age := time.Since(s.Used())
		if removed == sweepMost || age < keepFor && (total < keepBytes || age < time.Hour) {
			continue
		}
		if remove(s, age > keepLive) {
			removed++
			total -= size
		}
	}
}

const (
	keepFor   = 7 * 24 * time.Hour  // age at which a store of run or mcp is removed
	keepLive  = 30 * 24 * time.Hour // age at which such a store is removed even if it contains tasks that have not ended
	sweepMost = 16                  // maximum number of stores that one sweep removes

	gonePrefix = ".gone-" // prefix of the name that a store gets while it is being removed
)

// keepBytes limits the total size of the stores of run and mcp. If this size is exceeded, the
// stores that were written least recently are removed. A store is kept for at least an hour after
// it was last written. Tests reduce the limit.
var keepBytes int64 = 1 << 30

// remove removes a store and reports whether it was removed. A store is not removed while a living process
// uses it. A store with tasks that have not ended is removed only if the argument "live" is true.
func remove(s statedir.Store, live bool) bool {
	if !live {
		r, err := sqlite.OpenReader(s.Dir)
		if err != nil {
			return false
		}
		left, err := r.Live(context.Background())
		if errors.Join(err, r.Close()) != nil || len(left) > 0 {
			return false
		}
	}
	store := sqlite.New(s.Dir, sqlite.Options{})
	c, err := store.Open(context.Background(), ownerHere("cleanup"))
	if err != nil {
		return false
	}
	// The tasks are checked again, because another process might have used the store since it was read. A
	// store with a damaged record is kept, because the record might describe a task that has not ended.
	if !live && (len(c.Damage) > 0 || slices.ContainsFunc(c.Records, isLive)) {
		_ = store.Close()
		return false
	}
	// The store is renamed before its lock is released, so that no other process can open it between the two
	// steps.
	gone := filepath.Join(filepath.Dir(s.Dir), gonePrefix+s.Name())
	_ = os.RemoveAll(gone) // an unfinished removal might have left this folder behind; while it exists, Rename fails
	err = os.Rename(s.Dir, gone)
	_ = store.Close()
	return err == nil && os.RemoveAll(gone) == nil
}

// ownerHere describes this process as the owner of a store. It is for commands that open a store without a
// manager.
func ownerHere(command string) bgagent.StoreOwner {
	host, _ := os.Hostname()
	return bgagent.StoreOwner{Instance: command, PID: os.Getpid(), Host: host, Program: "bgagent " + command, Since: time.Now()}
}
