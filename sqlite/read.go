package sqlite

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/ncruces/go-sqlite3"

	"github.com/bgagent/bgagent"
)

const columns = "key, due, status, " + headerColumns + ", size, sum, data"

// headerColumns are the columns that scanHeader reads.
const headerColumns = "kind, agent, parent, root, session, launched, ended"

// scanHeader returns the header in the statement's current row. The first of the headerColumns has the column
// number "from".
func scanHeader(s *sqlite3.Stmt, from int) header {
	return header{
		kind: s.ColumnText(from), agent: s.ColumnText(from + 1), parent: s.ColumnText(from + 2), root: s.ColumnText(from + 3),
		session: s.ColumnText(from + 4), launched: s.ColumnText(from + 5), ended: s.ColumnText(from + 6),
	}
}

// scan returns the record in the statement's current row, and the checksum in this row. If the record is
// damaged, the result "problem" describes the damage.
func scan(s *sqlite3.Stmt) (r bgagent.StoreRecord, sum int64, problem string) {
	raw := row{
		key: s.ColumnText(0), due: s.ColumnBool(1), status: s.ColumnText(2), header: scanHeader(s, 3), data: string(s.ColumnRawBlob(12)),
	}
	size, sum := s.ColumnInt64(10), s.ColumnInt64(11)
	switch {
	case size != int64(len(raw.data)):
		problem = fmt.Sprintf("its data has %d bytes instead of %d", len(raw.data), size)
	case sum != raw.sum():
		problem = "its checksum is wrong"
	default:
		var err error
		if r, err = raw.record(); err != nil {
			problem = err.Error()
		}
	}
	r.Key = raw.key
	return r, sum, problem
}

// load returns the records that are due, and any damage that it finds.
func (w *writer) load() (records []bgagent.StoreRecord, damage []bgagent.StoreDamage, err error) {
	var want, got tally
	if err := w.ask("SELECT due, due_sum FROM meta", func(s *sqlite3.Stmt) { want.due, want.sum = s.ColumnInt64(0), s.ColumnInt64(1) }); err != nil {
		return nil, nil, err
	}
	err = w.ask("SELECT "+columns+" FROM records WHERE due = 1 ORDER BY key", func(s *sqlite3.Stmt) {
		r, sum, problem := scan(s)
		got.add(true, sum)
		if problem != "" {
			damage = append(damage, bgagent.StoreDamage{Key: r.Key, Problem: problem})
			return
		}
		records = append(records, r)
	})
	switch {
	case err == nil && got.due == want.due && (got.sum == want.sum || len(damage) > 0):
		return records, damage, nil
	case err != nil && !errors.Is(err, sqlite3.CORRUPT):
		return nil, nil, err
	}
	return w.salvage(want)
}

// ask executes the statement and calls f for each row.
func (w *writer) ask(sql string, f func(*sqlite3.Stmt), args ...any) error {
	s, err := w.stmt(sql)
	if err != nil {
		return err
	}
	if err := bind(s, args...); err != nil {
		return err
	}
	for s.Step() {
		f(s)
	}
	return errors.Join(s.Err(), s.Reset())
}

// salvage does the work of load for a damaged database. It collects record ids from the index
// and from the table, and then reads each record with a separate statement.
func (w *writer) salvage(want tally) (records []bgagent.StoreRecord, damage []bgagent.StoreDamage, err error) {
	names := map[int64]string{}
	name := func(s *sqlite3.Stmt) { names[s.ColumnInt64(0)] = s.ColumnText(1) }
	first := errors.Join(
		w.ask("SELECT id, key FROM records INDEXED BY records_due WHERE due = 1", name),
		w.ask("SELECT id, key FROM records NOT INDEXED WHERE due = 1", name),
	)
	if first != nil && !errors.Is(first, sqlite3.CORRUPT) {
		return nil, nil, first
	}
	for _, id := range byName(names) {
		problem := "it is only in the index"
		err := w.ask("SELECT "+columns+" FROM records NOT INDEXED WHERE id = ?", func(s *sqlite3.Stmt) {
			var r bgagent.StoreRecord
			if r, _, problem = scan(s); problem == "" {
				records = append(records, r)
			}
		}, id)
		if err != nil {
			problem = err.Error()
		}
		if problem != "" {
			damage = append(damage, bgagent.StoreDamage{Key: names[id], Problem: problem})
		}
	}
	switch found := int64(len(names)); {
	case found < want.due:
		damage = append(damage, bgagent.StoreDamage{Problem: fmt.Sprintf("%d of the %d records to continue cannot be found: the database is damaged", want.due-found, want.due)})
	case len(damage) == 0:
		damage = append(damage, bgagent.StoreDamage{Problem: fmt.Sprintf("the records to continue are not the records that were written: there are %[2]d instead of %[1]d", want.due, found)})
	}
	return records, damage, nil
}

// The type "reading" is a connection that only reads the database.
type reading struct {
	files
	conn  *sqlite3.Conn
	texts *sqlite3.Stmt
}

