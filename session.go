package bgagent

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/bgagent/bgagent/internal/rulename"
)

// SessionClient is the port to a host's agent runtime. It is what the manager needs to run one
// agent in a session of its own. A client also implements exactly one of [TurnRunner] and
// [TurnStarter]; [New] refuses a client with both or neither. All else that a runtime can do is an
// ability, found by type assertion: [Notifier], [EventSource], [MessageReader], [TodoReader],
// [SessionFinder], [AgentLister], [SessionForgetter]. An ability counts as missing if its method
// returns [errors.ErrUnsupported], so that wrappers work.
//
// All methods must be safe for concurrent use. The manager holds no lock when it calls them. It
// passes a context that ends when it stops waiting. It survives a method that ignores its context,
// panics or calls runtime.Goexit.
type SessionClient interface {
	// CreateSession creates an idle session for one task and returns its id. The id must not be
	// empty or in use. If the agent does not exist, return a [*NoSuchAgentError]. If the runtime
	// cannot be reached, return an error that matches [ErrUnreachable]: the manager then repeats
	// the call.
	CreateSession(ctx context.Context, s SessionSpec) (session string, err error)

	// Abort stops whatever runs in the session. It is idempotent, and returns nil for a session
	// that does not exist or does not run. The session can be prompted again afterwards. For a
	// TurnRunner, the context of RunTurn ends as well; if that is enough, Abort may do nothing.
	Abort(ctx context.Context, session string) error
}

// TurnRunner is a client whose call lasts as long as the turn, such as a Go function, a command
// line or an agent that speaks ACP. The turn ends when the call returns.
type TurnRunner interface {
	// RunTurn prompts the session and returns when the turn is over. When ctx ends, the turn must
	// stop. RunTurn then returns soon, with nothing of the turn still running, and with an error or
	// StopAborted: a zero TurnEnd means that the agent ended the turn itself. If RunTurn returns an
	// error, the task fails for that reason; TurnEnd.Stop may name the kind of end, such as
	// StopInterrupted. An error that matches [ErrUnreachable] means that nothing was started; the
	// manager repeats the call later. The reporter may be used from any goroutine until RunTurn
	// returns. Later reports, text included, are dropped.
	//
	// RunTurn returns when the answer is whole, which may be later than the agent's first report of
	// an end. It waits a moment for late pieces, and it waits for work that the agent's own program
	// does in the background: the report on that work is the answer. What is written after the end,
	// such as a tip, is not part of the answer. A warning that the answer was cut off is StopLength
	// or StopTurnLimit. An agent that has written nothing has no answer.
	//
	// The manager never calls RunTurn for a session that is in a turn, and waits for a running
	// Abort to return first.
	RunTurn(ctx context.Context, session string, p Prompt, r *Reporter) (TurnEnd, error)
}

// TurnStarter is a client that hands a turn over and returns, such as an agent server. Events (see
// [EventSource] and [BackgroundManager.Observe]) and the poller find the end of the turn.
type TurnStarter interface {
	// StartTurn hands the prompt over and returns as soon as it is accepted. A repetition with the
	// same p.ID must not start a second turn if the runtime can prevent it, and then returns nil.
	// The manager only calls StartTurn for sessions that it has found to be quiet. If the session
	// is in a turn all the same, because somebody else has prompted it, return an error that
	// matches [ErrBusy]. That is better than a prompt that waits in a line nobody sees.
	//
	// If the server cannot be reached and the prompt was not handed over, return an error that
	// matches [ErrUnreachable]; the manager repeats the call later. Report the end of the turn when
	// the answer is whole, with a stop reason that says whether it was cut off.
	StartTurn(ctx context.Context, session string, p Prompt) error

	// Statuses returns the states of the given sessions. A session that is missing from the answer
	// counts as unknown. If a server leaves out idle sessions, its adapter must add them.
	Statuses(ctx context.Context, sessions []string) (map[string]SessionStatus, error)

	MessageReader
}

