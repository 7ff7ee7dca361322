package alloc

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

var (
	seeds = flag.Int("alloc.seeds", 60, "number of random runs")
	seed  = flag.Uint64("alloc.seed", 0, "repeat the random run with this seed")
)

// TestNeverMoreThanTheLimitWhateverFails makes processes freeze, die, leave, and lose their connections and
// messages at random. The judge counts the bodies in all processes. A body is work that runs with a slot.
// After the faults stop, every remaining request gets a slot.
func TestNeverMoreThanTheLimitWhateverFails(t *testing.T) {
	run := func(t *testing.T, s uint64) {
		w := newWorld(s, 1+int(s%4))
		r := rand.New(rand.NewPCG(s, 2))
		for range 3 {
			w.start()
		}
		w.loss = []float64{0, 0.01, 0.1}[s%3]
		for range 200 {
			w.run(time.Duration(r.Int64N(int64(300 * time.Millisecond))))
			p := w.procs[r.IntN(len(w.procs))]
			switch r.IntN(12) {
			case 0, 1, 2, 3, 4:
				if !p.frozen && !p.dead && !p.m.leaving {
					p.ask(1 + r.IntN(5))
				}
			case 5:
				p.freeze()
			case 6:
				for _, p := range w.procs {
					if p.frozen && r.IntN(2) == 0 {
						p.thaw()
					}
				}
			case 7:
				if !p.frozen && !p.dead && !p.m.leaving && r.IntN(2) == 0 {
					p.m.Leave(w.now, bgagent.ErrClosed)
					p.pump()
					w.start()
				}
			case 8:
				if r.IntN(3) == 0 {
					p.dead = true
				}
				if len(w.procs) < 12 {
					w.start()
				}
			case 9:
				p.cut = !p.cut
			case 10:
				w.outage = r.IntN(3) == 0
			}
		}
		w.loss, w.outage = 0, false
		w.start()
		for _, p := range w.procs {
			if p.cut = false; p.frozen {
				p.thaw()
			}
		}
		w.run(5 * w.lease) // by then, the requests in line are granted or lost; if there are very many, the loop below waits for the rest
		for range 200 {
			left := 0
			for _, p := range w.procs {
				if !p.dead {
					left += len(p.waiting) + len(p.bodies)
				}
			}
			if left == 0 {
				break
			}
			w.run(w.lease)
		}
		for _, p := range w.procs {
			if !p.dead && len(p.waiting)+len(p.bodies) > 0 {
				w.fault("%s has %d requests that were never granted, and %d bodies", p.name, len(p.waiting), len(p.bodies))
			}
		}
		require.Empty(t, w.faults, "seed %d: go test ./internal/alloc -run %s -args -alloc.seed %d", s, "TestNever", s)
		t.Logf("started %d ended %d most %d of %d, term %d, procs %d", w.started, w.ended, w.most, w.limit, w.key.Term, len(w.procs))
		require.Positive(t, w.started)
		require.LessOrEqual(t, w.most, w.limit)
	}
	if *seed != 0 {
		run(t, *seed)
		return
	}
	base := rand.Uint64N(1 << 40)
	for i := range *seeds {
		t.Run(fmt.Sprint("seed=", base+uint64(i)), func(t *testing.T) {
			t.Parallel()
			run(t, base+uint64(i))
		})
	}
}

// TestSlotsAreGrantedInTheOrderOfTheirQueueTimes uses three processes and no faults.
func TestSlotsAreGrantedInTheOrderOfTheirQueueTimes(t *testing.T) {
	at := time.Unix(1_800_000_000, 0)
	a, err := NewAllocator(1, bgagent.Limits{Default: 1}, time.Second, at, nil)
	require.NoError(t, err)
	a.Keep(at, time.Hour)
	members := map[string]*Member{}
	var order []string
	talk := func() {
		for again := true; again; {
			again = false
			for _, name := range []string{"a", "b", "c"} {
				m := members[name]
				if up, ok := m.Next(at); ok {
					again = true
					d, ok := a.Handle(at, &up)
					require.True(t, ok)
					m.Answered(at, at, &d)
				}
			}
			for name, d := range a.Tell(at) {
				again = true
				members[name].Told(at, &d)
			}
			for _, name := range []string{"a", "b", "c"} {
				for _, n := range members[name].News() {
					require.False(t, n.Lost)
					order = append(order, fmt.Sprint(name, n.ID))
				}
			}
		}
	}
	for _, name := range []string{"a", "b", "c"} {
		a.Admit(at, name)
		members[name] = NewMember(name, time.Second)
		members[name].Join(1)
	}
	talk()
	want := func(name string, queued int, head bool) {
		members[name].Request(at, Op{Model: "m", Head: head, Queued: at.Add(time.Duration(queued))}, false)
	}
	want("a", 0, false)
	talk()
	want("a", 5, false)
	want("b", 2, false)
	want("c", 4, false)
	want("b", 3, false)
	want("c", 9, true)
	talk()
	for i := 0; i < len(order); i++ {
		members[order[i][:1]].Release(uint64(order[i][1] - '0'))
		talk()
	}
	require.Equal(t, []string{"a1", "c2", "b1", "b2", "c1", "a2"}, order)
	require.Empty(t, a.Pools())
}

