package bgagent

import "time"

// The code in this file decides whether a turn is over, based on polls and events. The goroutines
// that poll are in host_poll.go, and state_poll.go carries out the verdicts.

// thresholds holds the limits that the function "judge" applies: durations, in nanoseconds, and a
// number of polls.
type thresholds struct {
	minIdle     int64
	minStable   int64
	stablePolls int
	todoHold    int64
	stale       int64 // 0 disables the check
	gone        int64
	unreachable int64 // 0 disables the check
	park        int64 // longest wait for a retry that the session has announced
}

// counters holds the values that the function "judge" keeps from one observation of a turn to the
// next.
type counters struct {
	began     int64     // when the turn began
	changed   int64     // time of the last change of any kind
	blind     int64     // start of the current series of incomplete observations; 0 if the last observation was complete
	blindTime int64     // total duration of the series of incomplete observations since the last change
	retryAt   int64     // time of the session's next or latest retry
	retryTold time.Time // retryAt on the wall clock, as the client reported it
	finger    uint64
	state     SessionState
	detail    string
	stable    int // number of consecutive polls without a change
	empty     int // number of consecutive idle polls without any output
	broken    int // number of consecutive idle polls with an unfinished message
	gone      int // number of consecutive polls that reported that the session does not exist
	goneSince int64
	todoSince int64 // when open todos began to delay the end of the turn; 0 if they do not delay it
	unread    int64 // when the messages became unreadable; 0 if they can be read
}

// The method "change" records that the session has changed, and resets the blind time.
func (c *counters) change(now int64) { c.changed, c.blindTime = now, 0 }

// observation holds the data from one poll or event about a session in a turn.
type observation struct {
	status   SessionStatus
	answered bool  // a status call or an event reported the status
	at       int64 // when the status was reported; 0 means now
	poll     bool  // the observation comes from a poll, not from an event
	read     bool  // the field "view" contains all messages up to the time of the status
	failed   bool  // the messages could not be read
	afresh   bool  // only if "failed" is set: the messages could not be read from the beginning either
	why      string
	view     turn
	flying   int // number of tool calls in flight
	hint     *hint
	trust    bool  // the hint certainly belongs to this turn
	todos    int32 // number of open todos; -1 if the number is currently unknown
	lastly   int32 // last known number of open todos
	retryAt  int64

	// The field "foreign" is true if the turn began in an earlier process. If the server ended at
	// the same time as that process, the session is idle, and the agent's message might be missing.
	foreign bool
	asks    bool // the agent waits for the answer to a question
}

// The method "marked" reports whether the newest message is finished and has a stop reason that
// ends the turn.
func (v *turn) marked() bool {
	return v.begun && v.finished && v.stop != StopUntold && v.stop != StopToolCalls
}

// The method "whole" reports whether the newest message is complete: it is finished, it did not end
// with tool calls, and no tool call is in flight.
func (o *observation) whole() bool {
	return o.view.finished && o.view.stop != StopToolCalls && o.flying == 0
}

// verdict is the result of judging an observation.
type verdict struct {
	end       bool
	cause     Cause
	reason    string
	provider  *ProviderError // set if the turn ended because the model provider refused a request
	running   bool           // the session is not at rest and must be stopped
	needTodos bool           // the todos must be read before the turn can be judged
	dropHint  bool           // the hint must be dropped, because the error in it did not end the turn
	todos     int32          // number of todos left open
	lookAt    int64          // time by which the session must be polled again; 0 means that the next sweep is early enough
}

