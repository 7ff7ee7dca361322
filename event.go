package bgagent

import (
	"context"
	"io"
	"slices"
)

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

// UnmarshalText implements [encoding.TextUnmarshaler].
func (k *EventKind) UnmarshalText(b []byte) error {
	return enumOf(k, eventKindNames[:], "kind of event", b)
}

// Event tells a subscriber what happened. Task is the task as it was right
// after it.
type Event struct {
	Seq    uint64    `json:"seq"` // grows by one for every event of the manager
	Kind   EventKind `json:"kind"`
	Task   Task      `json:"task"`
	Missed uint64    `json:"missed,omitempty"` // with EventMissed
}

// Subscription is a stream of events, made by [BackgroundManager.Subscribe].
type Subscription struct {
	m    *BackgroundManager
	wake chan struct{}

	// Guarded by BackgroundManager.mu.
	buf    []Event // what has not been read, oldest first
	max    int
	missed uint64
	ended  bool
}

// Subscribe returns all tasks as they are now, in the order of their launch, and
// a subscription to every event after that, without a gap between the two. At
// most buffer events (256 if it is not positive) wait to be read; when there are
// more the oldest are lost and the subscriber is told how many. Close it in the
// end.
func (m *BackgroundManager) Subscribe(buffer int) ([]Task, *Subscription) {
	if buffer <= 0 {
		buffer = 256
	}
	s := &Subscription{m: m, wake: make(chan struct{}, 1), max: buffer}
	m.mu.Lock()
	defer m.mu.Unlock()
	all := make([]*task, 0, len(m.tasks))
	for _, t := range m.tasks {
		all = append(all, t)
	}
	slices.SortFunc(all, byLaunch)
	tasks := make([]Task, len(all))
	for i, t := range all {
		tasks[i] = m.snapshotLocked(t)
	}
	if m.isClosed() && m.timerOff {
		s.ended = true
	} else {
		m.subs = append(m.subs, s)
	}
	return tasks, s
}

// Next returns the next event. It waits for one until ctx ends, and returns
// [io.EOF] once the subscription or the manager has been closed and everything
// has been read. One goroutine at a time may call it.
func (s *Subscription) Next(ctx context.Context) (Event, error) {
	for {
		s.m.mu.Lock()
		if s.missed > 0 {
			e := Event{Kind: EventMissed, Missed: s.missed}
			if len(s.buf) > 0 {
				e.Seq = s.buf[0].Seq - 1
			}
			s.missed = 0
			s.m.mu.Unlock()
			return e, nil
		}
		if len(s.buf) > 0 {
			e := s.buf[0]
			s.buf[0] = Event{}
			if s.buf = s.buf[1:]; len(s.buf) == 0 {
				s.buf = nil
			}
			s.m.mu.Unlock()
			return e, nil
		}
		ended := s.ended
		s.m.mu.Unlock()
		if ended {
			return Event{}, io.EOF
		}
		if err := waitFor(ctx, s.wake, -1); err != nil {
			return Event{}, err
		}
	}
}

// Close ends the subscription. What has not been read is lost.
func (s *Subscription) Close() {
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	s.m.subs = slices.DeleteFunc(s.m.subs, func(x *Subscription) bool { return x == s })
	s.buf, s.missed = nil, 0
	s.endLocked()
}

func (s *Subscription) endLocked() {
	s.ended = true
	s.poke()
}

func (s *Subscription) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// emitLocked tells every subscriber.
func (m *BackgroundManager) emitLocked(kind EventKind, t *task) {
	m.seq++
	if len(m.subs) == 0 {
		return
	}
	for _, s := range m.subs {
		e := Event{Seq: m.seq, Kind: kind, Task: m.snapshotLocked(t)} // its own, as it holds maps and slices
		if len(s.buf) >= s.max {
			s.buf[0] = Event{}
			s.buf = s.buf[1:]
			s.missed++
		}
		s.buf = append(s.buf, e)
		s.poke()
	}
}
