package bgagent

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/bgagent/bgagent/internal/mdtext"
	"github.com/bgagent/bgagent/internal/slots"
)

// ConcurrencyManager hands out slots. A slot is the right to run turns with a model. There is one
// pool for each entry of Limits.Model and Limits.Provider. Each model to which only the default limit
// applies has its own pool. Without caps, a pool serves its waiters in the order of their arrival: a
// released slot goes straight to the first waiter in line, and no waiter can overtake another.
//
// Limits.Total and Limits.Agent are caps in addition to the pools. With caps, a slot goes to the
// first waiter whose caps have not been reached. A waiter that must wait because of a cap keeps its
// place in line and does not block other waiters. Once 100 waiters have overtaken the first waiter
// in line, the pool's next slot is kept for that first waiter until its caps allow it to take the
// slot.
//
// A ConcurrencyManager can be used without a [BackgroundManager]. It does not depend on tasks, does
// not start goroutines and does not need to be closed. All methods are safe for concurrent use.
// Create a ConcurrencyManager with [NewConcurrencyManager]. To share slots between background
// managers, set Config.Concurrency of each to the same ConcurrencyManager.
//
// If a provider refuses a turn of a BackgroundManager because of a limit or a failure, the model's
// pool cools down: it does not grant slots for some time, not even to callers of Acquire. Then it
// grants one slot. As turns succeed, it grants two slots, then four, then eight, and so on, up to
// its limit. A slot that a caller of Acquire releases counts as a successful turn. While a pool
// cools down, the ConcurrencyManager keeps a [time.Timer] running.
type ConcurrencyManager struct {
	slots *slots.Manager
	epoch time.Time   // cool-down times are relative to this time
	timer *time.Timer // ends the next cool-down; nil until the first cool-down; guarded by the lock of slots
	from  SlotSource  // source whose figures this ConcurrencyManager shows; nil if the ConcurrencyManager itself grants the slots
	roots requestRoots

	mu      sync.Mutex
	sharers []*BackgroundManager // open managers that use the slots; guarded by mu
	others  *otherUsers          // other users of the source; nil if cool-downs are not shared; guarded by mu
	linking sync.Mutex           // held by the method "link", so that only one call at a time changes the field "others"
}

// PoolStats contains the figures for one pool or one cap.
type PoolStats struct {
	// Name is the name of the entry that applies: "model claude-opus", "provider anthropic",
	// "default openai/gpt", "agent explore" if there is no model, or "default" if there is neither
	// a model nor an agent. The cap Limits.Total has the name "total". The cap for the agent
	// "explore" has the name "cap explore".
	Name    string `json:"name"`
	Limit   int    `json:"limit"`   // number of slots; Unlimited if there is no limit
	InUse   int    `json:"in_use"`  // number of slots in use; above Limit only after SetLimits or after a restart
	Waiting int    `json:"waiting"` // number of waiters in line for a slot

	// CoolUntil is the time at which the pool grants slots again after a provider has refused a
	// turn. From then on, the pool grants only a few slots at a time until enough turns have
	// succeeded. During this period, CoolUntil is in the past. If the pool is not cooling down,
	// CoolUntil is zero.
	CoolUntil time.Time `json:"cool_until,omitzero"`
	Refusals  int       `json:"refusals,omitempty"` // number of refused turns since the pool began to cool down
}

// NewConcurrencyManager returns a ConcurrencyManager with the limits l. If a limit is invalid, the
// error is an [*InputError]. The zero Limits give each model [DefaultConcurrency] slots.
func NewConcurrencyManager(l Limits) (*ConcurrencyManager, error) {
	l, err := l.normal()
	if err != nil {
		return nil, fmt.Errorf("bgagent: limits: %w", err)
	}
	c := &ConcurrencyManager{slots: slots.New(rules{l}), epoch: time.Now()}
	c.slots.OnCool(c.coolUntil)
	return c, nil
}