// judge decides whether a turn is over. It is a pure function: it returns the new counters, which
// the caller passes to the next call, and the verdict. An observation without a status does not
// decide anything.
func judge(c counters, o observation, th thresholds, now int64) (counters, verdict) {
	if !o.answered || o.status.State == SessionUnknown || o.status.State > SessionUntold {
		if c.blind == 0 {
			c.blind = now
		}
		return c, verdict{}
	}
	switch {
	case o.failed && c.unread == 0:
		c.unread = now
	case o.read:
		c.unread = 0
	}
	if o.failed && c.blind == 0 {
		c.blind = now
	}
	if o.read && c.blind > 0 { // changes during the blind time might have gone unnoticed
		c.blindTime += now - max(c.blind, c.changed)
		c.blind = 0
	}
	changed := o.read && o.view.finger != c.finger
	if changed || o.status.State != c.state || o.status.Detail != c.detail || !o.status.RetryAt.Round(0).Equal(c.retryTold) {
		c.change(now)
	}
	if o.read {
		c.finger = o.view.finger
	}
	c.state, c.detail, c.retryAt, c.retryTold = o.status.State, o.status.Detail, o.retryAt, o.status.RetryAt.Round(0)
	if c.state != SessionGone {
		c.gone, c.goneSince = 0, 0
	}
	if o.failed && th.unreachable > 0 && o.hint == nil && (c.state == SessionIdle || c.state == SessionUntold) {
		return judgeUnread(c, o, th, now)
	}
	switch c.state {
	case SessionIdle:
		return judgeIdle(c, o, th, now)
	case SessionUntold:
		return judgeUntold(c, o, changed, th, now)
	case SessionGone:
		return judgeGone(c, o, th, now)
	default:
		c.stable, c.empty, c.broken, c.todoSince = 0, 0, 0, 0
		v := judgeStale(c, o, th, now)
		v.dropHint = o.hint != nil && now-o.hint.at >= hintMax
		return c, v
	}
}

// hintMax is how long a session can stay busy after an error has ended its turn. If the session
// stays busy longer, the error belongs to an earlier turn, or the agent has recovered from it.
const hintMax = int64(5 * time.Second)

// stopCause returns the cause and the reason text for an attempt whose turn ended with the stop
// reason r. It must not be called for a stop reason that completes the attempt.
func stopCause(r StopReason, detail string) (Cause, string) {
	cause := CauseSessionError
	switch r {
	case StopLength:
		cause = CauseLength
	case StopTurnLimit:
		cause = CauseTurnLimit
	case StopRefused:
		cause = CauseRefused
	case StopAborted:
		cause = CauseAgentWindow
	case StopInterrupted, StopToolCalls:
		cause = CauseInterrupted
	case StopTooLong:
		cause = CauseTooLong
	}
	return cause, reasonStopped(r, detail)
}

// judgeIdle judges a session that is not in a turn.
func judgeIdle(c counters, o observation, th thresholds, now int64) (counters, verdict) {
	v := &o.view
	if !o.read {
		return c, verdict{}
	}
	at := o.at
	if at == 0 {
		at = now
	}
	early := at-c.began < th.minIdle
	whole, marked := o.whole(), v.marked()
	count := func(n *int) bool { // counts a poll and reports whether enough polls have been counted
		if o.poll {
			*n++
		}
		return *n >= th.stablePolls
	}
	if v.output {
		c.empty = 0
	}
	if !v.begun || whole {
		c.broken = 0
	}
	switch {
	case marked && v.stop != StopEndOfTurn:
		cause, reason := stopCause(v.stop, v.err)
		return c, verdict{end: true, cause: cause, reason: reason, provider: v.provider}
	case marked && v.output && o.flying == 0:
		return judgeTodos(c, o, CauseIdle, th, now)
	case o.hint != nil && (o.trust || !early && o.hint.finger == v.finger): // if the fingerprint has changed, the agent continued after the error
		cause, reason := stopCause(o.hint.stop, o.hint.err)
		return c, verdict{end: true, cause: cause, reason: reason, provider: o.hint.provider}
	case early:
		return c, verdict{lookAt: c.began + th.minIdle}
	case !v.output:
		if now-c.began < th.minStable {
			c.empty = 0
		} else if count(&c.empty) && o.foreign && !marked {
			return c, verdict{end: true, cause: CauseInterrupted, reason: reasonBrokeOff}
		} else if c.empty >= th.stablePolls {
			return c, verdict{end: true, cause: CauseNoOutput} // state.finish adds the reason text
		}
		return c, verdict{}
	case !whole:
		// A second poll must confirm that the message is unfinished, because the last message can
		// be written a moment after the session becomes idle.
		if o.poll {
			c.broken++
		}
		if c.broken >= 2 {
			reason := reasonBrokeOff
			if v.finished {
				reason = reasonNoLastWord
			}
			return c, verdict{end: true, cause: CauseInterrupted, reason: reason}
		}
		return c, verdict{}
	default:
		return judgeTodos(c, o, CauseIdle, th, now)
	}
}

