package slots

import (
	"fmt"
	"testing"
)

// cappedRules gives each name its own pool with two slots. It also contains the caps.
type cappedRules struct{ caps Caps }

func (r cappedRules) Pool(_ Space, name string) (pool string, limit int, shared bool) {
	return "pool " + name, 2, false
}

func (r cappedRules) Caps() Caps { return r.caps }

// BenchmarkGrant measures a release of a slot and the grants that follow from it. Tasks of every agent wait
// in every pool. Each agent has a cap, and there is a cap on the total.
func BenchmarkGrant(b *testing.B) {
	for _, n := range []int{4, 16, 64} {
		for _, fair := range []bool{false, true} {
			b.Run(fmt.Sprintf("pools=%d/agents=%d/fair=%v", n, n, fair), func(b *testing.B) {
				caps := Caps{Total: n, Agent: map[string]int{}, Fair: fair}
				for a := range n {
					caps.Agent[fmt.Sprint("agent", a)] = 2
				}
				m := New(cappedRules{caps})
				roots := make([]Root, 16)
				tasks := make([]*guest, 0, 4*n*n)
				handles := make([]Handle, 0, 4*n*n)
				var holders []int
				for i := range 4 * n * n {
					g := newGuest()
					g.Root = &roots[i*7%len(roots)]
					tasks = append(tasks, g)
					handles = append(handles, m.For(Models, fmt.Sprint("m", i%n), fmt.Sprint("agent", i/n%n)))
				}
				index := map[*Waiter]int{}
				for i, g := range tasks {
					index[&g.Waiter] = i
					if m.Take(&g.Waiter, &handles[i], false, m.Ticket()) {
						holders = append(holders, i)
					}
				}
				b.ReportAllocs()
				granted := 0
				for i := 0; b.Loop(); i++ {
					at := i % len(holders)
					h := holders[at]
					next, more := m.Leave(&tasks[h].Waiter)
					holders[at] = holders[len(holders)-1]
					holders = holders[:len(holders)-1]
					if next != nil {
						holders = append(holders, index[next])
						granted++
					}
					for _, w := range more {
						holders = append(holders, index[w])
						granted++
					}
					if m.Take(&tasks[h].Waiter, &handles[h], false, m.Ticket()) {
						holders = append(holders, h)
						granted++
					}
				}
				b.ReportMetric(float64(granted)/float64(b.N), "grants/op")
				if err := m.Check(); err != nil {
					b.Fatal(err)
				}
			})
		}
	}
}
