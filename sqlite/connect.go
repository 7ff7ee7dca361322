package sqlite

import (
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/ncruces/go-sqlite3"
	"github.com/ncruces/go-sqlite3/vfs"
)

const (
	busyTimeout = 5 * time.Second

	// application is the application id of this package's databases; its bytes are the letters
	// "bgat".
	application = 0x62676174

	// The version of the tables consists of a major and a minor number. Code can open every database whose
	// major number equals its own, because a new minor version only adds columns and tables that older code
	// does not need.
	major, minor = 1, 0
)

// connect opens a connection to the database. It changes all settings that the store needs and then checks
// each of them, because SQLite refuses some changes without an error.
func (f files) connect(write bool) (conn *sqlite3.Conn, err error) {
	if !vfs.SupportsFileLocking || !vfs.SupportsSharedMemory {
		return nil, plainf("this system has no file locks or no shared memory for a database: a store cannot be used here")
	}
	flags := sqlite3.OPEN_URI | sqlite3.OPEN_NOFOLLOW | sqlite3.OPEN_READWRITE
	if !write {
		flags = sqlite3.OPEN_URI | sqlite3.OPEN_NOFOLLOW | sqlite3.OPEN_READONLY
	}
	if conn, err = sqlite3.OpenFlags(f.uri(write), flags); err != nil {
		return nil, err
	}
	if err = f.prepare(conn, write); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

func (f files) uri(write bool) string {
	path := filepath.ToSlash(f.database())
	if !strings.HasPrefix(path, "/") {
		path = "/" + path // the path begins with a drive letter
	}
	q := url.Values{"modeof": {f.database()}}
	if !write {
		q.Set("mode", "ro")
	}
	if f.vfs != "" {
		q.Set("vfs", f.vfs)
	}
	u := url.URL{Scheme: "file", Path: path, RawQuery: strings.ReplaceAll(q.Encode(), "+", "%20")}
	return u.String()
}

func (f files) prepare(conn *sqlite3.Conn, write bool) error {
	if err := conn.BusyTimeout(busyTimeout); err != nil {
		return err
	}
	type setting struct{ set, get, want string }
	settings := []setting{{"FULL", "synchronous", "2"}, {"OFF", "trusted_schema", "0"}, {"ON", "cell_size_check", "1"}}
	if write {
		if pages, err := ask(conn, "PRAGMA page_count"); err != nil {
			return err
		} else if pages == "0" { // the database is new; auto_vacuum cannot be changed later
			if err := conn.Exec("PRAGMA auto_vacuum=INCREMENTAL"); err != nil {
				return err
			}
		}
		settings = append([]setting{{"wal", "journal_mode", "wal"}, {"0", "wal_autocheckpoint", "0"}}, settings...)
	}
	if runtime.GOOS == "darwin" { // on this system, a plain fsync can leave the data in the disk's cache
		settings = append(settings, setting{"ON", "fullfsync", "1"}, setting{"ON", "checkpoint_fullfsync", "1"})
	}
	for _, s := range settings {
		if err := conn.Exec(fmt.Sprintf("PRAGMA %s=%s", s.get, s.set)); err != nil {
			return err
		}
		got, err := ask(conn, "PRAGMA "+s.get)
		if err != nil {
			return err
		}
		if !strings.EqualFold(got, s.want) {
			return plainf("the database %s cannot be used safely here: %s is %s after it was set to %s", f.database(), s.get, got, s.set)
		}
	}
	return nil
}

// ask executes the statement and returns the first value of the first row.
func ask(conn *sqlite3.Conn, sql string) (string, error) {
	stmt, _, err := conn.Prepare(sql)
	if err != nil {
		return "", err
	}
	defer stmt.Close()
	var value string
	if stmt.Step() {
		value = stmt.ColumnText(0)
	}
	return value, stmt.Err()
}

func askInt(conn *sqlite3.Conn, sql string) (n int64, err error) {
	stmt, _, err := conn.Prepare(sql)
	if err != nil {
		return 0, err
	}
	defer stmt.Close()
	if stmt.Step() {
		n = stmt.ColumnInt64(0)
	}
	return n, stmt.Err()
}

// checkVersion returns an error if the database belongs to another program or to a newer version. The result
// "empty" is true if the database has no tables yet.
func (f files) checkVersion(conn *sqlite3.Conn) (empty bool, err error) {
	tables, err := askInt(conn, "SELECT count(*) FROM sqlite_schema")
	if err != nil {
		return false, err
	}
	app, err := askInt(conn, "PRAGMA application_id")
	if err != nil {
		return false, err
	}
	version, err := askInt(conn, "PRAGMA user_version")
	if err != nil {
		return false, err
	}
	switch {
	case tables == 0 && app == 0:
		return true, nil
	case app != application:
		return false, plainf("the database %s belongs to another program", f.database())
	case version/1000 > major:
		return false, plainf("the database %s was written by a newer version of bgagent (its tables have the version %d.%d; this program knows %d)",
			f.database(), version/1000, version%1000, major)
	}
	return false, nil
}

// The id of a record is not its key, so that texts do not have to repeat the key. The indexes for the history
// contain only tasks that have ended. Therefore, a change to a live task writes only its row and the indexes
// of keys.
const schema = `
CREATE TABLE meta (
	one INTEGER PRIMARY KEY CHECK (one = 1),
	store TEXT NOT NULL,       -- id of this database
	batch INTEGER NOT NULL,    -- number of the last batch
	due INTEGER NOT NULL,      -- how many records are due
	due_sum INTEGER NOT NULL,  -- sum of their checksums
	owner TEXT NOT NULL,       -- who opened it last, as JSON
	token TEXT NOT NULL,       -- made by that Open
	file INTEGER NOT NULL,     -- file number of the lock
	copy TEXT NOT NULL         -- how it came to be, if it is a backup
);
CREATE TABLE records (
	id INTEGER PRIMARY KEY,
	key TEXT NOT NULL UNIQUE,
	kind TEXT NOT NULL,        -- manager, task or session
	due INTEGER NOT NULL,      -- 1 if it is live or owed
	status TEXT NOT NULL,
	agent TEXT NOT NULL,
	parent TEXT NOT NULL,
	root TEXT NOT NULL,
	session TEXT NOT NULL,
	launched TEXT NOT NULL,    -- in UTC, empty if not
	ended TEXT NOT NULL,
	size INTEGER NOT NULL,     -- bytes of data
	sum INTEGER NOT NULL,      -- checksum of the row
	data BLOB NOT NULL
);
CREATE INDEX records_due ON records (key) WHERE due = 1;
CREATE INDEX records_launched ON records (launched, key) WHERE ended <> '';
CREATE INDEX records_parent ON records (parent, launched, key) WHERE ended <> '';
CREATE INDEX records_root ON records (root, launched, key) WHERE ended <> '';
CREATE INDEX records_session ON records (session) WHERE ended <> '';
CREATE INDEX records_ended ON records (ended) WHERE ended <> '' AND due = 0;
CREATE TABLE texts (
	id INTEGER PRIMARY KEY,
	record INTEGER NOT NULL,
	name TEXT NOT NULL,
	size INTEGER NOT NULL,     -- bytes of text
	sum INTEGER NOT NULL,      -- checksum of the record's key, the name and the text
	text BLOB NOT NULL,
	UNIQUE (record, name)
);
CREATE VIEW tasks AS SELECT key AS id, status, agent, parent, root, session, launched, nullif(ended, '') AS ended, due, CAST(data AS TEXT) AS data
	FROM records WHERE kind = 'task';
CREATE VIEW sessions AS SELECT key AS id, due, CAST(data AS TEXT) AS data FROM records WHERE kind = 'session';
CREATE VIEW prose AS SELECT r.key AS task, t.name, t.size, CAST(t.text AS TEXT) AS text FROM texts t JOIN records r ON r.id = t.record;
`

// The function "create" creates the tables of a new store.
func create(conn *sqlite3.Conn, store string, lockFile int64) (err error) {
	tx, err := conn.BeginImmediate()
	if err != nil {
		return err
	}
	defer tx.End(&err)
	if err = conn.Exec(schema); err != nil {
		return err
	}
	if err = conn.Exec(fmt.Sprintf("PRAGMA application_id=%d; PRAGMA user_version=%d", application, major*1000+minor)); err != nil {
		return err
	}
	return run(conn, "INSERT INTO meta VALUES (1, ?, 0, 0, 0, '', '', ?, '')", store, lockFile)
}

func run(conn *sqlite3.Conn, sql string, args ...any) error {
	stmt, _, err := conn.Prepare(sql)
	if err != nil {
		return err
	}
	return errors.Join(bind(stmt, args...), stmt.Exec(), stmt.Close())
}

// bind sets the parameters of the statement, in order. A []byte is bound as a blob.
func bind(stmt *sqlite3.Stmt, args ...any) (err error) {
	for i, a := range args {
		switch a := a.(type) {
		case string:
			err = stmt.BindText(i+1, a)
		case int64:
			err = stmt.BindInt64(i+1, a)
		case bool:
			err = stmt.BindBool(i+1, a)
		case []byte:
			if a == nil {
				a = []byte{}
			}
			err = stmt.BindBlob(i+1, a)
		default:
			panic(fmt.Sprintf("sqlite: bug: a parameter is a %T", a))
		}
		if err != nil {
			return err
		}
	}
	return nil
}
