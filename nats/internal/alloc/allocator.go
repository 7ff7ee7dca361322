package alloc

import (
	"cmp"
	"slices"
	"time"

	"github.com/bgagent/bgagent"
)

// Allocator grants slots during one term. Its methods must not be called concurrently.
type Allocator struct {
	term   uint64
	lease  time.Duration
	slots  *bgagent.ConcurrencyManager
	procs  map[string]*process
	opened bool
	silent time.Time // time at which the allocator must stop answering, because its key might then belong to another process
	tell   map[*process]struct{}
	gone   []string
	now    time.Time // time of the current call
}

// process is what the allocator knows about a process.
type process struct {
	name         string
	registration uint64
	acked        uint64
	seen         time.Time // time at which the last answered message of the process arrived
	listed       bool      // an earlier allocator knew the process
	done         bool      // the registration is complete
	leaving      bool      // the process is exiting, and is forgotten when it holds no slots
	unsure       time.Time // time at which Tick first saw a grant that the process has not confirmed; zero if there is none
	quiet        bool      // the process does not confirm its grants, so its requests are out of line until it sends a message
	claims       map[uint64]*claim

	// The map "served" holds, for each root, the time when it last got a slot through this process. A
	// pool's line forgets this time for a root without waiters. Without this map, the roots of a process
	// that was out of line would get their old places back. Only roots for which the process has no claims
	// may be missing from the map.
	served map[string]time.Time
}

// claim is a process's request for a slot.
type claim struct {
	a       *Allocator
	p       *process
	op      Op
	slot    bgagent.SlotClaim // nil while the request is not in line
	granted bool
	taken   bool // the process has confirmed the grant
	stale   bool // the process has begun to register again, but has not named the claim yet
}

// SlotGranted implements [bgagent.SlotHolder].
func (c *claim) SlotGranted() {
	c.granted = true
	c.a.tell[c.p] = struct{}{}
	c.p.noteServed(c.op.Root, c.a.now)
}

// noteServed records that the root got a slot. If there are many roots, it removes the roots without claims.
func (p *process) noteServed(root string, now time.Time) {
	if p.served == nil || len(p.served) > 2*len(p.claims)+16 {
		kept := map[string]time.Time{}
		for _, c := range p.claims {
			if at, known := p.served[c.op.Root]; known {
				kept[c.op.Root] = at
			}
		}
		p.served = kept
	}
	p.served[root] = now
}

// SlotLost implements [bgagent.SlotHolder].
func (c *claim) SlotLost(time.Time, error) {
	panic("bgnats: bug: a ConcurrencyManager has lost a slot")
}

// NewAllocator returns the allocator of a term. sent is the time at which the process sent the write that
// took the key, and members contains the processes in the value that this write replaced.
func NewAllocator(term uint64, l bgagent.Limits, lease time.Duration, sent time.Time, members []string) (*Allocator, error) {
	slots, err := bgagent.NewConcurrencyManager(l)
	if err != nil {
		return nil, err
	}
	a := &Allocator{term: term, lease: lease, slots: slots, procs: map[string]*process{}, tell: map[*process]struct{}{}}
	for _, name := range members {
		a.procs[name] = &process{name: name, seen: sent, listed: true, claims: map[uint64]*claim{}}
	}
	a.open()
	return a, nil
}

// Term returns the term.
func (a *Allocator) Term() uint64 { return a.term }

// Keep is called when the key has been written. It lets the allocator answer and grant slots until two thirds
// of the key's time have passed since sent, the time at which the write was sent.
func (a *Allocator) Keep(sent time.Time, key time.Duration) { a.silent = sent.Add(twoThirds(key)) }

// IsSilent reports whether the allocator must not answer or grant anything.
func (a *Allocator) IsSilent(now time.Time) bool {
	return !now.Before(a.silent) || !now.Round(0).Before(a.silent.Round(0))
}

// Knows reports whether the process is known. If it is not, its name must be written to the key before it is
// admitted.
func (a *Allocator) Knows(name string) bool { return a.procs[name] != nil }

// Admit adds a process after its name was written to the key.
func (a *Allocator) Admit(now time.Time, name string) {
	if a.procs[name] == nil {
		a.procs[name] = &process{name: name, seen: now, claims: map[uint64]*claim{}}
	}
}

