package bgagent

import (
	"bufio"
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"hash/maphash"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bgagent/bgagent/internal/slots"
)

// # Invariants
//
// They are what every change must keep; checkInvariants verifies those about
// state after every update in tests.
//
//  1. A status changes only in task.transition, only under the lock.
//  2. A terminal status is final for its attempt; a resume opens a new attempt.
//  3. Whoever waits for an attempt is woken once it is terminal and its notice
//     is in the outbox. Get may show the end a moment before, never after.
//  4. An attempt owns at most one slot. When its agent ended the turn the slot
//     goes back in that update; when it was ended from outside, once nothing of
//     it runs or the stopping deadline has passed.
//  5. No attempt that could start waits while a slot of its pool is free.
//     Those that could not are marked flagUnstarted: their session is not quiet.
//  6. The indexes (by id, session, parent, tool call) hold exactly the tasks
//     they should. A session has at most one attempt that is live or not quiet.
//  7. Counts of live tasks, of a batch and of what is owed change only in
//     countLive, where nodes are linked, and in notice.go.
//  8. Every task is live, or ended with its notice owed or settled in exactly
//     one way.
//  9. While the lock is held no host, logger or subscriber is called and nothing
//     blocks. Below it there is only the lock of the ConcurrencyManager.
//  10. Decide, then act: who wins a transition performs its side effect. Host
//     calls of one attempt other than Abort are made by one goroutine at a time.
//  11. An observation older than the last prompt or abort is dropped.
//  12. Events leave in the order of transitions, one EventEnded for an attempt.
//  13. Callers get copies.
//  14. Every goroutine starts in begin and has ended before Close returns, or is
//     named in its error.
//  15. At most one sweep at a time per client; with nothing live and nothing owed
//     to a busy parent nothing periodic runs; one timer stands for all deadlines.
//  16. The update that begins Close ends everything pending; after it no attempt
//     and no turn starts.

// BackgroundManager owns background tasks: it starts them when a slot is free,
// finds out how they end, and tells the session that launched them. Make one
// with [New] and end it with [BackgroundManager.Close]. All methods are safe
// for concurrent use; none of them calls the host on the caller's goroutine,
// except Messages and those whose comment says so.
type BackgroundManager struct {
	cfg    Config
	words  wording // how notices speak of the tools
	cm     *ConcurrencyManager
	hosts  []*hostClient // the one given to New first
	epoch  time.Time     // what times in records count from
	seed   maphash.Seed  // of the hashes of sessions and calls
	base   context.Context
	stop   context.CancelCauseFunc
	closed chan struct{}   // closed when Close begins
	check  func(st *state) // in tests: called at the end of every update and view, with the lock held

	closeDone chan struct{} // closed when Close has ended, after closeErr was written
	closeErr  error

	running [goKinds]atomic.Int64 // goroutines by kind
	errs    hostErrors            // for Err
	ended   chan struct{}         // one token when the last of them has ended

	// mu guards everything below. While it is held no host, logger or subscriber
	// may be called and nothing may block; the lock of the ConcurrencyManager may
	// be taken below it. Only update, step and view take it.
	mu       sync.Mutex
	st       state
	timer    *time.Timer
	timerAt  int64
	timerOff bool
	ticked   chan struct{} // closed by a tick that Close has to wait for
}

type goKind uint8

// The kinds of goroutines, named for CloseError.Hung.
const (
	goWorker goKind = iota
	goCall
	goAbort
	goNotify
	goPoll
	goEvents
	goLog
	goForget
	goKinds
)

var goNames = [goKinds]string{"CreateSession, RunTurn or StartTurn", "another host call", "Abort", "Notify", "Statuses or Messages", "Events", "the logger", "ForgetSession"}

