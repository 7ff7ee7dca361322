package bgagent

import (
	"slices"
	"strconv"

	"github.com/bgagent/bgagent/internal/slots"
)

// This file contains the records of the manager's state. They are accessed only under the lock.
// Callers get copies (see state_copy.go). Times are nanoseconds since BackgroundManager.epoch, from
// the monotonic clock. The time 0 means never. Nothing can happen at time 0, because the epoch is
// before the creation of the manager.

// task is the record of one task. It is small, because a program can have a million pending tasks.
// Data that only running or ended tasks need is in separate objects.
type task struct {
	wait  slots.Waiter // place in a pool's line, or slot
	st    *state       // state that holds the record
	ids   string       // id of the task, or id of its first prompt, which begins with the task's id
	kind  *kind
	up    *node // node of the parent, which gets the notice about the end
	next  *task // next task in the list of the parent's tasks
	prev  *task
	title string
	text  string // prompt of the latest attempt
	call  string // id of the tool call that launched the task
	more  *extra
	sess  *session // nil until the session has been created
	run   *attempt // attempt that is running or being stopped; nil if there is none
	fin   *outcome // outcome of the latest attempt that has ended

	queued int64
	no     int32 // number of the latest attempt; 0 if the launch was withdrawn
	status Status
	cause  Cause
	notice NoticeState
	flags  taskFlags
}

type taskFlags uint8

const (
	flagForeground  taskFlags = 1 << iota // a caller waits for the task in Run
	flagAwaitsQuiet                       // the task cannot take a slot yet, because its earlier attempt is not quiet
	flagDropped                           // the text of the result was dropped
	flagForgotten                         // the record has expired
	flagOldDebts                          // up.owed might hold debts of earlier attempts
	flagReclaimable                       // the notice could not be delivered, but a host can still take it
	flagSlot                              // the task has a slot, and the grant was processed
	flagUnanswered                        // a foreground call has not returned the task yet
)

// debt returns the index of the latest attempt's debt in up.owed, or -1 if up.owed does not contain the
// debt. Only an attempt that has ended has a debt.
func (t *task) debt() int {
	if t.fin == nil {
		return -1
	}
	return int(t.fin.owed) - 1
}

// setDebt sets the index that the method "debt" returns. The latest attempt must have ended, unless
// i is -1.
func (t *task) setDebt(i int) {
	if t.fin != nil || i >= 0 {
		t.fin.owed = int32(i + 1)
	}
}

// id returns the task's id, bg_….
func (t *task) id() string { return t.ids[:idLen] }

// firstPrompt is appended to the id of a task to make the id of its first prompt. Both ids share
// one string, which takes no more memory than the task's id alone.
const firstPrompt = ".1.1"

// promptID returns the id of a prompt of the task. It consists of the task's id and the numbers of
// the attempt and the turn.
func (t *task) promptID(attempt, turn int32) string {
	if attempt == 1 && turn == 1 && len(t.ids) > idLen {
		return t.ids
	}
	return t.id() + "." + strconv.Itoa(int(attempt)) + "." + strconv.Itoa(int(turn))
}

func (t *task) is(f taskFlags) bool { return t.flags&f != 0 }

func (t *task) set(f taskFlags, on bool) {
	t.st.changed(t)
	if on {
		t.flags |= f
	} else {
		t.flags &^= f
	}
}

// The method "live" reports whether the latest attempt is pending or running.
func (t *task) live() bool { return !t.status.Terminal() }

// transition sets the status and the cause of the task. No other code writes them.
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

// extra holds data that most tasks do not have.
type extra struct {
	values    launchValues
	unsaid    string // prompts of earlier attempts that never reached the session
	metadata  map[string]string
	system    string
	directory string
	past      []Attempt
	call      uint64 // callHash of the launch, if the host changed the input
	again     uint64 // callHash of the resume that opened the latest attempt; 0 if that call can no longer be repeated
	ttl       *alarm // alarm for the queue time to live
	budget    *taskBudget
	mail      *mailbox // messages to the task; nil if there were none
	fallen    *fallen  // set if the task runs with a fallback model
	questions *questions
}

