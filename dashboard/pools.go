package dashboard

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/bgagent/bgagent"
)

// maxPools bounds how many pools are sent to the page: first those in use, then
// those named by the limits, then those shown earlier.
const maxPools = 200

// poolOf returns the name of the pool that counts the task.
func poolOf(c *bgagent.ConcurrencyManager, t *bgagent.Task) string {
	switch {
	case t.Queue != nil:
		return t.Queue.Pool.Name
	case t.Model != "":
		return c.Stats(t.Model).Name
	case t.Agent != "":
		return "agent " + strings.ToLower(strings.TrimSpace(t.Agent))
	default:
		return "default"
	}
}

// poolStats returns the figures of all pools worth showing, sorted by name. A pool
// that was shown before stays, so that the page does not jump when a pool is empty
// for a moment.
func poolStats(c *bgagent.ConcurrencyManager, before []bgagent.PoolStats) []bgagent.PoolStats {
	all := append([]bgagent.PoolStats{}, c.Pools()...) // not nil, so that a page learns that there are none
	have := make(map[string]bool, len(all))
	for _, p := range all {
		have[p.Name] = true
	}
	add := func(p bgagent.PoolStats) {
		if !have[p.Name] && len(all) < maxPools {
			have[p.Name] = true
			all = append(all, p)
		}
	}
	limits := c.Limits()
	// Sorted, so that the same ones are shown each time if there are too many.
	for _, name := range slices.Sorted(maps.Keys(limits.Model)) {
		add(bgagent.PoolStats{Name: "model " + name, Limit: limits.Model[name]})
	}
	for _, name := range slices.Sorted(maps.Keys(limits.Provider)) {
		add(bgagent.PoolStats{Name: "provider " + name, Limit: limits.Provider[name]})
	}
	for _, p := range before {
		// A pool that the limits no longer name is dropped. The others have the
		// default limit.
		if strings.HasPrefix(p.Name, "agent ") || strings.HasPrefix(p.Name, "default") {
			add(bgagent.PoolStats{Name: p.Name, Limit: limits.Default})
		}
	}
	all = all[:min(len(all), maxPools)]
	slices.SortFunc(all, func(a, b bgagent.PoolStats) int { return cmp.Compare(a.Name, b.Name) })
	return all
}
