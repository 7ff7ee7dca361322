package bgagent

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode"

	"github.com/bgagent/bgagent/internal/slots"
	"github.com/stretchr/testify/require"
)

// The oracle works out the effect of the limits in the simplest possible way. The tests compare the
// implementation with the oracle. To make the two independent, they share no code except the
// tickets.

func oracleName(s string) string {
	return strings.Map(unicode.ToLower, strings.TrimFunc(s, unicode.IsSpace))
}

// oracleValid reports whether the limits are valid.
func oracleValid(l Limits) bool {
	for _, m := range []map[string]int{l.Model, l.Provider, l.Agent} {
		for k1, n1 := range m {
			if n1 < -1 || oracleName(k1) == "" {
				return false
			}
			for k2, n2 := range m {
				if oracleName(k1) == oracleName(k2) && n1 != n2 {
					return false
				}
			}
		}
	}
	for k, n := range l.Provider {
		if strings.Contains(k, "/") && n != 0 {
			return false
		}
	}
	return l.Default >= -1 && l.Total >= -1
}

// oraclePool returns the name and the limit of the pool for a task with the given model and agent.
func oraclePool(l Limits, model, agent string) (string, int) {
	def := l.Default
	if def == 0 {
		def = 5
	}
	name := oracleName(model)
	if name == "" {
		if a := oracleName(agent); a != "" {
			if n := oracleCap(l, a); n != 0 {
				return "agent " + a, -1
			}
			return "agent " + a, def
		}
		return "default", def
	}
	set := func(m map[string]int, want string) (int, bool) {
		for k, n := range m {
			if n != 0 && oracleName(k) == want {
				return n, true
			}
		}
		return 0, false
	}
	provider, id := "", name
	if i := strings.IndexByte(name, '/'); i >= 0 {
		provider, id = name[:i], name[i+1:]
	}
	if n, ok := set(l.Model, name); ok {
		return "model " + name, n
	}
	if n, ok := set(l.Model, id); ok && strings.Count(id, "/") == 0 {
		return "model " + id, n
	}
	if n, ok := set(l.Provider, provider); ok && provider != "" {
		return "provider " + provider, n
	}
	return "default " + name, def
}

// oracleCap returns the cap of an agent, or 0 if the agent has no cap.
func oracleCap(l Limits, agent string) int {
	for k, n := range l.Agent {
		if oracleName(k) == oracleName(agent) && n != 0 {
			return n
		}
	}
	return 0
}

// oracleOne is a waiter for a slot or the holder of one.
type oracleOne struct {
	model, agent string
	root         *slots.Root
	head         bool
	ticket       uint64
	holds        bool
	real         any // counterpart in the implementation: a *guest, *caller or *Slot
}

// caller is a goroutine that calls Acquire.
type caller struct {
	cancel context.CancelFunc
	done   bool
	slot   Slot
	err    error
}

var (
	someModels = []string{"a/x", "a/y", "b/x", "b/y", "x", "y", " A/X", "b/c/x", "c/x", "", " ", "a/", "/x", "é/Ü", "É/ü "}
	someAgents = []string{"a", "a/x", "Explore", " explore", "", "x"}
	someKeys   = []string{"a/x", "x", " X ", "A/x", "y", "b/c/x", "c/x", "Ü", "b/y", "/x", "a/"}
	someNames  = []string{"a", " A", "b", "c", "É"}
)

// randomCaps adds random caps to the limits. The result can be invalid.
func randomCaps(r *rand.Rand, l Limits) Limits {
	n := func() int { return []int{-1, 0, 1, 1, 2, 3}[r.IntN(6)] }
	if r.IntN(2) == 0 {
		l.Total = []int{-1, 0, 1, 2, 4, 8}[r.IntN(6)]
	}
	if r.IntN(3) > 0 {
		l.Agent = map[string]int{}
		for range 1 + r.IntN(3) {
			l.Agent[someAgents[r.IntN(len(someAgents))]] = n()
		}
	}
	l.Fair = r.IntN(2) == 0
	if r.IntN(30) == 0 {
		l.Total = -2
	}
	return l
}

