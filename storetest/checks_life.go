package storetest

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"github.com/bgagent/bgagent"
)

// lifeChecks are the checks for opening, closing and owning a store.
var lifeChecks = []check{
	{name: "one owner", why: "two managers would run each task twice", run: checkOneOwner},
	{name: "after a crash", why: "another manager can take over a dead manager's store immediately", needs: []need{aCrash}, run: checkAfterCrash},
	{name: "the dead write nothing", why: "writes of an earlier owner would undo those of its successor", needs: []need{aCrash}, run: checkDead},
	{name: "close and open again", why: "after a failed sync, the manager closes and reopens the store", run: checkOpenAgain},
	{name: "after Close", why: "the next owner may already have the store", run: checkAfterClose},
	{name: "Close beside calls", why: "a call that has begun ends correctly or with an error", run: checkCloseBeside},
	{name: "reopened", why: "another manager that opened the store would continue the same tasks", needs: []need{aLostAnswer}, run: checkReopen},
	{name: "ended context at reads", why: "an abandoned read would delay the others", run: checkReadEnded},
	{name: "ended context at Open", why: "an Open that failed must not keep the store", run: checkOpenEnded},
}

func checkOneOwner(c *checkContext) {
	first := c.content.Process()
	who := c.owner()
	if _, err := first.Open(c.Context(), who); err != nil {
		c.failf("Open failed: %v", err)
	}
	c.Cleanup(func() { _ = first.Close() })
	c.write(first, c.next(live("a")))
	second := c.content.Process()
	for range 3 {
		_, err := second.Open(c.Context(), c.owner())
		c.Cleanup(func() { _ = second.Close() })
		var owned *bgagent.StoreOwnedError
		switch {
		case !errors.As(err, &owned):
			c.failf("another process has the store; Open returned %v instead of a *StoreOwnedError", err)
		case owned.Owner.Instance != who.Instance || owned.Owner.PID != who.PID || owned.Owner.Program != who.Program || !owned.Owner.Since.Equal(who.Since):
			c.failf("the store belongs to %+v; the error names %+v", who, owned.Owner)
		}
	}
	c.write(first, c.next(live("b")))
	_, contents := c.reopen(first)
	c.due(contents, live("a"), live("b"))
}

func checkAfterCrash(c *checkContext) {
	for range 3 {
		s, _ := c.open()
		c.write(s, c.next(live("a")))
		c.content.Crash(s)
	}
	_, contents := c.open()
	c.due(contents, live("a"))
}

func checkDead(c *checkContext) {
	s, _ := c.open()
	c.write(s, c.next(live("a")))
	c.content.Crash(s)
	next, contents := c.open()
	c.due(contents, live("a"))
	if err := s.Write(c.Context(), c.next(live("late"))); err == nil {
		c.failf("a dead process wrote a batch")
	}
	c.write(next, c.next(live("b")))
	_, contents = c.reopen(next)
	c.due(contents, live("a"), live("b"))
}

func checkOpenAgain(c *checkContext) {
	s := c.content.Process()
	var want []bgagent.StoreRecord
	for _, key := range []string{"a", "b", "c"} {
		contents, err := s.Open(c.Context(), c.owner())
		if err != nil {
			c.failf("Open failed after a Close: %v", err)
		}
		c.due(contents, want...)
		c.write(s, c.next(live(key)))
		want = append(want, live(key))
		if err := s.Close(); err != nil {
			c.failf("Close failed: %v", err)
		}
	}
	_, contents := c.open() // as another process
	c.due(contents, want...)
}

func checkAfterClose(c *checkContext) {
	s, _ := c.open()
	b := c.next(live("a"))
	b.Texts = []bgagent.StoreText{{Record: "a", Name: "prompt.1", Text: "x"}}
	c.write(s, b)
	if err := s.Close(); err != nil {
		c.failf("Close failed: %v", err)
	}
	if err := s.Write(c.Context(), c.next(live("b"))); err == nil {
		c.failf("Write succeeded after Close")
	}
	if _, err := s.Text(c.Context(), "a", "prompt.1"); err == nil || errors.Is(err, bgagent.ErrNoText) {
		c.failf("Text returned the error %v after Close", err)
	}
	if _, err := s.History(c.Context(), bgagent.StoreQuery{Limit: 1}); err == nil {
		c.failf("History succeeded after Close")
	}
	if err := s.Close(); err != nil {
		c.failf("a second Close failed: %v", err)
	}
	if err := c.content.Process().Close(); err != nil {
		c.failf("Close of a store that was never open failed: %v", err)
	}
	_, contents := c.open()
	c.due(contents, live("a"))
}

