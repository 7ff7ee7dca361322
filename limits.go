package bgagent

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

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
		if provider, _, slash := strings.Cut(name, "/"); slash {
			return l, &InputError{fmt.Sprintf("Limits.Provider[%q]", name), fmt.Sprintf("can never apply, because a provider is what stands before the first slash; limit %q here, or %q in Limits.Model", provider, name)}
		}
	}
	return l, nil
}

// normalLimits is one map of [Limits.normal]. Keys are looked at in order, so
// that the same mistake always gives the same error.
func normalLimits(field string, in map[string]int) (map[string]int, error) {
	out := make(map[string]int, len(in))
	from := make(map[string]string, len(in)) // the key as it was written
	for _, raw := range slices.Sorted(maps.Keys(in)) {
		at := fmt.Sprintf("%s[%q]", field, raw)
		n, name := in[raw], normalName(raw)
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

func (l Limits) clone() Limits {
	l.Model, l.Provider = maps.Clone(l.Model), maps.Clone(l.Provider)
	return l
}

// normalName returns the name as it is compared. It is its own normal name,
// which [ConcurrencyManager.lockKey] relies on.
func normalName(s string) string { return strings.ToLower(strings.TrimSpace(s)) }

// lowerASCII is normalName without an allocation, for what fits into buf and has
// ASCII bytes only.
func lowerASCII(buf []byte, s string) ([]byte, bool) {
	s = strings.TrimSpace(s)
	if len(s) > len(buf) {
		return nil, false
	}
	for i := range len(s) {
		b := s[i]
		if b >= 0x80 {
			return nil, false
		}
		if 'A' <= b && b <= 'Z' {
			b += 'a' - 'A'
		}
		buf[i] = b
	}
	return buf[:len(s)], true
}

// keySpace keeps the names of agents apart from those of models.
type keySpace uint8

const (
	modelSpace keySpace = iota
	agentSpace
)

// entry returns the pool of the entry of the limits that decides for a name, or
// nil when none does and the name is counted by itself under the default.
func (c *ConcurrencyManager) entry(space keySpace, name string) *pool {
	if space == agentSpace {
		return nil
	}
	if p := c.byModel[name]; p != nil {
		return p
	}
	provider, id, slash := strings.Cut(name, "/")
	if !slash {
		return nil
	}
	// A key with a slash stands for a whole name only, so an id with a slash
	// has none of its own.
	if !strings.Contains(id, "/") {
		if p := c.byModel[id]; p != nil {
			return p
		}
	}
	return c.byProvider[provider]
}

// entryPools returns the pools of the entries, those of before where the entry
// is still there.
func entryPools(before map[string]*pool, prefix string, limits map[string]int) map[string]*pool {
	pools := make(map[string]*pool, len(limits))
	for name, n := range limits {
		p := before[name]
		if p == nil {
			p = &pool{name: prefix + name}
		}
		p.limit = n
		pools[name] = p
	}
	return pools
}

// ownPoolName names the pool of what is counted by itself.
func ownPoolName(space keySpace, name string) string {
	switch {
	case space == agentSpace:
		return "agent " + name
	case name == "":
		return "default"
	default:
		return "default " + name
	}
}
