package dashboard

import (
	"container/list"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/bgagent/bgagent"
)

// feed follows the manager for all pages together, while there is one. It keeps
// a row for each task and the order in which rows have changed; a page remembers
// how far in this order it has read. So a slow page holds up nobody, is sent only
// the latest state of what has changed, and needs no queue; and the first
// snapshot is nothing but reading from the beginning.
type feed struct {
	m        *bgagent.BackgroundManager
	interval time.Duration

	mu      sync.Mutex // guards what follows; nothing outside is called while it is held
	closed  bool
	readers map[*reader]struct{}
	stop    context.CancelFunc // of the goroutine that follows; nil when there is none
	state   *feedState
}

// feedState is what is known since the first of the present pages was opened.
type feedState struct {
	name    string                   // told to pages, so that they know when to begin anew
	rows    map[string]*list.Element // with those that have gone and are remembered
	changes *list.List               // of *change, the latest last
	gone    int                      // how many of them are of tasks that have gone
	rev     uint64                   // of the latest change
	pruned  uint64                   // the latest change that was forgotten
	nextN   uint64
	pools   []bgagent.PoolStats
	poolRev uint64 // grows when the pools change
	ended   bool   // the manager has been closed
}

// change is the latest state of one task.
type change struct {
	row
	rev  uint64
	gone bool
}

// reader is one page.
type reader struct {
	wake    chan struct{}
	rev     uint64 // up to which it has read
	first   uint64 // the latest change when it began to read: it was never told of what had gone by then
	poolRev uint64
	state   *feedState // which rev belongs to
}

const (
	// eventBuffer is how many events may wait for the feed. More are lost, and
	// everything is read afresh then.
	eventBuffer = 4096
	// pageRows is how many rows a page is sent at once.
	pageRows = 400
	// maxGone is how many tasks that have gone are remembered for pages that
	// have not heard of it. One that is slower begins anew.
	maxGone = 10_000
)

func newFeed(m *bgagent.BackgroundManager, interval time.Duration) *feed {
	return &feed{m: m, interval: interval, readers: map[*reader]struct{}{}}
}

// join adds a page. It returns nil when the feed is closed.
func (f *feed) join() *reader {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil
	}
	r := &reader{wake: make(chan struct{}, 1)}
	f.readers[r] = struct{}{}
	if f.stop == nil {
		ctx, cancel := context.WithCancel(context.Background())
		f.stop = cancel
		f.state = &feedState{name: rand.Text(), rows: map[string]*list.Element{}, changes: list.New()}
		go f.follow(ctx, f.state)
	} else if f.state.poolRev > 0 {
		r.poke() // everything is there already
	}
	return r
}

// leave removes a page. The last one switches the light off.
func (f *feed) leave(r *reader) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.readers, r)
	if len(f.readers) == 0 && f.stop != nil {
		f.stop()
		f.stop, f.state = nil, nil
	}
}

func (f *feed) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	for r := range f.readers {
		r.poke()
	}
}

func (r *reader) poke() {
	select {
	case r.wake <- struct{}{}:
	default: // it has been woken already
	}
}

// follow reads the manager's events until ctx ends, and wakes the pages at most
// once in every interval.
func (f *feed) follow(ctx context.Context, s *feedState) {
	for {
		tasks, sub := f.m.Subscribe(eventBuffer)
		f.resync(s, tasks)
		missed := f.followUntilMissed(ctx, s, sub)
		sub.Close()
		if !missed {
			return
		}
		// There is more than can be followed: looking at everything once in a
		// while costs the manager less than trying to keep up.
		select {
		case <-ctx.Done():
			return
		case <-time.After(f.interval):
		}
	}
}

// followUntilMissed returns true when events were lost, and false when there is
// nothing more to follow.
func (f *feed) followUntilMissed(ctx context.Context, s *feedState, sub *bgagent.Subscription) bool {
	for {
		f.flush(s)
		next, cancel := context.WithTimeout(ctx, f.interval)
		missed, err := f.readEvents(next, s, sub)
		cancel()
		switch {
		case missed:
			return true
		case errors.Is(err, io.EOF):
			f.end(s)
			return false
		case ctx.Err() != nil:
			return false
		}
	}
}

// readEvents takes in events until ctx ends, or longer than that while there
// are more than can be read: then it is looked at after every event.
func (f *feed) readEvents(ctx context.Context, s *feedState, sub *bgagent.Subscription) (missed bool, err error) {
	for ctx.Err() == nil {
		e, err := sub.Next(ctx)
		if err != nil {
			return false, err
		}
		if e.Kind == bgagent.EventMissed {
			return true, nil
		}
		f.take(s, &e)
	}
	return false, ctx.Err()
}

func (f *feed) take(s *feedState, e *bgagent.Event) {
	r := newRow(&e.Task, poolOf(f.m.Concurrency(), &e.Task))
	f.mu.Lock()
	defer f.mu.Unlock()
	switch e.Kind {
	case bgagent.EventExpired:
		s.drop(e.Task.ID)
	case bgagent.EventOverLimit:
		r.Over = true
		s.put(r)
	default:
		s.put(r)
	}
}

