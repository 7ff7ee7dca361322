package slots

import (
	"slices"
	"strings"
)

// A pool cools down after a model provider has refused a turn. Until the end of the cool-down, the pool
// grants no slots. After that, it grants one slot, and no further slot until this slot is proved. A slot is
// proved when the provider has accepted a request of its turn. The window is the number of slots that may
// be granted but not yet proved. Each proved slot raises the window by one, so the number of slots per step
// doubles: 2, 4, 8 and so on. A further refusal begins a new cool-down.
//
// Times are nanoseconds on a clock that the callers share. The Manager has no clock: callers
// pass the time, and call [Manager.Warm] at the time that [Manager.OnCool] announced.

const (
	coolFirst     = int64(5e9)   // first cool-down, if the provider gave no time
	coolMax       = int64(300e9) // longest cool-down, if the provider gave no time
	coolSpreadMax = int64(30e9)  // greatest random addition
	coolForgotten = int64(300e9) // time after which a finished cool-down is forgotten if no unproved slot is held and no waiter is in line
)

// FirstTicket is the lowest queue time that [Manager.Ticket] returns. [Manager.Take] also
// accepts lower queue times. A waiter with a lower queue time comes before all waiters in its
// group that have a ticket.
const FirstTicket = 1 << 62

// cool is the state of one or more pools from a refusal until enough slots have proved that
// the provider accepts requests again. Pools that cool down together share one cool.
type cool struct {
	pools    []*pool
	provider string // the cool-down concerns all pools of this provider; empty if it concerns one pool
	since    int64  // time of the first refusal since the last success
	base     int64  // end of the cool-down without the random addition
	until    int64  // end of the cool-down
	look     int64  // time at which Warm next checks a cool-down that is over
	reset    int64  // latest time that the provider gave; 0 if it gave none
	tries    int    // number of refused requests in a row; of turns that were refused in parallel, only the one with the most requests counts
	refusals int    // number of refused turns since the pool was last in its usual state
	warm     bool   // the cool-down is over
	proved   bool   // a slot has proved that the provider accepts requests
	window   int    // number of slots that may be granted but not yet proved
	unproven int    // number of slots that were granted since the refusal and have not been proved
	mark     Waiter // the waiters that hold unproved slots point to this field with "prev"; see the method "passes"
}

// The method "passes" reports whether w holds a slot that was granted since the last refusal in its
// pool and has not been proved. The field "prev" marks such a slot, because a separate field would
// take memory in each pending task.
func (w *Waiter) passes() bool {
	return w.holds() && w.prev != nil && w.key.pool.cool != nil && w.prev == &w.key.pool.cool.mark
}

// dropPass turns w into an ordinary holder of its slot.
func (w *Waiter) dropPass() {
	if w.passes() {
		w.key.pool.cool.unproven--
	}
	if w.holds() {
		w.prev = nil
	}
}

// isFull reports whether no further slot can be granted now.
func (c *cool) isFull() bool { return !c.warm || c.unproven >= c.window }

// isOver reports whether the pools can return to their usual state. This requires that a slot has been
// proved. In addition, either the limits of all pools must be at least as strict as the window, or there
// must be no waiter and no unproved slot.
func (c *cool) isOver() bool {
	if !c.proved {
		return false
	}
	within := true
	for _, p := range c.pools {
		within = within && p.limit != Unlimited && c.window >= p.limit
	}
	return within || c.isIdle()
}

// isIdle reports whether no waiter waits for a slot of the pools and no unproved slot is held.
func (c *cool) isIdle() bool {
	return c.unproven == 0 && !slices.ContainsFunc(c.pools, func(p *pool) bool { return p.waiting > 0 })
}

// Refusal describes a turn that a provider refused.
type Refusal struct {
	Now      int64
	Reset    int64   // when the provider will accept requests, according to the provider; 0 if it gave no time
	Until    int64   // end of the cool-down, if another process has reported it; otherwise 0
	Tries    int     // number of requests that were refused; 0 counts as 1
	Provider bool    // the refusal concerns all models of the provider
	Again    bool    // an earlier process saw the refusal: the cool-down is as long as after a first refusal, and Tries counts only after the next refusal
	Spread   float64 // random number from 0 to 1
}

