package embedded_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/stretchr/testify/require"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/inproc"
	bgnats "github.com/bgagent/bgagent/nats"
)

func TestATakeOverThatFailsIsNotRepeatedSoon(t *testing.T) {
	s := listening(t, func(*server.Options) {})
	var mu sync.Mutex
	tries := map[string]int{}
	of := func(name string) int {
		mu.Lock()
		defer mu.Unlock()
		return tries[name]
	}
	by := joined(t, s.URL(), bgnats.ClusterOptions{Process: "by", Home: "home"})
	require.NoError(t, by.TakeOver(func(p bgnats.Process, store *bgnats.Store) (*bgagent.BackgroundManager, error) {
		mu.Lock()
		tries[p.Name]++
		mu.Unlock()
		m, err := bgagent.New(inproc.New(map[string]inproc.Agent{"slow": waits}), bgagent.Config{Slots: by.Slots, Store: store, Wake: bgagent.WakeNever})
		if err != nil {
			return nil, err
		}
		return nil, errors.Join(errors.New("the host cannot use the manager"), m.Suspend(context.Background()))
	}))
	// Each process starts after the first attempt to take over the tasks of the previous
	// process. An attempt for a later process shows that the earlier processes have been
	// checked again.
	for _, name := range []string{"x", "y", "z"} {
		c := joined(t, s.URL(), bgnats.ClusterOptions{Process: name, Home: "home", TakeOverSuspended: time.Millisecond})
		m := managerOf(t, c, map[string]inproc.Agent{"slow": waits})
		_, err := m.Launch(t.Context(), bgagent.Caller{Session: "s"}, bgagent.LaunchInput{Agent: "slow", Prompt: "wait"})
		require.NoError(t, err)
		require.NoError(t, m.Suspend(t.Context()))
		until(t, func() bool { return of(name) > 0 })
	}
	require.Equal(t, 1, of("x"))
	require.Equal(t, 1, of("y"))
}
