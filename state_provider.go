package bgagent

import (
	"slices"
	"time"

	"github.com/bgagent/bgagent/internal/mdtext"
	"github.com/bgagent/bgagent/internal/slots"
)

// The code in this file handles turns that the model provider has refused. The pool of such a turn
// cools down (internal/slots): for some time, no turn begins in it. The attempt is parked: it waits
// in the line of its pool, without a slot.
//
//	turn -> turnRefused -> cool, park -> a slot -> nextTurn -> the turn goes on -> turnOver
//	                    -> it cannot go on, or not in time -> end
//	a slot -> beginCall -> the pool has begun to cool down -> holdForPool: park
//
// The code in state_retry.go handles programs that repeat refused requests on their own.

const (
	parkMost  = int64(30 * time.Minute) // longest wait without progress if the provider has not given a time
	parkTries = 5                       // an attempt with fewer refusals than this since its last progress goes on waiting after parkMost
	headTurns = 2                       // number of refused turns without progress after which an attempt waits behind the others in its pool
	pauseMost = int64(time.Minute)      // longest pause during which a foreground call or a blocking read keeps waiting
)

// The type "refused" describes the refusals of an attempt's turns, from the first refusal until a turn
// ends without a refusal. It also describes an attempt whose turn could not begin because its pool had
// begun to cool down. In that case, kind is zero.
type refused struct {
	kind       ProviderErrorKind
	status     int
	message    string
	step       nextStep
	unanswered string  // id of the prompt whose refused turn the session continues
	prompt     string  // text of the next prompt; not used with stepContinue and stepNotice
	told       *Notice // notice that a repeated prompt delivers
	since      int64   // when the first refusal came; if a later refused turn had output, when the first refusal after that output came
	retryAt    int64   // time that the provider gave; 0 if it did not give one
	until      int64   // end of the pool's cool-down, as of the refusal
	poolTries  int     // number of refused requests in a row in the pool, as of the refusal
	provider   bool    // all pools of the provider were cooling down, as of the refusal
	here       bool    // a turn was refused in this process
	tries      int     // number of refused requests since the time in the field "since"
	turns      int     // number of refused turns since the time in the field "since"
	limit      int64   // when the attempt ends if it is still waiting; 0 if there is no limit
	fallAt     int64   // when the attempt continues with another model; 0 if it does not; see state_fallback.go
	falls      bool    // the attempt continues with another model as soon as no Abort call is in flight
	ends       Cause   // cause with which the attempt ends if it must fall back but no other model is left; CauseNone if it then keeps waiting
	endsWhy    string  // reason for the end with the cause in the field "ends"
	fell       string  // for people, why the attempt has a different model than its predecessor; empty once it has begun a turn
}

// nextStep says how a refused attempt continues.
type nextStep uint8

const (
	stepBegin      nextStep = iota // the turn begins; it could not begin before, because its pool was cooling down
	stepContinue                   // the session continues
	stepRepeat                     // the session gets the same prompt again
	stepNewSession                 // a new session gets the same prompt
	stepNotice                     // the next turn begins with the message or the notices that are then waiting
	nextSteps
)

// stepOf returns the next step that a client reported. It returns false for NextNone.
func stepOf(n ProviderNextStep) (step nextStep, ok bool) {
	switch n {
	case NextContinue:
		return stepContinue, true
	case NextRepeat:
		return stepRepeat, true
	case NextNewSession:
		return stepNewSession, true
	}
	return stepBegin, false
}

// The method "passes" reports whether the provider is expected to accept requests again soon enough
// for the attempt to wait. reset is the time that the provider gave, or 0.
func (st *state) passes(kind ProviderErrorKind, reset, now int64) bool {
	most := st.limit(limitMaxPark)
	switch kind {
	case ProviderRateLimited, ProviderOverloaded, ProviderBroken:
	case ProviderQuota:
		if reset <= now {
			return false
		}
	default:
		return false
	}
	return most > 0 && reset-now <= int64(most)
}

