package bgagent

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"
)

// How what is owed reaches a parent: a root session through a Notifier, the
// session of a task as its next turn.

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
		n.trying = cmp.Or(n.trying, now)
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
		if m.takeSlotLocked(p, true) {
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
		err := m.notify(cl, n.session, env.notice)
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
	if n.env != nil || m.dueLocked(n) > 0 {
		n.trying = cmp.Or(n.trying, now) // what was told before, by this goroutine, has reset it
	}
	switch {
	case m.closing || n.gone || n.scope:
		return wait()
	case state == parentBusy:
		n.fails, n.untold = 0, 0
		n.busy = cl
		cl.parents[n] = struct{}{}
		m.pollLocked(cl)
		return wait()
	case state == parentUnsure, state == parentUntold && n.untold+1 < untoldLooks:
		if n.fails++; state == parentUntold {
			n.untold++
		}
		n.retry = now + int64(backoff(n.fails))
		return wait()
	}
	n.fails, n.untold = 0, 0
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
		n.scope = true                           // held for NextNotice
		for _, d := range slices.Clone(n.owed) { // something may expire by that
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

// parentState asks the clients that can tell statuses about a root session. The
// first that knows whether it is idle decides.
func (m *BackgroundManager) parentState(session string) (state parentState, by *client) {
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
				state = parentUnsure
				continue
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
			state = parentUnsure
			continue
		}
		switch answer[session].State {
		case SessionGone, SessionUntold:
		case SessionIdle:
			return parentReady, cl
		case SessionBusy, SessionRetrying, SessionAsking:
			return parentBusy, cl
		default:
			if state == parentReady {
				state = parentUntold
			}
		}
	}
	return state, nil
}

// notify hands a notice to the host: to the client that knows the session, where
// one has said so, or else to each in turn.
func (m *BackgroundManager) notify(by *client, session string, n Notice) error {
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
	clients := m.clients
	if by != nil {
		clients = append([]*client{by}, clients...)
	}
	for i, cl := range clients {
		if cl.notifier == nil || i > 0 && cl == by {
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
