package bgagent_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

func TestNewRefusesWhatIsNoClient(t *testing.T) {
	type both struct {
		*goRunner
		bgagent.TurnStarter
	}
	type neither struct{ bgagent.SessionClient }
	var none *goRunner
	for name, c := range map[string]struct {
		client bgagent.SessionClient
		says   string
	}{
		"nil":         {nil, "client: is nil"},
		"nil pointer": {none, "client: is nil"},
		"both":        {both{&goRunner{}, newServer()}, "both a TurnRunner and a TurnStarter"},
		"neither":     {neither{&goRunner{}}, "neither a TurnRunner nor a TurnStarter"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := bgagent.New(c.client, bgagent.Config{})
			var input *bgagent.InputError
			require.ErrorAs(t, err, &input)
			require.ErrorContains(t, err, c.says)
		})
	}
	_, err := bgagent.New(&goRunner{}, bgagent.Config{Clients: map[string]bgagent.SessionClient{"x": nil}})
	require.ErrorContains(t, err, `Config.Clients["x"]: is nil`)
}

func TestLaunchRefusesBadInputAndChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := manage(t, &goRunner{run: works(time.Second)}, bgagent.Config{
			Model: func(agent, asked string) (string, error) {
				if asked == "no/such" {
					return "", errors.New("there is no model no/such")
				}
				return asked, nil
			},
			ClientFor: func(agent string) string {
				if agent == "lost" {
					return "nowhere"
				}
				return ""
			},
		})
		for _, in := range []bgagent.LaunchInput{
			{Prompt: "p"}, {Agent: "  ", Prompt: "p"}, {Agent: "a"}, {Agent: "a", Prompt: " \n"},
			{Agent: "a", Prompt: "p", Model: "no/such"}, {Agent: "lost", Prompt: "p"},
		} {
			_, err := m.Launch(t.Context(), root, in)
			require.Error(t, err, "%+v", in)
		}
		require.Empty(t, m.List(bgagent.Query{}))
		task, err := m.Launch(t.Context(), root, bgagent.LaunchInput{Agent: "a", Prompt: "\xffp", Description: "two\nlines | a cell\x00"})
		require.NoError(t, err)
		require.NotContains(t, task.Description, "\n")
		require.Equal(t, "\uFFFDp", task.Prompt)
		_, err = m.Wait(t.Context(), root, bgagent.WaitAll)
		require.ErrorContains(t, err, "ids")
		_, err = m.Resume(t.Context(), root, task.ID, bgagent.ResumeInput{})
		require.ErrorContains(t, err, "Prompt")
		_, err = m.Resume(t.Context(), root, task.ID, bgagent.ResumeInput{Prompt: "x"})
		require.ErrorIs(t, err, bgagent.ErrStillLive)
		_, err = m.Resume(t.Context(), root, "ses_unknown", bgagent.ResumeInput{Prompt: "x"})
		require.ErrorIs(t, err, bgagent.ErrUnknownTask)
		ended(t, m, task.ID)
	})
}

func TestTheSameToolCallLaunchesOneTask(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := manage(t, &goRunner{run: works(time.Second)}, bgagent.Config{})
		by := bgagent.Caller{Session: "root", ToolCallID: "call_1"}
		in := bgagent.LaunchInput{Agent: "a", Prompt: "p"}
		first, err := m.Launch(t.Context(), by, in)
		require.NoError(t, err)
		again, err := m.Launch(t.Context(), by, in)
		require.NoError(t, err)
		require.Equal(t, first.ID, again.ID)
		for _, other := range []struct {
			by bgagent.Caller
			in bgagent.LaunchInput
		}{
			{bgagent.Caller{Session: "root"}, in}, {bgagent.Caller{Session: "root"}, in},
			{bgagent.Caller{Session: "other", ToolCallID: "call_1"}, in},
			{by, bgagent.LaunchInput{Agent: "b", Prompt: "p"}}, {by, bgagent.LaunchInput{Agent: "a", Prompt: "q"}},
		} {
			task, err := m.Launch(t.Context(), other.by, other.in)
			require.NoError(t, err)
			require.NotEqual(t, first.ID, task.ID)
		}
		ended(t, m, first.ID)
		again, err = m.Launch(t.Context(), by, in)
		require.NoError(t, err)
		require.NotEqual(t, first.ID, again.ID, "what has ended was not asked for again by a retry")
	})
}

func TestEventsLeaveInOrderWithoutAGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := manage(t, &goRunner{run: works(time.Second)}, limit(2))
		before := launch(t, m, "before")
		tasks, sub := m.Subscribe(0)
		require.Len(t, tasks, 1)
		require.Equal(t, before.ID, tasks[0].ID)
		after := launch(t, m, "after")
		ended(t, m, before.ID, after.ID)
		_ = m.Close(t.Context())
		var kinds []string
		var seq uint64
		for {
			e, err := sub.Next(t.Context())
			if err == io.EOF {
				break
			}
			require.NoError(t, err)
			require.Greater(t, e.Seq, seq)
			seq = e.Seq
			if e.Task.ID == after.ID {
				kinds = append(kinds, e.Kind.String())
			}
		}
		require.Equal(t, []string{"launched", "started", "phase", "phase", "ended", "quiet"}, kinds)
	})
}

func TestASlowSubscriberIsToldWhatItMissed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := manage(t, &goRunner{run: works(time.Second)}, limit(50))
		_, sub := m.Subscribe(3)
		var ids []string
		for i := range 10 {
			ids = append(ids, launch(t, m, fmt.Sprint(i)).ID)
		}
		ended(t, m, ids...)
		synctest.Wait()
		e, err := sub.Next(t.Context())
		require.NoError(t, err)
		require.Equal(t, bgagent.EventMissed, e.Kind)
		missed := e.Missed
		for range 3 {
			e, err = sub.Next(t.Context())
			require.NoError(t, err)
		}
		require.Equal(t, e.Seq, missed+3)
		sub.Close()
		_, err = sub.Next(t.Context())
		require.ErrorIs(t, err, io.EOF)
	})
}

func TestForegroundLivesAsLongAsItsCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := manage(t, &goRunner{run: works(time.Hour)}, bgagent.Config{})
		in := bgagent.LaunchInput{Agent: "a", Prompt: "p"}
		task, err := m.Run(t.Context(), root, in)
		require.NoError(t, err)
		require.Equal(t, bgagent.Completed, task.Status, "it has no time to live")
		require.Equal(t, bgagent.NoticeRead, task.Notice, "its caller has the result")

		ctx, cancel := context.WithCancel(t.Context())
		go func() { time.Sleep(time.Minute); cancel() }()
		task, err = m.Run(ctx, root, in)
		require.ErrorIs(t, err, context.Canceled)
		require.Equal(t, bgagent.Cancelled, task.Status)

		ctx, cancel = context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		task, err = m.Run(ctx, root, in)
		require.ErrorIs(t, err, bgagent.ErrGoesOn)
		require.Equal(t, bgagent.Running, task.Status)
		began := time.Now()
		task = ended(t, m, task.ID)[0]
		require.Equal(t, bgagent.CauseTimeToLive, task.Cause)
		require.Equal(t, 30*time.Minute, time.Since(began), "its time to live begins when it goes to the background")
	})
}