// MessageReader reads the messages of a session. A starter must implement it. For a runner, it is
// the ability to show the whole conversation of a task.
type MessageReader interface {
	// Messages returns the messages that are new or have changed since the cursor, oldest first and
	// at most max. The zero Cursor means from the beginning. If max is not positive, the client
	// chooses how many. A message that may still change must be returned again when it has changed.
	// Page.Next must not skip messages that were left out.
	Messages(ctx context.Context, session string, after Cursor, max int) (Page, error)
}

// Notifier is the ability to tell a root session that its tasks have ended, usually by prompting
// it.
type Notifier interface {
	// Notify returns nil once the notice is recorded or queued so that it will be answered. It
	// returns [ErrBusy] if the session is in a turn and must be tried later, and [ErrNoSession] if
	// this client has no such session. Use n.ID as the id of the message, so that a repetition is
	// harmless.
	Notify(ctx context.Context, session string, n Notice) error
}

// EventSource is the ability to push events about sessions. The manager runs it from New to Close.
type EventSource interface {
	// Events calls emit for every event until ctx ends. It reconnects by itself, and emits
	// [HostStreamGap] whenever events may have been lost. If Events returns before ctx ends, the
	// manager treats that as a gap and calls it again after a pause. emit never blocks.
	Events(ctx context.Context, emit func(HostEvent)) error
}

// TodoReader is the ability to read the todo list of a session.
type TodoReader interface {
	Todos(ctx context.Context, session string) ([]Todo, error)
}

// SessionFinder is the ability to look up a session.
type SessionFinder interface {
	// FindSession returns what is known about the session. If this client has no such session, the
	// error wraps [ErrNoSession].
	FindSession(ctx context.Context, session string) (SessionInfo, error)
}

// SessionInfo describes a session that a [SessionFinder] knows.
type SessionInfo struct {
	Parent    string // the session it is a child of; empty for a root session
	Directory string // where it works; empty if that has no meaning
}

// AgentLister is the ability to list the agents. Errors about an unknown agent then name those that
// exist.
type AgentLister interface {
	Agents(ctx context.Context) ([]AgentInfo, error)
}

// AgentInfo describes one agent of an [AgentLister].
type AgentInfo struct {
	Name        string
	Description string
}

// SessionForgetter is the ability to free what a client holds for a session. The manager calls
// ForgetSession once the session can no longer be resumed, because the record of its task has
// expired and its tombstone is gone. ForgetSession must return at once.
type SessionForgetter interface {
	ForgetSession(session string)
}

// SessionSpec describes the session to create.
type SessionSpec struct {
	Task        string            // id of the task, bg_…
	Parent      string            // session that delegated, or the name of a scope
	Title       string            // the task's description
	Agent       string            // name of the agent, as the caller gave it
	Model       string            // model to use; empty means the agent's own
	Directory   string            // working directory; empty means the client's own
	Depth       int               // 1 for a task of a root session, 2 for a task of such a task, and so on
	Permissions []Permission      // rules for the session; the last one that matches decides
	Metadata    map[string]string // the host's own, from LaunchInput; must not be changed
}

// Permission is one rule about what an agent may do. In a list of rules, the last one that matches
// decides.
//
// All clients of this module read names in the same way: in any case, with or without hyphens and
// underscores, and by any of the words for a kind of access, which docs/clients.md lists. A rule for
// a kind applies to everything that is part of the kind. A client refuses to start an agent that it
// cannot hold to a rule that denies or asks.
type Permission struct {
	Name    string           // kind of access or name of a tool; "*" for all; * and ? match some
	Pattern string           // a path or command pattern; "*" or empty for all
	Action  PermissionAction // the answer

	// Kept means that the host enforces the rule itself, whatever the agent does. No client has to
	// refuse a rule that is kept.
	Kept bool
}

// checkRules returns an error that names the first rule that is about nothing.
func checkRules(field string, rules []Permission) error {
	for i, r := range rules {
		if problem := rulename.Problem(r.Name); problem != "" && !r.Kept {
			return &InputError{fmt.Sprintf("%s[%d]", field, i), problem}
		}
	}
	return nil
}

// PermissionAction is the answer that a [Permission] gives.
type PermissionAction string