// end returns the end of the cool-down after the given number of refused requests, without and with the
// random addition.
func (r *Refusal) end(tries int) (base, until int64) {
	wait := coolMax
	if r.Again {
		tries = 1
	}
	switch {
	case r.Until > 0:
		wait = r.Until - r.Now
	case tries < 8:
		wait = min(coolFirst<<(tries-1), coolMax)
	}
	wait = max(wait, r.Reset-r.Now)
	return r.Now + wait, r.Now + wait + int64(r.Spread*float64(min(wait/5, coolSpreadMax)))
}

// CoolDown describes the cool-down of a pool.
type CoolDown struct {
	Since    int64 // time of the first refusal since the last success
	Base     int64 // Until without the random addition
	Until    int64 // time when the pool grants slots again; may be in the past
	Reset    int64 // latest time that the provider gave; 0 if it gave none
	Refusals int   // number of refused turns since the pool began to cool down; 0 if it is not cooling down
	Proved   bool  // a turn after the cool-down has succeeded
	Tries    int   // number of refused requests in a row; of turns that were refused in parallel, only the one with the most requests counts
	Provider bool  // all pools of the provider are cooling down
}

// OnCool sets the function that m calls whenever the time for the next call to [Manager.Warm]
// changes. The function is called while the lock of m is held. It must not block or call m.
func (m *Manager) OnCool(f func(at int64)) { m.onCool = f }

// Refuse begins or extends the cool-down of the pool of h, because a provider refused the turn for
// which w holds its slot.
func (m *Manager) Refuse(w *Waiter, h *Handle, r Refusal) {
	k := h.lock()
	defer m.mu.Unlock()
	p := k.pool
	old, tries := p.cool, max(r.Tries, 1)
	probe := w.passes()
	if w.dropPass(); probe {
		tries += old.tries
	}
	if old != nil && !old.warm && !probe { // the turn began before the cool-down
		base, until := r.end(max(old.tries, tries))
		if r.Until > 0 && base <= old.base && (old.provider != "" || !r.Provider) {
			return // the refusal was reported before, or changes nothing
		}
		old.refusals++
		old.reset = max(old.reset, r.Reset)
		old.base, old.until = max(old.base, base), max(old.until, until)
		if r.Again {
			old.tries = max(old.tries, tries)
		}
		m.spreadTo(old, k, r.Provider)
		m.rearm()
		return
	}
	c := &cool{since: r.Now, tries: tries, refusals: 1, reset: r.Reset, window: 1}
	if old != nil {
		c.tries = max(old.tries, tries)
		c.refusals, c.provider = old.refusals+1, old.provider
		if !old.proved {
			c.since = old.since
		}
		c.reset = max(c.reset, old.reset)
		c.pools = old.pools
		m.dropCool(old)
	}
	c.base, c.until = r.end(c.tries)
	m.cools = append(m.cools, c)
	m.cooling.Store(int32(len(m.cools)))
	for _, p := range append(slices.Clone(c.pools), p) {
		m.addTo(c, p)
	}
	m.spreadTo(c, k, r.Provider)
	m.rearm()
}

// spreadTo extends the cool-down to all pools of the provider of k if the argument "all" is true.
func (m *Manager) spreadTo(c *cool, k *key, all bool) {
	provider := providerOf(k)
	if !all || provider == "" {
		return
	}
	c.provider = provider
	for o := range m.all() {
		if providerOf(o) == provider {
			m.chill(o.pool, c)
		}
	}
}

// providerOf returns the provider of the model that k counts, or "".
func providerOf(k *key) string {
	if provider, _, ok := strings.Cut(k.name, "/"); ok && k.space == Models {
		return provider
	}
	return ""
}

