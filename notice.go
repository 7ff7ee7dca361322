package bgagent

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strconv"
	"time"
)

// The outbox: what is owed to parents, and how it reaches them.

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
	n.members = append(n.members, member{t, t.no})
	switch p := n.parentTask(); {
	case t.is(flagForeground): // Run returns it
		m.noticeLocked(t, NoticeRead, now)
	case m.waiving && n.session == m.waiver:
		m.noticeLocked(t, NoticeWaived, now)
	case n.gone || p != nil && !p.live() && p.status != Completed:
		m.loseLocked(t, now)
	default:
		if t.debt >= 0 || t.notice == NoticeOwed {
			t.set(flagOldDebts, true)
		}
		t.notice, t.debt = NoticeOwed, int32(len(n.owed))
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
			if n.urgent == 0 {
				n.urgent = now
			}
		} else {
			n.closed, n.members, n.omitted = nil, nil, 0
		}
	}
	m.scheduleLocked(n, now)
}

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
	m.wakeNodeLocked(n)
	if p := n.parentTask(); p != nil && p.run != nil {
		m.reconsiderLocked(p.run, now)
	}
	m.dropNodeLocked(n)
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
		n.owed, n.oldest, n.urgent, n.closed = nil, 0, 0, nil
		if n.live == 0 {
			n.members, n.omitted = nil, 0
		}
		return
	}
	for _, d := range n.owed {
		if d.t != nil {
			n.oldest = d.at
			break
		}
	}
	if len(n.owed) < 32 || n.nOwed*2 > len(n.owed) {
		return
	}
	kept := n.owed[:0]
	for _, d := range n.owed {
		if d.t != nil {
			if d.t.no == d.no {
				d.t.debt = int32(len(kept))
			}
			kept = append(kept, d)
		}
	}
	clear(n.owed[len(kept):])
	n.owed = kept
}

