package embedded_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/inproc"
	bgnats "github.com/bgagent/bgagent/nats"
)

// callers is a process of a cluster that serves callers.
type callers struct {
	*bgnats.Callers
	cluster *bgnats.Cluster
	m       *bgagent.BackgroundManager
}

func newCallers(t *testing.T, url string, o bgnats.ClusterOptions, secrets map[string][]string) callers {
	t.Helper()
	c := joined(t, url, o)
	m, err := bgagent.New(inproc.New(map[string]inproc.Agent{
		"slow": waits,
		"says": func(_ context.Context, turn *inproc.Turn) (string, error) { return "said " + turn.Prompt.Text, nil },
		"asks": func(ctx context.Context, turn *inproc.Turn) (string, error) {
			q := bgagent.Question{Key: "q", Kind: bgagent.QuestionChoice, Title: "Which branch?", Options: []string{"main", "next"}}
			if turn.Prompt.Text == "permission" {
				q.Kind, q.Options = bgagent.QuestionPermission, []string{"allow", "deny"}
			}
			return turn.Ask(ctx, q)
		},
	}), bgagent.Config{Slots: c.Slots, Store: c.Store, Wake: bgagent.WakeNever, Ask: true})
	require.NoError(t, err)
	t.Cleanup(func() { _ = m.Close(context.Background()) })
	require.NoError(t, c.Serve(m))
	k, err := c.ServeCallers(secrets)
	require.NoError(t, err)
	return callers{k, c, m}
}

// confirming returns a function that waits until one process has confirmed to another process that it knows
// a caller.
func confirming(t *testing.T, url string) (answered func()) {
	t.Helper()
	nc, err := nats.Connect(url)
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	sub, err := nc.SubscribeSync(">")
	require.NoError(t, err)
	require.NoError(t, nc.Flush())
	return func() {
		t.Helper()
		asked := map[string]bool{}
		for {
			msg, err := sub.NextMsg(time.Minute)
			require.NoError(t, err)
			if asked[msg.Subject] {
				return
			}
			if strings.HasSuffix(msg.Subject, ".callers") {
				asked[msg.Reply] = true
			}
		}
	}
}

// waits is an agent that works until its turn is ended.
func waits(ctx context.Context, _ *inproc.Turn) (string, error) { <-ctx.Done(); return "", ctx.Err() }

// task launches a task for the caller.
func (c callers) task(t *testing.T, caller, agent, prompt string) bgagent.Task {
	t.Helper()
	task, err := c.m.Launch(t.Context(), bgagent.Caller{Session: caller}, bgagent.LaunchInput{Agent: agent, Prompt: prompt, Metadata: map[string]string{"host": "only"}})
	require.NoError(t, err)
	return task
}

// The method "asks" launches a task that asks a question, and returns the question.
func (c callers) asks(t *testing.T, caller, prompt string) (task bgagent.Task, q bgagent.Question) {
	t.Helper()
	task = c.task(t, caller, "asks", prompt)
	until(t, func() bool {
		now, err := c.m.Get(task.ID)
		if err == nil && len(now.Questions) == 1 {
			q = now.Questions[0]
		}
		return q.Key != ""
	})
	return task, q
}

// The function "same" returns the secrets of three callers. The secrets are the same in every process.
func same() map[string][]string {
	return map[string][]string{"alice": {"the token of alice"}, "bob": {"the token of bob"}, "carol": {"the token of carol"}}
}

