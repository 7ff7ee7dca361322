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
// Every change must keep these. In tests, checkInvariants verifies those about state after every
// update and view.
//
//  1. Only task.transition writes a status, and only under the lock.
//  2. A terminal status is final for its attempt. A resume opens a new attempt.
//  3. A waiter for an attempt is woken after the attempt is terminal and its notice is owed or settled.
//     Get may show the end earlier than the waiter wakes, never later.
//  4. An attempt owns at most one slot. The slot goes back in the update that ends or parks the turn if
//     the agent ended it. If the attempt was ended from outside, the slot goes back once nothing of it
//     runs, or when its stopping deadline passes.
//  5. No startable attempt waits while its pool has a free slot. An attempt whose session is not quiet
//     yet is not startable; its task has flagAwaitsQuiet.
//  6. Each index (id, session, parent, tool call) holds exactly the tasks it should. A session has at
//     most one attempt that is live or not quiet.
//  7. Counts of live tasks change only in countLive and graft. The number of owed notices changes only
//     in state_owed.go and state_deliver.go.
//  8. Every task is either live, or ended with a notice that is owed or settled in exactly one way.
//  9. While the lock is held, nothing blocks and no host, logger or subscriber is called. The only lock
//     taken below it is that of the ConcurrencyManager.
//  10. Transitions call no consequence. They note it in due, and state.settle draws it at the end of the
//     update. The one exception: an end cascades to the tasks below.
//  11. Effects leave in one place, release, after the lock is given back: first those of class now
//     (cancel, abort), then those of class after (deliver, wake, start). Nothing relies on the order
//     within a class. Whoever wins a transition performs its effects. One goroutine at a time makes
//     the host calls of an attempt, except Abort.
//  12. An observation that is older than the session's last prompt or abort is dropped.
//  13. Events are emitted in the order of the transitions, with one EventEnded per attempt. Callers and
//     subscribers get copies.
//  14. Every goroutine of the manager starts in begin, and is counted under the lock if an update asks
//     for it. It has ended when Close returns, or the error of Close names its kind. Two do not: the
//     timer's tick, for which Close waits, and the functions that a host, or package context for it,
//     registers with the AfterFunc of a turn's context.
//  15. A client has at most one sweep at a time. Sweeps repeat only while a turn or a stopping session is
//     followed, or while a busy parent is owed a notice. Nothing else is periodic. One timer stands for
//     all deadlines, and the alarm of an attempt for the earliest of its time limits.
//  16. The update that begins Close ends every live task: parked and stopping attempts start no further
//     turn, and delivery ends. No attempt, turn or notice starts afterwards.

// BackgroundManager owns background tasks: it starts a task when a slot is free, detects how the
// task ends, and tells the session that launched it. Create one with [New] and end it with
// [BackgroundManager.Close]. All methods are safe for concurrent use. No method calls the host on
// the caller's goroutine, except Messages and those whose documentation says so.
type BackgroundManager struct {
	cfg    Config
	words  wording // names of the tools, as notices use them
	cm     *ConcurrencyManager
	hosts  []*hostClient // the one given to New comes first
	epoch  time.Time     // zero of the times in records
	seed   maphash.Seed  // for the hashes of sessions and calls
	base   context.Context
	stop   context.CancelCauseFunc
	closed chan struct{}   // closed when Close begins
	check  func(st *state) // in tests: called with the lock held at the end of every update and view

	closeDone chan struct{} // closed when Close has ended and closeErr is set
	closeErr  error

	running [goKinds]atomic.Int64 // number of goroutines by kind
	errs    hostErrors            // for Err
	exited  chan struct{}         // holds one token after any goroutine has ended

	// mu guards everything below. While it is held, nothing may block and no host, logger or
	// subscriber may be called. The lock of the ConcurrencyManager may be taken below it. Only
	// update, step and view take mu.
	mu       sync.Mutex
	st       state
	timer    *time.Timer
	timerAt  int64
	timerOff bool
	ticked   chan struct{} // closed by the tick that Close waits for
}

type goKind uint8

// The kinds of goroutines. CloseError.Hung shows their names. A new one also has a name in goNames,
// and is counted in expect if an effect starts it.
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

var goNames = [goKinds]string{
	goWorker: "CreateSession, RunTurn or StartTurn",
	goCall:   "another host call",
	goAbort:  "Abort",
	goNotify: "Notify",
	goPoll:   "Statuses or Messages",
	goEvents: "Events",
	goLog:    "the logger",
	goForget: "ForgetSession",
}