// providerTime converts a time that a client reported to a time on the state's clock. t must come
// from onClock. Times in the past count as unknown.
func (st *state) providerTime(t time.Time, now int64) int64 {
	if t.IsZero() {
		return 0
	}
	if at := int64(t.Sub(st.epoch)); at > now {
		return at
	}
	return 0
}

// shownMessage returns the message of a refusal as one short line.
func shownMessage(e *ProviderError) string { return mdtext.Joined(mdtext.Valid(e.Message), titleMax) }

// The method "cool" makes the pool of the attempt cool down because of a refusal. reset is the
// earliest time at which the next request may be sent, or 0 if that time is unknown.
func (st *state) cool(a *attempt, e *ProviderError, reset, now int64) {
	if reset > 0 {
		reset += st.slotsFrom
	}
	st.slots.Refuse(&a.t.wait, &a.t.kind.slot, slots.Refusal{
		Now: now + st.slotsFrom, Reset: reset, Tries: e.Tries, Provider: e.Scope == ScopeProvider, Spread: st.random(),
	})
	st.rare().after.cooled = true
	st.tellCool(a.t, e.Scope == ScopeProvider, now)
	st.wakePaused()
	if st.shut(a.t.kind, now) {
		st.leaveShut(now)
	}
	st.watchPool(a.t.kind, now)
}

// coolDown returns the cool-down of the task's pool, with times on the manager's clock.
func (st *state) coolDown(t *task) slots.CoolDown { return st.coolDownOf(&t.kind.slot) }

// coolDownOf returns the cool-down of a pool.
func (st *state) coolDownOf(h *slots.Handle) slots.CoolDown {
	c := st.slots.CoolDown(h)
	if c.Refusals > 0 {
		c.Since, c.Base, c.Until = max(c.Since-st.slotsFrom, 1), c.Base-st.slotsFrom, max(c.Until-st.slotsFrom, 1)
		if c.Reset > 0 {
			c.Reset = max(c.Reset-st.slotsFrom, 1)
		}
	}
	return c
}

// The method "random" returns a random number from 0 to 1.
func (st *state) random() float64 {
	high, _ := st.ids.ReadByte()
	low, _ := st.ids.ReadByte()
	return (float64(high)*256 + float64(low)) / (1 << 16)
}

// coolAgain makes the pool of an attempt from an earlier process cool down as it did in that
// process. If the cool-down is over, a short one begins, so that the parked attempts do not all
// begin their turns at the same time.
func (st *state) coolAgain(a *attempt, now int64) {
	r := a.refused
	if r.fell != "" && r.poolTries == 0 { // no turn in the pool was refused
		return
	}
	again := slots.Refusal{Now: now + st.slotsFrom, Tries: r.poolTries, Provider: r.provider, Again: true, Spread: st.random()}
	if r.until > now {
		again.Reset = r.until + st.slotsFrom
	}
	st.slots.Refuse(&slots.Waiter{}, &a.t.kind.slot, again)
	st.rare().after.cooled = true
	st.watchPool(a.t.kind, now)
}

