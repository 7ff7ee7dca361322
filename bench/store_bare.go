package bench

import (
	"errors"

	"github.com/ncruces/go-sqlite3"

	"github.com/bgagent/bgagent"
)

// The type "bare" is a database that gets a store's batches, but has nothing that the module sqlite
// adds: no checksums, no indexes other than the keys, no batch number and no owner. Each batch is
// fully synced.
type bare struct {
	conn                 *sqlite3.Conn
	record, text, remove *sqlite3.Stmt
}

func openBare(path string) (b *bare, err error) {
	conn, err := sqlite3.Open(path)
	if err != nil {
		return nil, err
	}
	b = &bare{conn: conn}
	err = conn.Exec(`PRAGMA journal_mode=wal; PRAGMA synchronous=FULL; PRAGMA fullfsync=ON;
		CREATE TABLE records (key TEXT PRIMARY KEY, kind INT, due INT, status INT, agent TEXT, parent TEXT, root TEXT, session TEXT,
			launched INT, ended INT, data BLOB);
		CREATE TABLE texts (record TEXT, name TEXT, text TEXT, PRIMARY KEY (record, name));`)
	prepare := func(sql string) (s *sqlite3.Stmt) {
		if err == nil {
			s, _, err = conn.Prepare(sql)
		}
		return s
	}
	b.record = prepare("INSERT OR REPLACE INTO records VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")
	b.text = prepare("INSERT OR REPLACE INTO texts VALUES (?, ?, ?)")
	b.remove = prepare("DELETE FROM records WHERE key = ?")
	return b, err
}

func (b *bare) write(batch *bgagent.StoreBatch) (err error) {
	tx, err := b.conn.BeginImmediate()
	if err != nil {
		return err
	}
	defer tx.End(&err)
	for _, r := range batch.Records {
		s := b.record
		if err := errors.Join(s.BindText(1, r.Key), s.BindInt(2, int(r.Kind)), s.BindBool(3, r.Due), s.BindInt(4, int(r.Status)),
			s.BindText(5, r.Agent), s.BindText(6, r.Parent), s.BindText(7, r.Root), s.BindText(8, r.Session),
			s.BindInt64(9, r.Launched.UnixNano()), s.BindInt64(10, r.Ended.UnixNano()), s.BindBlob(11, r.Data), s.Exec()); err != nil {
			return err
		}
	}
	for _, t := range batch.Texts {
		s := b.text
		if err := errors.Join(s.BindText(1, t.Record), s.BindText(2, t.Name), s.BindText(3, t.Text), s.Exec()); err != nil {
			return err
		}
	}
	for _, key := range batch.Delete {
		if err := errors.Join(b.remove.BindText(1, key), b.remove.Exec()); err != nil {
			return err
		}
	}
	return nil
}

func (b *bare) close() error {
	return errors.Join(b.record.Close(), b.text.Close(), b.remove.Close(), b.conn.Close())
}
