package bgagent

import (
	"context"
	"time"
)

// Status is the state of a task's latest attempt.
type Status uint8

// The states. Every attempt begins as Pending. Completed, Failed and Cancelled are final: an
// attempt with one of these statuses keeps it.
const (
	Pending   Status = iota // the attempt waits for a slot
	Running                 // the attempt has a session, or its session is being created
	Completed               // the agent ended its turn itself, with an answer or at least a tool call
	Failed                  // the attempt could not start, was cut off, or gave no complete answer
	Cancelled               // a caller or a limit ended the attempt
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

// Phase is the step that an attempt is in while it runs, or while it is being stopped.
type Phase uint8

// The phases of an attempt. Pending attempts and quiet attempts have PhaseNone.
const (
	PhaseNone     Phase = iota
	PhaseStarting       // the session is being created, or the prompt is being handed over
	PhaseTurn           // the agent is working
	PhaseAsking         // the agent waits for an answer to a question or for permission
	PhaseWaiting        // the agent has ended its turn and waits for its own tasks, or for a slot for the turn that delivers a message
	PhaseStopping       // the attempt has ended, and its session is being stopped
	PhaseStoring        // the attempt has ended, and the end is being written to the store
	PhaseParked         // the attempt waits without a slot, either for a provider that refused its turn or for the answer to a question; see Reason and Until
)

var phaseNames = [...]string{"", "starting", "in a turn", "asking", "waiting for its own tasks", "stopping", "storing", "parked"}

// String returns the phase in lower-case words, or "" for PhaseNone.
func (p Phase) String() string { return enumName(phaseNames[:], uint8(p)) }

// MarshalText implements [encoding.TextMarshaler].
func (p Phase) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (p *Phase) UnmarshalText(b []byte) error { return enumOf(p, phaseNames[:], "phase", b) }

// Cause is the reason why an attempt ended, as a constant. Task.Reason explains it in words.
type Cause uint8

// The causes, grouped by the status of the attempt.
const (
	CauseNone Cause = iota

	// Completed.
	CauseTurnEnded // the turn of a TurnRunner returned
	CauseIdle      // the session became idle after an answer
	CauseStable    // the client cannot report idle sessions, and nothing changed for a number of polls

	// Cancelled.
	CauseCaller          // the session that launched the task, or a session above it, cancelled it
	CauseHost            // the host cancelled the task
	CauseAgentWindow     // the user stopped the agent in its own window
	CauseParentEnded     // the task that launched this task ended without completing, or the session that launched it was deleted
	CauseTimeToLive      // the turns of the attempt took too long
	CauseQueueTimeToLive // the attempt waited too long for a slot
	CauseBudget          // a budget of the task or of its tree is used up; see Config.TaskBudget
	CauseStale           // the task made no progress for too long
	CauseSessionDeleted  // the session of the task was deleted
	CauseClosed          // the manager was closed
	CauseSuperseded      // another attempt of the task continues this one
	CauseLoop            // the agent made the same tool call again and again, or too many tool calls

	// Failed.
	CauseStartFailed     // no session could be created, or the agent does not exist
	CausePromptFailed    // the prompt could not be handed over to the session
	CauseSessionError    // the agent failed
	CauseInterrupted     // the turn was cut off
	CauseNoOutput        // the turn ended without any output
	CauseLength          // the model's output limit cut off the answer
	CauseTurnLimit       // the runtime's limit of steps was reached
	CauseRefused         // the model refused
	CauseSessionGone     // the session no longer exists
	CauseHostUnreachable // the agent runtime was out of reach for too long
	CauseNotStopped      // the session did not stop, so the next attempt or the next turn could not start
	CauseNoAnswer        // the agent neither wrote visible text nor called a tool
	CauseTooLong         // the input is too long for the model, even after it was shortened
	CauseRateLimited     // the model provider refused a turn because of a limit, an overload or a failure, and the turn could not be continued later
	CauseSlotLost        // the slot source could not keep the slot or the place in line; see Config.Slots
)

// causes holds the name of each cause and the status of an attempt that ends with it. A new cause
// needs a constant above and a row here; a test fails if a constant has no row. CONTRIBUTING.md
// lists the other changes that a new cause needs.
var causes = [...]struct {
	name   string
	status Status
}{
	CauseNone: {"", Pending},

	CauseTurnEnded: {"turn ended", Completed},
	CauseIdle:      {"idle", Completed},
	CauseStable:    {"stable", Completed},

	CauseCaller:          {"cancelled by caller", Cancelled},
	CauseHost:            {"cancelled by host", Cancelled},
	CauseAgentWindow:     {"cancelled in the agent's window", Cancelled},
	CauseParentEnded:     {"parent ended", Cancelled},
	CauseTimeToLive:      {"time to live", Cancelled},
	CauseQueueTimeToLive: {"queue time to live", Cancelled},
	CauseBudget:          {"budget", Cancelled},
	CauseStale:           {"stale", Cancelled},
	CauseSessionDeleted:  {"session deleted", Cancelled},
	CauseClosed:          {"manager closed", Cancelled},
	CauseSuperseded:      {"superseded", Cancelled},
	CauseLoop:            {"loop", Cancelled},

	CauseStartFailed:     {"start failed", Failed},
	CausePromptFailed:    {"prompt failed", Failed},
	CauseSessionError:    {"session error", Failed},
	CauseInterrupted:     {"interrupted", Failed},
	CauseNoOutput:        {"no output", Failed},
	CauseLength:          {"length", Failed},
	CauseTurnLimit:       {"turn limit", Failed},
	CauseRefused:         {"refused", Failed},
	CauseSessionGone:     {"session gone", Failed},
	CauseHostUnreachable: {"host unreachable", Failed},
	CauseNotStopped:      {"session did not stop", Failed},
	CauseNoAnswer:        {"no answer", Failed},
	CauseTooLong:         {"too long", Failed},
	CauseRateLimited:     {"rate limited", Failed},
	CauseSlotLost:        {"slot lost", Failed},
}

// causeNames holds the names from causes.
var causeNames = func() (names [len(causes)]string) {
	for c := range causes {
		names[c] = causes[c].name
	}
	return names
}()

// String returns the name of the cause in lower-case words, or "" for CauseNone.
func (c Cause) String() string { return enumName(causeNames[:], uint8(c)) }

// MarshalText implements [encoding.TextMarshaler].
func (c Cause) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (c *Cause) UnmarshalText(b []byte) error { return enumOf(c, causeNames[:], "cause", b) }

// Status returns the status of an attempt that ended with this cause. It returns Pending for
// CauseNone.
func (c Cause) Status() Status {
	if int(c) >= len(causes) { // a value without a constant
		return Failed
	}
	return causes[c].status
}

// Task is a snapshot of a task. The fields from Status onwards describe its latest attempt, except
// Budget, which counts all attempts, and Attempts, which describes the earlier ones.
type Task struct {
	ID          string            `json:"id"`
	Session     string            `json:"session,omitempty"` // id of the task's own session; empty until it is created
	Parent      string            `json:"parent,omitempty"`  // session or scope that delegated the task and is notified when it ends
	Root        string            `json:"root,omitempty"`    // root session or scope at the top of the chain of parents
	Depth       int               `json:"depth"`             // depth at the launch; 1 for a task of a root session
	Description string            `json:"description"`
	Agent       string            `json:"agent"`
	Model       string            `json:"model,omitempty"`    // name of the model, after Config.Model and Config.Fallback were applied; empty means the agent's own model
	Fallback    string            `json:"fallback,omitempty"` // if Model is a fallback, one line that names the previous model and the reason
	Prompt      string            `json:"prompt"`             // prompt of the latest attempt
	ToolCallID  string            `json:"tool_call_id,omitempty"`
	Client      string            `json:"client,omitempty"` // name of the session client; empty for the client given to New
	Metadata    map[string]string `json:"metadata,omitempty"`

	Status     Status    `json:"status"`
	Cause      Cause     `json:"cause,omitempty"`      // cause of the attempt's end
	Phase      Phase     `json:"phase,omitempty"`      // set while running, and after the end while the session is being stopped
	Reason     string    `json:"reason,omitempty"`     // why the attempt ended, or what it waits for while it is parked
	Until      time.Time `json:"until,omitzero"`       // while parked: when the provider will accept requests again (zero if unknown or past), or when the first question expires
	Attempt    int       `json:"attempt"`              // number of the latest attempt, from 1
	Queued     time.Time `json:"queued"`               // when the attempt was launched or resumed
	Started    time.Time `json:"started,omitzero"`     // zero while pending
	Ended      time.Time `json:"ended,omitzero"`       // zero while live
	Quiet      bool      `json:"quiet"`                // the attempt has ended, and everything it started has stopped
	OverLimit  bool      `json:"over_limit,omitempty"` // the attempt's session did not stop in time, so its slot went to the next task; false once the attempt is quiet
	Waiting    int       `json:"waiting"`              // number of live tasks that this task launched
	Foreground bool      `json:"foreground,omitempty"` // a caller waits for the task in Run or RunResume

	Queue     *QueuePlace `json:"queue,omitempty"`  // set for a pending attempt that waits for a slot
	Outage    *Outage     `json:"outage,omitempty"` // set for a running attempt whose client cannot reach its agent runtime
	Progress  Progress    `json:"progress"`
	Result    string      `json:"result,omitempty"`     // text of the agent's answer; the next four fields describe it
	Partial   bool        `json:"partial,omitempty"`    // Result is not a finished answer
	Reasoning bool        `json:"reasoning,omitempty"`  // Result is the agent's reasoning, because the agent wrote no answer
	Cut       bool        `json:"cut,omitempty"`        // Result is only the first 256 KiB, or 1 MiB if the session cannot be read
	Dropped   bool        `json:"dropped,omitempty"`    // Result was deleted because of a limit such as Config.RetainText
	OpenTodos int         `json:"open_todos,omitempty"` // number of todos that were open when the turn ended
	Notice    NoticeState `json:"notice,omitempty"`     // state of the notice that reports the end to the parent

	Questions []Question `json:"questions,omitempty"` // open questions of the agent, oldest first; see BackgroundManager.Answer

	Messages   int                 `json:"messages,omitempty"`   // number of messages waiting for their turns; see BackgroundManager.Send
	Unconsumed []UnconsumedMessage `json:"unconsumed,omitempty"` // messages that the attempt, which has ended, might not have received

	Budget   BudgetUse `json:"budget,omitzero"`    // budget of the task over all its attempts; zero if the task has none
	Attempts []Attempt `json:"attempts,omitempty"` // earlier attempts, oldest first; only the latest 20 are kept
}

// Duration returns how long the latest attempt has run: from its start to its end, or until now if
// the attempt is live. It returns 0 if the attempt has not started.
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

	Notice NoticeState `json:"notice,omitempty"` // state of the notice that reports this attempt's end
}

