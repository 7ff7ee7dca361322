package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/bgagent/bgagent"
)

// Script is a sequence of batches, together with the contents that a store must have after each batch. The
// batches follow tasks through their lives: the tasks are launched, they run and end, their ends are
// reported, and they are deleted. A Script is for tests that interrupt a store at some moment and check its
// contents. Its methods are safe for concurrent use.
type Script struct {
	batches []bgagent.StoreBatch
	after   []content // after[n] is the content after batch n
	names   []textKey // names of all texts that any batch writes
}

type textKey struct{ record, name string }

type content struct {
	records map[string]bgagent.StoreRecord
	texts   map[textKey]string
}

// NewScript makes a script of n batches. The same arguments produce the same script. No task is launched
// before the given start time. The start must be recent if the store deletes old tasks.
func NewScript(seed uint64, n int, start time.Time) *Script {
	w := writer{
		rnd: rand.New(rand.NewPCG(seed, 1)), now: start.Round(0).UTC(),
		content: content{map[string]bgagent.StoreRecord{}, map[textKey]string{}},
	}
	s := &Script{after: []content{w.clone()}}
	for i := range n {
		w.b = bgagent.StoreBatch{Number: uint64(i + 1)}
		w.touched = map[string]bool{}
		for range 1 + w.rnd.IntN(4) {
			w.step()
		}
		w.put(bgagent.StoreRecord{Key: "manager", Due: true, Data: w.data(40)})
		s.batches = append(s.batches, w.b)
		s.after = append(s.after, w.clone())
		for _, t := range w.b.Texts {
			s.names = append(s.names, textKey{t.Record, t.Name})
		}
	}
	return s
}

// Len returns the number of batches.
func (s *Script) Len() int { return len(s.batches) }

// Batch returns the batch with the number n. The first batch has the number 1. The caller must
// not change the batch.
func (s *Script) Batch(n int) *bgagent.StoreBatch { return &s.batches[n-1] }

// Check compares an open store with the script and returns an error that describes the first
// difference; acked is the number of the last batch that was acknowledged before the store's
// process was interrupted, and tried (acked or acked+1) is the number of the last batch that was
// passed to Write before the interruption.
func (s *Script) Check(ctx context.Context, st bgagent.Store, c bgagent.StoreContents, acked, tried int) error {
	if c.Batch < uint64(acked) {
		return fmt.Errorf("batch %d was acknowledged, but the store has only %d", acked, c.Batch)
	}
	if c.Batch > uint64(tried) {
		return fmt.Errorf("batch %d had not been written, but the store has %d", tried+1, c.Batch)
	}
	for _, d := range c.Damage {
		return fmt.Errorf("the record %q cannot be read after batch %d: %s", d.Key, c.Batch, d.Problem)
	}
	want := s.after[c.Batch]
	if err := want.checkDue(c.Records); err != nil {
		return fmt.Errorf("after batch %d: %w", c.Batch, err)
	}
	if err := want.checkHistory(ctx, st); err != nil {
		return fmt.Errorf("after batch %d: %w", c.Batch, err)
	}
	for _, k := range s.names {
		text, is := want.texts[k]
		switch got, err := st.Text(ctx, k.record, k.name); {
		case !is && !errors.Is(err, bgagent.ErrNoText):
			return fmt.Errorf("after batch %d: the text %s of %s should not be there; the answer is %q, %v", c.Batch, k.name, k.record, short(got), err)
		case is && err != nil:
			return fmt.Errorf("after batch %d: the text %s of %s: %w", c.Batch, k.name, k.record, err)
		case is && got != text:
			return fmt.Errorf("after batch %d: the text %s of %s is %q instead of %q", c.Batch, k.name, k.record, short(got), short(text))
		}
	}
	return nil
}

func (c content) checkDue(got []bgagent.StoreRecord) error {
	var want []bgagent.StoreRecord
	for _, key := range slices.Sorted(maps.Keys(c.records)) {
		if r := c.records[key]; r.Due {
			want = append(want, r)
		}
	}
	return sameRecords("Open", want, got)
}

func (c content) checkHistory(ctx context.Context, st bgagent.Store) error {
	got, err := st.History(ctx, bgagent.StoreQuery{Limit: len(c.records) + 1})
	if err != nil {
		return err
	}
	var want []bgagent.StoreRecord
	for _, r := range c.records {
		if r.Kind == bgagent.StoreTask && !r.Ended.IsZero() {
			want = append(want, r)
		}
	}
	slices.SortFunc(want, later)
	return sameRecords("History", want, got)
}

