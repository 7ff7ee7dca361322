// Package peers compares a manager that has a store on SQLite with other libraries that keep jobs in SQLite,
// and a manager that has a store and slots on NATS with River on Postgres. It is a separate module, because
// these libraries have many dependencies.
package peers

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/bgagent/bgagent/bench"
)

// system runs tasks and keeps them in a database.
type system interface {
	// The method "run" runs n tasks, which the given number of goroutines submit. It returns when
	// all of them have ended.
	run(n, submitters int) error
	close() error
}

// opener opens a system in a new folder. At most inFlight of its tasks run at the same time.
type opener func(dir string, inFlight int) (system, error)

// peers are the other libraries, each with the bgagent configuration that it is compared with.
var peers = []struct {
	name      string
	open, own opener
}{{"River", openRiver, openOwn}, {"DBOS", openDBOS, openOwn}, {"RiverOnPostgres", openRiverOnPostgres, openOwnOnNATS}}

// database opens a database with a write-ahead log that every commit syncs. It has a single connection:
// River's documentation recommends this, and DBOS is faster with one connection than with its default of
// eight, because waiting goroutines then do not have to retry.
func database(path string) (*sql.DB, error) {
	if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_txlock=immediate")
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	return db, syncsFully(db)
}

// syncsFully returns an error if the connection does not sync every commit.
func syncsFully(db *sql.DB) error {
	var mode string
	var level int
	if err := errors.Join(
		db.QueryRowContext(context.Background(), "PRAGMA journal_mode").Scan(&mode),
		db.QueryRowContext(context.Background(), "PRAGMA synchronous").Scan(&level),
	); err != nil {
		return err
	}
	if mode != "wal" || level != 2 {
		return fmt.Errorf("the journal mode is %s and synchronous is %d, not wal and 2 (FULL)", mode, level)
	}
	return nil
}

// The type "own" stands for bgagent. Its tasks have a prompt, a result and a notice, and their
// store has checksums and indexes for the history.
type own struct{ *bench.StoreTasks }

func openOwn(dir string, inFlight int) (system, error) {
	t, err := bench.OpenStoreTasks(dir, inFlight)
	return own{t}, err
}

func (o own) run(n, submitters int) error { return o.Run(n, submitters) }
func (o own) close() error                { return o.Close() }