// pair returns an allocator and a member that has registered.
func pair(t *testing.T, limit int) (now time.Time, a *Allocator, m *Member) {
	now = time.Unix(1_800_000_000, 0)
	a, err := NewAllocator(1, bgagent.Limits{Default: limit}, 3*time.Second, now, nil)
	require.NoError(t, err)
	a.Keep(now, time.Hour)
	a.Admit(now, "a")
	m = NewMember("a", 3*time.Second)
	m.Join(1)
	exchange(t, now, a, m)
	return now, a, m
}

func exchange(t *testing.T, now time.Time, a *Allocator, m *Member) {
	for {
		up, ok := m.Next(now)
		if !ok {
			return
		}
		d, ok := a.Handle(now, &up)
		require.True(t, ok)
		m.Answered(now, now, &d)
	}
}

func TestAGrantThatHasLainInASocketIsRefusedAndGrantedAgain(t *testing.T) {
	now, a, m := pair(t, 1)
	other := NewMember("b", 3*time.Second)
	other.Join(1)
	a.Admit(now, "b")
	held := other.Request(now, Op{Model: "m"}, false)
	exchange(t, now, a, other)
	require.Len(t, other.News(), 1)
	id := m.Request(now, Op{Model: "m"}, false)
	exchange(t, now, a, m)
	other.Release(held)
	exchange(t, now, a, other)
	d := a.Tell(now)["a"]
	require.Equal(t, []uint64{id}, d.Grants)
	later := now.Add(2 * time.Second) // two thirds of the lease
	m.Told(later, &d)
	require.Empty(t, m.News(), "the grant must be out of date")
	require.False(t, m.MayBegin(later, id))
	exchange(t, later, a, m)
	require.Equal(t, []News{{ID: id}}, m.News(), "the answer to a heartbeat repeats the grant")
	require.True(t, m.MayBegin(later, id))
}

func TestAGrantOfAnEarlierRegistrationIsRefused(t *testing.T) {
	now, a, m := pair(t, 1)
	id := m.Request(now, Op{Model: "m"}, false)
	up, _ := m.Next(now)
	lost, _ := a.Handle(now, &up)
	require.Equal(t, []uint64{id}, lost.Grants)
	later := now.Add(3*time.Second + 1)
	a.Tick(later)
	require.False(t, a.Knows("a"), "its lease is over")
	a.Admit(later, "a")
	m.Advance(later)
	up, ok := m.Next(later)
	require.True(t, ok)
	d, _ := a.Handle(later, &up)
	require.True(t, d.Register)
	m.Answered(later, later, &d)
	m.Told(later, &lost)
	require.Empty(t, m.News())
	exchange(t, later, a, m)
	m.Told(later, &lost)
	require.Equal(t, []News{{ID: id}}, m.News(), "only the grant of the new registration counts")
}

func TestANewTermGrantsNothingUntilAllHaveRegisteredOrTheirLeaseIsOver(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	a, err := NewAllocator(7, bgagent.Limits{Default: 2}, 3*time.Second, now, []string{"a", "dead"})
	require.NoError(t, err)
	a.Keep(now, time.Hour)
	m := NewMember("a", 3*time.Second)
	held, waits := m.Request(now, Op{Model: "m"}, true), m.Request(now, Op{Model: "m"}, false)
	m.Join(7)
	exchange(t, now, a, m)
	require.Equal(t, []News{{ID: held}}, m.News())
	require.False(t, a.IsOpen())
	exchange(t, now.Add(2*time.Second), a, m)
	a.Tick(now.Add(3 * time.Second))
	require.False(t, a.IsOpen())
	a.Tick(now.Add(3*time.Second + 1))
	require.True(t, a.IsOpen())
	require.Equal(t, []uint64{waits}, a.Tell(now.Add(3 * time.Second))["a"].Grants)
	require.Equal(t, []string{"a"}, a.Members())
}

