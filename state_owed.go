package bgagent

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bgagent/bgagent/internal/mdtext"
)

// The outbox holds the notices that sessions are owed. The code in state_deliver.go delivers them.
// A host that asks for a session's notices gets them from the method "take".
//
// These words have a fixed meaning here. When an attempt ends, its end becomes a debt to the
// session that delegated the task. A debt is owed until it is settled. NoticeState lists the ways
// to settle a debt. For delivery, debts are put into an envelope, which holds one notice. An
// envelope is adrift if it was abandoned while it was being delivered. A notice is reclaimable if
// its delivery was abandoned but a host can still take it. A scope is a session to which no
// notifier can deliver, so its notices wait until a host takes them. The type Wake explains what a
// batch is.

// outbox holds the debts to a session until they are packed into an envelope.
type outbox struct {
	owed        []debt   // debts that are not in an envelope; debt.t is nil once the debt is settled
	head        int      // index in the field "owed"; all debts before this index are settled
	nOwed       int      // number of unsettled debts in the field "owed"
	oldest      int64    // when the oldest unsettled debt arose
	urgent      int64    // when the first debt stopped waiting for the end of its batch; 0 if all debts wait
	members     []member // attempts of the open batch that have ended
	closed      []member // attempts of closed batches that have not been reported yet
	omitted     int      // number of members left out because there were too many
	asks        []*asked // questions that must still be reported to the session, oldest first
	asksFrom    int64    // when the first question in the field "asks" was asked; 0 if there is none
	reclaimable int      // number of tasks whose notices could not be delivered but can still be taken
}

// maxMembers is the maximum number of attempts that a batch keeps for its closing notice. Without
// this limit, the batch of a parent that always has a live task would grow forever.
const maxMembers = 1000

// The method "outstanding" returns the number of unsettled debts to the session, including those in
// its envelope and those that are about to be handed out.
func (n *node) outstanding() int {
	owed := n.nOwed + n.taking()
	if n.env != nil {
		owed += len(n.env.debts)
	}
	return owed
}

// The method "owe" creates the debt for an attempt that has ended. If no notice is needed, it marks
// the debt as settled immediately.
func (st *state) owe(t *task, now int64) {
	n := t.up
	if len(n.members) == 2*maxMembers { // drop many members at once, because each drop moves all remaining members
		n.omitted += maxMembers
		n.members = append(n.members[:0], n.members[maxMembers:]...)
	}
	if n.members == nil {
		n.members = make([]member, 0, n.roomForOwed())
	}
	n.members = append(n.members, member{t, t.no})
	st.noteBatch(t)
	switch p := n.parentTask(); {
	case t.is(flagForeground): // Run returns the ended task
		st.readByRun(t, now)
	case st.waived == t && n.session == st.waiver:
		st.settleNotice(t, NoticeWaived, now)
	case n.gone || p != nil && !p.live() && p.status != Completed:
		st.giveUpNotice(t, now)
	default:
		if n.owed == nil {
			n.owed = make([]debt, 0, n.roomForOwed())
		}
		t.setDebt(len(n.owed))
		n.owed = append(n.owed, debt{t, t.no, now})
		n.nOwed++
		if n.oldest == 0 {
			n.oldest = now
		}
		if n.urgent == 0 && (t.status != Completed || st.cfg.Wake == WakeEach) {
			n.urgent = now
		}
	}
	if n.live == 0 {
		st.closeBatch(n, now)
	}
	st.touchNode(n)
}

// closeBatch closes the node's open batch, because none of the node's tasks is live.
func (st *state) closeBatch(n *node, now int64) {
	if s := st.storing; s != nil {
		s.node(n).batch++
	}
	if n.nOwed == 0 {
		n.closed, n.members, n.omitted = nil, nil, 0
		return
	}
	n.closed, n.members = append(n.closed, n.members...), nil
	if more := len(n.closed) - maxMembers; more > maxMembers { // drop many members at once, because each drop moves all remaining members
		n.omitted += more
		n.closed = slices.Clone(n.closed[more:])
	}
	if n.urgent == 0 {
		n.urgent = now
	}
}

// roomForOwed estimates how many attempts the next notice will report: those of all live tasks and
// of the task that has just ended.
func (n *node) roomForOwed() int { return min(n.live+1, 128) }

// settleNotice settles the notice about the task's latest attempt.
func (st *state) settleNotice(t *task, s NoticeState, now int64) {
	t.notice = s
	t.setDebt(-1)
	st.emit(EventNotice, t)
	st.expirable(t, now)
}

// giveUpNotice abandons the delivery of the notice about the task's latest attempt. A host can
// still take the notice.
func (st *state) giveUpNotice(t *task, now int64) {
	t.setReclaimable(true)
	st.settleNotice(t, NoticeGivenUp, now)
	st.logTask(logGivenUp, t)
}

// setReclaimable sets whether a host can still take the notice about the latest attempt, although the
// notice could not be delivered.
func (t *task) setReclaimable(on bool) {
	switch {
	case t.is(flagReclaimable) == on:
		return
	case on:
		t.up.reclaimable++
	default:
		t.up.reclaimable--
	}
	t.set(flagReclaimable, on)
}