func TestCancelAllTakesDescendantsAndSparesTheForeground(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := manage(t, &goRunner{run: works(time.Hour)}, bgagent.Config{MaxDepth: 3, Limits: bgagent.Limits{Default: 3}})
		a := launch(t, m, "a")
		synctest.Wait()
		child, err := m.Launch(t.Context(), bgagent.Caller{Session: get(t, m, a.ID).Session}, bgagent.LaunchInput{Agent: "worker", Prompt: "child"})
		require.NoError(t, err)
		done := make(chan bgagent.Task)
		go func() {
			task, _ := m.Run(context.Background(), root, bgagent.LaunchInput{Agent: "worker", Prompt: "fg"})
			done <- task
		}()
		synctest.Wait()
		queued := launch(t, m, "queued")
		other, err := m.Launch(t.Context(), bgagent.Caller{Session: "other"}, bgagent.LaunchInput{Agent: "worker", Prompt: "o"})
		require.NoError(t, err)
		out, err := m.CancelAll(t.Context(), root, bgagent.CancelOptions{Reason: "no longer needed"})
		require.NoError(t, err)
		require.Equal(t, []bgagent.Status{bgagent.Running, bgagent.Running, bgagent.Pending}, statuses(out))
		for _, id := range []string{a.ID, child.ID, queued.ID} {
			require.Equal(t, bgagent.Cancelled, get(t, m, id).Status)
		}
		require.Equal(t, bgagent.Running, func() bgagent.Status { synctest.Wait(); return get(t, m, other.ID).Status }())
		require.Equal(t, bgagent.Completed, (<-done).Status)
	})
}

func TestEndsThatAreNotCompletedCascade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := manage(t, &goRunner{run: works(time.Hour)}, bgagent.Config{MaxDepth: 3, TimeToLive: bgagent.Disabled})
		a := launch(t, m, "a")
		synctest.Wait()
		session := get(t, m, a.ID).Session
		child, err := m.Launch(t.Context(), bgagent.Caller{Session: session}, bgagent.LaunchInput{Agent: "worker", Prompt: "child"})
		require.NoError(t, err)
		synctest.Wait()
		m.SessionDeleted(session)
		require.Equal(t, bgagent.CauseSessionDeleted, get(t, m, a.ID).Cause)
		require.Equal(t, bgagent.CauseParentEnded, get(t, m, child.ID).Cause)
		require.Equal(t, bgagent.NoticeGivenUp, get(t, m, child.ID).Notice, "nothing is sent into a session whose task has ended")
		_, err = m.Launch(t.Context(), bgagent.Caller{Session: session}, bgagent.LaunchInput{Agent: "worker", Prompt: "late"})
		require.ErrorIs(t, err, bgagent.ErrSessionEnded)
		_, err = m.Resume(t.Context(), root, a.ID, bgagent.ResumeInput{Prompt: "go on"})
		require.ErrorIs(t, err, bgagent.ErrNoSession)

		b := launch(t, m, "b")
		m.SessionDeleted("root")
		require.Equal(t, bgagent.CauseParentEnded, get(t, m, b.ID).Cause)
		_, err = m.Launch(t.Context(), root, bgagent.LaunchInput{Agent: "worker", Prompt: "late"})
		require.ErrorIs(t, err, bgagent.ErrSessionEnded)
	})
}

func TestAResumeWaitsUntilTheOldTurnHasStopped(t *testing.T) {
	for name, stops := range map[string]bool{"it stops": true, "it does not": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newServer()
				f.abort = func(_ context.Context, s string) error { f.set(s, bgagent.SessionBusy); return nil } // still busy
				m := manage(t, f, limit(1))
				id, session := turnOn(t, m, "p")
				_, err := m.Cancel(t.Context(), root, id, bgagent.CancelOptions{})
				require.NoError(t, err)
				synctest.Wait()
				_, err = m.Resume(t.Context(), root, id, bgagent.ResumeInput{Prompt: "go on"})
				require.NoError(t, err)
				time.Sleep(5 * time.Second)
				require.Equal(t, bgagent.Pending, get(t, m, id).Status)
				require.Len(t, f.prompted(), 1, "never into a busy session")
				if !stops {
					task := ended(t, m, id)[0]
					require.Equal(t, bgagent.CauseNotStopped, task.Cause)
					_, err = m.Resume(t.Context(), root, id, bgagent.ResumeInput{Prompt: "go on"})
					require.ErrorIs(t, err, bgagent.ErrNotStopped)
					return
				}
				f.set(session, bgagent.SessionIdle)
				time.Sleep(time.Second)
				synctest.Wait()
				require.Len(t, f.prompted(), 2)
				f.say(session, "second")
				require.Equal(t, "second", ended(t, m, id)[0].Result)
			})
		})
	}
}