// judgeUnread judges a session whose messages cannot be read. The function "judge" calls it only
// for a session that might be idle. A busy session can continue to work while its messages cannot be
// read.
func judgeUnread(c counters, o observation, th thresholds, now int64) (counters, verdict) {
	end := c.unread + th.unreachable
	if now < end || !o.afresh {
		return c, verdict{lookAt: max(end, now+int64(time.Second))}
	}
	return c, verdict{end: true, cause: CauseHostUnreachable, reason: reasonUnread(time.Duration(th.unreachable), o.why), running: c.state == SessionUntold}
}

// judgeUntold judges a session whose client can never report its status.
func judgeUntold(c counters, o observation, changed bool, th thresholds, now int64) (counters, verdict) {
	v := &o.view
	if o.read && v.marked() && v.stop != StopEndOfTurn {
		cause, reason := stopCause(v.stop, v.err)
		return c, verdict{end: true, cause: cause, reason: reason, provider: v.provider}
	}
	if o.hint != nil && (o.trust || now-c.began >= th.minIdle) {
		cause, reason := stopCause(o.hint.stop, o.hint.err)
		return c, verdict{end: true, cause: cause, reason: reason, provider: o.hint.provider, running: true}
	}
	switch {
	case changed || now-c.began < th.minStable:
		c.stable, c.todoSince = 0, 0
	case o.poll && o.read:
		c.stable++
	}
	if o.read && c.stable >= th.stablePolls && v.output && o.whole() {
		return judgeTodos(c, o, CauseStable, th, now)
	}
	return c, judgeStale(c, o, th, now)
}

// judgeGone judges a session whose client reports that the session does not exist.
func judgeGone(c counters, o observation, th thresholds, now int64) (counters, verdict) {
	if !o.poll {
		return c, verdict{}
	}
	if c.gone == 0 {
		c.goneSince = now
	}
	c.gone++
	if c.gone >= sessionGonePolls && now-c.goneSince >= th.gone {
		return c, verdict{end: true, cause: CauseSessionGone, reason: reasonGone(time.Duration(now - c.goneSince))}
	}
	return c, verdict{}
}

// judgeTodos delays the end of a turn while todos are open or cannot be read, but for at most
// TodoHold. After that time, the turn ends even if todos are open.
func judgeTodos(c counters, o observation, cause Cause, th thresholds, now int64) (counters, verdict) {
	todos := o.todos
	if todos < 0 {
		todos = o.lastly
	}
	if o.todos != 0 && th.todoHold > 0 {
		if c.todoSince == 0 {
			c.todoSince = now
		}
		if end := c.todoSince + th.todoHold; now < end {
			return c, verdict{needTodos: o.todos < 0, lookAt: end}
		}
	}
	return c, verdict{end: true, cause: cause, todos: todos}
}

// judgeStale ends a turn that has been unchanged for too long. Time without a complete observation
// does not count, because changes during that time might have been missed. The time before a retry
// that the session has announced does not count either.
func judgeStale(c counters, o observation, th thresholds, now int64) verdict {
	retryAt := min(c.retryAt, c.changed+th.park)
	if th.stale == 0 || !o.read || o.flying > 0 || o.status.State == SessionAsking || o.asks ||
		now-c.began < int64(staleGrace) || now-max(c.changed, c.began, retryAt)-c.blindTime < th.stale {
		return verdict{}
	}
	return verdict{end: true, cause: CauseStale, running: true}
}
