package bgnats

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/bgagent/bgagent"
)

// The code in this file lets a process of a cluster run the tasks of a dead process. The living process
// makes a manager for the store of the dead process. If several processes try this, the message about
// the store decides which of them succeeds, as it does whenever a store is opened.

// The type "left" describes the condition of a store when it is closed by a process that had taken it over.
type left string

const (
	leftBack left = ""     // the store's own process has the store again, or was the last to close it
	leftOpen left = "open" // tasks are unfinished, and another process can take over the store immediately
	leftDone left = "done" // all tasks have ended and were reported, as far as another process can report them
)

// adoption contains what is needed to open another process's store.
type adoption struct {
	by   string // name of this process
	seen meta   // content that shows that the store can be taken over
	left left   // condition to record when the store is closed
}

// mayTake returns an error if the store has changed since the content in a.seen was read, or if the store's
// owner is alive. Otherwise, it records in m that this process has taken over the store.
func (a *adoption) mayTake(ctx context.Context, w *wire, m *meta) error {
	if m.seq != a.seen.seq || m.Token != "" && w.ping(ctx, m.Token) == nil {
		return &bgagent.StoreOwnedError{Owner: m.Owner}
	}
	m.Adopter, m.Left = a.by, leftBack
	return nil
}

// reclaim asks the process that has taken over the store to give it back.
func (w *wire) reclaim(ctx context.Context, m meta) error {
	asking, cancel := context.WithTimeout(ctx, pingWithin)
	_, _ = w.nc.RequestWithContext(asking, w.names.ask(m.Token, askReturn), nil) // if the request fails, the caller repeats it
	cancel()
	if err := pause(ctx, retryEvery); err != nil {
		return fmt.Errorf("the process %s (process %d on %s) has taken over the tasks, and has not given them back yet: %w", m.Adopter, m.Owner.PID, m.Owner.Host, err)
	}
	return nil
}

// These durations concern taking over tasks.
const (
	lookEvery     = time.Second           // maximum pause between two checks of all processes, if there are few
	lookEach      = 50 * time.Millisecond // the pause is at least this long, multiplied by the number of processes
	suspendedFor  = 5 * time.Minute       // default of ClusterOptions.TakeOverSuspended
	takeOverAgain = time.Minute           // pause before another attempt to make a manager
)

// takeOver is the part of a Cluster that takes over tasks.
type takeOver struct {
	c      *Cluster
	manage func(Process, *Store) (*bgagent.BackgroundManager, error)
	after  time.Duration // how long a process must be silent before it is treated as dead
	ctx    context.Context
	stop   context.CancelFunc
	work   sync.WaitGroup
	last   context.Context // limits the time for suspending managers after the function "stop" is called

	mu    sync.Mutex
	seen  map[string]*sight
	taken map[string]bool // processes whose tasks this process has, or is taking over

	// After an attempt to take over the tasks of a process has failed, the field "again" maps the name of
	// the process to the time of the next attempt. That time applies even if the failed attempt has changed
	// the store.
	again map[string]time.Time
}

// sight is what this process has observed about another process that does not answer.
type sight struct {
	seq   uint64        // sequence number of the message about its store
	lasts time.Duration // how long the process has not answered, or how long its store has been closed
	idle  bool          // its store contains no tasks that need a manager
	later time.Time     // time of the next attempt to make a manager, unless the store changes before that time
}