func randomLimits(r *rand.Rand) Limits {
	n := func() int { return []int{-1, 0, 1, 1, 2, 3, 5}[r.IntN(7)] }
	l := Limits{Model: map[string]int{}, Provider: map[string]int{}, Default: n()}
	for range r.IntN(4) {
		l.Model[someKeys[r.IntN(len(someKeys))]] = n()
	}
	for range r.IntN(3) {
		l.Provider[someNames[r.IntN(len(someNames))]] = n()
	}
	if r.IntN(20) == 0 {
		l.Default = -2
	}
	return l
}

// runAgainstOracle performs random operations on a ConcurrencyManager and on the oracle.
// It compares the two after each operation.
func runAgainstOracle(t *testing.T, seed uint64, ops int) {
	r := rand.New(rand.NewPCG(seed, 0))
	pick := func(from []string) string { return from[r.IntN(len(from))] }
	draw := func() Limits {
		if l := randomLimits(r); seed%4 > 0 {
			return randomCaps(r, l)
		} else {
			return l
		}
	}
	limits := draw()
	for !oracleValid(limits) {
		limits = draw()
	}
	c := newConcurrency(t, limits)
	o := &oracle{clock: c.slots.Ticket}
	o.setLimits(limits)
	roots := make([]slots.Root, 3)
	var old []Slot // released slots, which are released again
	var early []uint64
	var last string
	var guests []*guest
	must := func(ok bool, format string, args ...any) {
		if !ok {
			t.Fatalf("seed %d, after %s: %s\nlimits %+v", seed, last, fmt.Sprintf(format, args...), o.limits)
		}
	}
	defer func() { // end all callers; if one were still waiting, the bubble's own error would hide a failure of the test
		for _, x := range o.all {
			if real, ok := x.real.(*caller); ok {
				real.cancel()
			}
		}
	}()
	leave := func(x *oracleOne) {
		last = fmt.Sprintf("leave %q %q held=%v", x.model, x.agent, x.holds)
		switch real := x.real.(type) {
		case *guest:
			real.leave(c)
		case *Slot:
			real.Release()
			old = append(old, *real)
		case *caller:
			if x.holds {
				real.slot.Release()
				old = append(old, real.slot)
			}
			real.cancel()
		}
		o.drop(x)
	}
	check := func() {
		synctest.Wait()
		if err := c.slots.Check(); err != nil {
			must(false, "%v", err)
		}
		for _, x := range o.all {
			switch real := x.real.(type) {
			case *guest:
				must(c.slots.Holds(&real.Waiter) == x.holds, "%q holds %v, should %v", x.model, !x.holds, x.holds)
				must(!x.holds || real.told.Load() == 1, "%q was notified %d times", x.model, real.told.Load())
			case *caller:
				must(real.done == x.holds && real.err == nil, "Acquire(%q) returned %v (%v), should have %v", x.model, real.done, real.err, x.holds)
			}
		}
		want := []PoolStats{}
		for _, s := range o.shown() {
			want = append(want, s)
		}
		slices.SortFunc(want, func(a, b PoolStats) int { return strings.Compare(a.Name, b.Name) })
		got := c.Pools()
		must(slices.Equal(want, got), "pools are\n%+v, should be\n%+v", got, want)
	}

	for range ops {
		model, agent := pick(someModels), pick(someAgents)
		switch k := r.IntN(100); {
		case k < 25:
			ticket, head := c.slots.Ticket(), r.IntN(4) == 0
			if len(early) > 0 && r.IntN(2) == 0 {
				i := r.IntN(len(early))
				ticket = early[i]
				early = slices.Delete(early, i, i+1)
			}
			last = fmt.Sprintf("take %q %q head=%v", model, agent, head)
			g := newGuest()
			g.Root = &roots[r.IntN(len(roots))]
			x := &oracleOne{model: model, agent: agent, root: g.Root, head: head, ticket: ticket, real: g}
			o.all = append(o.all, x)
			o.settle()
			guests = append(guests, g)
			granted := takeSlot(c, &g.Waiter, model, agent, head, ticket)
			must(granted == x.holds, "take returned %v", granted)
			if granted {
				g.told.Store(1)
			}
			if !granted {
				place, s := c.slots.Place(&g.Waiter)
				wantPlace, want := o.place(x)
				must(place == wantPlace, "place %d, should be %d", place, wantPlace)
				must(poolStats(time.Time{}, s) == want, "place returned %+v, should return %+v", s, want)
			}
		case k < 30:
			early = append(early, c.slots.Ticket())
		case k < 45:
			last = fmt.Sprintf("Acquire %q", model)
			ctx, cancel := context.WithCancel(context.Background())
			real := &caller{cancel: cancel}
			x := &oracleOne{model: model, real: real, ticket: c.slots.Ticket()}
			ended := r.IntN(10) == 0
			if ended {
				cancel()
			} else {
				o.all = append(o.all, x)
				o.settle()
			}
			pooled := r.IntN(2) == 0
			go func() {
				if pooled {
					real.slot, real.err = c.Pool(model).Acquire(ctx)
				} else {
					real.slot, real.err = c.Acquire(ctx, model)
				}
				real.done = true
			}()
			synctest.Wait()
			must(!ended || real.done && real.err != nil, "an ended context was ignored")
		case k < 60:
			last = fmt.Sprintf("TryAcquire %q", model)
			x := &oracleOne{model: model, ticket: c.slots.Ticket()}
			o.all = append(o.all, x)
			o.settle()
			s, ok := c.TryAcquire(model)
			must(ok == x.holds, "TryAcquire returned %v", ok)
			x.real = &s
			if !ok {
				o.drop(x)
			}
		case k < 88:
			if len(o.all) > 0 {
				leave(o.all[r.IntN(len(o.all))])
			}
		case k < 92:
			last = "a second release"
			if len(old) > 0 {
				old[r.IntN(len(old))].Release()
			}
			if len(guests) > 0 {
				g := guests[r.IntN(len(guests))]
				if !slices.ContainsFunc(o.all, func(x *oracleOne) bool { return x.real == any(g) }) {
					next, _ := c.slots.Leave(&g.Waiter)
					must(next == nil, "a waiter without a slot passed a slot on")
				}
			}
		case k == 92 && r.IntN(4) == 0:
			last = fmt.Sprintf("many of %q %q", model, agent)
			root := &roots[r.IntN(len(roots))]
			for range 120 {
				g := newGuest()
				g.Root = root
				x := &oracleOne{model: model, agent: agent, root: root, ticket: c.slots.Ticket(), real: g}
				o.all = append(o.all, x)
				o.settle()
				granted := takeSlot(c, &g.Waiter, model, agent, false, x.ticket)
				must(granted == x.holds, "take returned %v", granted)
				g.leave(c)
				o.drop(x)
			}
		case k < 96:
			l := draw()
			last = fmt.Sprintf("SetLimits %+v", l)
			err := c.SetLimits(l)
			must((err == nil) == oracleValid(l), "SetLimits returned %v", err)
			if err == nil {
				o.setLimits(l)
			}
		default:
			name, limit := oraclePool(o.limits, model, "")
			s := o.figures(name, limit, func(x *oracleOne) bool { return o.pool(x) == name })
			must(c.Stats(model) == s, "Stats(%q) is %+v, should be %+v", model, c.Stats(model), s)
		}
		check()
	}
	for len(o.all) > 0 {
		leave(o.all[0])
		check()
	}
	require.Empty(t, c.Pools())
	o.limits.Total, o.limits.Agent, o.limits.Fair = 0, nil, false
	require.NoError(t, c.SetLimits(o.limits))
	for _, m := range someModels {
		requireFullBatch(t, c, m)
	}
}

