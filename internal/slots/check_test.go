package slots

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// A check that cannot fail would let every test of this package pass.
func TestCheckFindsWhatIsPlanted(t *testing.T) {
	for name, c := range map[string]struct {
		plant func(m *Manager, k *key, w []*guest) // two wait, and a third has the only slot
		says  string
	}{
		"a weight":                {func(m *Manager, _ *key, _ []*guest) { m.weight++ }, "weigh"},
		"a slot of the pool":      {func(_ *Manager, k *key, _ []*guest) { k.pool.inUse++ }, "its keys"},
		"a waiter of the pool":    {func(_ *Manager, k *key, _ []*guest) { k.pool.waiting-- }, "its keys"},
		"a waiter of the key":     {func(_ *Manager, k *key, _ []*guest) { k.waiting++ }, "its keys"},
		"less than no slot":       {func(_ *Manager, k *key, _ []*guest) { k.inUse = -1 }, "-1 slots"},
		"less than no waiter":     {func(_ *Manager, k *key, _ []*guest) { k.waiting = -1 }, "-1 waiters"},
		"another name":            {func(_ *Manager, k *key, _ []*guest) { k.name = "n" }, "filed under"},
		"another space":           {func(_ *Manager, k *key, _ []*guest) { k.space = Agents }, "filed under"},
		"a name as it is written": {func(m *Manager, k *key, _ []*guest) { k.name = "M"; m.keys[Models]["M"] = k }, "filed under"},
		"another pool":            {func(_ *Manager, k *key, _ []*guest) { p := *k.pool; k.pool = &p }, "not in the pool"},
		"another limit":           {func(_ *Manager, k *key, _ []*guest) { k.pool.limit = 2 }, "not in the pool"},
		"a slot that is not handed on": {func(_ *Manager, k *key, _ []*guest) {
			k.inUse, k.pool.inUse = 0, 0
		}, "a free slot and somebody waiting"},
		"a link back":          {func(_ *Manager, _ *key, w []*guest) { w[1].prev = nil }, "links of number 2"},
		"a link to oneself":    {func(_ *Manager, _ *key, w []*guest) { w[1].next = &w[1].Waiter }, "links of number 3"},
		"somebody who is lost": {func(_ *Manager, _ *key, w []*guest) { w[0].next = nil }, "1 in line, counted as 2"},
		"an end of the line":   {func(_ *Manager, k *key, w []*guest) { k.pool.last = &w[0].Waiter }, "in line, counted"},
		"another key":          {func(_ *Manager, _ *key, w []*guest) { w[0].key = &key{pool: &pool{}} }, "number 1 stands in the wrong line"},
		"no key":               {func(_ *Manager, _ *key, w []*guest) { w[0].key = nil }, "number 1 stands in the wrong line"},
		"one who has a slot":   {func(_ *Manager, _ *key, w []*guest) { w[1].order = 0 }, "number 2 does not wait"},
		"the order":            {func(_ *Manager, _ *key, w []*guest) { w[0].order, w[1].order = w[1].order, w[0].order }, "came earlier"},
		"a shared pool":        {func(m *Manager, _ *key, _ []*guest) { m.shared["s"] = &pool{name: "s", inUse: 1} }, "its keys"},
	} {
		t.Run(name, func(t *testing.T) {
			m, _, waiting := line(t, 2)
			require.NoError(t, m.Check())
			c.plant(m, m.keys[Models]["m"], waiting)
			require.ErrorContains(t, m.Check(), c.says)
		})
	}
}