// QueuePlace is the place of a pending task in its pool's line. With Config.Slots, the source keeps
// the line, so the place is unknown and Place is 0.
type QueuePlace struct {
	Place int       `json:"place"` // position in the line, 1 for the next task; 0 if it is unknown or the task is too far back to count
	Pool  PoolStats `json:"pool"`
}

// Outage describes a period when the client of a running attempt cannot reach its agent
// runtime. If the outage begins before the turn, the start of the turn is delayed and the manager
// repeats it later (see [ErrUnreachable]). If it begins during the turn, the client cannot report
// the status of the session.
type Outage struct {
	Since  time.Time `json:"since"`            // when the attempt was first delayed, or when the session's status was last reported
	Until  time.Time `json:"until,omitzero"`   // when the attempt fails if the outage continues; zero if there is no time limit
	Reason string    `json:"reason,omitempty"` // the client's error, in one line
}

// Progress describes the work of an attempt. After the attempt ends, Progress keeps the last
// known values.
type Progress struct {
	Turns         int       `json:"turns"`      // number of turns begun
	ToolCalls     int       `json:"tool_calls"` // number of tool calls, each counted once
	LastTool      string    `json:"last_tool,omitempty"`
	LastMessage   string    `json:"last_message,omitempty"` // the last 200 bytes, at most, of the agent's latest text
	LastMessageAt time.Time `json:"last_message_at,omitzero"`
	LastActivity  time.Time `json:"last_activity,omitzero"` // time of the last change of any kind
	Detail        string    `json:"detail,omitempty"`       // one line: the agent's question, or the error after which the agent retries
	Todos         []Todo    `json:"todos,omitempty"`
	Usage         Usage     `json:"usage"`
}

