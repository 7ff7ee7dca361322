package embedded_test

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/inproc"
	bgnats "github.com/bgagent/bgagent/nats"
)

// sharer stands for a manager that shares cool-downs.
type sharer struct {
	heard chan bgagent.CoolDown
	tell  func(bgagent.CoolDown)
	stop  func()
}

func shares(s *bgnats.Slots) *sharer {
	x := &sharer{heard: make(chan bgagent.CoolDown, 10)}
	x.tell, x.stop = s.ShareCoolDowns(func(d bgagent.CoolDown) { x.heard <- d })
	return x
}

// TestCoolDownsReachAllProcesses checks that a cool-down reaches the other managers in the process, the
// managers in other processes, and the managers that join before it ends. It must not reach the manager
// that reported it.
func TestCoolDownsReachAllProcesses(t *testing.T) {
	shorterLease(t)
	server := startServer(t)
	a, _ := joins(t, server, bgnats.SlotOptions{})
	b, _ := joins(t, server, bgnats.SlotOptions{})
	first, second, third := shares(a), shares(a), shares(b)
	sent := bgagent.CoolDown{Model: "openai/gpt", Agent: "explore", Provider: true, For: time.Hour, RetryIn: 50 * time.Minute}
	same := func(x bgagent.CoolDown) {
		t.Helper()
		require.WithinRange(t, time.Now().Add(x.For), time.Now().Add(sent.For-time.Minute), time.Now().Add(sent.For))
		require.WithinRange(t, time.Now().Add(x.RetryIn), time.Now().Add(sent.RetryIn-time.Minute), time.Now().Add(sent.RetryIn))
		x.For, x.RetryIn = sent.For, sent.RetryIn
		require.Equal(t, sent, x)
	}
	first.tell(sent)
	same(within(t, second.heard))
	same(within(t, third.heard))

	c, _ := joins(t, server, bgnats.SlotOptions{})
	fourth := shares(c)
	same(within(t, fourth.heard))
	fifth := shares(a) // another manager in the process whose manager reported the cool-down
	same(within(t, fifth.heard))
	for range 3 {
		same(within(t, shares(c).heard))
	}
	require.LessOrEqual(t, len(third.heard), 1, "a cool-down is repeated only to the manager that joins; the one that joined first may hear it twice")

	second.stop()
	first.tell(bgagent.CoolDown{Model: "m", For: time.Nanosecond})
	for within(t, fifth.heard).Model != "m" { // skip the cool-downs that the other processes have repeated to the fifth manager
	}
	require.Empty(t, first.heard, "a manager must not hear its own report")
	for len(second.heard) > 0 {
		require.NotEqual(t, "m", (<-second.heard).Model, "a manager that has stopped must not hear anything")
	}
	sixth := shares(a)
	for range 3 { // one from its own process, and one from each of the two other processes
		same(within(t, sixth.heard))
	}
	require.Empty(t, sixth.heard, "the cool-down of m has ended")
}

// TestACoolDownOutlivesTheProcessThatReportedIt checks that a new process receives a cool-down even if the
// process that reported it has ended. The other processes repeat it.
func TestACoolDownOutlivesTheProcessThatReportedIt(t *testing.T) {
	shorterLease(t)
	server := startServer(t)
	a, _ := joins(t, server, bgnats.SlotOptions{})
	b, _ := joins(t, server, bgnats.SlotOptions{})
	reports, hears := shares(a), shares(b)
	reports.tell(bgagent.CoolDown{Model: "m", For: time.Hour})
	within(t, hears.heard)
	reports.stop()
	require.NoError(t, a.Close(t.Context()))
	c, _ := joins(t, server, bgnats.SlotOptions{})
	d := within(t, shares(c).heard)
	require.Equal(t, "m", d.Model)
	require.InDelta(t, time.Hour, d.For, float64(time.Minute))
}

// TestACoolDownThatArrivesLateIsShorter sends messages with old time stamps, like those that a process
// receives after it was frozen.
func TestACoolDownThatArrivesLateIsShorter(t *testing.T) {
	shorterLease(t)
	server := startServer(t)
	a, _ := joins(t, server, bgnats.SlotOptions{})
	nc, err := nats.Connect("", nats.InProcessServer(server))
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	joined, err := nc.SubscribeSync("bgslots.agents.cool")
	require.NoError(t, err)
	require.NoError(t, nc.Flush())
	x := shares(a)
	_, err = joined.NextMsg(30 * time.Second) // when the server has this message from a, it also has the subscription that a made earlier
	require.NoError(t, err)
	send := func(age, lasts time.Duration) {
		body, err := json.Marshal(map[string]any{"from": "another", "sent": time.Now().Add(-age), "cool": []any{map[string]any{"model": "m", "for": lasts, "retry_in": time.Minute}}})
		require.NoError(t, err)
		require.NoError(t, nc.Publish("bgslots.agents.cool", body))
	}
	require.NoError(t, nc.Publish("bgslots.agents.cool", []byte("not JSON")))
	send(time.Hour, 3*time.Hour)
	d := within(t, x.heard)
	require.InDelta(t, 2*time.Hour, d.For, float64(time.Minute))
	require.Zero(t, d.RetryIn)
	send(-time.Hour, 3*time.Hour) // the time stamp is in the future, because the sender's clock is fast
	require.Equal(t, 3*time.Hour, within(t, x.heard).For)
}

// TestARefusedTurnHoldsBackTheTasksOfAnotherProcess uses two managers, which stand for two processes.
func TestARefusedTurnHoldsBackTheTasksOfAnotherProcess(t *testing.T) {
	shorterLease(t)
	server := startServer(t)
	var managers []*bgagent.BackgroundManager
	for range 2 {
		s, _ := joins(t, server, bgnats.SlotOptions{})
		m, err := bgagent.New(inproc.New(map[string]inproc.Agent{"worker": func(context.Context, *inproc.Turn) (string, error) {
			return "", &bgagent.ProviderError{Kind: bgagent.ProviderRateLimited, RetryAt: time.Now().Add(time.Hour), Next: bgagent.NextRepeat}
		}}), bgagent.Config{Slots: s})
		require.NoError(t, err)
		t.Cleanup(func() { _ = m.Close(context.Background()) }) // returns an error, because the root session was not notified of the end
		managers = append(managers, m)
	}
	in := bgagent.LaunchInput{Agent: "worker", Prompt: "p", Model: "openai/gpt"}
	_, err := managers[0].Launch(t.Context(), bgagent.Caller{Session: "root"}, in)
	require.NoError(t, err)
	until(t, func() bool { return managers[1].Concurrency().Stats("openai/gpt").Refusals == 1 })
	task, err := managers[1].Launch(t.Context(), bgagent.Caller{Session: "root"}, in)
	require.NoError(t, err)
	task, err = managers[1].Get(task.ID)
	require.NoError(t, err)
	require.Equal(t, bgagent.Pending, task.Status)
	require.True(t, task.Queue.Pool.CoolUntil.After(time.Now().Add(50*time.Minute)))
}
