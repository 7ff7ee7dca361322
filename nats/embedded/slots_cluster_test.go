package embedded_test

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/bgagent/bgagent"
	bgnats "github.com/bgagent/bgagent/nats"
)

// TestTheLossOfTheLeadingServerStopsNothingThatRuns kills the server that leads the stream while three
// processes hold slots. Running work must not stop, and it must become possible again to start new
// work.
func TestTheLossOfTheLeadingServerStopsNothingThatRuns(t *testing.T) {
	c := startCluster(t)
	o := bgnats.SlotOptions{Limits: bgagent.Limits{Default: 2}, Lease: 30 * time.Second, Replicas: 3}
	var all []*bgnats.Slots
	for range 3 {
		s, _ := joins(t, c, o)
		all = append(all, s)
	}
	var held []*holder
	var claims []bgagent.SlotClaim
	for i := range 2 {
		h := newHolder()
		claims = append(claims, all[i].Request(bgagent.SlotRequest{Model: "m"}, h))
		within(t, h.granted)
		held = append(held, h)
	}
	next := newHolder()
	all[2].Request(bgagent.SlotRequest{Model: "m"}, next)
	nc, err := nats.Connect("", nats.InProcessServer(c))
	require.NoError(t, err)
	defer nc.Close()
	js, err := jetstream.New(nc)
	require.NoError(t, err)
	stream, err := js.Stream(t.Context(), "BGSLOTS_agents")
	require.NoError(t, err)
	lost := int(stream.CachedInfo().Cluster.Leader[1] - '0')
	require.NoError(t, c.servers[lost].Close())
	claims[0].Release()
	within(t, next.granted)
	require.Empty(t, held[1].lost, "running work is not stopped")
	require.True(t, claims[1].MayBegin())
}
