package sqlite

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bgagent/bgagent"
)

// Each dirty page costs two writes to the WAL. These writes take most of the time of a commit. If a batch
// only changes the data of a record, the only dirty pages are those of the row and of the table "meta".
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

// While a file grows, each sync also writes its size. Therefore, a checkpoint does not shorten the WAL.
func TestACheckpointLeavesTheWALToBeOverwritten(t *testing.T) {
	dir := folder(t)
	s := New(dir, Options{})
	open(t, s)
	u := handed(t, s)
	wal := func() int64 {
		info, err := os.Lstat(filepath.Join(dir, databaseName+"-wal"))
		if err != nil {
			t.Fatal(err)
		}
		return info.Size()
	}
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
	fill(keptPages * pageSize)
	if checkpoint(); wal() != 0 {
		t.Errorf("the WAL was large, and still has %d bytes", wal())
	}
}