func TestSlotsAgainstAnOracle(t *testing.T) {
	seeds, ops := 40, 300
	if testing.Short() {
		seeds = 16
	}
	for seed := range seeds {
		synctest.Test(t, func(t *testing.T) { runAgainstOracle(t, uint64(seed), ops) })
	}
}

// If Acquire and Release used different pools for a name, both pools would miscount their slots.
func TestAcquireAndReleaseAgreeOnThePool(t *testing.T) {
	r := rand.New(rand.NewPCG(8, 8))
	for range 2000 {
		l := randomLimits(r)
		c, err := NewConcurrencyManager(l)
		require.Equal(t, oracleValid(l), err == nil, "%+v: %v", l, err)
		if err != nil {
			continue
		}
		for _, model := range someModels {
			requireResolves(t, c, l, model)
		}
	}
}

// requireResolves checks that acquire, release, the figures and the oracle use the same
// pool for a model with the given name. The same must hold for an agent with that name.
func requireResolves(t *testing.T, c *ConcurrencyManager, l Limits, name string) {
	t.Helper()
	for _, as := range [][2]string{{name, "agent"}, {"", name}} {
		want := PoolStats{}
		want.Name, want.Limit = oraclePool(l, as[0], as[1])
		var in []*guest
		for range 3 {
			g := newGuest()
			if want.Limit == Unlimited || want.InUse < want.Limit {
				want.InUse++
			} else {
				want.Waiting++
			}
			takeSlot(c, &g.Waiter, as[0], as[1], false, c.slots.Ticket())
			in = append(in, g)
			_, s := c.slots.Place(&g.Waiter)
			require.Equal(t, want, poolStats(time.Time{}, s), "%q with %+v", as, l)
		}
		require.Equal(t, []PoolStats{want}, c.Pools())
		if oracleName(as[0]) != "" {
			require.Equal(t, want, c.Stats(as[0]))
			require.Equal(t, want, c.Pool(as[0]).Stats())
		}
		for _, g := range in {
			g.leave(c)
		}
		require.Empty(t, c.Pools(), "%q with %+v", as, l)
	}
	require.NoError(t, c.slots.Check())
}

