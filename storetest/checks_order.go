package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/bgagent/bgagent"
)

// orderChecks are the checks for batches and for pages of history.
var orderChecks = []check{
	{name: "batch number", why: "the manager finds out from the number whether the store has a batch", run: checkBatchNumber},
	{name: "only the next batch", why: "a repeated or missing batch must be noticed", run: checkNextBatch},
	{name: "refused is not there", why: "the changes of a refused batch do not take effect, and must not reappear", run: checkRefused},
	{name: "ended context", why: "an error means that nothing was written", run: checkEndedContext},
	{name: "durable", why: "acknowledged changes have been shown, and have had effects", needs: []need{aCrash}, run: checkDurable},
	{name: "atomic", why: "half of a batch is a task without its prompt, or an end that is never reported", needs: []need{aCrash, aCrashAt}, run: checkAtomic},
	{name: "lost answer", why: "a batch that may have been written counts as neither refused nor written", needs: []need{aLostAnswer}, run: checkLostAnswer},
	{name: "history", why: "the history lists ended tasks, latest first", run: checkHistory},
	{name: "history in pages", why: "a reader expects each task once", run: checkPages},
	{name: "history of some", why: "an unfiltered page would show the tasks of others", run: checkFilters},
	{name: "history by id", why: "an ended task can be found by its own id and by the id of its session", run: checkRef},
	{name: "history before nothing", why: "a page that starts from the beginning would repeat everything", run: checkBeforeNothing},
	{name: "pages beside writes", why: "a page with half of a batch shows a state that never existed", run: checkPagesBeside},
	{name: "texts beside writes", why: "a reader of results must neither wait for the writer nor see other texts", run: checkTextsBeside},
}

func checkBatchNumber(c *checkContext) {
	s, _ := c.open()
	for i := range 5 {
		c.write(s, c.next(live("a")))
		if i%2 == 1 {
			c.write(s, c.next()) // an empty batch also has a number
		}
		var contents bgagent.StoreContents
		s, contents = c.reopen(s)
		c.due(contents, live("a"))
	}
}

func checkNextBatch(c *checkContext) {
	s, _ := c.open()
	c.write(s, c.next(live("a")))
	c.write(s, c.next(live("b")))
	for _, number := range []uint64{0, 1, 2, 4, 1 << 60} {
		b := c.next(live(fmt.Sprint("batch ", number)))
		b.Number = number
		if err := s.Write(c.Context(), b); err == nil || errors.Is(err, bgagent.ErrUncertain) {
			c.failf("after batch 2, a batch with the number %d was written; the error is %v", number, err)
		}
	}
	c.write(s, c.next(live("c")))
	_, contents := c.reopen(s)
	c.due(contents, live("a"), live("b"), live("c"))
}

func checkRefused(c *checkContext) {
	s, _ := c.open()
	b := c.next(live("a"), ended("old", 0))
	b.Texts = []bgagent.StoreText{{Record: "a", Name: "prompt.1", Text: "x"}}
	c.write(s, b)
	bad := c.next(live("b"), ended("another", 0))
	bad.Delete = []string{"old"}
	bad.Texts = []bgagent.StoreText{{Record: "b", Name: "prompt.1", Text: "y"}, {Record: "a", Name: "prompt.1", Text: "changed"}}
	if err := s.Write(c.Context(), bad); err == nil || errors.Is(err, bgagent.ErrUncertain) {
		c.failf("a batch that changes a text should be refused; the error is %v", err)
	}
	same := func() {
		c.Helper()
		if err := sameRecords("History", []bgagent.StoreRecord{ended("old", 0)}, c.history(s, bgagent.StoreQuery{})); err != nil {
			c.failf("after a refused batch: %v", err)
		}
		c.noText(s, "b", "prompt.1")
		c.text(s, "a", "prompt.1", "x")
	}
	same()
	c.write(s, c.next(live("c")))
	same()
	s, contents := c.reopen(s)
	c.due(contents, live("a"), live("c"))
	same()
}

func checkEndedContext(c *checkContext) {
	s, _ := c.open()
	c.write(s, c.next(live("a")))
	ctx, cancel := context.WithCancel(c.Context())
	cancel()
	want := []bgagent.StoreRecord{live("a")}
	switch err := s.Write(ctx, c.next(live("b"))); {
	case errors.Is(err, bgagent.ErrUncertain):
		c.failf("the context had ended before Write was called, but Write returned ErrUncertain: %v", err)
	case err == nil:
		c.batch++
		want = append(want, live("b"))
	}
	c.write(s, c.next(live("c")))
	_, contents := c.reopen(s)
	c.due(contents, append(want, live("c"))...)
}