// Members returns the names of the known processes. The value of the allocator's key must contain them.
func (a *Allocator) Members() (names []string) {
	for name := range a.procs {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Limits returns the limits that apply.
func (a *Allocator) Limits() bgagent.Limits { return a.slots.Limits() }

// SetLimits replaces the limits.
func (a *Allocator) SetLimits(l bgagent.Limits) error { return a.slots.SetLimits(l) }

// Pools returns the figures for all processes.
func (a *Allocator) Pools() []bgagent.PoolStats { return a.slots.Pools() }

// Handle handles a message from a process. It returns false if there is no answer, because the
// process is unknown, the message is out of date, or the allocator must be silent.
func (a *Allocator) Handle(now time.Time, up *Up) (answer Down, ok bool) {
	p := a.procs[up.Process]
	if p == nil || a.IsSilent(now) {
		return Down{}, false
	}
	a.now = now
	answer = Down{Term: a.term, Registration: up.Registration}
	switch {
	case up.Term != a.term:
		answer.Register = true
		return answer, true
	case up.Registration < p.registration:
		return Down{}, false
	case up.Registration > p.registration:
		if up.First != 1 {
			answer.Register = true
			return answer, true
		}
		p.registration, p.acked, p.done, p.leaving = up.Registration, 0, false, false
		for _, c := range p.claims {
			c.stale = true
		}
	case up.First > p.acked+1: // the process was forgotten, and then an old message began its registration
		answer.Register = true
		return answer, true
	}
	p.seen, p.unsure = now, time.Time{}
	a.listen(p)
	for i, op := range up.Ops {
		if number := up.First + uint64(i); number == p.acked+1 {
			p.acked = number
			a.apply(p, op)
		}
	}
	if a.procs[p.name] != p { // the process has left
		answer.Acked = p.acked
		return answer, true
	}
	answer.Acked, answer.Grants = p.acked, a.grants(p)
	delete(a.tell, p)
	if up.Figures {
		l := a.Limits()
		answer.Limits, answer.Pools = &l, a.Pools()
	}
	return answer, true
}

// The method "grants" returns the process's requests that have been granted slots but are not yet confirmed.
func (a *Allocator) grants(p *process) (ids []uint64) {
	if !p.done {
		return nil
	}
	for id, c := range p.claims {
		if c.granted && !c.taken {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

func (a *Allocator) apply(p *process, op Op) {
	c := p.claims[op.ID]
	switch op.Kind {
	case OpWant:
		if c != nil && !c.granted {
			c.stale = false
			return
		}
		a.want(&claim{a: a, p: p, op: op})
		a.release(c) // the process will not take this grant any more, so the request returns to its place in line
	case OpHold:
		if c != nil && c.granted {
			c.stale, c.taken = false, true
			return
		}
		a.release(c)
		c = &claim{a: a, p: p, op: op, taken: true}
		p.claims[op.ID] = c
		a.request(c, true)
	case OpTake:
		if c != nil && c.granted {
			c.taken = true
		}
	case OpFree:
		if c != nil {
			delete(p.claims, op.ID)
			a.release(c)
		}
		a.dropIfEmpty(p)
	case OpDone:
		p.done = true
		for id, c := range p.claims {
			if c.stale {
				delete(p.claims, id)
				a.release(c)
			}
		}
		a.open()
	case OpLeave:
		p.leaving = true
		a.releaseAll(p, func(c *claim) bool { return !c.taken }) // the process does not confirm any more grants
		a.dropIfEmpty(p)
	}
}

func (a *Allocator) want(c *claim) {
	c.p.claims[c.op.ID] = c
	if a.opened {
		a.request(c, false)
	}
}

func (a *Allocator) request(c *claim, running bool) {
	r := c.wants()
	r.Running = running
	c.slot = a.slots.Request(r, c)
}

func (c *claim) wants() bgagent.SlotRequest {
	return bgagent.SlotRequest{Model: c.op.Model, Agent: c.op.Agent, Root: c.op.Root, Head: c.op.Head, Queued: c.op.Queued}
}

func (a *Allocator) release(c *claim) {
	if c != nil && c.slot != nil {
		c.slot.Release()
	}
}

// drop forgets a process and frees its slots.
func (a *Allocator) drop(p *process) {
	delete(a.procs, p.name)
	a.gone = append(a.gone, p.name)
	a.releaseAll(p, func(*claim) bool { return true })
	delete(a.tell, p)
	a.open()
}

// dropIfEmpty drops the process if it is leaving and has no claims left.
func (a *Allocator) dropIfEmpty(p *process) {
	if p.leaving && len(p.claims) == 0 {
		a.drop(p)
	}
}

// releaseAll releases those of the process's claims for which the function "which" returns true.
func (a *Allocator) releaseAll(p *process, which func(*claim) bool) {
	for _, granted := range []bool{false, true} { // waiting claims come first, so that none of them gets a slot that becomes free here
		for id, c := range p.claims {
			if c.granted == granted && which(c) {
				delete(p.claims, id)
				a.release(c)
			}
		}
	}
}

// The method "open" lets the allocator begin to grant slots as soon as every process known to an earlier
// allocator has registered or been forgotten.
func (a *Allocator) open() {
	if a.opened {
		return
	}
	for _, p := range a.procs {
		if p.listed && !p.done {
			return
		}
	}
	a.opened = true
	var all []*claim
	for _, p := range a.procs {
		all = append(all, p.outOfLine()...)
	}
	a.requestAll(all)
}

// outOfLine returns the requests of the process that are not in line.
func (p *process) outOfLine() (all []*claim) {
	for _, c := range p.claims {
		if c.slot == nil {
			all = append(all, c)
		}
	}
	return all
}

// Unreachable is called when nobody received a message to the process. Until the process sends a message, it
// is granted no further slots, because it might be dead, and a slot of a dead process stays unused until the
// lease is over. Its earlier grants remain, because the process might have received the messages with these
// grants.
func (a *Allocator) Unreachable(name string) {
	p := a.procs[name]
	if p == nil || !a.opened || p.quiet {
		return
	}
	p.quiet = true
	for _, c := range p.claims {
		if !c.granted {
			a.release(c)
			c.slot = nil
		}
	}
}

// If the process was quiet, the method "listen" puts its requests back into their places in line. With Fair,
// each of the process's roots comes after the roots that were already waiting when it last got a slot.
func (a *Allocator) listen(p *process) {
	if !p.quiet {
		return
	}
	p.quiet = false
	back := p.outOfLine()
	if a.slots.Limits().Fair {
		for _, c := range back {
			c.op.Queued = later(c.op.Queued, p.served[c.op.Root])
		}
	}
	a.requestAll(back)
}

// requestAll puts all requests in line before the first one gets a slot. Otherwise, with
// [bgagent.Limits].Fair, the first root would get all slots, because no other root would be in line.
func (a *Allocator) requestAll(all []*claim) {
	slices.SortFunc(all, func(x, y *claim) int {
		if x.op.Head != y.op.Head {
			if x.op.Head {
				return -1
			}
			return 1
		}
		return cmp.Or(x.op.Queued.Compare(y.op.Queued), cmp.Compare(x.p.name, y.p.name), cmp.Compare(x.op.ID, y.op.ID))
	})
	requests, holders := make([]bgagent.SlotRequest, len(all)), make([]bgagent.SlotHolder, len(all))
	for i, c := range all {
		requests[i], holders[i] = c.wants(), c
	}
	for i, slot := range a.slots.RequestAll(requests, holders) {
		all[i].slot = slot
	}
}

// IsOpen reports whether the allocator grants slots.
func (a *Allocator) IsOpen() bool { return a.opened }

// confirmWithin divides the lease: a process must confirm a grant within lease/confirmWithin in order to get
// further slots.
const confirmWithin = 60

// Tick frees the slots of processes whose lease is over, and records which processes do not confirm their
// grants. It reports whether the list of processes has changed since the last call. If so, the key must be
// written.
func (a *Allocator) Tick(now time.Time) (changed bool) {
	a.now = now
	for _, p := range a.procs {
		switch {
		case now.Sub(p.seen) > a.lease:
			a.drop(p)
		case len(a.grants(p)) == 0:
		case p.unsure.IsZero():
			p.unsure = now
		case now.Sub(p.unsure) >= a.lease/confirmWithin:
			a.Unreachable(p.name)
		}
	}
	changed = len(a.gone) > 0
	a.gone = nil
	return changed
}

// Tell returns messages with new grants, for processes that are not waiting for an answer.
func (a *Allocator) Tell(now time.Time) map[string]Down {
	if len(a.tell) == 0 || a.IsSilent(now) {
		return nil
	}
	out := make(map[string]Down, len(a.tell))
	for p := range a.tell {
		if ids := a.grants(p); len(ids) > 0 {
			out[p.name] = Down{Term: a.term, Registration: p.registration, Grants: ids}
		}
	}
	clear(a.tell)
	return out
}
