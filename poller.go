package bgagent

import (
	"fmt"
	"time"
)

// thresholds are the times that judge goes by.
type thresholds struct {
	minIdle     int64
	minStable   int64
	stablePolls int
	todoHold    int64
	stale       int64 // 0 for never
	gone        int64
}

func (m *BackgroundManager) thresholds() thresholds {
	never := func(d time.Duration) int64 { return int64(max(d, 0)) }
	return thresholds{
		minIdle: never(m.cfg.MinIdleTime), minStable: never(m.cfg.MinStabilityTime), stablePolls: m.cfg.StablePolls,
		todoHold: never(m.cfg.TodoHold), stale: never(m.cfg.StaleTimeout), gone: int64(m.cfg.SessionGone),
	}
}

// counters is what judge remembers between two observations of a turn.
type counters struct {
	began     int64 // when the turn began
	changed   int64 // when something last changed
	blind     int64 // since when nothing was answered, or could be read; 0 when the last observation was whole
	lost      int64 // time since the last change in which it was blind
	retryAt   int64 // when the session tries again, or has
	finger    uint64
	state     SessionState
	detail    string
	stable    int // polls in a row without a change
	empty     int // idle polls in a row without any output
	broken    int // idle polls in a row with an unfinished message
	gone      int // polls in a row that say the session is gone
	goneSince int64
	todoSince int64
}

// change notes that something has changed.
func (c *counters) change(now int64) { c.changed, c.lost = now, 0 }

// observation is one look at a session in a turn.
type observation struct {
	status   SessionStatus
	answered bool  // the status call, or an event, told something
	at       int64 // when the status was told; 0 for now
	poll     bool  // by a poll, not by an event
	read     bool  // the view below is as new as the status
	failed   bool  // the messages could not be read
	view     turn
	flying   int // tools in flight
	hint     *hint
	trust    bool  // the hint cannot be a late echo of an earlier turn
	todos    int32 // open todos; -1 when they have not been read
	retryAt  int64
}

// marked reports whether the newest message says how the turn has ended.
func (v *turn) marked() bool {
	return v.begun && v.finished && v.stop != StopUntold && v.stop != StopToolCalls
}

// whole reports whether the turn may have ended: nothing is half written, and no
// tool is called.
func (o *observation) whole() bool {
	return o.view.finished && o.view.stop != StopToolCalls && o.flying == 0
}

// verdict is what an observation leads to.
type verdict struct {
	end       bool
	cause     Cause
	reason    string
	running   bool  // the session has not come to rest by itself and must be stopped
	needTodos bool  // cannot be decided before the todos have been read
	dropHint  bool  // the error did not end the turn
	todos     int32 // left open
	lookAt    int64 // look again then, if not before; 0 for with the next sweep
}

// judge decides whether a turn is over. It is pure: all that it knows comes in,
// and what it wants to remember goes out. An observation that was not answered
// never decides anything.
func judge(c counters, o observation, th thresholds, now int64) (counters, verdict) {
	if !o.answered || o.status.State == SessionUnknown || o.status.State > SessionUntold {
		if c.blind == 0 {
			c.blind = now
		}
		return c, verdict{}
	}
	if o.failed && c.blind == 0 {
		c.blind = now
	}
	if o.read && c.blind > 0 { // time without an answer is not time without a change
		c.lost += now - max(c.blind, c.changed)
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

// hintMax is how long after an error a session may still be busy by it. What has
// not ended the turn by then was an echo of an earlier one, or was got over.
const hintMax = int64(5 * time.Second)

// judgeIdle decides about a session that is in no turn.
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
	count := func(n *int) bool { // of polls in a row
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
	case o.hint != nil && (o.trust || !early && o.hint.finger == v.finger): // else the agent went on after it
		cause, reason := stopCause(o.hint.stop, o.hint.err)
		return c, verdict{end: true, cause: cause, reason: reason}
	case early:
		return c, verdict{lookAt: c.began + th.minIdle}
	case !v.output:
		if now-c.began < th.minStable {
			c.empty = 0
		} else if count(&c.empty) {
			return c, verdict{end: true, cause: CauseNoOutput, reason: "the session fell idle without any output"}
		}
		return c, verdict{}
	case !whole:
		// The last message may be written a moment after the session fell idle:
		// a second poll must agree.
		if o.poll {
			c.broken++
		}
		if c.broken >= 2 {
			reason := "the session fell idle in the middle of a message"
			if v.finished {
				reason = "the session fell idle after tool calls, before the answer"
			}
			return c, verdict{end: true, cause: CauseInterrupted, reason: reason}
		}
		return c, verdict{}
	default:
		return judgeTodos(c, o, CauseIdle, th, now)
	}
}

// judgeUntold decides about a session whose client can never tell its status.
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

// judgeGone decides about a session that the client says does not exist.
func judgeGone(c counters, o observation, th thresholds, now int64) (counters, verdict) {
	if !o.poll {
		return c, verdict{}
	}
	if c.gone == 0 {
		c.goneSince = now
	}
	c.gone++
	if c.gone >= sessionGonePolls && now-c.goneSince >= th.gone {
		return c, verdict{end: true, cause: CauseSessionGone, reason: fmt.Sprintf("the client has said for %s that the session does not exist; Config.SessionGone (sessionGoneMs) decides how long is long enough", setting(time.Duration(now-c.goneSince).Round(time.Second)))}
	}
	return c, verdict{}
}

// judgeTodos holds a turn that has ended back while todos are open.
func judgeTodos(c counters, o observation, cause Cause, th thresholds, now int64) (counters, verdict) {
	if o.todos < 0 {
		return c, verdict{needTodos: true}
	}
	if o.todos > 0 && th.todoHold > 0 {
		if c.todoSince == 0 {
			c.todoSince = now
		}
		if end := c.todoSince + th.todoHold; now < end {
			return c, verdict{lookAt: end}
		}
	}
	return c, verdict{end: true, cause: cause, todos: o.todos}
}

// judgeStale decides about a turn in which nothing changes any more. What could
// not be read may have changed.
func judgeStale(c counters, o observation, th thresholds, now int64) verdict {
	if th.stale == 0 || !o.read || o.flying > 0 || o.status.State == SessionAsking ||
		now-c.began < int64(staleGrace) || now-max(c.changed, c.began, c.retryAt)-c.lost < th.stale {
		return verdict{}
	}
	return verdict{end: true, cause: CauseStale, running: true}
}

// stopCause returns what a stop reason that does not complete ends the attempt
// as.
func stopCause(r StopReason, detail string) (Cause, string) {
	with := func(s string) string {
		if detail != "" {
			return s + ": " + inOneLine(clean(detail), reasonBytes)
		}
		return s
	}
	switch r {
	case StopLength:
		return CauseLength, with("the model's output limit cut the answer off")
	case StopTurnLimit:
		return CauseTurnLimit, with("the agent reached its limit of steps")
	case StopRefused:
		return CauseRefused, with("the model refused")
	case StopAborted:
		return CauseAgentWindow, with("it was stopped in the agent's own window")
	case StopInterrupted:
		return CauseInterrupted, with("the turn broke off")
	case StopToolCalls:
		return CauseInterrupted, with("the turn broke off after tool calls")
	case StopError:
		return CauseSessionError, with("the agent failed")
	}
	return CauseSessionError, with("the client gave an unknown stop reason, " + r.String())
}

func openTodos(list []Todo) (n int32) {
	for _, t := range list {
		if t.State.Open() {
			n++
		}
	}
	return n
}