func FuzzLimits(f *testing.F) {
	f.Add("claude-opus-4-5", 2, "anthropic/claude", -1, "anthropic", 3, 5, "anthropic/claude-opus-4-5")
	f.Add(" X", 1, "x ", 2, "", 0, -2, "p/X")
	f.Add("c/x", 1, "x", 0, "b/", 1, 0, "b/c/x")
	f.Add("\xff", 1, "\u1e9e", 1, "\u0130", 1, 1, "\u0130/\xff")
	f.Fuzz(func(t *testing.T, m1 string, n1 int, m2 string, n2 int, p string, np, def int, model string) {
		l := Limits{Model: map[string]int{m1: n1}, Provider: map[string]int{p: np}, Default: def}
		l.Model[m2] = n2
		c, err := NewConcurrencyManager(l)
		if (err == nil) != oracleValid(l) {
			t.Fatalf("%+v: %v", l, err)
		}
		if err != nil {
			return
		}
		for _, name := range []string{model, m1, m2, p + "/" + model, p + "/" + m1, strings.ToUpper(model)} {
			requireResolves(t, c, l, name)
		}
	})
}

// FuzzSlots is like TestSlotsAgainstAnOracle, but the fuzzer chooses the seeds.
func FuzzSlots(f *testing.F) {
	f.Add(uint64(1 << 40))
	f.Fuzz(func(t *testing.T, seed uint64) {
		synctest.Test(t, func(t *testing.T) { runAgainstOracle(t, seed, 100) })
	})
}
