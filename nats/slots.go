package bgnats

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/nats/internal/alloc"
)

// SlotOptions contains the settings of slots that several processes share. The zero value selects the
// defaults.
type SlotOptions struct {
	// Limits are the limits for all processes together. The first process stores them on the
	// servers. If different limits are already stored, those apply, and Warn is called. [Slots.SetLimits]
	// changes them.
	Limits bgagent.Limits

	// Lease is the time after which the slots of an unreachable process are granted to other processes. The
	// process gives up its slots after two thirds of this time, and its sessions have the last third to
	// stop. The lease must be the same in all processes, and at least 15 seconds. With a shorter lease,
	// processes could give up their slots while the servers replace their leader. The replacement takes up
	// to 8 seconds. Zero means 30 seconds.
	Lease time.Duration

	// Replicas is the number of servers that keep a copy of the stream, if NewSlots creates the stream.
	// It is 1, 3 or 5. Zero means 1.
	Replicas int

	// Warn is called for problems that occur outside of calls, for example because another process
	// has other limits. It must not block. If Warn is nil, the problems are dropped.
	Warn func(error)
}

// Slots gives access to slots that several processes share over NATS. It implements [bgagent.SlotSource],
// for Config.Slots. All processes that use the same name on the same servers share the same limits.
//
// One of the processes is the allocator, which grants the slots. The processes elect it. If it dies, no new
// work begins for a few seconds until the next allocator is elected. Running work continues.
type Slots struct {
	w       wire
	options SlotOptions
	me      string
	keyFor  time.Duration

	ctx    context.Context // ends when Close has given up all slots and requests
	end    context.CancelFunc
	wg     sync.WaitGroup
	subs   []*nats.Subscription
	inbox  string        // prefix of the subjects for the servers' answers to messages that nobody received
	wakeUp chan struct{} // wakes the goroutine that sends messages
	keyUp  chan struct{} // wakes the goroutine that keeps the key
	tellUp chan struct{} // wakes the goroutine that notifies the holders
	warned map[string]bool
	cools  cools

	mu      sync.Mutex // guards the following fields; must not be held during calls to the servers or to the holders of slots
	member  *alloc.Member
	holders map[uint64]bgagent.SlotHolder
	news    []alloc.News
	limits  bgagent.Limits

	replaces bool // the caller is about to store SlotOptions.Limits, so do not warn that other limits are stored
	pools    []bgagent.PoolStats
	resend   context.CancelFunc // makes the request that is in flight fail
	closing  bool
	chair    *chair // nil unless this process is the allocator
}

var _ bgagent.SlotSource = (*Slots)(nil)

// NewSlots adds this process to those that share the slots with the given name. If the stream BGSLOTS_name
// does not exist, NewSlots creates it. The name consists of up to 64 letters, digits, hyphens and
// underscores. The caller must close the slots after it closes the managers that use them.
//
// The connection belongs to the caller, and should reconnect without a limit ([nats.MaxReconnects]
// with -1).
func NewSlots(ctx context.Context, nc *nats.Conn, name string, o SlotOptions) (s *Slots, err error) {
	return newSlots(ctx, nc, name, o, false)
}

// newSlots is like NewSlots. If replace is true, the caller is going to call replaceLimits, so there is no
// warning if other limits are stored.
func newSlots(ctx context.Context, nc *nats.Conn, name string, o SlotOptions, replace bool) (s *Slots, err error) {
	if o.Lease == 0 {
		o.Lease = 30 * time.Second
	}
	if o.Replicas == 0 {
		o.Replicas = 1
	}
	if o.Warn == nil {
		o.Warn = func(error) {}
	}
	switch {
	case nc == nil:
		return nil, errors.New("bgnats: NewSlots needs a connection")
	case !validName.MatchString(name):
		return nil, fmt.Errorf("bgnats: the name %q of slots must have 1 to 64 characters, each of which is a letter, a digit, - or _", name)
	case o.Lease < alloc.MinLease:
		return nil, fmt.Errorf("bgnats: SlotOptions.Lease is %v; it must be %v or more, because servers need up to 8 s to replace their leader", o.Lease, alloc.MinLease)
	}
	own, err := bgagent.NewConcurrencyManager(o.Limits) // checks the limits, and fills in the default
	if err != nil {
		return nil, fmt.Errorf("bgnats: %w", err)
	}
	o.Limits = own.Limits()
	s = &Slots{
		w: wire{nc: nc, names: names{stream: "BGSLOTS_" + name, root: "bgslots." + name}}, options: o, me: rand.Text(), keyFor: min(o.Lease/6, 5*time.Second),
		wakeUp: make(chan struct{}, 1), keyUp: make(chan struct{}, 1), tellUp: make(chan struct{}, 1), warned: map[string]bool{},
		holders: map[uint64]bgagent.SlotHolder{}, limits: o.Limits, cools: cools{users: map[*coolUser]struct{}{}, known: map[coolKey]coolEnd{}},
	}
	s.member = alloc.NewMember(s.me, o.Lease)
	s.w.watch()
	if err := s.join(ctx, replace); err != nil {
		s.w.unwatch()
		return nil, fmt.Errorf("bgnats: slots: %w", err)
	}
	return s, nil
}