// turnRefused parks an attempt whose turn the provider has refused. If the attempt cannot continue,
// or cannot continue in time, turnRefused ends it.
func (st *state) turnRefused(a *attempt, o *turnOutcome, now int64) {
	e := o.provider
	reset := st.providerTime(e.RetryAt, now)
	if st.passes(e.Kind, reset, now) {
		st.cool(a, e, reset, now)
	}
	step, goes := stepOf(e.Next)
	a.forgot = a.forgets(step, a.prompt)
	if !goes {
		step = stepNewSession
	}
	cause, reason := st.refusalEnds(a, o, reset, now)
	falls := st.mayFallBack(a, e.Kind, step)
	if (goes || falls) && (step == stepRepeat || step == stepNewSession) {
		a.sendAgain()
	}
	if cause != CauseNone && !falls {
		a.loose = a.loose || o.loose
		st.end(a.t, cause, reason, now)
		return
	}
	r := a.refused
	if r == nil {
		r = &refused{since: o.since}
		a.refused = r
	}
	if a.sight.output {
		r.since, r.tries, r.turns = o.since, 0, 0
	}
	r.kind, r.status, r.message, r.retryAt = e.Kind, e.Status, shownMessage(e), reset
	r.ends, r.endsWhy = cause, reason
	r.tries += max(e.Tries, 1)
	r.turns++
	r.here = true
	r.limit = r.since + parkMost
	if reset > 0 { // the pool grants slots again shortly after reset
		r.limit = max(r.since+int64(st.limit(limitMaxPark)), reset+parkMost)
	} else if r.limit <= now { // parkMost is over, but refusalEnds has not ended the attempt: it was refused too few times, made progress, or has a fallback
		r.limit = now + parkMost
	}
	st.planFallback(a, falls, cause != CauseNone, now)
	r.step = step
	switch step {
	case stepContinue:
		if r.unanswered == "" {
			r.unanswered = a.promptID
		}
		r.prompt, r.told = "", nil
		st.keepJoined(a)
	case stepRepeat:
		if r.prompt, r.told = a.prompt, a.told; a.notice != nil || a.t.letterDue() { // no agent has seen the notice or the message
			st.oweAgain(a)
			r.step, r.prompt = stepNotice, ""
		}
	case stepNewSession:
		r.unanswered, r.prompt, r.told = "", joined(a.t.unsaid(), a.t.text), nil
	}
	if a.notice != nil {
		st.told(a, now)
	}
	if r.step == stepContinue {
		st.handedOver(a, true)
	}
	st.parkForProvider(a, now)
	if r.falls {
		st.touchAttempt(a)
	}
}

// The method "forgets" reports whether the session contains nothing from the attempt after the
// given prompt was refused. step says how the attempt continues.
func (a *attempt) forgets(step nextStep, prompt string) bool {
	return (step == stepRepeat || step == stepNewSession) && prompt == joined(a.t.unsaid(), a.t.text) && !a.output && a.text == "" && a.sight.prog.toolCalls == 0
}

// If the attempt ends because of a refusal, refusalEnds returns the cause and the reason of that
// end. Otherwise, it returns CauseNone.
func (st *state) refusalEnds(a *attempt, o *turnOutcome, reset, now int64) (Cause, string) {
	e := o.provider
	_, goes := stepOf(e.Next)
	if e.Next == NextNewSession && !a.mayRenew() {
		goes = false
	}
	most := parkMost
	if reset > 0 {
		most = int64(st.limit(limitMaxPark))
	}
	switch {
	case e.Kind == ProviderTooLong:
		return CauseTooLong, reasonProvider(e, time.Time{})
	case e.Kind == ProviderAuthentication || e.Kind == ProviderUnknownModel || e.Kind > ProviderTooLong || e.Kind == 0:
		return o.cause, o.reason
	case !goes || a.late || !st.passes(e.Kind, reset, now):
		return CauseRateLimited, reasonProvider(e, st.wall(reset))
	case a.refused != nil && !a.sight.output && now-a.refused.since >= most && a.refused.tries >= parkTries:
		return CauseRateLimited, reasonProvider(e, st.wall(reset))
	}
	return CauseNone, ""
}

// mayRenew reports whether a new session may get the attempt's first prompt. If the old session
// contained more than this prompt, the result is false.
func (a *attempt) mayRenew() bool {
	return a.isFirst() && !a.output && a.text == "" && a.t.ownNode() == nil
}

// holdForPool parks an attempt that has a slot but has not begun its turn, because its pool has
// begun to cool down.
func (st *state) holdForPool(a *attempt, now int64) {
	r := a.refused
	if r == nil {
		r = &refused{since: now, prompt: a.prompt, told: a.told}
		a.refused = r
		st.planFallback(a, st.mayFallBack(a, r.kind, r.step), false, now)
	}
	if a.notice != nil || a.t.letterDue() {
		if st.oweAgain(a); r.told == nil { // if r.told is set, the prompt is an earlier notice that is repeated
			r.step, r.prompt = stepNotice, ""
		}
	}
	if a.promptID = ""; a.turn > 0 { // until the next turn begins, the record needs the name of the last turn's prompt, not the text of the next prompt
		a.prompt = ""
	}
	st.parkForProvider(a, now)
}

