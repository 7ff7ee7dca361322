package storetest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/bgagent/bgagent"
)

// adversary is a store that must fail one check.
type adversary struct {
	check   string
	how     string
	store   func(*liar) // either this field or the field "content" is set
	content func(m *Memory, c *Content)
}

var errBroken = errors.New("broken on purpose")

var adversaries = []adversary{
	{check: "new store", how: "a new store has an old record", store: opening(func(c *bgagent.StoreContents) {
		if c.Batch == 0 {
			c.Records = append(c.Records, live("old"))
		}
	})},
	{check: "new store", how: "a new store is outdated", store: opening(func(c *bgagent.StoreContents) { c.Outdated = "it may be" })},
	{check: "fields", how: "sessions are lost", store: opening(func(c *bgagent.StoreContents) {
		for i := range c.Records {
			c.Records[i].Session = ""
		}
	})},
	{check: "fields", how: "times in whole microseconds", store: opening(func(c *bgagent.StoreContents) {
		for i, r := range c.Records {
			c.Records[i].Launched = r.Launched.Truncate(1000)
		}
	})},
	{check: "data byte for byte", how: "data is converted to UTF-8", store: opening(func(c *bgagent.StoreContents) {
		for i, r := range c.Records {
			c.Records[i].Data = []byte(strings.ToValidUTF8(string(r.Data), "\ufffd"))
		}
	})},
	{check: "odd keys", how: "keys end at a NUL", store: func(l *liar) {
		l.text = func(ctx context.Context, record, name string) (string, error) {
			return l.Process.Text(ctx, untilNUL(record), untilNUL(name))
		}
	}},
	{check: "texts byte for byte", how: "cut", store: func(l *liar) {
		l.text = func(ctx context.Context, record, name string) (string, error) {
			text, err := l.Process.Text(ctx, record, name)
			return text[:min(len(text), 64<<10)], err
		}
	}},
	{check: "texts of their own records", how: "the key and the name are joined without a separator", store: joinsNames()},
	{check: "no text", how: "a missing text is empty", store: func(l *liar) {
		l.text = func(ctx context.Context, record, name string) (string, error) {
			text, err := l.Process.Text(ctx, record, name)
			if errors.Is(err, bgagent.ErrNoText) {
				err = nil
			}
			return text, err
		}
	}},
	{check: "replaced", how: "the texts are lost", store: writing(losesTexts)},
	{check: "replaced", how: "the earlier record remains", store: writing(func(m *Memory, b *bgagent.StoreBatch) {
		m.with(func() {
			b.Records = slices.DeleteFunc(b.Records, func(r bgagent.StoreRecord) bool { _, is := m.records[r.Key]; return is })
		})
	})},
	{check: "texts once", how: "a different text is accepted", store: writing(changesTexts)},
	{check: "texts once", how: "a text without a record is dropped", store: writing(dropsTexts)},
	{check: "deleted with its texts", how: "the texts remain", store: leavesTexts},
	{check: "only what is due", how: "everything is returned", store: func(l *liar) {
		opening(func(c *bgagent.StoreContents) { c.Records = l.mem.Records() })(l)
	}},
	{check: "order of keys", how: "keys are sorted without regard to case", store: opening(func(c *bgagent.StoreContents) {
		slices.SortFunc(c.Records, func(a, b bgagent.StoreRecord) int {
			return cmp.Compare(strings.ToLower(a.Key), strings.ToLower(b.Key))
		})
	})},
	{check: "many", how: "Open returns a limited number of records", store: opening(func(c *bgagent.StoreContents) { c.Records = c.Records[:min(len(c.Records), 5000)] })},
	{check: "the batch is the manager's", how: "the store keeps the slices of the batch", store: keepsSlices},
	{check: "the batch is the manager's", how: "pages share the store's slices", store: sharesPages},
	{check: "damage", how: "damage is not reported", store: opening(func(c *bgagent.StoreContents) { c.Damage = nil })},
	{check: "damage", how: "Open fails if a record is damaged", store: func(l *liar) {
		l.open = func(ctx context.Context, owner bgagent.StoreOwner) (bgagent.StoreContents, error) {
			c, err := l.Process.Open(ctx, owner)
			if len(c.Damage) > 0 {
				return c, errBroken
			}
			return c, err
		}
	}},
	{check: "damage", how: "a damaged record counts as intact", store: hidesDamage},
	{check: "damaged text", how: "a damaged text counts as intact", store: func(l *liar) {
		l.text = func(ctx context.Context, record, name string) (string, error) {
			l.mem.with(func() { clear(l.mem.unread) })
			return l.Process.Text(ctx, record, name)
		}
	}},
	{check: "damaged text", how: "a damaged text counts as missing", store: func(l *liar) {
		l.text = func(ctx context.Context, record, name string) (string, error) {
			text, err := l.Process.Text(ctx, record, name)
			if err != nil && l.mem.Batch() > 0 && len(l.mem.unread) > 0 {
				err = bgagent.ErrNoText
			}
			return text, err
		}
	}},
	{check: "batch number", how: "empty batches do not count", store: func(l *liar) {
		l.write = func(ctx context.Context, b *bgagent.StoreBatch) error {
			if len(b.Records)+len(b.Texts)+len(b.Delete) == 0 {
				return nil
			}
			return l.Process.Write(ctx, b)
		}
	}},
	{check: "only the next batch", how: "any batch number is accepted", store: writing(func(m *Memory, b *bgagent.StoreBatch) { b.Number = m.Batch() + 1 })},
	{check: "only the next batch", how: "a repeated batch counts as written", store: func(l *liar) {
		l.write = func(ctx context.Context, b *bgagent.StoreBatch) error {
			if err := l.Process.Write(ctx, b); b.Number > l.mem.Batch() {
				return err
			}
			return nil
		}
	}},
	{check: "refused is not there", how: "the records of a refused batch are stored", store: leavesHalf},
	{check: "ended context", how: "the batch is written, but an error is returned", store: func(l *liar) {
		l.write = func(ctx context.Context, b *bgagent.StoreBatch) error {
			return cmp.Or(l.Process.Write(context.WithoutCancel(ctx), b), ctx.Err())
		}
	}},
	{check: "ended context", how: "the outcome of the write is unknown", store: func(l *liar) {
		l.write = func(ctx context.Context, b *bgagent.StoreBatch) error {
			err := l.Process.Write(ctx, b)
			if ctx.Err() != nil {
				err = bgagent.ErrUncertain
			}
			return err
		}
	}},
	{check: "durable", how: "each batch is written only before the next one", store: writesBehind},
	{check: "durable", how: "a batch in the middle is lost", store: writing(losesTheMiddle)},
	{check: "atomic", how: "half of a batch is written", content: func(m *Memory, c *Content) {
		whole := c.CrashAt
		c.CrashAt = func(s bgagent.Store, place int) {
			if whole(s, place); place == 0 {
				m.SetFaults(func(uint64, int) Fault { return Fault{Kind: CrashTorn} })
			}
		}
	}},
	{check: "lost answer", how: "an uncertain write is reported as refused", store: func(l *liar) {
		l.write = func(ctx context.Context, b *bgagent.StoreBatch) error {
			err := l.Process.Write(ctx, b)
			if errors.Is(err, bgagent.ErrUncertain) {
				err = errBroken
			}
			return err
		}
	}},
	{check: "lost answer", how: "Write succeeds after an uncertain write", store: func(l *liar) {
		l.write = func(ctx context.Context, b *bgagent.StoreBatch) error {
			l.mem.with(func() { l.uncertain = false })
			err := l.Process.Write(ctx, b)
			if l.uncertain {
				l.mem.SetFaults(nil)
			}
			return err
		}
	}},
	{check: "history", how: "the earliest task comes first", store: paging(func(*bgagent.StoreQuery) func([]bgagent.StoreRecord) []bgagent.StoreRecord {
		return func(page []bgagent.StoreRecord) []bgagent.StoreRecord { slices.Reverse(page); return page }
	})},
	{check: "history", how: "the history contains live tasks", store: func(l *liar) {
		l.history = func(ctx context.Context, q bgagent.StoreQuery) ([]bgagent.StoreRecord, error) {
			page, err := l.Process.History(ctx, q)
			for _, r := range l.mem.Records() {
				if r.Key == "live" && q.Parent == "" && q.Root == "" && q.Ref == "" && q.Before == "" && q.Status == nil && len(page) < q.Limit {
					page = append(page, r)
				}
			}
			return page, err
		}
	}},
	{check: "history in pages", how: "tasks launched together are skipped", store: func(l *liar) {
		paging(func(q *bgagent.StoreQuery) func([]bgagent.StoreRecord) []bgagent.StoreRecord {
			before := l.mem.records[q.Before]
			return func(page []bgagent.StoreRecord) []bgagent.StoreRecord {
				return slices.DeleteFunc(page, func(r bgagent.StoreRecord) bool { return q.Before != "" && r.Launched.Equal(before.Launched) })
			}
		})(l)
	}},
	{check: "history in pages", how: "every page is the first page", store: asking(func(q *bgagent.StoreQuery) {
		if q.Before != "nobody" {
			q.Before = ""
		}
	})},
	{check: "history of some", how: "the filter for the parent is ignored", store: asking(func(q *bgagent.StoreQuery) { q.Parent = "" })},
	{check: "history of some", how: "the filter for the root is ignored", store: asking(func(q *bgagent.StoreQuery) { q.Root = "" })},
	{check: "history of some", how: "only the first status in the filter counts", store: asking(func(q *bgagent.StoreQuery) { q.Status = q.Status[:min(1, len(q.Status))] })},
	{check: "history by id", how: "the id of a session is not found", store: paging(func(q *bgagent.StoreQuery) func([]bgagent.StoreRecord) []bgagent.StoreRecord {
		return func(page []bgagent.StoreRecord) []bgagent.StoreRecord {
			return slices.DeleteFunc(page, func(r bgagent.StoreRecord) bool { return q.Ref != "" && r.Key != q.Ref })
		}
	})},
	{check: "history before nothing", how: "the page begins with the latest task", store: asking(func(q *bgagent.StoreQuery) {
		if q.Before == "nobody" {
			q.Before = ""
		}
	})},
	{check: "pages beside writes", how: "a batch is written record by record", store: writesPiecewise},
	{check: "texts beside writes", how: "reads fail during a write", store: busyInWrites},
	{check: "one owner", how: "a second owner can open the store", store: letsIn},
	{check: "one owner", how: "the error names no owner", store: func(l *liar) {
		l.open = func(ctx context.Context, owner bgagent.StoreOwner) (bgagent.StoreContents, error) {
			c, err := l.Process.Open(ctx, owner)
			if err != nil {
				err = errBroken
			}
			return c, err
		}
	}},
	{check: "after a crash", how: "the lock of a dead process remains", content: func(_ *Memory, c *Content) {
		c.Crash = func(s bgagent.Store) { p := s.(*liar).Process; p.mem.with(func() { p.dead = true }) }
	}},
	{check: "the dead write nothing", how: "a dead process can write", store: writesAnyway(ErrDead)},
	{check: "close and open again", how: "the store can be opened only once", store: opensOnce},
	{check: "after Close", how: "Write succeeds after Close", store: writesAnyway(errClosed)},
	{check: "after Close", how: "a second Close fails", store: func(l *liar) {
		closed := false
		l.close = func() error {
			if closed {
				return errBroken
			}
			closed = true
			return l.Process.Close()
		}
	}},
	{check: "Close beside calls", how: "texts become empty", store: func(l *liar) {
		l.text = func(ctx context.Context, record, name string) (string, error) {
			text, err := l.Process.Text(ctx, record, name)
			if errors.Is(err, errClosed) {
				err = nil
			}
			return text, err
		}
	}},
	{check: "reopened", how: "another process can open the store during Reopen", content: reopening(func(r *reopener) { r.leaves = true })},
	{check: "reopened", how: "the uncertain batch is lost", content: reopening(func(r *reopener) { r.forgets = true })},
	{check: "reopened", how: "Reopen succeeds after Close", content: reopening(func(r *reopener) { r.always = true })},
	{check: "ended context at reads", how: "a read with an ended context finds no text", store: func(l *liar) {
		l.text = func(ctx context.Context, record, name string) (string, error) {
			text, err := l.Process.Text(ctx, record, name)
			if ctx.Err() != nil {
				err = bgagent.ErrNoText
			}
			return text, err
		}
	}},
	{check: "ended context at reads", how: "an ended context returns an empty page", store: func(l *liar) {
		l.history = func(ctx context.Context, q bgagent.StoreQuery) ([]bgagent.StoreRecord, error) {
			if ctx.Err() != nil {
				return nil, nil
			}
			return l.Process.History(ctx, q)
		}
	}},
	{check: "ended context at Open", how: "the failed Open keeps the store", store: func(l *liar) {
		l.open = func(ctx context.Context, owner bgagent.StoreOwner) (bgagent.StoreContents, error) {
			c, err := l.Process.Open(context.WithoutCancel(ctx), owner)
			return c, cmp.Or(err, ctx.Err())
		}
	}},
}

