package bgagent

import (
	"slices"
	"strconv"

	"github.com/bgagent/bgagent/internal/slots"
)

// The records of the manager's state. The lock guards them and they never leave it: callers get
// copies (see state_copy.go). Times are nanoseconds since the manager was created, from the
// monotonic clock. 0 means never; no event has that time, because the clock starts at 1.

// task is the record of one task. It is small because a program may have a million pending tasks:
// what only running or ended tasks need is in separate objects.
type task struct {
	wait  slots.Waiter // its place in a pool's line, or its slot
	st    *state       // the state it belongs to
	ids   string       // its id, followed by what makes it the id of the first prompt
	kind  *kind
	up    *node // the session that is told about the end
	next  *task // next sibling under up
	prev  *task
	title string
	text  string // the prompt of the latest attempt
	call  string // id of the tool call that launched it
	more  *extra
	sess  *session // nil until the session has been created
	run   *attempt // nil while pending, and once an ended attempt is quiet
	fin   *outcome // how the latest ended attempt ended

	queued int64
	no     int32 // number of the latest attempt
	debt   int32 // index of the latest attempt's debt in up.owed; -1 for none
	status Status
	cause  Cause
	notice NoticeState
	flags  taskFlags
}

type taskFlags uint8

const (
	flagForeground  taskFlags = 1 << iota // a caller waits for it in Run
	flagAwaitsQuiet                       // cannot take a slot yet: its session is not quiet
	flagDropped                           // the text of the result was dropped
	flagForgotten                         // its record has expired
	flagOldDebts                          // up.owed may hold debts of earlier attempts
	flagReclaimable                       // its notice was given up, and a host may still take it
	flagSlot                              // has a slot, and the grant was processed
	flagUnanswered                        // a foreground call waits for it, or will be handed its end
)

// id returns the task's id, bg_….
func (t *task) id() string { return t.ids[:idLen] }

// firstPrompt turns the id of a task into that of its first prompt. Both share one string, which
// takes no more memory than the id alone.
const firstPrompt = ".1.1"

// promptID returns the id of a prompt. The task's own id is random; the numbers tell its prompts
// apart.
func (t *task) promptID(attempt, turn int32) string {
	if attempt == 1 && turn == 1 && len(t.ids) > idLen {
		return t.ids
	}
	return t.id() + "." + strconv.Itoa(int(attempt)) + "." + strconv.Itoa(int(turn))
}

func (t *task) is(f taskFlags) bool { return t.flags&f != 0 }

func (t *task) set(f taskFlags, on bool) {
	if on {
		t.flags |= f
	} else {
		t.flags &^= f
	}
}

// live reports whether the latest attempt is pending or running.
func (t *task) live() bool { return !t.status.Terminal() }

// transition is the only place that writes status and cause.
func (t *task) transition(to Status, cause Cause) {
	legal := false
	switch t.status {
	case Pending:
		legal = to == Running || to == Failed || to == Cancelled
	case Running:
		legal = to.Terminal()
	default: // a resume opens a new attempt
		legal = to == Pending
	}
	if !legal || cause.Status() != to && to.Terminal() || cause != CauseNone && !to.Terminal() {
		panic("bgagent: bug: transition of " + t.id() + " from " + t.status.String() + " to " + to.String() + " for " + cause.String())
	}
	t.status, t.cause = to, cause
}

// extra holds what most tasks do not need.
type extra struct {
	values    launchValues
	unsaid    string // prompts of earlier attempts that never reached the session
	metadata  map[string]string
	system    string
	directory string
	past      []Attempt
	call      uint64 // callHash of the launch, if the host changed the input
	again     uint64 // callHash of the resume that opened the latest attempt, while that call may be repeated; 0 for none
	ttl       *alarm // queue time to live
}

func (t *task) extra() *extra {
	if t.more == nil {
		t.more = &extra{}
	}
	return t.more
}

// unsaid returns the earlier prompts that never reached the session.
func (t *task) unsaid() string {
	if t.more == nil {
		return ""
	}
	return t.more.unsaid
}

// outcome is how an attempt ended.
type outcome struct {
	expiring
	started  int64
	ended    int64
	activity int64
	reason   string
	result   string
	prog     *progress
	turns    int32
	todos    int32
	failed   bool // its last host call failed; the manager keeps the error for Err
	partial  bool
	thought  bool // result is reasoning, not an answer
	cut      bool
	unsaid   bool // the prompt never reached the session
}

// stage says which host call the goroutine of an attempt makes.
type stage uint8

const (
	stageNone   stage = iota
	stageCreate       // CreateSession is due or in flight
	stagePrompt       // RunTurn or StartTurn is due or in flight
)

