// Package sqlite keeps the tasks of a manager in an SQLite database. It implements [bgagent.Store]
// and is written entirely in Go.
//
//	store := sqlite.New("/var/lib/myprogram/tasks", sqlite.Options{})
//
// The store is a separate folder with the mode 0700. It contains prompts and answers as plain
// text.
//
//   - The file tasks.db is the database. While the database is in use, the files tasks.db-wal and
//     tasks.db-shm exist next to it. The file tasks.db-wal is usually no larger than 16 MiB. Only SQLite may
//     open these files. On some systems, any other program that opens and closes them, for example to copy
//     them, can break SQLite's locks. [Reader.Backup] makes a copy.
//   - The file named lock belongs to the manager that has the store open. It also contains the number of the
//     last batch, because a database that has lost its tasks.db-wal gives no sign that batches are missing.
//
// The store needs a local file system. Open returns an error if it recognizes a network file
// system.
//
// # Tables
//
// People can read the database while it is in use, for example with the program sqlite3 and its
// option -readonly. Use the views tasks, sessions and prose:
//
//	select id, status, agent, launched, ended from tasks order by launched desc limit 20;
//	select text from prose where task = 'bg_…' and name = 'result.1';
//
// The views are based on three tables: "records" has one row for each task, for each session that
// delegates, and for the manager itself; "texts" contains the texts; "meta" has one row about the
// store. The columns of the tables may change in a new version.
package sqlite

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/ncruces/go-sqlite3"

	"github.com/bgagent/bgagent"
)

// Options contains the settings of a store. The zero value selects the defaults.
type Options struct {
	// KeepFor is the time for which a task is kept after its end. A task whose completion has not been
	// reported yet is kept longer. KeepTasks is the maximum number of ended tasks that are kept, not counting
	// those whose completion has not been reported yet. The store deletes tasks when it is opened and when
	// other tasks end. It begins with the tasks that ended first. Zero means the default, and a negative
	// value means no limit.
	KeepFor   time.Duration // 7 days by default
	KeepTasks int           // 100,000 by default

	// KeepBytes is the maximum size of the database. If the database is larger, the store deletes the tasks
	// that ended first. Zero means 1 GiB, and a negative value means no limit. Live tasks, and tasks whose
	// completion has not been reported yet, are always kept.
	KeepBytes int64

	// Warn is called for problems that occur outside of the manager's calls. The error is a [*WALError], an
	// error from the store's upkeep, or a report of damage. The store checks for damage if a text or a page
	// could not be read. Warn is called on a goroutine of the store and must not call the store. If Warn is
	// nil, such errors are dropped.
	Warn func(error)
}

func (o Options) withDefaults() Options {
	if o.KeepFor == 0 {
		o.KeepFor = 7 * 24 * time.Hour
	}
	if o.KeepTasks == 0 {
		o.KeepTasks = 100_000
	}
	if o.KeepBytes == 0 {
		o.KeepBytes = 1 << 30
	}
	if o.Warn == nil {
		o.Warn = func(error) {}
	}
	return o
}

// Store is a [bgagent.Store] in a folder. Its methods are safe for concurrent use. Call [New] to
// make a Store.
type Store struct {
	dir     string
	options Options
	vfs     string // file system layer for SQLite in tests; empty for the operating system's own

	life sync.Mutex // held during Open, Reopen and Close

	held *lock              // lock of a store whose Reopen has failed; guarded by the field "life"
	last bgagent.StoreOwner // owner that last opened the store; guarded by the field "life"

	mu     sync.Mutex // guards the following fields, and is held while the writer is used
	w      *writer    // nil while the store is closed
	doubt  bool       // it is unknown whether the last commit succeeded, so Open must check
	token  string     // token of the writer that last opened the store
	reader lockedReader
	upkeep *upkeep
}

var (
	_ bgagent.Store         = (*Store)(nil)
	_ bgagent.StoreReopener = (*Store)(nil)
)

// lockedReader is the connection that Text and History use.
type lockedReader struct {
	sync.Mutex
	*reading
	suspicious func() // requests a check of the database
}

var errClosed = errors.New("sqlite: the store is not open")

// New returns a store in the folder dir. It does not access the folder. Open creates the folder if
// it does not exist.
func New(dir string, o Options) *Store { return &Store{dir: dir, options: o.withDefaults()} }

