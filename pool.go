package bgagent

import (
	"cmp"
	"iter"
	"strings"
)

// grantee is told, by whoever freed the slot and with no lock of the
// ConcurrencyManager held, that a waiter of it holds a slot. By then the waiter
// may have left again: holds tells.
type grantee interface {
	slotGranted(w *waiter)
}

// waiter waits for a slot or holds one. It is embedded by value in what wants
// the slot, so that waiting costs no allocation of its own. The zero value with
// an owner is ready for use. Everything but owner belongs to the manager.
type waiter struct {
	next, prev *waiter // in the line of key.pool
	key        *key    // what it is counted as; nil when it has nothing
	order      uint64  // place in line by ticket, notHead set or not; 0 when it does not wait
	owner      grantee // told when a slot is granted; only read after waiting began
}

// notHead is set in the order of those who do not go to the head of the line.
const notHead = 1 << 63

func (w *waiter) waits() bool { return w.order != 0 }
func (w *waiter) holds() bool { return w.key != nil && w.order == 0 }

func byOrder(a, b *waiter) int { return cmp.Compare(a.order, b.order) }

// pool is what one entry of the limits decides for, with its line. The line is
// sorted by order.
type pool struct {
	name        string
	limit       int
	inUse       int
	waiting     int
	first, last *waiter
}

func (p *pool) stats() PoolStats { return PoolStats{p.name, p.limit, p.inUse, p.waiting} }

func (p *pool) hasRoom() bool { return p.inUse < p.limit || p.limit == Unlimited }

// insert puts w into the line. Mostly that is at its end. Otherwise the place is
// looked for from both ends at once: what has an old ticket is near the front
// and must not walk past a million others.
func (p *pool) insert(w *waiter) {
	p.waiting++
	before, after := p.last, p.first // w goes behind the one, or in front of the other
	for {
		if before == nil || before.order <= w.order {
			p.link(w, before)
			return
		}
		if after.order > w.order {
			p.link(w, after.prev)
			return
		}
		before, after = before.prev, after.next
	}
}

// link puts w behind prev, or first when prev is nil.
func (p *pool) link(w, prev *waiter) {
	w.prev = prev
	if prev == nil {
		w.next, p.first = p.first, w
	} else {
		w.next, prev.next = prev.next, w
	}
	if w.next == nil {
		p.last = w
	} else {
		w.next.prev = w
	}
}

// remove takes w out of the line.
func (p *pool) remove(w *waiter) {
	p.waiting--
	if w.prev == nil {
		p.first = w.next
	} else {
		w.prev.next = w.next
	}
	if w.next == nil {
		p.last = w.prev
	} else {
		w.next.prev = w.prev
	}
	w.next, w.prev = nil, nil
}

// takeAll empties the line and appends who stood in it.
func (p *pool) takeAll(to []*waiter) []*waiter {
	for w := p.first; w != nil; {
		next := w.next
		w.next, w.prev = nil, nil
		to, w = append(to, w), next
	}
	p.first, p.last, p.waiting = nil, nil, 0
	return to
}

// grantFirst takes the first out of the line and counts a slot for it. The
// caller sets its order to 0, by which it holds the slot.
func (p *pool) grantFirst() *waiter {
	w := p.first
	p.remove(w)
	w.key.waiting--
	grant(w, w.key)
	return w
}

// key is one name, of a model or an agent, that slots and waiters are counted
// by, whatever pool the limits of the moment put it in.
type key struct {
	name    string // normal; the end of own.name
	pool    *pool  // nil once the key has been forgotten
	inUse   int
	waiting int
	space   keySpace
	own     pool // where it is counted when no entry of the limits decides
}

func (k *key) isIdle() bool { return k.inUse+k.waiting == 0 }

// weight is what a key counts: names come from language models and may be of
// any length.
func (k *key) weight() int { return 1 + len(k.name)/maxHotName }