// New makes a manager that runs tasks on the client. The client must be a
// [TurnRunner] or a [TurnStarter], not both. Close must be called in the end.
func New(sc SessionClient, cfg Config) (m *BackgroundManager, err error) {
	defer func() {
		if wrong, ok := err.(*InputError); ok { // else it says already who found it
			err = fmt.Errorf("bgagent: new: %w", wrong)
		}
	}()
	if cfg, err = cfg.withDefaults(); err != nil {
		return nil, err
	}
	m = &BackgroundManager{
		cfg: cfg, cm: cfg.Concurrency, epoch: time.Now().Add(-1), seed: maphash.MakeSeed(),
		closed: make(chan struct{}), closeDone: make(chan struct{}), ended: make(chan struct{}, 1),
	}
	if m.words, err = wordingFor(cfg.ToolNames); err != nil {
		panic("bgagent: bug: names that were found right: " + err.Error())
	}
	if m.cm == nil {
		if m.cm, err = NewConcurrencyManager(cfg.Limits); err != nil {
			return nil, err
		}
	}
	if err := m.addClient("", sc); err != nil {
		return nil, err
	}
	for name, sc := range cfg.Clients {
		if strings.TrimSpace(name) == "" {
			return nil, &InputError{"Config.Clients", "has an entry without a name; the empty name belongs to the client given to New"}
		}
		if err := m.addClient(name, sc); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(m.hosts, func(a, b *hostClient) int { return cmp.Compare(a.rec.name, b.rec.name) })
	for i, cl := range m.hosts {
		cl.rec.index = i
	}
	m.st = m.newState()
	m.base, m.stop = context.WithCancelCause(context.Background())
	for _, cl := range m.hosts {
		if cl.events != nil {
			m.spawn(goEvents, func() { m.follow(cl) })
		}
	}
	return m, nil
}

// Concurrency returns the manager of the slots, to read its figures or change
// its limits.
func (m *BackgroundManager) Concurrency() *ConcurrencyManager { return m.cm }

// newState returns the state of a manager that has nothing yet.
func (m *BackgroundManager) newState() state {
	c := &m.cfg
	st := state{
		cfg: settings{
			MaxDepth: c.MaxDepth, MaxTasksPerRoot: c.MaxTasksPerRoot, Wake: c.Wake, Permissions: c.Permissions,
			ReadConcurrency: c.ReadConcurrency, StablePolls: c.StablePolls, RetainTasks: c.RetainTasks, RetainText: c.RetainText, NoticeResult: c.NoticeResult,
			PollInterval: c.PollInterval, MinIdleTime: c.MinIdleTime, MinStabilityTime: c.MinStabilityTime, TodoHold: c.TodoHold,
			StaleTimeout: c.StaleTimeout, SessionGone: c.SessionGone, HostUnreachable: c.HostUnreachable, TimeToLive: c.TimeToLive,
			QueueTimeToLive: c.QueueTimeToLive, StopTimeout: c.StopTimeout, CreateTimeout: c.CreateTimeout,
			NoticeWindow: c.NoticeWindow, NoticeMaxWait: c.NoticeMaxWait, Retention: c.Retention,
			delegate: m.words.delegate, notifies: c.Notify != nil, logs: c.Logger != nil,
		},
		slots: m.cm.slots, home: m, epoch: m.epoch, seed: m.seed, ids: bufio.NewReaderSize(rand.Reader, 1024),
		tasks: map[uint64]*task{}, calls: map[uint64]*task{}, sessions: sessionIndex{m.seed, map[uint64]*session{}},
		nodes: map[string]*node{}, kinds: map[kindKey]*kind{}, waiters: map[*task][]*waiter{},
	}
	for _, h := range m.hosts {
		st.cfg.notifies = st.cfg.notifies || h.notifier != nil
	}
	return st
}

// update is the gate: the one way to change state. f changes it, then the
// consequences are drawn, and what all that causes leaves once the lock has been
// given back.
func (m *BackgroundManager) update(f func(st *state, now int64)) {
	m.step(f, nil)
}

// view is update for a look: it reads no clock, draws no consequence and has no
// effect.
func (m *BackgroundManager) view(f func(st *state)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f(&m.st)
	if m.check != nil {
		m.check(&m.st)
	}
}

// step is update for a goroutine that can itself make the host call of the next
// attempt that has got a slot, which is prepared in the same update: letting a
// finishing worker take the next saves a quarter of the time of a goroutine
// each. It returns nil when there is none, or j is nil.
func (m *BackgroundManager) step(f func(st *state, now int64), j *job) (next *attempt) {
	st := &m.st
	m.mu.Lock()
	now := int64(time.Since(m.epoch))
	st.now = now
	f(st, now)
	st.settle(now)
	for j != nil && next == nil && st.fx.start != nil {
		a := st.fx.start
		st.fx.start, a.nextRun = a.nextRun, nil
		if st.beginCall(a, j, now) {
			next = a
		}
		st.settle(now)
	}
	m.arm(now)
	if m.check != nil {
		m.check(st)
	}
	fx := st.takeEffects()
	m.expect(&fx)
	m.mu.Unlock()
	m.release(&fx)
	return next
}

// expect counts the goroutines that effects will start, while the lock is held:
// Close must not miss one that is about to begin.
func (m *BackgroundManager) expect(fx *effects) {
	for a := fx.start; a != nil; a = a.nextRun {
		m.running[goWorker].Add(1)
	}
	if r := fx.rare; r != nil {
		m.running[goAbort].Add(int64(len(r.aborts)))
		m.running[goNotify].Add(int64(len(r.deliver)))
		m.running[goPoll].Add(int64(len(r.poll) + len(r.readers) + len(r.looks)))
		if r.writeLog {
			m.running[goLog].Add(1)
		}
		if r.forget {
			m.running[goForget].Add(1)
		}
	}
}

// release lets effects leave: first those that end something, then those that
// follow from what is known by now.
func (m *BackgroundManager) release(fx *effects) {
	for a := fx.cancels; a != nil; {
		rest := a.nextCancel
		a.nextCancel = nil
		a.ctx.end()
		a = rest
	}
	if fx.rare != nil {
		m.releaseRare(fx.rare)
	}
	for _, w := range fx.wakes.few[:fx.wakes.n] {
		w.wake()
	}
	for _, w := range fx.wakes.more {
		w.wake()
	}
	for next := fx.start; next != nil; {
		a := next // for the closure
		next, a.nextRun = a.nextRun, nil
		m.begin(goWorker, func() { m.work(a) })
	}
}

func (m *BackgroundManager) releaseRare(fx *rareEffects) {
	for _, x := range fx.aborts {
		if x.session != "" {
			m.begin(goAbort, func() { m.abortOnce(x.a, x.session) })
		} else {
			m.begin(goAbort, func() { m.abort(x.a) })
		}
	}
	for _, cl := range fx.kicks {
		select {
		case m.host(cl).kick <- struct{}{}:
		default:
		}
	}
	for _, w := range fx.grants {
		w.Owner.SlotGranted(w)
	}
	for _, n := range fx.deliver {
		m.begin(goNotify, func() { m.deliver(n) })
	}
	for _, cl := range fx.poll {
		m.begin(goPoll, func() { m.poll(cl) })
	}
	for _, cl := range fx.readers {
		m.begin(goPoll, func() { m.readThem(cl) })
	}
	for _, l := range fx.looks {
		m.begin(goPoll, func() { m.lookNow(l) })
	}
	if fx.writeLog {
		m.begin(goLog, m.writeLogs)
	}
	if fx.forget {
		m.begin(goForget, m.tellForgotten)
	}
	for _, id := range fx.expired {
		m.errs.keep(id, nil)
	}
}

// SlotGranted implements [slots.Grantee]. It is called without locks when
// somebody else's release has given a slot to the task.
func (t *task) SlotGranted(w *slots.Waiter) { t.st.home.slotGranted(t, w) }

func (m *BackgroundManager) slotGranted(t *task, w *slots.Waiter) {
	m.update(func(st *state, _ int64) {
		// Meanwhile the task may have left, and even have got another slot.
		if st.slots.Holds(w) && (t.status == Pending && !t.is(flagUnstarted) || t.run != nil && t.run.wantTurn) {
			st.due.granted = append(st.due.granted, t)
		}
	})
}

// arm makes the timer stand for the earliest deadline. A timer that stands for an
// earlier time is left alone: it rings once too often and is set again. With the
// lock held.
func (m *BackgroundManager) arm(now int64) {
	at := m.st.deadlines.first()
	if at == 0 || m.timerOff || m.timerAt != 0 && m.timerAt <= at {
		return
	}
	d := time.Duration(max(at-now, 0))
	if m.timer == nil {
		m.timer = time.AfterFunc(d, m.tick)
	} else {
		m.timer.Reset(d)
	}
	m.timerAt = at
}

// tick runs on the timer's goroutine.
func (m *BackgroundManager) tick() {
	m.update(func(st *state, now int64) {
		m.timerAt = 0
		if m.ticked != nil {
			close(m.ticked)
			return
		}
		st.ringDue(now)
	})
}

// spawn is the one place where goroutines start.
func (m *BackgroundManager) spawn(k goKind, f func()) {
	m.running[k].Add(1)
	m.begin(k, f)
}

// begin is spawn for a goroutine that has been counted already.
func (m *BackgroundManager) begin(k goKind, f func()) {
	go func() {
		defer func() {
			m.running[k].Add(-1)
			select {
			case m.ended <- struct{}{}:
			default:
			}
		}()
		f()
	}()
}

// each calls the host's f with from to n-1. A call that panics is the host's loss
// alone; after one that ends the goroutine another goes on with the rest, and with
// what its caller would do then.
func (m *BackgroundManager) each(k goKind, from, n int, f func(int), then func()) {
	for i := from; i < n; i++ {
		func() {
			returned := false
			defer func() {
				if !returned && recover() == nil {
					m.spawn(k, func() {
						m.each(k, i+1, n, f, then)
						then()
					})
				}
			}()
			f(i)
			returned = true
		}()
	}
}

// busyGoroutines names the kinds of which some have not ended.
func (m *BackgroundManager) busyGoroutines() (names []string) {
	for k := range m.running {
		if m.running[k].Load() > 0 {
			names = append(names, goNames[k])
		}
	}
	return names
}
