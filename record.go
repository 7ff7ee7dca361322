package bgagent

import (
	"context"
	"strconv"
)

// The records of the manager's state. They are guarded by BackgroundManager.mu
// and never leave it: callers get copies (see snapshot.go). Times are
// nanoseconds since the manager was made, from the monotonic clock; 0 means
// never, which no event can carry because the clock starts at 1.

// task is the record of one task. It is kept small, because a program may have
// a million of them pending: what only a running or an ended task needs is in
// objects of its own.
type task struct {
	wait  waiter // its place in a pool's line, or its slot
	m     *BackgroundManager
	ids   string // its id, and what makes it the id of the first prompt
	kind  *kind
	up    *node // the session that is told of the end
	next  *task // siblings under up
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
	debt   int32 // index of the latest attempt's debt in up.owed, -1 for none
	status Status
	cause  Cause
	notice NoticeState
	flags  taskFlags
}

type taskFlags uint8

const (
	flagForeground taskFlags = 1 << iota // somebody waits for it in Run
	flagUnstarted                        // not eligible for a slot: its session is not quiet yet
	flagDropped                          // the text of the result is gone
	flagForgotten                        // not in the registry any more
	flagOldDebts                         // debts of earlier attempts may be in up.owed
	flagLost                             // its notice was given up and may still be taken
	flagSlot                             // has a slot, and has been told of it
	flagUnanswered                       // a foreground call waits for it, or will be handed its end
)

// id returns the task's id, bg_….
func (t *task) id() string { return t.ids[:idLen] }

// firstPrompt makes the id of a task that of its first prompt. The two share
// one string, which is as large as the id's alone.
const firstPrompt = ".1.1"

// promptID returns the id of a prompt: the task's own is random, the numbers
// tell its prompts apart.
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
	default: // a new attempt
		legal = to == Pending
	}
	if !legal || cause.Status() != to && to.Terminal() || cause != CauseNone && !to.Terminal() {
		panic("bgagent: bug: transition of " + t.id() + " from " + t.status.String() + " to " + to.String() + " for " + cause.String())
	}
	t.status, t.cause = to, cause
}

// extra holds what most tasks do not have.
type extra struct {
	values    context.Context // values of the launch
	unsaid    string          // prompts of earlier attempts that the session never got
	metadata  map[string]string
	system    string
	directory string
	past      []Attempt
	call      uint64 // callHash of the launch, where the host has changed what was asked for
	again     uint64 // callHash of the resume that opened the latest attempt, as long as its id counts; 0 for none
	ttl       *alarm // queue time to live
}

func (t *task) extra() *extra {
	if t.more == nil {
		t.more = &extra{}
	}
	return t.more
}

// unsaid returns the prompts that the session never got before the latest one.
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
	partial  bool
	cut      bool
	unsaid   bool // the session never got the prompt
}

// stage says what the goroutine of an attempt does.
type stage uint8

const (
	stageNone   stage = iota
	stageCreate       // CreateSession is to be called or has been
	stagePrompt       // RunTurn or StartTurn is to be called or has been
)

// attempt is the live part of a task from its start until it is quiet.
type attempt struct {
	t     *task
	no    int32
	m     *BackgroundManager
	cl    *client
	ctx   turnContext
	rep   Reporter // of the first turn
	alarm alarm

	stage   stage // the host call that is to be made or in flight
	phase   Phase
	inCall  bool  // that call has been made and has not returned
	callEnd int64 // when the manager stops waiting for it; 0 for never

	turn      int32
	promptID  string
	prompt    string // of the next turn
	notice    *envelope
	told      *Notice // what a runner's turn has been given of it
	heldAt    int64   // since when it waits for its client to be reached; 0 for not
	started   int64
	turnStart int64 // of the turn that runs, 0 when there is none
	ran       int64 // time in earlier turns
	wantTurn  bool  // stands in line for its next turn

	text      string // of the last turn that had one
	endCause  Cause  // how the last turn ended, while waiting
	openTodos int32

	// Stopping, once the attempt has been ended from outside.
	ended      bool
	stopEnd    int64    // the slot is given up then
	aborts     int      // Abort calls that have not returned
	stopMore   bool     // another one is wanted
	stopper    bool     // a goroutine is aborting
	overrun    bool     // the stopping deadline has passed
	epoch      int      // grows with every prompt and abort; what was observed before is dropped
	loose      bool     // the turn's end has not been confirmed: a starter whose status must be seen
	w          *watch   // what the turn has shown; nothingSeen until it has
	activity   int64    // last change of anything
	lastNews   int64    // when the last progress event was sent
	nextRun    *attempt // lists of effects
	nextCancel *attempt
}

// live reports whether a is the latest attempt of its task and has not ended.
func (a *attempt) live() bool { return !a.ended && a.t.run == a && a.t.no == a.no && a.t.live() }

// progress is what is known of an attempt's work.
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

// debt is the notice that the end of one attempt owes.
type debt struct {
	t  *task // nil once settled
	no int32
	at int64
}

// envelope is a notice on its way. Once it has been tried it does not change,
// so that a host can recognise a repetition.
type envelope struct {
	notice  Notice
	debts   []debt
	closed  []member // of batches that it closes
	omitted int      // members that closed leaves out
	tries   int
	next    int64 // not before
	since   int64
	flying  bool
}
