package bgagent

import (
	"cmp"
	"time"
)

// The code in this file decides when notices are pushed to a root session, and applies the result.

// delivery is the state of delivering notices to a session. At most one goroutine delivers to a
// root session:
//
//	a notice is due -> schedule (now or when the alarm rings) -> delivering
//	delivering -> status of the session: busy -> a sweep sees the session idle -> schedule
//	           -> unsure or silent: retried after a pause (retry)
//	           -> idle, or no client reports the status: pack -> flying -> recorded: delivered
//	                                                          -> busy: unpacked, or retried
//	                                                          -> no notifier knows the session: becomes a scope
//	                                                          -> failed: the same envelope again, after a pause
//
// The delivery of a notice is abandoned after noticeGiveUp or after noticeTries tries, whichever
// comes first. Notices for a task's session are delivered in its next turn (see parked). For a
// task's session, only the fields "env" and "alarm" are used.
type delivery struct {
	env        *envelope // envelope that is being delivered or waits for its next try
	adrift     *envelope // envelope that was abandoned while it was being delivered
	delivering bool      // a goroutine is delivering
	scope      bool      // no notifier knows the session; its notices wait until a host takes them
	alarm      alarm     // when schedule checks the node again

	busy   *client // client whose sweeps watch the session until it is idle; nil if the session is not busy
	retry  int64   // earliest time of the next try
	trying int64   // when the blocked delivery was first due; 0 if no delivery is blocked
	fails  int     // number of consecutive status queries that did not return the status
	silent int     // like the field "fails", but counts only queries that a client answered without mentioning the session
}

// forgetLooks resets the counts of status queries that did not return the status.
func (d *delivery) forgetLooks() { d.fails, d.silent = 0, 0 }

// The method "unblocked" records that no delivery is blocked.
func (d *delivery) unblocked() { d.trying = 0 }

// schedule decides whether to deliver a notice to the node now, later or not at all.
func (st *state) schedule(n *node, now int64) {
	if n.env == nil {
		n.env = n.nextAgain()
	}
	st.wakeNode(n)
	if st.closing || st.recovery.due || st.isLost() {
		return
	}
	if p := n.parentTask(); p != nil {
		st.scheduleTurn(n, p, now)
		return
	}
	if n.delivering || n.scope || n.gone || st.cfg.Wake == WakeNever || !st.cfg.notifies {
		return
	}
	st.leavePushed(n)
	at := st.dueAt(n)
	if n.env != nil {
		at = n.env.next
	}
	switch {
	case n.trying > 0 && now-n.trying >= int64(noticeGiveUp):
		st.logText(logNoticeGivenUp, n.session, "")
		st.giveUp(n, now)
	case at == 0:
	case n.busy != nil: // a sweep will report when the session is idle
		n.trying = cmp.Or(n.trying, now)
		st.deadlines.nodes.set(&n.alarm, n, n.trying+int64(noticeGiveUp))
	case max(at, n.retry) <= now:
		n.delivering = true
		n.trying = cmp.Or(n.trying, now)
		st.rare().after.deliver = append(st.rare().after.deliver, n)
	default:
		st.deadlines.nodes.set(&n.alarm, n, max(at, n.retry))
	}
}

// dueAt returns the time at which the node's notices are due. It returns 0 if the time is not known
// yet, because the notices wait for the end of the batch.
func (st *state) dueAt(n *node) (at int64) {
	at = st.endsDueAt(n)
	if n.asksFrom > 0 {
		if asks := n.asksFrom + st.noticeWindow(); at == 0 || asks < at {
			return asks
		}
	}
	return at
}

// noticeWindow returns how long a due notice waits for the ends of further tasks.
func (st *state) noticeWindow() int64 { return int64(max(st.limit(limitNoticeWindow), 0)) }

// endsDueAt is like dueAt, but considers only debts, not questions.
func (st *state) endsDueAt(n *node) (at int64) {
	switch {
	case n.nOwed == 0:
		return 0
	case n.urgent > 0:
		at = n.urgent + st.noticeWindow()
	case st.limit(limitNoticeMaxWait) > 0:
		at = n.oldest + int64(st.limit(limitNoticeMaxWait))
	default:
		return 0
	}
	return max(at, 1)
}