// join opens the stream and starts the goroutines.
func (s *Slots) join(ctx context.Context, replace bool) error {
	if err := s.w.ready(ctx); err != nil {
		return err
	}
	want := s.w.config(s.options.Replicas)
	want.Subjects = []string{s.w.meta()}
	if err := s.w.ensure(ctx, want); err != nil {
		return err
	}
	var k alloc.Key
	err := s.w.patiently(ctx, func(ctx context.Context) (err error) { k, _, err = s.readKey(ctx); return err })
	if err != nil {
		return err
	}
	if len(k.Members) > 0 && k.Lease != s.options.Lease {
		return fmt.Errorf("SlotOptions.Lease is %v, but %v in the other processes; it must be the same in all processes", s.options.Lease, k.Lease)
	}
	s.replaces = replace
	down, err := s.w.nc.Subscribe(s.downSubject(s.me), s.told)
	if err != nil {
		return err
	}
	s.subs = append(s.subs, down)
	s.inbox = s.w.nc.NewInbox()
	for subject, handle := range map[string]nats.MsgHandler{s.inbox + ".*": s.missed, s.coolSubject(): s.heardCool} {
		sub, err := s.w.nc.Subscribe(subject, handle)
		if err != nil {
			for _, sub := range s.subs {
				_ = sub.Unsubscribe() // fails only if the subscription has already ended, for example with its connection
			}
			return err
		}
		s.subs = append(s.subs, sub)
	}
	s.ctx, s.end = context.WithCancel(context.Background())
	s.see(&k)
	s.wg.Go(s.send)
	s.wg.Go(s.keepKey)
	s.wg.Go(s.tick)
	s.wg.Go(s.tell)
	return nil
}

// replaceLimits stores SlotOptions.Limits in place of other limits.
func (s *Slots) replaceLimits(ctx context.Context) error {
	if err := s.SetLimits(ctx, s.options.Limits); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.replaces = false
	return nil
}

// These are the subjects of messages to the allocator of a term, and to a process.
func (s *Slots) upSubject(term uint64) string   { return fmt.Sprintf("%s.up.%d", s.w.root, term) }
func (s *Slots) downSubject(name string) string { return s.w.root + ".down." + name }

// slotClaim implements [bgagent.SlotClaim].
type slotClaim struct {
	s  *Slots
	id uint64
}

// errSlotsClosed is the reason given to holders when the slots are closed.
var errSlotsClosed = fmt.Errorf("%w: the slots were closed", bgagent.ErrSlotLost)

// Request asks for a slot and implements [bgagent.SlotSource]. While the allocator cannot be reached,
// requests wait. After Close, the holder is notified that its slot is lost.
func (s *Slots) Request(r bgagent.SlotRequest, h bgagent.SlotHolder) bgagent.SlotClaim {
	now := time.Now()
	if r.Queued.IsZero() {
		r.Queued = now
	}
	s.mu.Lock()
	if s.closing {
		s.mu.Unlock()
		h.SlotLost(now, errSlotsClosed)
		return &slotClaim{s: s}
	}
	id := s.member.Request(now, alloc.Op{Model: r.Model, Agent: r.Agent, Root: r.Root, Head: r.Head, Queued: r.Queued.Round(0)}, r.Running)
	s.holders[id] = h
	s.heard()
	s.mu.Unlock()
	wake(s.wakeUp)
	return &slotClaim{s, id}
}

// Release implements [bgagent.SlotClaim].
func (k *slotClaim) Release() {
	k.s.mu.Lock()
	k.s.member.Release(k.id)
	delete(k.s.holders, k.id)
	k.s.mu.Unlock()
	wake(k.s.wakeUp)
}