func checkCloseBeside(c *checkContext) {
	s, _ := c.open()
	b := c.next(live("a"))
	b.Texts = []bgagent.StoreText{{Record: "a", Name: "prompt.1", Text: "the text"}}
	c.write(s, b)
	var begun, wg sync.WaitGroup
	begun.Add(4)
	var closed atomic.Bool
	bad := make(chan string, 4)
	for range 4 {
		wg.Go(func() {
			first, last := true, false
			for !last {
				last = closed.Load() // so that each goroutine makes one more call after Close
				text, err := s.Text(c.Context(), "a", "prompt.1")
				if first {
					first = false
					begun.Done()
				}
				switch {
				case errors.Is(err, bgagent.ErrNoText), err == nil && text != "the text":
					bad <- text
					return
				case err != nil:
					return
				}
			}
		})
	}
	begun.Wait()
	err := s.Close()
	closed.Store(true)
	wg.Wait()
	if err != nil {
		c.failf("Close failed during calls to Text: %v", err)
	}
	select {
	case text := <-bad:
		c.failf("during Close, a text was read as %q", text)
	default:
	}
	_, contents := c.open()
	c.due(contents, live("a"))
}

func checkOpenEnded(c *checkContext) {
	ctx, cancel := context.WithCancel(c.Context())
	cancel()
	s := c.content.Process()
	if _, err := s.Open(ctx, c.owner()); err == nil {
		if err := s.Close(); err != nil {
			c.failf("Close failed: %v", err)
		}
	}
	_, contents := c.open()
	c.due(contents)
}

// checkReopen does nothing if the store is not a [bgagent.StoreReopener].
func checkReopen(c *checkContext) {
	script := NewScript(9, 6, start)
	s, _ := c.open()
	r, ok := s.(bgagent.StoreReopener)
	if !ok {
		c.Logf("does not apply: the store is not a bgagent.StoreReopener")
		return
	}
	for n := 1; n <= script.Len(); n++ {
		c.content.LoseAnswer(s)
		if err := s.Write(c.Context(), script.Batch(n)); !errors.Is(err, bgagent.ErrUncertain) {
			c.failf("the answer to a commit was lost; Write returned %v instead of ErrUncertain", err)
		}
		ended, cancel := context.WithCancel(c.Context())
		cancel()
		if _, err := r.Reopen(ended); err == nil {
			c.failf("Reopen succeeded although its context had ended")
		}
		c.shut()
		contents, err := r.Reopen(c.Context())
		if err != nil {
			c.failf("Reopen failed after a lost answer: %v", err)
		}
		c.shut()
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
	if err := s.Close(); err != nil {
		c.failf("Close failed: %v", err)
	}
	if _, err := s.(bgagent.StoreReopener).Reopen(c.Context()); err == nil {
		c.failf("Reopen succeeded after Close")
	}
}

// The method "shut" fails the check if another process can open the store.
func (c *checkContext) shut() {
	c.Helper()
	other := c.content.Process()
	var owned *bgagent.StoreOwnedError
	if _, err := other.Open(c.Context(), c.owner()); !errors.As(err, &owned) {
		_ = other.Close()
		c.failf("the result of a commit is in doubt; another process opened the store, and got %v instead of a *StoreOwnedError", err)
	}
}

func checkReadEnded(c *checkContext) {
	s, _ := c.open()
	b := c.next(ended("a", 0))
	b.Texts = []bgagent.StoreText{{Record: "a", Name: "result.1", Text: "x"}}
	c.write(s, b)
	ctx, cancel := context.WithCancel(c.Context())
	cancel()
	if text, err := s.Text(ctx, "a", "result.1"); err == nil && text != "x" || errors.Is(err, bgagent.ErrNoText) {
		c.failf("the context had ended; Text returned %q and %v", text, err)
	}
	if page, err := s.History(ctx, bgagent.StoreQuery{Limit: 1}); err == nil && len(page) != 1 {
		c.failf("the context had ended; History returned %d tasks instead of 1, and no error", len(page))
	}
	c.text(s, "a", "result.1", "x")
	if page := c.history(s, bgagent.StoreQuery{}); len(page) != 1 {
		c.failf("after a call whose context had ended, History returned %d tasks instead of 1", len(page))
	}
}
