package main

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/statedir"
	"github.com/bgagent/bgagent/internal/tempdir"
	"github.com/bgagent/bgagent/sqlite"
	"github.com/stretchr/testify/require"
)

// storeWith creates a store of the given kind with the record of one task. The argument "ended" is the time
// since the task ended; if it is 0, the task has not ended. The argument "age" is the time since the store
// was last written.
func storeWith(t *testing.T, f statedir.Folder, kind, id string, ended, age time.Duration) statedir.Store {
	t.Helper()
	s, err := f.Results(tempdir.New(t), id)
	require.NoError(t, err)
	s.Kind = kind
	if kind == statedir.Serve {
		s.Dir = filepath.Join(f.Dir(), "serve-x-"+id)
	}
	require.NoError(t, s.Make())
	store := sqlite.New(s.Dir, sqlite.Options{})
	_, err = store.Open(context.Background(), ownerHere("test"))
	require.NoError(t, err)
	rec := bgagent.StoreRecord{Key: "bg_" + id, Kind: bgagent.StoreTask, Status: bgagent.Running, Due: true, Data: []byte("{}"), Launched: time.Now()}
	if ended > 0 {
		rec.Status, rec.Due, rec.Ended = bgagent.Completed, false, time.Now().Add(-ended)
	}
	require.NoError(t, store.Write(context.Background(), &bgagent.StoreBatch{Number: 1, Records: []bgagent.StoreRecord{rec}}))
	require.NoError(t, store.Close())
	entries, err := os.ReadDir(s.Dir)
	require.NoError(t, err)
	for _, e := range entries {
		at := time.Now().Add(-age)
		require.NoError(t, os.Chtimes(filepath.Join(s.Dir, e.Name()), at, at))
	}
	return s
}

// The removal of a store can be interrupted, for example because the process exits.
func TestWhatAnEarlierRemovalHasLeftIsRemoved(t *testing.T) {
	f, err := statedir.Open(tempdir.New(t))
	require.NoError(t, err)
	old := storeWith(t, f, statedir.Run, "old", time.Second, 8*24*time.Hour)
	for _, name := range []string{old.Name(), "run-another-1"} {
		left := filepath.Join(f.Dir(), gonePrefix+name)
		require.NoError(t, os.Mkdir(left, 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(left, "tasks.db"), []byte("x"), 0o600))
	}
	require.True(t, remove(old, false), "the remains of the first removal are not in the way")
	require.NoDirExists(t, old.Dir)
	sweep(f)
	left, err := os.ReadDir(f.Dir())
	require.NoError(t, err)
	require.Empty(t, left)
}

func TestOldStoresAreRemovedAndNothingElse(t *testing.T) {
	const day = 24 * time.Hour
	f, err := statedir.Open(tempdir.New(t))
	require.NoError(t, err)
	old := storeWith(t, f, statedir.Run, "old", time.Second, 8*day)
	ancient := storeWith(t, f, statedir.Run, "ancient", 0, 31*day)
	lost := func(s statedir.Store) statedir.Store {
		require.NoError(t, os.Remove(s.Path))
		return s
	}
	forgotten := lost(storeWith(t, f, statedir.Serve, "forgotten", time.Second, 40*day))
	keep := []statedir.Store{
		lost(storeWith(t, f, statedir.Serve, "moved", time.Second, 20*day)),
		lost(storeWith(t, f, statedir.Serve, "unfinished", 0, 40*day)),
		storeWith(t, f, statedir.Run, "young", time.Second, 6*day),
		storeWith(t, f, statedir.Run, "live", 0, 8*day),
		storeWith(t, f, statedir.Serve, "served", time.Second, 40*day),
	}
	used := storeWith(t, f, statedir.MCP, "used", time.Second, 0)
	store := sqlite.New(used.Dir, sqlite.Options{})
	_, err = store.Open(context.Background(), ownerHere("test"))
	require.NoError(t, err)
	defer store.Close()
	at := time.Now().Add(-40 * day)
	for _, name := range []string{"lock", "tasks.db", "about.json"} {
		require.NoError(t, os.Chtimes(filepath.Join(used.Dir, name), at, at))
	}
	sweep(f)
	require.NoDirExists(t, old.Dir)
	require.NoDirExists(t, ancient.Dir)
	require.NoDirExists(t, forgotten.Dir)
	for _, s := range append(keep, used) {
		require.DirExists(t, s.Dir)
	}
	left, err := os.ReadDir(f.Dir())
	require.NoError(t, err)
	require.Len(t, left, 6)
}

func TestStoresOfServeDoNotCountAgainstThoseOfRun(t *testing.T) {
	f, err := statedir.Open(tempdir.New(t))
	require.NoError(t, err)
	served := storeWith(t, f, statedir.Serve, "served", time.Second, 0)
	one := storeWith(t, f, statedir.Run, "one", time.Second, 2*time.Hour)
	two := storeWith(t, f, statedir.Run, "two", time.Second, 3*time.Hour)
	left := filepath.Join(f.Dir(), gonePrefix+"run-x-three")
	require.NoError(t, os.MkdirAll(left, 0o700))
	defer func(was int64) { keepBytes = was }(keepBytes)
	keepBytes = one.Size() + two.Size() + 1
	sweep(f)
	for _, s := range []statedir.Store{served, one, two} {
		require.DirExists(t, s.Dir)
	}
	require.NoDirExists(t, left)
	keepBytes = one.Size() + 1
	sweep(f)
	require.NoDirExists(t, two.Dir)
	require.DirExists(t, one.Dir)
}

func TestOlderStoresDoNotDelayTheAnswerToTheHandshake(t *testing.T) {
	f, err := statedir.Open(tempdir.New(t))
	require.NoError(t, err)
	var stores []statedir.Store
	for _, id := range []string{"a", "b", "c"} {
		stores = append(stores, storeWith(t, f, statedir.MCP, id, 0, 0))
	}
	synctest.Test(t, func(t *testing.T) {
		var begun []string
		s := &serving{older: older{stores: stores, end: func(ctx context.Context, at statedir.Store) {
			begun = append(begun, at.Name())
			<-ctx.Done() // for example, a server that does not answer
		}}}
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), interruptTime)
		defer cancel()
		s.interruptOlder(ctx)
		require.Equal(t, interruptTime, time.Since(began))
		s.older.quit()
		s.older.await(t.Context())
		require.Equal(t, interruptTime, time.Since(began))
		require.Equal(t, []string{stores[0].Name()}, begun)
	})
}

func TestTheMessageAboutContinuedTasksNamesATimeOnlyIfItIsKnown(t *testing.T) {
	require.Equal(t, "taking over 2 tasks of an earlier bgagent", takingOver(bgagent.Restored{Tasks: 2}))
	seen := time.Date(2026, 2, 3, 4, 5, 6, 0, time.Local)
	require.Equal(t, "taking over 1 task of the bgagent that ended after 2026-02-03 04:05:06", takingOver(bgagent.Restored{Tasks: 1, Seen: seen}))
}
