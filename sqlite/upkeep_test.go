package sqlite

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ncruces/go-sqlite3"

	"github.com/bgagent/bgagent"
)

// The function "handed" returns the upkeep of an open store. The upkeep does not run on its own goroutine, so
// it works only when the test calls it.
func handed(t *testing.T, s *Store) *upkeep {
	t.Helper()
	s.mu.Lock()
	old := s.upkeep
	s.mu.Unlock()
	old.stop()
	u := newUpkeep(s)
	close(u.gone)
	s.mu.Lock()
	s.upkeep = u
	s.mu.Unlock()
	t.Cleanup(func() {
		if u.conn != nil {
			_ = u.conn.Close() // an error does not matter after the test
		}
	})
	return u
}

// endedTasks writes n tasks that have ended: one hour apart, the last one an hour ago. It also writes three
// records that no limit deletes: a live task, a task whose completion has not been reported yet, and a
// session.
func endedTasks(t *testing.T, s *Store, n, size int) {
	t.Helper()
	b := &bgagent.StoreBatch{Number: s.w.batch + 1, Records: []bgagent.StoreRecord{task(99_999)}}
	owed := ended(99_998, time.Now().Add(-1000*time.Hour))
	owed.Due = true
	b.Records = append(b.Records, owed, bgagent.StoreRecord{Key: "session", Kind: bgagent.StoreSession})
	for i := range n {
		r := ended(i, time.Now().Add(time.Duration(i-n)*time.Hour))
		b.Records = append(b.Records, r)
		b.Texts = append(b.Texts, bgagent.StoreText{Record: r.Key, Name: "result.1", Text: strings.Repeat("r", size)})
	}
	write(t, s, b)
}

func ended(n int, at time.Time) bgagent.StoreRecord {
	r := task(n)
	r.Due, r.Status, r.Launched, r.Ended = false, bgagent.Completed, at, at
	return r
}