// TakeOver lets this process run the tasks of dead processes of the cluster, if they have the same
// [ClusterOptions].Home. It returns immediately, and may be called only once. The function "manage" must make
// a manager for the tasks of the given process, with the slots of this process:
//
//	err := c.TakeOver(func(_ bgnats.Process, store *bgnats.Store) (*bgagent.BackgroundManager, error) {
//		return bgagent.New(client, bgagent.Config{Slots: c.Slots, Store: store})
//	})
//
// A process is treated as dead if it has not answered for the length of its lease, or for StoreOptions.Grace
// if that is longer. By then, a process that is alive but has lost its connection has stopped its sessions.
// If a process was suspended, its tasks are taken over after [ClusterOptions].TakeOverSuspended. If several
// processes can take over the tasks, exactly one of them does.
//
// The manager runs until its tasks have ended and their ends have been reported, until the process to
// which they belong starts again, or until the cluster is closed. The cluster then suspends the
// manager. If the process starts again, the turns of a TurnRunner are stopped immediately, and that
// process continues them. The other methods of Cluster find the tasks under the name of that process,
// even while another process runs them.
//
// For each process, the function "manage" is called on a separate goroutine. If it fails, and no other
// process was faster, the error is reported to ClusterOptions.Warn, and the function is called again after a
// minute. Each manager that opens the store needs a different Config.Instance, even after a restart.
func (c *Cluster) TakeOver(manage func(Process, *Store) (*bgagent.BackgroundManager, error)) error {
	if c.home == "" {
		return &bgagent.InputError{Field: "ClusterOptions.Home", Problem: "is empty; a process can take over tasks only if it is known where its sessions live"}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.taking != nil {
		return errors.New("bgnats: TakeOver was already called")
	}
	t := &takeOver{c: c, manage: manage, after: max(c.Slots.options.Lease, c.Store.options.Grace), seen: map[string]*sight{}, taken: map[string]bool{}, again: map[string]time.Time{}}
	t.ctx, t.stop = context.WithCancel(c.life)
	c.taking = t
	t.work.Go(t.watch)
	return nil
}

// stopTakeOver suspends the managers of other processes' tasks. It returns when this is done or when
// ctx ends.
func (c *Cluster) stopTakeOver(ctx context.Context) {
	c.mu.Lock()
	t := c.taking
	if t == nil {
		c.taking = &takeOver{} // makes later calls to TakeOver fail
	}
	c.mu.Unlock()
	if t == nil || t.stop == nil {
		return
	}
	t.mu.Lock()
	if t.last == nil {
		t.last = ctx
	}
	t.mu.Unlock()
	t.stop()
	done := make(chan struct{})
	go func() {
		defer close(done)
		t.work.Wait()
	}()
	select {
	case <-done:
	case <-ctx.Done():
	}
}

// watch checks all processes repeatedly.
func (t *takeOver) watch() {
	wait, began := min(t.c.Slots.options.Lease/10, lookEvery), time.Now()
	for pause(t.ctx, wait) == nil {
		// If this process was frozen during the pause, it is unknown whether the other processes would have
		// answered. Therefore, only part of that time is counted.
		passed := min(time.Since(began), wait+2*pingWithin)
		began = time.Now()
		all, err := t.c.processes(t.ctx)
		if err != nil || t.c.nc.Status() != nats.CONNECTED { // without a complete list and a connection, missing answers prove nothing
			t.mu.Lock()
			clear(t.seen)
			t.mu.Unlock()
			continue
		}
		each(all, func(_ int, f *found) error {
			t.look(f, passed)
			return nil
		})
		wait = max(min(t.c.Slots.options.Lease/10, lookEvery), time.Duration(len(all))*lookEach)
	}
}

// The method "look" checks one process, and takes over its tasks if the process is dead.
func (t *takeOver) look(f *found, passed time.Duration) {
	m := f.meta
	if f.err != nil || f.name == t.c.process || m.Home != t.c.home || m.Left == leftDone || t.isOwn(f.name) {
		t.sees(f.name, nil)
		return
	}
	after := t.after
	switch {
	case m.Token != "":
		if f.w.ping(t.ctx, m.Token) == nil || t.c.nc.Status() != nats.CONNECTED {
			t.sees(f.name, nil)
			return
		}
	case m.Left == leftOpen:
		after = 0
	default:
		if after = m.Patience; after < 0 {
			return
		}
	}
	t.mu.Lock()
	s, failed := t.seen[f.name], time.Now().Before(t.again[f.name])
	t.mu.Unlock()
	if s == nil || s.seq != m.seq {
		s = &sight{seq: m.seq}
		t.sees(f.name, s)
	} else {
		s.lasts += passed
	}
	if failed || s.lasts < after || s.idle || time.Now().Before(s.later) {
		return
	}
	if s.idle = !f.hasWork(t.ctx); s.idle {
		return
	}
	s.later = time.Now().Add(takeOverAgain)
	t.mu.Lock()
	t.taken[f.name] = true
	t.mu.Unlock()
	t.work.Go(func() {
		failed := t.adopt(f)
		t.mu.Lock()
		if delete(t.again, f.name); failed {
			t.again[f.name] = time.Now().Add(takeOverAgain)
		}
		delete(t.taken, f.name)
		t.mu.Unlock()
	})
}

// isOwn reports whether this process has the tasks of the named process, or is taking them over.
func (t *takeOver) isOwn(name string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.taken[name]
}

// The method "sees" records what this process has observed about another process. If s is nil, it forgets
// earlier observations.
func (t *takeOver) sees(name string, s *sight) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.seen[name] = s; s == nil {
		delete(t.seen, name)
	}
}

