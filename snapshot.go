package bgagent

import (
	"maps"
	"slices"
	"time"
)

// Task is a copy of what is known of one task at one moment. The fields from
// Status on speak of its latest attempt; see Attempts for the earlier ones.
type Task struct {
	ID          string            `json:"id"`
	Session     string            `json:"session,omitempty"` // the child session; empty until it has been created
	Parent      string            `json:"parent,omitempty"`  // session, or name of a scope, that delegated and is told of the end
	Root        string            `json:"root,omitempty"`    // first session of the chain of parents
	Depth       int               `json:"depth"`             // when it was launched; 1 for a task of a root session
	Description string            `json:"description"`
	Agent       string            `json:"agent"`
	Model       string            `json:"model,omitempty"` // as Config.Model resolved it; empty means the agent's own
	Prompt      string            `json:"prompt"`          // of the latest attempt
	ToolCallID  string            `json:"tool_call_id,omitempty"`
	Client      string            `json:"client,omitempty"` // name of the session client; empty for the one given to New
	Metadata    map[string]string `json:"metadata,omitempty"`

	Status     Status    `json:"status"`
	Cause      Cause     `json:"cause,omitempty"` // why the attempt ended
	Phase      Phase     `json:"phase,omitempty"` // of a running attempt, and of an ended one that is still being stopped
	Reason     string    `json:"reason,omitempty"`
	Attempt    int       `json:"attempt"`              // number of the latest attempt, from 1
	Queued     time.Time `json:"queued"`               // when the attempt was launched or resumed
	Started    time.Time `json:"started,omitzero"`     // zero while pending
	Ended      time.Time `json:"ended,omitzero"`       // zero while live
	Quiet      bool      `json:"quiet"`                // ended, and nothing of it runs any more
	Waiting    int       `json:"waiting"`              // own tasks that have not ended
	Foreground bool      `json:"foreground,omitempty"` // somebody waits for it in Run

	Queue     *QueuePlace `json:"queue,omitempty"` // of a pending attempt that waits for a slot
	Progress  Progress    `json:"progress"`
	Result    string      `json:"result,omitempty"`     // the agent's text
	Partial   bool        `json:"partial,omitempty"`    // Result is not a finished answer
	Cut       bool        `json:"cut,omitempty"`        // Result is only the first 256 KiB, or 1 MiB where the session cannot be read
	Dropped   bool        `json:"dropped,omitempty"`    // Result has been dropped by retention
	OpenTodos int         `json:"open_todos,omitempty"` // todos left open when it completed
	Notice    NoticeState `json:"notice,omitempty"`     // whether the parent has been told of the end

	Attempts []Attempt `json:"attempts,omitempty"` // earlier attempts, oldest first; at most the last 20
}

// Duration returns how long the latest attempt has run: from its start to its
// end, or to now. It is zero for an attempt that has not started.
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
}

// QueuePlace is the place of a pending task in its pool's line.
type QueuePlace struct {
	Place int       `json:"place"` // 1 is next; 0 when it is further back than was counted
	Pool  PoolStats `json:"pool"`
}

// Progress is what has become known of a running attempt, and what was last
// known of one that has ended.
type Progress struct {
	Turns         int       `json:"turns"`      // turns begun
	ToolCalls     int       `json:"tool_calls"` // each call counted once
	LastTool      string    `json:"last_tool,omitempty"`
	LastMessage   string    `json:"last_message,omitempty"` // end of the last text, at most 200 bytes
	LastMessageAt time.Time `json:"last_message_at,omitzero"`
	LastActivity  time.Time `json:"last_activity,omitzero"` // last change of anything, not last look
	Detail        string    `json:"detail,omitempty"`       // what is asked or retried, in one line
	Todos         []Todo    `json:"todos,omitempty"`
	Usage         Usage     `json:"usage"`
}

// NoticeState says what has become of the notice that the end of an attempt
// owes to the parent.
type NoticeState uint8