// The actions of a [Permission].
const (
	PermissionAllow PermissionAction = "allow"
	PermissionDeny  PermissionAction = "deny"
	PermissionAsk   PermissionAction = "ask"
)

// Prompt starts a turn.
type Prompt struct {
	ID          string       // stays the same when the prompt is repeated
	Task        string       // id of the task, bg_…
	Attempt     int          // number of the attempt, from 1
	Turn        int          // number of the turn in the attempt, from 1
	Agent       string       // name of the agent, as the caller gave it
	Model       string       // model to use; empty means the agent's own
	Text        string       // the prompt itself
	System      string       // system text of the host for this task; usually empty
	Permissions []Permission // the same rules as in SessionSpec, at every turn
	Notice      *Notice      // set if the prompt tells the session about ends of its own tasks
}

// TurnEnd is how a turn of a [TurnRunner] ended. The zero value completes the turn: it is for
// clients that have no stop reasons.
type TurnEnd struct {
	Stop StopReason
	// Text is the agent's final message. If it is empty, the text reported since the last tool call
	// counts as the message.
	Text string
	// NoText says that what was reported as text is no message either, such as an
	// error that the agent writes as one.
	NoText bool
}

// StopReason says why a turn ended.
type StopReason uint8

// The stop reasons. Only StopEndOfTurn and StopUntold complete a task. StopUntold is for clients
// that have no reasons.
const (
	StopUntold      StopReason = iota // the client has no reasons
	StopEndOfTurn                     // the agent ended its turn by itself
	StopLength                        // the model's output limit cut off the answer
	StopTurnLimit                     // the runtime's limit of steps or requests was reached
	StopRefused                       // the model refused
	StopAborted                       // somebody stopped it
	StopInterrupted                   // the turn broke off, as by a crash or a restart
	StopError                         // the agent failed
	StopToolCalls                     // of a message only: it ended in tool calls and the turn continues
)

var stopReasonNames = [...]string{"untold", "end of turn", "length", "turn limit", "refused", "aborted", "interrupted", "error", "tool calls"}

// String returns the name of the reason in lower case.
func (r StopReason) String() string { return enumName(stopReasonNames[:], uint8(r)) }

// SessionState is what a session is doing.
type SessionState uint8

// The states of a session.
const (
	SessionUnknown  SessionState = iota // could not be read this time; decides nothing
	SessionIdle                         // not in a turn
	SessionBusy                         // in a turn
	SessionRetrying                     // in a turn, waiting to retry the model
	SessionAsking                       // in a turn, waiting for an answer to a question or a permission
	SessionGone                         // does not exist
	SessionUntold                       // this client can never tell
)

var sessionStateNames = [...]string{"unknown", "idle", "busy", "retrying", "asking", "gone", "untold"}

// String returns the name of the state in lower case.
func (s SessionState) String() string { return enumName(sessionStateNames[:], uint8(s)) }

// SessionStatus is the status of one session.
type SessionStatus struct {
	State   SessionState
	RetryAt time.Time // with SessionRetrying: time of the next try, if known
	Detail  string    // one line for people: the error that is retried or the question asked
	// Revision changes whenever a message of the session does, if the runtime has revisions. While
	// it stays the same, the session is not read.
	Revision string
}

// Role says who wrote a message.
type Role uint8

// The roles. Only messages with RoleAgent are output.
const (
	RoleOther Role = iota
	RoleUser
	RoleAgent
)

var roleNames = [...]string{"other", "user", "agent"}

// String returns the name of the role in lower case.
func (r Role) String() string { return enumName(roleNames[:], uint8(r)) }

// Cursor is a position in the messages of a session. Its value belongs to the client that made it.
// The zero value is the beginning.
type Cursor string

// Page is a part of the messages of a session.
type Page struct {
	Messages []Message // oldest first
	Next     Cursor    // position after this page; not empty once something was read
	More     bool      // more messages can be read now
}

