package dashboard

import (
	"cmp"
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

// feed follows the manager's events for all open pages together. While no page is open, it
// does nothing. It keeps one row per task, ordered by the time of the latest change. A page
// remembers its position in this order, and a new page reads from the start, so no page needs
// a queue. A slow page does not delay other pages, and gets only the latest state of each
// changed task.
type feed struct {
	m        *bgagent.BackgroundManager
	interval time.Duration
	others   Others // nil if there are no other processes

	mu      sync.Mutex // guards the fields below; while it is held, no code outside the package is called
	closed  bool
	readers map[*reader]struct{}
	stop    context.CancelFunc // stops the goroutine that follows the manager; nil if there is none
	state   *feedState
}

// feedState holds the data about the tasks and pools. It is created when the first page is
// opened, and dropped when the last page is closed.
type feedState struct {
	name      string                   // random name; a page starts over when the name changes
	rows      map[string]*list.Element // elements of the list "changes", by task id; also for evicted tasks
	changes   *list.List               // contains a *change for each task; the latest change is last
	gone      int                      // number of evicted tasks in the list "changes"
	rev       uint64                   // number of the latest change
	pruned    uint64                   // highest number of a change that was removed
	nextN     uint64                   // number of the row that was added last
	pools     []bgagent.PoolStats
	poolRev   uint64 // incremented when the pools change
	others    []process
	othersRev uint64 // incremented when the other processes change
	ended     bool   // the manager is closed
	past      past
}

// change is the latest state of one task.
type change struct {
	row
	rev  uint64 // number of the change
	gone bool   // the task was evicted
}

// reader represents one open page.
type reader struct {
	wake      chan struct{}
	rev       uint64     // number of the last change that the page has read
	first     uint64     // number of the latest change when the page began to read
	poolRev   uint64     // value of feedState.poolRev when the page last read the pools
	othersRev uint64     // value of feedState.othersRev when the page last read the other processes
	state     *feedState // the state to which the numbers belong
}

const (
	// eventBuffer is the number of events that are buffered for the feed. If more events
	// arrive, some are lost, and the feed reads all tasks again.
	eventBuffer = 4096
	// pageRows is the maximum number of rows in one batch.
	pageRows = 400
	// refresh is the time after which the feed reads all tasks again. Some changes cause no event, for
	// example a new pool name after a change to the limits. They reach the pages only with a refresh.
	refresh = time.Minute
	// maxGone is the maximum number of evicted tasks that are remembered for pages that have not yet read
	// about the evictions. A page that is too slow to read about all of them starts over.
	maxGone = 10_000
)

func newFeed(m *bgagent.BackgroundManager, interval time.Duration, others Others) *feed {
	return &feed{m: m, interval: interval, others: others, readers: map[*reader]struct{}{}}
}

// The method "join" adds a page. It returns nil if the feed is closed.
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
		if f.others != nil {
			go f.followOthers(ctx, f.state)
		}
	} else if f.state.poolRev > 0 {
		r.poke() // the page can read the existing rows
	}
	return r
}

// The method "leave" removes a page. If it is the last page, the method also stops the goroutine
// that follows the manager.
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
	default: // the page has already been woken
	}
}

// follow reads the manager's events until ctx ends and wakes the pages at most once
// per interval.
func (f *feed) follow(ctx context.Context, s *feedState) {
	first := true
	for {
		tasks, sub := f.m.Subscribe(eventBuffer)
		if first {
			tasks, first = f.loadPast(ctx, s, tasks), false
		}
		f.resync(s, tasks)
		again := f.followForAWhile(ctx, s, sub)
		sub.Close()
		if !again {
			return
		}
		// If events were lost, there are more events than the feed can process. Reading all tasks
		// once per interval then costs the manager less than trying to keep up.
		select {
		case <-ctx.Done():
			return
		case <-time.After(f.interval):
		}
	}
}

// followForAWhile applies events until events are lost, a refresh is due, the manager is closed or
// ctx ends. It returns true if all tasks must be read again.
func (f *feed) followForAWhile(ctx context.Context, s *feedState, sub *bgagent.Subscription) bool {
	due := time.Now().Add(refresh)
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
		case !time.Now().Before(due):
			return true
		}
	}
}

// readEvents applies events until ctx ends. It checks ctx after every event,
// because Next keeps returning events while there are any.
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
	case bgagent.EventStoreTrouble: // the event does not concern a task
	case bgagent.EventExpired:
		s.expired(e.Task.ID)
	default:
		delete(s.past.ids, e.Task.ID)
		s.put(r)
	}
}

// resync records the states from the given list of the manager's tasks. A task that is not in the list is no
// longer in memory; see the method "expired".
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
	var missing []*change
	for id, el := range s.rows {
		if !have[id] && el.Value.(*change).Process == "" {
			missing = append(missing, el.Value.(*change))
		}
	}
	slices.SortFunc(missing, func(a, b *change) int { return cmp.Compare(a.N, b.N) })
	for _, c := range missing {
		s.expired(c.ID)
	}
}

// flush reads the pools, and wakes the pages for which there are changes.
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
		if r.state != s || r.rev < s.rev || r.poolRev < s.poolRev || r.othersRev < s.othersRev {
			r.poke()
		}
	}
}

// The method "end" stores the final state of the pools for the pages, and then marks the manager as closed.
func (f *feed) end(s *feedState) {
	f.flush(s)
	f.mu.Lock()
	defer f.mu.Unlock()
	s.ended = true
	for r := range f.readers {
		r.poke()
	}
}

// put stores the current state of a task.
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
	if c.gone { // the evicted task was resumed
		c.gone = false
		s.gone--
	}
	r.N = c.N
	if c.row == r {
		return
	}
	s.rev++
	c.row, c.rev = r, s.rev
	s.changes.MoveToBack(el)
}

// drop marks a task as evicted.
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

// prune forgets the older half of the evicted tasks.
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

// batch is one message to a page.
type batch struct {
	State string   `json:"state"`          // name of the feedState that the batch comes from
	Total int      `json:"total"`          // number of tasks
	First bool     `json:"first"`          // the page must discard all earlier batches
	More  bool     `json:"more"`           // another batch follows immediately
	Rows  []row    `json:"rows,omitempty"` // new or changed tasks
	Gone  []string `json:"gone,omitempty"` // ids of evicted tasks

	Pools []bgagent.PoolStats `json:"pools"` // all pools if a pool has changed, otherwise null

	Processes []process `json:"processes"` // the other processes if one of them has changed, otherwise null

	ended bool // the manager is closed
}

// read returns the changes since the page's last read. ok is false if the feed is closed.
func (f *feed) read(r *reader) (b batch, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.state
	if f.closed || s == nil {
		return batch{}, false
	}
	if s.poolRev == 0 { // the state is new and still empty; an earlier state woke the page
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
	if r.othersRev < s.othersRev {
		r.othersRev, b.Processes = s.othersRev, s.others
		if b.Processes == nil {
			b.Processes = []process{}
		}
	}
	return b, true
}

// The method "empty" reports whether the batch contains nothing new for a page.
func (b *batch) empty() bool {
	return !b.First && len(b.Rows) == 0 && len(b.Gone) == 0 && b.Pools == nil && b.Processes == nil
}