// New returns a manager that runs tasks on the client. The client must be either a [TurnRunner] or
// a [TurnStarter]. The caller must call Close when done.
func New(sc SessionClient, cfg Config) (m *BackgroundManager, err error) {
	defer func() {
		if wrong, ok := err.(*InputError); ok { // other errors already name their source
			err = fmt.Errorf("bgagent: new: %w", wrong)
		}
	}()
	if cfg, err = cfg.withDefaults(); err != nil {
		return nil, err
	}
	m = &BackgroundManager{
		cfg: cfg, cm: cfg.Concurrency, epoch: time.Now().Add(-1), seed: maphash.MakeSeed(),
		closed: make(chan struct{}), closeDone: make(chan struct{}), exited: make(chan struct{}, 1),
	}
	if m.words, err = wordingFor(cfg.ToolNames); err != nil {
		panic("bgagent: bug: the tool names passed the check: " + err.Error())
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
			m.spawn(goEvents, func() { m.streamEvents(cl) })
		}
	}
	return m, nil
}

// Concurrency returns the manager of the slots. Use it to read the figures or to change the limits.
func (m *BackgroundManager) Concurrency() *ConcurrencyManager { return m.cm }

// newState returns the initial state.
func (m *BackgroundManager) newState() state {
	c := &m.cfg
	st := state{
		cfg: settings{
			MaxDepth: c.MaxDepth, MaxTasksPerRoot: c.MaxTasksPerRoot, Wake: c.Wake, Permissions: c.Permissions,
			ReadConcurrency: c.ReadConcurrency, StablePolls: c.StablePolls, RetainTasks: c.RetainTasks, RetainText: c.RetainText, NoticeResult: c.NoticeResult,
			delegate: m.words.delegate, notifies: c.Notify != nil, logs: c.Logger != nil,
		},
		slots: m.cm.slots, home: m, epoch: m.epoch, seed: m.seed, ids: bufio.NewReaderSize(rand.Reader, 1024),
		tasks: map[uint64]*task{}, calls: map[uint64]*task{}, sessions: sessionIndex{m.seed, map[uint64]*session{}},
		nodes: map[string]*node{}, kinds: map[kindKey]*kind{}, waiters: map[*task][]*waiter{},
	}
	for i := range timeLimits {
		st.cfg.times[i] = *timeLimits[i].of(c)
	}
	for _, h := range m.hosts {
		st.cfg.notifies = st.cfg.notifies || h.notifier != nil
	}
	return st
}

// update is the gate: the only way to change state. It calls f with the lock held, draws the
// consequences of what f changed, and releases the effects after it has given the lock back.
func (m *BackgroundManager) update(f func(st *state, now int64)) {
	m.step(f, nil)
}

// view calls f with the lock held. f must only read: view takes no clock reading, draws no
// consequences and releases no effects. The one write is in passed, where nothing may follow from it
// and a clock reading is too dear.
func (m *BackgroundManager) view(f func(st *state)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f(&m.st)
	if m.check != nil {
		m.check(&m.st)
	}
}

