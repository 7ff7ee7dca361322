package bgagent

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/bgagent/bgagent/internal/slots"
)

// The function "front" returns a ConcurrencyManager for a manager whose slots come from another
// source. The ConcurrencyManager keeps track of the pools' cool-downs. Its other figures, and the
// limits that it reports, come from the source. It does not apply the limits itself, because the
// source applies them.
func front(s SlotSource) (*ConcurrencyManager, error) {
	l, err := s.Limits().normal()
	if err != nil {
		return nil, fmt.Errorf("bgagent: the limits of Config.Slots: %w", err)
	}
	c := &ConcurrencyManager{slots: slots.New(unlimited{rules{l}}), epoch: time.Now(), from: s}
	c.slots.OnCool(c.coolUntil)
	return c, nil
}

// The type "unlimited" assigns names to the same pools as the type "rules", but has no limits.
type unlimited struct{ rules }

func (l unlimited) Pool(space slots.Space, name string) (pool string, limit int, shared bool) {
	pool, _, shared = l.rules.Pool(space, name)
	return pool, Unlimited, shared
}

func (l unlimited) Caps() slots.Caps { return slots.Caps{} }

// The method "look" reads the limits of the source c.from. If they have changed, the names of models
// and agents move to the pools that the new limits assign to them, together with their cool-downs.
// If the limits are invalid, the earlier ones stay in effect.
func (c *ConcurrencyManager) look() Limits {
	old := c.slots.Rules().(unlimited).Limits
	l, err := c.from.Limits().normal()
	if err != nil {
		return old
	}
	if !l.equal(&old) {
		c.slots.SetRules(unlimited{rules{l}})
	}
	return l
}

func (l *Limits) equal(o *Limits) bool {
	return l.Default == o.Default && l.Total == o.Total && l.Fair == o.Fair &&
		maps.Equal(l.Model, o.Model) && maps.Equal(l.Provider, o.Provider) && maps.Equal(l.Agent, o.Agent)
}

// ofPool returns the limit of the pool or the cap with the given name.
func (l *Limits) ofPool(name string) int {
	kind, of, _ := strings.Cut(name, " ")
	switch kind {
	case "model":
		return cmp.Or(l.Model[of], l.Default)
	case "provider":
		return cmp.Or(l.Provider[of], l.Default)
	case "agent":
		if l.Agent[of] != 0 {
			return Unlimited
		}
	case "cap":
		return cmp.Or(l.Agent[of], Unlimited)
	case "total":
		return cmp.Or(l.Total, Unlimited)
	}
	return l.Default
}

// poolsFrom returns the figures of the source, c.from, together with c's own cool-downs. The
// argument l is the result of c.look.
func (c *ConcurrencyManager) poolsFrom(l Limits) []PoolStats {
	out := slices.Clone(c.from.Pools())
	for _, f := range c.slots.Pools() {
		if f.Cool.Refusals == 0 {
			continue
		}
		own := poolStats(c.epoch, f)
		i := slices.IndexFunc(out, func(p PoolStats) bool { return p.Name == own.Name })
		if i < 0 {
			i, out = len(out), append(out, PoolStats{Name: own.Name, Limit: l.ofPool(own.Name)})
		}
		out[i].CoolUntil, out[i].Refusals = own.CoolUntil, own.Refusals
	}
	slices.SortFunc(out, func(a, b PoolStats) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// statsFrom returns the figures from the source c.from for the model's pool, together with the
// pool's cool-down.
func (c *ConcurrencyManager) statsFrom(model string) PoolStats {
	l := c.look()
	name, _, _ := rules{l}.Pool(slots.Models, slots.Normal(model))
	return c.statsOf(l, name)
}

// statsOf returns the figures from the source c.from for the pool with the given name, together with
// the pool's cool-down. If nobody has a slot in the pool, or if the source's figures are old, the
// source might not know the pool. In that case, statsOf returns only the pool's name and limit.
func (c *ConcurrencyManager) statsOf(l Limits, name string) PoolStats {
	for _, p := range c.poolsFrom(l) {
		if p.Name == name {
			return p
		}
	}
	return PoolStats{Name: name, Limit: l.ofPool(name)}
}

const (
	heardMost = 1000 // while this many pools are cooling down, further reports from other users are ignored
	heardName = 4096 // maximum length of the names in a report from another user
)

// otherUsers are the other users of a [CoolDownSource].
type otherUsers struct {
	tell func(CoolDown)
	stop func()
}

// The method "link" shares cool-downs with the other users of the source c.from while at least one
// manager that parks tasks (see Config.MaxPark) uses c.
func (c *ConcurrencyManager) link() {
	s, ok := c.from.(CoolDownSource)
	if !ok {
		return
	}
	c.linking.Lock()
	defer c.linking.Unlock()
	c.mu.Lock()
	used, others := slices.ContainsFunc(c.sharers, func(m *BackgroundManager) bool { return m.cfg.MaxPark > 0 }), c.others
	c.mu.Unlock()
	if used == (others != nil) {
		return
	}
	var now *otherUsers
	if used {
		var over atomic.Bool
		tell, stop := s.ShareCoolDowns(func(d CoolDown) {
			if !over.Load() {
				c.hear(d)
			}
		})
		now = &otherUsers{tell, func() {
			over.Store(true)
			stop()
		}}
	}
	c.mu.Lock()
	c.others = now
	c.mu.Unlock()
	if others != nil {
		others.stop()
	}
}

// The method "tell" reports a cool-down to the other users of the source.
func (c *ConcurrencyManager) tell(d *CoolDown) {
	c.mu.Lock()
	others := c.others
	c.mu.Unlock()
	if others != nil {
		others.tell(*d)
	}
}

// The method "hear" makes a pool cool down after another user of the source has reported a refusal.
// It ignores impossible reports and, while heardMost pools are cooling down, all reports.
func (c *ConcurrencyManager) hear(d CoolDown) {
	if d.For <= 0 || d.For > resetMost || d.RetryIn < 0 || d.RetryIn > resetMost || len(d.Model)+len(d.Agent) > heardName || c.slots.CoolPools() >= heardMost {
		return
	}
	space, name := countedAs(d.Model, d.Agent)
	h := c.slots.For(space, name, d.Agent)
	now := int64(time.Since(c.epoch))
	r := slots.Refusal{Now: now, Until: now + int64(d.For), Provider: d.Provider, Spread: rand.Float64()}
	if d.RetryIn > 0 {
		r.Reset = now + int64(d.RetryIn)
	}
	c.slots.Refuse(&slots.Waiter{}, &h, r)
	c.tellCooled(nil)
}

// errSlotsElsewhere is returned by Acquire if the ConcurrencyManager shows the figures of another
// source.
var errSlotsElsewhere = errors.New("bgagent: acquire: the slots of this manager come from Config.Slots; call its method Request instead")
