package bgagent

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// SessionClient is the port to a host's agent runtime: what the manager needs
// to run one agent in a session of its own. A client also implements exactly
// one of [TurnRunner] and [TurnStarter]; [New] refuses one that has both or
// neither. Everything else that a runtime can do is an ability, found by type
// assertion: [Notifier], [EventSource], [MessageReader], [TodoReader],
// [SessionFinder], [AgentLister], [SessionForgetter]. An ability whose method
// answers [errors.ErrUnsupported] counts as missing, so that wrappers work.
//
// All methods must be safe for concurrent use. The manager calls them without
// holding a lock, gives each a context that ends when it stops waiting, and
// survives one that ignores its context, panics or calls runtime.Goexit.
type SessionClient interface {
	// CreateSession makes an idle session for one task and returns its id,
	// which must not be empty and must not be in use. An agent that does not
	// exist is best reported as a [*NoSuchAgentError], a runtime that cannot be
	// reached as an error that matches [ErrUnreachable]: the call is made again
	// then.
	CreateSession(ctx context.Context, s SessionSpec) (session string, err error)

	// Abort stops whatever runs in the session. It is idempotent and returns
	// nil for a session that does not exist or does not run. The session can
	// be prompted again afterwards. Of a TurnRunner the context of RunTurn ends
	// as well: where that is enough, Abort may do nothing.
	Abort(ctx context.Context, session string) error
}

// TurnRunner is a client whose call lasts as long as the turn: a Go function,
// a command line, an agent that speaks ACP. Its return is the end of the turn.
type TurnRunner interface {
	// RunTurn prompts the session and returns when the turn is over. ctx ends
	// when the turn must stop; RunTurn then returns soon, with nothing of the
	// turn still running, and with an error or StopAborted: a zero TurnEnd says
	// that the agent ended its turn itself. With an error the task has failed for
	// this reason; TurnEnd.Stop may say what kind of end it was, such as
	// StopInterrupted. The reporter may be used from any
	// goroutine until RunTurn returns; what is reported later is dropped.
	//
	// The manager never calls it for a session that is in a turn, and waits for
	// an Abort to return first.
	RunTurn(ctx context.Context, session string, p Prompt, r *Reporter) (TurnEnd, error)
}

// TurnStarter is a client that hands a turn over and returns: an agent server.
// Events (see [EventSource] and [BackgroundManager.Observe]) and the poller
// find the end of the turn.
type TurnStarter interface {
	// StartTurn hands the prompt over and returns as soon as it is accepted.
	// Repeating it with the same p.ID must not start a second turn where the
	// runtime can prevent it, and returns nil then. The manager calls it only
	// for sessions that it has found to be quiet; where one is in a turn all the
	// same, because somebody else has prompted it, an error that matches
	// [ErrBusy] is better than a prompt that waits in a line nobody sees.
	StartTurn(ctx context.Context, session string, p Prompt) error

	// Statuses returns the state of each of the sessions asked for. A session
	// missing from the answer counts as unknown, so an adapter whose server
	// leaves out idle sessions must fill them in.
	Statuses(ctx context.Context, sessions []string) (map[string]SessionStatus, error)

	MessageReader
}

// MessageReader reads the messages of a session. Starters must have it; for a
// runner it is the ability to show the whole conversation of a task.
type MessageReader interface {
	// Messages returns, oldest first, at most max messages that are new or
	// have changed since the cursor; the zero Cursor means from the beginning,
	// and a max that is not positive means as many as the client likes. A message
	// that may still change must be returned again when it has. Page.Next must
	// not skip what has been left out.
	Messages(ctx context.Context, session string, after Cursor, max int) (Page, error)
}

// Notifier is the ability to tell a root session that tasks of it have ended,
// usually by prompting it.
type Notifier interface {
	// Notify returns nil once the notice is recorded or queued so that it will
	// be answered, [ErrBusy] when the session is in a turn and must be tried
	// later, [ErrNoSession] when this client has no such session. Using n.ID as
	// the id of the message makes repeating harmless.
	Notify(ctx context.Context, session string, n Notice) error
}

