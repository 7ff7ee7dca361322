package bgagent

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/bgagent/bgagent/internal/mdtext"
	"github.com/bgagent/bgagent/internal/slots"
)

// ConcurrencyManager hands out slots: the right to run turns of a model now. It
// keeps one pool for each entry of its [Limits] and one for each model that
// only the default limit applies to. Inside a pool it is first come, first
// served: a slot that is given back goes straight to the first in line, and
// nobody can overtake.
//
// It is useful by itself, knows nothing of tasks, starts no goroutine and needs
// no closing. All methods are safe for concurrent use. Make one with
// [NewConcurrencyManager]; to share slots, give it to several managers in
// Config.Concurrency.
type ConcurrencyManager struct{ slots *slots.Manager }

// PoolStats are the figures of one pool.
type PoolStats struct {
	// Name is that of the entry that decided: "model claude-opus",
	// "provider anthropic", "default openai/gpt", "agent explore" for what has no
	// model, "default" alone for what has no name at all.
	Name    string `json:"name"`
	Limit   int    `json:"limit"`   // Unlimited for none
	InUse   int    `json:"in_use"`  // slots that are out; above Limit only after SetLimits
	Waiting int    `json:"waiting"` // how many wait for a slot
}

// NewConcurrencyManager returns a manager with these limits, or an
// [*InputError] that says which of them is wrong. The zero Limits are fine:
// [DefaultConcurrency] for each model.
func NewConcurrencyManager(l Limits) (*ConcurrencyManager, error) {
	l, err := l.normal()
	if err != nil {
		return nil, fmt.Errorf("bgagent: limits: %w", err)
	}
	return &ConcurrencyManager{slots.New(rules{l})}, nil
}

// Acquire waits for a slot of the model's pool and returns it. The model is
// written "provider/model", or as a model id alone when its provider is not
// known. When ctx ends first, or has already ended, Acquire returns ctx.Err()
// and no slot.
func (c *ConcurrencyManager) Acquire(ctx context.Context, model string) (Slot, error) {
	s, err := c.slots.Acquire(ctx, model)
	return Slot{s}, err
}

// TryAcquire returns a slot of the model's pool if one is free and nobody waits
// for it.
func (c *ConcurrencyManager) TryAcquire(model string) (Slot, bool) {
	s, ok := c.slots.TryAcquire(model)
	return Slot{s}, ok
}

// Stats returns the figures of the pool that the model is counted in.
func (c *ConcurrencyManager) Stats(model string) PoolStats {
	return PoolStats(c.slots.Stats(model))
}

// Pools returns the figures of every pool that has slots out or somebody
// waiting, sorted by name.
func (c *ConcurrencyManager) Pools() []PoolStats {
	figures := c.slots.Pools()
	if figures == nil {
		return nil
	}
	out := make([]PoolStats, len(figures))
	for i, f := range figures {
		out[i] = PoolStats(f)
	}
	return out
}

// Limits returns a copy of the limits that apply: names trimmed and in lower
// case, entries of 0 left out, the default filled in.
func (c *ConcurrencyManager) Limits() Limits {
	l := c.slots.Rules().(rules).Limits
	l.Model, l.Provider = maps.Clone(l.Model), maps.Clone(l.Provider)
	return l
}

// SetLimits replaces all limits. It changes nothing and returns an
// [*InputError] when one of them is wrong.
//
// Slots that are out stay out: lowering a limit takes nothing away and grants
// nothing until the pool is below it; raising it serves as many as now fit.
// Where the new limits name another pool for a model, those who wait for that
// model move there and stand in line by the time they have waited since, and
// its slots that are out count in that pool from now on.
func (c *ConcurrencyManager) SetLimits(l Limits) error {
	l, err := l.normal()
	if err != nil {
		return fmt.Errorf("bgagent: limits: %w", err)
	}
	c.slots.SetRules(rules{l})
	return nil
}

// Slot is the right to run turns, from Acquire to Release. It is a small value:
// all copies of it are the same slot. The zero Slot is none.
type Slot struct{ slot slots.Slot }

