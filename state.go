package bgagent

import (
	"bufio"
	"hash/maphash"
	"time"

	"github.com/bgagent/bgagent/internal/slots"
)

// state holds all data of the manager: the records of live and ended tasks, their indexes, and the
// notices that are owed. Only BackgroundManager's methods update, step and view access it.
//
// The methods of state only make decisions. They do not start goroutines, read the clock, call a
// host or write to the log, and they do not contain text for people or models. An update collects
// its effects in st.fx. The effects are performed after the lock is released.
//
// There are three kinds of methods. A leaf changes one structure. A transition changes one task or
// node and calls only leaves. A consequence starts a task that got a slot, ends an attempt that has
// nothing left to wait for, schedules a notice, evicts records or drops a node. Only the method
// "settle" calls consequences, at the end of the update. A transition requests a consequence by
// listing the task, attempt or node in st.due. There is one exception: the end of a task also ends
// the tasks below it.
type state struct {
	cfg       settings
	slots     *slots.Manager
	slotsFrom int64     // difference between the clock for cool-downs and the state's clock
	home      grants    // receives the slots that tasks get outside an update
	epoch     time.Time // zero point of the state's clock
	seed      maphash.Seed
	callSeed  maphash.Seed  // seed for the hashes of calls; zero with a store, so that every process makes the same hashes
	ids       *bufio.Reader // source of randomness

	tasks      map[uint64]*task // keyed by the number that is encoded in the id
	peak       int              // largest number of entries in the map "tasks" since it was last copied
	calls      map[uint64]*task // launched tasks, keyed by a hash of caller, tool call, agent and prompt
	sessions   sessionIndex
	nodes      map[string]*node
	kinds      map[kindKey]*kind
	lastKind   *kind
	waiters    map[*task][]*waiter
	drainers   []*waiter // waiters of Drain and Close, which wait until all work has stopped
	live       int       // number of pending and running tasks
	unquiet    int       // number of attempts that have ended but are not quiet yet
	inStopTime int       // like unquiet, but counts only attempts whose stopping deadline has not passed
	over       int       // number of sessions that have missed their stopping deadline since New
	ends       endCounts
	waived     *task  // task that the session in the field "waiver" is cancelling right now
	waiver     string // session that is cancelling the task in the field "waived"; it needs no notice if it is that task's parent
	closing    bool   // Close has begun: no task starts from now on
	closed     bool   // Close has ended: no event is sent from now on
	draining   bool

	deadlines  deadlines
	keep       retention
	subs       []*Subscription
	seq        uint64 // number of the last event
	logs       logQueue
	forget     []forgotten
	forgetting bool

	claims   *claims  // nil unless the slots come from Config.Slots
	storing  *storing // nil without a store
	recovery recovery
	careful  careful
	suspend  suspending
	outdated bool                 // the store might belong to another manager that is still running, for example because the store is a copy
	budgets  bool                 // a budget has been set, so usage is counted
	costless map[kindKey]struct{} // kinds of tasks for which a missing cost has been logged

	openQuestions int    // number of open questions of all tasks
	lastQuestion  uint64 // number of the last question that was opened

	lateFor string // why the manager does not automatically begin turns for an earlier process's tasks; empty if it does

	now int64 // time of the current update
	due due
	fx  effects
}

// settings holds the parts of [Config] that the state needs.
type settings struct {
	MaxDepth, MaxTasksPerRoot              int
	Wake                                   Wake
	InterruptRestored                      bool
	Ask, ModelsMayPermit, OnlyModelsAnswer bool
	TaskBudget, TreeBudget                 Budget
	Permissions                            []Permission
	ReadConcurrency, StablePolls           int
	MaxToolCalls, RepeatedCalls            int
	RetainTasks                            int
	RetainText                             int64
	NoticeResult                           int
	Fallback                               map[string][]string // keyed by the model in its normal form

	times [len(timeLimits)]time.Duration // all durations of Config; see state.limit

	delegate string // name of the tool that delegates; empty if there is none
	answers  bool   // models have the tool that answers questions
	// notifierForgets means that a repeated notice might reach its session twice, because at least one
	// notifier does not recognize notice ids.
	notifierForgets bool

	notifies bool // notices can be delivered to root sessions, because Config or a client has a notifier
	logs     bool // a logger is set
}