// chill makes p one of the pools of c. If p has another cool-down, the two cool-downs are merged.
func (m *Manager) chill(p *pool, c *cool) {
	switch o := p.cool; {
	case o == nil || o == c:
		m.addTo(c, p)
	case c.warm && !o.warm:
		m.merge(o, c)
	default:
		m.merge(c, o)
	}
}

// merge moves the pools of o to c. Slots that were granted after the beginning of o no longer count as
// unproved.
func (m *Manager) merge(c, o *cool) {
	m.dropCool(o)
	c.since, c.base, c.until, c.reset = min(c.since, o.since), max(c.base, o.base), max(c.until, o.until), max(c.reset, o.reset)
	c.refusals = max(c.refusals, o.refusals)
	if c.provider == "" {
		c.provider = o.provider
	}
	for _, p := range o.pools {
		m.addTo(c, p)
	}
}

// addTo makes p a pool of c.
func (m *Manager) addTo(c *cool, p *pool) {
	p.cool = c
	p.setLimit(p.limit, m.capped != nil)
	if !slices.Contains(c.pools, p) {
		c.pools = append(c.pools, p)
	}
	if p.capped != nil {
		m.capped.giveUpKept(p)
	}
}

// dropCool removes c from the list of cool-downs.
func (m *Manager) dropCool(c *cool) {
	m.cools = slices.DeleteFunc(m.cools, func(x *cool) bool { return x == c })
	m.cooling.Store(int32(len(m.cools)))
}

// rearm announces when the next cool-down ends.
func (m *Manager) rearm() {
	at := int64(0)
	for _, c := range m.cools {
		next := c.until
		if c.warm {
			next = c.look
		}
		if at == 0 || next < at {
			at = next
		}
	}
	if at != 0 && m.onCool != nil {
		m.onCool(at)
	}
}

// Warm ends the cool-downs whose end has passed, and forgets those that are no longer needed; see
// coolForgotten. It notifies the owners of the waiters that get a slot.
func (m *Manager) Warm(now int64) {
	var granted []*Waiter
	m.mu.Lock()
	for _, c := range slices.Clone(m.cools) {
		switch {
		case !c.warm && c.until <= now:
			c.warm, c.look = true, now+coolForgotten
			granted = append(granted, m.review(c)...)
		case c.warm && c.look <= now:
			c.look = now + coolForgotten
			c.proved = c.proved || c.isIdle()
			granted = append(granted, m.review(c)...)
		}
	}
	m.rearm()
	m.mu.Unlock()
	for _, w := range granted {
		w.Owner.SlotGranted(w)
	}
}

// review grants the slots that the pools of c can grant. If c is over, it first returns the pools
// to their usual state.
func (m *Manager) review(c *cool) (granted []*Waiter) {
	if c.isOver() {
		m.dropCool(c)
		for _, p := range c.pools {
			p.cool = nil
			p.setLimit(p.limit, m.capped != nil)
		}
	}
	if m.capped != nil {
		m.capped.turnedAll(c)
		granted = m.capped.settle()
		m.capped.turnedAll(c)
	} else {
		for p := c.next(); p != nil; p = c.next() {
			granted = append(granted, p.grantFirst())
		}
	}
	for _, w := range granted {
		w.order = 0
	}
	return granted
}

// next returns the pool with the first of all waiters that can get a slot now, or nil.
func (c *cool) next() (best *pool) {
	for _, p := range c.pools {
		if p.first != nil && p.hasRoom() && (best == nil || p.first.order < best.first.order) {
			best = p
		}
	}
	return best
}

