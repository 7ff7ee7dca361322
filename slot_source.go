package bgagent

import (
	"errors"
	"sync"
	"time"

	"github.com/bgagent/bgagent/internal/slots"
)

// SlotSource grants slots to managers, possibly in several processes. A [BackgroundManager] takes
// its slots from Config.Slots. A [*ConcurrencyManager] is a SlotSource for one process. The package
// slottest checks implementations.
//
// All methods must be safe for concurrent use, and must not block. Request and Release can call
// holders before they return, including the holders of other requests.
//
// If a source's limits can be changed, the source also has the method SetLimits(Limits) error. For a
// manager m with this source, m.Concurrency().SetLimits calls that method. Limits can change at any
// time; a manager reads them again before its requests and before it shows figures.
type SlotSource interface {
	// Request asks for a slot and returns immediately. If the slot is free, it can be granted
	// before Request returns. The result must not be nil. A source that no longer grants slots
	// returns a claim and calls SlotLost.
	Request(r SlotRequest, h SlotHolder) SlotClaim

	// Limits returns the limits that apply. The caller must not change the maps in the result.
	Limits() Limits

	// Pools returns the figures for all pools and caps, as [ConcurrencyManager.Pools] does. They
	// count the slots of all users of the source, and can be a few seconds old.
	Pools() []PoolStats
}

// SlotRequest describes the work that needs the slot. The names do not have to be in lower case.
type SlotRequest struct {
	Model string // determines the pool; empty if the model is unknown
	Agent string // counts towards the agent's cap, and determines the pool if Model is empty
	Root  string // root session, for Limits.Fair

	// If Head is set, the request comes before all requests without Head. Among the requests with
	// Head, and among those without, earlier Queued times come first. The zero Queued means the
	// time of the call.
	Head   bool
	Queued time.Time

	// Running means that the slot is for work that an earlier process began and that might still be
	// running. The source grants the slot immediately, even above the limits. The manager does not
	// begin work with this slot and does not call MayBegin: before it makes a host call that begins
	// work, it makes an ordinary request with Head and releases this slot.
	Running bool
}

// SlotHolder is notified of the outcome of a request. A source must not call a holder while holding
// a lock that the source's own methods need, because the holder can call Release, Limits and Pools.
// A holder's methods must not block. They can be called before Request returns, and a call that
// began before Release can still be running after it. If a slot that was granted is lost,
// SlotGranted must return before SlotLost is called. If only the place in line is lost, SlotGranted
// is never called.
type SlotHolder interface {
	// SlotGranted is called at most once, when the slot is granted.
	SlotGranted()

	// SlotLost is called at most once, if the source cannot keep the slot or the place in line. All
	// work with the slot must have stopped by the given time, because others can get the slot then.
	// The error says why the slot was lost; nil counts as ErrSlotLost. The claim must still be
	// released once the work has stopped. If the work could not be stopped, a manager also releases
	// the claim at the given time; such work counts in Figures.OverLimit.
	SlotLost(until time.Time, why error)
}

// SlotClaim is a request for a slot, and later the slot. Its methods are safe for concurrent use.
type SlotClaim interface {
	// Release gives back the slot or the place in line. Further calls do nothing. Release can be
	// called after SlotLost, and from within a holder's methods.
	Release()

	// MayBegin reports whether work may now begin with the slot. It must be called right before the
	// work begins. If the result is false for a slot that was granted and not released, it stays
	// false, and [SlotHolder].SlotLost is called. For requests with Running, the result has no
	// meaning.
	MayBegin() bool
}

// CoolDownSource is an optional interface for a [SlotSource] whose users are in several processes.
// A cool-down that begins in one manager then applies to the managers in all processes. Without it,
// each manager notices a provider's limit only when the provider refuses one of the manager's own
// turns.
type CoolDownSource interface {
	SlotSource

	// ShareCoolDowns connects a manager with the other users of the source. The source calls the
	// function "hear" for every cool-down that another user reports. Soon after the call to
	// ShareCoolDowns, it also calls "hear" for the cool-downs that have not ended yet. The function
	// "hear" must not be called while the source holds a lock that its own methods need. The manager
	// calls the function "tell" to report a cool-down to the other users. The function "tell" must not
	// block. Both functions are safe for concurrent use. The manager calls the function "stop" when it
	// closes. Afterwards, calls to "hear" have no effect.
	ShareCoolDowns(hear func(CoolDown)) (tell func(CoolDown), stop func())
}

// CoolDown reports that the provider has refused a turn of a model. No turn may begin in the
// model's pool until the cool-down ends.
type CoolDown struct {
	Model string // model whose turn was refused; empty if the model is unknown
	Agent string // agent whose turn was refused; determines the pool if Model is empty

	// Provider means that the refusal concerns all models of the provider.
	Provider bool

	// For is the time from now until the end of the cool-down. RetryIn is the time from now until
	// the provider accepts requests again, according to the provider; it is 0 if the provider did
	// not give a time. These are durations and not times, because the clocks of the processes can
	// differ.
	For, RetryIn time.Duration
}