func checkDurable(c *checkContext) {
	script := NewScript(3, 40, start)
	for n := 1; n <= script.Len(); n += 3 {
		s, contents := c.open()
		if err := script.Check(c.Context(), s, contents, n-1, n-1); err != nil {
			c.failf("after a crash: %v", err)
		}
		for i := n; i < min(n+3, script.Len()+1); i++ {
			c.write(s, script.Batch(i))
		}
		c.content.Crash(s)
	}
}

// checkAtomic lets the process die at every place (see Content.CrashAt) in every batch.
func checkAtomic(c *checkContext) {
	script := NewScript(5, 12, start)
	for n := 1; n <= script.Len(); n++ {
		for place := 0; ; place++ {
			if place == 10_000 {
				c.failf("a Write has more than 10,000 places")
			}
			s, contents := c.open()
			if contents.Batch >= uint64(n) { // the process died after the batch was written, or did not die
				c.content.Crash(s)
				break
			}
			c.content.CrashAt(s, place)
			acked := n - 1
			if s.Write(c.Context(), script.Batch(n)) == nil {
				acked = n
			}
			c.content.Crash(s)
			s, contents = c.open()
			if err := script.Check(c.Context(), s, contents, acked, n); err != nil {
				c.failf("after a crash at place %d: %v", place, err)
			}
			c.content.Crash(s)
		}
	}
}

func checkLostAnswer(c *checkContext) {
	script := NewScript(7, 6, start)
	s, _ := c.open()
	for n := 1; n <= script.Len(); n++ {
		c.content.LoseAnswer(s)
		if err := s.Write(c.Context(), script.Batch(n)); !errors.Is(err, bgagent.ErrUncertain) {
			c.failf("the answer to a commit was lost; Write returned %v instead of ErrUncertain", err)
		}
		if err := s.Write(c.Context(), script.Batch(n)); err == nil {
			c.failf("the outcome of a batch is unknown, but the next Write succeeded without a new Open")
		}
		if err := s.Close(); err != nil {
			c.failf("Close failed: %v", err)
		}
		contents, err := s.Open(c.Context(), c.owner())
		if err != nil {
			c.failf("Open failed after a lost answer: %v", err)
		}
		if err := script.Check(c.Context(), s, contents, n-1, n); err != nil {
			c.failf("after a lost answer: %v", err)
		}
		if contents.Batch < uint64(n) {
			if err := s.Write(c.Context(), script.Batch(n)); err != nil {
				c.failf("the batch was missing, and could not be written again: %v", err)
			}
		}
	}
	s, contents := c.reopen(s)
	if err := script.Check(c.Context(), s, contents, script.Len(), script.Len()); err != nil {
		c.failf("at the end: %v", err)
	}
}

// The method "some" creates tasks that have ended, and returns their records in the order that
// History must use. Several of the tasks were launched at the same time.
func (c *checkContext) some(s bgagent.Store) (all []bgagent.StoreRecord) {
	c.Helper()
	for i := range 30 {
		r := ended(fmt.Sprintf("task_%02d", (i*7)%30), time.Duration(i/4)*time.Nanosecond)
		r.Parent, r.Root, r.Session = fmt.Sprint("parent_", i%3), fmt.Sprint("root_", i%2), fmt.Sprint("session_", i/2)
		r.Status, r.Due = []bgagent.Status{bgagent.Completed, bgagent.Failed, bgagent.Cancelled}[i%3], i%5 == 0
		all = append(all, r)
	}
	parent := live("ses_parent")
	parent.Kind, parent.Due = bgagent.StoreSession, false
	c.write(s, c.next(append(slices.Clone(all), live("live"), parent)...))
	slices.SortFunc(all, later)
	return all
}

func checkHistory(c *checkContext) {
	s, _ := c.open()
	want := c.some(s)
	for range 2 {
		if err := sameRecords("History", want, c.history(s, bgagent.StoreQuery{})); err != nil {
			c.failf("%v", err)
		}
		s, _ = c.reopen(s)
	}
}

func checkPages(c *checkContext) {
	s, _ := c.open()
	want := c.some(s)
	for _, limit := range []int{1, 3, 7, 30, 31} {
		var got []bgagent.StoreRecord
		q := bgagent.StoreQuery{Limit: limit}
		for len(got) <= len(want) {
			page := c.history(s, q)
			if len(page) > limit {
				c.failf("a page of at most %d has %d tasks", limit, len(page))
			}
			if len(page) == 0 {
				break
			}
			got = append(got, page...)
			q.Before = page[len(page)-1].Key
		}
		if err := sameRecords("History", want, got); err != nil {
			c.failf("in pages of %d: %v", limit, err)
		}
	}
}

