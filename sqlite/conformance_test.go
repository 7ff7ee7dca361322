package sqlite

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"

	"github.com/ncruces/go-sqlite3"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/race"
	"github.com/bgagent/bgagent/storetest"
)

func TestAStoreOnSQLiteKeepsThePromisesOfAStore(t *testing.T) {
	storetest.Conformance(t, storetest.Harness{New: func(t storetest.TB) storetest.Content { return newContent(t) }})
}

// newContent returns the content of a store in a folder, with all the functions that the suite
// supports.
func newContent(t storetest.TB) storetest.Content {
	c := contentOf(t, folder(t), Options{})
	if race.Enabled { // SQLite takes about ten times as long with the race detector
		const step = 8
		crashAt, first := c.CrashAt, rand.IntN(step) // CrashAt uses every step-th place, beginning with the place "first"
		c.CrashAt = func(s bgagent.Store, place int) { crashAt(s, first+step*place) }
	}
	return c
}

// contentOf returns the content of stores in the folder with the given options. For CrashAt, there is a
// place before each change that a process makes to a file.
func contentOf(t storetest.TB, dir string, o Options) storetest.Content {
	var mu sync.Mutex
	layers := map[bgagent.Store]*spy{}
	of := func(s bgagent.Store) (*Store, *spy) {
		mu.Lock()
		defer mu.Unlock()
		return s.(*Store), layers[s]
	}
	return storetest.Content{
		Process: func() bgagent.Store {
			s, sp := New(dir, o), newSpy(t, nil)
			s.vfs = sp.name
			mu.Lock()
			defer mu.Unlock()
			layers[s] = sp
			return s
		},
		Crash: func(s bgagent.Store) { crash(of(s)) },
		CrashAt: func(s bgagent.Store, place int) {
			_, sp := of(s)
			sp.set(func(act) error {
				if place--; place < 0 {
					return errDead
				}
				return nil
			})
		},
		LoseAnswer: func(s bgagent.Store) {
			_, sp := of(s)
			lost := false
			sp.set(func(a act) error {
				if a.what == "sync" && !lost {
					lost = true
					return syscall.EIO
				}
				return nil
			})
		},
		Damage: func(key string) {
			spoil(t, dir, "UPDATE records SET data = CAST('Data' || substr(CAST(data AS TEXT), 5) AS BLOB) WHERE key = ?", key)
		},
		DamageText: func(record, name string) {
			spoil(t, dir, "UPDATE texts SET text = CAST('The' || substr(CAST(text AS TEXT), 4) AS BLOB) WHERE record = (SELECT id FROM records WHERE key = ?) AND name = ?", record, name)
		},
	}
}

// spoil changes the database of a closed store, as a program that bypasses the store would.
func spoil(t storetest.TB, dir, sql string, args ...any) {
	t.Helper()
	conn, err := sqlite3.Open(dir + "/" + databaseName)
	if err != nil {
		t.Fatalf("%v", err)
	}
	err = run(conn, sql, args...)
	if n := conn.Changes(); err != nil || n != 1 {
		t.Fatalf("%s changed %d rows: %v", sql, n, err)
	}
	if err := conn.Close(); err != nil {
		t.Fatalf("%v", err)
	}
}

// open opens a store, which is closed at the end of the test.
func open(t testing.TB, s *Store) bgagent.StoreContents {
	t.Helper()
	c, err := s.Open(t.Context(), bgagent.StoreOwner{Instance: "i", PID: 1, Host: "here", Program: "a test"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() }) // fails if the store is already closed
	return c
}

func write(t testing.TB, s *Store, b *bgagent.StoreBatch) {
	t.Helper()
	if err := s.Write(t.Context(), b); err != nil {
		t.Fatal(err)
	}
}

// task returns the record of a live task.
func task(n int) bgagent.StoreRecord {
	return bgagent.StoreRecord{Key: fmt.Sprintf("bg_%04d", n), Kind: bgagent.StoreTask, Due: true, Data: []byte(fmt.Sprint("data ", n)), Agent: "worker"}
}
