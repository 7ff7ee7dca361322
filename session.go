package bgagent

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/bgagent/bgagent/internal/rulename"
)

// SessionClient is the port to a host's agent runtime: the interface through which the manager runs
// each agent in its own session. A client also implements exactly one of [TurnRunner] and
// [TurnStarter]; [New] refuses a client with both or neither. Everything else that a runtime can do
// is an optional ability, which the manager detects by type assertion: [Notifier], [EventSource],
// [NoticeRecognizer], [MessageReader], [TodoReader], [SessionFinder], [AgentLister],
// [SessionForgetter], [CostReporter], [TokenReporter], [FallbackReporter], [Steerer], [Answerer].
// If a method of an ability returns [errors.ErrUnsupported], the ability counts as missing, so a
// wrapper can have methods for abilities that the wrapped client lacks.
//
// All methods must be safe for concurrent use. The manager does not hold a lock when it calls them.
// The context of a call ends when the manager stops waiting for the call. The manager survives a
// method that ignores its context, panics or calls runtime.Goexit.
type SessionClient interface {
	// CreateSession creates an idle session for one task and returns its id. The id must not be
	// empty or in use. If the agent does not exist, return a [*NoSuchAgentError]. If the runtime
	// cannot be reached, return an error that matches [ErrUnreachable]; the manager then repeats
	// the call.
	CreateSession(ctx context.Context, s SessionSpec) (session string, err error)

	// Abort stops the turn that is running in the session. It is idempotent, and returns nil if the
	// session does not exist or is not in a turn. The session can be prompted again afterwards. For
	// a TurnRunner, the manager also ends the context of RunTurn. If this is enough to stop the turn,
	// Abort may do nothing.
	Abort(ctx context.Context, session string) error
}

// TurnRunner is a client whose RunTurn call returns when the turn ends. It suits agents that are Go
// functions, command-line programs or programs that speak ACP.
type TurnRunner interface {
	// RunTurn prompts the session and returns when the turn is over. When ctx ends, RunTurn must
	// stop everything that the turn started and return soon, with an error or with StopAborted. In
	// that case, it must not return a zero TurnEnd, because a zero TurnEnd means that the agent
	// ended the turn itself.
	//
	// If RunTurn returns an error, the task fails, and the error is the reason. TurnEnd.Stop can say
	// what kind of failure it is, such as StopInterrupted. An error that matches [ErrUnreachable]
	// means that nothing was started; the manager repeats the call later. A [*ProviderError] means
	// that a request to the model provider failed; the manager might continue the turn later.
	//
	// The reporter may be used from any goroutine until RunTurn returns. Later reports are dropped,
	// including reports of text.
	//
	// RunTurn must return only when the answer is complete. The agent might report earlier that it
	// has finished. The client must then wait a moment for late pieces of text. If the agent's own
	// program continues to work in the background, the client also waits for that work, and the
	// agent's report on it is the answer. Text that the program writes after the answer, such as a
	// tip, is not part of the answer. If the program warns that the answer was cut off, the client
	// returns StopLength or StopTurnLimit. If the agent has not written anything, there is no
	// answer.
	//
	// The manager never calls RunTurn for a session that is in a turn. If an Abort call for the
	// session is in progress, the manager first waits for it to return.
	RunTurn(ctx context.Context, session string, p Prompt, r *Reporter) (TurnEnd, error)
}

// TurnStarter is a client whose StartTurn call hands over the prompt and returns while the turn is
// running. It suits agent servers. The manager detects from events and polls that the turn is over.
// For events, see [EventSource] and [BackgroundManager.Observe].
type TurnStarter interface {
	// StartTurn hands over the prompt and returns as soon as the runtime has accepted it. The
	// manager may repeat a call with the same p.ID. If the runtime can recognize the repetition,
	// StartTurn must not start a second turn and must return nil.
	//
	// The manager calls StartTurn only for sessions that are idle as far as it knows. The session can
	// still be in a turn if somebody else has prompted it. In that case, StartTurn must not queue the
	// prompt. It must return an error that matches [ErrBusy]. If the server cannot be reached and the
	// prompt was not handed over, StartTurn must return an error that matches [ErrUnreachable]; the
	// manager repeats the call later.
	//
	// The client must report the turn as over only when the answer is complete, with a stop reason
	// that shows whether the answer was cut off.
	StartTurn(ctx context.Context, session string, p Prompt) error

	// Statuses returns the status of each of the given sessions. A session that is missing from the
	// result counts as SessionUnknown. If a server leaves out idle sessions, its client must add
	// them.
	Statuses(ctx context.Context, sessions []string) (map[string]SessionStatus, error)

	MessageReader
}