// leavePushed stops pushing notices that several processes have pushed without recording a
// delivery. These notices wait until they are taken. The host might have received them each time,
// or each process might have crashed because of them.
func (st *state) leavePushed(n *node) {
	for n.env != nil && st.pushedOften(n.env) {
		st.toldAsks(n.env.asks) // a host that got the notice knows these questions, and they can be read like any open question
		if n.env.asks = nil; !n.env.empty() {
			n.hold().left = append(n.hold().left, n.env)
		}
		n.env = n.nextAgain()
		st.logText(logNoticeLeft, n.session, "")
		st.nodeChanged(n)
		st.wakeNode(n)
	}
}

// pushedOften reports whether the notice has been pushed so often that it must not be pushed again.
func (st *state) pushedOften(env *envelope) bool {
	return st.cfg.notifierForgets && !env.pushed && env.pushes >= noticePushes
}

// unpush makes the notice count as not pushed by this process, because the host did not record it.
func (st *state) unpush(n *node, env *envelope) {
	if env.pushed {
		env.pushed = false
		env.pushes--
		st.nodeChanged(n)
	}
}

// wakeNode wakes the callers of NextNotice that wait for the node's notices, and the callers that wait
// until all work has stopped.
func (st *state) wakeNode(n *node) {
	st.wakeDrainers()
	for _, w := range n.waiters {
		st.fx.after.wakes.add(w)
	}
}

// parentState is the status of a root session before a delivery, as its clients report it.
type parentState uint8

const (
	parentReady  parentState = iota // idle, or no client can report the status
	parentBusy                      // in a turn
	parentUnsure                    // the status could not be read
	parentSilent                    // a client answered but did not mention the session
)

// After silentLooks consecutive answers that do not mention the session, the client counts as not
// knowing the session. The notice is then passed to the Notifier.
const silentLooks = 3

// beginDelivery returns the envelope to deliver now. If no envelope can be delivered now,
// beginDelivery ends the delivery and returns nil.
func (st *state) beginDelivery(n *node, state parentState, cl *client, now int64) *envelope {
	wait := func() *envelope {
		n.delivering = false
		st.touchNode(n)
		return nil
	}
	if n.env != nil || st.dueAt(n) > 0 {
		n.trying = cmp.Or(n.trying, now) // the field "trying" is 0 if this goroutine has just delivered another notice
	}
	switch {
	case st.closing || n.gone || n.scope:
		return wait()
	case state == parentBusy:
		n.forgetLooks()
		n.busy = cl
		cl.parents[n] = struct{}{}
		st.wantPoll(cl)
		return wait()
	case state == parentUnsure, state == parentSilent && n.silent+1 < silentLooks:
		if n.fails++; state == parentSilent {
			n.silent++
		}
		n.retry = now + int64(backoff(n.fails))
		return wait()
	}
	n.forgetLooks()
	st.leavePushed(n)
	if n.env == nil {
		if at := st.dueAt(n); at == 0 || max(at, n.retry) > now {
			return wait()
		}
		n.env = st.pack(n, now)
	}
	if n.env == nil || max(n.env.next, n.retry) > now {
		return wait()
	}
	n.env.flying = true
	return n.env
}

// noticeAnswer is a host's answer to a notice.
type noticeAnswer uint8

const (
	noticeRecorded noticeAnswer = iota // the notice was recorded or queued
	noticeBusy                         // the session is busy; nothing was recorded
	noticeNobody                       // no notifier knows the session
	noticeFailed                       // the delivery failed, but the notice might have been recorded
)

