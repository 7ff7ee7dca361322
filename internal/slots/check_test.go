package slots

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// The tests of this package rely on Check. This test makes sure that Check finds
// contradictions.
func TestCheckFindsWhatIsPlanted(t *testing.T) {
	for name, c := range map[string]struct {
		plant func(m *Manager, k *key, w []*guest) // k is the key of the waiters w and of the holder of the only slot
		says  string
	}{
		"a weight":             {func(m *Manager, _ *key, _ []*guest) { m.weight++ }, "weigh"},
		"a slot of the pool":   {func(_ *Manager, k *key, _ []*guest) { k.pool.inUse++ }, "its keys"},
		"a waiter of the pool": {func(_ *Manager, k *key, _ []*guest) { k.pool.waiting-- }, "its keys"},
		"a waiter of the key":  {func(_ *Manager, k *key, _ []*guest) { k.waiting++ }, "its keys"},
		"less than no slot":    {func(_ *Manager, k *key, _ []*guest) { k.inUse = -1 }, "-1 slots"},
		"less than no waiter":  {func(_ *Manager, k *key, _ []*guest) { k.waiting = -1 }, "-1 waiters"},
		"another name":         {func(_ *Manager, k *key, _ []*guest) { k.name = "n" }, "stored under"},
		"another space":        {func(_ *Manager, k *key, _ []*guest) { k.space = Agents }, "stored under"},
		"a name in upper case": {func(m *Manager, k *key, _ []*guest) { k.name = "M"; m.keys[Models]["M"] = k }, "stored under"},
		"another pool":         {func(_ *Manager, k *key, _ []*guest) { p := *k.pool; k.pool = &p }, "not in the pool"},
		"another limit":        {func(_ *Manager, k *key, _ []*guest) { k.pool.limit = 2 }, "not in the pool"},
		"a slot that is not granted": {func(_ *Manager, k *key, _ []*guest) {
			k.inUse, k.pool.inUse = 0, 0
		}, "a free slot, but a waiter is in line"},
		"a link back":          {func(_ *Manager, _ *key, w []*guest) { w[1].prev = nil }, "links of number 2"},
		"a link to oneself":    {func(_ *Manager, _ *key, w []*guest) { w[1].next = &w[1].Waiter }, "links of number 3"},
		"a lost waiter":        {func(_ *Manager, _ *key, w []*guest) { w[0].next = nil }, "is not the last waiter"},
		"an end of the line":   {func(_ *Manager, k *key, w []*guest) { k.pool.last = &w[0].Waiter }, "is not the last waiter"},
		"another key":          {func(_ *Manager, _ *key, w []*guest) { w[0].key = &key{pool: &pool{}} }, "number 1 is in the wrong line"},
		"no key":               {func(_ *Manager, _ *key, w []*guest) { w[0].key = nil }, "number 1 is in the wrong line"},
		"a waiter with a slot": {func(_ *Manager, _ *key, w []*guest) { w[1].order = 0 }, "number 2 is in line, but does not wait"},
		"the order":            {func(_ *Manager, _ *key, w []*guest) { w[0].order, w[1].order = w[1].order, w[0].order }, "an earlier waiter"},
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

func TestCheckFindsWhatIsPlantedAmongCaps(t *testing.T) {
	for name, c := range map[string]struct {
		plant func(c *capped, full, stuck *lane) // the first lane waits for its pool; the second lane waits for its pool and its cap
		says  string
	}{
		"a slot of a cap":        {func(c *capped, l, _ *lane) { l.cap.inUse++ }, "its keys"},
		"another lane":           {func(c *capped, l, _ *lane) { l.pool.capped.byCap[l.cap] = nil }, "wrong lane"},
		"a lost lane":            {func(c *capped, l, _ *lane) { c.unfile(l) }, "either filed or stuck"},
		"a lane at a wrong gate": {func(c *capped, l, o *lane) { c.unfile(l); c.file(l, &o.cap.gate) }, "does not block it"},
		"a stuck lane too few":   {func(c *capped, _, o *lane) { o.cap.stuck.remove(o.pool.capped.id) }, "either filed or stuck"},
		"a stuck lane too many":  {func(c *capped, l, _ *lane) { l.cap.stuck.add(7) }, "numbers too many"},
		"a gate that is shut":    {func(c *capped, l, _ *lane) { l.cap.open = false }, "whether it has room"},
		"a gate that is ready":   {func(c *capped, l, _ *lane) { l.pool.capped.ready = true }, "whether it is ready"},
		"a number":               {func(c *capped, l, _ *lane) { l.pool.capped.id++ }, "under its number"},
		"a place":                {func(c *capped, l, _ *lane) { l.place.key-- }, "its key"},
		"a line of a turn":       {func(c *capped, l, _ *lane) { l.pool.capped.drop(heads, l.lines.items[0]) }, "lines in part"},
		"a kept slot":            {func(c *capped, l, _ *lane) { l.pool.capped.kept++ }, "keeps"},
	} {
		t.Run(name, func(t *testing.T) {
			m := New(gridRules{1, Caps{Agent: map[string]int{"a": 1}}})
			ask := func(model, agent string) *guest {
				g, h := newGuest(), m.For(Models, model, agent)
				m.Take(&g.Waiter, &h, false, m.Ticket())
				return g
			}
			inP, inQ := ask("p", ""), ask("q", "a")
			full, both := ask("q", ""), ask("p", "a")
			inP.leave(m) // the pool's gate opens and rejects the lane of the waiter "both", because that lane's cap is full
			inP = ask("p", "")
			inQ.leave(m) // the cap's gate opens and rejects the lane of the waiter "both", because that lane's pool is full
			inQ = ask("r", "a")
			require.True(t, m.Holds(&inP.Waiter) && m.Holds(&inQ.Waiter) && m.Waits(&both.Waiter))
			require.True(t, both.key.lane.stuck)
			inR := full // the waiter "full" now has the slot of q
			require.True(t, m.Holds(&inR.Waiter))
			full = ask("q", "")
			require.NoError(t, m.Check())
			c.plant(m.capped, full.key.lane, both.key.lane)
			require.ErrorContains(t, m.Check(), c.says)
		})
	}
}