// ErrSlotLost is the error that a [SlotSource] passes to [SlotHolder].SlotLost if it could not keep a
// slot, for example because the connection to other processes is interrupted. The source can wrap the
// error.
var ErrSlotLost = errors.New("the slot is lost")

var _ SlotSource = (*ConcurrencyManager)(nil)

// ownClaim is a request to a ConcurrencyManager.
type ownClaim struct {
	slots.Waiter
	c    *ConcurrencyManager
	h    SlotHolder
	root string

	mu       sync.Mutex
	released bool
}

// Request asks for a slot and implements [SlotSource]. A ConcurrencyManager's slots are never lost.
// The holder is called by the goroutine that frees the slot, or by Request itself.
func (c *ConcurrencyManager) Request(r SlotRequest, h SlotHolder) SlotClaim {
	if c.from != nil {
		return c.from.Request(r, h)
	}
	k, join := c.newClaim(&r, h)
	if r.Running {
		c.slots.Force(&k.Waiter, join.Handle)
		h.SlotGranted()
		return k
	}
	if c.slots.Take(&k.Waiter, join.Handle, join.Head, join.Ticket) {
		h.SlotGranted()
	}
	return k
}

// RequestAll makes several requests. All of them are in line before the first one gets a slot.
// Therefore, with [Limits].Fair, the root sessions share the free slots. With separate calls to
// Request, the root session of the first requests would get all of them. The holder for requests[i] is
// holders[i], and its claim has the index i in the result. Requests with Running are granted first.
func (c *ConcurrencyManager) RequestAll(requests []SlotRequest, holders []SlotHolder) []SlotClaim {
	claims := make([]SlotClaim, len(requests))
	joins := make([]slots.Join, 0, len(requests))
	for _, running := range []bool{true, false} {
		for i := range requests {
			switch r := &requests[i]; {
			case r.Running != running:
			case running || c.from != nil:
				claims[i] = c.Request(*r, holders[i])
			default:
				k, join := c.newClaim(r, holders[i])
				claims[i], joins = k, append(joins, join)
			}
		}
	}
	if len(joins) > 0 {
		slots.Tell(nil, c.slots.TakeAll(joins))
	}
	return claims
}

// newClaim returns a claim that is not yet in line, and the data that is needed to put it there.
func (c *ConcurrencyManager) newClaim(r *SlotRequest, h SlotHolder) (*ownClaim, slots.Join) {
	if h == nil {
		panic("bgagent: a request needs a SlotHolder")
	}
	k := &ownClaim{c: c, h: h, root: r.Root}
	k.Owner, k.Root = k, c.roots.use(r.Root)
	space, name := countedAs(r.Model, r.Agent)
	handle := c.slots.For(space, name, r.Agent)
	join := slots.Join{Waiter: &k.Waiter, Handle: &handle, Head: r.Head}
	switch ticket, now := ticketAt(r.Queued), ticketAt(time.Now()); {
	case r.Running:
	case r.Queued.IsZero():
		c.slots.Reach(now)
		join.Ticket = c.slots.Ticket()
	default:
		c.slots.Reach(min(ticket, now))
		join.Ticket = ticket
	}
	return k, join
}

// ticketAt returns the ticket of a request that was queued at the given time. A request with a lower
// ticket comes earlier in line.
func ticketAt(t time.Time) uint64 {
	return slots.FirstTicket + uint64(min(max(t.UnixNano(), 0), slots.FirstTicket-1))
}

// SlotGranted implements [slots.Grantee].
func (k *ownClaim) SlotGranted(*slots.Waiter) {
	if k.MayBegin() {
		k.h.SlotGranted()
	}
}

// MayBegin implements [SlotClaim].
func (k *ownClaim) MayBegin() bool { return k.c.slots.Holds(&k.Waiter) }

// Release implements [SlotClaim].
func (k *ownClaim) Release() {
	k.mu.Lock()
	again := k.released
	k.released = true
	k.mu.Unlock()
	if again {
		return
	}
	next, more := k.c.slots.Leave(&k.Waiter)
	k.c.roots.drop(k.root)
	slots.Tell(next, more)
}

// requestRoots holds the root sessions of requests to a ConcurrencyManager, by name. The zero value
// is ready for use.
type requestRoots struct {
	mu  sync.Mutex
	all map[string]*requestRoot
}

type requestRoot struct {
	slots.Root
	uses int
}

func (r *requestRoots) use(name string) *slots.Root {
	r.mu.Lock()
	defer r.mu.Unlock()
	x := r.all[name]
	if x == nil {
		if x = (&requestRoot{}); r.all == nil {
			r.all = make(map[string]*requestRoot)
		}
		r.all[name] = x
	}
	x.uses++
	return &x.Root
}

func (r *requestRoots) drop(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if x := r.all[name]; x != nil {
		if x.uses--; x.uses == 0 {
			delete(r.all, name)
		}
	}
}
