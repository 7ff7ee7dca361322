package bgagent

import (
	"cmp"
	"time"
)

// delivery is how a session learns what it is owed. One goroutine at a time tells a root session:
//
//	a notice is due -> schedule, at once or by the alarm: delivering
//	delivering -> its status: busy -> a sweep sees it idle -> schedule
//	           -> unsure or silent: again after a pause (retry)
//	           -> idle, or nobody can tell: pack -> flying -> recorded: delivered
//	                                                      -> busy: unpacked, or tried again
//	                                                      -> nobody can notify it: a scope
//	                                                      -> failed: the same envelope again, after a pause
//
// A notice is given up after noticeGiveUp or noticeTries, whichever comes first. The session of a
// task is told by its next turn (see parked) and uses only env and alarm.
type delivery struct {
	env        *envelope // is being delivered, or waits for its next try
	adrift     *envelope // was given up while it was being delivered
	delivering bool      // a goroutine is delivering
	scope      bool      // nobody can notify it: notices wait until a host takes them
	alarm      alarm     // when to look again

	busy   *client // the client whose sweeps watch for its idle, if it was busy; else nil
	retry  int64   // earliest time of the next try
	trying int64   // when delivery first became due and blocked; 0 if it is not blocked
	fails  int     // number of looks in a row that did not tell its status
	silent int     // number of these that a client answered without mentioning the session
}

// forgetLooks resets the counts of looks that did not tell the status.
func (d *delivery) forgetLooks() { d.fails, d.silent = 0, 0 }

// unblocked resets the time since which delivery is blocked.
func (d *delivery) unblocked() { d.trying = 0 }

// schedule decides whether to tell the node now, later or not at all.
func (st *state) schedule(n *node, now int64) {
	st.wakeNode(n)
	if st.closing {
		return
	}
	if p := n.parentTask(); p != nil {
		st.scheduleTurn(n, p, now)
		return
	}
	if n.delivering || n.scope || n.gone || st.cfg.Wake == WakeNever || !st.cfg.notifies {
		return
	}
	at := st.dueAt(n)
	if n.env != nil {
		at = n.env.next
	}
	switch {
	case n.trying > 0 && now-n.trying >= int64(noticeGiveUp):
		st.logText(logNoticeGivenUp, n.session, "")
		st.giveUp(n, now)
	case at == 0:
	case n.busy != nil: // a sweep will see it idle
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

// wakeNode wakes the waiters in NextNotice.
func (st *state) wakeNode(n *node) {
	st.wakeDrainers()
	for _, w := range n.waiters {
		st.fx.after.wakes.add(w)
	}
}

// parentState is what the clients tell about a root session before a delivery.
type parentState uint8

const (
	parentReady  parentState = iota // idle, or no client can tell
	parentBusy                      // in a turn
	parentUnsure                    // its status could not be read
	parentSilent                    // a client answered and did not mention it
)

// silentLooks is how often in a row a client may answer without mentioning a session. After that
// the client counts as not knowing the session, and the Notifier decides.
const silentLooks = 3

// beginDelivery returns the envelope to deliver now. If there is none, it ends the delivery.
func (st *state) beginDelivery(n *node, state parentState, cl *client, now int64) *envelope {
	wait := func() *envelope {
		n.delivering = false
		st.touchNode(n)
		return nil
	}
	if n.env != nil || st.dueAt(n) > 0 {
		n.trying = cmp.Or(n.trying, now) // an earlier notice of this goroutine has reset it
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

// noticeAnswer is how a host answered a notice.
type noticeAnswer uint8

const (
	noticeRecorded noticeAnswer = iota // recorded or queued
	noticeBusy                         // not now; nothing was recorded
	noticeNobody                       // nobody can notify this session
	noticeFailed                       // may still have been recorded
)

// endDelivery applies the answer to a notice. detail says why the delivery failed.
func (st *state) endDelivery(n *node, env *envelope, answer noticeAnswer, detail string, now int64) {
	env.flying = false
	if n.env != env { // it was given up meanwhile
		n.adrift = nil
		if answer != noticeRecorded {
			env.setReclaimable(true)
		}
		st.wakeNode(n)
		return
	}
	env.tries++
	switch {
	case answer == noticeRecorded:
		st.delivered(n, NoticeDelivered, now)
	case answer == noticeBusy && env.tries == 1:
		// Nothing was recorded, so later ends may join the notice.
		st.unpack(n, env)
		n.retry = now + int64(st.limit(limitPollInterval))
	case answer == noticeBusy:
		env.tries--
		env.next = now + int64(st.limit(limitPollInterval))
	case answer == noticeNobody:
		st.unpack(n, env)
		n.scope = true // held for NextNotice
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
	if len(env.debts) == 0 && n.env == env {
		n.env = nil // all its ends were read meanwhile
	}
	st.touchNode(n)
}

// backoff returns the pause after that many failures in a row: 1 s, 2 s, 4 s … 1 h.
func backoff(failures int) time.Duration {
	return min(time.Second<<min(failures-1, 20), noticeBackoffMax)
}

// delivered settles everything in the node's envelope.
func (st *state) delivered(n *node, s NoticeState, now int64) {
	env := n.env
	n.env = nil
	n.unblocked()
	for _, d := range env.debts {
		st.settleDebt(d, s, now)
	}
	if n.nOwed == 0 {
		n.compact()
	}
	st.touchNode(n)
}

// unpack returns the contents of an envelope that no host has seen to the outbox. Its ends may all
// have been read meanwhile.
func (st *state) unpack(n *node, env *envelope) {
	n.env = nil
	for _, d := range append(env.debts, n.emptyOwed()...) {
		if d.t == nil {
			continue
		}
		if d.t.no == d.no {
			d.t.debt = int32(len(n.owed))
		}
		n.owed = append(n.owed, d)
		n.nOwed++
	}
	n.closed = append(env.closed, n.closed...)
	n.omitted += env.omitted
	n.oldest, n.urgent = env.since, env.since
	n.compact()
}

// notBusy stops the polling for a busy parent.
func (n *node) notBusy() {
	if n.busy != nil {
		delete(n.busy.parents, n)
		n.busy = nil
	}
}

// parentIdle schedules the delivery to a parent that was busy and is idle now.
func (st *state) parentIdle(n *node) {
	n.notBusy()
	n.retry = 0
	st.touchNode(n)
}