func TestACallerUsesItsTasksInAnotherProcess(t *testing.T) {
	s := listening(t, func(*server.Options) {})
	one := newCallers(t, s.URL(), bgnats.ClusterOptions{Process: "one"}, same())
	two := newCallers(t, s.URL(), bgnats.ClusterOptions{Process: "two"}, same())
	slow := one.task(t, "alice", "slow", "wait")
	said := one.task(t, "alice", "says", "hello")
	one.task(t, "bob", "slow", "of bob")
	later := one.task(t, "bob", "says", "more of bob")
	_, err := one.m.Wait(t.Context(), bgagent.Caller{}, bgagent.WaitAll, said.ID, later.ID)
	require.NoError(t, err)

	all, err := two.Tasks(t.Context(), "alice", 1)
	require.NoError(t, err)
	require.Len(t, all, 2, "without the tasks of bob")
	require.Equal(t, []string{slow.ID, said.ID}, []string{all[0].Task.ID, all[1].Task.ID})
	require.Equal(t, "one", all[0].Process.Name)
	require.NoError(t, all[0].Err)
	require.Empty(t, all[1].Task.Result+all[1].Task.Prompt)
	all, err = two.Tasks(t.Context(), "alice", 0)
	require.NoError(t, err)
	require.Len(t, all, 1)

	got, err := two.Read(t.Context(), "alice", said.ID, time.Hour)
	require.NoError(t, err)
	require.Equal(t, "said hello", got.Task.Result)
	require.Equal(t, "hello", got.Task.Prompt)
	require.Empty(t, got.Task.Metadata)
	require.Equal(t, "one", got.Process.Name)
	_, owed := one.m.Outstanding("alice")
	require.Equal(t, 1, owed, "the answer could have been lost, so the end is still owed")

	read := make(chan bgnats.CallerTask, 1)
	go func() {
		got, _ := two.Read(t.Context(), "alice", slow.ID, 10*time.Second)
		read <- got
	}()
	before, err := two.Cancel(t.Context(), "alice", slow.ID)
	require.NoError(t, err)
	require.False(t, before.Status.Terminal())
	require.Equal(t, bgagent.CauseCaller, within(t, read).Task.Cause, "the wait ends with the task, and the caller has cancelled it")
	before, err = two.Cancel(t.Context(), "alice", slow.ID)
	require.ErrorIs(t, err, bgagent.ErrAlreadyEnded)
	require.Equal(t, slow.ID, before.ID)

	task, q := one.asks(t, "alice", "choice")
	_, err = two.Answer(t.Context(), "alice", task.ID, bgagent.AnswerInput{Key: q.Key, Option: "none"})
	var input *bgagent.InputError
	require.ErrorAs(t, err, &input)
	q, err = two.Answer(t.Context(), "alice", task.ID, bgagent.AnswerInput{Key: q.Key, Option: "next"})
	require.NoError(t, err)
	require.Equal(t, "next", q.Answer)
	task, q = one.asks(t, "alice", "permission")
	_, err = two.Answer(t.Context(), "alice", task.ID, bgagent.AnswerInput{Key: q.Key, Option: "allow"})
	require.ErrorIs(t, err, bgagent.ErrMayNotPermit, "a caller is not the host")
}

// The method "refuses" checks that the caller can do nothing with the task, and gets the same errors as for a
// task that does not exist.
func (c callers) refuses(t *testing.T, caller, id, key string) {
	t.Helper()
	for _, id := range []string{id, "bg_0000000000000000"} {
		got, err := c.Read(t.Context(), caller, id, time.Second)
		require.EqualError(t, err, `bgnats: task "`+id+`": `+bgagent.ErrUnknownTask.Error())
		require.Zero(t, got.Task.ID+got.Task.Result+got.Process.Name)
		task, err := c.Cancel(t.Context(), caller, id)
		require.EqualError(t, err, `bgnats: task "`+id+`": `+bgagent.ErrUnknownTask.Error())
		require.Empty(t, task.ID)
		q, err := c.Answer(t.Context(), caller, id, bgagent.AnswerInput{Key: key, Option: "next"})
		require.EqualError(t, err, `bgnats: task "`+id+`": `+bgagent.ErrUnknownTask.Error())
		require.Empty(t, q.Title)
	}
}

func TestACallerGetsNothingOfOthersFromAnotherProcess(t *testing.T) {
	s := listening(t, func(*server.Options) {})
	one := newCallers(t, s.URL(), bgnats.ClusterOptions{Process: "one"}, same())
	two := newCallers(t, s.URL(), bgnats.ClusterOptions{Process: "two"}, map[string][]string{
		"alice": {"another token of alice"}, "bob": {"an old token", "the token of bob"}, "eve": {"the token of alice"},
	})
	task, q := one.asks(t, "alice", "choice")
	now, err := one.m.Get(task.ID)
	require.NoError(t, err)
	for _, caller := range []string{"bob", "alice", "eve", "nobody", ""} {
		two.refuses(t, caller, task.ID, q.Key)
		all, err := two.Tasks(t.Context(), caller, 50)
		require.NoError(t, err)
		require.Empty(t, all, caller)
	}
	two.refuses(t, "bob", now.Session, q.Key)
	require.Equal(t, bgagent.Running, now.Status)

	mine := one.task(t, "bob", "says", "to bob")
	got, err := two.Read(t.Context(), "bob", mine.ID, 10*time.Second)
	require.NoError(t, err, "one of the secrets is the same")
	require.Equal(t, "said to bob", got.Task.Result)
	got, err = one.Read(t.Context(), "bob", two.task(t, "bob", "says", "back").ID, 10*time.Second)
	require.NoError(t, err)
	require.Equal(t, "said back", got.Task.Result)
}