// The states of a notice. All but the first two are final.
const (
	NoticeNone      NoticeState = iota // the attempt has not ended
	NoticeOwed                         // not told yet
	NoticeDelivered                    // handed to the host, or told as the parent's next turn
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

// Notice tells a parent session what has ended. One notice may speak of several
// tasks.
type Notice struct {
	ID      string       `json:"id"`                // never changes, however often it is delivered
	Session string       `json:"session"`           // the parent that it is for
	Items   []NoticeItem `json:"items"`             // what ended and has not been told, oldest first
	Batch   []NoticeItem `json:"batch,omitempty"`   // closing notices: everything of the batch, told before or not
	Omitted int          `json:"omitted,omitempty"` // members of the batch that Batch leaves out
	Closing bool         `json:"closing"`           // nothing of the batch is live any more
	Live    int          `json:"live"`              // tasks of the parent that are still pending or running
	Text    string       `json:"text"`              // what the parent's model should read
}

// NoticeItem speaks of the end of one attempt.
type NoticeItem struct {
	ID          string        `json:"id"` // of this end; never changes
	Task        string        `json:"task"`
	Attempt     int           `json:"attempt"`
	Session     string        `json:"session,omitempty"`
	Description string        `json:"description"`
	Agent       string        `json:"agent"`
	Status      Status        `json:"status"`
	Cause       Cause         `json:"cause"`
	Reason      string        `json:"reason,omitempty"`
	Duration    time.Duration `json:"duration"` // nanoseconds in JSON
}

// Caller says on whose behalf a call is made. The host fills it in; nothing in
// it may come from a model's arguments. The zero Caller is the host itself and
// may do everything; the parent of what it launches is the session "".
type Caller struct {
	Session    string // session, or name of a scope, that asks
	ToolCallID string // id of the tool call, if there is one: makes a launch that is tried again harmless
}

// LaunchInput is what a task is launched with. Agent and Prompt are required.
type LaunchInput struct {
	Description string            // a short title; the beginning of the prompt when empty
	Prompt      string            // what the agent is to do
	Agent       string            // which agent does it
	Model       string            // which model; empty for the agent's own
	System      string            // system text for every turn of the task; the host's, not the model's
	Directory   string            // working directory; empty for the parent's
	Metadata    map[string]string // the host's own; copied
}

// ResumeInput is what an ended task is continued with. Prompt is required.
type ResumeInput struct {
	Prompt string
	Model  string // another model from now on; empty keeps the task's
}

// CancelOptions says how to cancel.
type CancelOptions struct {
	Reason string // one line, kept as the task's reason
}

// WaitMode says what Wait waits for.
type WaitMode uint8

// The modes of Wait.
const (
	WaitAll WaitMode = iota // every one of the tasks has ended
	WaitAny                 // at least one of the tasks has ended
)

// Query selects tasks for List. The zero value selects all.
type Query struct {
	Under  string   // only tasks that descend from this session
	Parent string   // only direct tasks of this session
	Status []Status // only in one of these states
	Limit  int      // at most so many, the latest launched; 0 for all
}

// snapshot copies a task. The lock must be held.
func (m *BackgroundManager) snapshotLocked(t *task) Task {
	s := Task{
		ID: t.id(), Parent: t.up.session, Description: t.title, Agent: t.kind.key.agent, Model: t.kind.key.model,
		Prompt: t.text, ToolCallID: t.call, Client: t.kind.cl.name, Depth: t.kind.key.depth,
		Status: t.status, Cause: t.cause, Attempt: int(t.no), Queued: m.wall(t.queued),
		Notice: t.notice, Foreground: t.is(flagForeground), Dropped: t.is(flagDropped),
	}
	root, _ := t.up.root()
	s.Root = root.session
	if t.sess != nil {
		s.Session = t.sess.id
		if t.sess.own != nil {
			s.Waiting = t.sess.own.live
		}
	}
	if x := t.more; x != nil {
		s.Metadata = maps.Clone(x.metadata)
		s.Attempts = slices.Clone(x.past)
	}
	if a := t.run; a != nil && a.no == t.no {
		s.Phase = a.phase
		s.Started = m.wall(a.started)
		if t.live() {
			s.Progress = m.progressLocked(&a.w.prog, int(a.turn), a.activity)
			s.Result, s.Partial = a.text, a.text != ""
			if a.text == "" && a.w.text != "" {
				s.Result, s.Partial = a.w.text, true
			}
		}
	}
	if f := t.fin; f != nil && !t.live() {
		s.Started, s.Ended = m.wall(f.started), m.wall(f.ended)
		s.Reason, s.Result, s.Partial, s.Cut, s.OpenTodos = f.reason, f.result, f.partial, f.cut, int(f.todos)
		s.Quiet = t.run == nil
		if f.prog != nil {
			s.Progress = m.progressLocked(f.prog, int(f.turns), f.activity)
		} else {
			s.Progress.Turns, s.Progress.LastActivity = int(f.turns), m.wall(f.activity)
		}
	}
	return s
}

func (m *BackgroundManager) progressLocked(p *progress, turns int, activity int64) Progress {
	return Progress{
		Turns: turns, ToolCalls: p.toolCalls, LastTool: p.lastTool, LastMessage: p.lastText, LastMessageAt: m.wall(p.lastTextA),
		LastActivity: m.wall(activity), Detail: p.detail, Todos: slices.Clone(p.todos), Usage: p.usage,
	}
}

// wall turns a time of the state into one for callers.
func (m *BackgroundManager) wall(at int64) time.Time {
	if at == 0 {
		return time.Time{}
	}
	return m.epoch.Add(time.Duration(at))
}
