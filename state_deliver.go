package bgagent

import (
	"cmp"
	"time"
)

// delivery is how a session learns what it is owed. A root session is told by one
// goroutine at a time:
//
//	nothing due -> due -> the alarm, or schedule: delivering
//	delivering -> its status: busy -> a sweep sees it idle -> schedule
//	           -> unsure, untold: again after a pause (retry)
//	           -> idle, or nobody can say: pack -> flying -> recorded: delivered
//	                                                     -> busy: unpacked, or tried again
//	                                                     -> nobody can tell it: a scope
//	                                                     -> failed: the same envelope again, after a pause
//
// What could not be told for noticeGiveUp, or in noticeTries tries, is given up.
// The session of a task is told by its next turn (see parked); of delivery it uses
// env and alarm alone.
type delivery struct {
	env        *envelope // what is being delivered, or to be tried again
	adrift     *envelope // given up while it was being delivered
	delivering bool      // a goroutine delivers to it
	scope      bool      // nobody can notify it: what it is owed waits to be taken
	alarm      alarm     // when to look again

	busy   *client // it was busy when last looked at: this client's sweeps ask for it
	retry  int64   // not before
	trying int64   // when delivery first became due and blocked; 0 if it is not blocked
	fails  int     // looks at its status in a row that told nothing
	untold int     // those of them that were answered
}

// looked forgets what earlier looks at the status have told.
func (d *delivery) looked() { d.fails, d.untold = 0, 0 }

// unblocked forgets that delivery was blocked: something has been told, or nothing
// is owed any more.
func (d *delivery) unblocked() { d.trying = 0 }

// schedule looks whether the node is to be told now, later or not at all.
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
	case n.busy != nil: // a sweep sees when it is not any more
		n.trying = cmp.Or(n.trying, now)
		st.deadlines.nodes.set(&n.alarm, n, n.trying+int64(noticeGiveUp))
	case max(at, n.retry) <= now:
		n.delivering = true
		n.trying = cmp.Or(n.trying, now)
		st.rare().deliver = append(st.rare().deliver, n)
	default:
		st.deadlines.nodes.set(&n.alarm, n, max(at, n.retry))
	}
}

// scheduleTurn has a waiting task told as its next turn: it goes to the
// head of the line for a slot.
func (st *state) scheduleTurn(n *node, p *task, now int64) {
	a := p.run
	if a == nil || !a.live() || a.why != forTasks || a.wantTurn {
		return
	}
	switch at := st.dueAt(n); {
	case at == 0:
	case at <= now:
		a.wantTurn = true
		st.takeSlot(p, true)
	default:
		st.deadlines.nodes.set(&n.alarm, n, at)
	}
}

// wakeNode wakes those who wait in NextNotice.
func (st *state) wakeNode(n *node) {
	st.wakeDrainers()
	for _, w := range n.waiters {
		st.fx.wakes.add(w)
	}
}

// parentState is what the manager knows of a root session before it tells it.
type parentState uint8

const (
	parentReady  parentState = iota // idle, or nobody can say
	parentBusy                      // in a turn
	parentUnsure                    // its status could not be read
	parentUntold                    // a client answered, and did not say
)

// untoldLooks is how often in a row a client may answer without saying anything
// about a parent before it is taken not to know it: then the Notifier decides.
const untoldLooks = 3

// beginDelivery returns what is to be delivered now, or ends the delivery.
func (st *state) beginDelivery(n *node, state parentState, cl *client, now int64) *envelope {
	wait := func() *envelope {
		n.delivering = false
		st.touchNode(n)
		return nil
	}
	if n.env != nil || st.dueAt(n) > 0 {
		n.trying = cmp.Or(n.trying, now) // what was told before, by this goroutine, has reset it
	}
	switch {
	case st.closing || n.gone || n.scope:
		return wait()
	case state == parentBusy:
		n.looked()
		n.busy = cl
		cl.parents[n] = struct{}{}
		st.poll(cl)
		return wait()
	case state == parentUnsure, state == parentUntold && n.untold+1 < untoldLooks:
		if n.fails++; state == parentUntold {
			n.untold++
		}
		n.retry = now + int64(backoff(n.fails))
		return wait()
	}
	n.looked()
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

// noticeAnswer is what a host has said to a notice.
type noticeAnswer uint8

const (
	noticeTaken  noticeAnswer = iota // it is recorded or queued
	noticeBusy                       // not now, and nothing was recorded
	noticeNobody                     // nobody can tell this session
	noticeFailed                     // it may have been recorded all the same
)

// endDelivery takes the answer to a notice; detail says why it failed.
func (st *state) endDelivery(n *node, env *envelope, answer noticeAnswer, detail string, now int64) {
	env.flying = false
	if n.env != env { // given up meanwhile
		n.adrift = nil
		if answer != noticeTaken {
			env.lost(true)
		}
		st.wakeNode(n)
		return
	}
	env.tries++
	switch {
	case answer == noticeTaken:
		st.delivered(n, NoticeDelivered, now)
	case answer == noticeBusy && env.tries == 1:
		// Nothing was recorded: what ends meanwhile may join.
		st.unpack(n, env)
		n.retry = now + int64(st.cfg.PollInterval)
	case answer == noticeBusy:
		env.tries--
		env.next = now + int64(st.cfg.PollInterval)
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
		n.env = nil // all read meanwhile
	}
	st.touchNode(n)
}

// backoff returns the pause after so many failures in a row: 1 s, 2 s, 4 s … 1 h.
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

// unpack takes an envelope that nobody has seen apart again. All that was
// in it may have been read meanwhile.
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

// notBusy ends the polling for a busy parent.
func (n *node) notBusy() {
	if n.busy != nil {
		delete(n.busy.parents, n)
		n.busy = nil
	}
}

// parentIdle is called when a busy parent has fallen idle.
func (st *state) parentIdle(n *node) {
	n.notBusy()
	n.retry = 0
	st.touchNode(n)
}