// EventSource is the ability to push what happens in sessions. The manager
// runs it from New to Close.
type EventSource interface {
	// Events calls emit for everything that happens until ctx ends. It
	// reconnects by itself and emits [HostStreamGap] whenever events may have
	// been lost. When it returns before ctx has ended, the manager treats that
	// as a gap and calls it again after a pause. emit never blocks.
	Events(ctx context.Context, emit func(HostEvent)) error
}

// TodoReader is the ability to read the todo list of a session.
type TodoReader interface {
	Todos(ctx context.Context, session string) ([]Todo, error)
}

// SessionFinder is the ability to look a session up.
type SessionFinder interface {
	// FindSession returns what is known of the session, or an error that wraps
	// [ErrNoSession] when this client has no such session.
	FindSession(ctx context.Context, session string) (SessionInfo, error)
}

// SessionInfo describes a session that a [SessionFinder] knows.
type SessionInfo struct {
	Parent    string // the session it is a child of; empty for a root session
	Directory string // where it works; empty when that has no meaning
}

// AgentLister is the ability to name the agents that there are. It makes the
// error for an unknown agent helpful.
type AgentLister interface {
	Agents(ctx context.Context) ([]AgentInfo, error)
}

// AgentInfo describes one agent of an [AgentLister].
type AgentInfo struct {
	Name        string
	Description string
}

// SessionForgetter is the ability to free what a client holds of a session.
// The manager calls it when the record of the session's task has expired and
// its id has left the list of tombstones, so that it can no longer be resumed.
// It must return at once.
type SessionForgetter interface {
	ForgetSession(session string)
}

// SessionSpec says what session to create.
type SessionSpec struct {
	Task        string            // id of the task, bg_…
	Parent      string            // session that delegated, or the name of a scope
	Title       string            // the task's description
	Agent       string            // name of the agent, as the caller gave it
	Model       string            // model to use; empty means the agent's own
	Directory   string            // working directory; empty means the client's own
	Depth       int               // 1 for a task of a root session, 2 for a task of that task …
	Permissions []Permission      // rules for the session, the last one that matches decides
	Metadata    map[string]string // the host's own, from LaunchInput; not to be changed
}

// Permission is one rule about what an agent may do. In a list of rules the
// last one that matches decides.
//
// Names are read in the same way by all clients that come with this module: in
// any case, with or without hyphens and underscores, and by any of the words for
// a kind of access, which docs/clients.md lists. A rule for a kind is one for all
// that is part of it. A client refuses to start an agent that it cannot hold to a
// rule that denies or asks.
type Permission struct {
	Name    string           // what is asked for: a kind of access or the name of a tool; "*" for all, with * and ? for some
	Pattern string           // on what: a path or command pattern; "*" or empty for all
	Action  PermissionAction // what the answer is

	// Kept says that the host keeps the rule itself, whatever the agent does: no
	// client has to refuse what it cannot keep of it.
	Kept bool
}

// PermissionAction is the answer that a [Permission] gives.
type PermissionAction string

// The actions of a [Permission].
const (
	PermissionAllow PermissionAction = "allow"
	PermissionDeny  PermissionAction = "deny"
	PermissionAsk   PermissionAction = "ask"
)

// Prompt is what a turn is started with.
type Prompt struct {
	ID          string       // never changes for one prompt, so that repeating it can be harmless
	Task        string       // id of the task, bg_…
	Attempt     int          // number of the attempt, from 1
	Turn        int          // number of the turn in the attempt, from 1
	Agent       string       // name of the agent, as the caller gave it
	Model       string       // model to use; empty means the agent's own
	Text        string       // the prompt itself
	System      string       // system text of the host for this task; usually empty
	Permissions []Permission // the same rules as in SessionSpec, at every turn
	Notice      *Notice      // set when the prompt tells the session of its own tasks' ends
}

// TurnEnd is how a turn of a [TurnRunner] ended. The zero value means that it
// ended and that the client has no stop reasons; it completes.
type TurnEnd struct {
	Stop StopReason
	// Text is the agent's final message. When it is empty, the text reported
	// since the last tool call counts as the message.
	Text string
	// NoText says that what was reported as text is no message either, such as an
	// error that the agent writes as one.
	NoText bool
}

// StopReason says why a turn ended.
type StopReason uint8

