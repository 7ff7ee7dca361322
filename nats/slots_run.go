package bgnats

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/nats/internal/alloc"
)

// This file contains the goroutines of Slots, which send and receive the messages of the package alloc.

// requestWithin is the time after which an unanswered message is repeated.
const requestWithin = time.Second

// send sends the member's messages, one after the other.
func (s *Slots) send() {
	for s.ctx.Err() == nil {
		s.mu.Lock()
		now := time.Now()
		s.member.Advance(now)
		up, some := s.member.Next(now)
		s.heard()
		wait := s.member.NextBeat().Sub(now)
		ctx, cancel := context.WithTimeout(s.ctx, min(requestWithin, s.options.Lease/6))
		s.resend = cancel
		s.mu.Unlock()
		if some {
			s.ask(ctx, now, &up)
		} else {
			s.sleep(s.wakeUp, min(max(wait, time.Millisecond), s.options.Lease/6))
		}
		cancel()
	}
}

// sleep waits until a signal arrives or the time has passed.
func (s *Slots) sleep(signal chan struct{}, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-signal:
	case <-t.C:
	case <-s.ctx.Done():
	}
}

// ask sends a message and handles its answer.
func (s *Slots) ask(ctx context.Context, sent time.Time, up *alloc.Up) {
	var d alloc.Down
	body, err := json.Marshal(up)
	if err == nil {
		var m *nats.Msg
		if m, err = s.w.nc.RequestWithContext(ctx, s.upSubject(up.Term), body); err == nil {
			err = json.Unmarshal(m.Data, &d)
		}
	}
	s.mu.Lock()
	if err == nil {
		s.member.Answered(sent, time.Now(), &d)
		if d.Limits != nil {
			s.seeLimits(d.Limits)
			s.pools = d.Pools
		}
	} else {
		s.member.Failed()
	}
	s.heard()
	s.mu.Unlock()
	if err != nil {
		wake(s.keyUp) // another process might be the allocator now, so read the key
		_ = pause(s.ctx, s.keyFor/20)
	}
}

// The method "told" accepts the grants in a message from the allocator that is not an answer to a request.
func (s *Slots) told(m *nats.Msg) {
	var d alloc.Down
	if json.Unmarshal(m.Data, &d) != nil {
		return // the allocator repeats the grants in its next answer
	}
	s.mu.Lock()
	s.member.Told(time.Now(), &d)
	s.heard()
	s.mu.Unlock()
	wake(s.wakeUp)
}

// tick checks the leases. If the lease of this process has expired, it gives up this process's slots. If the
// lease of another process has expired, it frees that process's slots.
func (s *Slots) tick() {
	for s.ctx.Err() == nil {
		s.sleep(nil, s.options.Lease/60)
		s.mu.Lock()
		now := time.Now()
		s.member.Advance(now)
		s.heard()
		var out map[string]alloc.Down
		if c := s.chair; c != nil {
			if c.a.Tick(now) {
				wake(s.keyUp)
			}
			out = c.a.Tell(now)
		}
		s.mu.Unlock()
		s.publish(out)
	}
}

// tell notifies the holders of grants and losses.
func (s *Slots) tell() {
	for s.ctx.Err() == nil {
		s.tellHolders()
		s.sleep(s.tellUp, time.Minute)
	}
}

func (s *Slots) tellHolders() {
	for {
		s.mu.Lock()
		if len(s.news) == 0 {
			s.mu.Unlock()
			return
		}
		n := s.news[0]
		s.news = s.news[1:]
		h := s.holders[n.ID]
		s.mu.Unlock()
		switch {
		case h == nil: // the slot was released before its holder was notified
		case n.Lost:
			h.SlotLost(n.Until, n.Why)
		default:
			h.SlotGranted()
		}
	}
}

// chair is the state that a process has while it is the allocator. It is guarded by Slots.mu.
type chair struct {
	a       *alloc.Allocator
	sub     *nats.Subscription
	rev     uint64               // revision of the key
	joining map[string]*nats.Msg // messages of processes whose names must be written to the key first
}