// settleDebt settles one debt. Its notice gets the state s.
func (st *state) settleDebt(d debt, s NoticeState, now int64) {
	if d.t.no != d.no {
		d.t.settlePast(d.no, s)
		st.expirable(d.t, now)
		return
	}
	if d.t.notice.Settled() {
		return // the delivery of the notice was abandoned, and a host is now taking the notice; its state does not change
	}
	if s == NoticeGivenUp {
		st.giveUpNotice(d.t, now)
	} else {
		st.settleNotice(d.t, s, now)
	}
}

// settleTask settles all notices about the task, because they are no longer needed.
func (st *state) settleTask(t *task, s NoticeState, now int64) {
	t.setReclaimable(false)
	if t.up.adrift != nil {
		t.up.adrift.drop(t)
	}
	if t.notice != NoticeOwed {
		return
	}
	t.settlePast(0, s)
	n := t.up
	n.unpackTask(t)
	if i := t.debt(); i >= 0 {
		n.owed[i].t = nil
		n.nOwed--
	}
	n.forgetDebts(t, s)
	st.settleNotice(t, s, now)
	n.compact()
	if n.closedSettled() {
		n.closed = nil
	}
	if n.urgent > 0 && len(n.closed) == 0 && st.cfg.Wake != WakeEach && n.live > 0 {
		n.urgent = n.urgentSince()
	}
	st.touchParent(n)
	st.touchNode(n)
}

// urgentSince returns the time of the oldest debt that does not have to wait for the end of the
// open batch. It returns 0 if all debts must wait.
func (n *node) urgentSince() int64 {
	for _, d := range n.owed[n.head:] {
		if d.t != nil && (d.t.no != d.no || d.t.status != Completed) {
			return d.at
		}
	}
	return 0
}

// settlePast records how the notice about an earlier attempt was settled. The argument "no" is the
// number of the attempt; 0 means all earlier attempts.
func (t *task) settlePast(no int32, s NoticeState) {
	if t.more == nil {
		return
	}
	t.st.changed(t)
	for i := range t.more.past {
		if p := &t.more.past[i]; (no == 0 || p.Number == int(no)) && p.Notice == NoticeOwed {
			p.Notice = s
		}
	}
}

// owesPast reports whether the end of an earlier attempt is still owed.
func (t *task) owesPast() bool {
	return t.is(flagOldDebts) && t.more != nil && slices.ContainsFunc(t.more.past, func(p Attempt) bool { return p.Notice == NoticeOwed })
}

// forgetDebts drops the debts of the task's earlier attempts. Their notices get the state s.
func (n *node) forgetDebts(t *task, s NoticeState) {
	if !t.is(flagOldDebts) {
		return
	}
	t.set(flagOldDebts, false)
	for i := range n.owed {
		if d := &n.owed[i]; d.t == t {
			t.settlePast(d.no, s)
			d.t = nil
			n.nOwed--
		}
	}
}

// compact removes settled debts if there are many. If no debt is left, the closed batches are also
// removed.
func (n *node) compact() {
	if n.nOwed == 0 {
		n.emptyOwed()
		n.closed = nil
		if n.live == 0 {
			n.members, n.omitted = nil, 0
		}
		return
	}
	for n.owed[n.head].t == nil {
		n.head++
	}
	n.oldest = n.owed[n.head].at
	if len(n.owed) < 32 || n.nOwed*2 > len(n.owed) {
		return
	}
	kept := n.owed[:0]
	for _, d := range n.owed[n.head:] {
		if d.t != nil {
			if d.t.no == d.no {
				d.t.setDebt(len(kept))
			}
			kept = append(kept, d)
		}
	}
	clear(n.owed[len(kept):])
	n.owed, n.head = kept, 0
}

// emptyOwed removes all debts and returns them, settled or not.
func (n *node) emptyOwed() (owed []debt) {
	owed = n.owed[n.head:]
	n.owed, n.head, n.nOwed, n.oldest, n.urgent = nil, 0, 0, 0, 0
	return owed
}

// giveUp abandons all notices that are owed to a node, because no notice can be delivered to the
// node from now on.
func (st *state) giveUp(n *node, now int64) {
	env := n.env
	if env != nil {
		n.env = nil
		for _, d := range env.debts {
			st.settleDebt(d, NoticeGivenUp, now)
		}
		st.toldAsks(env.asks)
		env.asks = nil
	}
	st.toldAsks(n.emptyAsks())
	owed := n.emptyOwed()
	for again := n.nextAgain(); again != nil; again = n.nextAgain() {
		owed = append(owed, again.debts...)
		st.toldAsks(again.asks)
	}
	for left := n.nextLeft(); left != nil; left = n.nextLeft() {
		owed = append(owed, left.debts...)
		st.toldAsks(left.asks)
	}
	for _, d := range owed {
		if d.t != nil {
			st.settleDebt(d, NoticeGivenUp, now)
		}
	}
	n.compact()
	n.unblocked()
	if env != nil && env.flying { // a notice that is being delivered, or that is the prompt of a turn, might still arrive
		env.setReclaimable(false)
		if n.delivering {
			n.adrift = env
		}
	}
	st.touchNode(n)
}

