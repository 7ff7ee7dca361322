package sqlite

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/ncruces/go-sqlite3"
)

const (
	pageSize        = 4096
	checkpointPages = 1000             // number of pages in the WAL at which a checkpoint is due
	keptWAL         = 16 << 20         // maximum size, in bytes, of a WAL that a checkpoint leaves to be overwritten
	largeWAL        = 64 << 20         // number of bytes in the WAL above which a warning is issued
	pruneEvery      = 64               // number of ended tasks after which the limits are checked again
	pruneStep       = 100              // maximum number of tasks that one transaction deletes
	vacuumStep      = 256              // maximum number of pages that one transaction returns to the file system
	vacuumLeast     = 16               // number of unused pages below which none are returned
	retryMin        = time.Second      // first pause after a failed checkpoint or other failed upkeep
	retryMax        = 30 * time.Second // longest pause after failed upkeep; each pause is twice as long as the previous one
	prunePause      = 10 * time.Minute // time after which the limits are checked again even if few tasks end
)

// upkeep maintains a store in the background. It copies the WAL into the database, deletes ended tasks in
// excess of the limits, and returns unused pages to the file system. It has its own connection, so that most
// of this work does not delay commits. Only the short steps that hold the store's lock delay commits.
type upkeep struct {
	s     *Store
	f     files
	wake  chan struct{}
	quit  chan struct{}
	gone  chan struct{}
	ctx   context.Context // ends when the upkeep is stopped
	end   context.CancelFunc
	pages atomic.Int64 // number of pages in the WAL
	ended atomic.Int64 // number of tasks that have ended since the limits were last checked
	doubt atomic.Bool  // damaged data was read
	conn  *sqlite3.Conn

	// Only the goroutine of the upkeep uses the following fields.
	pruned time.Time
	said   bool // a warning reported that the WAL is large
	looked bool // the database has been checked for damage
}

func newUpkeep(s *Store) *upkeep {
	u := &upkeep{s: s, f: s.w.files, wake: make(chan struct{}, 1), quit: make(chan struct{}), gone: make(chan struct{})}
	u.ctx, u.end = context.WithCancel(context.Background())
	return u
}

// wrote must be called after a batch is written. It records the number of pages in the WAL and the number of
// tasks that ended, and wakes the upkeep if there might be work.
func (u *upkeep) wrote(pages, ended int) {
	u.pages.Store(int64(pages))
	if all := u.ended.Add(int64(ended)); pages >= checkpointPages || all >= pruneEvery || ended > 0 {
		select {
		case u.wake <- struct{}{}:
		default:
		}
	}
}

// The method "suspicious" must be called if damaged data was read. The upkeep then checks the database, but
// only once.
func (u *upkeep) suspicious() {
	u.doubt.Store(true)
	select {
	case u.wake <- struct{}{}:
	default:
	}
}

// The method "look" checks the structure of the database if damaged data was read, and reports the result
// with a warning.
func (u *upkeep) look() error {
	if u.looked || !u.doubt.Load() {
		return nil
	}
	u.looked = true
	conn, err := u.connected()
	if err != nil {
		return err
	}
	conn.SetInterrupt(u.ctx) // the check can take a long time, and Close waits for the upkeep
	text, err := ask(conn, "PRAGMA integrity_check(1)")
	conn.SetInterrupt(context.Background())
	switch {
	case u.ctx.Err() != nil:
		return nil
	case err != nil:
		return err
	case text == "ok":
		text = "its structure is intact, but some of its texts or records are not"
	}
	u.s.options.Warn(fmt.Errorf("sqlite: %s: %w: %s", u.f.database(), errDamaged, text))
	return nil
}

// The method "stop" stops the goroutine and waits until it has returned.
func (u *upkeep) stop() {
	if u != nil {
		close(u.quit)
		u.end()
		<-u.gone
	}
}

func (u *upkeep) run() {
	defer close(u.gone)
	defer func() {
		if u.conn != nil {
			_ = u.conn.Close() // an error does not matter, because the changes of this connection are already committed
		}
	}()
	pause := retryMin
	for {
		err := errors.Join(u.look(), u.prune())
		done := true
		if err == nil && u.pages.Load() >= checkpointPages {
			done, err = u.checkpoint()
		}
		if err != nil {
			u.failed(err)
		}
		if done && err == nil {
			pause = retryMin
			if !u.wait(nil) {
				return
			}
			continue
		}
		t := time.NewTimer(pause)
		pause = min(2*pause, retryMax)
		goOn := u.wait(t.C)
		t.Stop()
		if !goOn {
			return
		}
	}
}

// The method "wait" waits for work or for the next retry. It returns false if the store is being closed.
func (u *upkeep) wait(again <-chan time.Time) bool {
	select {
	case <-u.quit:
		return false
	case <-u.wake:
	case <-again:
	}
	return true
}

// The method "failed" warns about failed upkeep. After a failed write, it is unknown which part of the WAL is
// on the disk. Therefore, the method makes the manager open the store again. This makes the contents of the
// store durable; see [writer.makeSure].
func (u *upkeep) failed(err error) {
	if errors.Is(err, sqlite3.BUSY) || errors.Is(err, errDoubt) {
		return
	}
	if u.conn != nil {
		_ = u.conn.Close() // an error does not matter, because the connection is not used any more
		u.conn = nil
	}
	u.s.mu.Lock()
	if u.s.w != nil && errors.Is(err, sqlite3.IOERR) {
		u.s.doubt = true
	}
	u.s.mu.Unlock()
	u.s.options.Warn(u.f.explain("upkeep", err))
}