// hasWork reports whether the store contains tasks that have not ended, or whose end has not been
// reported. If the store cannot be read, the result is true, so that a manager opens it and reports the
// problem.
func (f *found) hasWork(ctx context.Context) bool {
	if f.meta.Due == 0 {
		return false
	}
	kept, err := f.read(ctx)
	if err != nil {
		return true
	}
	kept.index.mu.RLock()
	defer kept.index.mu.RUnlock()
	for e := range intact(kept.index.entries) {
		if e.kind == bgagent.StoreTask && e.due {
			return true
		}
	}
	return false
}

// adopt runs the tasks of a dead process. It returns true if the take-over has failed, unless another process
// was faster.
func (t *takeOver) adopt(f *found) (failed bool) {
	store := NewStore(t.c.nc, storeName(t.c.name, f.name), t.c.store)
	a := &adoption{by: t.c.process, seen: f.meta, left: leftOpen}
	store.adopts = a
	callers := t.c.callers.Load().confirmedBy(f) // only these callers may have access, because two processes can have different callers with the same name
	m, err := t.manage(f.process(false), store)
	token := store.owner()
	if err == nil && token == "" {
		err = errors.New("the manager does not use the store that TakeOver passed to the function")
	}
	returned := make(chan struct{})
	var over atomic.Bool
	var subs []*nats.Subscription
	if err == nil {
		subs, err = t.serve(callerAnswers{t.c, m, callers}, store, token, over.Load, returned)
	}
	if owned := new(bgagent.StoreOwnedError); err != nil && !errors.As(err, &owned) && t.ctx.Err() == nil { // a StoreOwnedError means that another process was faster, which is not a failure
		failed = true
		t.c.warn(fmt.Errorf("bgnats: the tasks of %v cannot be taken over: %w", f.process(false), err))
	}
	if m == nil {
		return failed
	}
	if err == nil {
		m.Start()
		store.leave(t.untilOver(m, store, returned))
	}
	over.Store(true)
	t.mu.Lock()
	ctx := t.last
	t.mu.Unlock()
	if ctx == nil {
		ctx = context.Background() // Suspend has its own time limit
	}
	if err := m.Suspend(ctx); err != nil && !errors.Is(err, bgagent.ErrStoreLost) {
		t.c.warn(fmt.Errorf("bgnats: the tasks of %v, which this process had taken over: %w", f.process(false), err))
	}
	for _, sub := range subs {
		_ = sub.Drain() // lets the subscription answer the questions that have arrived; fails only if the connection was closed
	}
	return failed
}

// serve answers questions about the tasks that were taken over. The channel "returned" is closed when
// the process to which the tasks belong asks for them.
func (t *takeOver) serve(a callerAnswers, store *Store, token string, isOver func() bool, returned chan struct{}) ([]*nats.Subscription, error) {
	subs, err := t.c.answerFor(a, store.w.names, token, isOver)
	if err != nil {
		return subs, err
	}
	var once sync.Once
	sub, err := t.c.nc.Subscribe(store.w.names.ask(token, askReturn), func(q *nats.Msg) {
		once.Do(func() { close(returned) })
		_ = q.Respond(nil) // if the answer is lost, the other process asks again
	})
	if err == nil {
		subs = append(subs, sub)
	}
	return subs, err
}

// untilOver waits until the manager of another process's tasks is no longer needed. It returns the
// condition to record when the store is closed.
func (t *takeOver) untilOver(m *bgagent.BackgroundManager, store *Store, returned <-chan struct{}) left {
	var over atomic.Bool // all tasks have ended and were reported
	ctx, cancel := context.WithCancel(t.ctx)
	defer cancel()
	drained := make(chan struct{})
	draining := false
	live := []bgagent.Status{bgagent.Pending, bgagent.Running}
	check := time.NewTicker(min(t.c.Slots.options.Lease/10, lookEvery))
	defer check.Stop()
	for {
		select {
		case <-returned:
			return leftBack
		case <-t.ctx.Done():
			return leftOpen
		case <-drained:
			if over.Load() {
				return leftDone
			}
			return leftOpen
		case <-check.C:
		}
		if store.isLost() {
			return leftOpen
		}
		if !draining && len(m.List(bgagent.Query{Status: live, Limit: 1})) == 0 {
			draining = true
			go func() {
				defer close(drained)
				over.Store(m.Drain(ctx) == nil)
			}()
		}
	}
}

// The method "leave" sets the condition to record when the store is closed.
func (s *Store) leave(how left) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.adopts.left = how
}

// isLost reports whether another owner has the store.
func (s *Store) isLost() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lost != nil
}
