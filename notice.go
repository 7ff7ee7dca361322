package bgagent

import (
	"slices"
	"strconv"
	"time"
)

// The outbox: what is owed to parents. How it reaches them is in deliver.go, and
// how a host takes it in take.go.

// maxMembers bounds the ended attempts that a batch remembers for its closing
// notice: a parent that is never without a live task must not grow for ever.
const maxMembers = 1000

// outstanding returns how many ends the node has not been told of.
func (n *node) outstanding() int {
	if n.env != nil {
		return n.nOwed + len(n.env.debts)
	}
	return n.nOwed
}

// oweLocked is called when an attempt has ended: from here on its parent is
// owed a notice, unless nobody needs one.
func (m *BackgroundManager) oweLocked(t *task, now int64) {
	n := t.up
	if len(n.members) == 2*maxMembers { // not one at a time: that would move all of them each time
		n.omitted += maxMembers
		n.members = append(n.members[:0], n.members[maxMembers:]...)
	}
	if n.members == nil {
		n.members = make([]member, 0, n.roomForOwed())
	}
	n.members = append(n.members, member{t, t.no})
	switch p := n.parentTask(); {
	case t.is(flagForeground): // Run returns it
		m.noticeLocked(t, NoticeRead, now)
	case m.waived == t && n.session == m.waiver:
		m.noticeLocked(t, NoticeWaived, now)
	case n.gone || p != nil && !p.live() && p.status != Completed:
		m.loseLocked(t, now)
	default:
		if n.owed == nil {
			n.owed = make([]debt, 0, n.roomForOwed())
		}
		t.debt = int32(len(n.owed))
		n.owed = append(n.owed, debt{t, t.no, now})
		n.nOwed++
		if n.oldest == 0 {
			n.oldest = now
		}
		if n.urgent == 0 && (t.status != Completed || m.cfg.Wake == WakeEach) {
			n.urgent = now
		}
	}
	if n.live == 0 { // the batch closes
		if n.nOwed > 0 {
			n.closed, n.members = append(n.closed, n.members...), nil
			if more := len(n.closed) - maxMembers; more > maxMembers { // nor this one by one
				n.omitted += more
				n.closed = slices.Clone(n.closed[more:])
			}
			if n.urgent == 0 {
				n.urgent = now
			}
		} else {
			n.closed, n.members, n.omitted = nil, nil, 0
		}
	}
	m.scheduleLocked(n, now)
}

// roomForOwed returns how many ends will mostly come before they are told: as
// many as there are live tasks, and the one that has just ended.
func (n *node) roomForOwed() int { return min(n.live+1, 128) }

// noticeLocked settles the notice of the latest attempt.
func (m *BackgroundManager) noticeLocked(t *task, s NoticeState, now int64) {
	t.notice, t.debt = s, -1
	m.emitLocked(EventNotice, t)
	m.expirableLocked(t, now)
}

// loseLocked gives up the notice of the latest attempt. It can still be taken.
func (m *BackgroundManager) loseLocked(t *task, now int64) {
	t.setLost(true)
	m.noticeLocked(t, NoticeGivenUp, now)
	m.logLocked(logGivenUp, t)
}

// setLost says whether the notice of the latest attempt was given up and may
// still be taken.
func (t *task) setLost(on bool) {
	switch {
	case t.is(flagLost) == on:
		return
	case on:
		t.up.lost++
	default:
		t.up.lost--
	}
	t.set(flagLost, on)
}

// settleLocked settles one debt.
func (m *BackgroundManager) settleLocked(d debt, s NoticeState, now int64) {
	if d.t.no != d.no || d.t.notice.Settled() {
		return // of an earlier attempt, or given up before and taken now
	}
	if s == NoticeGivenUp {
		m.loseLocked(d.t, now)
	} else {
		m.noticeLocked(d.t, s, now)
	}
}

// settleTaskLocked settles what is owed for the task: its parent knows.
func (m *BackgroundManager) settleTaskLocked(t *task, s NoticeState, now int64) {
	t.setLost(false)
	if t.up.adrift != nil {
		t.up.adrift.drop(t)
	}
	if t.notice != NoticeOwed {
		return
	}
	n := t.up
	if env := n.env; env != nil {
		if env.drop(t); len(env.debts) == 0 && !env.flying {
			n.env = nil
		}
	}
	if i := t.debt; i >= 0 {
		n.owed[i].t = nil
		n.nOwed--
	}
	n.forgetDebts(t)
	m.noticeLocked(t, s, now)
	n.compact()
	if n.closedSettled() {
		n.closed = nil
	}
	if n.urgent > 0 && len(n.closed) == 0 && m.cfg.Wake != WakeEach && n.live > 0 {
		n.urgent = n.urgentSince()
	}
	m.wakeNodeLocked(n)
	if p := n.parentTask(); p != nil && p.run != nil {
		m.reconsiderLocked(p.run, now)
	}
	m.dropNodeLocked(n)
}

// urgentSince returns since when the open batch owes something that does not wait
// for its end, or 0.
func (n *node) urgentSince() int64 {
	for _, d := range n.owed[n.head:] {
		if d.t != nil && (d.t.no != d.no || d.t.status != Completed) {
			return d.at
		}
	}
	return 0
}

// forgetDebts drops what is owed for earlier attempts of the task.
func (n *node) forgetDebts(t *task) {
	if !t.is(flagOldDebts) {
		return
	}
	t.set(flagOldDebts, false)
	for i := range n.owed {
		if n.owed[i].t == t {
			n.owed[i].t = nil
			n.nOwed--
		}
	}
}

