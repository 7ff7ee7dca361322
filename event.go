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
	m      *BackgroundManager
	waiter waiter

	// Guarded by the manager's lock.
	buf    []Event // what has not been read, oldest first
	max    int
	missed uint64
	closed bool
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
	s := &Subscription{m: m, waiter: newWaiter(), max: buffer}
	var tasks []Task
	m.view(func(st *state) {
		all := make([]*task, 0, len(st.tasks))
		for _, t := range st.tasks {
			all = append(all, t)
		}
		slices.SortFunc(all, byLaunch)
		tasks = make([]Task, len(all))
		for i, t := range all {
			tasks[i] = st.snapshot(t)
		}
		if st.closed {
			s.closed = true
		} else {
			st.subs = append(st.subs, s)
		}
	})
	return tasks, s
}

// put adds an event to what has not been read. With the lock held.
func (s *Subscription) put(e Event) {
	if len(s.buf) >= s.max {
		s.buf[0] = Event{}
		s.buf = s.buf[1:]
		s.missed++
	}
	s.buf = append(s.buf, e)
}

// next takes the next event out of what has not been read. With the lock held.
func (s *Subscription) next() (e Event, ok bool) {
	switch {
	case s.missed > 0:
		e = Event{Kind: EventMissed, Missed: s.missed}
		if len(s.buf) > 0 {
			e.Seq = s.buf[0].Seq - 1
		}
		s.missed = 0
		return e, true
	case len(s.buf) > 0:
		e, s.buf[0] = s.buf[0], Event{}
		if s.buf = s.buf[1:]; len(s.buf) == 0 {
			s.buf = nil
		}
		return e, true
	default:
		return e, false
	}
}

// Next returns the next event. It waits for one until ctx ends, and returns
// [io.EOF] once the subscription or the manager has been closed and everything
// has been read. One goroutine at a time may call it.
func (s *Subscription) Next(ctx context.Context) (Event, error) {
	for {
		var e Event
		var ok, ended bool
		s.m.view(func(*state) {
			if e, ok = s.next(); !ok {
				ended = s.closed
			}
		})
		switch {
		case ok:
			return e, nil
		case ended:
			return Event{}, io.EOF
		}
		if err := waitFor(ctx, s.waiter.ch, -1); err != nil {
			return Event{}, err
		}
	}
}

// Close ends the subscription. What has not been read is lost.
func (s *Subscription) Close() {
	s.m.update(func(st *state, _ int64) {
		st.subs = slices.DeleteFunc(st.subs, func(x *Subscription) bool { return x == s })
		s.buf, s.missed = nil, 0
		s.closed = true
		st.fx.wakes.add(&s.waiter)
	})
}