// recorder is a TB that records failures.
type recorder struct {
	*testing.T
	mu       sync.Mutex
	failures []string
}

func (r *recorder) Errorf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failures = append(r.failures, fmt.Sprintf(format, args...))
}

func (r *recorder) Fatalf(format string, args ...any) {
	r.Errorf(format, args...)
	runtime.Goexit()
}

// The method "new" returns the content of a new store that has the adversary's fault.
func (a *adversary) new() Content {
	m := &Memory{}
	c := inMemory(m, func() bgagent.Store {
		l := &liar{Process: m.Process()}
		if a.store != nil {
			a.store(l)
		}
		return l
	}, func(s bgagent.Store) *Process { return s.(*liar).Process })
	if a.content != nil {
		a.content(m, &c)
	}
	return c
}

func TestTheSuiteFindsAStoreThatLiesInOneThing(t *testing.T) {
	for _, a := range adversaries {
		t.Run(a.check+", "+a.how, func(t *testing.T) {
			i := slices.IndexFunc(checks, func(ck check) bool { return ck.name == a.check })
			if i < 0 {
				t.Fatalf("there is no check %q", a.check)
			}
			r := &recorder{T: t}
			var wg sync.WaitGroup
			wg.Go(func() { checks[i].hold(r, &Harness{New: func(TB) Content { return a.new() }}) })
			wg.Wait()
			if len(r.failures) == 0 {
				t.Errorf("the check %q reports nothing", a.check)
			}
			for _, f := range r.failures {
				t.Log(f)
			}
		})
	}
}

func TestEveryCheckHasAnAdversary(t *testing.T) {
	names := map[string]bool{}
	for _, ck := range checks {
		if names[ck.name] || ck.why == "" {
			t.Errorf("the check %q has no reason, or its name is not unique", ck.name)
		}
		names[ck.name] = true
		if !slices.ContainsFunc(adversaries, func(a adversary) bool { return a.check == ck.name }) {
			t.Errorf("nothing shows that the check %q can fail", ck.name)
		}
	}
}
