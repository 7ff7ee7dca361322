package bgagent

import (
	"time"

	"github.com/bgagent/bgagent/internal/slots"
)

// The code in this file handles slots that come from a SlotSource. Without Config.Slots,
// state.claims is nil, and a task needs only a slot of state.slots.
//
// With Config.Slots, the pools of state.slots have no limits, so they hold back tasks only while
// they cool down. A task that gets a slot there asks the source for a slot as well, and starts once
// the source has granted it:
//
//	askForSlot -> a slot of state.slots -> ask -> the source grants -> granted: the task starts
//	releaseSlot -> the source gets its slot back
//	the source loses the slot -> slotLost -> end, or claimAnew if the slot was not used yet
//
// Updates only queue the calls to the source. A goroutine makes the calls later, in the same order.

// claims holds the requests to a SlotSource.
type claims struct {
	of    map[*task]*claim // the claim of each task that waits for a slot or holds one
	queue []claimCall      // calls to the source that must be made, in this order
	busy  bool             // a goroutine is making the calls
}

// claim is a task's request for a slot. A task that asks for another slot gets a new claim.
type claim struct {
	t       *task
	queued  time.Time
	head    bool
	since   int64 // when the source was asked
	running bool  // the slot covers work that an earlier process began; no new turn begins with it
	asked   bool  // the source was asked, or will be
	granted bool  // the source has granted the slot
	slot    *sourceSlot
}

// claimCall is a call to the source. If release is set, the call is Release. If cool is set, the
// call reports a cool-down to the other users of the source. Otherwise, it is Request.
type claimCall struct {
	c       *claim
	request SlotRequest
	release bool
	cool    *CoolDown
}

// newClaims returns the claims for a state whose slots come from the source. If there is no source,
// it returns nil.
func newClaims(from SlotSource) *claims {
	if from == nil {
		return nil
	}
	return &claims{of: map[*task]*claim{}}
}

// newClaim creates the claim of a task that is about to take a slot from state.slots. The claim's place
// in line depends on how long the task has been waiting.
func (st *state) newClaim(t *task, head bool, ticket uint64) {
	queued := st.now
	switch {
	case ticket < slots.FirstTicket: // with a ticket this low, the place depends on when the work was first queued
		queued = st.firstQueued(t)
	case t.status == Pending:
		queued = t.queued
	}
	st.claims.of[t] = &claim{t: t, head: head, queued: st.wall(queued), slot: &sourceSlot{}}
}

// claimRunning asks the source for the slot of a task that began in an earlier process. The slot
// counts as granted immediately.
func (st *state) claimRunning(t *task) {
	if st.claims == nil {
		return
	}
	st.newClaim(t, false, slots.FirstTicket)
	c := st.claims.of[t]
	c.running, c.granted = true, true
	st.askSource(c)
}

// hasOwnClaim reports whether the source has granted a slot for the attempt's next host call. A slot
// for work that an earlier process began cannot be used for the call: that slot might exceed the
// source's limits, or the source might not know about it yet. Instead, the attempt asks for a new
// slot for the call, at the head of the line.
func (st *state) hasOwnClaim(a *attempt) bool {
	return st.claims == nil || st.claimed(a)
}

func (st *state) claimed(a *attempt) bool {
	if st.claims.of[a.t].running {
		st.claimAnew(a)
	}
	return st.claims.of[a.t].granted
}

// claimAnew replaces the attempt's claim with a request at the head of the line. The attempt keeps its slot
// from state.slots, and its next host call is made when the source grants the request; see goesOn.
func (st *state) claimAnew(a *attempt) {
	old := st.claims.of[a.t]
	st.newClaim(a.t, true, slots.FirstTicket-1)
	st.askSource(st.claims.of[a.t])
	st.callSource(claimCall{c: old, release: true}) // release the old slot only now, so that the attempt is already in line when the slot becomes free
	st.setDeadline(a, st.now)
	st.wakeTask(a.t)
}