func (t *task) extra() *extra {
	if t.more == nil {
		t.more = &extra{}
	}
	return t.more
}

// The method "unsaid" returns the earlier prompts that never reached the session.
func (t *task) unsaid() string {
	if t.more == nil {
		return ""
	}
	return t.more.unsaid
}

// outcome holds the results of an attempt that has ended.
type outcome struct {
	expiring
	started  int64
	ended    int64
	activity int64
	reason   string
	result   string
	prog     *progress
	turns    int32
	owed     int32 // index of the attempt's debt in up.owed, counted from 1; 0 if up.owed does not contain the debt
	todos    int32 // number of open todos
	failed   bool  // the last host call of the attempt failed; the manager keeps the error for Err
	partial  bool
	is       resultFlags
	unsaid   bool // the prompt never reached the session
}

// resultFlags describe the result of an outcome. They share a byte, because outcomes are kept for long.
type resultFlags uint8

const (
	resultThought resultFlags = 1 << iota // the result is the agent's reasoning, not an answer
	resultCut                             // the result was too long, and only its beginning was kept
)

func (f *outcome) thought() bool { return f.is&resultThought != 0 }
func (f *outcome) cut() bool     { return f.is&resultCut != 0 }

// stage is the host call that is due or in flight for an attempt.
type stage uint8

const (
	stageNone   stage = iota
	stageCreate       // CreateSession is due or in flight
	stagePrompt       // RunTurn or StartTurn is due or in flight
)

// attempt is the active part of a task. It exists from the start of the attempt until the attempt
// is quiet. Small fields stand together, because padding would cost memory in every attempt.
type attempt struct {
	t     *task
	cl    *client
	no    int32
	turn  int32
	ctx   turnContext // context for host calls; the state only sets its values
	rep   Reporter    // reporter of the first turn
	alarm alarm       // alarm for the earliest time limit of the attempt

	stage     stage // host call that is due or in flight
	phase     Phase
	inCall    bool  // the host call is in flight
	failed    bool  // the last host call that returned has failed
	output    bool  // an earlier turn produced output
	postponed bool  // the attempt is from an earlier process and waits until the attempts before it have been continued
	forgot    bool  // the provider has refused all turns so far, and the session does not contain any part of them
	heard     bool  // the session has received the prompt of the attempt that this attempt replaced
	callEnd   int64 // when the manager stops waiting for the call; 0 if there is no limit

	promptID  string
	prompt    string // prompt of the next turn
	notice    *envelope
	told      *Notice // notice that a runner's turn received with its prompt
	countedIn uint64  // number of the batch that records the task's restarts; see state.mustCount
	heldAt    int64   // when an outage began to hold the attempt; 0 if no outage holds it
	started   int64
	turnStart int64 // start of the current turn; 0 between turns
	ran       int64 // time spent in earlier turns

	text      string // text of the last turn that had any
	openTodos int32

	parked
	touched bool // listed in due.waiting
	stopping

	epoch      int          // grows with every prompt and abort; observations from an older epoch are dropped
	sight      *sight       // observations of the turn; nothingSeen until there are any
	activity   int64        // time of the last change of any kind
	lastNews   int64        // when the last progress event was sent
	newsAt     int64        // when a postponed progress event is due; 0 if there is none
	nextRun    *attempt     // next attempt in the list effects.after.start
	nextCancel *attempt     // next attempt in the list effects.now.cancels
	refused    *refused     // set after a refusal by the provider, until a turn ends without a refusal
	cur        *turnContext // context for host calls after a halt has cancelled ctx; nil until then
	startFrom  int64        // without a store, when the start's time to live began; 0 if it began when the attempt started

	// The next three fields are for attempts from an earlier process; see state_restore.go.
	recovering bool // it is still unknown how far the session got with the last prompt
	restoring  bool // a restore call is in progress
	late       bool // the manager does not automatically begin turns for the attempt; state.lateFor is the reason

	catchingUp  bool // for a starter, the session is being read before the prompt is handed over
	restoreEnds bool // the last restore call began after the end of the attempt, to stop processes that are still running
	continues   bool // if the turn proves to be interrupted, another attempt continues it
}