// resync compares what is known with all tasks there are.
func (f *feed) resync(s *feedState, tasks []bgagent.Task) {
	have := make(map[string]bool, len(tasks))
	rows := make([]row, len(tasks))
	for i := range tasks {
		have[tasks[i].ID] = true
		rows[i] = newRow(&tasks[i], poolOf(f.m.Concurrency(), &tasks[i]))
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, r := range rows {
		s.put(r)
	}
	for id := range s.rows {
		if !have[id] {
			s.drop(id)
		}
	}
}

// flush reads the pools and wakes the pages that have something to read.
func (f *feed) flush(s *feedState) {
	f.mu.Lock()
	before := s.pools
	f.mu.Unlock()
	pools := poolStats(f.m.Concurrency(), before)
	f.mu.Lock()
	defer f.mu.Unlock()
	if s.poolRev == 0 || !slices.Equal(pools, s.pools) {
		s.pools = pools
		s.poolRev++
	}
	for r := range f.readers {
		if r.state != s || r.rev < s.rev || r.poolRev < s.poolRev {
			r.poke()
		}
	}
}

// end says that the manager has been closed, once the pages can read how its
// pools were in the end.
func (f *feed) end(s *feedState) {
	f.flush(s)
	f.mu.Lock()
	defer f.mu.Unlock()
	s.ended = true
	for r := range f.readers {
		r.poke()
	}
}

// put notes the present state of a task.
func (s *feedState) put(r row) {
	el := s.rows[r.ID]
	if el == nil {
		s.nextN++
		r.N = s.nextN
		s.rev++
		s.rows[r.ID] = s.changes.PushBack(&change{row: r, rev: s.rev})
		return
	}
	c := el.Value.(*change)
	if c.gone { // an expired task can be resumed
		c.gone = false
		s.gone--
	}
	r.N = c.N
	r.Over = r.Over || c.Over && c.Attempt == r.Attempt
	if c.row == r {
		return
	}
	s.rev++
	c.row, c.rev = r, s.rev
	s.changes.MoveToBack(el)
}

// drop notes that a task has gone.
func (s *feedState) drop(id string) {
	el := s.rows[id]
	if el == nil {
		return
	}
	c := el.Value.(*change)
	if c.gone {
		return
	}
	s.rev++
	c.row, c.rev, c.gone = row{N: c.N, ID: id}, s.rev, true
	s.changes.MoveToBack(el)
	if s.gone++; s.gone > maxGone {
		s.prune()
	}
}

// prune forgets the older half of the tasks that have gone.
func (s *feedState) prune() {
	for el := s.changes.Front(); el != nil && s.gone > maxGone/2; {
		next := el.Next()
		if c := el.Value.(*change); c.gone {
			s.changes.Remove(el)
			delete(s.rows, c.ID)
			s.pruned = c.rev
			s.gone--
		}
		el = next
	}
}

// batch is what a page is sent at once.
type batch struct {
	State string   `json:"state"`          // what is told belongs together while this stays the same
	Total int      `json:"total"`          // tasks there are
	First bool     `json:"first"`          // forget what was told before
	More  bool     `json:"more"`           // more is to come at once
	Rows  []row    `json:"rows,omitempty"` // new or changed
	Gone  []string `json:"gone,omitempty"` // ids of tasks that have gone

	Pools []bgagent.PoolStats `json:"pools"` // all of them, when one has changed; else null

	ended bool
}

// read returns what has changed since the page has last read. ok is false when
// the feed has been closed.
func (f *feed) read(r *reader) (b batch, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.state
	if f.closed || s == nil {
		return batch{}, false
	}
	if s.poolRev == 0 { // woken by the end of an earlier state: what there is has not been read yet
		return batch{}, true
	}
	if r.state != s || max(r.rev, r.first) < s.pruned {
		*r = reader{wake: r.wake, state: s, first: s.rev}
		b.First = true
	}
	b.State, b.Total, b.ended = s.name, len(s.rows)-s.gone, s.ended
	var el *list.Element
	if r.rev == 0 {
		el = s.changes.Front()
	} else {
		for last := s.changes.Back(); last != nil && last.Value.(*change).rev > r.rev; last = last.Prev() {
			el = last
		}
	}
	for ; el != nil && !b.More; el = el.Next() {
		c := el.Value.(*change)
		if r.rev = c.rev; !c.gone {
			b.Rows = append(b.Rows, c.row)
		} else if !b.First {
			b.Gone = append(b.Gone, c.ID)
		}
		b.More = len(b.Rows)+len(b.Gone) >= pageRows && el.Next() != nil
	}
	if r.poolRev < s.poolRev {
		r.poolRev, b.Pools = s.poolRev, s.pools
	}
	return b, true
}

// empty reports whether there is nothing in it that a page does not know.
func (b *batch) empty() bool {
	return !b.First && len(b.Rows) == 0 && len(b.Gone) == 0 && b.Pools == nil
}