// letterDue reports whether the task's next prompt is a message that no turn has received.
func (t *task) letterDue() bool {
	b := t.mail()
	return b != nil && b.current != nil && b.current.state == MessageAccepted
}

// oweAgain takes back the prompt of a turn: the notice in it is owed again, or the message in it
// waits for its turn again.
func (st *state) oweAgain(a *attempt) {
	if b := a.t.mail(); b != nil && a.t.letterDue() {
		b.current = nil
	}
	env, own := a.notice, a.t.ownNode()
	if a.notice = nil; env == nil || own == nil || own.env != env {
		return
	}
	env.flying = false
	st.nodeChanged(own)
	st.unpack(own, env)
	st.changed(a.t)
}

// parkForProvider parks an attempt until its pool grants it a slot again.
func (st *state) parkForProvider(a *attempt, now int64) {
	st.leaveOutage(a, now)
	a.stage, a.stopMore = stageNone, false
	c := st.coolDown(a.t)
	a.refused.until, a.refused.poolTries, a.refused.provider = c.Until, c.Tries, c.Provider
	st.parkOrFinish(a, a.endCause, "", now)
	if st.storing != nil {
		st.mustKeep(a.t)
	}
	if st.leavesPool(a.t, now) {
		st.falls(a)
	}
	st.watchPool(a.t.kind, now)
	st.setDeadline(a, now)
}

// countRefused counts a message from a refused turn if the message was not read before the turn ended. If
// an earlier process ran the turn, countRefused does nothing: that process might have counted it.
func (st *state) countRefused(a *attempt, msg *Message) {
	s := a.sight
	if _, known := s.old[msg.ID]; known || a.refused == nil || !a.refused.here {
		return
	}
	s.prog.usage = s.prog.usage.plus(msg.Usage)
	s.prog.toolCalls += len(msg.Tools)
	s.before = s.prog.toolCalls
	if st.budgets {
		st.add(a, st.now)
		s.base = s.counted
	}
}

// nextAfterRefusal prepares the next prompt of an attempt that was parked because of a refusal. It
// returns false if there is nothing left to report to the agent.
func (st *state) nextAfterRefusal(a *attempt, now int64) bool {
	r := a.refused
	if a.turn == 0 {
		st.startsLater(a, now)
	}
	switch r.step {
	case stepContinue:
		a.prompt = promptAfterRefusal(r.kind)
	case stepNotice:
		if !st.nextLetter(a) && !st.nextNotice(a, now) {
			a.refused = nil
			return false
		}
	case stepNewSession:
		if a.t.sess != nil && a.turn > 0 { // if no turn has begun, the session is already new
			st.renew(a, now)
		}
		a.prompt = r.prompt
	default:
		a.prompt, a.told = r.prompt, r.told
		st.tellMore(a, now)
	}
	return true
}

// If the next turn repeats a notice because its turn was refused, tellMore extends this notice. It adds
// everything that has become owed in the meantime.
func (st *state) tellMore(a *attempt, now int64) {
	told := a.told
	if told == nil || !st.nextNotice(a, now) {
		return
	}
	n := &a.notice.notice
	n.Items, n.Batch = append(slices.Clone(told.Items), n.Items...), append(slices.Clone(told.Batch), n.Batch...)
	n.Questions = append(st.openAsks(told.Questions), n.Questions...)
	n.Omitted += told.Omitted
	if n.Closing = n.Live == 0 && (n.Closing || told.Closing); !n.Closing {
		n.Batch, n.Omitted = nil, 0
	}
	a.prompt, a.told = "", nil
}

