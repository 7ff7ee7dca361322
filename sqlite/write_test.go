package sqlite

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bgagent/bgagent"
)

// Each dirty page costs two writes to the WAL. These writes account for most of the time that a commit takes.
// If a batch only changes the data of a record, the only dirty pages are those of the row and of the table
// "meta".
func TestABatchWritesAnIndexOnlyIfARowMovesInIt(t *testing.T) {
	s := New(folder(t), Options{})
	open(t, s)
	r := task(1)
	number, pages := uint64(0), 0
	for _, step := range []struct {
		name   string
		change func()
		most   int
	}{
		{"a new record", func() {}, 6},
		{"other data", func() { r.Data = []byte("other data") }, 2},
		{"another status", func() { r.Status = bgagent.Running }, 2},
		{"a session", func() { r.Session = "ses_1" }, 2},
		{"an end", func() { r.Status, r.Ended = bgagent.Completed, time.Now() }, 6},
		{"other data of an ended task", func() { r.Data = []byte("data of an ended task") }, 2},
		{"no longer due", func() { r.Due = false }, 4},
	} {
		step.change()
		number++
		write(t, s, &bgagent.StoreBatch{Number: number, Records: []bgagent.StoreRecord{r}})
		if wrote := s.w.pages - pages; wrote > step.most {
			t.Errorf("%s: the batch wrote %d pages, not at most %d", step.name, wrote, step.most)
		}
		pages = s.w.pages
	}
}

// A batch that fails is rolled back, so what the writer learned about the rows of the batch is no longer
// true.
func TestAFailedBatchLeavesNoTraceInTheNextOne(t *testing.T) {
	dir := filled(t)
	s := New(dir, Options{})
	open(t, s)
	r, added := task(1), task(2)
	b := &bgagent.StoreBatch{Number: 2, Records: []bgagent.StoreRecord{r, added}}
	b.Records[0].Session = "ses_1"
	b.Texts = []bgagent.StoreText{{Record: r.Key, Name: "prompt.1", Text: "another prompt"}}
	if err := s.Write(t.Context(), b); err == nil || !strings.Contains(err.Error(), `already has another text "prompt.1"`) {
		t.Fatal("the batch replaces a text:", err)
	}
	b.Texts = nil
	b.Records[0].Status = bgagent.Running
	write(t, s, b)
	b = &bgagent.StoreBatch{Number: 3, Records: []bgagent.StoreRecord{b.Records[0]}, Delete: []string{added.Key}}
	b.Records[0].Session = "ses_2"
	write(t, s, b)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	c := open(t, s)
	if len(c.Damage) > 0 || len(c.Records) != 1 || c.Records[0].Session != "ses_2" || c.Records[0].Status != bgagent.Running {
		t.Errorf("the store contains %+v; damage: %+v", c.Records, c.Damage)
	}
}

// If a row that the writer knows disappears, the batch fails instead of being lost. The next batch writes the
// whole row.
func TestARowThatDisappearedIsWrittenAgain(t *testing.T) {
	dir := folder(t)
	s := New(dir, Options{})
	open(t, s)
	b := &bgagent.StoreBatch{Number: 1, Records: []bgagent.StoreRecord{task(1)}}
	write(t, s, b)
	if err := sql(dir, "DELETE FROM records"); err != nil {
		t.Fatal(err)
	}
	b.Number, b.Records[0].Data = 2, []byte("other data")
	if err := s.Write(t.Context(), b); err == nil || !strings.Contains(err.Error(), `the record "bg_0001" is missing: the database is damaged`) {
		t.Fatal("the row is missing:", err)
	}
	write(t, s, b)
	b = &bgagent.StoreBatch{Number: 3, Records: b.Records}
	b.Records[0].Due, b.Records[0].Ended = false, time.Now()
	write(t, s, b)
	page, err := s.History(t.Context(), bgagent.StoreQuery{Limit: 2})
	if err != nil || len(page) != 1 || string(page[0].Data) != "other data" {
		t.Errorf("history: %+v, %v", page, err)
	}
}

