package bgagent

import (
	"bufio"
	"hash/maphash"
	"time"

	"github.com/bgagent/bgagent/internal/slots"
)

// state holds all data of the manager: the records of tasks, their indexes, the notices that are
// owed, and the records that are kept for some time. Only BackgroundManager.update, step and view
// access it.
//
// The methods of state only make decisions. They start no goroutine, read no clock, call no host,
// write no log and contain no wording. An update collects its effects in fx. They are carried out
// after the lock is released.
//
// There are three kinds of methods. A leaf changes one structure. A transition changes one task or
// node and calls only leaves. A consequence does one of these: it starts a task that got a slot,
// ends an attempt that has nothing left to wait for, schedules a notice, evicts records or drops a
// node. Only settle calls consequences, at the end of the update. A transition requests a
// consequence by listing it in due. There is one exception: the end of a task also ends the tasks
// below it.
type state struct {
	cfg   settings
	slots *slots.Manager
	home  grants    // announces a slot that a task got because another owner released it
	epoch time.Time // time to which the times in records are relative
	seed  maphash.Seed
	ids   *bufio.Reader // source of randomness

	tasks      map[uint64]*task // keyed by the number that is encoded in the id
	peak       int              // largest number of entries that the current map tasks has had
	calls      map[uint64]*task // launched tasks, keyed by the hash of caller, tool call, agent and prompt
	sessions   sessionIndex
	nodes      map[string]*node
	kinds      map[kindKey]*kind
	lastKind   *kind
	waiters    map[*task][]*waiter
	drainers   []*waiter // waiters of Drain and Close, which wait until all work has stopped
	live       int       // number of pending and running tasks
	unquiet    int       // number of ended attempts that are not quiet yet
	inStopTime int       // number of ended attempts that are not quiet and have not missed their stopping deadline
	over       int       // number of sessions that missed their stopping deadline, since New
	ends       endCounts
	waived     *task  // task that is being cancelled right now by the session in the field waiver
	waiver     string // session that is cancelling the task in the field waived; needs no notice if it is that task's parent
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

	now int64 // time of the current update
	due due
	fx  effects
}

// settings are the parts of [Config] that the state needs.
type settings struct {
	MaxDepth, MaxTasksPerRoot    int
	Wake                         Wake
	Permissions                  []Permission
	ReadConcurrency, StablePolls int
	RetainTasks                  int
	RetainText                   int64
	NoticeResult                 int

	times [len(timeLimits)]time.Duration // all durations of Config; see state.limit

	delegate string // name of the tool that delegates; empty if there is none
	notifies bool   // notices can be delivered to root sessions, because Config or a client has a notifier
	logs     bool   // a logger is set
}

// limit returns a duration of [Config]. It is negative if the limit is disabled.
func (st *state) limit(l timeLimit) time.Duration { return st.cfg.times[l] }

// grants announces a slot that was granted to a task outside of an update. It is the only interface
// that records can reach.
type grants interface {
	slotGranted(t *task, w *slots.Waiter)
}

// due lists the records for which settle must call consequences at the end of the current update.
type due struct {
	granted []*task    // tasks that got a slot
	waiting []*attempt // attempts that may have nothing left to wait for
	nodes   []*node    // nodes that may have a notice due, or may no longer be needed
	evict   bool       // a retention limit may be exceeded
}

// touchNode asks settle to check the node: a notice may be due, or the node may be dropped.
func (st *state) touchNode(n *node) {
	if !n.touched {
		n.touched = true
		st.due.nodes = append(st.due.nodes, n)
	}
}

// touchParent asks settle to check the attempt that runs in n's session, if there is one: it may
// have nothing left to wait for.
func (st *state) touchParent(n *node) {
	if p := n.parentTask(); p != nil && p.run != nil {
		st.touchAttempt(p.run)
	}
}

// touchAttempt asks settle to check the attempt: it may have nothing left to wait for.
func (st *state) touchAttempt(a *attempt) {
	if !a.touched {
		a.touched = true
		st.due.waiting = append(st.due.waiting, a)
	}
}

// settle calls the consequences that are listed in due, until due is empty. Consequences may add to
// due. Granted slots come first, in the order of the grants, because a task that has a slot and
// does not start holds up the others. The order of attempts and nodes does not matter; settle takes
// the last one, because that is cheapest.
func (st *state) settle(now int64) {
	d := &st.due
	for {
		switch {
		case len(d.granted) > 0:
			list := d.granted
			for i := 0; i < len(d.granted); i++ { // starting one task may grant slots to others
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
			if st.nodes[n.session] == n {
				st.schedule(n, now)
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

// effects are the actions that the current update causes. BackgroundManager.release carries them
// out after it has released the lock. There are two classes of effects. An effect in the field
// "now" only ends something and is carried out at once. An effect in the field "after" relies on
// the new state and is carried out once the new state is known to last. Effects that few updates
// cause are in the field "rare", which has the same two classes. A new effect is a field of one of
// the four structs.
type effects struct {
	now   nowEffects
	after afterEffects
	rare  *rareEffects
}

type nowEffects struct {
	cancels *attempt // list of attempts whose contexts end
}

type afterEffects struct {
	start, startEnd *attempt // list of attempts that have a host call due; see wantCall
	wakes           wakes
}

type rareEffects struct {
	now struct {
		aborts []*attempt // for each, a goroutine aborts the attempt's session until it has stopped
		strays *stray     // for each, a goroutine aborts the session once
		kicks  []*client  // clients to poll at once
	}
	after struct {
		grants   []*slots.Waiter // granted slots of other managers that share the slots; each owner is informed
		deliver  []*node         // for each, a goroutine delivers a notice to the session
		poll     []*client       // for each, a goroutine polls
		readers  []*client       // for each, a goroutine reads sessions
		looks    []looked        // for each, a goroutine asks for the session's status and messages
		writeLog bool            // a goroutine writes the log
		forget   bool            // a goroutine calls ForgetSession for the sessions in state.forget
		expired  []string        // ids of tasks whose host errors can be forgotten
	}
}

// stray is a session that must be aborted once, in addition to the aborts of its attempt. Strays
// form a linked list. They are so rare that the list takes less memory than a slice in every
// rareEffects.
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

// wakes are the waiters to wake, each at most once. There are rarely more than two.
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

// taken clears the due marks of the waiters while the lock is still held.
func (x *wakes) taken() {
	for _, w := range x.few[:x.n] {
		w.due = false
	}
	for _, w := range x.more {
		w.due = false
	}
}

// emit sends an event to every subscriber.
func (st *state) emit(kind EventKind, t *task) {
	st.seq++
	for _, s := range st.subs {
		s.put(Event{Seq: st.seq, Kind: kind, Task: st.snapshot(t)}) // each gets its own snapshot, because a snapshot holds maps and slices
		st.fx.after.wakes.add(&s.waiter)
	}
}

// logTask queues a log entry about a task.
func (st *state) logTask(k logKind, t *task) {
	if !st.cfg.logs {
		return
	}
	e := logEntry{kind: k, task: t.id(), attempt: int(t.no), agent: t.kind.key.agent, status: t.status, cause: t.cause}
	if t.sess != nil {
		e.session = t.sess.id
	}
	st.logEntry(e)
}

// logText queues a log entry about a problem with a host. detail may contain text that an agent
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