// NoticeState is the state of the notice that reports the end of an attempt to the parent.
type NoticeState uint8

// The states of a notice. All states except NoticeNone and NoticeOwed are final.
const (
	NoticeNone      NoticeState = iota // there is no notice, because the attempt has not ended or was superseded
	NoticeOwed                         // the notice has not been delivered yet
	NoticeDelivered                    // the notice was handed to the host, or delivered in the parent's next turn
	NoticeRead                         // the parent has read the result instead
	NoticeTaken                        // the notice was taken with NextNotice or TakeNotice, or came with a tool's result
	NoticeWaived                       // the parent cancelled the task itself and needs no notice
	NoticeGivenUp                      // the parent no longer exists or could not be reached
)

var noticeStateNames = [...]string{"", "owed", "delivered", "read", "taken", "waived", "given up"}

// String returns the name of the state in lower case, or "" for NoticeNone.
func (s NoticeState) String() string { return enumName(noticeStateNames[:], uint8(s)) }

// Settled reports whether the state is final.
func (s NoticeState) Settled() bool { return s > NoticeOwed }

// MarshalText implements [encoding.TextMarshaler].
func (s NoticeState) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (s *NoticeState) UnmarshalText(b []byte) error {
	return enumOf(s, noticeStateNames[:], "state of a notice", b)
}