// sameRecords compares the records that the named call returned with the expected records. The
// error describes the first difference.
func sameRecords(call string, want, got []bgagent.StoreRecord) error {
	for i := range min(len(want), len(got)) {
		if problem := differ(want[i], got[i]); problem != "" {
			return fmt.Errorf("record %d of %s: %s", i, call, problem)
		}
	}
	if len(want) != len(got) {
		return fmt.Errorf("%s returned %d records instead of %d: %s instead of %s", call, len(got), len(want), keysOf(got), keysOf(want))
	}
	return nil
}

// The function "differ" describes how a record that was read differs from the record that was
// written. It returns "" if they are equal. Equal times may have different time zones.
func differ(want, got bgagent.StoreRecord) string {
	switch {
	case got.Key != want.Key:
		return fmt.Sprintf("it is %q instead of %q", short(got.Key), short(want.Key))
	case !bytes.Equal(got.Data, want.Data):
		return fmt.Sprintf("the data of %q is %q instead of %q", short(want.Key), short(string(got.Data)), short(string(want.Data)))
	case !got.Launched.Equal(want.Launched) || !got.Ended.Equal(want.Ended):
		return fmt.Sprintf("the times of %q are %v and %v instead of %v and %v", short(want.Key), got.Launched, got.Ended, want.Launched, want.Ended)
	}
	got.Data, want.Data = nil, nil
	got.Launched, got.Ended, want.Launched, want.Ended = time.Time{}, time.Time{}, time.Time{}, time.Time{}
	if fmt.Sprintf("%#v", got) != fmt.Sprintf("%#v", want) {
		return fmt.Sprintf("it is %+v instead of %+v", got, want)
	}
	return ""
}

func keysOf(all []bgagent.StoreRecord) string {
	var keys []string
	for _, r := range all {
		keys = append(keys, short(r.Key))
	}
	return short(strings.Join(keys, " "))
}

func short(s string) string {
	if len(s) > 200 {
		return fmt.Sprintf("%s… (%d bytes)", s[:200], len(s))
	}
	return s
}

// writer generates the batches of a script.
type writer struct {
	rnd *rand.Rand
	now time.Time
	content
	b       bgagent.StoreBatch
	touched map[string]bool // keys of the records in this batch; a batch writes each record at most once
	next    int
}

func (w *writer) clone() content { return content{maps.Clone(w.records), maps.Clone(w.texts)} }

// data returns random bytes, on average n of them.
func (w *writer) data(n int) []byte {
	b := make([]byte, n/2+w.rnd.IntN(n))
	for i := range b {
		b[i] = byte(w.rnd.Uint32())
	}
	return b
}

func (w *writer) put(r bgagent.StoreRecord) {
	w.touched[r.Key] = true
	w.records[r.Key] = r
	w.b.Records = append(w.b.Records, r)
}

func (w *writer) text(record, name string, size int) {
	t := string(w.data(size))
	w.texts[textKey{record, name}] = t
	w.b.Texts = append(w.b.Texts, bgagent.StoreText{Record: record, Name: name, Text: t})
}

// The method "step" makes one random change to one task.
func (w *writer) step() {
	w.now = w.now.Add(time.Duration(w.rnd.IntN(1000)) * time.Microsecond)
	var tasks []string
	for _, key := range slices.Sorted(maps.Keys(w.records)) {
		if w.records[key].Kind == bgagent.StoreTask && !w.touched[key] {
			tasks = append(tasks, key)
		}
	}
	if len(tasks) == 0 || len(tasks) < 24 && w.rnd.IntN(3) == 0 {
		w.launch()
		return
	}
	r := w.records[tasks[w.rnd.IntN(len(tasks))]]
	switch {
	case r.Status == bgagent.Pending:
		r.Status, r.Session, r.Data = bgagent.Running, "ses_"+r.Key, w.data(300)
	case r.Ended.IsZero():
		r.Status, r.Ended, r.Data = bgagent.Completed, w.now, w.data(400)
		size := 200
		if w.rnd.IntN(4) == 0 {
			size = 9000 // SQLite stores a text of this size on several pages
		}
		w.text(r.Key, "result.1", size)
	case r.Due:
		r.Due = false
	default:
		w.touched[r.Key] = true
		delete(w.records, r.Key)
		for k := range w.texts {
			if k.record == r.Key {
				delete(w.texts, k)
			}
		}
		w.b.Delete = append(w.b.Delete, r.Key)
		return
	}
	w.put(r)
}

func (w *writer) launch() {
	w.next++
	r := bgagent.StoreRecord{
		Key: fmt.Sprintf("bg_%04d", w.next), Kind: bgagent.StoreTask, Due: true, Data: w.data(200),
		Parent: fmt.Sprintf("ses_%d", w.rnd.IntN(3)), Root: "ses_0", Agent: "worker", Launched: w.now,
	}
	w.put(r)
	w.text(r.Key, "prompt.1", 300)
}