// Open opens the store for the owner. It implements [bgagent.Store]. It returns an error if the
// store is already open, if other users can access the folder, or if the database belongs to
// another program or a newer version. If the disk is full, the error matches [ErrDiskFull].
func (s *Store) Open(ctx context.Context, owner bgagent.StoreOwner) (c bgagent.StoreContents, err error) {
	s.life.Lock()
	defer s.life.Unlock()
	if err := ctx.Err(); err != nil {
		return c, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.w != nil || s.held != nil {
		return c, errors.New("sqlite: the store is already open")
	}
	dir, err := makeFolder(s.dir)
	if err != nil {
		return c, err
	}
	lock, err := takeLock(filepath.Join(dir, lockName), owner)
	if err != nil {
		return c, err
	}
	if c, err = s.open(dir, lock, owner); err != nil {
		return c, errors.Join(err, lock.close())
	}
	return c, nil
}

// Reopen opens the store again after a Write whose result is uncertain. It implements
// [bgagent.StoreReopener]. The store keeps its lock, so no other manager can open it.
func (s *Store) Reopen(ctx context.Context) (c bgagent.StoreContents, err error) {
	s.life.Lock()
	defer s.life.Unlock()
	if err := ctx.Err(); err != nil {
		return c, err
	}
	if w, r := s.halt(); w != nil {
		_ = errors.Join(r.close(), w.disconnect()) // errors do not matter, because these calls return the failure of the last write again, which has already been reported
		s.held = w.lock
	}
	if s.held == nil {
		return c, errClosed
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.doubt = true
	dir, err := checkFolder(s.dir)
	if err != nil {
		return c, err
	}
	if c, err = s.open(dir, s.held, s.last); err == nil {
		s.held = nil
	}
	return c, err
}

// open opens the database of a store whose lock is held.
func (s *Store) open(dir string, lock *lock, owner bgagent.StoreOwner) (c bgagent.StoreContents, err error) {
	w := &writer{files: files{dir: dir, vfs: s.vfs}, lock: lock, owner: owner}
	if s.doubt && owner.Instance == s.last.Instance {
		w.token = s.token
	}
	if c, err = w.open(s.doubt); err != nil {
		return bgagent.StoreContents{}, errors.Join(err, w.disconnect())
	}
	r, err := openReading(w.files)
	if err != nil {
		return bgagent.StoreContents{}, errors.Join(err, w.disconnect())
	}
	s.w, s.doubt, s.token, s.last = w, false, w.token, owner
	s.upkeep = newUpkeep(s)
	s.reader.Lock()
	s.reader.reading, s.reader.suspicious = r, s.upkeep.suspicious
	s.reader.Unlock()
	go s.upkeep.run()
	return c, nil
}

// open connects to the database and reads the contents of the store.
func (w *writer) open(doubt bool) (c bgagent.StoreContents, err error) {
	if err = w.connect(); err != nil {
		return c, w.explain("open", err)
	}
	if err = w.makeSure(doubt); err != nil {
		return c, w.explain("open", err)
	}
	if c.Outdated, err = w.adopt(); err != nil {
		return c, w.explain("open", err)
	}
	c.Batch = w.batch
	c.Records, c.Damage, err = w.load()
	if err != nil {
		return c, w.explain("open", err)
	}
	if w.short != "" {
		c.Damage = append(c.Damage, bgagent.StoreDamage{Problem: w.short})
	}
	return c, nil
}

// Write writes the batch. It implements [bgagent.Store]. If the disk is full, the error matches
// [ErrDiskFull].
func (s *Store) Write(ctx context.Context, b *bgagent.StoreBatch) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.w == nil:
		return errClosed
	case s.doubt:
		return fmt.Errorf("sqlite: a commit has failed, and the store must be opened again: %w", bgagent.ErrUncertain)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := s.w.write(b); err != nil {
		s.doubt = errors.Is(err, bgagent.ErrUncertain)
		return s.w.explain(fmt.Sprintf("write batch %d", b.Number), err)
	}
	s.upkeep.wrote(s.w.pages, endedIn(b))
	return nil
}

func endedIn(b *bgagent.StoreBatch) (n int) {
	for i := range b.Records {
		if !b.Records[i].Ended.IsZero() {
			n++
		}
	}
	return n
}

// Text returns one of a record's texts. It implements [bgagent.Store].
func (s *Store) Text(ctx context.Context, record, name string) (string, error) {
	s.reader.Lock()
	defer s.reader.Unlock()
	if s.reader.reading == nil {
		return "", errClosed
	}
	text, err := s.reader.text(ctx, record, name)
	s.suspect(err)
	return text, err
}

// History returns a page of tasks that have ended. It implements [bgagent.Store].
func (s *Store) History(ctx context.Context, q bgagent.StoreQuery) ([]bgagent.StoreRecord, error) {
	s.reader.Lock()
	defer s.reader.Unlock()
	if s.reader.reading == nil {
		return nil, errClosed
	}
	page, err := s.reader.history(ctx, q)
	s.suspect(err)
	return page, err
}

// The method "suspect" requests a check of the database if the error shows that data is damaged.
func (s *Store) suspect(err error) {
	if errors.Is(err, errDamaged) || errors.Is(err, sqlite3.CORRUPT) {
		s.reader.suspicious()
	}
}

// Close closes the store. It implements [bgagent.Store].
func (s *Store) Close() error {
	s.life.Lock()
	defer s.life.Unlock()
	if held := s.held; held != nil {
		s.held = nil
		return held.close()
	}
	w, r := s.halt()
	if w == nil {
		return nil
	}
	err := errors.Join(r.close(), w.close())
	if s.doubt { // the connection returns the failure of the last write again, but that failure has already been reported
		return nil
	}
	return err
}

// halt makes all later calls fail, and waits for calls that have already begun. It returns the
// connections, which the caller must close. If the store is not open, it returns nil.
func (s *Store) halt() (*writer, *reading) {
	s.mu.Lock()
	w, up := s.w, s.upkeep
	s.w, s.upkeep = nil, nil
	s.mu.Unlock()
	if w == nil {
		return nil, nil
	}
	up.stop()
	s.reader.Lock()
	defer s.reader.Unlock()
	r := s.reader.reading
	s.reader.reading = nil
	return w, r
}

// WALError reports that the file tasks.db-wal does not shrink. The cause is a reader that keeps a
// transaction open for a long time, or a disk error. The file continues to grow until the cause is removed.
type WALError struct {
	Bytes int64
	Err   error // error that prevented the file from being shortened; nil if the cause is a reader
}

// Error returns a message that contains the size of the file and the cause.
func (e *WALError) Error() string {
	why := "a program that reads it keeps a transaction open"
	if e.Err != nil {
		why = e.Err.Error()
	}
	return fmt.Sprintf("sqlite: the file tasks.db-wal has %d MiB and cannot be shortened: %s", e.Bytes>>20, why)
}

// Unwrap returns e.Err.
func (e *WALError) Unwrap() error { return e.Err }
