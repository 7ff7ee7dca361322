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

	tasks    map[uint64]*task // keyed by the number in the id
	peak     int              // largest size of tasks since the map was made
	calls    map[uint64]*task // keyed by the hash of caller, tool call, agent and prompt
	sessions sessionIndex
	nodes    map[string]*node
	kinds    map[kindKey]*kind
	lastKind *kind
	waiters  map[*task][]*waiter
	drainers []*waiter // waiters for all work to come to rest
	live     int       // number of pending and running tasks
	unquiet  int       // number of ended attempts that are not quiet yet
	stopping int       // number of those that are within their stopping deadline
	over     int       // number of sessions that ever missed their stopping deadline
	ends     endCounts
	waived   *task // the task that waiver, perhaps its parent, is cancelling
	waiver   string
	closing  bool // Close has begun: nothing starts any more
	closed   bool // Close has ended: no more events
	draining bool

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

	PollInterval, MinIdleTime, MinStabilityTime, TodoHold  time.Duration
	StaleTimeout, SessionGone, HostUnreachable, TimeToLive time.Duration
	QueueTimeToLive, StopTimeout, CreateTimeout            time.Duration
	NoticeWindow, NoticeMaxWait, Retention                 time.Duration

	delegate string // name of the tool that delegates; empty if there is none
	notifies bool   // some notifier can tell root sessions
	logs     bool   // a logger is set
}

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
// Slots come first: a task that has a slot and does not start holds up the others.
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

// effects are what the current update causes. They leave in [BackgroundManager.release] after the
// lock is given back. Each has a class: now, or after what the update changed is known to last.
// Most updates cause few effects; the rare ones are in rare.
type effects struct {
	cancels *attempt // now: the contexts of these attempts end

	start, startEnd *attempt // after: each needs a goroutine for its host call
	wakes           wakes    // after
	rare            *rareEffects
}

// rareEffects are the effects that few updates cause.
type rareEffects struct {
	aborts []abortion // now
	kicks  []*client  // now: clients to poll at once

	grants   []*slots.Waiter // after: slots that other users of the same slots were granted
	deliver  []*node         // after: one goroutine each tells the session
	poll     []*client       // after: one goroutine each polls
	readers  []*client       // after: one goroutine each reads sessions
	looks    []looked        // after: one goroutine each looks at a session
	writeLog bool            // after: a goroutine writes the log
	forget   bool            // after: a goroutine tells clients about forgotten sessions
	expired  []string        // after: ids of tasks whose host errors can be forgotten
}

// abortion is an order to abort a session.
type abortion struct {
	a       *attempt
	session string // if set, abort this session once; otherwise abort the attempt's session until it stops
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
	fx.wakes.taken()
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
