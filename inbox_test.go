package bgagent_test

import (
	"context"
	"slices"
	"sync"

	"github.com/bgagent/bgagent"
)

// inbox keeps the notices for which its method "notify" returns no error.
type inbox struct {
	mu      sync.Mutex
	notices []bgagent.Notice
	fail    func(n int) error // returns the error for the n-th call, counted from 1
	seen    func(n bgagent.Notice)
	calls   int
}

func (b *inbox) notify(ctx context.Context, session string, n bgagent.Notice) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.calls++
	if b.seen != nil {
		b.seen(n)
	}
	if b.fail != nil {
		if err := b.fail(b.calls); err != nil {
			return err
		}
	}
	b.notices = append(b.notices, n)
	return nil
}

// The method "called" returns the number of calls.
func (b *inbox) called() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.calls
}

// The method "answers" makes all further calls of "notify" return nil.
func (b *inbox) answers() { b.fails(nil) }

// The method "fails" makes all further calls of "notify" return err.
func (b *inbox) fails(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fail = nil
	if err != nil {
		b.fail = func(int) error { return err }
	}
}

func (b *inbox) all() []bgagent.Notice {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.notices)
}

// The method "told" returns, for each task, the statuses in all notices about it.
func (b *inbox) told() map[string][]bgagent.Status {
	out := map[string][]bgagent.Status{}
	for _, n := range b.all() {
		for _, it := range n.Items {
			out[it.Task] = append(out[it.Task], it.Status)
		}
	}
	return out
}