func walSize(t *testing.T, dir string) int64 {
	t.Helper()
	info, err := os.Lstat(filepath.Join(dir, databaseName+"-wal"))
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

// While a file grows, each sync also writes its size. Therefore, a checkpoint does not shorten the WAL.
func TestACheckpointLeavesTheWALToBeOverwritten(t *testing.T) {
	dir := folder(t)
	s := New(dir, Options{})
	open(t, s)
	u := handed(t, s)
	wal := func() int64 { return walSize(t, dir) }
	number := uint64(0)
	fill := func(bytes int) (size int64) {
		number++
		text := bgagent.StoreText{Record: task(int(number)).Key, Name: "prompt.1", Text: strings.Repeat("x", bytes)}
		write(t, s, &bgagent.StoreBatch{Number: number, Records: []bgagent.StoreRecord{task(int(number))}, Texts: []bgagent.StoreText{text}})
		return wal()
	}
	checkpoint := func() {
		if done, err := u.checkpoint(); !done || err != nil {
			t.Fatal("the checkpoint was not made:", err)
		}
	}
	first := fill(checkpointPages * pageSize)
	for range 3 {
		checkpoint()
		if size := fill(checkpointPages * pageSize / 2); size != first {
			t.Errorf("the WAL has %d bytes instead of %d", size, first)
		}
	}
	fill(keptWAL)
	if checkpoint(); wal() != 0 {
		t.Errorf("the WAL was large, and still has %d bytes", wal())
	}
}

// If a row disappears, SQLite can give its id to the next new row.
func TestTheDeletionOfALostRowDeletesNoOtherRow(t *testing.T) {
	dir := folder(t)
	s := New(dir, Options{})
	open(t, s)
	write(t, s, &bgagent.StoreBatch{Number: 1, Records: []bgagent.StoreRecord{task(1)}})
	if err := sql(dir, "DELETE FROM records"); err != nil {
		t.Fatal(err)
	}
	write(t, s, &bgagent.StoreBatch{Number: 2, Records: []bgagent.StoreRecord{task(2)}, Texts: []bgagent.StoreText{{Record: task(2).Key, Name: "prompt.1", Text: "important"}}})
	write(t, s, &bgagent.StoreBatch{Number: 3, Delete: []string{task(1).Key}})
	if text, err := s.Text(t.Context(), task(2).Key, "prompt.1"); err != nil || text != "important" {
		t.Errorf("the text of another task: %q, %v", text, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	c := open(t, s)
	if len(c.Records) != 1 || c.Records[0].Key != task(2).Key {
		t.Errorf("records: %v; damage %v", c.Records, c.Damage)
	}
}

func TestATextOfALostRowIsRefused(t *testing.T) {
	dir := folder(t)
	s := New(dir, Options{})
	open(t, s)
	write(t, s, &bgagent.StoreBatch{Number: 1, Records: []bgagent.StoreRecord{task(1)}})
	if err := sql(dir, "DELETE FROM records"); err != nil {
		t.Fatal(err)
	}
	write(t, s, &bgagent.StoreBatch{Number: 2, Records: []bgagent.StoreRecord{task(2)}})
	err := s.Write(t.Context(), &bgagent.StoreBatch{Number: 3, Texts: []bgagent.StoreText{{Record: task(1).Key, Name: "result.1", Text: "mine"}}})
	if err == nil {
		_, err1 := s.Text(t.Context(), task(1).Key, "result.1")
		_, err2 := s.Text(t.Context(), task(2).Key, "result.1")
		t.Errorf("Write acknowledged the text of a record that does not exist; Text returns %v and, for the other task, %v", err1, err2)
	}
}

// When a batch is refused, those of its pages that did not fit into memory remain in the file. SQLite does
// not count these pages.
func TestAWALThatARefusedBatchMadeLargeIsShortened(t *testing.T) {
	dir := folder(t)
	s := New(dir, Options{KeepFor: -1, KeepTasks: -1, KeepBytes: -1})
	open(t, s)
	u := handed(t, s)
	r := task(1)
	write(t, s, &bgagent.StoreBatch{Number: 1, Records: []bgagent.StoreRecord{r}, Texts: []bgagent.StoreText{{Record: r.Key, Name: "prompt.1", Text: "a"}}})
	b := &bgagent.StoreBatch{Number: 2}
	for i := range 100 {
		b.Records = append(b.Records, task(100+i))
		b.Texts = append(b.Texts, bgagent.StoreText{Record: task(100 + i).Key, Name: "prompt.1", Text: strings.Repeat("x", 1<<20)})
	}
	b.Texts = append(b.Texts, bgagent.StoreText{Record: r.Key, Name: "prompt.1", Text: "b"})
	if err := s.Write(t.Context(), b); err == nil || errors.Is(err, bgagent.ErrUncertain) {
		t.Fatal(err)
	}
	if size := walSize(t, dir); size < 2*keptWAL {
		t.Errorf("the refused batch left only %d bytes in the WAL", size)
	}
	if done, err := u.checkpoint(); !done || err != nil || walSize(t, dir) != 0 {
		t.Errorf("the checkpoint was made: %v, %v; the WAL has %d bytes", done, err, walSize(t, dir))
	}
}