func TestTheHistoryIsBoundedByAgeNumberAndSize(t *testing.T) {
	for name, c := range map[string]struct {
		o    Options
		n    int
		size int
		want func(kept int) bool
	}{
		"by age":    {Options{KeepFor: 24*time.Hour + 30*time.Minute}, 300, 10, func(kept int) bool { return kept == 24 }},
		"by number": {Options{KeepFor: -1, KeepTasks: 123}, 300, 10, func(kept int) bool { return kept == 123 }},
		"by size":   {Options{KeepFor: -1, KeepBytes: 1 << 20}, 300, 10_000, func(kept int) bool { return kept > 50 && kept < 110 }},
		"not":       {Options{KeepFor: -1, KeepTasks: -1, KeepBytes: -1}, 300, 10_000, func(kept int) bool { return kept == 300 }},
	} {
		t.Run(name, func(t *testing.T) {
			dir := folder(t)
			s := New(dir, c.o)
			open(t, s)
			u := handed(t, s)
			endedTasks(t, s, c.n, c.size)
			if err := u.prune(); err != nil {
				t.Fatal(err)
			}
			page, err := s.History(t.Context(), bgagent.StoreQuery{Limit: 1000})
			if err != nil || !c.want(len(page)-1) {
				t.Fatalf("%d ended tasks are kept besides the owed task, %v", len(page)-1, err)
			}
			if latest := page[0].Key; latest != task(c.n-1).Key {
				t.Errorf("the latest task that is kept is %s", latest)
			}
			texts, err := askInt(u.mustConn(t), "SELECT count(*) FROM texts")
			if err != nil || int(texts) != len(page)-1 {
				t.Errorf("%d texts are kept, %v", texts, err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			contents := open(t, s)
			if len(contents.Records) != 2 || len(contents.Damage) > 0 || contents.Batch != 1 {
				t.Errorf("Open returned batch %d, %d records and %v", contents.Batch, len(contents.Records), contents.Damage)
			}
		})
	}
}

func (u *upkeep) mustConn(t *testing.T) *sqlite3.Conn {
	t.Helper()
	conn, err := u.connected()
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

func TestTheFileShrinksWhenTasksGo(t *testing.T) {
	dir := folder(t)
	s := New(dir, Options{KeepFor: -1, KeepTasks: 30, KeepBytes: -1})
	open(t, s)
	u := handed(t, s)
	endedTasks(t, s, 900, 10_000)
	size := func() int64 {
		t.Helper()
		if done, err := u.checkpoint(); err != nil || !done {
			t.Fatal(done, err)
		}
		info, err := os.Lstat(filepath.Join(dir, databaseName))
		if err != nil {
			t.Fatal(err)
		}
		return info.Size()
	}
	before := size()
	if err := u.prune(); err != nil {
		t.Fatal(err)
	}
	if after := size(); before < 9<<20 || after > 2<<20 {
		t.Errorf("the file had %d bytes before and has %d now", before, after)
	}
}

func TestAWALThatCannotBeShortenedIsSaidOnce(t *testing.T) {
	dir := folder(t)
	var warnings []error
	s := New(dir, Options{Warn: func(err error) { warnings = append(warnings, err) }})
	open(t, s)
	u := handed(t, s)
	conn, err := files{dir: dir}.connect(false)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.Exec("BEGIN; SELECT count(*) FROM records"); err != nil {
		t.Fatal(err)
	}
	wal := func() int64 { return walSize(t, dir) }
	for n := range uint64(3) {
		b := &bgagent.StoreBatch{Number: n + 1, Records: []bgagent.StoreRecord{task(int(n))}}
		for i := range 25 {
			b.Texts = append(b.Texts, bgagent.StoreText{Record: task(int(n)).Key, Name: fmt.Sprint("text.", i), Text: strings.Repeat("x", 1<<20)})
		}
		write(t, s, b)
		if done, err := u.checkpoint(); done || err != nil {
			t.Fatalf("while a reader was open, the checkpoint was done: %v, %v", done, err)
		}
	}
	var large *WALError
	if len(warnings) != 1 || !errors.As(warnings[0], &large) || large.Bytes < largeWAL || wal() < largeWAL {
		t.Fatalf("the WAL has %d bytes; the warning was %v", wal(), warnings)
	}
	if err := conn.Exec("COMMIT"); err != nil {
		t.Fatal(err)
	}
	if done, err := u.checkpoint(); !done || err != nil || wal() != 0 || u.said {
		t.Errorf("after the reader, the checkpoint was done: %v, %v; the WAL has %d bytes", done, err, wal())
	}
	if text, err := s.Text(t.Context(), task(1).Key, "text.7"); len(text) != 1<<20 || err != nil {
		t.Errorf("a text has %d bytes, %v", len(text), err)
	}
}

// After a failed sync, the operating system may drop the data that it could not write. Therefore, the store
// must be opened again. Opening a store copies the whole WAL into the database and syncs the database.
func TestAnErrorOfTheUpkeepMakesTheManagerOpenTheStoreAgain(t *testing.T) {
	layer := newSpy(t, nil)
	var warnings []error
	s := New(folder(t), Options{Warn: func(err error) { warnings = append(warnings, err) }})
	s.vfs = layer.name
	open(t, s)
	u := handed(t, s)
	b := &bgagent.StoreBatch{Number: 1, Records: []bgagent.StoreRecord{task(1)}}
	write(t, s, b)
	layer.set(func(a act) error {
		if a.what == "sync" {
			return syscall.EIO
		}
		return nil
	})
	_, err := u.checkpoint()
	if err == nil {
		t.Fatal("the checkpoint succeeded after a failed sync")
	}
	u.failed(err)
	layer.set(nil)
	if len(warnings) != 1 || !strings.Contains(warnings[0].Error(), "upkeep: the disk reports an error") {
		t.Errorf("the warning was %v", warnings)
	}
	b.Number = 2
	if err := s.Write(t.Context(), b); !errors.Is(err, bgagent.ErrUncertain) {
		t.Fatalf("Write returned %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if c := open(t, s); c.Batch != 1 {
		t.Errorf("batch %d is in the store", c.Batch)
	}
	write(t, s, b)
}

func TestDamageThatIsReadIsLookedInto(t *testing.T) {
	dir := filled(t)
	spoil(t, dir, "UPDATE texts SET text = 'a prompt' WHERE name = ?", "prompt.1")
	var warnings []error
	s := New(dir, Options{Warn: func(err error) { warnings = append(warnings, err) }})
	open(t, s)
	u := handed(t, s)
	s.reader.suspicious = u.suspicious
	for range 2 {
		if _, err := s.Text(t.Context(), task(1).Key, "prompt.1"); err == nil {
			t.Error("the damaged text was read")
		}
		if err := u.look(); err != nil {
			t.Error(err)
		}
	}
	if len(warnings) != 1 || !strings.Contains(warnings[0].Error(), "its structure is intact, but some of its texts or records are not") {
		t.Errorf("the warning was %v", warnings)
	}
}

func TestAPageOfHistoryReadsNoMoreThanItShows(t *testing.T) {
	s := New(folder(t), Options{})
	open(t, s)
	for where, index := range map[string]string{
		"":                                 "records_launched",
		" AND parent = 'p'":                "records_parent",
		" AND root = 'r'":                  "records_root",
		" AND (launched, key) < ('a','b')": "records_launched",
		" AND parent = 'p' AND (launched, key) < ('a','b')": "records_parent",
	} {
		plan := ""
		sql := "EXPLAIN QUERY PLAN SELECT " + columns + " FROM records WHERE kind = 'task' AND ended <> ''" + where + " ORDER BY launched DESC, key DESC"
		if err := s.reader.each(sql, func(r *sqlite3.Stmt) { plan += r.ColumnText(3) + "; " }); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(plan, index) || strings.Contains(plan, "TEMP B-TREE") {
			t.Errorf("the query plan of a page%s is: %s", where, plan)
		}
	}
}

func TestTheUpkeepWorksByItself(t *testing.T) {
	dir := folder(t)
	warned := make(chan error, 10)
	s := New(dir, Options{KeepTasks: 10, Warn: func(err error) { warned <- err }})
	open(t, s)
	for n := range 40 {
		b := &bgagent.StoreBatch{Number: uint64(n + 1)}
		for i := range 10 {
			r := ended(n*10+i, time.Now().Add(-time.Minute))
			b.Records = append(b.Records, r)
			b.Texts = append(b.Texts, bgagent.StoreText{Record: r.Key, Name: "result.1", Text: strings.Repeat("r", 20_000)})
		}
		write(t, s, b)
	}
	if err := s.Close(); err != nil { // Close waits for upkeep that has begun
		t.Fatal(err)
	}
	select {
	case err := <-warned:
		t.Errorf("the upkeep reported: %v", err)
	default:
	}
	if c := open(t, s); c.Batch != 40 || len(c.Damage) > 0 {
		t.Errorf("Open returned %+v", c)
	}
}

func TestABatchCostsOneSync(t *testing.T) {
	syncs := 0
	layer := newSpy(t, nil)
	s := New(folder(t), Options{})
	s.vfs = layer.name
	open(t, s)
	handed(t, s)
	write(t, s, &bgagent.StoreBatch{Number: 1}) // not counted, because the first batch also starts the WAL
	layer.set(func(a act) error {
		if a.what == "sync" {
			syncs++
		}
		return nil
	})
	for n := uint64(2); n <= 50; n++ {
		b := &bgagent.StoreBatch{Number: n, Records: []bgagent.StoreRecord{task(int(n)), task(1)}}
		b.Texts = []bgagent.StoreText{{Record: task(1).Key, Name: fmt.Sprint("text.", n), Text: strings.Repeat("x", 10_000)}}
		write(t, s, b)
	}
	if syncs != 49 {
		t.Errorf("49 batches cost %d syncs", syncs)
	}
}