// handle passes a message to the allocator and sends the answer. If the key does not contain the sender yet,
// the message waits until the method "keep" has written the sender to the key.
func (s *Slots) handle(c *chair, m *nats.Msg) {
	var up alloc.Up
	if json.Unmarshal(m.Data, &up) != nil || up.Process == "" {
		return
	}
	s.mu.Lock()
	if s.chair != c {
		s.mu.Unlock()
		return
	}
	if !c.a.Knows(up.Process) {
		c.joining[up.Process] = m
		s.mu.Unlock()
		wake(s.keyUp)
		return
	}
	now := time.Now()
	d, ok := c.a.Handle(now, &up)
	out := c.a.Tell(now)
	s.mu.Unlock()
	if body, err := json.Marshal(d); ok && err == nil {
		_ = m.Respond(body) // if the answer is lost, the process asks again
	}
	s.publish(out)
}

// The method "missed" handles the servers' answer to a message that nobody received. If this process is the
// allocator, it treats the process to which the message was sent as unreachable.
func (s *Slots) missed(m *nats.Msg) {
	if m.Header.Get("Status") != noResponders {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.chair != nil {
		s.chair.a.Unreachable(m.Subject[len(s.inbox)+1:])
	}
}

// noResponders is the status of the servers' answer to a message that nobody received.
const noResponders = "503"

// publish sends grants. Later answers repeat grants that do not arrive. If nobody receives the message, the
// servers answer it; see the method "missed".
func (s *Slots) publish(out map[string]alloc.Down) {
	for name, d := range out {
		if body, err := json.Marshal(d); err == nil {
			_ = s.w.nc.PublishRequest(s.downSubject(name), s.inbox+"."+name, body)
		}
	}
}

// keepKey watches the key, takes it if its holder is dead, and keeps it.
func (s *Slots) keepKey() {
	watch := alloc.Watch{Time: s.keyFor}
	for s.ctx.Err() == nil {
		s.mu.Lock()
		c := s.chair
		s.mu.Unlock()
		ctx, cancel := context.WithTimeout(s.ctx, max(s.keyFor, requestWithin))
		if c != nil {
			s.keep(ctx, c)
			cancel()
			s.sleep(s.keyUp, s.keyFor/4)
			continue
		}
		k, rev, err := s.readKey(ctx)
		if err != nil {
			watch.Forget()
		} else {
			s.see(&k)
			if watch.See(time.Now(), rev, &k) && s.take(ctx, k, rev) {
				cancel()
				continue
			}
		}
		cancel()
		s.sleep(s.keyUp, s.keyFor/5)
		_ = pause(s.ctx, s.keyFor/50) // limits how often frequent signals cause a read
	}
}

func (s *Slots) readKey(ctx context.Context) (k alloc.Key, rev uint64, err error) {
	m, found, err := s.w.last(ctx, s.w.meta())
	if err != nil || !found {
		return k, 0, err
	}
	if err := json.Unmarshal(m.data, &k); err != nil {
		return k, 0, fmt.Errorf("the message on %s cannot be read: %w", s.w.meta(), err)
	}
	if k.Version != alloc.KeyVersion {
		return k, 0, fmt.Errorf("the slots have the unknown format %d: another version of bgagent uses them", k.Version)
	}
	return k, m.seq, nil
}

func (s *Slots) writeKey(ctx context.Context, k alloc.Key, rev uint64) (now uint64, err error) {
	body, err := json.Marshal(k)
	if err != nil {
		return 0, err
	}
	m := message{subject: s.w.meta(), header: nats.Header{}, data: body}
	m.expect(rev)
	return s.w.publish(ctx, []message{m})
}

// The method "take" tries to make this process the allocator, and reports whether it succeeded.
func (s *Slots) take(ctx context.Context, k alloc.Key, rev uint64) bool {
	if k.Term == 0 {
		k = alloc.Key{Version: alloc.KeyVersion, Limits: s.options.Limits}
	}
	k.Term, k.Holder, k.Lease = k.Term+1, s.me, s.options.Lease
	sent := time.Now()
	a, err := alloc.NewAllocator(k.Term, k.Limits, s.options.Lease, sent, k.Members)
	if err != nil {
		s.options.Warn(fmt.Errorf("bgnats: the stored limits are wrong: %w", err))
		return false
	}
	c := &chair{a: a, joining: map[string]*nats.Msg{}}
	if c.rev, err = s.writeKey(ctx, k, rev); err != nil {
		return false // if the write succeeded and only its answer was lost, the key expires like that of a dead holder
	}
	a.Keep(sent, s.keyFor)
	sub, err := s.w.nc.Subscribe(s.upSubject(k.Term), func(m *nats.Msg) { s.handle(c, m) })
	if err != nil {
		return false
	}
	s.mu.Lock()
	c.sub, s.chair = sub, c
	s.mu.Unlock()
	s.see(&k)
	return true
}

// keep writes the key again, so that this process remains the allocator. It admits the processes that have
// asked to join.
func (s *Slots) keep(ctx context.Context, c *chair) {
	s.mu.Lock()
	members, waiting := c.a.Members(), c.joining
	c.joining = map[string]*nats.Msg{}
	k := alloc.Key{Version: alloc.KeyVersion, Term: c.a.Term(), Holder: s.me, Members: members, Limits: c.a.Limits(), Lease: s.options.Lease}
	s.mu.Unlock()
	for name := range waiting {
		k.Members = append(k.Members, name)
	}
	sent := time.Now()
	rev, err := s.writeKey(ctx, k, c.rev)
	if err != nil {
		s.review(ctx, c)
		return // the joining processes will repeat their messages
	}
	s.mu.Lock()
	c.rev = rev
	c.a.Keep(sent, s.keyFor)
	for name := range waiting {
		c.a.Admit(time.Now(), name)
	}
	s.mu.Unlock()
	for _, m := range waiting {
		s.handle(c, m)
	}
}

// review reads the key after a failed write. If another process has taken the key, this process is no longer
// the allocator. Otherwise, review applies the limits in the key, which another process might have changed.
func (s *Slots) review(ctx context.Context, c *chair) {
	k, rev, err := s.readKey(ctx)
	if err != nil {
		return
	}
	if k.Holder == s.me && k.Term == c.a.Term() { // the answer to an earlier write was lost, or another process changed the limits
		s.mu.Lock()
		c.rev = rev
		err = c.a.SetLimits(k.Limits)
		out := c.a.Tell(time.Now())
		s.seeLimits(&k.Limits)
		s.mu.Unlock()
		if err != nil {
			s.options.Warn(fmt.Errorf("bgnats: the stored limits are wrong: %w", err))
		}
		s.publish(out)
		wake(s.keyUp)
		return
	}
	s.mu.Lock()
	s.chair = nil
	s.mu.Unlock()
	_ = c.sub.Unsubscribe() // fails only if the connection was closed, which ends its subscriptions
	s.see(&k)
}

// giveUpKey lets another process become the allocator immediately, because this process is exiting.
func (s *Slots) giveUpKey(ctx context.Context) {
	s.mu.Lock()
	c := s.chair
	s.chair = nil
	s.mu.Unlock()
	if c == nil {
		return
	}
	_ = c.sub.Unsubscribe() // fails only if the connection was closed, which ends its subscriptions
	k := alloc.Key{Version: alloc.KeyVersion, Term: c.a.Term(), Members: c.a.Members(), Limits: c.a.Limits(), Lease: s.options.Lease}
	ctx, cancel := context.WithTimeout(ctx, closeWithin)
	defer cancel()
	// If the key cannot be given up, no process is elected until the key's time has passed. The new allocator
	// then waits until this process's lease expires.
	for rev := c.rev; ; {
		if _, err := s.writeKey(ctx, k, rev); err == nil || ctx.Err() != nil {
			return
		}
		now, at, err := s.readKey(ctx)
		if err != nil || now.Holder != s.me || now.Term != k.Term || at == rev {
			return
		}
		k.Limits, rev = now.Limits, at // the last write of the method "keep" succeeded without an answer, or another process changed the limits
	}
}

// SetLimits replaces the stored limits for all processes. The allocator applies them when it next writes
// its key. This takes at most [SlotOptions].Lease/24, and never more than 1.25 s. Lower limits do not take
// away slots that are held. If a limit is invalid, the error wraps a [*bgagent.InputError].
func (s *Slots) SetLimits(ctx context.Context, l bgagent.Limits) error {
	checked, err := bgagent.NewConcurrencyManager(l)
	if err != nil {
		return fmt.Errorf("bgnats: %w", err)
	}
	for {
		k, rev, err := s.readKey(ctx)
		early := err == nil && k.Term == 0
		if early {
			err = errors.New("no process has become the allocator yet")
		}
		if err == nil {
			k.Limits = checked.Limits()
			if _, err = s.writeKey(ctx, k, rev); err == nil {
				return nil
			}
		}
		if !early && !again(err) || pause(ctx, retryEvery) != nil {
			return fmt.Errorf("bgnats: set limits: %w", err)
		}
	}
}
