package embedded_test

import (
	"context"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/bgagent/bgagent"
	bgnats "github.com/bgagent/bgagent/nats"
)

func TestAllRecordsAreReadIfTheAnswerToTheOpeningWriteIsLost(t *testing.T) {
	server := start(t)
	for how, name := range map[verdict]string{cutBefore: "the write", cutAfter: "the answer"} {
		t.Run(name, func(t *testing.T) {
			c := newStores(t, server)
			first, _ := c.store(bgnats.StoreOptions{})
			open(t, first, 1)
			write(t, first, &bgagent.StoreBatch{Number: 1, Records: []bgagent.StoreRecord{task("a"), task("b")}})
			require.NoError(t, first.Close())

			second, p := c.store(bgnats.StoreOptions{})
			p.loseAnswer(how)
			contents := open(t, second, 2)
			require.Empty(t, contents.Damage)
			require.Equal(t, []bgagent.StoreRecord{task("a"), task("b")}, contents.Records)
			require.Equal(t, uint64(1), contents.Batch)
		})
	}
}

func TestAStoreIsOpenedOnAConnectionOnWhichFlushHangs(t *testing.T) {
	c := newStores(t, start(t))
	s, p := c.store(bgnats.StoreOptions{})
	heal := p.part()
	require.Eventually(t, func() bool { return p.nc.Status() == nats.RECONNECTING }, time.Minute, time.Millisecond)
	flushed := make(chan error, 1)
	go func() { flushed <- p.nc.Flush() }()
	require.Eventually(t, func() bool { n, _ := p.nc.Buffered(); return n > 0 }, time.Minute, time.Millisecond)
	sent := 0
	p.at(func(frame) verdict {
		if sent++; sent == 3 { // the first two messages connect, and the third one is sent by Flush
			return cutBefore
		}
		return pass
	})
	heal()
	require.NoError(t, <-flushed) // nats.go mistakes another answer for the answer to this call
	require.Eventually(t, func() bool { return p.nc.Status() == nats.CONNECTED }, time.Minute, time.Millisecond)

	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	_, err := s.Open(ctx, owner(1))
	require.NoError(t, err)
}