// Proved is called when the provider has accepted a request of the turn for which w holds its slot. It
// returns the waiters that get a slot as a result; the caller must report the grants to their owners. A turn
// that began before the cool-down counts only if no turn after the cool-down has succeeded yet.
func (m *Manager) Proved(w *Waiter) (granted []*Waiter) {
	if !m.Cools() {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.proved(w)
}

func (m *Manager) proved(w *Waiter) (granted []*Waiter) {
	if w.key == nil || w.key.pool.cool == nil {
		return nil
	}
	c := w.key.pool.cool
	switch {
	case w.passes():
		w.dropPass()
		c.window++
	case c.warm && !c.proved && c.unproven > 0:
		c.window += 2
	default:
		return nil
	}
	c.proved, c.tries = true, 0
	return m.review(c)
}

// CoolPools returns the number of pools that are cooling down.
func (m *Manager) CoolPools() (n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range m.cools {
		n += len(c.pools)
	}
	return n
}

// Cools reports whether any pool is cooling down. It does not take a lock.
func (m *Manager) Cools() bool { return m.cooling.Load() != 0 }

// MayBegin reports whether the turn for which w holds its slot may begin now. It returns false if
// the pool has begun to cool down since the slot was granted.
func (m *Manager) MayBegin(w *Waiter) bool {
	if !m.Cools() {
		return true
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return w.key == nil || w.key.pool.cool == nil || w.passes()
}

// Unproven reports whether w holds a slot that was granted after a cool-down and is not yet proved.
func (m *Manager) Unproven(w *Waiter) bool {
	if !m.Cools() {
		return false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return w.passes()
}

// CoolDown returns the cool-down of the pool of h.
func (m *Manager) CoolDown(h *Handle) CoolDown {
	if !m.Cools() {
		return CoolDown{}
	}
	k := h.lock()
	defer m.mu.Unlock()
	return k.pool.coolDown()
}

func (p *pool) coolDown() CoolDown {
	if c := p.cool; c != nil {
		return CoolDown{c.since, c.base, c.until, c.reset, c.refusals, c.proved, c.tries, c.provider != ""}
	}
	return CoolDown{}
}

// inherit makes the pool of k cool down if another pool of the same provider is cooling down.
func (m *Manager) inherit(k *key) {
	if k.pool.cool != nil {
		return
	}
	for _, c := range m.cools {
		if c.provider != "" && c.provider == providerOf(k) {
			m.chill(k.pool, c)
			return
		}
	}
}

// forgetCools removes pools without keys from the cool-downs.
func (m *Manager) forgetCools() {
	if len(m.cools) == 0 {
		return
	}
	used := make(map[*pool]bool)
	for k := range m.all() {
		used[k.pool] = true
	}
	for _, c := range slices.Clone(m.cools) {
		c.pools = slices.DeleteFunc(c.pools, func(p *pool) bool {
			if !used[p] {
				p.cool = nil
			}
			return !used[p]
		})
		if len(c.pools) == 0 {
			m.dropCool(c)
		}
	}
}

// turnedAll updates the gates of all pools of the cool-down x, and the slots that these pools keep.
func (c *capped) turnedAll(x *cool) {
	for _, p := range x.pools {
		if p.capped != nil {
			c.keep(p)
		}
	}
}

// giveUpKept gives up the slots of p that are kept for lanes. It is called when p begins to cool down.
func (c *capped) giveUpKept(p *pool) {
	for _, l := range p.capped.byCap {
		if !l.kept {
			continue
		}
		c.unfile(l)
		c.unkeep(l)
		c.file(l, &p.capped.gate)
	}
	c.turned(&p.capped.gate)
}

func (m *Manager) checkCools() string {
	if int(m.cooling.Load()) != len(m.cools) {
		return "the number of cool-downs is wrong"
	}
	for k := range m.all() {
		if c := k.pool.cool; c != nil && (!slices.Contains(m.cools, c) || !slices.Contains(c.pools, k.pool)) {
			return "a pool has a cool-down that does not list the pool"
		}
	}
	for _, c := range m.cools {
		if c.unproven < 0 || c.window < 1 || !c.warm && c.unproven > 0 {
			return "a cool-down has a wrong count"
		}
		for _, p := range c.pools {
			if p.cool != c {
				return "a cool-down lists a pool that has another cool-down or none"
			}
		}
	}
	return ""
}
