package alloc

import (
	"testing"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

// crowd returns an allocator with two slots. The member "first" holds both of them. The member "dead" waits
// for four slots, and "first" waits behind it for two more.
func crowd(t *testing.T, l bgagent.Limits) (now time.Time, a *Allocator, first, dead *Member, held []uint64) {
	now, a, first = pair(t, 2)
	require.NoError(t, a.SetLimits(l))
	for range 2 {
		held = append(held, first.Request(now, Op{Model: "m", Queued: now}, false))
	}
	exchange(t, now, a, first)
	require.Len(t, first.News(), 2)
	a.Admit(now, "dead")
	dead = NewMember("dead", 3*time.Second)
	dead.Join(1)
	for range 4 {
		dead.Request(now, Op{Model: "m", Queued: now.Add(time.Second)}, false)
	}
	exchange(t, now, a, dead)
	for range 2 {
		first.Request(now, Op{Model: "m", Queued: now.Add(2 * time.Second)}, false)
	}
	exchange(t, now, a, first)
	require.Empty(t, first.News())
	return now, a, first, dead, held
}

// TestAProcessThatDoesNotConfirmAGrantGetsNoFurtherSlots uses a process that stops sending messages in the
// middle of its lease, so the allocator cannot tell whether it is dead.
func TestAProcessThatDoesNotConfirmAGrantGetsNoFurtherSlots(t *testing.T) {
	for _, l := range []bgagent.Limits{{Default: 2}, {Default: 2, Fair: true}, {Default: 9, Total: 2}} {
		for name, notices := range map[string]func(now time.Time, a *Allocator) time.Time{
			"no answer": func(now time.Time, a *Allocator) time.Time {
				a.Tick(now)
				a.Tick(now.Add(49 * time.Millisecond))
				require.Equal(t, 5, waiting(a))
				a.Tick(now.Add(50 * time.Millisecond))
				return now.Add(50 * time.Millisecond)
			},
			"no receiver": func(now time.Time, a *Allocator) time.Time {
				a.Unreachable("dead")
				return now
			},
		} {
			t.Run(name, func(t *testing.T) {
				now, a, first, dead, held := crowd(t, l)
				first.Release(held[0])
				exchange(t, now, a, first)
				grant := a.Tell(now)["dead"]
				require.Equal(t, []uint64{1}, grant.Grants)
				now = notices(now, a)
				require.Equal(t, 2, waiting(a))
				first.Release(held[1])
				exchange(t, now, a, first)
				require.Len(t, first.News(), 1, "a process that may be dead gets no slot")

				dead.Told(now, &grant)
				require.Equal(t, []News{{ID: 1}}, dead.News(), "the grant was kept for the process")
				exchange(t, now, a, dead)
				require.Equal(t, 4, waiting(a), "the requests of the process are in line again")
				dead.Release(1)
				exchange(t, now, a, dead)
				require.Equal(t, []News{{ID: 2}}, dead.News(), "the requests are in their old places")
			})
		}
	}
}

// The function "waiting" returns the number of requests in line.
func waiting(a *Allocator) int { return a.Pools()[0].Waiting }

func TestAProcessThatConfirmsItsGrantsStaysInLine(t *testing.T) {
	now, a, first, dead, held := crowd(t, bgagent.Limits{Default: 2})
	first.Release(held[0])
	exchange(t, now, a, first)
	grant := a.Tell(now)["dead"]
	a.Tick(now)
	dead.Told(now, &grant)
	exchange(t, now, a, dead)
	now = now.Add(50 * time.Millisecond)
	a.Tick(now)
	require.Equal(t, 5, waiting(a))
	first.Release(held[1])
	exchange(t, now, a, first)
	a.Tick(now)
	now = now.Add(40 * time.Millisecond)
	a.Tick(now)
	require.Equal(t, []uint64{2}, a.Tell(now)["dead"].Grants)
	require.Equal(t, 4, waiting(a), "the time of each grant counts from the last message of the process")
}

// TestTheSlotsOfRunningWorkAreLostIfNobodyEverAnswers uses a process that continues the work of an earlier
// process but cannot reach any other process.
func TestTheSlotsOfRunningWorkAreLostIfNobodyEverAnswers(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	m := NewMember("a", 3*time.Second)
	for n := range 2 {
		id := m.Request(now, Op{Model: "m"}, true)
		require.Equal(t, []News{{ID: id}}, m.News())
		m.Advance(now.Add(2*time.Second - 1))
		require.Empty(t, m.News(), "request %d", n)
		m.Advance(now.Add(2 * time.Second))
		lost := m.News()
		require.Len(t, lost, 1)
		require.ErrorIs(t, lost[0].Why, bgagent.ErrSlotLost)
		require.Equal(t, News{ID: id, Lost: true, Until: now.Add(3 * time.Second), Why: lost[0].Why}, lost[0])
		now = now.Add(time.Minute)
	}
}

// TestARootOfASlowProcessHasOneTurnPerRound uses a process that confirms each grant late, so that
// its requests are out of line between its turns.
func TestARootOfASlowProcessHasOneTurnPerRound(t *testing.T) {
	now, a, quick := pair(t, 1)
	require.NoError(t, a.SetLimits(bgagent.Limits{Default: 1, Fair: true}))
	a.Admit(now, "slow")
	slow := NewMember("slow", 3*time.Second)
	slow.Join(1)
	for range 4 { // old requests of one root
		slow.Request(now, Op{Model: "m", Root: "R", Queued: now.Add(-time.Hour)}, false)
	}
	exchange(t, now, a, slow)
	require.Len(t, slow.News(), 1)
	for _, root := range []string{"S", "T"} {
		quick.Request(now, Op{Model: "m", Root: root, Queued: now}, false)
	}
	exchange(t, now, a, quick)
	var turns []string
	for id := uint64(1); len(turns) < 4; {
		now = now.Add(100 * time.Millisecond)
		a.Unreachable("slow")
		exchange(t, now, a, slow) // the process is only slow, and confirms its grant now
		if id > 0 {
			slow.Release(id)
			id = 0
		}
		exchange(t, now, a, slow)
		exchange(t, now, a, quick)
		exchange(t, now, a, slow)
		for _, n := range quick.News() {
			turns = append(turns, "quick")
			quick.Release(n.ID)
			exchange(t, now, a, quick)
			exchange(t, now, a, slow)
		}
		for _, n := range slow.News() {
			turns = append(turns, "slow")
			id = n.ID
		}
	}
	require.Equal(t, []string{"quick", "quick", "slow", "slow"}, turns)
}
