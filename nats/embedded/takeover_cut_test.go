package embedded_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/bgagenttest"
	"github.com/bgagent/bgagent/inproc"
	bgnats "github.com/bgagent/bgagent/nats"
)

// The type "logged" is a starter that notes which process makes the calls that change a session.
type logged struct {
	bgagenttest.Starter
	process string
	calls   *calls
}

type calls struct {
	mu  sync.Mutex
	all []string
}

func (c *calls) add(words ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all = append(c.all, strings.Join(words, " "))
}

func (c *calls) list() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.all)
}

func (l logged) StartTurn(ctx context.Context, session string, p bgagent.Prompt) error {
	l.calls.add(l.process, "prompts")
	return l.Starter.StartTurn(ctx, session, p)
}

func (l logged) Abort(ctx context.Context, session string) error {
	l.calls.add(l.process, "aborts")
	return l.Starter.Abort(ctx, session)
}

// The process whose connection is cut is still alive, and can still reach the server where
// its sessions are.
func TestAProcessThatLosesItsConnectionLeavesItsSessionsBeforeTheyAreTakenOver(t *testing.T) {
	t.Parallel()
	shorterLease(t)
	s := listening(t, func(*server.Options) {})
	l := &line{server: s}
	begun := make(chan bool, 10)
	starter := bgagenttest.NewStarter(func(turn *bgagenttest.Turn) {
		begun <- true
		<-turn.Context().Done()
	})
	defer starter.Close()
	log := &calls{}
	manager := func(c *bgnats.Cluster, store *bgnats.Store, process string) (*bgagent.BackgroundManager, error) {
		return bgagent.New(logged{starter, process, log}, bgagent.Config{Slots: c.Slots, Store: store, Wake: bgagent.WakeNever, PollInterval: 100 * time.Millisecond, StoreTimeout: 5 * time.Second})
	}
	o := bgnats.ClusterOptions{Process: "x", Home: "server", Lease: memberLease, Store: bgnats.StoreOptions{Grace: time.Second}}
	o.Connect = []nats.Option{nats.InProcessServer(l), nats.ReconnectWait(10 * time.Millisecond)}
	x := joined(t, s.URL(), o)
	o.Process, o.Connect = "y", nil
	y := joined(t, s.URL(), o)
	mx, err := manager(x, x.Store, "x")
	require.NoError(t, err)
	defer mx.Close(context.Background())
	require.NoError(t, x.Serve(mx))
	took := make(chan *bgagent.BackgroundManager, 1)
	require.NoError(t, y.TakeOver(func(_ bgnats.Process, store *bgnats.Store) (*bgagent.BackgroundManager, error) {
		log.add("y opens")
		m, err := manager(y, store, "y")
		if err == nil {
			took <- m
		}
		return m, err
	}))
	task, err := mx.Launch(t.Context(), bgagent.Caller{Session: "s"}, bgagent.LaunchInput{Agent: "a", Prompt: "work"})
	require.NoError(t, err)
	within(t, begun)

	l.set(true)
	my := within(t, took)
	defer l.set(false)
	until(t, func() bool { done, err := my.Get(task.ID); return err == nil && done.Status.Terminal() })
	l.set(false)
	until(t, func() bool {
		_, err = mx.Launch(t.Context(), bgagent.Caller{Session: "s"}, bgagent.LaunchInput{Agent: "a", Prompt: "late"})
		require.Error(t, err)
		return errors.Is(err, bgagent.ErrStoreLost)
	})
	done, err := my.Wait(t.Context(), bgagent.Caller{}, bgagent.WaitAll, task.ID)
	require.NoError(t, err)
	require.Equal(t, bgagent.CauseAgentWindow, done[0].Cause, "x has stopped the turn")
	require.Equal(t, []string{"x prompts", "x aborts", "y opens"}, log.list()[:3])
	require.NotContains(t, strings.Join(log.list()[3:], ", "), "x ")
	require.Empty(t, starter.Violations())
}

func TestOneOfTheProcessesThatCanTakeOverTasksGetsThem(t *testing.T) {
	t.Parallel()
	s := listening(t, func(*server.Options) {})
	agents := map[string]inproc.Agent{"slow": func(ctx context.Context, _ *inproc.Turn) (string, error) { <-ctx.Done(); return "", ctx.Err() }}
	client := func() *inproc.Client {
		c := inproc.New(agents)
		c.Restore = func(context.Context, bgagent.SessionRestore) (inproc.Restored, error) {
			return inproc.Restored{Prompt: bgagent.PromptMissing}, nil
		}
		return c
	}
	o := bgnats.ClusterOptions{Process: "x", Home: "home", TakeOverSuspended: time.Millisecond}
	x := joined(t, s.URL(), o)
	m := managerOf(t, x, agents)
	task, err := m.Launch(t.Context(), bgagent.Caller{Session: "s"}, bgagent.LaunchInput{Agent: "slow", Prompt: "wait"})
	require.NoError(t, err)
	var all sync.WaitGroup
	all.Add(3)
	results := make(chan error, 10)
	for _, name := range []string{"a", "b", "c"} {
		o := o
		o.Process, o.Warn = name, func(err error) { results <- err }
		c := joined(t, s.URL(), o)
		require.NoError(t, c.TakeOver(func(p bgnats.Process, store *bgnats.Store) (*bgagent.BackgroundManager, error) {
			all.Done() // panics if the function "manage" is called more often than expected
			all.Wait() // waits until all processes have found the store without an owner
			m, err := bgagent.New(client(), bgagent.Config{Slots: c.Slots, Store: store, Wake: bgagent.WakeNever})
			results <- err
			return m, err
		}))
	}
	require.NoError(t, m.Suspend(t.Context()))
	refused := 0
	for range 3 {
		if err := within(t, results); err != nil {
			var owned *bgagent.StoreOwnedError
			require.ErrorAs(t, err, &owned)
			refused++
		}
	}
	require.Equal(t, 2, refused)
	reader := joined(t, s.URL(), bgnats.ClusterOptions{Process: "reader"})
	got, by, err := reader.Read(t.Context(), task.ID)
	require.NoError(t, err)
	require.False(t, got.Status.Terminal())
	require.NotEmpty(t, by.TakenBy)
	require.Empty(t, results, "no process warns")
}
