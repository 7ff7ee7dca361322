package storetest

import (
	"context"
	"errors"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/bgagent/bgagent"
)

// liar is a store that is correct except for one fault. The functions that are not nil replace
// methods of the store.
type liar struct {
	*Process
	open    func(ctx context.Context, owner bgagent.StoreOwner) (bgagent.StoreContents, error)
	write   func(ctx context.Context, b *bgagent.StoreBatch) error
	text    func(ctx context.Context, record, name string) (string, error)
	history func(ctx context.Context, q bgagent.StoreQuery) ([]bgagent.StoreRecord, error)
	close   func() error
}

func (l *liar) Open(ctx context.Context, owner bgagent.StoreOwner) (bgagent.StoreContents, error) {
	if l.open != nil {
		return l.open(ctx, owner)
	}
	return l.Process.Open(ctx, owner)
}

func (l *liar) Write(ctx context.Context, b *bgagent.StoreBatch) error {
	if l.write != nil {
		return l.write(ctx, b)
	}
	return l.Process.Write(ctx, b)
}

func (l *liar) Text(ctx context.Context, record, name string) (string, error) {
	if l.text != nil {
		return l.text(ctx, record, name)
	}
	return l.Process.Text(ctx, record, name)
}

func (l *liar) History(ctx context.Context, q bgagent.StoreQuery) ([]bgagent.StoreRecord, error) {
	if l.history != nil {
		return l.history(ctx, q)
	}
	return l.Process.History(ctx, q)
}

func (l *liar) Close() error {
	if l.close != nil {
		return l.close()
	}
	return l.Process.Close()
}

// The function "opening" returns a fault that changes the result of Open.
func opening(change func(c *bgagent.StoreContents)) func(*liar) {
	return func(l *liar) {
		l.open = func(ctx context.Context, owner bgagent.StoreOwner) (bgagent.StoreContents, error) {
			c, err := l.Process.Open(ctx, owner)
			if err == nil {
				change(&c)
			}
			return c, err
		}
	}
}

// The function "writing" returns a fault that changes a copy of each batch before the copy is
// written.
func writing(change func(m *Memory, b *bgagent.StoreBatch)) func(*liar) {
	return func(l *liar) {
		l.write = func(ctx context.Context, b *bgagent.StoreBatch) error {
			c := *b
			c.Records, c.Texts, c.Delete = slices.Clone(b.Records), slices.Clone(b.Texts), slices.Clone(b.Delete)
			change(l.mem, &c)
			return l.Process.Write(ctx, &c)
		}
	}
}

// The function "paging" returns a fault that changes the queries and the results of History.
func paging(change func(q *bgagent.StoreQuery) func([]bgagent.StoreRecord) []bgagent.StoreRecord) func(*liar) {
	return func(l *liar) {
		l.history = func(ctx context.Context, q bgagent.StoreQuery) ([]bgagent.StoreRecord, error) {
			after := change(&q)
			page, err := l.Process.History(ctx, q)
			if after != nil {
				page = after(page)
			}
			return page, err
		}
	}
}

// The function "asking" returns a fault that changes the query passed to History.
func asking(change func(q *bgagent.StoreQuery)) func(*liar) {
	return paging(func(q *bgagent.StoreQuery) func([]bgagent.StoreRecord) []bgagent.StoreRecord {
		change(q)
		return nil
	})
}

// joinsNames returns a fault that stores each text under one string, which joins the record's key
// and the text's name.
func joinsNames() func(*liar) {
	joined := map[string]string{}
	return func(l *liar) {
		l.write = func(ctx context.Context, b *bgagent.StoreBatch) error {
			err := l.Process.Write(ctx, b)
			if err == nil {
				for _, t := range b.Texts {
					joined[t.Record+"."+t.Name] = t.Text
				}
			}
			return err
		}
		l.text = func(ctx context.Context, record, name string) (string, error) {
			text, err := l.Process.Text(ctx, record, name)
			if s, is := joined[record+"."+name]; is && err == nil {
				text = s
			}
			return text, err
		}
	}
}

// losesTexts deletes the texts of a record when the record is replaced.
func losesTexts(m *Memory, b *bgagent.StoreBatch) {
	for _, r := range b.Records {
		m.with(func() { delete(m.texts, r.Key) })
	}
}

// changesTexts replaces a text when another text is written under the same name.
func changesTexts(m *Memory, b *bgagent.StoreBatch) {
	m.with(func() {
		for _, t := range b.Texts {
			if _, is := m.texts[t.Record][t.Name]; is {
				m.texts[t.Record][t.Name] = t.Text
			}
		}
	})
}