// MessageReader is implemented by clients that can read the messages of a session. A [TurnStarter]
// must implement it. A [TurnRunner] may implement it, so that the whole conversation of a task can
// be shown.
type MessageReader interface {
	// Messages returns messages that are new or have changed since the position "after", oldest
	// first. The zero Cursor is the beginning of the session. If max is positive, it is the
	// maximum number of messages. Otherwise, the client chooses the number. A message that
	// changes after it was returned must be returned again. Page.Next must not skip messages for
	// which this page has no room.
	Messages(ctx context.Context, session string, after Cursor, max int) (Page, error)
}

// Notifier is implemented by clients that can deliver notices to root sessions, usually as prompts.
type Notifier interface {
	// Notify delivers a notice to the session. It returns nil once the runtime has recorded or
	// queued the notice, so that the agent will answer it. It returns [ErrBusy] if the session is
	// in a turn and the manager must repeat the call later, and [ErrNoSession] if this client has
	// no such session. Notify should use n.ID as the id of the message, so that a repetition is
	// harmless.
	Notify(ctx context.Context, session string, n Notice) error
}

// NoticeRecognizer is implemented by a [Notifier] that knows whether it recognizes repeated
// notices. With a store, a notice whose delivery was not recorded is delivered again by the next
// process. If [Config].Notify is set, or if a notifier of the manager does not recognize notices,
// at most 3 processes deliver the same notice. After that, the notice waits until it is taken with
// NextNotice or TakeNotice.
type NoticeRecognizer interface {
	// NoticeIDs reports whether a repeated Notify call with the same [Notice].ID has no effect. It
	// must not block.
	NoticeIDs() bool
}

// EventSource is implemented by clients that can push events about sessions. The manager runs Events
// from [New] or, with a store, from [BackgroundManager.Start], until [BackgroundManager.Close].
type EventSource interface {
	// Events calls the function "emit" for every event until ctx ends. It reconnects on its own,
	// and emits [HostStreamGap] whenever events might have been lost. If Events returns before ctx
	// ends, the manager assumes that events were lost and calls Events again after a pause. The
	// function "emit" never blocks.
	Events(ctx context.Context, emit func(HostEvent)) error
}

// TodoReader is implemented by clients that can read the todo list of a session.
type TodoReader interface {
	// Todos returns all todos of the session, open or not.
	Todos(ctx context.Context, session string) ([]Todo, error)
}

// SessionFinder is implemented by clients that can look up a session.
type SessionFinder interface {
	// FindSession returns the parent and the directory of the session. If this client has no such
	// session, the error wraps [ErrNoSession].
	FindSession(ctx context.Context, session string) (SessionInfo, error)
}

// SessionInfo describes a session that a [SessionFinder] found.
type SessionInfo struct {
	Parent    string // id of the session's parent session; empty for a root session
	Directory string // working directory of the session; empty if it has none
}

// AgentLister is implemented by clients that can list their agents. For such a client, an error
// about an unknown agent names the agents that exist.
type AgentLister interface {
	Agents(ctx context.Context) ([]AgentInfo, error)
}

// AgentInfo describes one agent of an [AgentLister].
type AgentInfo struct {
	Name        string
	Description string
}

// SessionForgetter is implemented by clients that can free the resources that they hold for a
// session. The manager calls ForgetSession once the session can no longer be resumed. This is the
// case if the tombstone of the expired task has been dropped, if Forget has deleted the task, or if
// the task continues with another model in a new session. ForgetSession must not block.
type SessionForgetter interface {
	ForgetSession(session string)
}

// SessionSpec describes a session that a client must create.
type SessionSpec struct {
	Task        string            // id of the task, bg_…
	Parent      string            // id of the session that delegated the task, or the name of a scope
	Title       string            // the task's description
	Agent       string            // name of the agent, as the caller gave it
	Model       string            // model to use; empty means the agent's own model
	Directory   string            // working directory; empty means the client's own directory
	Depth       int               // depth of the task: 1 if a root session launched it, 2 if a task with depth 1 launched it, and so on
	Permissions []Permission      // rules for the session; the last matching rule decides
	Metadata    map[string]string // the host's metadata, from LaunchInput; must not be changed
	Key         string            // with a store, the session's key, which stays the same if the manager repeats the call; otherwise empty
	Instance    string            // with a store, the id of the manager, for the environment of processes; otherwise empty
}

// Permission is one rule that allows or restricts an agent's actions. In a list of rules, the last
// matching rule decides.
//
// All clients in this module interpret the name of a rule in the same way. Case, hyphens and
// underscores make no difference. A kind of access has several names, which docs/clients.md lists.
// A rule for a kind applies to every tool and action of that kind. If a client cannot make an agent
// obey a rule whose action is PermissionDeny or PermissionAsk, the client refuses to start the
// agent.
type Permission struct {
	Name    string           // kind of access or name of a tool; can contain the wildcards * and ?; "*" matches all
	Pattern string           // pattern of paths or commands; "*" or empty matches all
	Action  PermissionAction // answer to an action that the rule matches

	// Kept means that the host enforces the rule itself, whatever the agent does. Therefore, a
	// client never refuses to start the agent because of this rule.
	Kept bool
}