// The method "connected" returns the upkeep's own connection, and opens it if necessary.
func (u *upkeep) connected() (*sqlite3.Conn, error) {
	if u.conn != nil {
		return u.conn, nil
	}
	conn, err := u.f.connect(true)
	if err != nil {
		return nil, err
	}
	u.conn = conn
	return conn, conn.BusyTimeout(0)
}

// checkpoint copies the WAL into the database. Most of the copying does not block the writer. The writer is
// blocked only at the end, while the batches that were written during the first part are copied. Unless the WAL
// is large, the file keeps its size, because a sync takes longer after a file has grown. If another connection
// prevents the copying, the result "done" is false, and the error is nil.
func (u *upkeep) checkpoint() (done bool, err error) {
	conn, err := u.connected()
	if err != nil {
		return false, err
	}
	if _, _, err = conn.WALCheckpoint("main", sqlite3.CHECKPOINT_PASSIVE); err == nil {
		u.s.mu.Lock()
		mode := sqlite3.CHECKPOINT_RESTART
		if info, err := os.Lstat(u.f.database() + "-wal"); err != nil || info.Size() > keptWAL {
			mode = sqlite3.CHECKPOINT_TRUNCATE
		}
		if _, _, err = conn.WALCheckpoint("main", mode); err == nil {
			u.pages.Store(0)
			if u.s.w != nil {
				err = u.s.w.lock.sync()
			}
		}
		u.s.mu.Unlock()
	}
	done = err == nil
	if errors.Is(err, sqlite3.BUSY) {
		err = nil
	}
	bytes := u.pages.Load() * pageSize
	if large := bytes > largeWAL; large != u.said {
		if u.said = large; large {
			u.s.options.Warn(&WALError{Bytes: bytes, Err: err})
		}
	}
	return done, err
}

// prune deletes the tasks that have ended and exceed a limit, and then returns unused pages to
// the file system.
func (u *upkeep) prune() error {
	if u.ended.Load() < pruneEvery && time.Since(u.pruned) < prunePause {
		return nil
	}
	u.ended.Store(0)
	u.pruned = time.Now()
	if o := u.s.options; o.KeepFor < 0 && o.KeepTasks < 0 && o.KeepBytes < 0 {
		return nil
	}
	conn, err := u.connected()
	if err != nil {
		return err
	}
	for {
		sql, err := u.excess(conn)
		if err != nil || sql == "" {
			return errors.Join(err, u.vacuum(conn))
		}
		if err := u.write(func() error { return remove(conn, sql) }); err != nil {
			return err
		}
		select {
		case <-u.quit:
			return nil
		default:
		}
	}
}

// The method "write" calls f while the manager is prevented from writing. If the store must be opened again,
// it returns errDoubt and does not call f.
func (u *upkeep) write(f func() error) error {
	u.s.mu.Lock()
	defer u.s.mu.Unlock()
	if u.s.doubt {
		return errDoubt
	}
	return f()
}

// errDoubt stops the upkeep of a store that must be opened again.
var errDoubt = errors.New("the store must be opened again")

// excess returns a statement that selects the records to be deleted next. If no limit is
// exceeded, it returns "".
func (u *upkeep) excess(conn *sqlite3.Conn) (sql string, err error) {
	const earliest = "SELECT id FROM records WHERE ended <> '' AND due = 0 AND kind = 'task'%s ORDER BY ended LIMIT %d"
	o := u.s.options
	if o.KeepFor > 0 {
		old := fmt.Sprintf(" AND ended < '%s'", time.Now().Add(-o.KeepFor).UTC().Format(timeForm))
		sql = fmt.Sprintf(earliest, old, pruneStep)
		if id, err := askInt(conn, sql); err != nil || id != 0 {
			return sql, err
		}
	}
	n, err := askInt(conn, "SELECT count(*) FROM records WHERE ended <> '' AND due = 0")
	if err != nil || n == 0 {
		return "", err
	}
	if o.KeepTasks > 0 && n > int64(o.KeepTasks) {
		return fmt.Sprintf(earliest, "", min(n-int64(o.KeepTasks), pruneStep)), nil
	}
	pages, unused, err := sizes(conn)
	if err != nil {
		return "", err
	}
	used := (pages - unused) * pageSize
	if o.KeepBytes > 0 && used > o.KeepBytes { // assumes that each task takes up an average amount of space
		return fmt.Sprintf(earliest, "", min(1+(used-o.KeepBytes)*n/used, pruneStep)), nil
	}
	return "", nil
}

func sizes(conn *sqlite3.Conn) (pages, unused int64, err error) {
	if pages, err = askInt(conn, "PRAGMA page_count"); err == nil {
		unused, err = askInt(conn, "PRAGMA freelist_count")
	}
	return pages, unused, err
}

// remove deletes the selected records and their texts.
func remove(conn *sqlite3.Conn, selected string) (err error) {
	tx, err := conn.BeginImmediate()
	if err != nil {
		return err
	}
	defer tx.End(&err)
	if err := conn.Exec("DELETE FROM texts WHERE record IN (" + selected + ")"); err != nil {
		return err
	}
	return conn.Exec("DELETE FROM records WHERE id IN (" + selected + ")")
}

// vacuum returns pages to the file system if at least an eighth of the pages, and at least vacuumLeast,
// are unused.
func (u *upkeep) vacuum(conn *sqlite3.Conn) error {
	for {
		pages, unused, err := sizes(conn)
		if err != nil || unused < vacuumLeast || unused < pages/8 {
			return err
		}
		if err := u.write(func() error { return conn.Exec(fmt.Sprintf("PRAGMA incremental_vacuum(%d)", vacuumStep)) }); err != nil {
			return err
		}
		after, _, err := sizes(conn)
		if err != nil || after == pages {
			return err
		}
		select {
		case <-u.quit:
			return nil
		default:
		}
	}
}
