package bgagent

// Status is the state of a task's latest attempt.
type Status uint8

// The states. Pending is the first; the last three are final for their attempt.
const (
	Pending   Status = iota // waits for a slot
	Running                 // has a session, or is getting one
	Completed               // the agent ended its turn by itself, with an answer
	Failed                  // could not start, broke off, or gave no whole answer
	Cancelled               // somebody or a limit ended it
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

// The phases. PhaseStopping also stands at an attempt that has ended and whose
// session is still being stopped.
const (
	PhaseNone     Phase = iota
	PhaseStarting       // its session is being made or its prompt handed over
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

// The causes, by the status they lead to.
const (
	CauseNone Cause = iota

	// Completed.
	CauseTurnEnded // a runner's turn returned
	CauseIdle      // the session fell idle after an answer
	CauseStable    // nothing changed for so many polls, where idle cannot be told

	// Cancelled.
	CauseCaller          // the session that delegated, or one above it, cancelled it
	CauseHost            // the host cancelled it
	CauseAgentWindow     // somebody stopped it in the agent's own window
	CauseParentEnded     // the task that launched it ended without completing, or its session is gone
	CauseTimeToLive      // it was in turns for too long
	CauseQueueTimeToLive // it waited for a slot for too long
	CauseStale           // nothing changed for too long
	CauseSessionDeleted  // its session was deleted
	CauseClosed          // the manager was closed

	// Failed.
	CauseStartFailed     // no session could be made
	CausePromptFailed    // the session did not take the prompt
	CauseSessionError    // the agent failed
	CauseInterrupted     // the turn broke off
	CauseNoOutput        // the turn ended without any output
	CauseLength          // the model's output limit cut the answer off
	CauseTurnLimit       // the runtime's limit of steps
	CauseRefused         // the model refused
	CauseSessionGone     // the session does not exist any more
	CauseHostUnreachable // the agent runtime did not answer for too long
	CauseNotStopped      // the earlier attempt's session did not stop
	CauseNoAnswer        // the agent wrote nothing that can be seen, and called no tool
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

// Status returns the state that an attempt which ended for this cause is in,
// and Pending for CauseNone.
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
