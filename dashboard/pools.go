package dashboard

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/bgagent/bgagent"
)

// maxPools is the maximum number of pools that are sent to the page. Pools in use come first,
// then pools named by the limits, and then pools that were shown earlier.
const maxPools = 200

// poolOf returns the name of the pool under which the page shows the task. For a task without a model, this
// is the agent's cap or pool. For any other task, it is the pool that counts the task. Even if another pool
// blocks a pending task, the page shows the task under this name, so that its row stays in one place.
func poolOf(c *bgagent.ConcurrencyManager, t *bgagent.Task) string {
	agent := strings.ToLower(strings.TrimSpace(t.Agent))
	switch {
	case strings.TrimSpace(t.Model) != "" || agent == "":
		return c.Stats(t.Model).Name
	case c.Limits().Agent[agent] > 0:
		return "cap " + agent
	default:
		return "agent " + agent
	}
}

// The function "first" returns a pool's first sort key: 0 for the overall task cap, and 1 for every other
// pool. With this order, a phone shows the overall cap without scrolling.
func first(pool string) int {
	if pool == "total" {
		return 0
	}
	return 1
}

// poolStats returns the figures for every pool shown on the page. The overall task cap comes first, and the
// other pools are sorted by name. The argument "before" holds the pools that were shown last time. A pool
// that is no longer used stays, so that the page does not jump when a pool is empty for a moment.
func poolStats(c *bgagent.ConcurrencyManager, before []bgagent.PoolStats) []bgagent.PoolStats {
	all := append([]bgagent.PoolStats{}, c.Pools()...) // not nil, because nil means unchanged
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
	// The names are sorted, so that the same pools are shown each time if there are too many.
	for _, name := range slices.Sorted(maps.Keys(limits.Model)) {
		add(bgagent.PoolStats{Name: "model " + name, Limit: limits.Model[name]})
	}
	for _, name := range slices.Sorted(maps.Keys(limits.Provider)) {
		add(bgagent.PoolStats{Name: "provider " + name, Limit: limits.Provider[name]})
	}
	for _, name := range slices.Sorted(maps.Keys(limits.Agent)) {
		if n := limits.Agent[name]; n > 0 {
			add(bgagent.PoolStats{Name: "cap " + name, Limit: n})
		}
	}
	if limits.Total > 0 {
		add(bgagent.PoolStats{Name: "total", Limit: limits.Total})
	}
	for _, p := range before {
		// Pools with the default limit stay. Other pools are dropped if the limits no longer name
		// them.
		agent, ok := strings.CutPrefix(p.Name, "agent ")
		if ok && limits.Agent[agent] == 0 || strings.HasPrefix(p.Name, "default") {
			add(bgagent.PoolStats{Name: p.Name, Limit: limits.Default})
		}
	}
	all = all[:min(len(all), maxPools)]
	slices.SortFunc(all, func(a, b bgagent.PoolStats) int {
		return cmp.Or(first(a.Name)-first(b.Name), cmp.Compare(a.Name, b.Name))
	})
	return all
}