// The method "live" reports whether the attempt is the latest of its task and has not ended.
func (a *attempt) live() bool { return !a.ended && a.t.run == a && a.t.no == a.no && a.t.live() }

// progress holds the data from which the Progress of an attempt is made.
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

// debt stands for the notice that is owed because one attempt has ended.
type debt struct {
	t  *task // nil once the debt is settled
	no int32
	at int64
}

// envelope holds a notice that is being delivered, and its debts. After the first try to deliver
// it, the contents no longer change, so that the host can recognize a repetition.
type envelope struct {
	notice  Notice
	debts   []debt
	asks    []*asked // questions in the notice that must still be reported to the session
	loading bool     // loadAsks has not found the questions yet
	closed  []member // members of the batches that the notice closes
	omitted int      // number of members that are missing from the field "closed"
	tries   int
	pushes  int   // with a store, number of processes that pushed the notice
	pushed  bool  // this process has pushed the notice
	next    int64 // earliest time of the next try
	since   int64
	flying  bool
}

// The type "kind" holds data that many tasks have in common. These tasks share one kind, which
// counts its references.
type kind struct {
	key        kindKey
	agentRules []Permission // the agent's rules from Config.AgentPermissions
	refs       int
	cl         *client
	rules      []Permission
	slot       slots.Handle // handle that the tasks use to ask for slots
}

type kindKey struct {
	agent  string
	model  string
	client string
	depth  int
	named  bool // the caller named the model, so no fallback replaces it
}

// The method "kind" returns the shared kind for the key and the rules, and counts one more
// reference to it. No other code computes permissions. At MaxDepth, the first rule denies
// delegation. The host's rules come next, and the agent's own rules come last. The last matching
// rule decides.
func (st *state) kind(key kindKey, cl *client, agentRules []Permission) *kind {
	k := st.lastKind // successive tasks are mostly of the same kind
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

// changeModel gives the task another model. named is true if a caller named the model.
func (st *state) changeModel(t *task, model string, named bool) {
	key, old := t.kind.key, t.kind
	key.model, key.named = model, named
	t.kind = st.kind(key, old.cl, old.agentRules)
	st.releaseKind(old)
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

// client is the record of a session client. The client itself is BackgroundManager.hosts[index].
type client struct {
	name    string
	index   int
	runner  bool // the client is a TurnRunner
	starter bool // the client is a TurnStarter
	reads   bool // the client is a MessageReader
	todos   bool // the client is a TodoReader
	forgets bool // the client is a SessionForgetter
	steers  bool // the client is a Steerer
	answers bool // the client is an Answerer

	restores bool   // the client is a SessionRestorer
	home     string // where the sessions of a runner live, or empty if the client does not say; see SessionHome

	followed map[*attempt]struct{} // attempts in a turn or being stopped; sweeps poll their sessions
	parents  map[*node]struct{}    // busy parents that are owed a notice
	polling  bool                  // a polling goroutine is running
	toRead   []looked              // sessions that wait for a reader
	readers  int                   // number of reader goroutines, at most Config.ReadConcurrency
	streamUp int64                 // when the event stream last became complete; 0 if it is incomplete
	lastBeat int64
	gapAt    int64   // when events were last lost
	out      *outage // current outage; nil if there is none

	fallbacks map[string]FallbackWay // how agents continue with other models, by the agent's name

	showsRetries map[string]bool // agents whose programs show repeated requests, by name
}