// TestANewTermServesItsFirstRequestsLikeAllOthers begins a new term when two roots want the
// first slots.
func TestANewTermServesItsFirstRequestsLikeAllOthers(t *testing.T) {
	for _, c := range []struct {
		limits bgagent.Limits
		first  []uint64
	}{
		{bgagent.Limits{Default: 2}, []uint64{1, 2}},
		{bgagent.Limits{Default: 2, Fair: true}, []uint64{1, 4}},
		{bgagent.Limits{Default: 5, Total: 2}, []uint64{1, 2}},
		{bgagent.Limits{Default: 5, Total: 2, Fair: true}, []uint64{1, 4}},
		{bgagent.Limits{Default: 5, Agent: map[string]int{"x": 2}, Fair: true}, []uint64{1, 4}},
	} {
		t.Run(fmt.Sprintf("%+v", c.limits), func(t *testing.T) {
			now := time.Unix(1_800_000_000, 0)
			a, err := NewAllocator(7, c.limits, 3*time.Second, now, []string{"a"})
			require.NoError(t, err)
			limits := a.Limits()
			a.Keep(now, time.Hour)
			m := NewMember("a", 3*time.Second)
			for i, root := range []string{"r", "r", "r", "s"} {
				m.Request(now, Op{Model: "m", Agent: "x", Root: root, Queued: time.Unix(1_700_000_000, int64(i))}, false) // queue times are in the past
			}
			m.Join(7)
			exchange(t, now, a, m)
			require.Equal(t, limits, a.Limits())
			var got []uint64
			for _, n := range m.News() {
				got = append(got, n.ID)
			}
			require.Equal(t, c.first, got)
			for _, p := range a.Pools() {
				require.LessOrEqual(t, p.InUse, 2, p.Name)
			}
			for len(m.requests) > 0 {
				for _, id := range got {
					m.Release(id)
				}
				exchange(t, now, a, m)
				got = nil
				for _, n := range m.News() {
					got = append(got, n.ID)
				}
				require.True(t, len(got) > 0 || len(m.requests) == 0)
			}
			require.Empty(t, a.Pools())
		})
	}
}

func TestAnAllocatorIsSilentWhenTwoThirdsOfItsKeyAreGone(t *testing.T) {
	now, a, m := pair(t, 1)
	a.Keep(now, 3*time.Second)
	m.Request(now, Op{Model: "m"}, false)
	up, _ := m.Next(now)
	_, ok := a.Handle(now.Add(2*time.Second), &up)
	require.False(t, ok)
	require.Empty(t, a.Tell(now.Add(2*time.Second)))
	_, ok = a.Handle(now.Add(2*time.Second-1), &up)
	require.True(t, ok)
}

func TestARegistrationOfManyRequestsCountsWhatIsHeldBeforeTheRestIsKnown(t *testing.T) {
	now, a, m := pair(t, 2)
	for range 2 {
		m.Request(now, Op{Model: "m"}, false)
	}
	exchange(t, now, a, m)
	require.Len(t, m.News(), 2)
	for range 3 * maxOps {
		m.Request(now, Op{Model: "m"}, false)
	}
	exchange(t, now, a, m)
	b, err := NewAllocator(2, bgagent.Limits{Default: 2}, 3*time.Second, now, []string{"a"})
	require.NoError(t, err)
	b.Keep(now, time.Hour)
	m.Join(2)
	n := 0
	for {
		up, ok := m.Next(now)
		if !ok {
			break
		}
		n++
		require.LessOrEqual(t, len(up.Ops), maxOps)
		d, ok := b.Handle(now, &up)
		require.True(t, ok)
		require.Empty(t, d.Grants)
		m.Answered(now, now, &d)
	}
	require.Equal(t, 4, n)
	i := slices.IndexFunc(b.Pools(), func(p bgagent.PoolStats) bool { return p.Name == "default m" })
	require.Equal(t, bgagent.PoolStats{Name: "default m", Limit: 2, InUse: 2, Waiting: 3 * maxOps}, b.Pools()[i])
}

func TestAProcessThatOftenSendsRequestsAlsoAsksForTheFigures(t *testing.T) {
	now, a, m := pair(t, 1)
	var asked []time.Duration
	for began, step := now, 0; step < 30; step++ {
		now = now.Add(100 * time.Millisecond)
		m.Request(now, Op{Model: "m"}, false)
		up, ok := m.Next(now)
		require.True(t, ok)
		d, ok := a.Handle(now, &up)
		require.True(t, ok)
		require.Equal(t, up.Figures, d.Pools != nil)
		if up.Figures {
			asked = append(asked, now.Sub(began))
		}
		m.Answered(now, now, &d)
	}
	const sixth = 500 * time.Millisecond
	require.Equal(t, []time.Duration{sixth, 2 * sixth, 3 * sixth, 4 * sixth, 5 * sixth, 6 * sixth}, asked)
}
