package bgagent

import (
	"math/bits"
	"time"
)

// The code in this file holds all deadlines, and applies the time limits of attempts.

// alarm is the deadline of a record; see alarms.
type alarm struct {
	at    int64
	index int // position in the heap, counted from 1; 0 if the alarm is not set
}

// alarms is a binary heap of alarms, earliest first. T is the type of the records to which the
// alarms belong. All alarms share one timer. With a separate timer or context for each alarm, a
// launch took more than twice as long.
type alarms[T any] []ringer[T]

type ringer[T any] struct {
	*alarm
	who T
}

func (h alarms[T]) up(i int) {
	for i > 0 {
		p := (i - 1) / 2
		if h[p].at <= h[i].at {
			return
		}
		h.swap(i, p)
		i = p
	}
}

func (h alarms[T]) down(i int) {
	for {
		c := 2*i + 1
		if c >= len(h) {
			return
		}
		if c+1 < len(h) && h[c+1].at < h[c].at {
			c++
		}
		if h[i].at <= h[c].at {
			return
		}
		h.swap(i, c)
		i = c
	}
}

func (h alarms[T]) swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i+1, j+1
}

// The method "set" sets the alarm to the given time. The time 0 removes the alarm.
func (h *alarms[T]) set(al *alarm, who T, at int64) {
	switch {
	case at == 0 && al.index == 0:
	case at == 0:
		h.remove(al)
	case al.index == 0:
		al.at = at
		*h = append(*h, ringer[T]{al, who})
		al.index = len(*h)
		h.up(al.index - 1)
	default:
		al.at = at
		h.up(al.index - 1)
		h.down(al.index - 1)
	}
}

// setBy makes sure that the alarm rings at the given time or before. It never moves an alarm to a
// later time, so it does less work than the method "set". An alarm that rings early must be set
// again.
func (h *alarms[T]) setBy(al *alarm, who T, at int64) {
	if at != 0 && (al.index == 0 || at < al.at) {
		h.set(al, who, at)
	}
}

func (h *alarms[T]) remove(al *alarm) {
	i, last := al.index-1, len(*h)-1
	h.swap(i, last)
	(*h)[last] = ringer[T]{}
	*h = (*h)[:last]
	al.index = 0
	if i < last {
		h.up(i)
		h.down(i)
	}
}

// The method "due" removes and returns the earliest alarm if its time has come.
func (h *alarms[T]) due(now int64) (who T, ok bool) {
	if len(*h) == 0 || (*h)[0].at > now {
		return who, false
	}
	who = (*h)[0].who
	h.remove((*h)[0].alarm)
	return who, true
}

// The method "first" returns the time of the earliest alarm, or 0 if there is none.
func (h alarms[T]) first() int64 {
	if len(h) == 0 {
		return 0
	}
	return h[0].at
}

// deadlines holds all alarms. An alarm can ring early. The code that handles it checks the time and
// sets the alarm again.
type deadlines struct {
	attempts alarms[*attempt] // time limits of attempts
	queued   alarms[*task]    // time limits of pending tasks
	nodes    alarms[*node]    // times at which notices are due
	accounts alarms[*node]    // ends of the periods of accounts
	outages  alarms[*outage]  // times at which the next waiting attempt tries to start
	keep     int64            // when the oldest record can be evicted; 0 if there is none
	trouble  int64            // when failing or slow writes are reported; 0 if no report is due
	beat     int64            // when the manager's own record is written; 0 if no task is live or being stopped
	careful  int64            // when the next attempt from an earlier process is continued; 0 if none is waiting
	shut     int64            // when the next pool might have been cooling down for too long; see watchPool
	store    int64            // when non-urgent changes are written; 0 if there are none
}

// The method "first" returns the earliest deadline, or 0 if there is none.
func (d *deadlines) first() (at int64) {
	// Every update calls this method. The conversions turn 0, which means never, into the greatest number.
	heaps := min(uint64(d.attempts.first())-1, uint64(d.queued.first())-1, uint64(d.nodes.first())-1,
		uint64(d.accounts.first())-1, uint64(d.outages.first())-1)
	return int64(min(heaps, uint64(d.keep)-1, uint64(d.shut)-1, uint64(d.store)-1, uint64(d.beat)-1,
		uint64(d.trouble)-1, uint64(d.careful)-1) + 1)
}

// ringDue handles all alarms whose time has come.
func (st *state) ringDue(now int64) {
	d := &st.deadlines
	for {
		if a, ok := d.attempts.due(now); ok {
			st.ringAttempt(a, now)
		} else if t, ok := d.queued.due(now); ok {
			st.ringQueued(t, now)
		} else if n, ok := d.nodes.due(now); ok {
			st.touchNode(n)
		} else if n, ok := d.accounts.due(now); ok {
			st.ringAccount(n, now)
		} else if o, ok := d.outages.due(now); ok {
			st.ringOutage(o, now)
		} else {
			break
		}
	}
	if d.keep != 0 && d.keep <= now {
		d.keep, st.due.evict = 0, true
	}
	if d.shut != 0 && d.shut <= now {
		st.ringShut(now)
	}
	if d.trouble != 0 && d.trouble <= now {
		st.ringTrouble()
	}
	if d.careful != 0 && d.careful <= now {
		st.continueNext(now)
	}
	if d.beat != 0 && d.beat <= now {
		d.beat, st.storing.urgent = 0, true
	}
	if d.store != 0 && d.store <= now {
		d.store, st.storing.urgent = 0, true
	}
}

