package sqlite

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/ncruces/go-sqlite3"

	"github.com/bgagent/bgagent"
)

// writer is the connection of the store's owner.
type writer struct {
	files
	lock  *lock
	owner bgagent.StoreOwner
	token string // token that the database contains while it has no other owner
	store string // id of the database
	conn  *sqlite3.Conn
	batch uint64
	pages int    // number of pages in the WAL after the last commit
	short string // description of the problem if the file is too short; otherwise empty
	known map[string]*sqlite3.Stmt
	due   map[string]stored // rows of due records that the writer has read or written, by key
}

// The type "stored" holds what the writer knows about a row of the table.
type stored struct {
	id  int64 // 0 if the row does not exist
	due bool
	sum int64
	header
}

// connect opens the database, and creates it if it does not exist.
func (w *writer) connect() error {
	_, err := os.Lstat(w.database())
	fresh := errors.Is(err, fs.ErrNotExist)
	w.store = w.lock.witness.Store
	if fresh && (w.store == "" || w.lock.witness.Batch > 0) {
		w.store = rand.Text()
	}
	if fresh && w.lock.witness.Batch == 0 {
		// The witness is written first, because a database without a witness is treated as a copy.
		if err := errors.Join(w.lock.testify(witness{Store: w.store}), w.lock.sync()); err != nil {
			return err
		}
	}
	if err := createBeforehand(w.database(), w.database()+"-shm"); err != nil {
		return err
	}
	wal, err := os.Lstat(w.database() + "-wal")
	clean := err != nil || wal.Size() == 0
	if w.conn, err = w.files.connect(true); err != nil {
		return err
	}
	w.known, w.due = map[string]*sqlite3.Stmt{}, map[string]stored{}
	w.conn.WALHook(func(_ *sqlite3.Conn, _ string, pages int) error {
		w.pages = pages
		return nil
	})
	empty, err := w.checkVersion(w.conn)
	if err == nil && empty {
		if w.store == "" {
			w.store = rand.Text()
		}
		return create(w.conn, w.store, w.lock.id())
	}
	if err == nil && clean {
		err = w.measure()
	}
	return err
}

// adopt writes the owner to the database. It returns the reason why the database might be outdated, or "".
// The writer may have a token from before an uncertain commit. If the database then contains another token,
// another manager has opened it since that commit, and the error is a [*bgagent.StoreOwnedError].
func (w *writer) adopt() (outdated string, err error) {
	owner, err := json.Marshal(w.owner)
	if err != nil {
		return "", err
	}
	tx, err := w.conn.BeginImmediate()
	if err != nil {
		return "", err
	}
	defer tx.End(&err)
	stmt, err := w.stmt("SELECT store, batch, file, copy, token, owner FROM meta")
	if err != nil {
		return "", err
	}
	if !stmt.Step() {
		return "", errors.Join(stmt.Err(), stmt.Reset(), plainf("the database %s has no row about itself: it is damaged", w.database()))
	}
	var file int64
	var copied string
	w.store, w.batch, file, copied = stmt.ColumnText(0), uint64(stmt.ColumnInt64(1)), stmt.ColumnInt64(2), stmt.ColumnText(3)
	token, other := stmt.ColumnText(4), stmt.ColumnText(5)
	if err := stmt.Reset(); err != nil {
		return "", err
	}
	switch w.token {
	case "":
		w.token = rand.Text()
	case token:
	default:
		return "", ownedBy(other)
	}
	if err := w.exec("UPDATE meta SET owner = ?, token = ?", string(owner), w.token); err != nil {
		return "", err
	}
	return w.outdated(file, copied), nil
}

// The method "outdated" compares the database with the witness in the lock file. It returns the reason why
// the database might lack changes, or "".
func (w *writer) outdated(file int64, copied string) string {
	seen := w.lock.witness
	switch {
	case copied != "":
		return copied
	case seen.Store == "" && w.batch > 0:
		return "it is a copy, or its file " + lockName + " was removed"
	case seen.Store != w.store && seen.Batch > 0:
		return fmt.Sprintf("the folder contained another database, with %d batches", seen.Batch)
	case seen.Store != w.store && w.batch > 0:
		return "the database comes from another folder"
	case file != 0 && w.lock.id() != 0 && file != w.lock.id() && w.batch > 0:
		return "it is a copy of the folder of another store"
	case seen.Batch > w.batch:
		return fmt.Sprintf("its last %d batches are lost: the file %s-wal was removed or damaged", seen.Batch-w.batch, databaseName)
	}
	return ""
}

// makeSure copies the whole WAL into the database and syncs the database. Therefore, the contents that Open
// returns are durable, even if the sync of an earlier commit failed. The next commit, which the method
// "adopt" makes, also makes the restart of the WAL durable. A reader can prevent the copying. This is an
// error only if the result of the last commit is uncertain.
func (w *writer) makeSure(doubt bool) (err error) {
	if !doubt {
		if err := w.conn.BusyTimeout(0); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, w.conn.BusyTimeout(busyTimeout)) }()
	}
	_, _, err = w.conn.WALCheckpoint("main", sqlite3.CHECKPOINT_TRUNCATE)
	if errors.Is(err, sqlite3.BUSY) && !doubt {
		return nil
	}
	return err
}