// MayBegin implements [bgagent.SlotClaim].
func (k *slotClaim) MayBegin() bool {
	k.s.mu.Lock()
	defer k.s.mu.Unlock()
	ok := k.s.member.MayBegin(time.Now(), k.id)
	k.s.heard()
	return ok
}

// Limits returns the current limits, as far as this process knows them.
func (s *Slots) Limits() bgagent.Limits {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.limits
}

// Pools returns the figures for all pools and caps. They count the slots of all processes, and can be out of
// date by up to a sixth of the lease.
func (s *Slots) Pools() []bgagent.PoolStats {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.chair != nil {
		return s.chair.a.Pools()
	}
	return s.pools
}

// IsAllocator reports whether this process currently grants the slots of all processes. For a short time, two
// processes can both be allocators in their own view; the other processes follow only one of them.
func (s *Slots) IsAllocator() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.chair != nil && !s.chair.a.IsSilent(time.Now())
}

// The method "heard" collects the member's news for the goroutine that notifies the holders. The caller must
// hold s.mu.
func (s *Slots) heard() {
	if news := s.member.News(); len(news) > 0 {
		s.news = append(s.news, news...)
		wake(s.tellUp)
	}
}

// wake tells a goroutine that there is work.
func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// The method "see" applies the value of the key: it records the limits and, if there is a new allocator,
// makes the member register with it.
func (s *Slots) see(k *alloc.Key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if k.Term == 0 {
		return
	}
	s.seeLimits(&k.Limits)
	if k.Holder != "" && k.Term > s.member.Term() {
		s.member.Join(k.Term)
		if s.resend != nil {
			s.resend()
		}
		wake(s.wakeUp)
	}
}

// seeLimits records the limits that apply. The caller must hold s.mu.
func (s *Slots) seeLimits(l *bgagent.Limits) {
	if s.limits = *l; !reflect.DeepEqual(s.limits, s.options.Limits) && !s.warned["limits"] && !s.replaces {
		s.warned["limits"] = true
		s.wg.Go(func() { // not in this goroutine, which holds s.mu, because Warn might call a method of s
			s.options.Warn(errors.New("bgnats: the stored limits differ from SlotOptions.Limits, and apply instead of them"))
		})
	}
}

// Close gives up all places in line, and leaves the group of processes. Holders are notified that their slots
// are lost. Slots that are still held are not granted to others until the lease is over, because the work
// that uses them might run until then. Therefore, close the managers first. If ctx ends before the allocator
// has answered, Close returns the error of ctx. Then even slots that were released shortly before the call
// are not granted to others until the lease is over. If ctx has no deadline, Close waits for at most 10 s for
// the allocator; the error then matches [context.DeadlineExceeded]. Afterwards, if this process is the
// allocator, Close waits for up to 5 s for the servers to record that it no longer is. Later calls do
// nothing.
func (s *Slots) Close(ctx context.Context) error {
	s.mu.Lock()
	if s.closing {
		s.mu.Unlock()
		return nil
	}
	s.closing = true
	s.member.Leave(time.Now(), errSlotsClosed)
	s.heard()
	s.mu.Unlock()
	wake(s.wakeUp)
	err := s.untilLeft(ctx)
	s.end()
	s.wg.Wait()
	s.tellHolders()
	for _, sub := range s.subs {
		_ = sub.Unsubscribe() // fails only if the subscription has already ended, for example with its connection
	}
	s.giveUpKey(ctx)
	s.w.unwatch()
	if err != nil {
		return fmt.Errorf("bgnats: close slots: %w", err)
	}
	return nil
}

// leaveWithin is how long Close waits for the allocator if its context has no deadline. After the death of an
// allocator, the election of another one takes up to 5 s.
const leaveWithin = 10 * time.Second

func (s *Slots) untilLeft(ctx context.Context) error {
	waiting := ctx
	if _, limited := ctx.Deadline(); !limited {
		var cancel context.CancelFunc
		waiting, cancel = context.WithTimeout(ctx, leaveWithin)
		defer cancel()
	}
	for {
		s.mu.Lock()
		left := s.member.HasLeft()
		s.mu.Unlock()
		if left {
			return nil
		}
		switch err := pause(waiting, time.Millisecond); {
		case err != nil && ctx.Err() == nil:
			return fmt.Errorf("the allocator has not answered within %v; the connection to the servers is %v: %w", leaveWithin, s.w.nc.Status(), err)
		case err != nil:
			return err
		}
	}
}