// The time limits of an attempt. All limits of an attempt share one alarm, which is set to the
// earliest.

// attemptLimit is a time limit of an attempt. If several limits have been reached, the first in
// this order is applied. A new limit needs a constant here, a case in limitEnd and a case in
// applyLimit.
type attemptLimit uint8

const (
	untilStopped   attemptLimit = iota // deadline for stopping the session of an attempt that has ended
	untilAnswered                      // deadline for the return of CreateSession or StartTurn
	untilHalted                        // when a turn whose program repeats refused requests is stopped; after that, the deadline by which it must have stopped
	untilFallback                      // when a parked attempt continues with another model
	untilParked                        // end of the wait for a provider
	untilReachable                     // deadline for the end of the outage that delays the attempt
	untilOld                           // end of the attempt's time to live
	untilStale                         // when a runner's turn becomes stale; the function "judge" checks the turns of starters
	untilExpired                       // when the attempt's first open question expires; does not end the attempt
	untilAsleep                        // when a turn that waits for an answer gives its slot back; does not end the attempt
	untilSilent                        // deadline for the status of a starter's session
	untilProved                        // when the silence of a turn proves that the provider accepts requests; does not end the attempt
	untilNews                          // when a postponed progress event is due; does not end the attempt
	untilLook                          // when a starter's session is polled next; does not end the attempt
	attemptLimits
)

// limitEnd returns the time at which the attempt's limit l is reached, or 0 if the limit does
// not currently apply.
func (st *state) limitEnd(l attemptLimit, a *attempt) int64 {
	followed := a.cl.starter && a.turnStart > 0 && a.stage == stageNone
	switch l {
	case untilStopped:
		if a.ended && !a.overrun {
			return a.stopEnd
		}
	case untilAnswered:
		return a.callEnd
	case untilHalted:
		return st.retryLimits(a)
	case untilFallback:
		return st.fallbackAt(a)
	case untilParked:
		if a.awaitsProvider() && !st.recovery.due {
			return a.refused.limit
		}
	case untilReachable:
		return st.outageEnd(a)
	case untilOld:
		return st.ttlEnd(a)
	case untilStale:
		return st.staleEnd(a)
	case untilExpired:
		return a.questionEnd()
	case untilAsleep:
		return a.parksAt()
	case untilSilent:
		if d := st.limit(limitHostUnreachable); followed && d > 0 {
			return a.sight.answered + int64(d)
		}
	case untilProved:
		return st.provedAt(a)
	case untilNews:
		return a.newsAt
	case untilLook:
		if followed {
			return a.sight.lookAt
		}
	default:
		panic("bgagent: bug: a time limit that never ends")
	}
	return 0
}

// applyLimit applies a time limit that has been reached. After that, limitEnd must return a later time
// or 0.
func (st *state) applyLimit(l attemptLimit, a *attempt, now int64) {
	switch l {
	case untilStopped:
		st.overrun(a, now)
	case untilAnswered:
		what, cause := doingCreate, CauseStartFailed
		if a.stage == stagePrompt {
			what, cause, a.loose = doingPrompt, CausePromptFailed, true
		}
		st.end(a.t, cause, reasonNoAnswerToCall(what, st.limit(limitCreateTimeout)), now)
	case untilHalted:
		st.retryLimit(a, now)
	case untilFallback:
		st.fallbackDue(a, now)
	case untilParked:
		st.parkLimit(a, now)
	case untilProved:
		st.provesPool(a)
	case untilNews:
		st.news(a, now)
	case untilReachable:
		st.end(a.t, CauseHostUnreachable, reasonOutage(st.limit(limitHostUnreachable), a.sight.prog.detail), now)
	case untilOld:
		a.loose = true
		st.end(a.t, CauseTimeToLive, reasonTimeToLive(st.limit(limitTimeToLive)), now)
	case untilStale:
		st.end(a.t, CauseStale, reasonStale(time.Duration(now-a.activity), a.turnStart, &a.sight.prog), now)
	case untilExpired:
		st.expireQuestions(a, now)
	case untilAsleep:
		st.parkForAnswer(a)
	case untilSilent:
		st.end(a.t, CauseHostUnreachable, reasonUnreachable(st.limit(limitHostUnreachable), a.sight.lostWhy), now)
	case untilLook:
		a.sight.lookAt = 0
		st.lookSoon(a)
	default:
		panic("bgagent: bug: a time limit without consequence")
	}
}