func openReading(f files) (*reading, error) {
	conn, err := f.connect(false)
	if err != nil {
		return nil, f.explain("open", err)
	}
	r := &reading{files: f, conn: conn}
	if _, err := f.checkVersion(conn); err != nil {
		conn.Close()
		return nil, f.explain("open", err)
	}
	return r, nil
}

func (r *reading) close() error {
	if r.texts != nil {
		_ = r.texts.Close() // an error does not matter, because it repeats the error of the last use, which has already been reported
	}
	return r.conn.Close()
}

// The method "during" sets ctx as the context that interrupts the statements of the connection,
// until the returned function is called.
func (r *reading) during(ctx context.Context) (end func()) {
	old := r.conn.SetInterrupt(ctx)
	return func() { r.conn.SetInterrupt(old) }
}

// failed returns the error of ctx if ctx has ended. Otherwise, it returns err with an
// explanation.
func (r *reading) failed(ctx context.Context, doing string, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return r.explain(doing, err)
}

func (r *reading) text(ctx context.Context, record, name string) (text string, err error) {
	defer r.during(ctx)()
	doing := fmt.Sprintf("the text %q of %q", name, record)
	if r.texts == nil {
		r.texts, _, err = r.conn.Prepare("SELECT t.size, t.sum, t.text FROM texts t JOIN records r ON r.id = t.record WHERE r.key = ? AND t.name = ?")
		if err != nil {
			return "", r.failed(ctx, doing, err)
		}
	}
	if err := bind(r.texts, record, name); err != nil {
		return "", r.failed(ctx, doing, err)
	}
	var size, sum int64
	found := r.texts.Step()
	if found {
		size, sum, text = r.texts.ColumnInt64(0), r.texts.ColumnInt64(1), string(r.texts.ColumnRawBlob(2))
	}
	if err := errors.Join(r.texts.Err(), r.texts.Reset()); err != nil {
		return "", r.failed(ctx, doing, err)
	}
	switch {
	case !found:
		return "", fmt.Errorf("sqlite: %s: %w", doing, bgagent.ErrNoText)
	case size != int64(len(text)):
		return "", fmt.Errorf("sqlite: %s: %w: it has %d bytes instead of %d", doing, errDamaged, len(text), size)
	case sum != sumOf(record, name, text):
		return "", fmt.Errorf("sqlite: %s: %w: its checksum is wrong", doing, errDamaged)
	}
	return text, nil
}

// history reads a page in one transaction, so that the page shows a single state of the database.
func (r *reading) history(ctx context.Context, q bgagent.StoreQuery) (page []bgagent.StoreRecord, err error) {
	defer r.during(ctx)()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := r.conn.Exec("BEGIN"); err != nil {
		return nil, r.failed(ctx, "history", err)
	}
	defer r.endPage()
	where := []string{"kind = 'task'", "ended <> ''"}
	var args []any
	add := func(condition string, values ...any) {
		where, args = append(where, condition), append(args, values...)
	}
	if q.Ref != "" {
		add("(key = ? OR session = ?)", q.Ref, q.Ref)
	}
	if q.Parent != "" {
		add("parent = ?", q.Parent)
	}
	if q.Root != "" {
		add("root = ?", q.Root)
	}
	if len(q.Status) > 0 {
		var names []any
		for _, s := range q.Status {
			names = append(names, s.String())
		}
		add("status IN (?"+strings.Repeat(", ?", len(names)-1)+")", names...)
	}
	if q.Before != "" {
		launched, err := r.launched(q.Before)
		if err != nil {
			return nil, r.failed(ctx, "history", err)
		}
		add("(launched, key) < (?, ?)", launched, q.Before)
	}
	sql := "SELECT " + columns + " FROM records WHERE " + strings.Join(where, " AND ") + " ORDER BY launched DESC, key DESC"
	if page, err = r.page(sql, args, q.Limit); err != nil {
		return nil, r.failed(ctx, "history", err)
	}
	return page, nil
}

// endPage ends the transaction of a page, even if the page was interrupted.
func (r *reading) endPage() {
	r.conn.SetInterrupt(context.Background())
	_ = r.conn.Exec("ROLLBACK") // an error does not matter, because the transaction has not written anything
}

func (r *reading) launched(key string) (launched string, err error) {
	s, _, err := r.conn.Prepare("SELECT launched FROM records WHERE key = ?")
	if err != nil {
		return "", err
	}
	defer s.Close()
	if err := bind(s, key); err != nil {
		return "", err
	}
	if s.Step() {
		return s.ColumnText(0), nil
	}
	if s.Err() != nil {
		return "", s.Err()
	}
	return "", fmt.Errorf("before %q: %w", key, bgagent.ErrNoRecord)
}

// The method "page" returns the first readable records, up to the limit.
func (r *reading) page(sql string, args []any, limit int) (page []bgagent.StoreRecord, err error) {
	s, _, err := r.conn.Prepare(sql)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	if err := bind(s, args...); err != nil {
		return nil, err
	}
	for len(page) < limit && s.Step() {
		if rec, _, problem := scan(s); problem == "" {
			page = append(page, rec)
		}
	}
	return page, s.Err()
}