// dropsTexts drops texts whose records do not exist.
func dropsTexts(m *Memory, b *bgagent.StoreBatch) {
	m.with(func() {
		b.Texts = slices.DeleteFunc(b.Texts, func(t bgagent.StoreText) bool {
			_, is := m.records[t.Record]
			return !is && !slices.ContainsFunc(b.Records, func(r bgagent.StoreRecord) bool { return r.Key == t.Record })
		})
	})
}

// The method "with" executes f while the lock is held.
func (m *Memory) with(f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f()
}

// leavesTexts makes the store keep the texts of deleted records.
func leavesTexts(l *liar) {
	l.write = func(ctx context.Context, b *bgagent.StoreBatch) error {
		var old map[string]map[string]string
		l.mem.with(func() { old = maps.Clone(l.mem.texts) })
		err := l.Process.Write(ctx, b)
		l.mem.with(func() {
			for _, key := range b.Delete {
				if texts, is := old[key]; is && err == nil {
					l.mem.texts[key] = texts
				}
			}
		})
		return err
	}
}

// keepsSlices keeps the slices of a batch instead of copies.
func keepsSlices(l *liar) {
	l.write = func(ctx context.Context, b *bgagent.StoreBatch) error {
		err := l.Process.Write(ctx, b)
		l.mem.with(func() {
			for _, r := range b.Records {
				if old, is := l.mem.records[r.Key]; is && err == nil {
					old.Data = r.Data
					l.mem.records[r.Key] = old
				}
			}
		})
		return err
	}
}

// sharesPages returns slices that the store itself still uses.
func sharesPages(l *liar) {
	l.history = func(ctx context.Context, q bgagent.StoreQuery) ([]bgagent.StoreRecord, error) {
		page, err := l.Process.History(ctx, q)
		l.mem.with(func() {
			for i, r := range page {
				page[i].Data = l.mem.records[r.Key].Data
			}
		})
		return page, err
	}
}

// hidesDamage makes Open treat a damaged record as intact.
func hidesDamage(l *liar) {
	l.open = func(ctx context.Context, owner bgagent.StoreOwner) (bgagent.StoreContents, error) {
		l.mem.with(func() { clear(l.mem.damaged) })
		return l.Process.Open(ctx, owner)
	}
}

// leavesHalf keeps the records of a batch that the store refuses.
func leavesHalf(l *liar) {
	l.write = func(ctx context.Context, b *bgagent.StoreBatch) error {
		err := l.Process.Write(ctx, b)
		l.mem.with(func() {
			if err != nil && l.mem.check(b) != nil && b.Number == l.mem.batch+1 {
				half := bgagent.StoreBatch{Number: l.mem.batch, Records: b.Records}
				l.mem.apply(&half)
			}
		})
		return err
	}
}

// writesBehind acknowledges a batch before it is written. It delays the write until the next write, the next
// read or Close.
func writesBehind(l *liar) {
	var last *bgagent.StoreBatch
	flush := func() {
		if last != nil {
			_ = l.Process.Write(context.Background(), last) // cannot fail, because the batch has already been checked
			last = nil
		}
	}
	l.write = func(ctx context.Context, b *bgagent.StoreBatch) (err error) {
		if flush(); ctx.Err() != nil {
			return ctx.Err()
		}
		l.mem.with(func() { err = errors.Join(l.begin(), l.mem.check(b)) })
		if l.mem.faults != nil || err != nil {
			return errors.Join(err, l.Process.Write(ctx, b))
		}
		c := *b
		c.Records = nil
		for _, r := range b.Records {
			c.Records = append(c.Records, copyOf(r))
		}
		last = &c
		return nil
	}
	l.text = func(ctx context.Context, record, name string) (string, error) {
		flush()
		return l.Process.Text(ctx, record, name)
	}
	l.history = func(ctx context.Context, q bgagent.StoreQuery) ([]bgagent.StoreRecord, error) {
		flush()
		return l.Process.History(ctx, q)
	}
	l.close = func() error {
		flush()
		return l.Process.Close()
	}
}

// losesTheMiddle loses the records and texts of every seventh batch below 50.
func losesTheMiddle(m *Memory, b *bgagent.StoreBatch) {
	if b.Number%7 == 0 && b.Number < 50 {
		b.Records, b.Texts = nil, nil
	}
}

