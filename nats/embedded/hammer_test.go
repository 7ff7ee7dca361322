package embedded_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bgagent/bgagent/internal/hammer"
	"github.com/bgagent/bgagent/internal/tempdir"
	bgnats "github.com/bgagent/bgagent/nats"
	"github.com/bgagent/bgagent/storetest"
)

func TestHammerOnJetStream(t *testing.T) {
	server := startIn(t, tempdir.InMemory(t)) // because the server does not die, it needs no real disk
	keepAll := bgnats.StoreOptions{KeepFor: -1, KeepTasks: -1, KeepBytes: -1}
	hammer.Run(t, hammer.Options{Crashes: true, Package: "./nats/embedded", Content: func(tb storetest.TB) storetest.Content {
		c := newStores(tb, server)
		tb.Cleanup(func() { // otherwise, the server would keep the streams of all runs
			js, err := c.admin.JetStream()
			require.NoError(t, err)
			require.NoError(t, js.DeleteStream("BGAGENT_"+c.name))
		})
		return contentOf(c, keepAll)
	}})
}