// giveUpLocked gives up everything that is owed to a node which can never be
// told any more.
func (m *BackgroundManager) giveUpLocked(n *node, now int64) {
	env := n.env
	var debts []debt
	if env != nil {
		debts, n.env = slices.Clone(env.debts), nil
	}
	debts = append(debts, n.owed...)
	n.owed, n.nOwed, n.oldest, n.urgent, n.trying = nil, 0, 0, 0, 0
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
	for _, d := range n.owed {
		if d.t != nil {
			if d.t.no == d.no {
				d.t.debt = -1
			}
			env.debts = append(env.debts, d)
		}
	}
	n.owed, n.nOwed, n.oldest, n.urgent = nil, 0, 0, 0
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

// scheduleLocked looks whether the node is to be told now, later or not at all.
func (m *BackgroundManager) scheduleLocked(n *node, now int64) {
	m.wakeNodeLocked(n)
	if m.closing {
		return
	}
	if p := n.parentTask(); p != nil {
		m.scheduleTurnLocked(n, p, now)
		return
	}
	if n.delivery || n.scope || n.gone || m.cfg.Wake == WakeNever || !m.canNotify() {
		return
	}
	at := m.dueLocked(n)
	if n.env != nil {
		at = n.env.next
	}
	switch {
	case n.trying > 0 && now-n.trying >= int64(noticeGiveUp):
		m.logTextLocked("a notice was given up", n.session, "the session could not be told for "+noticeGiveUp.String())
		m.giveUpLocked(n, now)
	case at == 0:
	case n.busy != nil: // a sweep sees when it is not any more
		m.alarmLocked(&n.alarm, n, n.trying+int64(noticeGiveUp))
	case max(at, n.retry) <= now:
		n.delivery = true
		n.trying = cmp.Or(n.trying, now)
		m.spawn(goNotify, func() { m.deliver(n) })
	default:
		m.alarmLocked(&n.alarm, n, max(at, n.retry))
	}
}

// scheduleTurnLocked has a waiting task told as its next turn: it goes to the
// head of the line for a slot.
func (m *BackgroundManager) scheduleTurnLocked(n *node, p *task, now int64) {
	a := p.run
	if a == nil || !a.live() || a.phase != PhaseWaiting || a.wantTurn {
		return
	}
	switch at := m.dueLocked(n); {
	case at == 0:
	case at <= now:
		a.wantTurn = true
		if m.cm.take(&p.wait, p.kind.key.model, p.kind.key.agent, true, m.cm.ticket()) {
			m.grantedLocked(p, now)
		}
	default:
		m.alarmLocked(&n.alarm, n, at)
	}
}

func (n *node) ringLocked(m *BackgroundManager, now int64) { m.scheduleLocked(n, now) }

func (m *BackgroundManager) canNotify() bool {
	if m.cfg.Notify != nil {
		return true
	}
	for _, cl := range m.clients {
		if cl.notifier != nil {
			return true
		}
	}
	return false
}

// wakeNodeLocked wakes those who wait in NextNotice.
func (m *BackgroundManager) wakeNodeLocked(n *node) {
	m.pokeDrainLocked()
	for _, ch := range n.waiters {
		select {
		case ch <- struct{}{}:
		default:
		}
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

// deliver tells a root session what it is owed. It is the only goroutine that
// does so for this node, and ends when nothing is due.
func (m *BackgroundManager) deliver(n *node) {
	for {
		state, cl := m.parentState(n.session)
		var env *envelope
		m.update(func(now int64) {
			env = m.beginDeliveryLocked(n, state, cl, now)
		})
		if env == nil {
			return
		}
		err := m.notify(n.session, env.notice)
		m.update(func(now int64) { m.endDeliveryLocked(n, env, err, now) })
	}
}

// beginDeliveryLocked returns what is to be delivered now, or ends the delivery.
func (m *BackgroundManager) beginDeliveryLocked(n *node, state parentState, cl *client, now int64) *envelope {
	wait := func() *envelope {
		n.delivery = false
		m.scheduleLocked(n, now)
		m.dropNodeLocked(n)
		return nil
	}
	switch {
	case m.closing || n.gone || n.scope:
		return wait()
	case state == parentBusy:
		n.fails = 0
		n.busy = cl
		cl.parents[n] = struct{}{}
		m.pollLocked(cl)
		return wait()
	case state == parentUnsure, state == parentUntold && n.fails+1 < untoldLooks:
		n.fails++
		n.retry = now + int64(backoff(n.fails))
		return wait()
	}
	n.fails = 0
	if n.env == nil {
		if at := m.dueLocked(n); at == 0 || max(at, n.retry) > now {
			return wait()
		}
		n.env = m.packLocked(n, now)
	}
	if n.env == nil || max(n.env.next, n.retry) > now {
		return wait()
	}
	n.env.flying = true
	return n.env
}

// endDeliveryLocked takes the answer to a notice.
func (m *BackgroundManager) endDeliveryLocked(n *node, env *envelope, err error, now int64) {
	env.flying = false
	if n.env != env { // given up meanwhile
		n.adrift = nil
		if err != nil {
			env.lost(true)
		}
		m.wakeNodeLocked(n)
		return
	}
	env.tries++
	switch {
	case err == nil:
		m.deliveredLocked(n, NoticeDelivered, now)
	case errors.Is(err, ErrBusy) && env.tries == 1:
		// Nothing was recorded: what ends meanwhile may join.
		m.unpackLocked(n, env)
		n.retry = now + int64(m.cfg.PollInterval)
	case errors.Is(err, ErrBusy):
		env.tries--
		env.next = now + int64(m.cfg.PollInterval)
	case errors.Is(err, ErrNoSession) || errors.Is(err, errors.ErrUnsupported):
		m.unpackLocked(n, env)
		n.scope = true // held for NextNotice
		for _, d := range n.owed {
			if d.t != nil {
				m.expirableLocked(d.t, now)
			}
		}
	case env.tries >= noticeTries || now-n.trying >= int64(noticeGiveUp):
		m.logTextLocked("a notice was given up", n.session, err.Error())
		m.giveUpLocked(n, now)
	default:
		env.next = now + int64(backoff(env.tries))
		m.logTextLocked("a notice could not be delivered", n.session, err.Error())
	}
	if len(env.debts) == 0 && n.env == env {
		n.env = nil // all read meanwhile
	}
	m.wakeNodeLocked(n)
}

// backoff returns the pause after so many failures in a row: 1 s, 2 s, 4 s … 1 h.
func backoff(failures int) time.Duration {
	return min(time.Second<<min(failures-1, 20), noticeBackoffMax)
}

// deliveredLocked settles everything in the node's envelope.
func (m *BackgroundManager) deliveredLocked(n *node, s NoticeState, now int64) {
	env := n.env
	n.env, n.trying = nil, 0
	for _, d := range env.debts {
		m.settleLocked(d, s, now)
	}
	if n.nOwed == 0 {
		n.compact()
	}
	m.wakeNodeLocked(n)
	m.dropNodeLocked(n)
}

// unpackLocked takes an envelope that nobody has seen apart again. All that was
// in it may have been read meanwhile.
func (m *BackgroundManager) unpackLocked(n *node, env *envelope) {
	n.env = nil
	owed := n.owed
	n.owed = nil
	n.nOwed = 0
	for _, d := range append(env.debts, owed...) {
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
	n.oldest = env.since
	if n.urgent == 0 || n.urgent > env.since {
		n.urgent = env.since
	}
	n.compact()
}

// parentState asks the clients that can tell statuses about a root session.
func (m *BackgroundManager) parentState(session string) (parentState, *client) {
	for _, cl := range m.clients {
		if cl.starter == nil {
			continue
		}
		if cl.finder != nil {
			_, err := within(m.base, m, goCall, "FindSession", m.cfg.CallTimeout, func(ctx context.Context) (SessionInfo, error) {
				info, err := cl.finder.FindSession(ctx, session)
				return info, lookedAt(err)
			})
			if errors.Is(err, ErrNoSession) {
				continue
			}
			if err != nil && !errors.Is(err, errors.ErrUnsupported) {
				return parentUnsure, cl
			}
		}
		answer, err := within(m.base, m, goPoll, "Statuses", m.cfg.StatusTimeout, func(ctx context.Context) (map[string]SessionStatus, error) {
			answer, err := cl.starter.Statuses(ctx, []string{session})
			return answer, lookedAt(err)
		})
		if errors.Is(err, errors.ErrUnsupported) {
			continue
		}
		if err != nil {
			return parentUnsure, cl
		}
		switch answer[session].State {
		case SessionGone, SessionUntold:
		case SessionIdle:
			return parentReady, cl
		case SessionBusy, SessionRetrying, SessionAsking:
			return parentBusy, cl
		default:
			return parentUntold, cl
		}
	}
	return parentReady, nil
}

// notify hands a notice to the host.
func (m *BackgroundManager) notify(session string, n Notice) error {
	call := func(f func(context.Context, string, Notice) error) error {
		_, err := within(m.base, m, goNotify, "Notify", m.cfg.CallTimeout, func(ctx context.Context) (struct{}, error) {
			n := n // tried again it must come unchanged, whatever the host did with it
			n.Items, n.Batch = slices.Clone(n.Items), slices.Clone(n.Batch)
			return struct{}{}, lookedAt(f(ctx, session, n))
		})
		return err
	}
	if m.cfg.Notify != nil {
		return call(m.cfg.Notify)
	}
	for _, cl := range m.clients {
		if cl.notifier == nil {
			continue
		}
		if err := call(cl.notifier.Notify); !errors.Is(err, ErrNoSession) && !errors.Is(err, errors.ErrUnsupported) {
			return err
		}
	}
	return ErrNoSession
}

// notBusy ends the polling for a busy parent.
func (n *node) notBusy() {
	if n.busy != nil {
		delete(n.busy.parents, n)
		n.busy = nil
	}
}

// parentIdleLocked is called when a busy parent has fallen idle.
func (m *BackgroundManager) parentIdleLocked(n *node, now int64) {
	n.notBusy()
	n.retry = 0
	m.scheduleLocked(n, now)
}

// takeLocked hands out everything that is owed to the session.
func (m *BackgroundManager) takeLocked(n *node, now int64) (Notice, bool) {
	env := n.env
	switch {
	case env != nil && env.flying:
		if n.nOwed == 0 {
			return Notice{}, false
		}
		// What is on its way stays on its way.
		rest := m.packLocked(n, now)
		for _, d := range rest.debts {
			m.settleLocked(d, NoticeTaken, now)
		}
		m.afterTakeLocked(n, now)
		return rest.notice, true
	case env == nil:
		if n.lost > 0 {
			m.findLostLocked(n)
		}
		if env = m.packLocked(n, now); env == nil {
			return Notice{}, false
		}
		n.env = env
	}
	m.deliveredLocked(n, NoticeTaken, now)
	m.afterTakeLocked(n, now)
	return env.notice, true
}

func (m *BackgroundManager) afterTakeLocked(n *node, now int64) {
	if p := n.parentTask(); p != nil && p.run != nil {
		m.reconsiderLocked(p.run, now)
	}
	m.dropNodeLocked(n)
}

// findLostLocked puts notices that were given up back among what is owed, for
// somebody who takes it.
func (m *BackgroundManager) findLostLocked(n *node) {
	for t := n.first; t != nil; t = t.next {
		if t.is(flagLost) && !t.live() {
			t.setLost(false)
			n.owed = append(n.owed, debt{t, t.no, t.fin.ended})
			n.nOwed++
		}
	}
}

// TakeNotice returns everything that is owed to the session at this moment as
// one notice, without waiting for a batch, and counts it as told. It also hands
// out what was given up. A notice whose delivery has failed before comes by
// itself, unchanged, and the rest with the next call. It returns false when
// there is nothing.
func (m *BackgroundManager) TakeNotice(session string) (n Notice, ok bool) {
	m.update(func(now int64) {
		if node := m.nodes[session]; node != nil {
			n, ok = m.takeLocked(node, now)
		}
	})
	return n, ok
}

// NextNotice waits until the session is due to be told something, by the rules
// of [WakeEach] where Config.Wake is that and of [WakeBatch] otherwise, and
// returns it; it counts as told then. What a tool's result has told does not
// come again. A program that calls it until it returns [ErrNothingOwed] has
// missed nothing: that means that nothing of the session is live and nothing is
// owed. Otherwise the error is ctx's.
func (m *BackgroundManager) NextNotice(ctx context.Context, session string) (Notice, error) {
	wake := make(chan struct{}, 1)
	defer m.update(func(int64) {
		if n := m.nodes[session]; n != nil {
			n.dropWaiter(wake)
			m.dropNodeLocked(n)
		}
	})
	for {
		var notice Notice
		var ok, done bool
		var wait time.Duration = -1
		m.update(func(now int64) {
			n := m.nodes[session]
			if n == nil {
				done = true
				return
			}
			at := m.dueLocked(n)
			if n.env != nil && !n.env.flying || at > 0 && at <= now || n.nOwed > 0 && m.closing || n.live == 0 && n.lost > 0 {
				if notice, ok = m.takeLocked(n, now); ok {
					return
				}
			}
			if n.live == 0 && n.outstanding() == 0 && n.adrift == nil {
				done = true
				return
			}
			if at > 0 {
				wait = max(time.Duration(at-now), 0)
			}
			n.addWaiter(wake)
		})
		switch {
		case ok:
			return notice, nil
		case done:
			return Notice{}, ErrNothingOwed
		}
		if err := waitFor(ctx, wake, wait); err != nil {
			return Notice{}, err
		}
	}
}

func (n *node) addWaiter(ch chan struct{}) {
	n.dropWaiter(ch)
	n.waiters = append(n.waiters, ch)
}

func (n *node) dropWaiter(ch chan struct{}) {
	for i, w := range n.waiters {
		if w == ch {
			n.waiters = append(n.waiters[:i], n.waiters[i+1:]...)
			return
		}
	}
}

// waitFor waits for the channel, for the time (unless it is negative), or for
// the end of ctx, whose error it then returns.
func waitFor(ctx context.Context, ch <-chan struct{}, d time.Duration) error {
	var timeout <-chan time.Time
	if d >= 0 {
		timer := time.NewTimer(d)
		defer timer.Stop()
		timeout = timer.C
	}
	select {
	case <-ch:
	case <-timeout:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// Digest describes the tasks of the session in at most max bytes, for a model
// whose context has been compacted.
func (m *BackgroundManager) Digest(session string, max int) string {
	tasks := m.List(Query{Under: session})
	live, owed := m.Outstanding(session)
	return m.words.digest(tasks, live, owed, max, time.Now())
}
