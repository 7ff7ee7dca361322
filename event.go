package bgagent

// EventKind says what an [Event] tells.
type EventKind uint8

// The kinds of events of a manager.
const (
	_              EventKind = iota
	EventLaunched            // a task was launched; it is pending
	EventResumed             // a new attempt of an ended task is pending
	EventStarted             // pending became running
	EventPhase               // the phase of a running attempt changed, or its session became known
	EventProgress            // something of Task.Progress changed; several changes may be one event
	EventEnded               // the attempt ended; exactly one for each attempt
	EventQuiet               // nothing of the ended attempt runs any more
	EventOverLimit           // its session did not stop in time and its slot went to the next one
	EventNotice              // Task.Notice became final
	EventExpired             // the record was dropped by retention
	EventMissed              // the subscriber was too slow; Missed events are lost
)

var eventKindNames = [...]string{"none", "launched", "resumed", "started", "phase", "progress", "ended", "quiet", "over limit", "notice", "expired", "missed"}

// String returns the name of the kind in lower case.
func (k EventKind) String() string { return enumName(eventKindNames[:], uint8(k)) }

// MarshalText implements [encoding.TextMarshaler].
func (k EventKind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// Event tells a subscriber what happened. Task is the task as it was right
// after it.
type Event struct {
	Seq    uint64    `json:"seq"` // grows by one for every event of the manager
	Kind   EventKind `json:"kind"`
	Task   Task      `json:"task"`
	Missed uint64    `json:"missed,omitempty"` // with EventMissed
}