// checkRules returns an error about the first rule whose name has a problem, such as characters
// that tool names never contain. Kept rules are not checked.
func checkRules(field string, rules []Permission) error {
	for i, r := range rules {
		if problem := rulename.Problem(r.Name); problem != "" && !r.Kept {
			return &InputError{fmt.Sprintf("%s[%d]", field, i), problem}
		}
	}
	return nil
}

// PermissionAction is the decision that a [Permission] makes.
type PermissionAction string

// The actions of a [Permission].
const (
	PermissionAllow PermissionAction = "allow"
	PermissionDeny  PermissionAction = "deny"
	PermissionAsk   PermissionAction = "ask"
)

// Prompt is the input with which a client starts a turn.
type Prompt struct {
	ID          string       // id of the prompt; unchanged when the manager repeats the prompt
	Task        string       // id of the task, bg_…
	Attempt     int          // number of the attempt, from 1
	Turn        int          // number of the turn in the attempt, from 1
	Agent       string       // name of the agent, as the caller gave it
	Model       string       // model to use; empty means the agent's own model
	Text        string       // text of the prompt
	System      string       // the host's system prompt for this task; usually empty
	Permissions []Permission // rules for the session; in every turn the same as in SessionSpec
	Notice      *Notice      // notice about tasks that the session launched; nil if the prompt does not deliver a notice
	Instance    string       // id of the manager, for the environment of processes; empty if the manager has no store

	// Unanswered is empty unless the provider refused the turn of an earlier prompt of the session
	// (see [NextContinue]). In that case, it is the ID of that earlier prompt. If the runtime can
	// continue that turn on its own, the client lets it continue and does not use Text. Otherwise, it
	// sends Text, which says what happened and asks the agent to continue.
	Unanswered string
}

// TurnEnd describes how a turn of a [TurnRunner] ended. The zero value means that the agent
// completed the turn. Clients without stop reasons return the zero value.
type TurnEnd struct {
	Stop StopReason
	// Text is the agent's final message. If Text is empty, the text reported since the last tool call
	// counts as the message. If no text was reported since then, the text before that call counts.
	Text string
	// NoText means that the reported text is not the final message. For example, a client sets
	// NoText if the agent's program wrote an error instead of a message.
	NoText bool
	// Usage is the usage that became known only at the end of the turn and was not reported with
	// [Reporter.Usage]. It never changes how the turn ends, even if it uses up a budget.
	Usage Usage
	// Remark describes output of the agent's program that the client did not understand, in one
	// line. That output might be the answer. Therefore, if the turn completes an attempt without an
	// answer or a tool call, the reason of the attempt contains the remark.
	Remark string
}

// StopReason is the reason why a turn ended.
type StopReason uint8

// The stop reasons. Only StopEndOfTurn and StopUntold complete a task.
const (
	StopUntold      StopReason = iota // the client does not report stop reasons
	StopEndOfTurn                     // the agent ended its turn itself
	StopLength                        // the model's output limit cut off the answer
	StopTurnLimit                     // the runtime's limit of steps or requests was reached
	StopRefused                       // the model refused
	StopAborted                       // somebody stopped the turn
	StopInterrupted                   // the turn was cut off, for example by a crash or a restart
	StopError                         // the agent failed
	StopToolCalls                     // only in a Message: the message ended with tool calls, and the turn continues
	StopTooLong                       // the input is too long for the model, and the runtime could not shorten it
)

var stopReasonNames = [...]string{"untold", "end of turn", "length", "turn limit", "refused", "aborted", "interrupted", "error", "tool calls", "too long"}

// String returns the name of the reason in lower case.
func (r StopReason) String() string { return enumName(stopReasonNames[:], uint8(r)) }

// SessionState is the state of a session: whether it exists, and whether it is in a turn.
type SessionState uint8

// The states of a session.
const (
	SessionUnknown  SessionState = iota // the state could not be read this time; the manager ignores it
	SessionIdle                         // the session is not in a turn
	SessionBusy                         // the session is in a turn
	SessionRetrying                     // in a turn, waiting to repeat a failed request to the model
	SessionAsking                       // in a turn, waiting for an answer to a question or for permission
	SessionGone                         // the session does not exist
	SessionUntold                       // this client can never report the state
)

var sessionStateNames = [...]string{"unknown", "idle", "busy", "retrying", "asking", "gone", "untold"}

// String returns the name of the state in lower case.
func (s SessionState) String() string { return enumName(sessionStateNames[:], uint8(s)) }