func checkFilters(c *checkContext) {
	s, _ := c.open()
	all := c.some(s)
	queries := map[string]bgagent.StoreQuery{
		"one parent":         {Parent: "parent_1"},
		"one root":           {Root: "root_1"},
		"one status":         {Status: []bgagent.Status{bgagent.Failed}},
		"two states":         {Status: []bgagent.Status{bgagent.Failed, bgagent.Cancelled}},
		"parent and root":    {Parent: "parent_2", Root: "root_0"},
		"all of it, limited": {Parent: "parent_0", Root: "root_0", Status: []bgagent.Status{bgagent.Completed}, Limit: 2},
		"nobody's":           {Parent: "nobody"},
	}
	for name, q := range queries {
		want := slices.DeleteFunc(slices.Clone(all), func(r bgagent.StoreRecord) bool {
			return q.Parent != "" && r.Parent != q.Parent || q.Root != "" && r.Root != q.Root || len(q.Status) > 0 && !slices.Contains(q.Status, r.Status)
		})
		if q.Limit > 0 {
			want = want[:min(q.Limit, len(want))]
		}
		if err := sameRecords("History", want, c.history(s, q)); err != nil {
			c.failf("%s: %v", name, err)
		}
	}
}

func checkRef(c *checkContext) {
	s, _ := c.open()
	all := c.some(s)
	for _, r := range all {
		if err := sameRecords("History", []bgagent.StoreRecord{r}, c.history(s, bgagent.StoreQuery{Ref: r.Key})); err != nil {
			c.failf("by the id of a task: %v", err)
		}
		want := slices.DeleteFunc(slices.Clone(all), func(o bgagent.StoreRecord) bool { return o.Session != r.Session })
		if err := sameRecords("History", want, c.history(s, bgagent.StoreQuery{Ref: r.Session})); err != nil {
			c.failf("by the id of a session: %v", err)
		}
	}
	if page := c.history(s, bgagent.StoreQuery{Ref: "nobody"}); len(page) != 0 {
		c.failf("there is no task %q; History returned %s", "nobody", keysOf(page))
	}
}

func checkBeforeNothing(c *checkContext) {
	s, _ := c.open()
	c.some(s)
	page, err := s.History(c.Context(), bgagent.StoreQuery{Before: "nobody", Limit: 5})
	if !errors.Is(err, bgagent.ErrNoRecord) {
		c.failf("there is no record %q; History before it returned %s and %v instead of ErrNoRecord", "nobody", keysOf(page), err)
	}
}

// The method "beside" calls read on other goroutines while it calls write n times.
func (c *checkContext) beside(n int, write func(), read func() error) {
	c.Helper()
	stop := make(chan struct{})
	failed := make(chan error, 3)
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := read(); err != nil {
					failed <- err
					return
				}
			}
		})
	}
	func() {
		defer wg.Wait()
		defer close(stop)
		for range n {
			write()
		}
	}()
	select {
	case err := <-failed:
		c.failf("during writes: %v", err)
	default:
	}
}

func checkPagesBeside(c *checkContext) {
	s, _ := c.open()
	version := 0
	batch := func() {
		version++
		b := c.next()
		for i := range 20 {
			r := ended(fmt.Sprint("task_", i), 0)
			r.Data = fmt.Append(nil, "version ", version)
			b.Records = append(b.Records, r)
		}
		c.write(s, b)
	}
	batch()
	c.beside(60, batch, func() error {
		page, err := s.History(c.Context(), bgagent.StoreQuery{Limit: 100})
		if err != nil {
			return fmt.Errorf("History failed: %w", err)
		}
		if len(page) != 20 {
			return fmt.Errorf("a page has %d of 20 tasks", len(page))
		}
		for _, r := range page {
			if string(r.Data) != string(page[0].Data) {
				return fmt.Errorf("one page has tasks from two batches, %q and %q", page[0].Data, r.Data)
			}
		}
		return nil
	})
}

func checkTextsBeside(c *checkContext) {
	s, _ := c.open()
	text := func(i int) string { return fmt.Sprint("the text number ", i) }
	written := 0
	var mu sync.Mutex
	write := func() {
		b := c.next(live("task"))
		mu.Lock()
		n := written
		mu.Unlock()
		b.Texts = []bgagent.StoreText{{Record: "task", Name: text(n), Text: text(n)}}
		c.write(s, b)
		mu.Lock()
		written++
		mu.Unlock()
	}
	write()
	c.beside(60, write, func() error {
		mu.Lock()
		n := written
		mu.Unlock()
		for i := range n {
			if got, err := s.Text(c.Context(), "task", text(i)); err != nil || got != text(i) {
				return fmt.Errorf("the text %q, which was written, is read as %q, %v", text(i), got, err)
			}
		}
		return nil
	})
}
