package bgagent

import (
	"context"
	"io"
	"iter"
	"slices"
)

// EventKind is the kind of change that an [Event] reports.
type EventKind uint8

// The kinds of events that a manager sends.
const (
	_                 EventKind = iota
	EventLaunched               // a task was launched; it is pending
	EventResumed                // a task that had ended was resumed; its new attempt is pending
	EventStarted                // a pending attempt became running
	EventPhase                  // the phase of a running attempt changed, or its session became known
	EventProgress               // Task.Progress or the text so far changed; one event can cover several changes within 100 ms
	EventEnded                  // the attempt ended; each attempt has exactly one event of the kind EventEnded or EventSuperseded
	EventQuiet                  // everything that the ended attempt started has stopped
	EventOverLimit              // the session of an ended attempt did not stop in time; its slot went to the next task
	EventNotice                 // Task.Notice became final
	EventExpired                // the record of the task was dropped by retention or by Forget
	EventStoreTrouble           // writes to the store have failed for Config.StoreTimeout, the store is lost, or the store refuses the record of Task; the log contains the error
	EventSuperseded             // a new attempt of the task replaced the attempt; no EventEnded follows for the replaced attempt
	EventBudget                 // 80 % of a budget's limit is used; the field Budget contains the limit
	EventMessage                // a message for the task was accepted or withdrawn, or a turn has received it; see Task.Messages
	EventQuestion               // the agent asks a question, or a question was answered, has expired or is no longer asked; the field Question contains it
	EventMissed                 // the subscriber was too slow; the field Missed contains the number of lost events
)

var eventKindNames = [...]string{"none", "launched", "resumed", "started", "phase", "progress", "ended", "quiet", "over limit", "notice", "expired", "store trouble", "superseded", "budget", "message", "question", "missed"}

// String returns the name of the kind in lower case, such as "over limit".
func (k EventKind) String() string { return enumName(eventKindNames[:], uint8(k)) }

// MarshalText implements [encoding.TextMarshaler].
func (k EventKind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (k *EventKind) UnmarshalText(b []byte) error {
	return enumOf(k, eventKindNames[:], "kind of event", b)
}

// Event reports one change to a subscriber. The field Task is a snapshot of the task, taken right
// after the change.
type Event struct {
	Seq    uint64    `json:"seq"` // number of the event; each event of the manager gets the next number
	Kind   EventKind `json:"kind"`
	Task   Task      `json:"task"`
	Missed uint64    `json:"missed,omitempty"` // number of lost events; only for EventMissed

	Budget   *BudgetLimit `json:"budget,omitempty"`   // the limit; only for EventBudget
	Question *Question    `json:"question,omitempty"` // the question after the change; only for EventQuestion
}

// Subscription is a stream of events. [BackgroundManager.Subscribe] creates it.
type Subscription struct {
	m      *BackgroundManager
	waiter waiter

	// The manager's lock guards the following fields.
	buf    []Event // unread events, oldest first
	max    int
	missed uint64
	closed bool
}

// Subscribe returns all current tasks in launch order, and a subscription to all later events. No
// event is lost between the two. buffer is the maximum number of unread events that the
// subscription holds. If buffer is not positive, the maximum is 256. If more events arrive, the
// oldest unread events are lost, and an [EventMissed] reports their number. Call Close on the
// subscription when it is no longer needed.
func (m *BackgroundManager) Subscribe(buffer int) ([]Task, *Subscription) {
	if buffer <= 0 {
		buffer = 256
	}
	s := &Subscription{m: m, waiter: newWaiter(), max: buffer}
	var tasks []Task
	m.update(func(st *state, _ int64) {
		all := make([]*task, 0, len(st.tasks))
		for _, t := range st.tasks {
			if st.shows(t) {
				all = append(all, t)
			}
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

// The method "put" adds an unread event. The manager's lock must be held.
func (s *Subscription) put(e Event) {
	if len(s.buf) >= s.max {
		s.buf[0] = Event{}
		s.buf = s.buf[1:]
		s.missed++
	}
	s.buf = append(s.buf, e)
}

// The method "next" removes and returns the oldest unread event. If events were lost, it first returns
// an EventMissed. The manager's lock must be held.
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

// Next returns the next event. If there is none, it waits for one. If ctx ends first, Next returns
// the context's error. Next returns [io.EOF] once the subscription or the manager is closed and
// all events are read. Next must not be called concurrently.
func (s *Subscription) Next(ctx context.Context) (Event, error) {
	for {
		var e Event
		var ok, ended bool
		s.m.update(func(*state, int64) {
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

// Events returns an iterator over the events that Next returns. The loop ends when the subscription or the
// manager is closed and all events are read, or when ctx ends and no event is unread.
//
// While the body of the loop runs, events wait in the buffer of the subscription. A loop that is
// too slow loses the oldest of them and gets an [EventMissed]; it does not delay the manager or
// other subscribers. If the loop ends early, the subscription stays open, and a later loop
// continues with the next event, so Close is still needed. Only one loop may run at a time.
func (s *Subscription) Events(ctx context.Context) iter.Seq[Event] {
	return func(yield func(Event) bool) {
		for {
			e, err := s.Next(ctx)
			if err != nil || !yield(e) {
				return
			}
		}
	}
}

// Close ends the subscription. Unread events are lost.
func (s *Subscription) Close() {
	s.m.update(func(st *state, _ int64) {
		st.subs = slices.DeleteFunc(st.subs, func(x *Subscription) bool { return x == s })
		s.buf, s.missed = nil, 0
		s.closed = true
		st.fx.after.wakes.add(&s.waiter)
	})
}
