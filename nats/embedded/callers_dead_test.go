package embedded_test

import (
	"net"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/inproc"
	bgnats "github.com/bgagent/bgagent/nats"
)

func TestAConfirmationAppliesUntilTheProcessStartsAgain(t *testing.T) {
	s := listening(t, func(*server.Options) {})
	one := newCallers(t, s.URL(), bgnats.ClusterOptions{Process: "one"}, same())
	answered := confirming(t, s.URL())
	two := newCallers(t, s.URL(), bgnats.ClusterOptions{Process: "two"}, map[string][]string{"alice": {"the token of alice"}, "bob": {"another token of bob"}, "carol": {"the token of carol"}})
	answered()
	ids := map[string]string{}
	for _, caller := range []string{"alice", "bob", "carol"} {
		ids[caller] = one.task(t, caller, "slow", "wait").ID
	}
	require.NoError(t, one.m.Suspend(t.Context()))
	for _, caller := range []string{"alice", "carol"} {
		got, err := two.Read(t.Context(), caller, ids[caller], 0)
		require.NoError(t, err)
		require.ErrorIs(t, got.Err, bgnats.ErrProcessDead)
		all, err := two.Tasks(t.Context(), caller, 5)
		require.NoError(t, err)
		require.Len(t, all, 1)
		_, err = two.Cancel(t.Context(), caller, ids[caller])
		require.ErrorIs(t, err, bgnats.ErrProcessDead)
	}
	two.refuses(t, "bob", ids["bob"], "q")
	two.refuses(t, "alice", ids["carol"], "q")

	again := newCallers(t, s.URL(), bgnats.ClusterOptions{Process: "one"}, map[string][]string{"alice": {"a new token of alice"}, "carol": {"the token of carol"}})
	got, err := two.Read(t.Context(), "carol", ids["carol"], 0)
	require.NoError(t, err)
	require.NoError(t, got.Err)
	require.NoError(t, again.m.Suspend(t.Context()))
	got, err = two.Read(t.Context(), "carol", ids["carol"], 0)
	require.NoError(t, err)
	require.ErrorIs(t, got.Err, bgnats.ErrProcessDead)
	two.refuses(t, "alice", ids["alice"], "q")
	all, err := two.Tasks(t.Context(), "alice", 5)
	require.NoError(t, err)
	require.Empty(t, all, "the process has been started with another token")
}

// takenOver suspends a process, and lets another process take over its tasks. It returns the tasks' ids by
// caller name. Before the process is suspended, it confirms to the process "seen" that the name alice means
// the same caller in both.
func takenOver(t *testing.T, url string, by *bgnats.Cluster, seen callers) map[string]string {
	one := newCallers(t, url, bgnats.ClusterOptions{Process: "one", Home: "home", TakeOverSuspended: time.Millisecond}, same())
	ids := map[string]string{}
	for _, caller := range []string{"alice", "bob"} {
		ids[caller] = one.task(t, caller, "slow", "wait").ID
	}
	_, err := seen.Read(t.Context(), "alice", ids["alice"], 0) // makes the process confirm the caller
	require.NoError(t, err)
	require.NoError(t, one.m.Suspend(t.Context()))
	require.NoError(t, by.TakeOver(func(_ bgnats.Process, store *bgnats.Store) (*bgagent.BackgroundManager, error) {
		return bgagent.New(inproc.New(map[string]inproc.Agent{"slow": waits}), bgagent.Config{Slots: by.Slots, Store: store, Wake: bgagent.WakeNever})
	}))
	return ids
}

func TestATakeOverGivesNoCallerTheTasksOfAnother(t *testing.T) {
	s := listening(t, func(*server.Options) {})
	others := map[string][]string{"alice": {"the token of alice"}, "bob": {"another token of bob"}}
	two := newCallers(t, s.URL(), bgnats.ClusterOptions{Process: "two", Home: "home"}, others)
	three := newCallers(t, s.URL(), bgnats.ClusterOptions{Process: "three"}, others)
	ids := takenOver(t, s.URL(), two.cluster, two)
	for _, c := range []callers{three, two} {
		until(t, func() bool {
			got, err := c.Read(t.Context(), "alice", ids["alice"], 0)
			return err == nil && got.Err == nil && got.Process.TakenBy == "two"
		})
		c.refuses(t, "bob", ids["bob"], "q")
		all, err := c.Tasks(t.Context(), "bob", 5)
		require.NoError(t, err)
		require.Empty(t, all)
	}
}

func TestACallerReadsItsTasksIfTheProcessThatHasThemServesNoCallers(t *testing.T) {
	s := listening(t, func(*server.Options) {})
	two := joined(t, s.URL(), bgnats.ClusterOptions{Process: "two", Home: "home"})
	three := newCallers(t, s.URL(), bgnats.ClusterOptions{Process: "three"}, map[string][]string{"alice": {"the token of alice"}, "bob": {"another token of bob"}})
	ids := takenOver(t, s.URL(), two, three)
	until(t, func() bool {
		got, err := three.Read(t.Context(), "alice", ids["alice"], 0)
		return err == nil && got.Process.TakenBy == "two" && got.Process.Lives
	})
	got, err := three.Read(t.Context(), "alice", ids["alice"], 0)
	require.NoError(t, err)
	require.ErrorIs(t, got.Err, bgnats.ErrNotServing)
	all, err := three.Tasks(t.Context(), "alice", 5)
	require.NoError(t, err)
	require.Len(t, all, 1)
	three.refuses(t, "bob", ids["bob"], "q")
}

// An icy line delivers nothing while it is frozen. Its connections stay open.
type icy struct {
	server nats.InProcessConnProvider
	mu     sync.RWMutex // locked while the line is frozen
}

func (l *icy) InProcessConn() (net.Conn, error) {
	conn, err := l.server.InProcessConn()
	return icyConn{conn, l}, err
}

type icyConn struct {
	net.Conn
	line *icy
}

func (c icyConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.line.mu.RLock()
	defer c.line.mu.RUnlock()
	return n, err
}

func TestAFrozenProcessDoesNotDelayTheStartOfAnother(t *testing.T) {
	t.Parallel()
	s := listening(t, func(*server.Options) {})
	l := &icy{server: s}
	one := newCallers(t, s.URL(), bgnats.ClusterOptions{Process: "one", Connect: []nats.Option{nats.InProcessServer(l)}}, same())
	id := one.task(t, "alice", "slow", "wait").ID
	two := joined(t, s.URL(), bgnats.ClusterOptions{Process: "two"})
	m := managerOf(t, two, map[string]inproc.Agent{"slow": waits})
	require.NoError(t, two.Serve(m))

	l.mu.Lock()
	began := time.Now()
	k, err := two.ServeCallers(same())
	took := time.Since(began)
	if err == nil {
		_, err = k.Read(t.Context(), "alice", id, 0)
	}
	l.mu.Unlock()
	require.Less(t, took, time.Second)
	require.ErrorIs(t, err, bgagent.ErrUnknownTask, "the process has not confirmed the caller")
	until(t, func() bool {
		got, err := k.Read(t.Context(), "alice", id, 0)
		return err == nil && got.Err == nil
	})
}
