package slots

import (
	"fmt"
	"math/bits"
	"math/rand/v2"
	"testing"

	"github.com/bgagent/bgagent/internal/race"
	"github.com/stretchr/testify/require"
)

// newSparse returns a grid with n pools and n agents. The tasks of each agent wait in four pools, and
// there are two tasks in each of these lanes. Four roots use each agent, and each root uses four
// agents, so the number of lanes grows like n.
func newSparse(rules gridRules, n int) *grid {
	g := &grid{Manager: New(rules), at: make(map[*Waiter]int, 8*n), r: rand.New(rand.NewPCG(1, uint64(n)))}
	roots := make([]Root, n)
	for i := range 8 * n {
		agent, pool := i/8, g.r.IntN(n)
		if i%2 == 1 { // the second task of the lane
			pool = -1
		}
		t := newGuest()
		t.Root = &roots[(agent+g.r.IntN(4))%n]
		g.at[&t.Waiter] = i
		g.tasks = append(g.tasks, t)
		if pool < 0 {
			g.handles = append(g.handles, g.handles[i-1])
		} else {
			g.handles = append(g.handles, g.For(Models, fmt.Sprint("m", pool), fmt.Sprint("agent", agent)))
		}
	}
	for _, i := range g.r.Perm(len(g.tasks)) {
		g.take(i)
	}
	return g
}

// The number of steps per grant must grow like the logarithm of the number of pools and agents,
// even with Fair. In these grids, each agent is used in few pools and each root uses few agents.
func TestAGrantAmongManyPoolsAndAgentsTakesStepsLikeTheLogarithm(t *testing.T) {
	sizes := []int{10, 100, 1_000, 10_000}
	if testing.Short() || race.Enabled {
		sizes = sizes[:3]
	}
	for name, limits := range map[string]func(n int) (pool, agent, total int){
		"both are full":       func(int) (int, int, int) { return 2, 2, 0 },
		"pools are full":      func(int) (int, int, int) { return 1, 8, 0 },
		"caps are full":       func(int) (int, int, int) { return 8, 1, 0 },
		"now pools, now caps": func(int) (int, int, int) { return 4, 4, 0 },
		"the total is full":   func(n int) (int, int, int) { return 4, 4, n },
	} {
		for _, fair := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, fair=%v", name, fair), func(t *testing.T) {
				for _, n := range sizes {
					if n > 1_000 && !fair { // these grids take a long time
						continue
					}
					pool, agent, total := limits(n)
					g := newSparse(gridRules{pool, Caps{Total: total, Agent: agentCaps(n, agent), Fair: fair}}, n)
					for range 4 * n {
						g.step()
					}
					g.count()
					for range max(1000, n) {
						g.step()
					}
					perGrant := float64(g.steps) / float64(g.granted)
					require.NoError(t, g.Check())
					t.Logf("%d pools x %d agents: %.1f steps a grant, %.2f for each doubling of their product", n, n, perGrant, perGrant/float64(bits.Len(uint(n*n))))
					require.Less(t, perGrant, float64(12*bits.Len(uint(n*n))))
				}
			})
		}
	}
}
