package slots

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestNamesOfAgentsInUseAreNotForgotten(t *testing.T) {
	for _, caps := range []Caps{{}, {Total: 50}} {
		m := New(cappedRules{caps})
		var all []*guest
		for i := range 3 * maxIdle {
			h := m.For(Models, fmt.Sprint("m", i%100), fmt.Sprint("agent", i))
			if i%5 > 0 {
				continue // look up the name, but take no slot
			}
			g := newGuest()
			m.Take(&g.Waiter, &h, false, m.Ticket())
			all = append(all, g)
		}
		require.NoError(t, m.Check())
		for _, g := range all {
			g.leave(m)
		}
		require.NoError(t, m.Check())
		require.Empty(t, m.Pools())
		require.LessOrEqual(t, m.weight, 2*maxIdle)
	}
}
