package bgagent

import (
	"bufio"
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"hash/maphash"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bgagent/bgagent/internal/inside"
	"github.com/bgagent/bgagent/internal/slots"
)

// # Invariants
//
// Every change must keep these invariants. In tests, checkInvariants verifies the invariants of the
// state after every update and every view.
//
//  1. Only task.transition writes a status, and only under the lock.
//  2. A terminal status is final for its attempt. Resuming a task opens a new attempt.
//  3. A waiter for an attempt is woken after the attempt is terminal and its notice is owed or settled.
//     By the time the waiter is woken, Get already shows the end.
//  4. An attempt owns at most one slot. If the agent ended the turn, the update that ends or parks the
//     attempt gives the slot back. If something else ended the attempt, the slot is given back once the
//     session has stopped, or when the attempt's stopping deadline passes.
//  5. No startable attempt waits while its pool has a free slot. An attempt is not startable while an
//     earlier attempt in its session is not quiet; its task then has flagAwaitsQuiet.
//  6. Each index (id, session, parent, tool call) contains exactly the tasks that belong in it. A
//     session has at most one attempt that is live or not quiet.
//  7. Counts of live tasks change only in countLive and graft. The number of owed notices changes only
//     in state_owed.go and state_deliver.go.
//  8. Every task is live, or it has ended with a notice that is owed or settled in exactly one way.
//  9. While the lock is held, no code blocks and no host, logger or subscriber is called. The only other
//     lock that may be taken during this time is that of the ConcurrencyManager.
//  10. Transitions do not call the functions for their consequences. They note the consequences in
//     state.due, and state.settle carries them out at the end of the update. There is one exception:
//     when a task ends, the tasks below it end immediately.
//  11. Only m.release performs effects, after the lock is released. It first performs the effects of
//     class "now" (cancel, abort), then the effects of class "after" (deliver, wake, start). No code
//     relies on the order within a class. The goroutine whose update made a transition also performs
//     the effects of that transition. The host calls of an attempt, except Abort, are not made
//     concurrently.
//  12. Observations older than the session's last prompt or abort are dropped.
//  13. Events are emitted in the order of the transitions, with one EventEnded per attempt. Callers and
//     subscribers get copies.
//  14. m.begin starts every goroutine of the manager, with two exceptions: the timer's tick, for which
//     Close also waits, and functions that are registered with the AfterFunc method of a turn's context.
//     If an update asks for a goroutine, the goroutine is counted under the lock. When Close returns,
//     every goroutine that m.begin started has ended, or the error from Close names its kind.
//  15. A client has at most one running sweep. Sweeps repeat only while a turn or a stopping session is
//     being followed, or while a notice is owed to a busy parent. With a store, the manager's own record is
//     written at least once a minute while a task is live or being stopped. No other work is periodic.
//     One timer serves all deadlines, and the alarm of an attempt is set for the earliest of its time
//     limits.
//  16. Close's first update ends every live task. Parked and stopping attempts do not start another
//     turn, and deliveries stop. No attempt, turn or notice delivery starts afterwards.
//  17. Only the root of a tree has an account, which counts the usage of the tree. If no budget period
//     is configured, the account is open only while a task of the tree is live.
//  18. Messages wait only for the latest attempt of a live task. When the attempt ends, none is left
//     waiting for it. While a message waits for a parked attempt, the attempt asks for its next turn.
//  19. An attempt that waits for its provider does not hold a slot, unless its next turn is about to
//     begin. It is not in a turn, and no host call other than Abort is due. No turn begins in a pool
//     while it cools down.
//  20. Only a task in a turn has open questions. An attempt that is parked in its turn waits for the
//     answer to a question, and the client has not yet received the outcome of that question.
//  21. A question that is still to be reported to a session is open. It is in exactly one place: the
//     session's outbox, one notice, or one answer that was handed out.

// BackgroundManager manages background tasks. It starts a task when a slot is free, detects how the
// task ends, and reports the end to the session that launched the task. Create a manager with [New] and
// shut it down with [BackgroundManager.Close]. All methods are safe for concurrent use. A method
// waits for calls to the host only if its documentation says so.
type BackgroundManager struct {
	cfg      Config
	words    wording // how notices and other texts refer to the tools
	cm       *ConcurrencyManager
	hosts    []*hostClient // all clients; the client that was passed to New comes first
	epoch    time.Time     // the zero point of the times in the state
	seed     maphash.Seed  // seed for the hashes of sessions
	callSeed maphash.Seed  // seed for the hashes of calls; zero with a store
	owner    StoreOwner    // identifies the manager to its store
	store    storeLife
	found    Restored      // description of the store's contents when it was opened
	starting atomic.Bool   // true once the first call to Start has begun
	events   sync.Once     // starts the event streams
	started  chan struct{} // closed once the earlier process's tasks have been continued
	base     context.Context
	stop     context.CancelCauseFunc
	closed   chan struct{}   // closed when Close begins
	check    func(st *state) // set only in tests; called with the lock held at the end of every update and every view

	closeDone chan struct{} // closed when Close has ended and closeErr is set
	closeErr  error

	running [goKinds]atomic.Int64 // number of goroutines by kind
	errs    hostErrors            // errors that Err returns
	exited  chan struct{}         // receives a token when a goroutine has ended

	// mu guards all fields below. While mu is held, no code may block, and no host, logger or subscriber
	// may be called. The lock of the ConcurrencyManager may be taken while mu is held. Only
	// m.update, m.step and m.view take mu.
	mu       sync.Mutex
	broken   string // why an update was not completed; empty if all were completed
	st       state
	timer    *time.Timer
	timerAt  int64
	timerOff bool
	ticked   chan struct{} // closed by the tick that Close waits for
}