// writesPiecewise lets other goroutines read between the records of a batch.
func writesPiecewise(l *liar) {
	var reads atomic.Int64
	l.write = func(ctx context.Context, b *bgagent.StoreBatch) error {
		var err error
		l.mem.with(func() { err = errors.Join(l.begin(), l.mem.check(b)) })
		for i := 0; err == nil && l.mem.faults == nil && ctx.Err() == nil && i < len(b.Records)/2 && len(b.Records) < 100; i++ {
			l.mem.with(func() {
				l.mem.apply(&bgagent.StoreBatch{Number: b.Number - 1, Records: b.Records[:i]})
			})
			yieldTo(&reads)
		}
		return l.Process.Write(ctx, b)
	}
	l.history = func(ctx context.Context, q bgagent.StoreQuery) ([]bgagent.StoreRecord, error) {
		defer reads.Add(1)
		return l.Process.History(ctx, q)
	}
}

// yieldTo lets other goroutines run until one of them has read from the store, or until yieldTo has
// yielded 2000 times.
func yieldTo(reads *atomic.Int64) {
	before := reads.Load()
	for i := 0; i < 2000 && reads.Load() == before; i++ {
		runtime.Gosched()
	}
}

// busyInWrites makes reads fail during a write.
func busyInWrites(l *liar) {
	var reads atomic.Int64
	var busy atomic.Bool
	l.write = func(ctx context.Context, b *bgagent.StoreBatch) error {
		busy.Store(true)
		defer busy.Store(false)
		yieldTo(&reads)
		return l.Process.Write(ctx, b)
	}
	l.text = func(ctx context.Context, record, name string) (string, error) {
		defer reads.Add(1)
		if busy.Load() {
			return "", errors.New("the database is locked")
		}
		return l.Process.Text(ctx, record, name)
	}
}

// letsIn opens a store even if another process has it open.
func letsIn(l *liar) {
	l.open = func(ctx context.Context, owner bgagent.StoreOwner) (bgagent.StoreContents, error) {
		l.mem.with(func() { l.mem.owner = nil })
		return l.Process.Open(ctx, owner)
	}
}

// writesAnyway returns a fault that writes a batch even though the store must refuse it with the
// error that the parameter "when" holds.
func writesAnyway(when error) func(*liar) {
	return func(l *liar) {
		l.write = func(ctx context.Context, b *bgagent.StoreBatch) error {
			err := l.Process.Write(ctx, b)
			l.mem.with(func() {
				if errors.Is(err, when) && l.mem.check(b) == nil {
					l.mem.apply(b)
					err = nil
				}
			})
			return err
		}
	}
}

// opensOnce makes every Open after the first fail.
func opensOnce(l *liar) {
	opened := false
	l.open = func(ctx context.Context, owner bgagent.StoreOwner) (bgagent.StoreContents, error) {
		if opened {
			return bgagent.StoreContents{}, errors.New("it was open already")
		}
		c, err := l.Process.Open(ctx, owner)
		opened = err == nil
		return c, err
	}
}

// untilNUL returns the part of s before the first NUL byte.
func untilNUL(s string) string {
	s, _, _ = strings.Cut(s, "\x00")
	return s
}

// reopener is an in-memory store that can be reopened. At most one of the faults is set.
type reopener struct {
	*Process
	leaves  bool // the store has no owner while it is being reopened
	forgets bool // the last batch is lost
	always  bool // Reopen opens the store even after Close
}

func (r *reopener) Reopen(ctx context.Context) (c bgagent.StoreContents, err error) {
	m := r.mem
	m.with(func() {
		switch {
		case r.leaves && m.owner == r.Process:
			m.owner = nil
		case r.forgets && m.batch > 0:
			m.batch--
		}
		err = r.begin()
	})
	if r.leaves || r.always && err != nil {
		return r.Open(ctx, r.who)
	}
	if err := errors.Join(err, ctx.Err()); err != nil {
		return c, err
	}
	m.with(func() {
		r.uncertain = false
		c.Batch, c.Records = m.batch, m.sorted(func(r bgagent.StoreRecord) bool { return r.Due })
	})
	return c, nil
}

// The function "reopening" returns a fault for a store that can be reopened.
func reopening(set func(*reopener)) func(m *Memory, c *Content) {
	return func(m *Memory, c *Content) {
		*c = inMemory(m, func() bgagent.Store {
			r := &reopener{Process: m.Process()}
			set(r)
			return r
		}, func(s bgagent.Store) *Process { return s.(*reopener).Process })
	}
}