func TestACallersTasksOfADeadProcessAreReadIfItHasConfirmedTheCaller(t *testing.T) {
	s := listening(t, func(*server.Options) {})
	l := &line{server: s}
	one := newCallers(t, s.URL(), bgnats.ClusterOptions{Process: "one", Connect: []nats.Option{nats.InProcessServer(l), nats.ReconnectWait(10 * time.Millisecond)}}, same())
	two := newCallers(t, s.URL(), bgnats.ClusterOptions{Process: "two"}, map[string][]string{"alice": {"the token of alice"}, "bob": {"another token of bob"}, "carol": {"the token of carol"}})
	slow := one.task(t, "alice", "slow", "wait")
	said := one.task(t, "alice", "says", "hello")
	ofBob := one.task(t, "bob", "says", "to bob")
	_, err := one.m.Wait(t.Context(), bgagent.Caller{}, bgagent.WaitAll, said.ID, ofBob.ID)
	require.NoError(t, err)
	l.set(true)
	defer l.set(false)
	until(t, func() bool {
		got, err := two.Read(t.Context(), "alice", said.ID, 0)
		return err == nil && got.Err != nil
	})
	got, err := two.Read(t.Context(), "alice", said.ID, time.Second)
	require.NoError(t, err)
	require.ErrorIs(t, got.Err, bgnats.ErrProcessDead)
	require.False(t, got.Process.Lives)
	require.Equal(t, "said hello", got.Task.Result)
	require.Empty(t, got.Task.Metadata)
	all, err := two.Tasks(t.Context(), "alice", 5)
	require.NoError(t, err)
	require.Len(t, all, 2)
	require.ErrorIs(t, all[0].Err, bgnats.ErrProcessDead)
	_, err = two.Cancel(t.Context(), "alice", slow.ID)
	require.ErrorIs(t, err, bgnats.ErrProcessDead)
	require.NotErrorIs(t, err, bgagent.ErrUncertain)

	two.refuses(t, "bob", ofBob.ID, "q")
	two.refuses(t, "bob", said.ID, "q")
	_, err = two.Read(t.Context(), "carol", said.ID, 0)
	require.ErrorIs(t, err, bgagent.ErrUnknownTask, "the process has confirmed the caller, but the task is of another one")
	all, err = two.Tasks(t.Context(), "carol", 5)
	require.NoError(t, err)
	require.Empty(t, all)
	all, err = two.Tasks(t.Context(), "bob", 5)
	require.NoError(t, err)
	require.Empty(t, all, "the name alone is no proof")
	three := newCallers(t, s.URL(), bgnats.ClusterOptions{Process: "three"}, same())
	three.refuses(t, "alice", said.ID, "q")
}

func TestACallerFindsItsTasksThatAnotherProcessHasTakenOver(t *testing.T) {
	shorterLease(t)
	s := listening(t, func(*server.Options) {})
	l := &line{server: s}
	const lease = memberLease
	one := newCallers(t, s.URL(), bgnats.ClusterOptions{Process: "one", Home: "h", Lease: lease, Store: bgnats.StoreOptions{Grace: lease}, Connect: []nats.Option{nats.InProcessServer(l), nats.ReconnectWait(10 * time.Millisecond)}}, same())
	task, q := one.asks(t, "alice", "choice")
	two := newCallers(t, s.URL(), bgnats.ClusterOptions{Process: "two", Home: "h", Lease: lease, Store: bgnats.StoreOptions{Grace: lease}}, same())
	three := newCallers(t, s.URL(), bgnats.ClusterOptions{Process: "three", Lease: lease}, same())
	l.set(true)
	defer l.set(false)
	require.NoError(t, two.cluster.TakeOver(func(_ bgnats.Process, store *bgnats.Store) (*bgagent.BackgroundManager, error) {
		return bgagent.New(inproc.New(map[string]inproc.Agent{"asks": waits}), bgagent.Config{Slots: two.cluster.Slots, Store: store, Wake: bgagent.WakeNever, Ask: true})
	}))
	for _, c := range []callers{three, two} {
		until(t, func() bool {
			got, err := c.Read(t.Context(), "alice", task.ID, 0)
			return err == nil && got.Err == nil && got.Process.TakenBy == "two"
		})
		_, err := c.Read(t.Context(), "bob", task.ID, 0)
		require.ErrorIs(t, err, bgagent.ErrUnknownTask)
	}
	three.refuses(t, "carol", task.ID, q.Key)
}
