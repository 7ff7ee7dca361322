package bgagent

import (
	"context"
	"time"
)

// Status is the state of a task's latest attempt.
type Status uint8

// The states. Pending comes first. The last three are final for their attempt.
const (
	Pending   Status = iota // waits for a slot
	Running                 // has a session or is getting one
	Completed               // the agent ended its turn by itself, with an answer
	Failed                  // could not start, broke off, or gave no complete answer
	Cancelled               // a caller or a limit ended it
)

var statusNames = [...]string{"pending", "running", "completed", "error", "cancelled"}

// String returns pending, running, completed, error or cancelled.
func (s Status) String() string { return enumName(statusNames[:], uint8(s)) }

// Terminal reports whether the attempt has ended.
func (s Status) Terminal() bool { return s >= Completed }

// MarshalText implements [encoding.TextMarshaler].
func (s Status) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (s *Status) UnmarshalText(b []byte) error { return enumOf(s, statusNames[:], "status", b) }

// Phase says what a running attempt is doing.
type Phase uint8

// The phases. An attempt that has ended is in PhaseStopping while its session is being stopped.
const (
	PhaseNone     Phase = iota
	PhaseStarting       // its session is being created or its prompt handed over
	PhaseTurn           // the agent works
	PhaseAsking         // the agent waits for an answer to a question or a permission
	PhaseWaiting        // the agent has ended its turn and waits for its own tasks
	PhaseStopping       // ended; its session is being stopped
)

var phaseNames = [...]string{"", "starting", "in a turn", "asking", "waiting for its own tasks", "stopping"}

// String returns the phase in lower-case words; empty for PhaseNone.
func (p Phase) String() string { return enumName(phaseNames[:], uint8(p)) }

// MarshalText implements [encoding.TextMarshaler].
func (p Phase) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (p *Phase) UnmarshalText(b []byte) error { return enumOf(p, phaseNames[:], "phase", b) }

// Cause says why an attempt ended, so that nobody has to parse text.
type Cause uint8

// The causes, grouped by the status that they lead to.
const (
	CauseNone Cause = iota

	// Completed.
	CauseTurnEnded // a runner's turn returned
	CauseIdle      // the session fell idle after an answer
	CauseStable    // nothing changed for a number of polls, if the client cannot tell idle

	// Cancelled.
	CauseCaller          // the session that delegated, or one above it, cancelled it
	CauseHost            // the host cancelled it
	CauseAgentWindow     // somebody stopped it in the agent's own window
	CauseParentEnded     // the task that launched it ended without completing, or the session that did is gone
	CauseTimeToLive      // its turns took too long
	CauseQueueTimeToLive // it waited too long for a slot
	CauseStale           // nothing changed for too long
	CauseSessionDeleted  // its session was deleted
	CauseClosed          // the manager was closed

	// Failed.
	CauseStartFailed     // no session could be created
	CausePromptFailed    // the session did not take the prompt
	CauseSessionError    // the agent failed
	CauseInterrupted     // the turn broke off
	CauseNoOutput        // the turn ended without any output
	CauseLength          // the model's output limit cut off the answer
	CauseTurnLimit       // the runtime's limit of steps was reached
	CauseRefused         // the model refused
	CauseSessionGone     // the session no longer exists
	CauseHostUnreachable // the agent runtime did not answer for too long
	CauseNotStopped      // the earlier attempt's session did not stop
	CauseNoAnswer        // the agent wrote nothing visible and called no tool
)

var causeNames = [...]string{"", "turn ended", "idle", "stable",

	"cancelled by caller", "cancelled by host", "cancelled in the agent's window", "parent ended", "time to live", "queue time to live", "stale", "session deleted", "manager closed",

	"start failed", "prompt failed", "session error", "interrupted", "no output", "length", "turn limit", "refused", "session gone", "host unreachable", "session did not stop", "no answer"}

// String returns the cause in lower-case words; empty for CauseNone.
func (c Cause) String() string { return enumName(causeNames[:], uint8(c)) }

// MarshalText implements [encoding.TextMarshaler].
func (c Cause) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (c *Cause) UnmarshalText(b []byte) error { return enumOf(c, causeNames[:], "cause", b) }

// Status returns the state of an attempt that ended for this cause. It returns Pending for
// CauseNone.
func (c Cause) Status() Status {
	switch {
	case c == CauseNone:
		return Pending
	case c <= CauseStable:
		return Completed
	case c <= CauseClosed:
		return Cancelled
	default:
		return Failed
	}
}