// coolUntil sets the timer so that it ends cool-downs at the given time. The caller must hold the
// lock of the slots.
func (c *ConcurrencyManager) coolUntil(at int64) {
	d := time.Until(c.epoch.Add(time.Duration(at)))
	if c.timer == nil {
		c.timer = time.AfterFunc(d, func() { c.slots.Warm(int64(time.Since(c.epoch))) })
		return
	}
	c.timer.Reset(d)
}

// The method "join" adds a manager that uses the slots.
func (c *ConcurrencyManager) join(m *BackgroundManager) {
	c.mu.Lock()
	c.sharers = append(c.sharers, m)
	c.mu.Unlock()
	c.link()
}

// The method "part" removes a closed manager.
func (c *ConcurrencyManager) part(m *BackgroundManager) {
	c.mu.Lock()
	c.sharers = slices.DeleteFunc(c.sharers, func(x *BackgroundManager) bool { return x == m })
	c.mu.Unlock()
	c.link()
}

// tellCooled notifies all managers that use the slots, except m, that a pool is cooling down. The
// caller must not hold any lock.
func (c *ConcurrencyManager) tellCooled(m *BackgroundManager) {
	c.mu.Lock()
	sharers := slices.Clone(c.sharers)
	c.mu.Unlock()
	for _, o := range sharers {
		if o != m {
			o.update(func(st *state, now int64) { st.cooledByOther(now) })
		}
	}
}

// poolStats returns a pool's figures as callers see them. Cool-down times in f are relative to
// epoch.
func poolStats(epoch time.Time, f slots.Figures) PoolStats {
	return PoolStats{f.Name, f.Limit, f.InUse, f.Waiting, wall(epoch, f.Cool.Until), f.Cool.Refusals}
}

// Acquire waits for a slot in the model's pool and returns the slot. The format of the model is
// "provider/model", or only the model id if the provider is unknown. If ctx ends first, or has
// already ended, Acquire returns ctx.Err() and no slot.
//
// The slot counts towards the pool's limit and Limits.Total, but not towards any agent's cap. With
// Limits.Fair, all waiters in Acquire count as tasks of one root session.
func (c *ConcurrencyManager) Acquire(ctx context.Context, model string) (Slot, error) {
	if ctx == nil {
		return Slot{}, fmt.Errorf("bgagent: acquire: %w", errNoContext)
	}
	if c.from != nil {
		return Slot{}, errSlotsElsewhere
	}
	s, err := c.slots.Acquire(ctx, model)
	return Slot{s}, err
}

// TryAcquire returns a slot in the model's pool if a slot is free and no waiter is in line for it.
// It does not wait.
func (c *ConcurrencyManager) TryAcquire(model string) (Slot, bool) {
	if c.from != nil {
		return Slot{}, false
	}
	s, ok := c.slots.TryAcquire(model)
	return Slot{s}, ok
}

// Stats returns the figures for the model's pool. To get the figures for caps, call Pools.
func (c *ConcurrencyManager) Stats(model string) PoolStats {
	if c.from != nil {
		return c.statsFrom(model)
	}
	return poolStats(c.epoch, c.slots.Stats(model))
}

// Pools returns the figures for every pool that has slots in use, has waiters or is cooling down,
// and for every cap that applies to one of these slots or waiters. The figures are sorted by name.
// If a task has no model and its agent has a cap, the task has no pool: it counts only towards the
// cap, such as "cap explore".
func (c *ConcurrencyManager) Pools() []PoolStats {
	if c.from != nil {
		return c.poolsFrom(c.look())
	}
	figures := c.slots.Pools()
	if figures == nil {
		return nil
	}
	out := make([]PoolStats, len(figures))
	for i, f := range figures {
		out[i] = poolStats(c.epoch, f)
	}
	return out
}

// Limits returns a copy of the limits that apply. Names are trimmed and in lower case, entries with
// the value 0 are left out, and the default is filled in.
func (c *ConcurrencyManager) Limits() Limits {
	if c.from != nil {
		return c.from.Limits()
	}
	l := c.slots.Rules().(rules).Limits
	l.Model, l.Provider, l.Agent = maps.Clone(l.Model), maps.Clone(l.Provider), maps.Clone(l.Agent)
	return l
}

