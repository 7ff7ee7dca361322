package slots

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
)

// crowd makes n guests take slots of the model. Guests that get no slot wait in line.
func crowd(m *Manager, model string, n int) (all []*guest) {
	for range n {
		g := newGuest()
		g.take(m, model)
		all = append(all, g)
	}
	return all
}

// holders returns the number of guests that hold a slot.
func holders(m *Manager, all []*guest) (n int) {
	for _, g := range all {
		if m.Holds(&g.Waiter) {
			n++
		}
	}
	return n
}

// The method "refuse" reports that the turn of g was refused, and releases the slot of g.
func (g *guest) refuse(m *Manager, model string, r Refusal) {
	h := m.For(Models, model, "")
	m.Refuse(&g.Waiter, &h, r)
	g.leave(m)
}

func (g *guest) proves(m *Manager) {
	for _, w := range m.Proved(&g.Waiter) {
		w.Owner.SlotGranted(w)
	}
}

const second = int64(1e9)

func TestOneStartsAfterTheCoolDownThenTwoThenFour(t *testing.T) {
	m := New(alone(8))
	var at int64
	m.OnCool(func(next int64) { at = next })
	running := crowd(m, "m", 1)[0]
	other := crowd(m, "other", 2)
	running.refuse(m, "m", Refusal{Now: second})
	require.Equal(t, 6*second, at)
	waiting := crowd(m, "m", 20)
	require.Zero(t, holders(m, waiting), "a slot was granted in the cool-down")
	require.Equal(t, 3, holders(m, append(other, crowd(m, "other", 1)...)), "another pool cools down")
	m.Warm(at - 1)
	require.Zero(t, holders(m, waiting))
	m.Warm(at)
	require.Equal(t, 1, holders(m, waiting))
	for want, done := 3, 0; want <= 7; want = 2*want + 1 {
		for now := holders(m, waiting); done < now; done++ {
			waiting[done].proves(m)
			require.NoError(t, m.Check())
		}
		require.Equal(t, want, holders(m, waiting))
	}
	for _, g := range waiting[:7] {
		g.proves(m)
	}
	require.Equal(t, 8, holders(m, waiting), "the limit of the pool")
	require.False(t, m.Cools(), "the pool is in its usual state")
}

func TestARefusalOfTheFirstDoublesTheCoolDown(t *testing.T) {
	m := New(alone(2))
	var at int64
	m.OnCool(func(next int64) { at = next })
	crowd(m, "m", 1)[0].refuse(m, "m", Refusal{})
	waiting := crowd(m, "m", 9)
	last := int64(0)
	for _, want := range []int64{5, 10, 20, 40, 80, 160, 300, 300} {
		require.Equal(t, want*second, at-last)
		last = at
		m.Warm(last)
		require.Equal(t, 1, holders(m, waiting), "after %d s", want)
		for i, g := range waiting {
			if m.Holds(&g.Waiter) {
				waiting = append(waiting[:i], waiting[i+1:]...)
				g.refuse(m, "m", Refusal{Now: last})
				break
			}
		}
	}
	h := m.For(Models, "m", "")
	require.Equal(t, 9, m.CoolDown(&h).Refusals)
}

// Each request that a program retries before giving up counts as a refused turn.
func TestTheTriesOfAProgramMakeTheCoolDownLonger(t *testing.T) {
	m := New(alone(2))
	var at int64
	m.OnCool(func(next int64) { at = next })
	crowd(m, "m", 1)[0].refuse(m, "m", Refusal{Tries: 3})
	require.Equal(t, 20*second, at)
	m.Warm(at)
	probe := crowd(m, "m", 1)[0]
	require.True(t, m.Holds(&probe.Waiter))
	began := at
	probe.refuse(m, "m", Refusal{Now: began, Tries: 2})
	require.Equal(t, 80*second, at-began, "after five refused requests in a row")
}

func TestManyRefusalsAtOnceAreOneCoolDown(t *testing.T) {
	m := New(alone(5))
	var at int64
	m.OnCool(func(next int64) { at = next })
	for _, g := range crowd(m, "m", 5) {
		g.refuse(m, "m", Refusal{Now: second})
	}
	require.Equal(t, 6*second, at)
}

func TestTheCoolDownNeverEndsBeforeTheToldTime(t *testing.T) {
	for _, spread := range []float64{0, 0.5, 1} {
		m := New(alone(1))
		var at int64
		m.OnCool(func(next int64) { at = next })
		crowd(m, "m", 1)[0].refuse(m, "m", Refusal{Reset: 3600 * second, Spread: spread})
		require.GreaterOrEqual(t, at, 3600*second)
		require.LessOrEqual(t, at, 3630*second)
		crowd(m, "n", 1)[0].refuse(m, "n", Refusal{Spread: spread})
		require.GreaterOrEqual(t, at, 5*second)
		require.LessOrEqual(t, at, 6*second)
	}
}

func TestARefusalOfTheProviderHoldsAllItsPoolsBack(t *testing.T) {
	m := New(alone(4))
	one := crowd(m, "p/one", 1)[0]
	crowd(m, "p/two", 1)
	one.refuse(m, "p/one", Refusal{Provider: true})
	all := append(append(crowd(m, "p/one", 2), crowd(m, "p/two", 2)...), crowd(m, "p/new", 2)...)
	require.Zero(t, holders(m, all), "pools of the provider, a new one among them")
	require.Equal(t, 1, holders(m, crowd(m, "q/one", 1)), "another provider")
	m.Warm(300 * second)
	require.Equal(t, 1, holders(m, all), "one turn of the provider")
	require.NoError(t, m.Check())
}