// Notice reports ended attempts to the parent of their tasks. One notice can cover several tasks.
type Notice struct {
	ID        string           `json:"id"`                  // id of the notice; unchanged when the delivery is repeated
	Session   string           `json:"session"`             // parent to which the notice is delivered
	Items     []NoticeItem     `json:"items"`               // attempts that have ended and were not reported before, oldest first
	Questions []NoticeQuestion `json:"questions,omitempty"` // questions that the parent can answer and that were not reported before; see Config.OptionalTools
	Batch     []NoticeItem     `json:"batch,omitempty"`     // if Closing is set: all attempts of the batch, including those that earlier notices reported
	Omitted   int              `json:"omitted,omitempty"`   // number of the batch's attempts that are missing from Batch
	Closing   bool             `json:"closing"`             // all tasks of the batch have ended
	Live      int              `json:"live"`                // number of the parent's tasks that are pending or running
	Text      string           `json:"text"`                // text of the notice for the parent's model
}

// NoticeQuestion describes a question in a [Notice].
type NoticeQuestion struct {
	Task        string   `json:"task"`
	Session     string   `json:"session,omitempty"`
	Description string   `json:"description"`
	Agent       string   `json:"agent"`
	Question    Question `json:"question"`
}

// NoticeItem describes one attempt that has ended, in a [Notice].
type NoticeItem struct {
	ID          string        `json:"id"` // id of the item; the same in every notice about this attempt
	Task        string        `json:"task"`
	Attempt     int           `json:"attempt"`
	Session     string        `json:"session,omitempty"`
	Description string        `json:"description"`
	Agent       string        `json:"agent"`
	Status      Status        `json:"status"`
	Cause       Cause         `json:"cause"`
	Reason      string        `json:"reason,omitempty"`
	Duration    time.Duration `json:"duration"`             // nanoseconds in JSON
	NoAnswer    bool          `json:"no_answer,omitempty"`  // the attempt completed with tool calls but without any text
	Unconsumed  int           `json:"unconsumed,omitempty"` // number of messages that the attempt might not have received
	Fallback    string        `json:"fallback,omitempty"`   // Task.Fallback of the task

	// Result is the beginning of the result, up to Config.NoticeResult bytes. Cut is true if the
	// result is longer.
	Result string `json:"result,omitempty"`
	Cut    bool   `json:"cut,omitempty"`
}

// Caller identifies the session on whose behalf a call is made. The host fills it in; no field may
// come from a model's arguments. The zero Caller is the host itself, which may do everything. The
// parent of a task that the zero Caller launches is "".
type Caller struct {
	Session    string // session or scope that makes the call
	ToolCallID string // id of the tool call, if there is one; with an id, a repeated call does not launch a second task
}

// LaunchInput describes the task to launch. Agent and Prompt are required.
type LaunchInput struct {
	Description string            // short title; if empty, the beginning of the prompt is the title
	Prompt      string            // instructions for the agent
	Agent       string            // name of the agent
	Model       string            // name of the model; empty means the agent's own model
	System      string            // system prompt for every turn of the task; must come from the host, not from a model
	Directory   string            // working directory; empty means the parent's directory
	Metadata    map[string]string // the host's own data; copied

	// Budget narrows the budget of the task. For each limit, the smallest of three values applies:
	// the limit in Budget, the limit in Config.TaskBudget, and the limit in the budget of the task
	// that launches this task.
	Budget Budget
	// TreeBudget narrows the budget that all tasks of the tree share. It applies until the tree's
	// account closes. See Config.TreeBudget.
	TreeBudget Budget
}

// ResumeInput describes how to continue a task that has ended. Prompt is required.
type ResumeInput struct {
	Prompt string
	Model  string // model from this attempt on; empty keeps the task's model
	// Budget replaces limits of the task's budget, which counts all attempts. A field that is 0
	// leaves the current limit unchanged. A limit may be raised, even above Config.TaskBudget.
	// However, if another task resumes the task, a higher value also leaves the current limit
	// unchanged.
	Budget Budget
}

// CancelOptions are the optional arguments of a cancellation.
type CancelOptions struct {
	Reason string // one line, which becomes the task's Reason
}

// WaitMode is the condition that [BackgroundManager.Wait] waits for.
type WaitMode uint8

// The modes of Wait.
const (
	WaitAll WaitMode = iota // wait until all of the tasks have ended
	WaitAny                 // wait until at least one of the tasks has ended
)

// Query selects tasks for [BackgroundManager.List]. The zero value selects all tasks.
type Query struct {
	Under  string   // only descendants of this session
	Parent string   // only tasks that this session itself launched
	Status []Status // only tasks with one of these statuses; empty means any status
	Limit  int      // maximum number of tasks; the most recently launched ones are selected; 0 means no limit
}

type callerKey struct{}

// WithCaller returns a context that carries the caller. [ToolDef.Call] needs a context with a
// caller. So do agents that run in the host's own process and call the tools themselves.
func WithCaller(ctx context.Context, c Caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

// CallerFrom returns the caller that ctx carries.
func CallerFrom(ctx context.Context) (Caller, bool) {
	c, ok := ctx.Value(callerKey{}).(Caller)
	return c, ok
}