// limitSet is a set of time limits. Bit l stands for the limit l.
type limitSet uint16

const (
	limitsOfStopping  limitSet = 1 << untilStopped
	limitsOfAll       limitSet = 1 << untilOld
	limitsOfCalls     limitSet = 1 << untilAnswered
	limitsOfNews      limitSet = 1 << untilNews
	limitsOfSeen      limitSet = 1<<untilHalted | 1<<untilStale
	limitsOfParked    limitSet = 1<<untilFallback | 1<<untilParked
	limitsOfHeld      limitSet = 1 << untilReachable
	limitsOfStarters  limitSet = 1<<untilSilent | 1<<untilLook
	limitsOfQuestions limitSet = 1<<untilExpired | 1<<untilAsleep
	limitsOfUnproved  limitSet = 1 << untilProved
)

// The method "limits" returns a set that contains every time limit that applies to the attempt. It costs
// less than calling limitEnd for all limits, and most attempts need few of them. The invariants check that
// no other limit applies.
func (a *attempt) limits() limitSet {
	if a.ended {
		return limitsOfStopping
	}
	s := limitsOfAll
	if a.callEnd != 0 {
		s |= limitsOfCalls
	}
	if a.newsAt != 0 {
		s |= limitsOfNews
	}
	if a.sight != &nothingSeen || a.stopEnd > 0 {
		s |= limitsOfSeen
	}
	if a.parkedFor != notParked {
		s |= limitsOfParked
	}
	if a.heldAt != 0 {
		s |= limitsOfHeld
	}
	if a.cl.starter {
		s |= limitsOfStarters
	}
	if a.t.questions() != nil {
		s |= limitsOfQuestions
	}
	if a.cl.showsRetries != nil {
		s |= limitsOfUnproved
	}
	return s
}

// The method "each" iterates over the limits in s, in their order.
func (s limitSet) each(yield func(attemptLimit) bool) {
	for ; s != 0; s &= s - 1 {
		if !yield(attemptLimit(bits.TrailingZeros16(uint16(s)))) {
			return
		}
	}
}

// setDeadline makes sure that the attempt's alarm rings no later than its earliest time limit.
func (st *state) setDeadline(a *attempt, now int64) {
	st.changed(a.t)
	st.deadlines.attempts.setBy(&a.alarm, a, st.earliest(a))
}

// earliest returns the time at which the first of the attempt's time limits is reached, or 0 if
// none applies.
func (st *state) earliest(a *attempt) (at int64) {
	for l := range a.limits().each {
		if t := st.limitEnd(l, a); t > 0 && (at == 0 || t < at) {
			at = t
		}
	}
	return at
}

// ringAttempt applies the first of the attempt's time limits that has been reached, if there is
// one. It sets the alarm to the next time limit.
func (st *state) ringAttempt(a *attempt, now int64) {
	if !a.ended && !a.live() {
		return
	}
	for l := range a.limits().each {
		if t := st.limitEnd(l, a); t > 0 && t <= now {
			st.applyLimit(l, a, now)
			if t := st.limitEnd(l, a); t > 0 && t <= now && a.live() {
				panic("bgagent: bug: a time limit that has passed still applies, so the timer would fire forever")
			}
			break
		}
	}
	if a.ended && a.t.run == a || a.live() {
		if at := st.earliest(a); at > 0 {
			st.deadlines.attempts.set(&a.alarm, a, max(at, now+1))
		}
	}
}

// ttlEnd returns the time at which the attempt's time to live expires, or 0 if the time to live is
// not currently running.
func (st *state) ttlEnd(a *attempt) int64 {
	if st.limit(limitTimeToLive) <= 0 || a.t.is(flagForeground) || a.parkedFor != notParked || a.clocksStand() || st.awaitsClaim(a) {
		return 0
	}
	from := a.turnStart
	switch {
	case from != 0:
	case a.turn == 0:
		from = st.startedAt(a)
	default: // between two turns
		return 0
	}
	return from + int64(st.limit(limitTimeToLive)) - a.ran
}

// announcedMost returns the maximum time to wait for a retry that a program has announced. If
// Config.MaxPark disables parking, announcedMost returns DefaultMaxPark.
func (st *state) announcedMost() int64 {
	if most := st.limit(limitMaxPark); most > 0 {
		return int64(most)
	}
	return int64(DefaultMaxPark)
}

// staleEnd returns the time at which a runner's turn becomes stale, or 0 if it currently cannot
// become stale.
func (st *state) staleEnd(a *attempt) int64 {
	if !a.cl.runner || a.turnStart == 0 || st.limit(limitStaleTimeout) <= 0 || !a.sight.reported || a.sight.inFlight() > 0 || a.phase == PhaseAsking || a.clocksStand() {
		return 0
	}
	activity := a.activity
	if x := a.sight.retry; x != nil {
		activity = max(activity, min(x.at, x.told+st.announcedMost()))
	}
	return max(activity+int64(st.limit(limitStaleTimeout)), a.turnStart+int64(staleGrace))
}
