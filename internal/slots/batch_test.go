package slots

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestABatchIsGrantedAsIfAllHadWaited compares random batches with waiters that join one after the other
// while nothing can be granted. Without Fair, some waiters are in line before the batch.
func TestABatchIsGrantedAsIfAllHadWaited(t *testing.T) {
	for seed := range uint64(500) {
		r := rand.New(rand.NewPCG(seed, 7))
		caps := Caps{Fair: r.IntN(2) == 0}
		if r.IntN(2) == 0 {
			caps.Total = 1 + r.IntN(6)
		}
		if r.IntN(2) == 0 {
			caps.Agent = map[string]int{"a": 1 + r.IntN(2), "b": 1 + r.IntN(3)}
		}
		batch, apart := New(cappedRules{caps}), New(cappedRules{caps})
		roots := map[*Manager][]*Root{batch: {{}, {}, {}}, apart: {{}, {}, {}}}
		guests := map[*Manager][]*guest{}
		var names []string
		join := func(m *Manager, i int, order *rand.Rand) Join {
			g := newGuest()
			g.Root = roots[m][order.IntN(3)]
			guests[m] = append(guests[m], g)
			h := m.For(Models, fmt.Sprint("m", order.IntN(3)), string("abc"[order.IntN(3)]))
			return Join{Waiter: &g.Waiter, Handle: &h, Head: order.IntN(4) == 0, Ticket: FirstTicket + uint64(order.IntN(1000))*100 + uint64(i)}
		}
		holds := func(m *Manager) (all []bool) {
			for _, g := range guests[m] {
				all = append(all, m.Holds(&g.Waiter))
			}
			return all
		}
		before, n := r.IntN(8), 1+r.IntN(12)
		if caps.Fair {
			before = 0 // the calls to SetRules below would reset the turns of roots that are already in line
		}
		for _, m := range []*Manager{batch, apart} {
			m.Reach(FirstTicket + 1_000_000)
			order := rand.New(rand.NewPCG(seed, 8))
			for i := range before {
				j := join(m, i, order)
				m.Take(j.Waiter, j.Handle, j.Head, j.Ticket)
			}
			var all []Join
			for i := range n {
				all = append(all, join(m, before+i, order))
			}
			if m == batch {
				granted := m.TakeAll(all)
				told := map[*Waiter]bool{}
				for _, w := range granted {
					told[w] = true
				}
				for _, j := range all {
					require.Equal(t, m.Holds(j.Waiter), told[j.Waiter])
				}
			} else {
				blocked := caps
				blocked.Total = 1
				m.SetRules(cappedRules{blocked})
				only := newGuest()
				h := m.For(Models, "nobody's", "nobody")
				m.Force(&only.Waiter, &h)
				for _, j := range all {
					require.False(t, m.Take(j.Waiter, j.Handle, j.Head, j.Ticket))
				}
				m.SetRules(cappedRules{caps})
				m.Leave(&only.Waiter)
			}
			require.NoError(t, m.Check())
			names = append(names, fmt.Sprint(holds(m)))
		}
		require.Equal(t, names[1], names[0], "seed %d: %+v", seed, caps)
	}
}

func TestABatchOfAWaiterThatIsAlreadyInLineIsABug(t *testing.T) {
	m, g := New(alone(1)), newGuest()
	h := m.For(Models, "m", "")
	m.Take(&g.Waiter, &h, false, m.Ticket())
	require.PanicsWithValue(t, "bgagent: bug: TakeAll of a waiter that already waits or holds a slot", func() {
		m.TakeAll([]Join{{Waiter: &g.Waiter, Handle: &h, Ticket: m.Ticket()}})
	})
	require.NoError(t, m.Check())
}