// New returns a manager that runs tasks on the client sc. The client must be either a [TurnRunner]
// or a [TurnStarter]. If an argument is wrong, New returns an [*InputError]. The caller must call
// Close when the manager is no longer needed.
func New(sc SessionClient, cfg Config) (m *BackgroundManager, err error) {
	defer func() {
		if wrong, ok := err.(*InputError); ok { // other types of errors already name their source
			err = fmt.Errorf("bgagent: new: %w", wrong)
		}
	}()
	if cfg, err = cfg.withDefaults(); err != nil {
		return nil, err
	}
	m = &BackgroundManager{
		cfg: cfg, cm: cfg.Concurrency, epoch: time.Now().Add(-1), seed: maphash.MakeSeed(),
		started: make(chan struct{}), closed: make(chan struct{}), closeDone: make(chan struct{}), exited: make(chan struct{}, 1),
	}
	if m.words, err = wordingFor(cfg.ToolNames, cfg.OptionalTools...); err != nil {
		panic("bgagent: bug: the tool names passed the check: " + err.Error())
	}
	m.words.permits = cfg.ModelsMayPermit
	if err := m.chooseSlots(); err != nil {
		return nil, err
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
	if cfg.Store == nil && inside.Store != nil {
		m.cfg.Store = inside.Store().(Store)
	}
	if m.cfg.Store == nil {
		m.callSeed = m.seed
	}
	m.st = m.newState()
	m.base, m.stop = context.WithCancelCause(context.Background())
	if err := m.openStore(); err != nil {
		return nil, err
	}
	m.joinSlots()
	if cfg.Store == nil {
		m.startEvents()
	}
	return m, nil
}

// newState returns the initial state.
func (m *BackgroundManager) newState() state {
	c := &m.cfg
	st := state{
		cfg: settings{
			MaxDepth: c.MaxDepth, MaxTasksPerRoot: c.MaxTasksPerRoot, Wake: c.Wake, InterruptRestored: c.InterruptRestored, Ask: c.Ask, ModelsMayPermit: c.ModelsMayPermit, OnlyModelsAnswer: c.OnlyModelsAnswer, Permissions: c.Permissions,
			ReadConcurrency: c.ReadConcurrency, StablePolls: c.StablePolls, MaxToolCalls: c.MaxToolCalls, RepeatedCalls: c.RepeatedCalls, RetainTasks: c.RetainTasks, RetainText: c.RetainText, NoticeResult: c.NoticeResult, Fallback: c.Fallback,
			TaskBudget: c.TaskBudget, TreeBudget: c.TreeBudget,
			delegate: m.words.delegate, answers: m.words.message != "", notifies: c.Notify != nil, logs: c.Logger != nil, notifierForgets: c.Notify != nil,
		},
		slots: m.cm.slots, slotsFrom: int64(m.epoch.Sub(m.cm.epoch)), home: m, epoch: m.epoch, seed: m.seed, callSeed: m.callSeed, ids: bufio.NewReaderSize(rand.Reader, 1024),
		tasks: map[uint64]*task{}, calls: map[uint64]*task{}, sessions: sessionIndex{m.seed, map[uint64]*session{}},
		nodes: map[string]*node{}, kinds: map[kindKey]*kind{}, waiters: map[*task][]*waiter{}, claims: newClaims(c.Slots),
	}
	st.budgets = !c.TaskBudget.isZero() || !c.TreeBudget.isZero()
	for i := range timeLimits {
		st.cfg.times[i] = *timeLimits[i].of(c)
	}
	for _, h := range m.hosts {
		st.cfg.notifies = st.cfg.notifies || h.notifier != nil
		if ids, ok := h.notifier.(NoticeRecognizer); h.notifier != nil && !(ok && ids.NoticeIDs()) {
			st.cfg.notifierForgets = true
		}
	}
	return st
}

// update is the gate: only update and step change the state. It calls f with the lock held and
// carries out the consequences of the changes that f made. Then it releases the lock and performs
// the effects.
func (m *BackgroundManager) update(f func(st *state, now int64)) {
	m.step(f, nil)
}

// The method "view" calls f with the lock held. f must not change the state, because this method
// does not read the clock, carry out consequences or perform effects. There is one exception:
// m.passed calls m.view with a function that sets a flag. The flag has no consequences, and
// reading the clock would take too long there.
func (m *BackgroundManager) view(f func(st *state)) {
	m.lock()
	defer m.mu.Unlock()
	f(&m.st)
	if m.check != nil {
		m.check(&m.st)
	}
}

// step is like update, but for a worker goroutine. If j is not nil and an attempt needs a worker,
// the method "step" prepares the attempt's host call in j and returns the attempt. The calling
// worker then makes the host call itself, which takes a quarter less time than starting a new
// goroutine. If no attempt needs a worker, the method "step" returns nil.
func (m *BackgroundManager) step(f func(st *state, now int64), j *job) (next *attempt) {
	st, done := &m.st, false
	m.lock()
	defer m.unlessDone(&done)
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
	st.askWriter()
	m.arm(now)
	if m.check != nil {
		m.check(st)
	}
	fx := st.takeEffects()
	m.expect(&fx)
	done = true
	m.mu.Unlock()
	m.release(&fx)
	return next
}

// lock takes the lock. It panics if an earlier update was not completed.
func (m *BackgroundManager) lock() {
	m.mu.Lock()
	if m.broken != "" {
		m.panicBroken()
	}
}

func (m *BackgroundManager) panicBroken() {
	defer m.mu.Unlock()
	panic("bgagent: bug: the state is no longer consistent, because an update was not completed: " + m.broken)
}

// unlessDone is deferred by an update. If the update was not completed, it records the reason and
// releases the lock. Later calls then panic with this reason. If the lock stayed locked, they would
// hang, and a host that recovers from panics would never find out why.
func (m *BackgroundManager) unlessDone(done *bool) {
	if *done {
		return
	}
	v, why := recover(), "the goroutine was ended by runtime.Goexit"
	if v != nil {
		why = fmt.Sprint(v)
	}
	m.broken = why + "\n\n" + string(debug.Stack())
	m.mu.Unlock()
	if v != nil {
		panic(v)
	}
}

// expect counts the goroutines that the effects will start. It is called with the lock held, so that
// Close cannot miss a goroutine that is about to start. A goroutine that was not counted panics when
// it ends.
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
		m.running[goCall].Add(int64(len(r.after.answers)))
		if r.after.writeLog {
			m.running[goLog].Add(1)
		}
		if r.after.forget {
			m.running[goForget].Add(1)
		}
		if r.now.write {
			m.running[goStore].Add(1)
		}
		if r.now.askSlots {
			m.running[goSlots].Add(1)
		}
	}
}