// measure compares the size of the file with the size that is recorded in the database, because SQLite reads
// zeros if a file was truncated. The comparison works only while the WAL is empty, because a WAL with content
// may contain the last pages.
func (w *writer) measure() error {
	pages, err := askInt(w.conn, "PRAGMA page_count")
	if err != nil {
		return err
	}
	info, err := os.Lstat(w.database())
	if err == nil && info.Size() != pages*pageSize {
		w.short = fmt.Sprintf("the file %s has %d bytes instead of %d: it was cut", databaseName, info.Size(), pages*pageSize)
	}
	return err
}

// stmt returns the prepared statement for the SQL text. It prepares each statement on first use.
func (w *writer) stmt(sql string) (*sqlite3.Stmt, error) {
	if s := w.known[sql]; s != nil {
		return s, nil
	}
	s, _, err := w.conn.Prepare(sql)
	if err == nil {
		w.known[sql] = s
	}
	return s, err
}

// exec executes a prepared statement.
func (w *writer) exec(sql string, args ...any) error {
	s, err := w.stmt(sql)
	if err != nil {
		return err
	}
	return errors.Join(bind(s, args...), s.Exec())
}

// write writes the batch in one transaction.
func (w *writer) write(b *bgagent.StoreBatch) (err error) {
	rows := make([]row, len(b.Records))
	keys := make(map[string]bool, len(b.Records))
	for i := range b.Records {
		if rows[i], err = toRow(&b.Records[i]); err != nil {
			return err
		}
		if keys[rows[i].key] {
			return fmt.Errorf("the batch contains the record %q twice", rows[i].key)
		}
		keys[rows[i].key] = true
	}
	for _, key := range b.Delete {
		if keys[key] {
			return fmt.Errorf("the batch both writes and deletes the record %q", key)
		}
	}
	if err := w.exec("BEGIN IMMEDIATE"); err != nil {
		return err
	}
	if err := w.fill(b, rows); err != nil {
		clear(w.due)
		if failed := w.rollback(); failed != nil { // the transaction is still open, so every later transaction on this connection would fail
			return fmt.Errorf("%w: %w", bgagent.ErrUncertain, errors.Join(err, failed))
		}
		return err
	}
	if err := w.exec("COMMIT"); err != nil {
		// The error of the rollback does not matter, because the connection will be closed.
		_ = w.rollback()
		return fmt.Errorf("%w: %w", bgagent.ErrUncertain, err)
	}
	w.batch = b.Number
	// If the witness cannot be written, the older witness remains, which is also correct.
	_ = w.lock.testify(witness{w.store, w.batch})
	return nil
}

// rollback ends the transaction unless SQLite has already ended it.
func (w *writer) rollback() error {
	if w.conn.GetAutocommit() {
		return nil
	}
	return w.exec("ROLLBACK")
}

// fill makes the changes of the batch within a transaction.
func (w *writer) fill(b *bgagent.StoreBatch, rows []row) error {
	t := tally{}
	if err := w.mine(b.Number, &t); err != nil {
		return err
	}
	for _, key := range b.Delete {
		if err := w.remove(key, &t); err != nil {
			return err
		}
	}
	ids := make(map[string]int64, len(rows))
	for i := range rows {
		id, err := w.put(&rows[i], &t)
		if err != nil {
			return err
		}
		ids[rows[i].key] = id
	}
	for i := range b.Texts {
		if err := w.putText(&b.Texts[i], ids); err != nil {
			return err
		}
	}
	return w.exec("UPDATE meta SET batch = ?, due = ?, due_sum = ?, file = ?, copy = ''", int64(b.Number), t.due, t.sum, w.lock.id())
}

// tally contains the number of due records and the sum of their checksums. If a damaged page has lost a row,
// only a difference from the tally shows this.
type tally struct{ due, sum int64 }

func (t *tally) add(due bool, sum int64) {
	if due {
		t.due, t.sum = t.due+1, t.sum+sum
	}
}

func (t *tally) sub(due bool, sum int64) {
	if due {
		t.due, t.sum = t.due-1, t.sum-sum
	}
}

// The method "mine" returns an error if the database has another owner or if the batch is not the next one.
// It also reads the tally.
func (w *writer) mine(number uint64, t *tally) error {
	s, err := w.stmt("SELECT batch, due, due_sum, token, owner FROM meta")
	if err != nil {
		return err
	}
	if !s.Step() {
		return errors.Join(s.Err(), s.Reset(), errors.New("the database has no row about itself"))
	}
	batch, token, owner := uint64(s.ColumnInt64(0)), s.ColumnText(3), s.ColumnText(4)
	t.due, t.sum = s.ColumnInt64(1), s.ColumnInt64(2)
	if err := s.Reset(); err != nil {
		return err
	}
	switch {
	case token != w.token:
		return ownedBy(owner)
	case number != batch+1:
		return fmt.Errorf("the next batch has the number %d", batch+1)
	}
	return nil
}