// step is update for a worker. If j is not nil and an attempt wants a goroutine, step prepares that
// attempt's host call in j and returns the attempt, so that the worker makes the call itself.
// Reusing the worker saves a quarter of the time that a new goroutine takes. step returns nil if
// there is no such attempt.
func (m *BackgroundManager) step(f func(st *state, now int64), j *job) (next *attempt) {
	st := &m.st
	m.mu.Lock()
	now := int64(time.Since(m.epoch))
	st.now = now
	f(st, now)
	st.settle(now)
	for j != nil && next == nil && st.fx.after.start != nil {
		a := st.fx.after.start
		st.fx.after.start, a.nextRun = a.nextRun, nil
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

// expect counts the goroutines that the effects will start. It runs with the lock held, so that
// Close cannot miss a goroutine that is about to begin. begin finds out if a goroutine was not
// counted.
func (m *BackgroundManager) expect(fx *effects) {
	for a := fx.after.start; a != nil; a = a.nextRun {
		m.running[goWorker].Add(1)
	}
	if r := fx.rare; r != nil {
		m.running[goAbort].Add(int64(len(r.now.aborts)))
		for s := r.now.strays; s != nil; s = s.next {
			m.running[goAbort].Add(1)
		}
		m.running[goNotify].Add(int64(len(r.after.deliver)))
		m.running[goPoll].Add(int64(len(r.after.poll) + len(r.after.readers) + len(r.after.looks)))
		if r.after.writeLog {
			m.running[goLog].Add(1)
		}
		if r.after.forget {
			m.running[goForget].Add(1)
		}
	}
}

// release performs the effects: first those that end something, then those that rely on the new
// state.
func (m *BackgroundManager) release(fx *effects) {
	m.releaseNow(fx)
	m.releaseAfter(fx)
}

func (m *BackgroundManager) releaseNow(fx *effects) {
	for a := fx.now.cancels; a != nil; {
		rest := a.nextCancel
		a.nextCancel = nil
		a.ctx.end()
		a = rest
	}
	if fx.rare == nil {
		return
	}
	rare := &fx.rare.now
	for _, a := range rare.aborts {
		m.begin(goAbort, func() { m.abort(a) })
	}
	for s := rare.strays; s != nil; s = s.next {
		m.begin(goAbort, func() { m.abortOnce(s.a, s.session) })
	}
	for _, cl := range rare.kicks {
		select {
		case m.host(cl).kick <- struct{}{}:
		default:
		}
	}
}

func (m *BackgroundManager) releaseAfter(fx *effects) {
	if fx.rare != nil {
		m.releaseRare(fx.rare)
	}
	for _, w := range fx.after.wakes.few[:fx.after.wakes.n] {
		w.wake()
	}
	for _, w := range fx.after.wakes.more {
		w.wake()
	}
	for next := fx.after.start; next != nil; {
		a := next // a copy for the closure
		next, a.nextRun = a.nextRun, nil
		m.begin(goWorker, func() { m.work(a) })
	}
}

// releaseRare performs the rare effects of class after.
func (m *BackgroundManager) releaseRare(fx *rareEffects) {
	rare := &fx.after
	for _, w := range rare.grants {
		w.Owner.SlotGranted(w)
	}
	for _, n := range rare.deliver {
		m.begin(goNotify, func() { m.deliver(n) })
	}
	for _, cl := range rare.poll {
		m.begin(goPoll, func() { m.poll(cl) })
	}
	for _, cl := range rare.readers {
		m.begin(goPoll, func() { m.readThem(cl) })
	}
	for _, l := range rare.looks {
		m.begin(goPoll, func() { m.lookNow(l) })
	}
	if rare.writeLog {
		m.begin(goLog, m.writeLogs)
	}
	if rare.forget {
		m.begin(goForget, m.tellForgotten)
	}
	for _, id := range rare.expired {
		m.errs.keep(id, nil)
	}
}

// SlotGranted implements [slots.Grantee]. It is called without the lock of this manager, on the
// goroutine of whoever made the slot free: another user of the same slots, or a caller of SetLimits.
func (t *task) SlotGranted(w *slots.Waiter) { t.st.home.slotGranted(t, w) }

func (m *BackgroundManager) slotGranted(t *task, w *slots.Waiter) {
	m.update(func(st *state, _ int64) {
		// Since the grant, the task may have left the line, and may even have been granted another
		// slot.
		if st.slots.Holds(w) && (t.status == Pending && !t.is(flagAwaitsQuiet) || t.run != nil && t.run.wantTurn) {
			st.due.granted = append(st.due.granted, t)
		}
	})
}

// arm sets the timer to the earliest deadline. A timer that is set to an earlier time is left
// alone: it rings once too often and is set again then. The lock must be held.
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

// spawn counts and starts a goroutine.
func (m *BackgroundManager) spawn(k goKind, f func()) {
	m.running[k].Add(1)
	m.begin(k, f)
}

// begin starts a goroutine that is already counted, by expect or by spawn. The manager starts all
// its goroutines here.
func (m *BackgroundManager) begin(k goKind, f func()) {
	go func() {
		defer func() {
			if m.running[k].Add(-1) < 0 {
				panic("bgagent: bug: a goroutine was not counted: " + goNames[k])
			}
			select {
			case m.exited <- struct{}{}:
			default:
			}
		}()
		f()
	}()
}

// each calls f, which is the host's, with every number from from to n-1. If a call panics, only
// that call fails. If a call ends the goroutine, a new goroutine continues with the remaining
// numbers and then calls then.
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

// busyGoroutines returns the names of the kinds that still have running goroutines.
func (m *BackgroundManager) busyGoroutines() (names []string) {
	for k := range m.running {
		if m.running[k].Load() > 0 {
			names = append(names, goNames[k])
		}
	}
	return names
}