// endDelivery applies the answer to a notice. If the delivery failed, detail is the reason.
func (st *state) endDelivery(n *node, env *envelope, answer noticeAnswer, detail string, now int64) {
	env.flying = false
	if n.env != env { // the node has abandoned the envelope during the delivery
		n.adrift = nil
		if answer == noticeRecorded {
			st.arrived(env, now)
		} else {
			env.setReclaimable(true)
		}
		st.wakeNode(n)
		return
	}
	env.tries++
	if answer == noticeBusy {
		st.unpush(n, env)
	}
	switch {
	case answer == noticeRecorded:
		st.delivered(n, NoticeDelivered, now)
	case answer == noticeBusy && env.tries == 1:
		// Nothing was recorded, so tasks that end later can still be added to the notice.
		st.unpack(n, env)
		n.retry = now + int64(st.limit(limitPollInterval))
	case answer == noticeBusy:
		env.tries--
		env.next = now + int64(st.limit(limitPollInterval))
	case answer == noticeNobody:
		st.unpack(n, env)
		n.scope = true // the notices wait until a host takes them
		for _, d := range n.owed {
			if d.t != nil {
				st.expirable(d.t, now)
			}
		}
	case env.tries >= noticeTries || now-n.trying >= int64(noticeGiveUp):
		st.logText(logNoticeGivenUp, n.session, detail)
		st.giveUp(n, now)
	default:
		env.next = now + int64(backoff(env.tries))
		st.logText(logNoticeFailed, n.session, detail)
	}
	if env.empty() && n.env == env {
		n.env = nil // all results that the envelope reports have been read
	}
	st.touchNode(n)
}

// abandonDelivery ends a delivery before the notice has been passed to a host. The notice stays
// owed, and a host can take it.
func (st *state) abandonDelivery(n *node, env *envelope) {
	st.unpush(n, env)
	env.flying, n.delivering = false, false
	if env.tries == 0 {
		n.notSent(env)
	}
	if n.env == env && env.empty() {
		n.env = nil
		st.nodeChanged(n)
	}
	if n.env != env && n.adrift == env {
		n.adrift = nil
		env.setReclaimable(true)
	}
	st.touchNode(n)
}

// backoff returns the pause after the given number of consecutive failures: 1 s, 2 s, 4 s … 1 h.
func backoff(failures int) time.Duration {
	return min(time.Second<<min(failures-1, 20), noticeBackoffMax)
}

// The method "delivered" settles all debts in the node's envelope. Their notices get the state s.
func (st *state) delivered(n *node, s NoticeState, now int64) {
	env := n.env
	n.env = nil
	n.unblocked()
	for _, d := range env.debts {
		st.settleDebt(d, s, now)
	}
	st.arrived(env, now)
	st.toldAsks(env.asks)
	if n.nOwed == 0 {
		n.compact()
	}
	st.touchNode(n)
}

// unpack puts the contents of an envelope back into the outbox. No host has recorded the envelope.
// If all results that it reports have been read, the envelope is empty.
func (st *state) unpack(n *node, env *envelope) {
	n.env = nil
	n.notSent(env)
	oldest, urgent := n.oldest, n.urgent
	if len(env.debts)+len(env.closed) > 0 {
		oldest, urgent = env.since, env.since
	}
	for _, d := range append(env.debts, n.emptyOwed()...) {
		if d.t == nil {
			continue
		}
		if d.t.no == d.no {
			d.t.setDebt(len(n.owed))
		}
		n.owed = append(n.owed, d)
		n.nOwed++
	}
	n.closed = append(env.closed, n.closed...)
	n.omitted += env.omitted
	n.oldest, n.urgent = oldest, urgent
	n.compact()
	if len(env.notice.Questions) > 0 && len(n.closed) == 0 && n.live > 0 && st.cfg.Wake != WakeEach {
		n.urgent = n.urgentSince() // the notice was packed early because of its questions, so its debts wait for the end of their batch again
	}
	if len(env.asks) > 0 {
		n.asks, n.asksFrom = append(env.asks, n.asks...), env.since
	}
}

// notBusy stops waiting for a busy session to become idle.
func (n *node) notBusy() {
	if n.busy != nil {
		delete(n.busy.parents, n)
		n.busy = nil
	}
}

// parentIdle schedules the delivery to a session that was busy and is now idle.
func (st *state) parentIdle(n *node) {
	n.notBusy()
	n.retry = 0
	st.touchNode(n)
}
