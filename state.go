package bgagent

import (
	"bufio"
	"hash/maphash"
	"time"

	"github.com/bgagent/bgagent/internal/slots"
)

// state is everything that the manager knows: the records of tasks, their
// indexes, what is owed, what is kept and until when. It is reached through
// BackgroundManager.update and view alone.
//
// Its methods decide and nothing else. They start no goroutine, read no clock,
// call no host, write no log and make no sentences: what an update causes is
// noted in fx, and leaves once the lock has been given back. They are of three
// kinds. A leaf changes one structure. A transition changes one task or node and
// calls leaves. A consequence (start who got a slot, end who waits for nothing,
// tell a parent, evict, forget a node) is called by settle alone, at the end of
// the update; a transition that wants one notes it in due. The end of a task that
// ends the tasks below it is the one exception.
type state struct {
	cfg   settings
	slots *slots.Manager
	home  grants    // where a slot is announced that somebody else's release has freed
	epoch time.Time // what the times in records count from
	seed  maphash.Seed
	ids   *bufio.Reader // randomness

	clients  []*client
	tasks    map[uint64]*task // by the number in their id
	peak     int              // largest size of tasks since it was made
	calls    map[uint64]*task // by caller, tool call, agent and prompt
	sessions sessionIndex
	nodes    map[string]*node
	kinds    map[kindKey]*kind
	lastKind *kind
	waiters  map[*task][]*waiter
	drainers []*waiter // wait for everything to come to rest
	live     int       // pending and running tasks
	unquiet  int       // ended attempts that are not quiet yet
	stopping int       // those of them that have not overrun the stopping deadline
	over     int       // sessions that did not stop in time, ever
	ends     endCounts
	waived   *task // is being cancelled by waiver, which may be its parent
	waiver   string
	closing  bool // nothing begins any more
	closed   bool // Close has done what it could: no event will come
	draining bool

	deadlines  deadlines
	keep       retention
	subs       []*Subscription
	seq        uint64 // of the last event
	logs       logQueue
	forget     []forgotten
	forgetting bool

	now int64 // of the update that is under way
	due due
	fx  effects
}

// settings are what the state has to know of the configuration. See [Config].
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

	delegate string // name of the tool that delegates; empty for none
	notifies bool   // somebody can tell root sessions
	logs     bool   // there is a logger
}

// grants is told of a slot that has passed to a task while no update was under
// way. It is the one interface that records can reach.
type grants interface {
	slotGranted(t *task, w *slots.Waiter)
}

// due is what an update still has to draw consequences from.
type due struct {
	granted []*task    // have got a slot
	waiting []*attempt // may wait for nothing any more
	nodes   []*node    // may be told something, or be needed no more
	evict   bool       // something may be over a limit of what is kept
}

// touchNode has settle look at a node.
func (st *state) touchNode(n *node) {
	if !n.touched {
		n.touched = true
		st.due.nodes = append(st.due.nodes, n)
	}
}

// touchParent has settle look whether the attempt whose session n is, if any,
// still waits for something.
func (st *state) touchParent(n *node) {
	if p := n.parentTask(); p != nil && p.run != nil {
		st.touchAttempt(p.run)
	}
}

// touchAttempt has settle look whether the attempt still waits for something.
func (st *state) touchAttempt(a *attempt) {
	if !a.touched {
		a.touched = true
		st.due.waiting = append(st.due.waiting, a)
	}
}

// settle draws the consequences of an update, and theirs, until there are none.
// Slots come first: who has one and does not start holds up the others.
func (st *state) settle(now int64) {
	d := &st.due
	for {
		switch {
		case len(d.granted) > 0:
			list := d.granted
			for i := 0; i < len(d.granted); i++ { // starting one may give others a slot
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

// effects are what an update has caused. They leave once the lock has been given
// back, in [BackgroundManager.release]. Most updates cause few of them; the lists
// of the others are in rare.
type effects struct {
	cancels *attempt // now: their contexts end

	start, startEnd *attempt // after: they want a goroutine that makes their host call
	wakes           wakes    // after
	rare            *rareEffects
}

// rareEffects are the effects of few updates.
type rareEffects struct {
	aborts []abortion // now
	kicks  []*client  // now: polled at once

	grants   []*slots.Waiter // after: of others that share the slots
	deliver  []*node         // after: a goroutine tells the session
	poll     []*client       // after: a goroutine polls
	readers  []*client       // after: a goroutine reads sessions
	looks    []looked        // after: a goroutine looks at one session
	writeLog bool            // after: a goroutine writes the log
	forget   bool            // after: a goroutine tells clients of forgotten sessions
	expired  []string        // after: tasks whose host errors are forgotten
}

// abortion is a session that is to be aborted.
type abortion struct {
	a       *attempt
	session string // set when it is to be aborted once, and not until it has stopped
}

func (st *state) rare() *rareEffects {
	if st.fx.rare == nil {
		st.fx.rare = &rareEffects{}
	}
	return st.fx.rare
}

// takeEffects returns what has been caused and has not left.
func (st *state) takeEffects() effects {
	fx := st.fx
	st.fx = effects{}
	fx.wakes.taken()
	return fx
}

// wakes are waiters that are to be woken, each once. Mostly there are few.
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

// taken marks the waiters as not due any more, while the lock is still held.
func (x *wakes) taken() {
	for _, w := range x.few[:x.n] {
		w.due = false
	}
	for _, w := range x.more {
		w.due = false
	}
}