// isUnused reports whether the attempt has a slot, but waits for the store before it makes the host call for
// which it got the slot. No part of the attempt is running at that time. For a second after the request,
// the result is always false: with a source that loses every slot immediately, the manager would otherwise
// request slots endlessly.
func (st *state) isUnused(c *claim) bool {
	a := c.t.run
	return c.granted && !c.running && st.now-c.since >= int64(time.Second) &&
		a != nil && a.live() && !a.inCall && !a.recovering && a.heldAt == 0 && a.stage != stageNone
}

// awaitsClaim reports whether the attempt waits for the slot that claimAnew has requested.
func (st *state) awaitsClaim(a *attempt) bool {
	return st.claims != nil && a.t.is(flagSlot) && !st.claims.of[a.t].granted
}

// goesOn requests the host call of an attempt that was waiting for the claim (see awaitsClaim). The
// claim has now been granted.
func (st *state) goesOn(c *claim) {
	a := c.t.run
	if !a.live() {
		return
	}
	if a.turn == 0 { // while the claim waited, the start's time to live was paused
		st.startsLater(a, st.startedAt(a)+st.now-c.since)
	}
	st.setDeadline(a, st.now)
	st.wantCall(a)
}

// mayStart reports whether a task that has a slot of state.slots may start. With Config.Slots, the
// source must also have granted the task a slot. If the source has not been asked for it yet,
// mayStart asks.
func (st *state) mayStart(t *task) bool {
	if st.claims == nil {
		return true
	}
	c := st.claims.of[t]
	if !c.asked {
		st.askSource(c)
	}
	return c.granted
}

// isInLine reports whether the task waits for a slot.
func (st *state) isInLine(t *task) bool {
	if st.slots.Waits(&t.wait) {
		return true
	}
	return st.claims != nil && st.claims.of[t] != nil && !st.claims.of[t].granted
}

// mayHaveSlotSoon reports whether the source was asked for the slot of the task so recently that it might
// not have answered yet.
func (st *state) mayHaveSlotSoon(t *task, now int64) bool {
	if st.claims == nil {
		return false
	}
	c := st.claims.of[t]
	return c != nil && c.asked && !c.granted && now-c.since < int64(sourceWithin)
}

// sourceWithin is how long a source may take to grant a free slot. After that, a task that runs
// another task in the foreground assumes that no slot is free.
const sourceWithin = time.Second

func (st *state) askSource(c *claim) {
	c.asked, c.since = true, st.now
	k := &c.t.kind.key
	root, _ := c.t.up.root()
	st.callSource(claimCall{c: c, request: SlotRequest{
		Model: k.model, Agent: k.agent, Root: root.session, Head: c.head, Queued: c.queued, Running: c.running,
	}})
}

// dropClaim gives the slot of the task, or its place in line, back to the source. It is not inlined, because
// it is rare and would enlarge the stack of every worker.
//
//go:noinline
func (st *state) dropClaim(t *task) {
	c := st.claims.of[t]
	if delete(st.claims.of, t); c != nil && c.asked {
		st.callSource(claimCall{c: c, release: true})
	}
}

// tellCool reports to the other users of the source that a turn of the task was refused. If
// provider is true, the refusal concerns all models of the provider. The reported end of the
// cool-down does not include a random addition, because each user adds its own. Otherwise, the
// additions would accumulate, and the cool-down would grow with each report.
func (st *state) tellCool(t *task, provider bool, now int64) {
	if st.claims == nil {
		return
	}
	c, k := st.coolDown(t), &t.kind.key
	d := &CoolDown{Model: k.model, Agent: k.agent, Provider: provider, For: time.Duration(c.Base - now)}
	if c.Reset > now {
		d.RetryIn = time.Duration(c.Reset - now)
	}
	st.callSource(claimCall{cool: d})
}

func (st *state) callSource(x claimCall) {
	q := st.claims
	q.queue = append(q.queue, x)
	if !q.busy {
		q.busy = true
		st.rare().now.askSlots = true
	}
}