// Task is a copy of what is known about a task at one moment. The fields from Status on describe
// its latest attempt. Attempts describes the earlier ones.
type Task struct {
	ID          string            `json:"id"`
	Session     string            `json:"session,omitempty"` // the child session; empty until it is created
	Parent      string            `json:"parent,omitempty"`  // session or scope that delegated the task and is told about its end
	Root        string            `json:"root,omitempty"`    // first session in the chain of parents
	Depth       int               `json:"depth"`             // depth at launch; 1 for a task of a root session
	Description string            `json:"description"`
	Agent       string            `json:"agent"`
	Model       string            `json:"model,omitempty"` // as Config.Model resolved it; empty means the agent's own
	Prompt      string            `json:"prompt"`          // prompt of the latest attempt
	ToolCallID  string            `json:"tool_call_id,omitempty"`
	Client      string            `json:"client,omitempty"` // name of the session client; empty for the client given to New
	Metadata    map[string]string `json:"metadata,omitempty"`

	Status     Status    `json:"status"`
	Cause      Cause     `json:"cause,omitempty"` // why the attempt ended
	Phase      Phase     `json:"phase,omitempty"` // set while running, and after the end while the session is being stopped
	Reason     string    `json:"reason,omitempty"`
	Attempt    int       `json:"attempt"`              // number of the latest attempt, from 1
	Queued     time.Time `json:"queued"`               // when the attempt was launched or resumed
	Started    time.Time `json:"started,omitzero"`     // zero while pending
	Ended      time.Time `json:"ended,omitzero"`       // zero while live
	Quiet      bool      `json:"quiet"`                // ended, and nothing of it runs any more
	Waiting    int       `json:"waiting"`              // number of its own tasks that have not ended
	Foreground bool      `json:"foreground,omitempty"` // a caller waits for it in Run

	Queue     *QueuePlace `json:"queue,omitempty"`  // set for a pending attempt that waits for a slot
	Outage    *Outage     `json:"outage,omitempty"` // set for a running attempt whose client does not reach its agent runtime
	Progress  Progress    `json:"progress"`
	Result    string      `json:"result,omitempty"`     // the agent's text
	Partial   bool        `json:"partial,omitempty"`    // Result is not a finished answer
	Reasoning bool        `json:"reasoning,omitempty"`  // Result is the agent's reasoning, because it wrote no answer
	Cut       bool        `json:"cut,omitempty"`        // Result is only the first 256 KiB, or 1 MiB if the session cannot be read
	Dropped   bool        `json:"dropped,omitempty"`    // Result was dropped by retention
	OpenTodos int         `json:"open_todos,omitempty"` // todos left open when it completed
	Notice    NoticeState `json:"notice,omitempty"`     // what became of the notice to the parent

	Attempts []Attempt `json:"attempts,omitempty"` // earlier attempts, oldest first, at most the last 20
}

// Duration returns how long the latest attempt has run, from its start to its end, or to now if it
// is live. It returns 0 for an attempt that has not started.
func (t Task) Duration(now time.Time) time.Duration {
	if t.Started.IsZero() {
		return 0
	}
	if !t.Ended.IsZero() {
		now = t.Ended
	}
	return max(now.Sub(t.Started), 0)
}

// Attempt is one earlier run of a task.
type Attempt struct {
	Number  int       `json:"number"`
	Status  Status    `json:"status"`
	Cause   Cause     `json:"cause"`
	Reason  string    `json:"reason,omitempty"`
	Queued  time.Time `json:"queued"`
	Started time.Time `json:"started,omitzero"`
	Ended   time.Time `json:"ended,omitzero"`

	Notice NoticeState `json:"notice,omitempty"` // what became of the notice about this attempt's end
}

// QueuePlace is the place of a pending task in its pool's line.
type QueuePlace struct {
	Place int       `json:"place"` // 1 is next; 0 if it is too far back to count
	Pool  PoolStats `json:"pool"`
}

// Outage says that the client of a running attempt does not reach its agent runtime. Before the
// turn, the start is held back and tried again (see [ErrUnreachable]). In the turn, the client does
// not tell the status of the session.
type Outage struct {
	Since  time.Time `json:"since"`            // when the attempt was held back, or when its status was last told
	Until  time.Time `json:"until,omitzero"`   // when the attempt ends as failed if nothing changes; zero for never
	Reason string    `json:"reason,omitempty"` // the client's error, in one line
}

// Progress is what is known about a running attempt, or was last known about one that has ended.
type Progress struct {
	Turns         int       `json:"turns"`      // number of turns begun
	ToolCalls     int       `json:"tool_calls"` // number of tool calls, each counted once
	LastTool      string    `json:"last_tool,omitempty"`
	LastMessage   string    `json:"last_message,omitempty"` // end of the last text, at most 200 bytes
	LastMessageAt time.Time `json:"last_message_at,omitzero"`
	LastActivity  time.Time `json:"last_activity,omitzero"` // when anything last changed
	Detail        string    `json:"detail,omitempty"`       // what the agent asks or retries, in one line
	Todos         []Todo    `json:"todos,omitempty"`
	Usage         Usage     `json:"usage"`
}