// release performs the effects: first the effects of class "now", which end attempts and turns,
// then the effects of class "after".
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
	for _, c := range rare.halts {
		c.end()
	}
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
	if rare.write {
		m.begin(goStore, m.write)
	}
	if rare.askSlots {
		m.begin(goSlots, m.askSlots)
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
		a := next // a copy for the closure, because the variable "next" changes
		next, a.nextRun = a.nextRun, nil
		m.begin(goWorker, func() { m.work(a) })
	}
}

// releaseRare performs the rare effects of class "after".
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
	for _, x := range rare.answers {
		m.begin(goCall, func() { m.passAnswer(x) })
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
	if rare.cooled {
		m.cm.tellCooled(m)
	}
}

// SlotGranted implements [slots.Grantee]. It is called without the manager's lock. It runs on the
// goroutine that freed the slot. That goroutine belongs to another user of the same slots or to a
// caller of SetLimits.
func (t *task) SlotGranted(w *slots.Waiter) { t.st.home.slotGranted(t, w) }

func (m *BackgroundManager) slotGranted(t *task, w *slots.Waiter) {
	m.update(func(st *state, _ int64) {
		// Since the grant, the task might have left the line, or might even have got another slot.
		if st.slots.Holds(w) && (t.status == Pending && !t.is(flagAwaitsQuiet) || t.run != nil && t.run.wantTurn) {
			st.due.granted = append(st.due.granted, t)
		}
	})
}

// arm sets the timer to the earliest deadline. If the timer is already set to an earlier time, it is
// left unchanged. In that case, the timer fires too early once and is then set again. In a suspended
// manager, no deadline has an effect, so the timer is not set. The lock must be held.
func (m *BackgroundManager) arm(now int64) {
	at := m.st.deadlines.first()
	if at == 0 || m.timerOff || m.st.suspend == frozen || m.timerAt != 0 && m.timerAt <= at {
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

// tick handles the deadlines that have passed. It runs on the timer's goroutine.
func (m *BackgroundManager) tick() {
	m.update(func(st *state, now int64) {
		m.timerAt = 0
		if m.ticked != nil {
			close(m.ticked)
			return
		}
		if st.suspend != frozen {
			st.ringDue(now)
		}
	})
}