// SetLimits replaces all limits. If a limit is invalid, SetLimits changes nothing and returns an
// [*InputError].
//
// Slots in use stay in use. If a limit is lowered, no slots are taken away, and no slots are
// granted until fewer slots than the new limit are in use. If a limit is raised, waiters get as
// many slots as the new limits allow. If the new limits assign a different pool to a model, the
// waiters for that model move to the new pool. Their places in line there depend on how long they
// have already waited. From then on, the model's slots in use count in the new pool. A new cap
// counts the slots that are already in use. In each pool, the count of waiters that have overtaken
// the first waiter starts again from zero.
func (c *ConcurrencyManager) SetLimits(l Limits) error {
	if c.from != nil {
		if s, ok := c.from.(interface{ SetLimits(Limits) error }); ok {
			return s.SetLimits(l)
		}
		return fmt.Errorf("bgagent: limits: %w", &InputError{"Limits", "belong to Config.Slots; change them there"})
	}
	l, err := l.normal()
	if err != nil {
		return fmt.Errorf("bgagent: limits: %w", err)
	}
	c.slots.SetRules(rules{l})
	return nil
}

// Slot is the right to run turns between Acquire and Release. It is a small value, and all its
// copies stand for the same slot. The zero Slot does not stand for any slot.
type Slot struct{ slot slots.Slot }

// Release gives back the slot. If waiters are in line, the slot goes to the first one. Further
// calls to Release on any copy of the slot do nothing.
func (s Slot) Release() { s.slot.Release() }

// Pool is a handle for the pool of one model. A caller that acquires many slots of the same model
// can use a handle to avoid looking up the model each time. The handle always stands for the pool
// that the current limits assign to the model.
type Pool struct {
	of     *ConcurrencyManager
	handle slots.Handle
}

// Pool returns a handle for the model's pool. The handle does not take a slot and does not keep the
// pool alive.
func (c *ConcurrencyManager) Pool(model string) *Pool { return &Pool{c, c.slots.Handle(model)} }

// Acquire is like [ConcurrencyManager.Acquire] for the handle's model.
func (p *Pool) Acquire(ctx context.Context) (Slot, error) {
	if p.of.from != nil {
		return Slot{}, errSlotsElsewhere
	}
	s, err := p.handle.Acquire(ctx)
	return Slot{s}, err
}

// TryAcquire is like [ConcurrencyManager.TryAcquire] for the handle's model.
func (p *Pool) TryAcquire() (Slot, bool) {
	if p.of.from != nil {
		return Slot{}, false
	}
	s, ok := p.handle.TryAcquire()
	return Slot{s}, ok
}

// Stats is like [ConcurrencyManager.Stats] for the handle's model.
func (p *Pool) Stats() PoolStats {
	if p.of.from != nil {
		return p.of.statsFrom(p.handle.Name())
	}
	return poolStats(p.of.epoch, p.handle.Stats())
}

// countedAs returns the name under which a task is counted, and whether it is the name of a model or
// of an agent. The agent's name is used only if the task has no model.
func countedAs(model, agent string) (slots.Space, string) {
	if strings.TrimSpace(model) == "" && strings.TrimSpace(agent) != "" {
		return slots.Agents, agent
	}
	return slots.Models, model
}

// rules are normalized limits. They decide which pool a name counts towards. Their maps never
// change.
type rules struct{ Limits }