// streaming is a server with an event stream.
type streaming struct {
	*server
	emit chan bgagent.HostEvent
}

func (f *streaming) Events(ctx context.Context, emit func(bgagent.HostEvent)) error {
	emit(bgagent.HostEvent{Kind: bgagent.HostStreamUp})
	for {
		select {
		case e := <-f.emit:
			emit(e)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func TestSessionsThatEventsKeepCurrentAreNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &streaming{server: newServer(), emit: make(chan bgagent.HostEvent)}
		m := manage(t, f, bgagent.Config{})
		synctest.Wait()
		id, session := turnOn(t, m, "p")
		beat := func() { f.emit <- bgagent.HostEvent{Kind: bgagent.HostStreamBeat} }
		for range 6 {
			time.Sleep(10 * time.Second)
			beat()
		}
		synctest.Wait()
		require.Zero(t, f.reads)
		f.emit <- bgagent.HostEvent{Kind: bgagent.HostStreamGap}
		f.emit <- bgagent.HostEvent{Kind: bgagent.HostStreamUp}
		time.Sleep(25 * time.Second)
		synctest.Wait()
		require.LessOrEqual(t, f.reads, 2, "after a gap it is read once, or once more when the gap was long")
		require.Positive(t, f.reads)

		id2, session2 := turnOn(t, m, "q")
		f.do(func() { f.reads = 0 })
		msg := bgagent.Message{ID: "m", Role: bgagent.RoleAgent, Text: "all by events", Finished: true, Stop: bgagent.StopEndOfTurn}
		f.emit <- bgagent.HostEvent{Kind: bgagent.HostMessage, Session: session2, Message: &msg}
		f.emit <- idle(session2)
		synctest.Wait()
		task := get(t, m, id2)
		require.Equal(t, bgagent.Completed, task.Status)
		require.Equal(t, "all by events", task.Result)
		f.say(session, "x")
		f.emit <- idle(session)
		ended(t, m, id)
	})
}

func TestSeveralClientsBehindOneManager(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := &goRunner{run: works(time.Second)}, newServer()
		m := manage(t, a, bgagent.Config{
			Clients:   map[string]bgagent.SessionClient{"server": b},
			ClientFor: func(agent string) string { return strings.TrimPrefix(agent, "local") },
		})
		local, err := m.Launch(t.Context(), root, bgagent.LaunchInput{Agent: "local", Prompt: "p"})
		require.NoError(t, err)
		synctest.Wait()
		clash, err := m.Launch(t.Context(), root, bgagent.LaunchInput{Agent: "server", Prompt: "p"})
		require.NoError(t, err)
		tasks := ended(t, m, local.ID, clash.ID)
		require.Equal(t, bgagent.Completed, tasks[0].Status)
		require.Contains(t, tasks[1].Reason, "belongs to task "+local.ID, "both name their first session ses_1")
		remote, err := m.Launch(t.Context(), root, bgagent.LaunchInput{Agent: "server", Prompt: "p"})
		require.NoError(t, err)
		synctest.Wait()
		b.say(get(t, m, remote.ID).Session, "from afar")
		task := ended(t, m, remote.ID)[0]
		require.Equal(t, "from afar", task.Result)
		require.Equal(t, "server", task.Client)
	})
}

func TestLogsTellNothingOfPromptsAndAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		m := manage(t, &goRunner{run: works(time.Second)}, bgagent.Config{Logger: slog.New(slog.NewTextHandler(&out, nil))})
		ended(t, m, launch(t, m, "the secret prompt").ID)
		_ = m.Close(t.Context())
		require.Contains(t, out.String(), "task ended")
		require.NotContains(t, out.String(), "secret")
		require.NotContains(t, out.String(), "answer")
	})
}

func TestASharedConcurrencyManagerCountsForAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cm, err := bgagent.NewConcurrencyManager(bgagent.Limits{Default: 1})
		require.NoError(t, err)
		a := manage(t, &goRunner{run: works(time.Minute)}, bgagent.Config{Concurrency: cm})
		b := manage(t, &goRunner{run: works(time.Minute)}, bgagent.Config{Concurrency: cm})
		first, second, third := launch(t, a, "1"), launch(t, b, "2"), launch(t, a, "3")
		began := time.Now()
		ended(t, b, second.ID)
		require.Equal(t, 2*time.Minute, time.Since(began))
		ended(t, a, first.ID, third.ID)
		require.Equal(t, 3*time.Minute, time.Since(began))
		require.NoError(t, cm.SetLimits(bgagent.Limits{Default: 2}))
		fullBatch(t, a, 2)
	})
}

func TestPrepareLaunchCompletesWhatAModelAsksFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &goRunner{}
		var specs []bgagent.SessionSpec
		var prompts []bgagent.Prompt
		f.create = func(_ context.Context, s bgagent.SessionSpec) (string, error) {
			specs = append(specs, s)
			return f.nextID(), nil
		}
		f.run = func(_ context.Context, _ string, p bgagent.Prompt, _ *bgagent.Reporter) (bgagent.TurnEnd, error) {
			prompts = append(prompts, p)
			time.Sleep(time.Second)
			return bgagent.TurnEnd{Text: "x"}, nil
		}
		seen := 0
		m := manage(t, f, bgagent.Config{PrepareLaunch: func(_ context.Context, by bgagent.Caller, in bgagent.LaunchInput) (bgagent.LaunchInput, error) {
			seen++
			switch in.Agent {
			case "nobody":
				return in, errors.New("nobody may not work here")
			case "panics":
				panic("boom")
			}
			in.Directory, in.System, in.Prompt = "/projects/"+by.Session, fmt.Sprint("skill ", seen), fmt.Sprint(in.Prompt, " no. ", seen)
			in.Metadata = map[string]string{"tree": in.Directory}
			return in, nil
		}})
		by := bgagent.Caller{Session: "root", ToolCallID: "call_1"}
		a := bgagent.DelegateTaskArgs{Prompt: "look", SubagentType: "worker"}
		r, err := bgagent.DelegateTask(t.Context(), m, by, a)
		require.NoError(t, err)
		synctest.Wait()
		require.Equal(t, "/projects/root", specs[0].Directory)
		require.Equal(t, "/projects/root", specs[0].Metadata["tree"])
		require.Equal(t, "skill 1", prompts[0].System)
		require.Equal(t, "look no. 1", prompts[0].Text)
		again, err := bgagent.DelegateTask(t.Context(), m, by, a)
		require.NoError(t, err)
		require.Equal(t, r.Task.ID, again.Task.ID, "the same call is known by what it asked for")

		for agent, says := range map[string]string{"nobody": "nobody may not work here", "panics": "boom"} {
			_, err = m.Launch(t.Context(), root, bgagent.LaunchInput{Agent: agent, Prompt: "p"})
			require.ErrorContains(t, err, "bgagent: launch: preparing the launch: ")
			require.ErrorContains(t, err, says)
		}
		require.Len(t, m.List(bgagent.Query{}), 1, "what is refused launches nothing")
	})
}

func TestARepeatedLaunchAsksTheHostNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		m := manage(t, &goRunner{run: works(time.Second)}, bgagent.Config{PrepareLaunch: func(_ context.Context, _ bgagent.Caller, in bgagent.LaunchInput) (bgagent.LaunchInput, error) {
			if n++; n > 1 {
				return in, errors.New("the worktree is there already")
			}
			return in, nil
		}})
		by := bgagent.Caller{Session: "root", ToolCallID: "c"}
		one, err := m.Launch(t.Context(), by, bgagent.LaunchInput{Agent: "w", Prompt: "p"})
		require.NoError(t, err)
		two, err := m.Launch(t.Context(), by, bgagent.LaunchInput{Agent: "w", Prompt: "p"})
		require.NoError(t, err)
		require.Equal(t, one.ID, two.ID)
	})
}
