package bgagent

import (
	"slices"
	"time"
)

// The code in this file handles clients' reports about model providers. Providers report
// wall-clock times. The state knows only the manager's clock, which does not advance while the
// machine sleeps. Therefore, this code adds a reading of that clock to every reported time.

const (
	resetMost = 366 * 24 * time.Hour // maximum time until a provider accepts requests again; anything longer is a mistake
	triesMost = 1_000_000            // maximum number of requests; anything larger is a mistake
)

// onClock returns the time t with a reading of the monotonic clock. The state compares this reading
// with its own times; see state.providerTime. If t is more than resetMost away, onClock returns zero.
func onClock(t time.Time) time.Time {
	now := time.Now()
	return onClockAt(t, now.Round(0), now)
}

// onClockAt is like onClock, but gets the current time from the caller, with a reading of the
// monotonic clock as "now" and without one as "wall".
func onClockAt(t, wall, now time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	d := t.Round(0).Sub(wall) // difference of the wall times, because Round strips the monotonic reading that t might have
	if d > resetMost || d < -resetMost {
		return time.Time{}
	}
	return now.Add(d)
}

// The method "received" returns a copy of the error that the state can use. An impossible number of
// requests is replaced with the nearest possible number, and an impossible HTTP status with 0. The
// copy of nil is nil.
func (e *ProviderError) received() *ProviderError {
	if e = e.clone(); e != nil {
		e.RetryAt = onClock(e.RetryAt)
		e.Tries = min(max(e.Tries, 0), triesMost)
		if e.Status < 100 || e.Status > 999 {
			e.Status = 0
		}
	}
	return e
}

// The method "received" returns a copy of the status, with [onClock] applied to its time and
// [ProviderError.received] applied to its error.
func (s SessionStatus) received() SessionStatus {
	s.RetryAt, s.Provider = onClock(s.RetryAt), s.Provider.received()
	return s
}

// The method "received" returns a copy of the message whose provider error has been changed by
// [ProviderError.received]. It returns m itself if the message has no provider error.
func (m *Message) received() *Message {
	if m == nil || m.Provider == nil {
		return m
	}
	copied := *m
	copied.Provider = m.Provider.received()
	return &copied
}

// The method "received" returns the page with the messages that [Message.received] returns. The
// messages in the client's page stay as they are.
func (p Page) received() Page {
	own := false
	for i := range p.Messages {
		if p.Messages[i].Provider == nil {
			continue
		}
		if !own {
			p.Messages, own = append([]Message(nil), p.Messages...), true
		}
		p.Messages[i] = *p.Messages[i].received()
	}
	return p
}

// The method "received" returns the event with some fields replaced. The status, the message and the
// provider error are replaced with the results of their own methods "received". The time at which
// each question expires is replaced with the result of [onClock].
func (e HostEvent) received() HostEvent {
	e.Status, e.Message, e.Provider = e.Status.received(), e.Message.received(), e.Provider.received()
	e.Questions = slices.Clone(e.Questions)
	for i := range e.Questions {
		e.Questions[i].Expires = onClock(e.Questions[i].Expires)
	}
	return e
}

// The method "received" returns the report with the changes that [onClock] and
// [ProviderError.received] make to its time and its error.
func (x Report) received() Report {
	x.Provider, x.RetryAt = x.Provider.received(), onClock(x.RetryAt)
	return x
}