// compact drops settled debts, and what hangs on them when none is left.
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
				d.t.debt = int32(len(kept))
			}
			kept = append(kept, d)
		}
	}
	clear(n.owed[len(kept):])
	n.owed, n.head = kept, 0
}

// emptyOwed takes everything out of what is owed, settled or not.
func (n *node) emptyOwed() (owed []debt) {
	owed = n.owed[n.head:]
	n.owed, n.head, n.nOwed, n.oldest, n.urgent = nil, 0, 0, 0, 0
	return owed
}

// giveUpLocked gives up everything that is owed to a node which can never be
// told any more.
func (m *BackgroundManager) giveUpLocked(n *node, now int64) {
	env := n.env
	var debts []debt
	if env != nil {
		debts, n.env = slices.Clone(env.debts), nil
	}
	debts = append(debts, n.emptyOwed()...)
	n.compact()
	n.trying = 0
	debts = slices.DeleteFunc(debts, func(d debt) bool { return d.t == nil })
	for _, d := range debts { // before any is settled: that may expire another of them
		if d.t.no == d.no {
			d.t.debt = -1
		}
	}
	for _, d := range debts {
		m.settleLocked(d, NoticeGivenUp, now)
	}
	if env != nil && env.flying && n.delivery { // what is on its way stays on its way
		n.adrift = env
		env.lost(false)
	}
	m.wakeNodeLocked(n)
	m.dropNodeLocked(n)
}

// lost says whether what is in an envelope that was given up may still be taken.
func (env *envelope) lost(on bool) {
	for _, d := range env.debts {
		if d.t.no == d.no && d.t.notice == NoticeGivenUp && !d.t.is(flagForgotten) {
			d.t.setLost(on)
		}
	}
}

// drop takes what speaks of the task out of the envelope.
func (env *envelope) drop(t *task) {
	env.debts = slices.DeleteFunc(env.debts, func(d debt) bool { return d.t == t })
}

// packLocked makes one notice of everything that is owed to the node, or
// returns nil when nothing is.
func (m *BackgroundManager) packLocked(n *node, now int64) *envelope {
	env := &envelope{since: n.oldest}
	for _, d := range n.emptyOwed() {
		if d.t != nil {
			if d.t.no == d.no {
				d.t.debt = -1
			}
			env.debts = append(env.debts, d)
		}
	}
	closed, omitted := n.closed, n.omitted
	n.closed = nil
	if len(env.debts) == 0 {
		return nil
	}
	if len(closed) > 0 {
		n.omitted = 0
	} else {
		omitted = 0
	}
	env.notice = Notice{Session: n.session, Live: n.live, Closing: len(closed) > 0 && n.live == 0, Omitted: omitted}
	env.notice.ID, _ = m.newIDLocked("bgn_", "")
	env.notice.Items = make([]NoticeItem, len(env.debts))
	for i, d := range env.debts {
		env.notice.Items[i] = m.itemLocked(d.t, d.no)
	}
	if len(closed) > 0 {
		env.closed, env.omitted = closed, omitted
		env.notice.Batch = make([]NoticeItem, len(closed))
		for i, c := range closed {
			if i < len(env.debts) && env.debts[i].t == c.t && env.debts[i].no == c.no { // mostly nothing has been told before
				env.notice.Batch[i] = env.notice.Items[i]
			} else {
				env.notice.Batch[i] = m.itemLocked(c.t, c.no)
			}
		}
	}
	env.notice.Text = m.words.notice(env.notice)
	return env
}

// noticeID returns the id of the notice of one end. It is as random as the
// task's own.
func noticeID(task string, no int32) string {
	var buf [40]byte
	b := append(append(buf[:0], "bgn_"...), task[len("bg_"):]...)
	return string(strconv.AppendInt(append(b, '.'), int64(no), 10))
}

// itemLocked describes the end of one attempt of the task.
func (m *BackgroundManager) itemLocked(t *task, no int32) NoticeItem {
	it := NoticeItem{
		ID: noticeID(t.id(), no), Task: t.id(), Attempt: int(no),
		Description: t.title, Agent: t.kind.key.agent,
	}
	if t.sess != nil {
		it.Session = t.sess.id
	}
	if t.no == no && t.fin != nil {
		it.Status, it.Cause, it.Reason = t.status, t.cause, t.fin.reason
		if t.fin.started > 0 {
			it.Duration = time.Duration(t.fin.ended - t.fin.started)
		}
		it.NoAnswer = it.Status == Completed && t.fin.result == "" && !t.is(flagDropped) && t.fin.prog != nil && t.fin.prog.toolCalls > 0
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

// dueLocked returns when what is owed to the node should go out; 0 for not yet.
func (m *BackgroundManager) dueLocked(n *node) (at int64) {
	switch {
	case n.nOwed == 0:
		return 0
	case n.urgent > 0:
		at = n.urgent + int64(max(m.cfg.NoticeWindow, 0))
	case m.cfg.NoticeMaxWait > 0:
		at = n.oldest + int64(m.cfg.NoticeMaxWait)
	default:
		return 0
	}
	return max(at, 1)
}

// closedSettled reports whether there are closed batches of which nothing is owed
// any more.
func (n *node) closedSettled() bool {
	for _, c := range n.closed {
		if c.t.no != c.no || c.t.debt >= 0 {
			return false
		}
	}
	return len(n.closed) > 0
}
