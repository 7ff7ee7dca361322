package embedded_test

import (
	"context"
	"slices"
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

// ofProcess returns the tasks of one process.
func ofProcess(t *testing.T, c *bgnats.Cluster, name string, ended int) bgnats.ProcessTasks {
	t.Helper()
	all, err := c.Tasks(t.Context(), ended)
	require.NoError(t, err)
	i := slices.IndexFunc(all, func(p bgnats.ProcessTasks) bool { return p.Name == name })
	require.GreaterOrEqual(t, i, 0)
	return all[i]
}

// These are the sizes, in bytes, of the longest prompt and the longest result that a manager keeps.
const longPrompt, longResult = 1 << 20, 256 << 10

// The function "text" returns a text that has at least the given size and does not repeat itself.
func text(size int) string {
	var b strings.Builder
	for i := 0; b.Len() < size; i++ {
		b.WriteString(time.Duration(i).String())
		b.WriteString(" é\n")
	}
	return strings.ToValidUTF8(b.String()[:size-2], ".") + "."
}

func TestEveryProcessListsReadsAndCancelsTheTasksOfAll(t *testing.T) {
	s := listening(t, func(*server.Options) {})
	one := joined(t, s.URL(), bgnats.ClusterOptions{Process: "one"})
	two := joined(t, s.URL(), bgnats.ClusterOptions{Process: "two"})
	stopped := make(chan struct{}, 1)
	m := managerOf(t, one, map[string]inproc.Agent{
		"slow": func(ctx context.Context, _ *inproc.Turn) (string, error) {
			<-ctx.Done()
			stopped <- struct{}{}
			return "", ctx.Err()
		},
		"long": func(context.Context, *inproc.Turn) (string, error) { return text(longResult), nil },
	})
	require.NoError(t, one.Serve(m))
	m2 := managerOf(t, two, map[string]inproc.Agent{"slow": func(ctx context.Context, _ *inproc.Turn) (string, error) { return "", nil }})
	require.NoError(t, two.Serve(m2))

	slow, err := m.Launch(t.Context(), bgagent.Caller{Session: "s"}, bgagent.LaunchInput{Agent: "slow", Prompt: "wait"})
	require.NoError(t, err)
	long, err := m.Run(t.Context(), bgagent.Caller{Session: "s"}, bgagent.LaunchInput{Agent: "long", Prompt: text(longPrompt)})
	require.NoError(t, err)
	until(t, func() bool { now, err := m.Get(slow.ID); return err == nil && now.Session != "" })

	p := ofProcess(t, two, "one", 1)
	require.NoError(t, p.Err)
	require.True(t, p.Lives)
	require.Len(t, p.Tasks, 2)
	require.Equal(t, slow.ID, p.Tasks[0].ID)
	require.Equal(t, long.ID, p.Tasks[1].ID)
	require.Empty(t, p.Tasks[1].Prompt+p.Tasks[1].Result)
	p = ofProcess(t, two, "one", 0)
	require.Len(t, p.Tasks, 1)
	require.True(t, p.More)

	for _, c := range []*bgnats.Cluster{one, two} {
		read, by, err := c.Read(t.Context(), long.ID)
		require.NoError(t, err)
		require.Equal(t, "one", by.Name)
		require.True(t, read.Result == text(longResult), "%d bytes", len(read.Result))
		require.True(t, read.Prompt == text(longPrompt), "%d bytes", len(read.Prompt))
	}
	now, err := m.Get(slow.ID)
	require.NoError(t, err)
	bySession, _, err := two.Read(t.Context(), now.Session)
	require.NoError(t, err)
	require.Equal(t, slow.ID, bySession.ID)

	got, err := two.Cancel(t.Context(), slow.ID, "not needed")
	require.NoError(t, err)
	require.Equal(t, slow.ID, got.ID)
	within(t, stopped)
	got, _, err = two.Read(t.Context(), slow.ID)
	require.NoError(t, err)
	require.Equal(t, bgagent.Cancelled, got.Status)
	require.Equal(t, "not needed", got.Reason)
	_, err = two.Cancel(t.Context(), slow.ID, "")
	require.ErrorIs(t, err, bgagent.ErrAlreadyEnded)
	_, err = two.Cancel(t.Context(), "bg_unknown", "")
	require.ErrorIs(t, err, bgagent.ErrUnknownTask)
	_, _, err = two.Read(t.Context(), "bg_unknown")
	require.ErrorIs(t, err, bgagent.ErrUnknownTask)
	_, err = two.Answer(t.Context(), slow.ID, bgagent.AnswerInput{Key: "k", Option: "yes"})
	require.ErrorIs(t, err, bgagent.ErrNoQuestion)
	_, err = two.Cancel(t.Context(), slow.ID, strings.Repeat("x", 2<<20))
	var input *bgagent.InputError
	require.ErrorAs(t, err, &input)
}

func TestAQuestionIsAnsweredFromAnotherProcess(t *testing.T) {
	s := listening(t, func(*server.Options) {})
	one := joined(t, s.URL(), bgnats.ClusterOptions{Process: "one"})
	two := joined(t, s.URL(), bgnats.ClusterOptions{Process: "two"})
	m, err := bgagent.New(inproc.New(map[string]inproc.Agent{"asks": func(ctx context.Context, turn *inproc.Turn) (string, error) {
		return turn.Ask(ctx, bgagent.Question{Key: "branch", Kind: bgagent.QuestionChoice, Title: "Which branch?", Options: []string{"main", "next"}})
	}}), bgagent.Config{Slots: one.Slots, Store: one.Store, Wake: bgagent.WakeNever, Ask: true})
	require.NoError(t, err)
	defer m.Close(context.Background())
	require.NoError(t, one.Serve(m))
	task, err := m.Launch(t.Context(), bgagent.Caller{Session: "s"}, bgagent.LaunchInput{Agent: "asks", Prompt: "x"})
	require.NoError(t, err)
	key := ""
	until(t, func() bool {
		p := ofProcess(t, two, "one", 0)
		if len(p.Tasks) != 1 || len(p.Tasks[0].Questions) != 1 {
			return false
		}
		key = p.Tasks[0].Questions[0].Key
		return true
	})
	q, err := two.Answer(t.Context(), task.ID, bgagent.AnswerInput{Key: key, Option: "next"})
	require.NoError(t, err)
	require.Equal(t, "next", q.Answer)
	all, err := m.Wait(t.Context(), bgagent.Caller{}, bgagent.WaitAll, task.ID)
	require.NoError(t, err)
	require.Equal(t, "next", all[0].Result)
	known, alone := m.Answer(t.Context(), bgagent.Caller{}, task.ID, bgagent.AnswerInput{Key: key, Option: "main"})
	require.ErrorIs(t, alone, bgagent.ErrQuestionOver)
	require.Equal(t, "next", known.Answer)
	q, err = two.Answer(t.Context(), task.ID, bgagent.AnswerInput{Key: key, Option: "main"})
	require.ErrorIs(t, err, bgagent.ErrQuestionOver)
	require.Equal(t, "next", q.Answer)
}

func TestAProcessThatDoesNotServeIsNotDead(t *testing.T) {
	s := listening(t, func(*server.Options) {})
	one := joined(t, s.URL(), bgnats.ClusterOptions{Process: "one"})
	two := joined(t, s.URL(), bgnats.ClusterOptions{Process: "two"})
	m := managerOf(t, one, map[string]inproc.Agent{"slow": func(ctx context.Context, _ *inproc.Turn) (string, error) { <-ctx.Done(); return "", ctx.Err() }})
	task, err := m.Launch(t.Context(), bgagent.Caller{Session: "s"}, bgagent.LaunchInput{Agent: "slow", Prompt: "wait"})
	require.NoError(t, err)
	p := ofProcess(t, two, "one", 0)
	require.NoError(t, p.Err)
	require.True(t, p.Lives)
	require.Len(t, p.Tasks, 1)
	_, by, err := two.Read(t.Context(), task.ID)
	require.NoError(t, err)
	require.True(t, by.Lives)
	_, err = two.Cancel(t.Context(), task.ID, "")
	require.ErrorIs(t, err, bgnats.ErrNotServing)
	require.NotErrorIs(t, err, bgnats.ErrProcessDead)
	require.NoError(t, one.Serve(m))
	_, err = two.Cancel(t.Context(), task.ID, "")
	require.NoError(t, err)
}

// A process that has only lost its connection looks dead to the others.
func TestTasksOfADeadProcessAreReadFromTheServers(t *testing.T) {
	s := listening(t, func(*server.Options) {})
	l := &line{server: s}
	one := joined(t, s.URL(), bgnats.ClusterOptions{Process: "one", Connect: []nats.Option{nats.InProcessServer(l), nats.ReconnectWait(10 * time.Millisecond)}})
	two := joined(t, s.URL(), bgnats.ClusterOptions{Process: "two"})
	m := managerOf(t, one, map[string]inproc.Agent{
		"slow": func(ctx context.Context, _ *inproc.Turn) (string, error) { <-ctx.Done(); return "", ctx.Err() },
		"long": func(context.Context, *inproc.Turn) (string, error) { return text(longResult), nil },
	})
	require.NoError(t, one.Serve(m))
	slow, err := m.Launch(t.Context(), bgagent.Caller{Session: "s"}, bgagent.LaunchInput{Agent: "slow", Prompt: "wait"})
	require.NoError(t, err)
	long, err := m.Run(t.Context(), bgagent.Caller{Session: "s"}, bgagent.LaunchInput{Agent: "long", Prompt: text(longPrompt)})
	require.NoError(t, err)
	l.set(true)
	until(t, func() bool { return !ofProcess(t, two, "one", 5).Lives })

	p := ofProcess(t, two, "one", 5)
	require.NoError(t, p.Err)
	require.Len(t, p.Tasks, 2)
	require.Equal(t, slow.ID, p.Tasks[0].ID)
	require.False(t, p.Tasks[0].Status.Terminal())
	require.Equal(t, bgagent.Completed, p.Tasks[1].Status)
	read, by, err := two.Read(t.Context(), long.ID)
	require.NoError(t, err)
	require.False(t, by.Lives)
	require.True(t, read.Prompt == text(longPrompt), "%d bytes", len(read.Prompt))
	require.True(t, read.Result == text(longResult), "%d bytes", len(read.Result))
	_, err = two.Cancel(t.Context(), slow.ID, "")
	require.ErrorIs(t, err, bgnats.ErrProcessDead)
	require.ErrorContains(t, err, "the process one of the cluster")

	l.set(false)
	until(t, func() bool { return ofProcess(t, two, "one", 5).Lives })
	_, err = two.Cancel(t.Context(), slow.ID, "")
	require.NoError(t, err, "reading has not changed the stream")
	got, err := m.Get(slow.ID)
	require.NoError(t, err)
	require.Equal(t, bgagent.Cancelled, got.Status)
}

func TestAStreamThatCannotBeReadDoesNotAffectTheOtherProcesses(t *testing.T) {
	s := listening(t, func(*server.Options) {})
	one := joined(t, s.URL(), bgnats.ClusterOptions{Process: "one"})
	two := joined(t, s.URL(), bgnats.ClusterOptions{Process: "two"})
	agents := map[string]inproc.Agent{"slow": func(ctx context.Context, _ *inproc.Turn) (string, error) { <-ctx.Done(); return "", ctx.Err() }}
	m := managerOf(t, one, agents)
	require.NoError(t, one.Serve(m))
	newer, err := bgagent.New(inproc.New(agents), bgagent.Config{Store: joined(t, s.URL(), bgnats.ClusterOptions{Process: "newer"}).Store, Wake: bgagent.WakeNever})
	require.NoError(t, err)
	require.NoError(t, newer.Suspend(t.Context()))
	nc, err := nats.Connect(s.URL())
	require.NoError(t, err)
	defer nc.Close()
	js, err := nc.JetStream()
	require.NoError(t, err)
	_, err = js.Publish("bgagent.bgagent_newer.m", []byte(`{"version": 99}`))
	require.NoError(t, err)

	task, err := m.Launch(t.Context(), bgagent.Caller{Session: "s"}, bgagent.LaunchInput{Agent: "slow", Prompt: "wait"})
	require.NoError(t, err)
	require.Len(t, ofProcess(t, two, "one", 0).Tasks, 1)
	require.ErrorContains(t, ofProcess(t, two, "newer", 0).Err, "unknown format 99")
	_, _, err = two.Read(t.Context(), task.ID)
	require.NoError(t, err)
	_, err = two.Cancel(t.Context(), task.ID, "")
	require.NoError(t, err)
	_, _, err = two.Read(t.Context(), "bg_unknown")
	require.ErrorContains(t, err, "unknown format 99")
	require.NotErrorIs(t, err, bgagent.ErrUnknownTask, "the unreadable process can have the task")
}