// The stop reasons. Only StopEndOfTurn completes a task, and StopUntold, which
// is for clients that know no reasons.
const (
	StopUntold      StopReason = iota // the client has no reasons
	StopEndOfTurn                     // the agent has said all it had to say
	StopLength                        // the model's output limit cut it off
	StopTurnLimit                     // the runtime's limit of steps or requests
	StopRefused                       // the model refused
	StopAborted                       // somebody stopped it
	StopInterrupted                   // it broke off: a crash, a restart
	StopError                         // the agent failed
	StopToolCalls                     // of a message only: it ended in tool calls, and the turn goes on
)

var stopReasonNames = [...]string{"untold", "end of turn", "length", "turn limit", "refused", "aborted", "interrupted", "error", "tool calls"}

// String returns the name of the reason in lower case.
func (r StopReason) String() string { return enumName(stopReasonNames[:], uint8(r)) }

// SessionState is what a session does at the moment.
type SessionState uint8

// The states of a session.
const (
	SessionUnknown  SessionState = iota // could not be told this time; decides nothing
	SessionIdle                         // in no turn
	SessionBusy                         // in a turn
	SessionRetrying                     // in a turn, waiting to try the model again
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
	RetryAt time.Time // with SessionRetrying: when the next try is due, if known
	Detail  string    // one line for people: the error that is retried, the question asked
	// Revision, where the runtime has one, changes whenever a message of the
	// session does. While it stays the same the session is not read.
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

// Cursor is a position in the messages of a session. It belongs to the client
// that made it; the zero value is the beginning.
type Cursor string

// Page is a part of a session's messages.
type Page struct {
	Messages []Message // oldest first
	Next     Cursor    // goes on after this page; never empty once something was read
	More     bool      // there is more to read now
}

// Message is one message of a session.
type Message struct {
	ID        string        // unique in its session
	Role      Role          // who wrote it
	PromptID  string        // user messages: Prompt.ID of the prompt it came from, where the runtime keeps it
	Text      string        // what is written to the reader
	Reasoning string        // what the agent thought, where the runtime shows it
	Tools     []MessageTool // tool calls in the message
	Finished  bool          // the message will not change any more
	Stop      StopReason    // how a finished message ended; StopUntold only where the client has no reasons
	Error     string        // with StopError and StopAborted: what went wrong
	Time      time.Time     // when it was made, if known
	Usage     Usage         // what it cost, if known
}

// ToolState is how far a tool call has got.
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
	ID    string // of the call while it is in flight; agents may use it again, see Reporter.Tool
	Name  string
	State ToolState
}

// Usage is what an agent has used. Fields that are not known are zero.
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

// TodoState is how far a todo has got.
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
	HostError                    // the turn failed: Error says why, Stop whether it was an abort
	HostDeleted                  // the session was deleted
	HostActivity                 // something changed that has no event of its own
	HostStreamUp                 // from here on every change of every session is reported, in order
	HostStreamBeat               // the stream is alive
	HostStreamGap                // events may have been lost
)

var hostEventKindNames = [...]string{"none", "status", "message", "todos", "error", "deleted", "activity", "stream up", "stream beat", "stream gap"}

// String returns the name of the kind in lower case.
func (k HostEventKind) String() string { return enumName(hostEventKindNames[:], uint8(k)) }

// HostEvent is something that happened in a host's agent runtime, emitted by an
// [EventSource] or passed to [BackgroundManager.Observe].
type HostEvent struct {
	Kind    HostEventKind
	Client  string // name of the client in Config.Clients; empty for the one given to New. An EventSource may leave it empty.
	Session string // empty for the kinds that are about the stream
	Status  SessionStatus
	Message *Message
	Todos   []Todo
	Stop    StopReason
	Error   string
}

// enumName returns the name of v, or a number in brackets for a value that is
// none of the constants, so that a log line never hides one.
func enumName(names []string, v uint8) string {
	if int(v) < len(names) {
		return names[v]
	}
	return "(" + itoa(int(v)) + ")"
}

// enumOf sets v to the constant of that name.
func enumOf[E ~uint8](v *E, names []string, what string, name []byte) error {
	i := slices.Index(names, string(name))
	if i < 0 {
		return fmt.Errorf("bgagent: unknown %s %q", what, name)
	}
	*v = E(i)
	return nil
}