func TestASlotFromBeforeTheCoolDownMayNotBegin(t *testing.T) {
	m := New(alone(3))
	all := crowd(m, "m", 2)
	require.True(t, m.MayBegin(&all[1].Waiter))
	all[0].refuse(m, "m", Refusal{})
	require.False(t, m.MayBegin(&all[1].Waiter))
	first := crowd(m, "m", 1)[0]
	m.Warm(300 * second)
	require.True(t, m.MayBegin(&first.Waiter))
	require.True(t, m.Unproven(&first.Waiter))
	all[1].proves(m) // the provider accepts a request of the turn that is still running
	require.Equal(t, 2, holders(m, append(crowd(m, "m", 3), first)), "one slot for the turn that was still running, and one of the two new slots for the others")
}

func TestALowTicketGoesBeforeEarlierOnes(t *testing.T) {
	m, a, _ := line(t, 1)
	last, first := newGuest(), newGuest()
	takeModel(m, &last.Waiter, "m", true, m.Ticket())
	takeModel(m, &first.Waiter, "m", true, 7)
	a.leave(m)
	requireHolds(t, m, first)
}

// TestCoolDownsKeepTheirPromises makes random calls. After each call, Check must find no contradiction. A
// pool must not grant slots while it cools down. After that, the number of unproved slots must not exceed the
// number that the successes allow.
func TestCoolDownsKeepTheirPromises(t *testing.T) {
	models := []string{"p/a", "p/b", "q/a", "q/b"}
	agents := []string{"", "x", "y"}
	for seed := range uint64(150) {
		r := rand.New(rand.NewPCG(seed, 1))
		caps := func() Caps {
			switch r.IntN(3) {
			case 0:
				return Caps{}
			case 1:
				return Caps{Total: 4, Agent: map[string]int{"x": 2}}
			default:
				return Caps{Agent: map[string]int{"x": 1, "y": 3}, Fair: true}
			}
		}
		m := New(gridRules{1 + r.IntN(4), caps()})
		now, at := int64(0), int64(0)
		m.OnCool(func(next int64) { at = next })
		var all []*guest
		roots := []*Root{{}, {}}
		for step := range 150 {
			now += r.Int64N(3 * second)
			cooling := map[string]bool{}
			for _, model := range models {
				if k := m.keys[Models][model]; k != nil && k.pool.cool != nil && !k.pool.cool.warm {
					cooling[model] = true
				}
			}
			before := map[*guest]bool{}
			for _, g := range all {
				before[g] = m.Holds(&g.Waiter)
			}
			warmed := false
			switch op := r.IntN(10); {
			case op < 4:
				g := newGuest()
				g.Root = roots[r.IntN(2)]
				h := m.For(Models, models[r.IntN(4)], agents[r.IntN(3)])
				m.Take(&g.Waiter, &h, r.IntN(2) == 0, m.Ticket())
				all = append(all, g)
			case len(all) == 0:
			case op < 6:
				i := r.IntN(len(all))
				all[i].leave(m)
				all = append(all[:i], all[i+1:]...)
			case op == 6:
				g := all[r.IntN(len(all))]
				if m.Holds(&g.Waiter) {
					h := m.For(Models, g.key.name, g.key.agent)
					m.Refuse(&g.Waiter, &h, Refusal{Now: now, Reset: now + r.Int64N(20*second) - 10*second, Provider: r.IntN(3) == 0, Spread: r.Float64()})
					require.False(t, m.MayBegin(&g.Waiter))
				}
			case op == 7:
				all[r.IntN(len(all))].proves(m)
			case op == 8 && r.IntN(4) == 0:
				m.SetRules(gridRules{1 + r.IntN(4), caps()})
			default:
				now, warmed = max(now, at), true
				m.Warm(now)
			}
			require.NoError(t, m.Check(), fmt.Sprint("seed ", seed, " step ", step))
			for _, g := range all {
				if m.Holds(&g.Waiter) && !before[g] && !warmed {
					require.False(t, cooling[g.key.name], "seed %d step %d: a slot was granted in the cool-down", seed, step)
				}
			}
			for _, c := range m.cools {
				require.LessOrEqual(t, c.unproven, c.window, "seed %d step %d", seed, step)
			}
		}
		for range 400 { // all cool-downs end, and every waiter gets a slot
			now += 600 * second
			m.Warm(now)
			var rest []*guest
			for _, g := range all {
				if m.Holds(&g.Waiter) {
					g.proves(m)
					g.leave(m)
				} else {
					rest = append(rest, g)
				}
			}
			all = rest
		}
		require.Empty(t, all, "seed %d: a waiter waits forever", seed)
	}
}

func TestACoolDownCostsAWaitingTaskNoMemory(t *testing.T) {
	require.LessOrEqual(t, unsafe.Sizeof(Waiter{}), uintptr(56))
}

func TestACoolDownWithoutWaitersIsForgotten(t *testing.T) {
	m := New(alone(3))
	var at int64
	m.OnCool(func(next int64) { at = next })
	crowd(m, "m", 1)[0].refuse(m, "m", Refusal{})
	waiting := crowd(m, "m", 1)
	m.Warm(at)
	waiting[0].leave(m)
	require.True(t, m.Cools())
	m.Warm(at)
	require.False(t, m.Cools())
	require.Equal(t, 3, holders(m, crowd(m, "m", 4)))
}
