package sqlite

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/ncruces/go-sqlite3"

	"github.com/bgagent/bgagent"
)

// Reader reads a store, even while a manager has the store open. It does not change the
// database, and does not keep a transaction open between calls. Its methods are safe for
// concurrent use. After Close, all other methods return an error.
type Reader struct {
	mu sync.Mutex
	r  *reading // nil after Close
}

// OpenReader opens the store in the folder dir for reading. If there is no store, the error matches
// [fs.ErrNotExist].
func OpenReader(dir string) (*Reader, error) { return openReader(dir, "") }

func openReader(dir, vfs string) (*Reader, error) {
	real, err := checkFolder(dir)
	if err != nil {
		return nil, err
	}
	f := files{dir: real, vfs: vfs}
	info, err := os.Lstat(f.database())
	if err == nil && info.Size() == 0 {
		err = fs.ErrNotExist // the database has been created, but has no tables yet
	}
	if err != nil {
		return nil, fmt.Errorf("sqlite: there is no store in %s: %w", real, err)
	}
	if err := createBeforehand(f.database() + "-shm"); err != nil {
		return nil, f.explain("open", err)
	}
	r, err := openReading(f)
	if err != nil {
		return nil, err
	}
	return &Reader{r: r}, nil
}

// Owner returns the manager that last opened the store. The result "lives" is true if this manager still has
// the store open. For a copy without a lock file, Owner returns neither an owner nor an error.
func (r *Reader) Owner() (owner bgagent.StoreOwner, lives bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.r == nil {
		return owner, false, errClosed
	}
	owner, lives, err = lockHolder(filepath.Join(r.r.dir, lockName))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil // the folder is a copy without a lock file
	}
	return owner, lives, err
}

// Live returns the records of tasks that have not ended, in the order of their keys. It omits
// records that cannot be read.
func (r *Reader) Live(ctx context.Context) (records []bgagent.StoreRecord, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.r == nil {
		return nil, errClosed
	}
	defer r.r.during(ctx)()
	records, err = r.r.page("SELECT "+columns+" FROM records WHERE due = 1 AND kind = 'task' AND ended = '' ORDER BY key", nil, math.MaxInt)
	if err != nil {
		return nil, r.r.failed(ctx, "read", err)
	}
	return records, nil
}

// History returns a page of tasks that have ended, as described in [bgagent.Store].
func (r *Reader) History(ctx context.Context, q bgagent.StoreQuery) ([]bgagent.StoreRecord, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.r == nil {
		return nil, errClosed
	}
	return r.r.history(ctx, q)
}

// Text returns one of a record's texts, as described in [bgagent.Store].
func (r *Reader) Text(ctx context.Context, record, name string) (string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.r == nil {
		return "", errClosed
	}
	return r.r.text(ctx, record, name)
}

// Check reads the whole database and returns the damage that it finds. It checks the structure of
// the database and each record and text. It takes a few seconds per GiB. If the error is not nil,
// the check is incomplete.
func (r *Reader) Check(ctx context.Context) (damage []bgagent.StoreDamage, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.r == nil {
		return nil, errClosed
	}
	defer r.r.during(ctx)()
	found := func(key, problem string) {
		damage = append(damage, bgagent.StoreDamage{Key: key, Problem: problem})
	}
	err = r.r.each("PRAGMA integrity_check", func(s *sqlite3.Stmt) {
		if text := s.ColumnText(0); text != "ok" {
			found("", text)
		}
	})
	if err == nil {
		err = r.r.each("SELECT "+columns+" FROM records", func(s *sqlite3.Stmt) {
			if rec, _, problem := scan(s); problem != "" {
				found(rec.Key, problem)
			}
		})
	}
	if err == nil {
		err = r.r.each("SELECT r.key, t.name, t.sum, t.text FROM texts t LEFT JOIN records r ON r.id = t.record", func(s *sqlite3.Stmt) {
			key, name := s.ColumnText(0), s.ColumnText(1)
			if s.ColumnInt64(2) != sumOf(key, name, string(s.ColumnRawBlob(3))) {
				found(key, fmt.Sprintf("the checksum of its text %q is wrong", name))
			}
		})
	}
	switch {
	case ctx.Err() != nil:
		return damage, ctx.Err()
	case errors.Is(err, sqlite3.CORRUPT):
		found("", err.Error())
	case err != nil:
		return damage, r.r.explain("check", err)
	}
	return damage, nil
}

// The method "each" executes the statement and calls f for each row.
func (r *reading) each(sql string, f func(*sqlite3.Stmt)) error {
	s, _, err := r.conn.Prepare(sql)
	if err != nil {
		return err
	}
	defer s.Close()
	for s.Step() {
		f(s)
	}
	return s.Err()
}

// Backup writes a copy of the store into a new file, which only its owner can access. It returns an error if
// the file already exists. To use the copy, put it into an empty folder with the mode 0700, under the name
// tasks.db. When a manager opens the copy, [bgagent.StoreContents].Outdated states that it is a backup, so
// the manager does not automatically continue any of its tasks.
func (r *Reader) Backup(ctx context.Context, path string) (err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.r == nil {
		return errClosed
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|noFollow, 0o600)
	if err != nil {
		return fmt.Errorf("sqlite: the backup cannot be made: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(path))
		}
	}()
	if err := f.Close(); err != nil {
		return fmt.Errorf("sqlite: the backup cannot be made: %w", err)
	}
	defer r.r.during(ctx)()
	if err := run(r.r.conn, "VACUUM INTO ?", path); err != nil {
		return r.r.failed(ctx, "back up", err)
	}
	return markCopy(path, fmt.Sprintf("it is a backup of %s, made at %s", r.r.dir, time.Now().UTC().Format(time.RFC3339)))
}

// markCopy marks a database as a backup.
func markCopy(path, what string) error {
	conn, err := sqlite3.OpenFlags(path, sqlite3.OPEN_READWRITE|sqlite3.OPEN_NOFOLLOW)
	if err != nil {
		return fmt.Errorf("sqlite: the backup cannot be opened: %w", err)
	}
	return errors.Join(conn.Exec("PRAGMA synchronous=FULL"), run(conn, "UPDATE meta SET copy = ?", what), conn.Close())
}

// Close closes the reader. Later calls to Close do nothing.
func (r *Reader) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.r == nil {
		return nil
	}
	err := r.r.close()
	r.r = nil
	return err
}

// byName returns the keys of the map in the order of its values.
func byName(names map[int64]string) []int64 {
	return slices.SortedFunc(maps.Keys(names), func(a, b int64) int {
		switch {
		case names[a] < names[b]:
			return -1
		case names[a] > names[b]:
			return 1
		}
		return 0
	})
}