// ownedBy returns the error for a database that has another owner.
func ownedBy(owner string) error {
	var o bgagent.StoreOwner
	_ = json.Unmarshal([]byte(owner), &o) // if the text contains no valid owner, the error does not name an owner
	return &bgagent.StoreOwnedError{Owner: o}
}

// find returns what the table contains about the record, from memory if the record is due. Only a statement that
// also compares the key may use the id, because the row might have disappeared.
func (w *writer) find(key string) (stored, error) {
	if in, ok := w.due[key]; ok {
		return in, nil
	}
	return w.read(key)
}

// The method "read" reads what the table contains about the record.
func (w *writer) read(key string) (in stored, err error) {
	err = w.ask("SELECT id, due, sum, "+headerColumns+" FROM records WHERE key = ?", func(s *sqlite3.Stmt) {
		in = stored{id: s.ColumnInt64(0), due: s.ColumnBool(1), sum: s.ColumnInt64(2), header: scanHeader(s, 3)}
	}, key)
	return in, err
}

func (w *writer) remove(key string, t *tally) error {
	delete(w.due, key)
	in, err := w.read(key)
	if err != nil || in.id == 0 {
		return err
	}
	t.sub(in.due, in.sum)
	return errors.Join(w.exec("DELETE FROM texts WHERE record = ?", in.id), w.exec("DELETE FROM records WHERE id = ?", in.id))
}

// put writes the row and returns its id.
func (w *writer) put(r *row, t *tally) (id int64, err error) {
	in, err := w.find(r.key)
	if err != nil {
		return 0, err
	}
	now := stored{id: in.id, due: r.due, sum: r.sum(), header: r.header}
	if in.id == 0 {
		err = w.insert(r, now.sum)
		now.id = w.conn.LastInsertRowID()
	} else {
		err = w.update(r, in, now.sum)
	}
	if err != nil {
		return 0, err
	}
	t.sub(in.due, in.sum)
	t.add(now.due, now.sum)
	if now.due {
		w.due[r.key] = now
	} else {
		delete(w.due, r.key)
	}
	return now.id, nil
}

func (w *writer) insert(r *row, sum int64) error {
	return w.exec(`INSERT INTO records (key, kind, due, status, agent, parent, root, session, launched, ended, size, sum, data)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		r.key, r.kind, r.due, r.status, r.agent, r.parent, r.root, r.session, r.launched, r.ended, int64(len(r.data)), sum, []byte(r.data))
}

// update changes the row. It sets only the columns that differ, because SQLite rewrites an index if a
// statement sets one of its columns, even to the same value.
func (w *writer) update(r *row, in stored, sum int64) error {
	set := "UPDATE records SET status = ?, size = ?, sum = ?, data = ?"
	args := append(make([]any, 0, 16), r.status, int64(len(r.data)), sum, []byte(r.data))
	if r.due != in.due {
		set += ", due = ?"
		args = append(args, r.due)
	}
	if r.header != in.header {
		set += ", kind = ?, agent = ?, parent = ?, root = ?, session = ?, launched = ?, ended = ?"
		args = append(args, r.kind, r.agent, r.parent, r.root, r.session, r.launched, r.ended)
	}
	if err := w.exec(set+" WHERE id = ? AND key = ?", append(args, in.id, r.key)...); err != nil {
		return err
	}
	if w.conn.Changes() == 0 {
		return fmt.Errorf("the record %q is missing: the database is damaged", r.key)
	}
	return nil
}

// putText writes the text unless the record already has it.
func (w *writer) putText(t *bgagent.StoreText, ids map[string]int64) error {
	id := ids[t.Record]
	if id == 0 {
		in, err := w.read(t.Record)
		if err != nil {
			return err
		}
		if id = in.id; id == 0 {
			return fmt.Errorf("the text %q belongs to the record %q, which does not exist", t.Name, t.Record)
		}
	}
	size, sum := int64(len(t.Text)), sumOf(t.Record, t.Name, t.Text)
	if err := w.exec("INSERT OR IGNORE INTO texts (record, name, size, sum, text) VALUES (?, ?, ?, ?, ?)", id, t.Name, size, sum, []byte(t.Text)); err != nil {
		return err
	}
	if w.conn.Changes() == 1 {
		return nil
	}
	s, err := w.stmt("SELECT size, sum FROM texts WHERE record = ? AND name = ?")
	if err != nil {
		return err
	}
	if err := bind(s, id, t.Name); err != nil {
		return err
	}
	same := s.Step() && s.ColumnInt64(0) == size && s.ColumnInt64(1) == sum
	if err := errors.Join(s.Err(), s.Reset()); err != nil || same {
		return err
	}
	return fmt.Errorf("the record %q already has another text %q", t.Record, t.Name)
}

// close closes the database and then releases the lock.
func (w *writer) close() error { return errors.Join(w.disconnect(), w.lock.close()) }

// disconnect closes the database. It does not release the lock.
func (w *writer) disconnect() (err error) {
	if w.conn != nil {
		for _, s := range w.known {
			_ = s.Close() // an error does not matter, because it repeats the error of the last use, which has already been reported
		}
		err = w.conn.Close()
		w.conn = nil
	}
	return err
}
