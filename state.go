package bgagent

import (
	"bufio"
	"hash/maphash"
	"time"

	"github.com/bgagent/bgagent/internal/slots"
)

// state is everything that the manager knows: the records of tasks, their indexes, what is owed,
// what is kept and until when. Only BackgroundManager.update, step and view reach it.
//
// Its methods only decide. They start no goroutine, read no clock, call no host, write no log and
// contain no wording. An update notes its effects in fx, and they leave after the lock is given
// back.
//
// There are three kinds of methods. A leaf changes one structure. A transition changes one task or
// node and calls only leaves. A consequence starts a task that got a slot, ends one that waits for
// nothing, tells a parent, evicts records or drops a node. Only settle calls consequences, at the
// end of the update; a transition that wants one notes it in due. The one exception is the end of a
// task, which also ends the tasks below it.
type state struct {
	cfg   settings
	slots *slots.Manager
	home  grants    // announces a slot that another owner's release has granted
	epoch time.Time // zero of the times in records
	seed  maphash.Seed
	ids   *bufio.Reader // source of randomness

	tasks      map[uint64]*task // keyed by the number in the id
	peak       int              // largest size of tasks since the map was made
	calls      map[uint64]*task // keyed by the hash of caller, tool call, agent and prompt
	sessions   sessionIndex
	nodes      map[string]*node
	kinds      map[kindKey]*kind
	lastKind   *kind
	waiters    map[*task][]*waiter
	drainers   []*waiter // waiters for all work to come to rest
	live       int       // number of pending and running tasks
	unquiet    int       // number of ended attempts that are not quiet yet
	inStopTime int       // number of those that are within their stopping deadline
	over       int       // number of sessions that ever missed their stopping deadline
	ends       endCounts
	waived     *task  // the task that is being cancelled by the session waiver
	waiver     string // if it is the task's parent, it needs no notice of this end
	closing    bool   // Close has begun: nothing starts any more
	closed     bool   // Close has ended: no more events
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

	times [len(timeLimits)]time.Duration // all of them; see state.limit

	delegate string // name of the tool that delegates; empty if there is none
	notifies bool   // some notifier can tell root sessions
	logs     bool   // a logger is set
}

// limit returns a duration of [Config]. It is negative if the limit is disabled.
func (st *state) limit(l timeLimit) time.Duration { return st.cfg.times[l] }

// grants announces a slot that has passed to a task outside an update. It is the only interface
// that records can reach.
type grants interface {
	slotGranted(t *task, w *slots.Waiter)
}

// due lists what the current update still has to draw consequences from.
type due struct {
	granted []*task    // tasks that got a slot
	waiting []*attempt // attempts that may have nothing left to wait for
	nodes   []*node    // nodes that may have a notice due, or may not be needed any more
	evict   bool       // a retention limit may be exceeded
}

// touchNode asks settle to look at the node.
func (st *state) touchNode(n *node) {
	if !n.touched {
		n.touched = true
		st.due.nodes = append(st.due.nodes, n)
	}
}

// touchParent asks settle to check whether the attempt that runs in n's session, if any, still
// waits for something.
func (st *state) touchParent(n *node) {
	if p := n.parentTask(); p != nil && p.run != nil {
		st.touchAttempt(p.run)
	}
}

// touchAttempt asks settle to check whether the attempt still waits for something.
func (st *state) touchAttempt(a *attempt) {
	if !a.touched {
		a.touched = true
		st.due.waiting = append(st.due.waiting, a)
	}
}

// settle draws the consequences of an update, and the consequences of those, until none are left.
// Slots come first, in the order of their grants: a task that has a slot and does not start holds up
// the others. For attempts and nodes the order does not matter, so the last one is taken, which is
// cheapest.
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

// effects are what the current update causes. BackgroundManager.release lets them leave after the
// lock is given back. Each belongs to one of two classes: what ends something leaves now; what
// relies on the new state leaves after the new state is known to last. What few updates cause is in
// rare. A new effect is a field of one of these four structs.
type effects struct {
	now   nowEffects
	after afterEffects
	rare  *rareEffects
}

type nowEffects struct {
	cancels *attempt // the contexts of these attempts end
}

type afterEffects struct {
	start, startEnd *attempt // each has a host call due; see wantCall
	wakes           wakes
}

type rareEffects struct {
	now struct {
		aborts []*attempt // one goroutine each aborts the attempt's session until it has stopped
		strays *stray     // one goroutine each aborts a session once
		kicks  []*client  // clients to poll at once
	}
	after struct {
		grants   []*slots.Waiter // slots that other users of the same slots were granted; their owners hear of it one by one
		deliver  []*node         // one goroutine each tells the session
		poll     []*client       // one goroutine each polls
		readers  []*client       // one goroutine each reads sessions
		looks    []looked        // one goroutine each looks at a session
		writeLog bool            // a goroutine writes the log
		forget   bool            // a goroutine tells clients about forgotten sessions
		expired  []string        // ids of tasks whose host errors can be forgotten
	}
}

// stray is a session that is to be aborted once, besides what is done for its attempt. Strays are so
// rare that a list of them takes less memory than a slice in every rareEffects.
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

// takeEffects returns the noted effects and clears them.
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
		s.put(Event{Seq: st.seq, Kind: kind, Task: st.snapshot(t)}) // one snapshot each, because it holds maps and slices
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
