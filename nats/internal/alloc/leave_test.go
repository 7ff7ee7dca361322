package alloc

import (
	"testing"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

// leaver returns a member that has a slot and a place in line. The member leaves one second after its last
// message was answered. Another member waits for the slot.
func leaver(t *testing.T) (now time.Time, a *Allocator, m *Member, held uint64, other *Member) {
	now, a, m = pair(t, 1)
	held = m.Request(now, Op{Model: "m"}, false)
	waits := m.Request(now, Op{Model: "m"}, false)
	exchange(t, now, a, m)
	require.Equal(t, []News{{ID: held}}, m.News())
	other = NewMember("b", 3*time.Second)
	other.Join(1)
	a.Admit(now, "b")
	other.Request(now, Op{Model: "m"}, false)
	exchange(t, now, a, other)
	answered := now
	now = now.Add(time.Second)
	m.Leave(now, bgagent.ErrClosed)
	require.ElementsMatch(t, []News{
		{ID: held, Lost: true, Until: answered.Add(3 * time.Second), Why: bgagent.ErrClosed},
		{ID: waits, Lost: true, Until: answered.Add(3 * time.Second), Why: bgagent.ErrClosed},
	}, m.News())
	require.False(t, m.MayBegin(now, held))
	m.Release(waits) // holders call Release after a loss; the member has already forgotten the request
	return now, a, m, held, other
}

func TestAProcessThatLeavesKeepsItsSlotUntilItIsReleased(t *testing.T) {
	now, a, m, held, other := leaver(t)
	require.False(t, m.HasLeft())
	exchange(t, now, a, m)
	require.True(t, m.HasLeft())
	exchange(t, now, a, other)
	require.Empty(t, other.News(), "the work of the leaving process may still be running")
	require.Equal(t, []bgagent.PoolStats{{Name: "default m", Limit: 1, InUse: 1, Waiting: 1}}, a.Pools())
	require.Equal(t, []string{"a", "b"}, a.Members())
	m.Release(held)
	exchange(t, now, a, m)
	require.Equal(t, []string{"b"}, a.Members())
	require.True(t, a.Tick(now))
	d := a.Tell(now)["b"]
	other.Told(now, &d)
	require.Len(t, other.News(), 1)
}

func TestTheSlotOfAProcessThatHasLeftIsFreeWhenItsLeaseIsOver(t *testing.T) {
	for name, delivered := range map[string]bool{"the process said that it leaves": true, "its message was lost": false} {
		t.Run(name, func(t *testing.T) {
			now, a, m, _, other := leaver(t)
			until := now.Add(2 * time.Second) // the time that was reported to the holders
			if delivered {
				exchange(t, now, a, m)
				until = now.Add(3 * time.Second)
			}
			exchange(t, now, a, other)
			a.Tick(until)
			exchange(t, until, a, other)
			require.Empty(t, other.News())
			a.Tick(until.Add(1))
			exchange(t, until.Add(1), a, other)
			d := a.Tell(until.Add(1))["b"]
			other.Told(until.Add(1), &d)
			require.Len(t, other.News(), 1)
		})
	}
}

func TestAProcessThatLeavesWithoutASlotIsForgottenAtOnce(t *testing.T) {
	now, a, m := pair(t, 1)
	id := m.Request(now, Op{Model: "m"}, false)
	up, _ := m.Next(now)
	_, ok := a.Handle(now, &up) // the allocator grants the slot, but the answer is lost
	require.True(t, ok)
	m.Leave(now, bgagent.ErrClosed)
	require.Equal(t, []News{{ID: id, Lost: true, Until: now.Add(3 * time.Second), Why: bgagent.ErrClosed}}, m.News())
	exchange(t, now, a, m)
	require.True(t, m.HasLeft())
	require.Empty(t, a.Pools())
	require.Empty(t, a.Members())
	_, ok = m.Next(now.Add(time.Minute))
	require.False(t, ok, "a heartbeat would make the process known again")
}

func TestAProcessThatLeavesBeforeItWasAnsweredHasNoTimeLeft(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	m := NewMember("a", 3*time.Second)
	id := m.Request(now, Op{Model: "m"}, true)
	m.Leave(now, bgagent.ErrClosed)
	require.Equal(t, []News{{ID: id}, {ID: id, Lost: true, Until: now, Why: bgagent.ErrClosed}}, m.News())
}

// A copy of a process's first message arrives late, after the process has been forgotten and admitted again.
func TestAnOldFirstMessageDoesNotMakeAProcessDeaf(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	a, err := NewAllocator(1, bgagent.Limits{Default: 1}, 3*time.Second, now, nil)
	require.NoError(t, err)
	a.Keep(now, time.Hour)
	a.Admit(now, "a")
	m := NewMember("a", 3*time.Second)
	m.Join(1)
	first, _ := m.Next(now)
	exchange(t, now, a, m)
	held := m.Request(now, Op{Model: "m"}, false)
	exchange(t, now, a, m)
	m.Release(held)
	exchange(t, now, a, m)
	m.News()
	now = now.Add(3*time.Second + 1)
	a.Tick(now)
	a.Admit(now, "a")
	_, ok := a.Handle(now, &first)
	require.True(t, ok)
	id := m.Request(now, Op{Model: "m"}, false)
	exchange(t, now, a, m)
	require.Equal(t, []News{{ID: id}}, m.News())
}