// NoticeState says what became of the notice that a parent is owed for the end of an attempt.
type NoticeState uint8

// The states of a notice. All but the first two are final.
const (
	NoticeNone      NoticeState = iota // the attempt has not ended
	NoticeOwed                         // not told yet
	NoticeDelivered                    // handed to the host, or told by the parent's next turn
	NoticeRead                         // the parent has read the result
	NoticeTaken                        // taken with NextNotice or TakeNotice, or told with a tool's result
	NoticeWaived                       // the parent cancelled the task itself
	NoticeGivenUp                      // the parent is gone or could not be reached
)

var noticeStateNames = [...]string{"", "owed", "delivered", "read", "taken", "waived", "given up"}

// String returns the name of the state in lower case; empty for NoticeNone.
func (s NoticeState) String() string { return enumName(noticeStateNames[:], uint8(s)) }

// Settled reports whether the state is final.
func (s NoticeState) Settled() bool { return s > NoticeOwed }

// MarshalText implements [encoding.TextMarshaler].
func (s NoticeState) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (s *NoticeState) UnmarshalText(b []byte) error {
	return enumOf(s, noticeStateNames[:], "state of a notice", b)
}

// Notice tells a parent session what has ended. One notice may cover several tasks.
type Notice struct {
	ID      string       `json:"id"`                // stays the same however often the notice is delivered
	Session string       `json:"session"`           // the parent that is told
	Items   []NoticeItem `json:"items"`             // ends that were not told before, oldest first
	Batch   []NoticeItem `json:"batch,omitempty"`   // in closing notices: all ends of the batch, told before or not
	Omitted int          `json:"omitted,omitempty"` // number of ends of the batch that Batch leaves out
	Closing bool         `json:"closing"`           // no task of the batch is live any more
	Live    int          `json:"live"`              // number of the parent's tasks that are pending or running
	Text    string       `json:"text"`              // the text for the parent's model
}

// NoticeItem describes the end of one attempt.
type NoticeItem struct {
	ID          string        `json:"id"` // id of this end; never changes
	Task        string        `json:"task"`
	Attempt     int           `json:"attempt"`
	Session     string        `json:"session,omitempty"`
	Description string        `json:"description"`
	Agent       string        `json:"agent"`
	Status      Status        `json:"status"`
	Cause       Cause         `json:"cause"`
	Reason      string        `json:"reason,omitempty"`
	Duration    time.Duration `json:"duration"`            // nanoseconds in JSON
	NoAnswer    bool          `json:"no_answer,omitempty"` // it completed with tool calls alone: there is no text to read

	// Result is the beginning of the result, up to Config.NoticeResult bytes. Cut is true if there is more.
	Result string `json:"result,omitempty"`
	Cut    bool   `json:"cut,omitempty"`
}

// Caller says on whose behalf a call is made. The host fills it in: nothing in it may come from a
// model's arguments. The zero Caller is the host itself, which may do everything. The parent of the
// tasks that the host launches is the session "".
type Caller struct {
	Session    string // session or scope that makes the call
	ToolCallID string // id of the tool call, if there is one; makes a repeated launch harmless
}

// LaunchInput describes the task to launch. Agent and Prompt are required.
type LaunchInput struct {
	Description string            // a short title; if empty, the beginning of the prompt
	Prompt      string            // what the agent is to do
	Agent       string            // name of the agent
	Model       string            // name of the model; empty for the agent's own
	System      string            // system text for every turn of the task; it comes from the host, not from a model
	Directory   string            // working directory; empty for the parent's
	Metadata    map[string]string // the host's own data; copied
}

// ResumeInput describes how to continue an ended task. Prompt is required.
type ResumeInput struct {
	Prompt string
	Model  string // the model from now on; empty keeps the task's model
}

// CancelOptions says how to cancel.
type CancelOptions struct {
	Reason string // one line, kept as the task's reason
}

// WaitMode says what Wait waits for.
type WaitMode uint8

// The modes of Wait.
const (
	WaitAll WaitMode = iota // all of the tasks have ended
	WaitAny                 // at least one of the tasks has ended
)

// Query selects tasks for List. The zero value selects all.
type Query struct {
	Under  string   // only descendants of this session
	Parent string   // only tasks that this session itself launched
	Status []Status // only tasks in one of these states
	Limit  int      // at most this many, the latest launched; 0 for all
}

type callerKey struct{}

// WithCaller returns a context that carries the caller. It is for [ToolDef.Call], and for agents
// that run in the process and call the tools themselves.
func WithCaller(ctx context.Context, c Caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

// CallerFrom returns the caller that ctx carries.
func CallerFrom(ctx context.Context) (Caller, bool) {
	c, ok := ctx.Value(callerKey{}).(Caller)
	return c, ok
}
