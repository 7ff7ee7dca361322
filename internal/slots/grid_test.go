package slots

import (
	"fmt"
	"math/bits"
	"math/rand/v2"
	"testing"

	"github.com/bgagent/bgagent/internal/race"
	"github.com/stretchr/testify/require"
)

// gridRules gives each name its own pool. All pools have the same limit.
type gridRules struct {
	limit int
	caps  Caps
}

func (r gridRules) Pool(_ Space, name string) (pool string, limit int, shared bool) {
	return "pool " + name, r.limit, false
}

func (r gridRules) Caps() Caps { return r.caps }

// grid is a manager with n pools and n agents. Tasks of every agent wait in every pool.
type grid struct {
	*Manager
	tasks   []*guest
	handles []Handle
	at      map[*Waiter]int
	holders []int
	granted int
	steps   int // number of comparisons of places
	r       *rand.Rand
}

// agentCaps returns the same cap for each of n agents.
func agentCaps(n, limit int) map[string]int {
	caps := make(map[string]int, n)
	for a := range n {
		caps[fmt.Sprint("agent", a)] = limit
	}
	return caps
}

// newGrid returns a grid. deep is the number of tasks in each lane. The tasks belong to the given
// number of roots.
func newGrid(rules gridRules, n, deep, roots int) *grid {
	g := &grid{Manager: New(rules), at: make(map[*Waiter]int, deep*n*n), r: rand.New(rand.NewPCG(1, uint64(n)))}
	all := make([]Root, roots)
	for i := range deep * n * n {
		t := newGuest()
		t.Root = &all[g.r.IntN(len(all))]
		g.at[&t.Waiter] = i
		g.tasks = append(g.tasks, t)
		g.handles = append(g.handles, g.For(Models, fmt.Sprint("m", i%n), fmt.Sprint("agent", i/n%n)))
	}
	for _, i := range g.r.Perm(len(g.tasks)) {
		g.take(i)
	}
	return g
}

func (g *grid) take(i int) {
	if g.Take(&g.tasks[i].Waiter, &g.handles[i], false, g.Ticket()) {
		g.holders = append(g.holders, i)
		g.granted++
	}
}

// step lets a random task release its slot and wait again.
func (g *grid) step() {
	at, last := g.r.IntN(len(g.holders)), len(g.holders)-1
	i := g.holders[at]
	g.holders[at] = g.holders[last]
	g.holders = g.holders[:last]
	next, more := g.Leave(&g.tasks[i].Waiter)
	if next != nil {
		g.holders = append(g.holders, g.at[next])
		g.granted++
	}
	for _, w := range more {
		g.holders = append(g.holders, g.at[w])
		g.granted++
	}
	g.take(i)
}

func countIn[T any](h *heap[T], n *int) {
	if before := h.before; before != nil {
		h.before = func(a, b T) bool { *n++; return before(a, b) }
	}
}

// The method "count" starts to count comparisons of places.
func (g *grid) count() {
	c := g.capped
	countIn(&c.ready, &g.steps)
	for _, x := range c.gauges() {
		countIn(&x.lanes, &g.steps)
	}
	pools := map[*pool]bool{}
	for k := range g.all() {
		if p := k.pool.capped; !pools[k.pool] {
			pools[k.pool] = true
			for i := range p.parts {
				countIn(&p.parts[i], &g.steps)
				for _, t := range p.turns {
					countIn(&t.parts[i].lines, &g.steps)
				}
			}
		}
		countIn(&k.lane.lines, &g.steps)
	}
	g.granted = 0
}

// The number of steps per grant must not depend on which limits are full: the pools, the caps, both, the
// total, or pools and caps in turn. With Fair, the lanes of a cap are updated before a grant. This takes up
// to three steps for each pool with waiting tasks of the agent.
func TestAGrantUnderCapsTakesStepsLikeTheLogarithm(t *testing.T) {
	for name, limits := range map[string]func(n int) (pool, agent, total int){
		"both are full":        func(int) (int, int, int) { return 2, 2, 0 },
		"pools are full":       func(int) (int, int, int) { return 2, 4, 0 },
		"caps are full":        func(int) (int, int, int) { return 4, 2, 0 },
		"now pools, now caps":  func(int) (int, int, int) { return 8, 9, 0 },
		"the total is full":    func(n int) (int, int, int) { return n, n, n },
		"all but the total is": func(n int) (int, int, int) { return 2, 2, 2*n - 3 },
	} {
		for _, fair := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, fair=%v", name, fair), func(t *testing.T) {
				for _, n := range []int{8, 64, 256} {
					pool, agent, total := limits(n)
					if n > 64 && (testing.Short() || race.Enabled || fair || total > 0) { // these grids take a long time
						continue
					}
					g := newGrid(gridRules{pool, Caps{Total: total, Agent: agentCaps(n, agent), Fair: fair}}, n, 2, 16)
					for range max(1000, n*n/8) {
						g.step()
					}
					g.count()
					for range max(1000, n*n/32) {
						g.step()
					}
					steps := g.steps
					require.NoError(t, g.Check()) // Check also compares places, so the number of steps is read before this call
					t.Logf("%d x %d: %.1f steps a grant", n, n, float64(steps)/float64(g.granted))
					most := 12 * bits.Len(uint(n*n))
					if fair {
						most += 3 * n
					}
					require.Less(t, steps, most*g.granted)
				}
			})
		}
	}
}

// At times, all pools have room and all caps are full. At other times, all caps have room and all pools are
// full. No waiter can ever start. A change from one state to the other must not visit all lanes.
func TestLanesThatPoolAndCapBlockInTurnAreLeftAlone(t *testing.T) {
	for _, n := range []int{8, 64, 256} {
		m := New(gridRules{1, Caps{Agent: agentCaps(n, 1)}})
		g := &grid{Manager: m}
		var inPools, inCaps []*guest
		take := func(model, agent string) *guest {
			w := newGuest()
			h := m.For(Models, model, agent)
			if m.Take(&w.Waiter, &h, false, m.Ticket()) {
				w.told.Store(1)
			}
			return w
		}
		turn := func(all []*guest, model, agent string) {
			for _, w := range all {
				w.leave(m)
			}
			for i := range all {
				all[i] = take(fmt.Sprintf(model, i), fmt.Sprintf(agent, i))
				require.True(t, m.Holds(&all[i].Waiter))
			}
		}
		for i := range n {
			inPools = append(inPools, take(fmt.Sprint("m", i), "free"))
			inCaps = append(inCaps, take(fmt.Sprint("own", i), fmt.Sprint("agent", i)))
		}
		for i := range n * n {
			require.Zero(t, take(fmt.Sprint("m", i%n), fmt.Sprint("agent", i/n)).told.Load())
		}
		for round := range 10 {
			if round == 2 {
				g.count()
				g.steps = 0
			}
			turn(inPools, "m%d", "free%.0d")
			turn(inCaps, "own%d", "agent%d")
		}
		steps := g.steps
		require.NoError(t, m.Check())
		t.Logf("%d x %d: %d steps in %d turns", n, n, steps, 16*n)
		require.Less(t, steps, 16*n*bits.Len(uint(n*n)))
	}
}
