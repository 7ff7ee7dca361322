package embedded_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bgagent/bgagent"
	bgnats "github.com/bgagent/bgagent/nats"
)

// TestOnlyOneSlotWaitsForAProcessThatCannotBeReached cuts off a process that is first in line. The other
// processes cannot distinguish it from a dead process. The lease is too long to expire during the test.
func TestOnlyOneSlotWaitsForAProcessThatCannotBeReached(t *testing.T) {
	server := startServer(t)
	o := bgnats.SlotOptions{Limits: bgagent.Limits{Default: 2}, Lease: time.Hour}
	a, _ := joins(t, server, o)
	until(t, a.IsAllocator)
	b, line := joins(t, server, o)
	waiting := func(n int) {
		t.Helper()
		until(t, func() bool {
			p := a.Pools()
			return len(p) == 1 && p[0].InUse == 2 && p[0].Waiting == n
		})
	}
	ask := func(s *bgnats.Slots) (*holder, bgagent.SlotClaim) {
		h := newHolder()
		return h, s.Request(bgagent.SlotRequest{Model: "m"}, h)
	}
	var held []bgagent.SlotClaim
	for range 2 {
		h, k := ask(a)
		within(t, h.granted)
		held = append(held, k)
	}
	var cut []*holder
	var claims []bgagent.SlotClaim
	for n := range 3 {
		h, k := ask(b)
		cut, claims = append(cut, h), append(claims, k)
		waiting(n + 1)
	}
	next, k := ask(a)
	waiting(4)

	connected := server.Clients()
	line.set(true)
	until(t, func() bool { return server.Clients() < connected })
	held[0].Release()
	waiting(1)
	held[1].Release()
	within(t, next.granted)

	line.set(false)
	cut3, _ := ask(b)
	within(t, cut[0].granted)
	waiting(3)
	k.Release()
	within(t, cut[1].granted)
	require.Empty(t, cut[2].granted)
	claims[0].Release()
	within(t, cut[2].granted)
	require.Empty(t, cut3.granted, "the order is unchanged")
}