// SessionStatus is the status of one session.
type SessionStatus struct {
	State   SessionState
	RetryAt time.Time // if State is SessionRetrying: time of the next retry, if known; a time more than 366 days away counts as unknown
	Detail  string    // one line for people: the error that caused the retry, or the question asked
	// Provider describes the failed request if State is SessionRetrying and the client knows the
	// details. Provider.RetryAt is the time that the provider gave; the field RetryAt above is the
	// time at which the runtime repeats the request.
	Provider *ProviderError
	// Revision is empty if the runtime has no revisions. Otherwise it must change whenever a
	// message of the session changes. While the revision stays the same, the manager does not read
	// the session's messages.
	Revision string
}

// Role is the kind of a message's author.
type Role uint8

// The roles. Only messages with RoleAgent count as output.
const (
	RoleOther Role = iota
	RoleUser
	RoleAgent
)

var roleNames = [...]string{"other", "user", "agent"}

// String returns the name of the role in lower case.
func (r Role) String() string { return enumName(roleNames[:], uint8(r)) }

// Cursor is a position in the messages of a session. Only the client that returned a cursor can
// interpret its value. The zero value is the beginning of the session.
type Cursor string

// Page is a part of a session's messages.
type Page struct {
	Messages []Message // oldest first
	Next     Cursor    // position after this page; not empty once a message has been read
	More     bool      // more messages can be read now, after Next
}

// Message is one message of a session.
type Message struct {
	ID        string        // id, unique in its session
	Role      Role          // author of the message
	PromptID  string        // in a user message: id of the Prompt that it came from, if the runtime keeps this id
	Text      string        // text for the reader
	Reasoning string        // the agent's thoughts, if the runtime shows them
	Tools     []MessageTool // tool calls in the message
	Finished  bool          // the message will no longer change
	Stop      StopReason    // why a finished message ended; StopUntold only if the client does not report stop reasons
	Error     string        // if Stop is StopError or StopAborted: description of the failure
	Time      time.Time     // time of creation, if known
	Usage     Usage         // tokens and cost of the message, if known

	// Provider is set if Stop is StopError because a request to the model provider failed. The text
	// of such a message is not an answer.
	Provider *ProviderError
}

// ToolState is the state of a tool call.
type ToolState uint8

// The states of a tool call. ToolPending and ToolRunning are in flight.
const (
	ToolPending ToolState = iota
	ToolRunning
	ToolDone
	ToolFailed
)

var toolStateNames = [...]string{"pending", "running", "done", "failed"}

// String returns the name of the state in lower case.
func (s ToolState) String() string { return enumName(toolStateNames[:], uint8(s)) }

// InFlight reports whether the call is pending or running.
func (s ToolState) InFlight() bool { return s == ToolPending || s == ToolRunning }

// MessageTool is a tool call in a message.
type MessageTool struct {
	ID    string // id of the call; agents can reuse it once the call has ended, see Reporter.Tool
	Name  string
	State ToolState

	// Input is a digest of the tool's input, and Result is a digest of what the tool returned,
	// including the text of an error. Equal digests mean equal contents. The client leaves out
	// anything that differs in every call, such as the name of a temporary file. The zero Digest
	// means that the client does not know the contents. Result is set once the call has ended.
	Input, Result Digest
}

// Digest is a hash of contents that are compared but not stored. The zero Digest stands for unknown
// contents.
type Digest uint64

// DigestOf returns the digest of the parts. The digest is never zero, and it is the same in every
// process. Apart from collisions of a 64-bit hash (FNV-1a), two lists of parts have the same digest
// only if they have the same parts in the same order.
func DigestOf(parts ...string) Digest {
	const offset, prime = 14695981039346656037, 1099511628211
	h := uint64(offset)
	for _, s := range parts {
		for i := range len(s) {
			h = (h ^ uint64(s[i])) * prime
		}
		for shift := 0; shift < 64; shift += 8 { // the length separates the parts
			h = (h ^ uint64(len(s))>>shift&0xff) * prime
		}
	}
	return Digest(max(h, 1))
}

// Usage is the number of tokens that an agent has used, and their cost. Unknown fields are zero.
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

// The states of a todo. TodoPending and TodoInProgress are open.
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

// enumName returns the name of v. If v has no name, enumName returns its number in brackets, so
// that log lines show it.
func enumName(names []string, v uint8) string {
	if int(v) < len(names) {
		return names[v]
	}
	return "(" + itoa(int(v)) + ")"
}

// enumOf sets v to the constant that has the given name.
func enumOf[E ~uint8](v *E, names []string, what string, name []byte) error {
	i := slices.Index(names, string(name))
	if i < 0 {
		return fmt.Errorf("bgagent: unknown %s %q", what, name)
	}
	*v = E(i)
	return nil
}