// maxIdle is the weight of keys up to which none is forgotten, because most
// come back. Above it all idle ones are forgotten as soon as half as many keys
// have come or fallen idle since the last time. So what is kept of idle keys is
// bounded by maxIdle and the number of the others, at a constant time per key
// and at none for those who use few names.
const maxIdle = 1024

// maxHotName is the longest name in ConcurrencyManager.hot.
const maxHotName = 256

// hotIndex spreads names over ConcurrencyManager.hot by their length and a few
// bytes where names of models differ. Names that meet there cost a map look-up.
func hotIndex(s string) uint8 {
	n := len(s)
	if n < 2 {
		return uint8(n)
	}
	return uint8(n)*31 + s[0] + s[n/2]*3 + s[n-2]*10 + s[n-1]
}

// assign puts k into the pool that the limits name.
func (c *ConcurrencyManager) assign(k *key) {
	k.own.limit = c.limits.Default
	k.pool = c.entry(k.space, k.name)
	if k.pool == nil {
		k.pool = &k.own
	}
}

// lockKey returns the key of a name as it was written, with c.mu held. Names
// are mostly written in their normal form; as only normal names are keys, a hit
// needs no normalising.
func (c *ConcurrencyManager) lockKey(space keySpace, raw string) *key {
	c.mu.Lock()
	if k := c.keys[space][raw]; k != nil {
		return k
	}
	c.mu.Unlock()
	var buf [128]byte
	if name, ok := lowerASCII(buf[:], raw); ok {
		c.mu.Lock()
		if k := c.keys[space][string(name)]; k != nil {
			return k
		}
		return c.newKey(space, string(name))
	}
	name := normalName(raw)
	c.mu.Lock()
	return c.keyLocked(space, name)
}

// lockModel is lockKey for models, by way of c.hot.
func (c *ConcurrencyManager) lockModel(raw string) *key {
	c.mu.Lock()
	if k := c.hot[hotIndex(raw)]; k != nil && k.name == raw && k.pool != nil {
		return k
	}
	c.mu.Unlock()
	k := c.lockKey(modelSpace, raw)
	if len(raw) <= maxHotName && k.name == raw {
		c.hot[hotIndex(raw)] = k
	}
	return k
}

// keyLocked returns the key of a normal name.
func (c *ConcurrencyManager) keyLocked(space keySpace, name string) *key {
	if k := c.keys[space][name]; k != nil {
		return k
	}
	return c.newKey(space, name)
}

func (c *ConcurrencyManager) newKey(space keySpace, name string) *key {
	k := &key{space: space}
	// A copy: a short name may be cut out of a long text that it must not keep
	// alive.
	k.own.name = ownPoolName(space, name)
	k.name = k.own.name[len(k.own.name)-len(name):]
	c.assign(k)
	c.churned(k)
	c.keys[space][k.name] = k
	c.weight += k.weight()
	return k
}

// churned is called when k comes or has fallen idle.
func (c *ConcurrencyManager) churned(k *key) {
	if c.weight <= maxIdle {
		return
	}
	c.churn += k.weight()
	if c.churn > c.weight/2 {
		c.forgetIdle()
	}
}

// forgetIdle drops the idle keys. The maps are made anew, because a map keeps
// the memory of what it once held.
func (c *ConcurrencyManager) forgetIdle() {
	c.weight, c.churn = 0, 0
	for space, keys := range c.keys {
		kept := make(map[string]*key)
		for name, k := range keys {
			if k.isIdle() {
				k.pool = nil
			} else {
				kept[name] = k
				c.weight += k.weight()
			}
		}
		c.keys[space] = kept
	}
}

// busyPools goes through the pools that have slots out or waiters, once each.
func (c *ConcurrencyManager) busyPools() iter.Seq[*pool] {
	return func(yield func(*pool) bool) {
		seen := make(map[*pool]bool)
		for _, keys := range c.keys {
			for _, k := range keys {
				if k.isIdle() || seen[k.pool] {
					continue
				}
				if k.pool != &k.own {
					seen[k.pool] = true
				}
				if !yield(k.pool) {
					return
				}
			}
		}
	}
}