// Pool implements [slots.Rules]. It looks for an entry for the model, then for an entry for the
// model's provider. The first entry that it finds applies. If there is no entry, the default
// applies, and the name has its own pool.
func (l rules) Pool(space slots.Space, name string) (pool string, limit int, shared bool) {
	switch {
	case space == slots.Agents:
		if n := l.Agent[name]; n != 0 {
			return "agent " + name, Unlimited, false // the agent's cap replaces the default
		}
		return "agent " + name, l.Default, false
	case name == "":
		return "default", l.Default, false
	}
	if n, ok := l.Model[name]; ok {
		return "model " + name, n, true
	}
	if provider, id, slash := strings.Cut(name, "/"); slash {
		// A key with a slash matches only a whole name. Therefore, an id that contains a slash is
		// not looked up without its provider.
		if n, ok := l.Model[id]; ok && !strings.Contains(id, "/") {
			return "model " + id, n, true
		}
		if n, ok := l.Provider[provider]; ok {
			return "provider " + provider, n, true
		}
	}
	return "default " + name, l.Default, false
}

// Caps implements [slots.Rules].
func (l rules) Caps() slots.Caps { return slots.Caps{Total: l.Total, Agent: l.Agent, Fair: l.Fair} }

// normal returns a checked copy of l. Names are trimmed and in lower case, entries with the value 0
// are left out, and the default is filled in.
func (l Limits) normal() (Limits, error) {
	if l.Default < Unlimited {
		return l, &InputError{"Limits.Default", fmt.Sprintf("is %d; it must be positive, 0 for the default of %d, or Unlimited (-1)", l.Default, DefaultConcurrency)}
	}
	if l.Default == 0 {
		l.Default = DefaultConcurrency
	}
	if l.Total < Unlimited {
		return l, &InputError{"Limits.Total", fmt.Sprintf("is %d; it must be positive, or 0 or Unlimited (-1) for no limit", l.Total)}
	}
	var err error
	if len(l.Agent) > 0 {
		if l.Agent, err = normalLimits("Limits.Agent", l.Agent); err != nil {
			return l, err
		}
	}
	if l.Model, err = normalLimits("Limits.Model", l.Model); err != nil {
		return l, err
	}
	if l.Provider, err = normalLimits("Limits.Provider", l.Provider); err != nil {
		return l, err
	}
	for _, name := range slices.Sorted(maps.Keys(l.Provider)) {
		if problem := slashInProvider(name, "Limits.Model"); problem != "" {
			return l, &InputError{fmt.Sprintf("Limits.Provider[%q]", name), problem}
		}
	}
	return l, nil
}

// slashInProvider returns the error text for a provider name that contains a slash, or "" for any
// other name. The argument "models" is the caller's name for the map that contains the models'
// limits.
func slashInProvider(name, models string) string {
	provider, _, slash := strings.Cut(name, "/")
	if !slash {
		return ""
	}
	here := ""
	if provider != "" {
		here = fmt.Sprintf("limit %s here, or ", mdtext.Quote(provider))
	}
	return fmt.Sprintf("can never apply, because the provider is the part of a name before the first slash; %slimit %s in %s", here, mdtext.Quote(name), models)
}

// normalLimits normalizes one map of the limits. It checks the keys in sorted order, so that the
// same mistake always gives the same error.
func normalLimits(field string, in map[string]int) (map[string]int, error) {
	out := make(map[string]int, len(in))
	from := make(map[string]string, len(in)) // key as the caller wrote it, by normalized name
	for _, raw := range slices.Sorted(maps.Keys(in)) {
		at := fmt.Sprintf("%s[%q]", field, raw)
		n, name := in[raw], slots.Normal(raw)
		if name == "" {
			return nil, &InputError{at, "has no name; name a model, provider or agent, or use Limits.Default"}
		}
		if n < Unlimited {
			return nil, &InputError{at, fmt.Sprintf("is %d; it must be positive, 0 for not set, or Unlimited (-1)", n)}
		}
		if other, twice := from[name]; twice && in[other] != n {
			return nil, &InputError{at, fmt.Sprintf("is %d, but %s[%q] is the same name and is %d; keep one of the two", n, field, other, in[other])}
		}
		from[name] = raw
		if n != 0 {
			out[name] = n
		}
	}
	return out, nil
}

// isZero reports whether no limit is set.
func (l *Limits) isZero() bool {
	return len(l.Model)+len(l.Provider)+len(l.Agent) == 0 && l.Default == 0 && l.Total == 0 && !l.Fair
}