// startsLater makes the time to live for the attempt's start begin at the given time, because the
// time that the attempt has spent waiting does not count.
func (st *state) startsLater(a *attempt, from int64) {
	a.startFrom = from
	if st.storing != nil {
		st.storing.task(a.t).since = from
	}
}

// parkLimit is called when the wait of a parked attempt for its provider has reached its limit.
func (st *state) parkLimit(a *attempt, now int64) {
	r := a.refused
	switch c := st.coolDown(a.t); {
	case c.Refusals == 0 || c.Proved: // the provider accepts requests again, so the attempt waits only for a slot
		r.limit = now + parkMost
	case c.Since+parkMost > now:
		r.limit = c.Since + parkMost
	case c.Reset > now && r.retryAt == 0 && c.Reset-now <= int64(st.limit(limitMaxPark)):
		r.limit = c.Reset + parkMost
	case r.tries < parkTries && r.since+int64(st.limit(limitMaxPark)) > now: // the pool's slots went to other attempts, so this attempt was tried only a few times
		r.limit = min(now+parkMost, r.since+int64(st.limit(limitMaxPark)))
	default:
		r.ends, r.endsWhy = CauseRateLimited, reasonWaited(r, st.wall(r.retryAt))
		if st.mayFallBack(a, r.kind, r.step) {
			st.falls(a)
		} else {
			st.end(a.t, r.ends, r.endsWhy, now)
		}
		return
	}
	st.changed(a.t)
}

// pausedUntil returns the time before which the task cannot begin a turn because its pool cools
// down. It returns 0 if the task does not wait for its pool or that time has passed.
func (st *state) pausedUntil(t *task, now int64) int64 {
	parked := t.run != nil && t.run.live() && t.run.awaitsProvider()
	if !parked && (t.status != Pending || t.is(flagAwaitsQuiet)) {
		return 0
	}
	if c := st.coolDown(t); c.Refusals > 0 && c.Until > now {
		return c.Until
	}
	return 0
}

// pausesLong reports whether the pause before the task's next turn is too long for a caller to
// wait.
func (st *state) pausesLong(t *task, now int64) bool {
	return st.slots.Cools() && st.pausedUntil(t, now) > now+pauseMost
}

// showParked sets the fields of a snapshot that describe a parked attempt.
func (st *state) showParked(a *attempt, s *Task) {
	s.Reason = reasonParked(a.refused)
	s.Until = st.wall(st.pausedUntil(a.t, st.now))
}

// provesPool records that the provider accepts requests, as a turn of the attempt has shown.
func (st *state) provesPool(a *attempt) {
	if !st.slots.Cools() {
		return
	}
	for _, next := range st.slots.Proved(&a.t.wait) {
		st.noteGrant(next)
	}
}

// showsOutput calls provesPool if a starter's turn has produced output and no provider error has
// been seen.
func (st *state) showsOutput(a *attempt) {
	if a.sight.output && a.sight.provider == nil {
		st.provesPool(a)
	}
}

// queueEnd is called when the alarm for a pending task's queue time to live rings. It returns the
// time at which the queue time to live really expires. That is now, or later if the task's pool has
// been cooling down, because a cool-down does not count towards the queue time to live.
func (st *state) queueEnd(t *task, now int64) int64 {
	c := st.coolDown(t)
	if c.Refusals == 0 || st.limit(limitQueueTimeToLive) <= 0 {
		return now
	}
	end := t.queued + int64(st.limit(limitQueueTimeToLive)) + max(c.Until-max(c.Since, t.queued), 0)
	if c.Until > now {
		return max(end, c.Until+1)
	}
	return end
}

// parkedInTree returns the number of live tasks of the tree that wait for a provider, and the
// earliest time at which one of them can continue.
func (st *state) parkedInTree(top *node, now int64) (n int, until time.Time) {
	if !st.slots.Cools() {
		return 0, until
	}
	top.each(func(t *task) {
		if at := st.pausedUntil(t, now); t.live() && at > 0 {
			if n++; until.IsZero() || st.wall(at).Before(until) {
				until = st.wall(at)
			}
		}
	})
	return n, until
}