// ticket returns a queue time. Each is greater than those before it.
func (c *ConcurrencyManager) ticket() uint64 { return c.tickets.Add(1) }

// take asks for a slot of the model's pool, or of the agent's where the model
// has no name. It reports whether w holds one now; otherwise w stands in line,
// in front of all who are not for the head when head is set, and by its ticket
// among its like. Its owner is told when its turn has come.
func (c *ConcurrencyManager) take(w *waiter, model, agent string, head bool, ticket uint64) (granted bool) {
	if ticket == 0 || ticket >= notHead {
		panic("bgagent: bug: a ticket that ConcurrencyManager.ticket has not given out")
	}
	space, name := modelSpace, model
	if strings.TrimSpace(model) == "" && strings.TrimSpace(agent) != "" {
		space, name = agentSpace, agent
	}
	var k *key
	if space == modelSpace {
		k = c.lockModel(name)
	} else {
		k = c.lockKey(space, name)
	}
	if w.key != nil {
		c.mu.Unlock()
		panic("bgagent: bug: a slot is asked for by one who waits or holds one already")
	}
	// Nobody waits while there is room.
	if granted = k.pool.hasRoom(); granted {
		grant(w, k)
	} else {
		queue(w, k, head, ticket)
	}
	c.mu.Unlock()
	return granted
}

// grant gives w a slot that is free.
func grant(w *waiter, k *key) {
	w.key = k
	k.inUse++
	k.pool.inUse++
}

func queue(w *waiter, k *key, head bool, ticket uint64) {
	k.waiting++
	w.key, w.order = k, ticket
	if !head {
		w.order |= notHead
	}
	k.pool.insert(w)
}

// leave gives up whatever w has: its place in line or its slot. When its slot
// has passed to another, that one is returned, already holding it, and the
// caller must tell it: next.owner.slotGranted(next), with no lock held.
func (c *ConcurrencyManager) leave(w *waiter) (next *waiter) {
	c.mu.Lock()
	next = c.leaveLocked(w)
	c.mu.Unlock()
	return next
}

func (c *ConcurrencyManager) leaveLocked(w *waiter) (next *waiter) {
	k := w.key
	switch {
	case k == nil:
		return nil
	case w.waits():
		k.pool.remove(w)
		k.waiting--
		w.key, w.order = nil, 0
	default:
		giveBack(w, k)
	}
	return c.settle(k)
}

// giveBack takes its slot from w.
func giveBack(w *waiter, k *key) {
	w.key = nil
	k.inUse--
	k.pool.inUse--
}

// settled reports whether giving back a slot of k leaves nothing to do.
func (c *ConcurrencyManager) settled(k *key) bool {
	return k.pool.first == nil && c.weight <= maxIdle
}

// settle does what is to be done when somebody of k has left: the slot, if it
// was one, goes to the first in line.
func (c *ConcurrencyManager) settle(k *key) (next *waiter) {
	if p := k.pool; p.first != nil && p.hasRoom() {
		next = p.grantFirst()
		next.order = 0
	}
	if k.isIdle() {
		c.churned(k)
	}
	return next
}

// holds reports whether w holds a slot.
func (c *ConcurrencyManager) holds(w *waiter) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return w.holds()
}

// maxPlace bounds how far a place in line is counted.
const maxPlace = 10_000

// place returns the place of w in its line, counted from 1, with the figures of
// its pool. The place is 0 for one that does not wait or is further back than
// maxPlace; the figures are zero for one that has nothing.
func (c *ConcurrencyManager) place(w *waiter) (place int, s PoolStats) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if w.key == nil {
		return 0, PoolStats{}
	}
	s = w.key.pool.stats()
	if !w.waits() {
		return 0, s
	}
	for ; w != nil; w = w.prev {
		if place++; place > maxPlace {
			return 0, s
		}
	}
	return place, s
}
