package embedded_test

import (
	"context"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	bgnats "github.com/bgagent/bgagent/nats"
)

func TestAProcessWhoseConnectionIsCutLeavesInLimitedTime(t *testing.T) {
	for name, allocator := range map[string]string{"the allocator": "x", "another process": "y"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := listening(t, func(*server.Options) {})
			l := &line{server: s}
			join := func(process string) *bgnats.Cluster {
				o := bgnats.ClusterOptions{Process: process}
				if process == "x" {
					o.Connect = []nats.Option{nats.InProcessServer(l), nats.ReconnectWait(10 * time.Millisecond)}
				}
				return joined(t, s.URL(), o)
			}
			first := join(allocator)
			until(t, first.Slots.IsAllocator)
			x := first
			if allocator != "x" {
				x = join("x")
			}

			l.set(true)
			closed := make(chan error, 1)
			began := time.Now()
			go func() { closed <- x.Close(context.Background()) }()
			select {
			case err := <-closed:
				require.ErrorIs(t, err, context.DeadlineExceeded)
				require.ErrorContains(t, err, "bgnats: close slots: the allocator has not answered within 10s; the connection to the servers is RECONNECTING")
				require.Less(t, time.Since(began), 20*time.Second)
			case <-time.After(time.Minute):
				l.set(false) // repairs the connection, because the cleanup needs it
				<-closed
				require.Fail(t, "Close hangs")
			}
			require.NoError(t, x.Close(context.Background()), "later calls do nothing")
		})
	}
}