// setReclaimable sets whether the notices in an abandoned envelope can still be taken.
func (env *envelope) setReclaimable(on bool) {
	for _, d := range env.debts {
		if d.t.no == d.no && d.t.notice == NoticeGivenUp && !d.t.is(flagForgotten) {
			d.t.setReclaimable(on)
		}
	}
}

// The method "drop" removes the debts of the task from the envelope.
func (env *envelope) drop(t *task) {
	env.debts = slices.DeleteFunc(env.debts, func(d debt) bool { return d.t == t })
}

// unpackTask takes the task's debts out of the node's envelopes.
func (n *node) unpackTask(t *task) {
	if env := n.env; env != nil {
		if env.drop(t); env.empty() && !env.flying {
			n.env = nil
		}
	}
	for _, env := range n.held.envelopes() {
		env.drop(t)
	}
	if n.held != nil {
		n.held.left = slices.DeleteFunc(n.held.left, (*envelope).empty)
	}
}

// The method "pack" puts all debts to the node, and all questions, into one envelope. It returns nil if
// there are none. The caller adds the text of the notice.
func (st *state) pack(n *node, now int64) *envelope {
	env := &envelope{since: cmp.Or(n.oldest, n.asksFrom), asks: n.emptyAsks()}
	for _, d := range n.emptyOwed() {
		if d.t != nil {
			if d.t.no == d.no {
				d.t.setDebt(-1)
			}
			env.debts = append(env.debts, d)
		}
	}
	closed, omitted := n.closed, n.omitted
	n.closed = nil
	if env.empty() {
		return nil
	}
	if len(closed) > 0 {
		n.omitted = 0
	} else {
		omitted = 0
	}
	env.notice = Notice{Session: n.session, Live: n.live, Closing: len(closed) > 0 && n.live == 0, Omitted: omitted}
	env.notice.ID, _ = st.newID("bgn_", "")
	env.notice.Items = make([]NoticeItem, len(env.debts))
	for i, d := range env.debts {
		env.notice.Items[i] = st.item(d.t, d.no)
	}
	for _, x := range env.asks {
		env.notice.Questions = append(env.notice.Questions, x.noticeQuestion())
	}
	if len(closed) > 0 {
		env.closed, env.omitted = closed, omitted
		env.notice.Batch = make([]NoticeItem, len(closed))
		for i, c := range closed {
			if i < len(env.debts) && env.debts[i].t == c.t && env.debts[i].no == c.no { // usually the batch and the debts contain the same attempts
				env.notice.Batch[i] = env.notice.Items[i]
			} else {
				env.notice.Batch[i] = st.item(c.t, c.no)
			}
		}
	}
	return env
}

// noticeID returns the id of the notice item about one attempt. The id contains the random part of
// the task's id, so an outsider cannot guess it.
func noticeID(task string, no int32) string {
	var buf [40]byte
	b := append(append(buf[:0], "bgn_"...), task[len("bg_"):]...)
	return string(strconv.AppendInt(append(b, '.'), int64(no), 10))
}

// item returns the notice item about one attempt of the task. The attempt has ended.
func (st *state) item(t *task, no int32) NoticeItem {
	it := NoticeItem{
		ID: noticeID(t.id(), no), Task: t.id(), Attempt: int(no),
		Description: t.title, Agent: t.kind.key.agent,
	}
	if t.sess != nil {
		it.Session = t.sess.id
	}
	it.Unconsumed = len(t.unconsumed(no))
	if t.no == no && t.fin != nil {
		it.Status, it.Cause, it.Reason, it.Fallback = t.status, t.cause, t.fin.reason, t.fallback()
		if t.fin.started > 0 {
			it.Duration = time.Duration(t.fin.ended - t.fin.started)
		}
		it.NoAnswer = it.Status == Completed && t.fin.result == "" && !t.is(flagDropped) && t.fin.prog != nil && t.fin.prog.toolCalls > 0
		if n := st.cfg.NoticeResult; n > 0 && !t.fin.thought() {
			it.Result = strings.Clone(mdtext.Head(t.fin.result, n)) // cloned, because a substring would keep the whole text alive
			it.Cut = t.fin.cut() || len(it.Result) < len(t.fin.result)
		}
		return it
	}
	for _, p := range t.extra().past {
		if p.Number == int(no) {
			it.Status, it.Cause, it.Reason = p.Status, p.Cause, p.Reason
			if !p.Started.IsZero() {
				it.Duration = p.Ended.Sub(p.Started)
			}
		}
	}
	return it
}

// closedSettled reports whether there are closed batches and the notices about all their members
// are settled.
func (n *node) closedSettled() bool {
	for _, c := range n.closed {
		if c.t.no != c.no || c.t.debt() >= 0 {
			return false
		}
	}
	return len(n.closed) > 0
}