// attempt is the active part of a task. It exists from the start of the attempt until the attempt
// is quiet.
type attempt struct {
	t     *task
	no    int32
	cl    *client
	ctx   turnContext // for the host's side; the state only sets its values
	rep   Reporter    // of the first turn
	alarm alarm       // rings at the earliest of its time limits

	stage   stage // the host call that is due or in flight
	phase   Phase
	inCall  bool  // the call is in flight
	failed  bool  // the last call that returned has failed
	callEnd int64 // when the manager stops waiting for the call; 0 for never

	turn      int32
	promptID  string
	prompt    string // of the next turn
	notice    *envelope
	told      *Notice // the notice that a runner's turn was given
	heldAt    int64   // since when it waits for its client to be reachable; 0 if it does not
	started   int64
	turnStart int64 // start of the current turn; 0 between turns
	ran       int64 // time spent in earlier turns

	text      string // text of the last turn that had any
	output    bool   // an earlier turn produced output
	openTodos int32

	parked
	stopping

	epoch      int      // grows with every prompt and abort; older observations are dropped
	sight      *sight   // what the turn has shown; nothingSeen until it shows something
	activity   int64    // when anything last changed
	lastNews   int64    // when the last progress event was sent
	nextRun    *attempt // links of the lists in effects
	nextCancel *attempt
	touched    bool // listed in due.waiting
}

// live reports whether a is the latest attempt of its task and has not ended.
func (a *attempt) live() bool { return !a.ended && a.t.run == a && a.t.no == a.no && a.t.live() }

// progress is what is known about the work of an attempt.
type progress struct {
	toolCalls int
	lastTool  string
	lastText  string
	lastTextA int64
	detail    string
	todos     []Todo
	todosSeen bool
	usage     Usage
}

// member is one ended attempt of a batch.
type member struct {
	t  *task
	no int32
}

// debt is the notice that is owed for the end of one attempt.
type debt struct {
	t  *task // nil once the debt is settled
	no int32
	at int64
}

// envelope is a notice that is being delivered. Once a delivery was tried, its contents stay the
// same, so that the host recognises a repetition.
type envelope struct {
	notice  Notice
	debts   []debt
	closed  []member // members of the batches that it closes
	omitted int      // number of members that closed leaves out
	tries   int
	next    int64 // earliest time of the next try
	since   int64
	flying  bool
}

// kind holds what many tasks have in common. It is stored once and counted.
type kind struct {
	key        kindKey
	agentRules []Permission // of Config.AgentPermissions
	refs       int
	cl         *client
	rules      []Permission
	slot       slots.Handle // what it takes a slot as
}

type kindKey struct {
	agent  string
	model  string
	client string
	depth  int
}

// kind returns the shared kind of such tasks. It is the only place where permissions are computed:
// delegation beyond MaxDepth is denied first, then come the host's rules, then the agent's own. The
// last rule that matches decides.
func (st *state) kind(key kindKey, cl *client, agentRules []Permission) *kind {
	k := st.lastKind // tasks of one kind mostly come in a row
	if k == nil || k.key != key {
		k = st.kinds[key]
	}
	if k == nil || !slices.Equal(k.agentRules, agentRules) {
		k = &kind{key: key, cl: cl, agentRules: agentRules}
		space, name := countedAs(key.model, key.agent)
		k.slot = st.slots.For(space, name, key.agent)
		if key.depth >= st.cfg.MaxDepth && st.cfg.delegate != "" {
			k.rules = append(k.rules, Permission{Name: st.cfg.delegate, Pattern: "*", Action: PermissionDeny, Kept: true})
		}
		k.rules = slices.Clip(append(append(k.rules, st.cfg.Permissions...), agentRules...))
		st.kinds[key] = k
	}
	k.refs++
	st.lastKind = k
	return k
}

func (st *state) releaseKind(k *kind) {
	if k.refs--; k.refs > 0 {
		return
	}
	if st.lastKind == k {
		st.lastKind = nil
	}
	if st.kinds[k.key] == k {
		delete(st.kinds, k.key)
	}
}

// client is what the state knows about a session client. The client itself is
// BackgroundManager.hosts[index].
type client struct {
	name    string
	index   int
	runner  bool // a TurnRunner: the call lasts as long as the turn
	starter bool // a TurnStarter: events and polls find the end of a turn
	reads   bool // can read the messages of its sessions
	todos   bool // can read todo lists
	forgets bool // wants to know which sessions are forgotten

	followed map[*attempt]struct{} // attempts in a turn or being stopped; sweeps ask about them
	parents  map[*node]struct{}    // busy parents that are owed a notice
	polling  bool                  // a polling goroutine runs
	toRead   []looked              // sessions that wait for a reader
	readers  int                   // number of reader goroutines, at most Config.ReadConcurrency
	streamUp int64                 // since when the event stream is complete; 0 if it is not
	lastBeat int64
	gapAt    int64   // when events were last lost
	out      *outage // nil unless its runtime is known to be unreachable
}
