package embedded_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bgagent/bgagent"
	bgnats "github.com/bgagent/bgagent/nats"
	"github.com/bgagent/bgagent/nats/embedded"
)

// cutAtMessage cuts the connection at the message with the given number. It returns a function that reports
// whether the process has sent that message.
func (p *process) cutAtMessage(n int, how verdict) (cut func() bool) {
	sent, done := 0, false
	p.at(func(frame) verdict {
		if sent++; sent == n {
			done = true
			return how
		}
		return pass
	})
	return func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return done
	}
}

// A process that starts while a server restarts must not fail. Each run of this test cuts the connection
// once, at a different message.
func TestACutConnectionOnlyDelaysTheStart(t *testing.T) {
	t.Parallel()
	shorterLease(t)
	server := start(t)
	for how, name := range map[verdict]string{cutBefore: "before", cutAfter: "after"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cuts := 0
			for n := 1; startsDespiteACut(t, server, n, how); n++ {
				cuts++
			}
			t.Log(cuts, "messages")
			require.Greater(t, cuts, 10)
		})
	}
}

// startsDespiteACut creates slots and opens a store with records, and reports whether the connection was cut.
func startsDespiteACut(t *testing.T, server *embedded.Server, n int, how verdict) bool {
	t.Helper()
	c := newStores(t, server)
	first, _ := c.store(bgnats.StoreOptions{})
	open(t, first, 1)
	long := task("long")
	long.Data = []byte(fmt.Sprintf("%q", text(200<<10)))
	write(t, first, &bgagent.StoreBatch{Number: 1, Records: []bgagent.StoreRecord{task("a"), long}})
	require.NoError(t, first.Close())

	s, p := c.store(bgnats.StoreOptions{})
	was := p.cutAtMessage(n, how)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	slots, err := bgnats.NewSlots(ctx, p.nc, c.name, bgnats.SlotOptions{Limits: bgagent.Limits{Default: 1}, Lease: time.Second})
	require.NoError(t, err, "cut %d", n)
	contents, err := s.Open(ctx, owner(2))
	require.NoError(t, err, "cut %d", n)
	require.Empty(t, contents.Damage)
	require.Equal(t, []bgagent.StoreRecord{task("a"), long}, contents.Records)
	contents, err = s.Reopen(ctx)
	require.NoError(t, err, "cut %d", n)
	require.Len(t, contents.Records, 2)
	cut := was()
	p.at(nil)
	require.NoError(t, slots.SetLimits(ctx, bgagent.Limits{Default: 2}))
	require.NoError(t, slots.Close(ctx))
	require.NoError(t, s.Close())
	return cut
}