// nextClaimCalls returns the calls to the source that must be made now. If there are none, the
// goroutine that makes them ends.
func (st *state) nextClaimCalls() (calls []claimCall) {
	calls, st.claims.queue = st.claims.queue, nil
	st.claims.busy = len(calls) > 0
	return calls
}

// sourceGranted is called when the source has granted the slot of the claim.
func (st *state) sourceGranted(c *claim) {
	if st.claims.of[c.t] != c || c.granted || st.suspend == frozen {
		return
	}
	c.granted = true
	if c.t.is(flagSlot) {
		st.goesOn(c)
		return
	}
	st.due.granted = append(st.due.granted, c.t)
}

// slotLost ends the attempt whose slot, or whose place in line, the source has lost. The session of
// the attempt must have stopped by the given time; otherwise, it counts as a session that could not
// be stopped. If the attempt has not used its slot yet, it waits for another one instead.
func (st *state) slotLost(c *claim, until int64, reason string, now int64) {
	t := c.t
	if st.claims.of[t] != c || st.suspend == frozen {
		return
	}
	if st.isUnused(c) {
		st.claimAnew(t.run)
		return
	}
	if !t.is(flagAwaitsQuiet) { // otherwise, the slot belongs to an earlier attempt, which is being stopped
		st.end(t, CauseSlotLost, reason, now)
	}
	if a := t.run; a != nil && a.ended && !a.overrun {
		if a.slotEnd = max(until, now); a.stopEnd > a.slotEnd {
			a.stopEnd = a.slotEnd
			st.setDeadline(a, now)
		}
	}
}

// isSlotOver reports whether the slot of the attempt is lost and might already belong to others. In
// that case, a starter's session is no longer aborted, because another manager might have continued
// it.
func (st *state) isSlotOver(a *attempt) bool { return a.slotEnd != 0 && a.slotEnd <= st.now }

// handsOverWithSlot records that the prepared prompt is about to be handed over, now that the
// source has confirmed the slot for it. It returns false if the attempt has ended or the manager is
// suspended.
func (st *state) handsOverWithSlot(a *attempt, now int64) bool {
	if !a.live() || st.suspend == frozen {
		return false
	}
	st.promptBegins(a, now)
	return true
}

// slotGone ends an attempt whose prepared host call must not be made, because its slot is lost. The turn has
// not begun, so the session does not get the prompt.
func (st *state) slotGone(a *attempt, reason string, now int64) {
	if !a.live() || st.suspend == frozen { // an ended attempt needs no call; if the manager is frozen, the next process makes the call
		return
	}
	if a.stage == stagePrompt {
		a.turn--
		a.turnStart = 0
		st.oweAgain(a) // the agent has received neither the notice nor the message
	}
	st.end(a.t, CauseSlotLost, reason, now)
}

// releaseSlot releases the task's slot, or its place in line. The method "settle" continues with
// the task that gets the slot.
func (st *state) releaseSlot(t *task) {
	t.set(flagSlot, false)
	if st.claims != nil {
		st.dropClaim(t)
	}
	next, more := st.slots.Leave(&t.wait)
	if next != nil {
		st.noteGrant(next)
	}
	for _, next := range more {
		st.noteGrant(next)
	}
}

// noteGrant makes the method "settle" continue with the task that got a slot. If the task belongs
// to another manager, that manager is informed after the update.
func (st *state) noteGrant(next *slots.Waiter) {
	if t, ok := next.Owner.(*task); ok && t.st == st { // records of another manager must not be read without that manager's lock
		st.due.granted = append(st.due.granted, t)
		return
	}
	st.noteForeignGrant(next)
}

// noteForeignGrant is not inlined, because it is rare and would enlarge the stack of every worker.
//
//go:noinline
func (st *state) noteForeignGrant(next *slots.Waiter) {
	rare := st.rare()
	rare.after.grants = append(rare.after.grants, next)
}