// Release gives the slot back, to the first in line where there is one. It does
// so once: every further call, on whatever copy, does nothing.
func (s Slot) Release() { s.slot.Release() }

// Pool is a model looked up beforehand, for those who acquire the same one again
// and again. It always speaks of the pool that the present limits name.
type Pool struct{ handle slots.Handle }

// Pool looks a model up. That takes no slot and keeps no pool alive.
func (c *ConcurrencyManager) Pool(model string) *Pool { return &Pool{c.slots.Handle(model)} }

// Acquire is [ConcurrencyManager.Acquire] for the model.
func (p *Pool) Acquire(ctx context.Context) (Slot, error) {
	s, err := p.handle.Acquire(ctx)
	return Slot{s}, err
}

// TryAcquire is [ConcurrencyManager.TryAcquire] for the model.
func (p *Pool) TryAcquire() (Slot, bool) {
	s, ok := p.handle.TryAcquire()
	return Slot{s}, ok
}

// Stats is [ConcurrencyManager.Stats] for the model.
func (p *Pool) Stats() PoolStats { return PoolStats(p.handle.Stats()) }

// countedAs returns the name that a task is counted by: that of its model, or of
// its agent where the model has no name.
func countedAs(model, agent string) (slots.Space, string) {
	if strings.TrimSpace(model) == "" && strings.TrimSpace(agent) != "" {
		return slots.Agents, agent
	}
	return slots.Models, model
}

// rules are limits that are normal, as they decide which pool a name is counted
// in. Their maps are never changed.
type rules struct{ Limits }

// Pool implements [slots.Rules]. The first entry that is there decides alone: the
// model's own, then its provider's. Under the default every name has a pool of its
// own.
func (l rules) Pool(space slots.Space, name string) (pool string, limit int, shared bool) {
	switch {
	case space == slots.Agents:
		return "agent " + name, l.Default, false
	case name == "":
		return "default", l.Default, false
	}
	if n, ok := l.Model[name]; ok {
		return "model " + name, n, true
	}
	if provider, id, slash := strings.Cut(name, "/"); slash {
		// A key with a slash stands for a whole name only, so an id with a slash
		// has none of its own.
		if n, ok := l.Model[id]; ok && !strings.Contains(id, "/") {
			return "model " + id, n, true
		}
		if n, ok := l.Provider[provider]; ok {
			return "provider " + provider, n, true
		}
	}
	return "default " + name, l.Default, false
}

// normal returns a checked copy of l: names trimmed and in lower case, entries
// of 0 left out, the default filled in.
func (l Limits) normal() (Limits, error) {
	if l.Default < Unlimited {
		return l, &InputError{"Limits.Default", fmt.Sprintf("is %d; it must be positive, 0 for the default of %d, or Unlimited (-1)", l.Default, DefaultConcurrency)}
	}
	if l.Default == 0 {
		l.Default = DefaultConcurrency
	}
	var err error
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

// slashInProvider says what is wrong with a slash in the name of a provider, or "".
// What limits models is called by the name that the caller knows.
func slashInProvider(name, models string) string {
	provider, _, slash := strings.Cut(name, "/")
	if !slash {
		return ""
	}
	return fmt.Sprintf("can never apply, because a provider is what stands before the first slash; limit %s here, or %s in %s", mdtext.Quote(provider), mdtext.Quote(name), models)
}

// normalLimits is one map of [Limits.normal]. Keys are looked at in order, so
// that the same mistake always gives the same error.
func normalLimits(field string, in map[string]int) (map[string]int, error) {
	out := make(map[string]int, len(in))
	from := make(map[string]string, len(in)) // the key as it was written
	for _, raw := range slices.Sorted(maps.Keys(in)) {
		at := fmt.Sprintf("%s[%q]", field, raw)
		n, name := in[raw], slots.Normal(raw)
		if name == "" {
			return nil, &InputError{at, "has no name; name what is to be limited, or use Limits.Default"}
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
