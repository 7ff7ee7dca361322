package bgagent

import "time"

// What polls and events have shown of a turn is judged here. host_poll.go has the goroutines that
// poll, and state_poll.go carries out the verdicts.

// thresholds are the times that judge uses.
type thresholds struct {
	minIdle     int64
	minStable   int64
	stablePolls int
	todoHold    int64
	stale       int64 // 0 for never
	gone        int64
	unreachable int64 // 0 for never
}

// counters are what judge remembers between two observations of a turn.
type counters struct {
	began     int64 // when the turn began
	changed   int64 // when something last changed
	blind     int64 // since when no observation was complete; 0 if the last one was
	blindTime int64 // blind time since the last change
	retryAt   int64 // when the session retries or has retried
	finger    uint64
	state     SessionState
	detail    string
	stable    int // polls in a row without a change
	empty     int // idle polls in a row without any output
	broken    int // idle polls in a row with an unfinished message
	gone      int // polls in a row that said the session is gone
	goneSince int64
	todoSince int64 // since when only the todos hold the end back
	unread    int64 // since when the messages cannot be read; 0 if they can
}

// change notes that something has changed.
func (c *counters) change(now int64) { c.changed, c.blindTime = now, 0 }

// observation is one look at a session in a turn.
type observation struct {
	status   SessionStatus
	answered bool  // a status call or an event told the status
	at       int64 // when the status was told; 0 for now
	poll     bool  // from a poll, not from an event
	read     bool  // view is as new as the status
	failed   bool  // the messages could not be read
	afresh   bool  // they could not be read from the beginning either
	why      string
	view     turn
	flying   int // number of tool calls in flight
	hint     *hint
	trust    bool  // the hint cannot be a late echo of an earlier turn
	todos    int32 // open todos; -1 if they are not known now
	lastly   int32 // open todos when they were last known
	retryAt  int64
}

// marked reports whether the newest message says how the turn ended.
func (v *turn) marked() bool {
	return v.begun && v.finished && v.stop != StopUntold && v.stop != StopToolCalls
}

// whole reports whether the turn may have ended: no message is unfinished and no tool call is in
// flight.
func (o *observation) whole() bool {
	return o.view.finished && o.view.stop != StopToolCalls && o.flying == 0
}

// verdict is the result of judging an observation.
type verdict struct {
	end       bool
	cause     Cause
	reason    string
	running   bool  // the session is not at rest and must be stopped
	needTodos bool  // undecided until the todos are read
	dropHint  bool  // the error did not end the turn
	todos     int32 // todos left open
	lookAt    int64 // look again at this time at the latest; 0 for the next sweep
}

// judge decides whether a turn is over. It is a pure function: all that it knows is in its
// arguments, and all that it remembers is in its results. An unanswered observation decides
// nothing.
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
	if o.read && c.blind > 0 { // a change may have been missed while blind
		c.blindTime += now - max(c.blind, c.changed)
		c.blind = 0
	}
	changed := o.read && o.view.finger != c.finger
	if changed || o.status.State != c.state || o.status.Detail != c.detail || o.retryAt != c.retryAt {
		c.change(now)
	}
	if o.read {
		c.finger = o.view.finger
	}
	c.state, c.detail, c.retryAt = o.status.State, o.status.Detail, o.retryAt
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

// hintMax is how long a session may stay busy after an error that ends its turn. If it is busy
// longer, the error was an echo of an earlier turn, or the agent recovered from it.
const hintMax = int64(5 * time.Second)

// stopCause returns what a stop reason that does not complete ends the attempt as, and says so in
// words.
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
	}
	return cause, reasonStopped(r, detail)
}

// judgeIdle judges a session that is in no turn.
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
	count := func(n *int) bool { // counts polls in a row
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
		return c, verdict{end: true, cause: cause, reason: reason}
	case marked && v.output && o.flying == 0:
		return judgeTodos(c, o, CauseIdle, th, now)
	case o.hint != nil && (o.trust || !early && o.hint.finger == v.finger): // otherwise the agent went on after the error
		cause, reason := stopCause(o.hint.stop, o.hint.err)
		return c, verdict{end: true, cause: cause, reason: reason}
	case early:
		return c, verdict{lookAt: c.began + th.minIdle}
	case !v.output:
		if now-c.began < th.minStable {
			c.empty = 0
		} else if count(&c.empty) {
			return c, verdict{end: true, cause: CauseNoOutput} // finish says so in words
		}
		return c, verdict{}
	case !whole:
		// The last message may be written a moment after the session falls idle, so a second poll
		// must agree.
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

// judgeUnread judges an idle session whose messages cannot be read. A busy session continues
// meanwhile.
func judgeUnread(c counters, o observation, th thresholds, now int64) (counters, verdict) {
	end := c.unread + th.unreachable
	if now < end || !o.afresh {
		return c, verdict{lookAt: max(end, now+int64(time.Second))}
	}
	return c, verdict{end: true, cause: CauseHostUnreachable, reason: reasonUnread(time.Duration(th.unreachable), o.why), running: c.state == SessionUntold}
}

// judgeUntold judges a session whose client can never tell its status.
func judgeUntold(c counters, o observation, changed bool, th thresholds, now int64) (counters, verdict) {
	v := &o.view
	if o.read && v.marked() && v.stop != StopEndOfTurn {
		cause, reason := stopCause(v.stop, v.err)
		return c, verdict{end: true, cause: cause, reason: reason}
	}
	if o.hint != nil && (o.trust || now-c.began >= th.minIdle) {
		cause, reason := stopCause(o.hint.stop, o.hint.err)
		return c, verdict{end: true, cause: cause, reason: reason, running: true}
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

// judgeGone judges a session that does not exist according to its client.
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

// judgeTodos holds back the end of a turn while todos are open or cannot be read, but never longer
// than TodoHold: todos must not outrank the answer for good.
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

// judgeStale ends a turn that has not changed for too long. Blind time does not count,
// because a change may have been missed.
func judgeStale(c counters, o observation, th thresholds, now int64) verdict {
	if th.stale == 0 || !o.read || o.flying > 0 || o.status.State == SessionAsking ||
		now-c.began < int64(staleGrace) || now-max(c.changed, c.began, c.retryAt)-c.blindTime < th.stale {
		return verdict{}
	}
	return verdict{end: true, cause: CauseStale, running: true}
}