// Message is one message of a session.
type Message struct {
	ID        string        // unique in its session
	Role      Role          // who wrote it
	PromptID  string        // of a user message: ID of the Prompt that it came from, if the runtime keeps it
	Text      string        // text written to the reader
	Reasoning string        // what the agent thought, if the runtime shows it
	Tools     []MessageTool // tool calls in the message
	Finished  bool          // the message will not change any more
	Stop      StopReason    // how a finished message ended; StopUntold only if the client has no reasons
	Error     string        // with StopError and StopAborted: what went wrong
	Time      time.Time     // time of creation, if known
	Usage     Usage         // what it cost, if known
}

// ToolState is the state of a tool call.
type ToolState uint8

// The states of a tool call. The first two are in flight.
const (
	ToolPending ToolState = iota
	ToolRunning
	ToolDone
	ToolFailed
)

var toolStateNames = [...]string{"pending", "running", "done", "failed"}

// String returns the name of the state in lower case.
func (s ToolState) String() string { return enumName(toolStateNames[:], uint8(s)) }

// InFlight reports whether the call has not ended.
func (s ToolState) InFlight() bool { return s == ToolPending || s == ToolRunning }

// MessageTool is a tool call in a message.
type MessageTool struct {
	ID    string // id of the call while it is in flight; agents may reuse it, see Reporter.Tool
	Name  string
	State ToolState
}

// Usage is what an agent has used. Unknown fields are zero.
type Usage struct {
	InputTokens  int64   `json:"input_tokens"`
	OutputTokens int64   `json:"output_tokens"`
	Cost         float64 `json:"cost"` // US dollars
}

// Todo is one entry of an agent's todo list.
type Todo struct {
	Text  string    `json:"text"`
	State TodoState `json:"state"`
}

// TodoState is the state of a todo.
type TodoState uint8

// The states of a todo. The first two are open.
const (
	TodoPending TodoState = iota
	TodoInProgress
	TodoCompleted
	TodoCancelled
)

var todoStateNames = [...]string{"pending", "in progress", "completed", "cancelled"}

// String returns the name of the state in lower case.
func (s TodoState) String() string { return enumName(todoStateNames[:], uint8(s)) }

// MarshalText implements [encoding.TextMarshaler].
func (s TodoState) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (s *TodoState) UnmarshalText(b []byte) error {
	return enumOf(s, todoStateNames[:], "state of a todo", b)
}

// Open reports whether the todo is neither completed nor cancelled.
func (s TodoState) Open() bool { return s == TodoPending || s == TodoInProgress }

// HostEventKind says what happened in a host's session.
type HostEventKind uint8

// The kinds of events that a host reports.
const (
	_              HostEventKind = iota
	HostStatus                   // Status is the session's new state
	HostMessage                  // Message is new or has changed
	HostTodos                    // Todos is the session's new list
	HostError                    // the turn failed: Error says why, and Stop whether it was an abort
	HostDeleted                  // the session was deleted
	HostActivity                 // something else changed
	HostStreamUp                 // from now on every change of every session is reported, in order
	HostStreamBeat               // the stream is alive
	HostStreamGap                // events may have been lost
)

var hostEventKindNames = [...]string{"none", "status", "message", "todos", "error", "deleted", "activity", "stream up", "stream beat", "stream gap"}

// String returns the name of the kind in lower case.
func (k HostEventKind) String() string { return enumName(hostEventKindNames[:], uint8(k)) }

// HostEvent is an event in a host's agent runtime. An [EventSource] emits it, or the host passes it
// to [BackgroundManager.Observe].
type HostEvent struct {
	Kind    HostEventKind
	Client  string // name in Config.Clients, empty for the client given to New; an EventSource may leave it empty
	Session string // empty for events about the stream
	Status  SessionStatus
	Message *Message
	Todos   []Todo
	Stop    StopReason
	Error   string
}

// enumName returns the name of v. For a value without a constant, it returns the number in
// brackets, so that a log line never hides one.
func enumName(names []string, v uint8) string {
	if int(v) < len(names) {
		return names[v]
	}
	return "(" + itoa(int(v)) + ")"
}

// enumOf sets v to the constant with that name.
func enumOf[E ~uint8](v *E, names []string, what string, name []byte) error {
	i := slices.Index(names, string(name))
	if i < 0 {
		return fmt.Errorf("bgagent: unknown %s %q", what, name)
	}
	*v = E(i)
	return nil
}