// limit returns the duration that [Config] sets for l. The duration is negative if that limit is
// disabled.
func (st *state) limit(l timeLimit) time.Duration { return st.cfg.times[l] }

// The type "grants" is the part of the manager that a task can call. It is told about slots that tasks are
// granted while no update is running.
type grants interface {
	slotGranted(t *task, w *slots.Waiter)
}

// The type "due" lists the tasks, attempts and nodes for which the method "settle" must call
// consequences at the end of the current update.
type due struct {
	granted []*task    // tasks that got a slot
	waiting []*attempt // attempts that might have nothing left to wait for
	nodes   []*node    // nodes for which a notice might be due, or which might no longer be needed
	evict   bool       // a retention limit might be exceeded
}

// touchNode makes the method "settle" check the node: a notice might be due, or the node might have to
// be dropped.
func (st *state) touchNode(n *node) {
	if !n.touched {
		st.nodeChanged(n)
		n.touched = true
		st.due.nodes = append(st.due.nodes, n)
	}
}

// touchParent makes the method "settle" check the attempt that runs in n's session, if there is
// one: the attempt might have nothing left to wait for.
func (st *state) touchParent(n *node) {
	if p := n.parentTask(); p != nil && p.run != nil {
		st.touchAttempt(p.run)
	}
}

// touchAttempt makes the method "settle" check the attempt: it might have nothing left to wait for.
func (st *state) touchAttempt(a *attempt) {
	if !a.touched {
		a.touched = true
		st.due.waiting = append(st.due.waiting, a)
	}
}

// The method "settle" calls the consequences that are listed in st.due until the list is empty.
// Consequences can add to the list. Granted slots come first, in the order in which they were
// granted, because a task that holds a slot without starting delays the others. The order of
// attempts and nodes does not matter; the last one is taken first, because that is cheapest.
func (st *state) settle(now int64) {
	d := &st.due
	for {
		switch {
		case len(d.granted) > 0:
			list := d.granted
			for i := 0; i < len(d.granted); i++ { // starting one task can grant slots to others
				st.granted(d.granted[i], now)
			}
			clear(d.granted)
			d.granted = list[:0]
		case len(d.waiting) > 0:
			a := d.waiting[len(d.waiting)-1]
			d.waiting[len(d.waiting)-1] = nil
			d.waiting = d.waiting[:len(d.waiting)-1]
			a.touched = false
			st.reconsider(a, now)
		case len(d.nodes) > 0:
			n := d.nodes[len(d.nodes)-1]
			d.nodes[len(d.nodes)-1] = nil
			d.nodes = d.nodes[:len(d.nodes)-1]
			n.touched = false
			if !n.dropped {
				st.schedule(n, now)
				st.closeAccount(n)
				st.dropNode(n)
			}
		case d.evict:
			d.evict = false
			st.evict(now)
		default:
			return
		}
	}
}

// effects holds the actions that the current update causes. BackgroundManager.release performs them
// after the lock is released. There are two classes of effects. The effects of class "now" come first.
// For example, they cancel contexts and abort sessions. The effects of class "after" come next.
// Effects that only a few updates cause are in the field "rare", which has the same two classes. Every
// effect is a field of nowEffects, afterEffects or rareEffects.
type effects struct {
	now   nowEffects
	after afterEffects
	rare  *rareEffects
}

type nowEffects struct {
	cancels *attempt // first attempt in the list of attempts whose contexts must be cancelled
}

type afterEffects struct {
	start, startEnd *attempt // first and last attempt in the list of attempts whose next host call is due; see wantCall
	wakes           wakes
}

type rareEffects struct {
	now struct {
		halts  []*turnContext // contexts of host calls that must be cancelled
		aborts []*attempt     // for each attempt, a goroutine aborts the session until the session has stopped
		strays *stray         // first stray in the list; for each stray, a goroutine aborts the session once
		kicks  []*client      // clients to poll immediately
		write  bool           // start a goroutine that writes to the store

		askSlots bool // start a goroutine that calls the slot source
	}
	after struct {
		grants   []*slots.Waiter // slots granted to tasks of other managers; each of these tasks must be informed
		deliver  []*node         // for each node, a goroutine delivers a notice to the session
		poll     []*client       // for each client, a goroutine polls the sessions
		readers  []*client       // for each client, a goroutine reads the messages of sessions
		answers  []*asked        // for each question, a goroutine passes the outcome to the client
		looks    []looked        // for each poll, a goroutine asks for the session's status and messages
		writeLog bool            // start a goroutine that writes the log
		forget   bool            // start a goroutine that calls ForgetSession for the sessions in state.forget
		expired  []string        // ids of tasks whose host errors can be forgotten
		cooled   bool            // a pool's cool-down has begun or been extended; other managers that share the slots must be informed
	}
}

// stray is a session that must be aborted once, in addition to the aborts of its attempt. Strays
// form a linked list, because they are rare: a slice in every rareEffects would take more memory.
type stray struct {
	a       *attempt
	session string
	next    *stray
}

func (st *state) rare() *rareEffects {
	if st.fx.rare == nil {
		st.fx.rare = &rareEffects{}
	}
	return st.fx.rare
}

// takeEffects returns the effects of the current update and clears them.
func (st *state) takeEffects() effects {
	fx := st.fx
	st.fx = effects{}
	fx.after.wakes.taken()
	return fx
}

// The type "wakes" holds the waiters to wake, each at most once. There are rarely more than two.
type wakes struct {
	few  [2]*waiter
	n    int
	more []*waiter
}

func (x *wakes) add(w *waiter) {
	switch {
	case w.due:
		return
	case x.n < len(x.few):
		x.few[x.n] = w
		x.n++
	default:
		x.more = append(x.more, w)
	}
	w.due = true
}

// The method "taken" clears the waiters' due marks while the lock is still held.
func (x *wakes) taken() {
	for _, w := range x.few[:x.n] {
		w.due = false
	}
	for _, w := range x.more {
		w.due = false
	}
}

// news is the part of an event that the snapshot of the task does not contain.
type news struct {
	kind     EventKind
	budget   *BudgetLimit
	question *Question
}

// The method "event" returns the event that x describes, with its own copies of everything in it.
func (x news) event(t Task) Event {
	return Event{Kind: x.kind, Task: t, Budget: x.budget.clone(), Question: x.question.clone()}
}

// emit sends an event to every subscriber. If the event reports a change that is not durable yet,
// the event is held back.
func (st *state) emit(kind EventKind, t *task) {
	if st.storing == nil && len(st.subs) == 0 { // checked here, so that the check is inlined
		st.seq++
		return
	}
	st.emitNews(news{kind: kind}, t)
}

// emitNews is like emit, but for an event with a budget limit or a question.
func (st *state) emitNews(x news, t *task) {
	if st.storing != nil && st.holdEvent(x, t) {
		return
	}
	st.seq++
	if len(st.subs) > 0 {
		st.publish(x, t)
	}
}

// publish is a separate function, because an event is large: if the frame of emitNews had room for one,
// the stack of every goroutine that emits events would grow, even without subscribers.
func (st *state) publish(x news, t *task) {
	for _, s := range st.subs {
		e := x.event(st.snapshot(t)) // each subscriber gets its own snapshot, because a snapshot holds maps and slices
		e.Seq = st.seq
		s.put(e)
		st.fx.after.wakes.add(&s.waiter)
	}
}

// logTask queues a log entry about a task.
func (st *state) logTask(k logKind, t *task) {
	if st.cfg.logs {
		st.logAbout(k, t)
	}
}

func (st *state) logAbout(k logKind, t *task) {
	e := logEntry{kind: k, task: t.id(), attempt: int(t.no), agent: t.kind.key.agent, status: t.status, cause: t.cause}
	if t.sess != nil {
		e.session = t.sess.id
	}
	st.logEntry(e)
}

// logText queues a log entry about a problem with a host. detail can contain text that an agent
// wrote.
func (st *state) logText(k logKind, about, detail string) {
	if st.cfg.logs {
		st.logEntry(logEntry{kind: k, about: about, detail: detail})
	}
}

func (st *state) logEntry(e logEntry) {
	q := &st.logs
	if len(q.entries) >= maxLogEntries {
		q.dropped++
		return
	}
	e.at = st.now
	q.entries = append(q.entries, e)
	if !q.writing {
		q.writing = true
		st.rare().after.writeLog = true
	}
}
