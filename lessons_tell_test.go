package bgagent_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

// Lesson 22: whatever comes together, an attempt ends once and is told once.
func TestLesson22RacesEndOnceAndAreToldOnce(t *testing.T) {
	rounds := 300
	if testing.Short() {
		rounds = 50
	}
	for seed := range rounds {
		synctest.Test(t, func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(uint64(seed), 1))
			f := &goRunner{}
			f.run = func(ctx context.Context, _ string, p bgagent.Prompt, _ *bgagent.Reporter) (bgagent.TurnEnd, error) {
				select {
				case <-time.After(time.Duration(1+len(p.ID)%3) * time.Second):
				case <-ctx.Done():
					time.Sleep(time.Millisecond) // late
				}
				if p.Text == "fail" {
					return bgagent.TurnEnd{}, errors.New("late rejection")
				}
				return bgagent.TurnEnd{Text: "done"}, nil
			}
			var box inbox
			m := manage(t, f, bgagent.Config{Limits: bgagent.Limits{Default: 3}, Notify: box.notify, TimeToLive: 2 * time.Second, QueueTimeToLive: 3 * time.Second})
			_, sub := m.Subscribe(10_000)
			prompts := []string{"fail", "work"}
			var ids []string
			for range 8 {
				ids = append(ids, launch(t, m, prompts[rnd.IntN(2)]).ID)
			}
			for range 30 {
				id := ids[rnd.IntN(len(ids))]
				at := time.Duration(rnd.IntN(6)) * 500 * time.Millisecond
				prompt := prompts[rnd.IntN(2)]
				ops := []func(){
					func() { _, _ = m.Cancel(context.Background(), bgagent.Caller{}, id, bgagent.CancelOptions{}) },
					func() {
						_, _ = m.Resume(context.Background(), root, id, bgagent.ResumeInput{Prompt: prompt})
					},
					func() { task, _ := m.Get(id); m.SessionDeleted(task.Session) },
				}
				op := ops[rnd.IntN(len(ops))]
				go func() { time.Sleep(at); op() }()
			}
			time.Sleep(time.Minute)
			synctest.Wait()
			ends, told := map[string]int{}, map[string]int{}
			_ = m.Close(context.Background())
			for {
				e, err := sub.Next(context.Background())
				if err != nil {
					break
				}
				if e.Kind == bgagent.EventEnded {
					ends[fmt.Sprint(e.Task.ID, "/", e.Task.Attempt)]++
				}
			}
			for _, n := range box.all() {
				for _, it := range n.Items {
					told[fmt.Sprint(it.Task, "/", it.Attempt)]++
				}
			}
			attempts := 0
			for _, id := range ids {
				attempts += get(t, m, id).Attempt
			}
			require.Len(t, ends, attempts, "seed %d: every attempt ends", seed)
			for k, n := range ends {
				require.Equal(t, 1, n, "seed %d: %s ended", seed, k)
				require.Equal(t, 1, told[k], "seed %d: %s told", seed, k)
			}
			require.Len(t, told, len(ends))
		})
	}
}

// Lesson 23.
func TestLesson23AFailingAbortDoesNotPreventACancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newServer()
		tries := 0
		f.abort = func(_ context.Context, s string) error {
			tries++
			f.set(s, bgagent.SessionBusy)
			return errors.New("no")
		}
		m := manage(t, f, limit(1))
		id, session := turnOn(t, m, "a")
		b := launch(t, m, "b")
		_, err := m.Cancel(t.Context(), root, id, bgagent.CancelOptions{})
		require.NoError(t, err)
		require.Equal(t, bgagent.Cancelled, get(t, m, id).Status)
		time.Sleep(9 * time.Second)
		require.Equal(t, bgagent.Pending, get(t, m, b.ID).Status, "what still runs counts")
		time.Sleep(time.Second)
		synctest.Wait()
		require.Equal(t, bgagent.Running, get(t, m, b.ID).Status, "at the latest after the stopping deadline")
		require.Greater(t, tries, 2)
		require.False(t, get(t, m, id).Quiet)
		_, err = m.Resume(t.Context(), root, id, bgagent.ResumeInput{Prompt: "again"})
		require.ErrorIs(t, err, bgagent.ErrNotStopped)
		f.set(session, bgagent.SessionIdle)
		require.NoError(t, m.Quiet(t.Context(), id))
		_, err = m.Resume(t.Context(), root, id, bgagent.ResumeInput{Prompt: "again"})
		require.NoError(t, err)
	})
}

// Lessons 24, 25 and 26.
func TestLesson24to26OneNoticeForABatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var box inbox
		m := manage(t, &goRunner{run: works(time.Minute)}, bgagent.Config{Limits: bgagent.Limits{Default: 20}, Notify: box.notify})
		var ids []string
		for i := range 20 {
			ids = append(ids, launch(t, m, fmt.Sprint(i)).ID)
		}
		_, err := m.Cancel(t.Context(), root, ids[7], bgagent.CancelOptions{})
		require.NoError(t, err)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		require.Len(t, box.all(), 1, "twenty ends in a row wake the parent once")
		n := box.all()[0]
		require.True(t, n.Closing)
		require.Zero(t, n.Live)
		require.Len(t, n.Items, 19, "the one that the parent cancelled itself needs no notice")
		require.Len(t, n.Batch, 20)
		require.Equal(t, bgagent.NoticeWaived, get(t, m, ids[7]).Notice)

		next := launch(t, m, "another batch")
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		require.Len(t, box.all(), 2)
		require.Len(t, box.all()[1].Batch, 1, "an earlier batch is not told again")
		require.Equal(t, next.ID, box.all()[1].Batch[0].Task)
	})
}

// Lesson 25: a notice that fails is tried again, with the same id.
func TestLesson25AFailedNoticeIsNeitherLostNorDoubled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ids []string
		var box inbox
		box.fail = func(n int) error {
			if n < 5 {
				return errors.New("no")
			}
			return nil
		}
		m := manage(t, &goRunner{run: works(time.Second)}, bgagent.Config{Retention: bgagent.Disabled, Notify: func(ctx context.Context, s string, n bgagent.Notice) error {
			ids = append(ids, n.ID)
			return box.notify(ctx, s, n)
		}})
		task := launch(t, m, "p")
		time.Sleep(time.Hour)
		synctest.Wait()
		require.Len(t, ids, 5)
		for _, id := range ids {
			require.Equal(t, ids[0], id)
		}
		require.Len(t, box.all(), 1)
		require.Equal(t, bgagent.NoticeDelivered, get(t, m, task.ID).Notice)

		box.fail = func(int) error { return errors.New("never") }
		task = launch(t, m, "p")
		time.Sleep(25 * time.Hour)
		synctest.Wait()
		n, ok := m.TakeNotice("root")
		require.True(t, ok, "what was given up can still be taken")
		require.Equal(t, task.ID, n.Items[0].Task)
	})
}

// notifyingServer is a server that can prompt root sessions.
type notifyingServer struct {
	*server
	inbox
}

func (f *notifyingServer) Notify(ctx context.Context, session string, n bgagent.Notice) error {
	return f.notify(ctx, session, n)
}

// Lesson 27.
func TestLesson27ABusyParentIsToldWhenItIsIdle(t *testing.T) {
	for _, by := range []string{"event", "poll"} {
		t.Run(by, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &notifyingServer{server: newServer()}
				f.sessions["root"] = &served{state: bgagent.SessionBusy}
				m := manage(t, f, bgagent.Config{})
				id, session := turnOn(t, m, "p")
				f.say(session, "x")
				ended(t, m, id)
				time.Sleep(10 * time.Minute)
				require.Empty(t, f.all(), "the parent is in a turn")
				f.do(func() { f.statusErr = errors.New("no") })
				time.Sleep(time.Minute)
				require.Empty(t, f.all(), "a failed look decides nothing")
				f.do(func() { f.statusErr = nil })
				f.set("root", bgagent.SessionIdle)
				if by == "event" {
					m.Observe(idle("root"))
					synctest.Wait()
				} else {
					time.Sleep(3 * time.Second)
				}
				require.Len(t, f.all(), 1)
				require.Equal(t, bgagent.NoticeDelivered, get(t, m, id).Notice)
				asked := f.asked
				time.Sleep(time.Hour)
				require.Equal(t, asked, f.asked, "with nothing live and nothing owed nothing is polled")
			})
		})
	}
}

// Lesson 28.
func TestLesson28AnEndIsToldAsWhatItWas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var box inbox
		f := &goRunner{}
		f.run = func(ctx context.Context, s string, p bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
			if p.Text == "fail" {
				return bgagent.TurnEnd{}, errors.New("the agent stumbled")
			}
			return works(time.Minute)(ctx, s, p, r)
		}
		m := manage(t, f, bgagent.Config{Notify: box.notify})
		good, bad, cancelled := launch(t, m, "work"), launch(t, m, "fail"), launch(t, m, "cancel")
		_, err := m.Cancel(t.Context(), bgagent.Caller{}, cancelled.ID, bgagent.CancelOptions{Reason: "the host needs room"})
		require.NoError(t, err)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		require.Equal(t, map[string][]bgagent.Status{
			good.ID: {bgagent.Completed}, bad.ID: {bgagent.Failed}, cancelled.ID: {bgagent.Cancelled},
		}, box.told())
		require.Len(t, box.all(), 2, "what ended badly does not wait for the others")
		require.Contains(t, get(t, m, bad.ID).Reason, "the agent stumbled")
	})
}

// Lesson 29.
func TestLesson29NobodySeesNothingRunningAndNothingOwed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := manage(t, &goRunner{run: works(time.Millisecond)}, bgagent.Config{})
		for range 200 {
			id := launch(t, m, "p").ID
			for {
				live, owed := m.Outstanding("root")
				require.Positive(t, live+owed)
				if live == 0 {
					break
				}
				_, err := m.Wait(t.Context(), root, bgagent.WaitAll, id)
				require.NoError(t, err)
			}
			n, err := m.NextNotice(t.Context(), "root")
			require.NoError(t, err)
			require.Equal(t, id, n.Items[0].Task)
			_, err = m.NextNotice(t.Context(), "root")
			require.ErrorIs(t, err, bgagent.ErrNothingOwed)
		}
	})
}

// Lesson 31.
func TestLesson31ResultsCanBeReadAgainAndOnlyByThoseTheyBelongTo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := manage(t, &goRunner{run: works(time.Second)}, bgagent.Config{})
		task := launch(t, m, "p")
		ended(t, m, task.ID)
		for range 3 {
			got, err := m.Read(root, task.ID)
			require.NoError(t, err)
			require.Equal(t, "answer to p", got.Result)
		}
		require.Equal(t, bgagent.NoticeRead, get(t, m, task.ID).Notice)
		stranger := bgagent.Caller{Session: "somebody else"}
		_, err := m.Read(stranger, task.ID)
		require.ErrorIs(t, err, bgagent.ErrNotDescendant)
		_, err = m.Cancel(t.Context(), stranger, task.ID, bgagent.CancelOptions{})
		require.ErrorIs(t, err, bgagent.ErrNotDescendant)
		_, err = m.Resume(t.Context(), stranger, task.ID, bgagent.ResumeInput{Prompt: "x"})
		require.ErrorIs(t, err, bgagent.ErrNotDescendant)
		_, err = m.Cancel(t.Context(), root, task.ID, bgagent.CancelOptions{})
		require.ErrorIs(t, err, bgagent.ErrAlreadyEnded)
		_, err = m.Get("bg_0000000000000000")
		require.ErrorIs(t, err, bgagent.ErrUnknownTask)
		_, err = m.Get("nonsense")
		require.ErrorIs(t, err, bgagent.ErrUnknownTask)
	})
}

// Lesson 32.
func TestLesson32WhatHasEndedIsForgottenInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := manage(t, &goRunner{run: works(time.Second)}, bgagent.Config{RetainTasks: 5, Wake: bgagent.WakeNever, Limits: bgagent.Limits{Default: 1}})
		var ids []string
		for i := range 8 {
			ids = append(ids, launch(t, m, fmt.Sprint(i)).ID)
		}
		ended(t, m, ids...)
		_, err := m.Get(ids[0])
		var expired *bgagent.ExpiredError
		require.ErrorAs(t, err, &expired)
		require.Equal(t, bgagent.Completed, expired.Status)
		require.Len(t, m.List(bgagent.Query{}), 5)

		task, err := m.Resume(t.Context(), root, expired.Session, bgagent.ResumeInput{Prompt: "do you remember"})
		require.NoError(t, err, "by its session a task can be resumed of which only the tombstone is left")
		require.Equal(t, ids[0], task.ID)
		require.Equal(t, 2, task.Attempt)
		require.Equal(t, "answer to do you remember", ended(t, m, task.ID)[0].Result)

		_, ok := m.TakeNotice("root")
		require.True(t, ok)
		time.Sleep(31 * time.Minute)
		require.Empty(t, m.List(bgagent.Query{}))
	})
}

// Lesson 33.
func TestLesson33RestrictionsAreTheSameInEveryTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var specs []bgagent.SessionSpec
		var prompts []bgagent.Prompt
		f := &goRunner{}
		f.create = func(_ context.Context, s bgagent.SessionSpec) (string, error) {
			specs = append(specs, s)
			return f.nextID(), nil
		}
		f.run = func(_ context.Context, _ string, p bgagent.Prompt, _ *bgagent.Reporter) (bgagent.TurnEnd, error) {
			prompts = append(prompts, p)
			return bgagent.TurnEnd{Text: "x"}, nil
		}
		own := bgagent.Permission{Name: "bash", Pattern: "*", Action: bgagent.PermissionDeny}
		m := manage(t, f, bgagent.Config{
			Permissions:      []bgagent.Permission{{Name: "bash", Pattern: "*", Action: bgagent.PermissionAllow}},
			AgentPermissions: func(string) []bgagent.Permission { return []bgagent.Permission{own} },
		})
		task := launch(t, m, "p")
		ended(t, m, task.ID)
		_, err := m.Resume(t.Context(), root, task.ID, bgagent.ResumeInput{Prompt: "q", Model: "another/model"})
		require.NoError(t, err)
		ended(t, m, task.ID)
		require.Len(t, prompts, 2)
		for _, p := range prompts {
			require.Equal(t, specs[0].Permissions, p.Permissions)
			require.Equal(t, own, p.Permissions[len(p.Permissions)-1], "the agent's own rules come last and so decide")
		}
		require.Equal(t, "another/model", prompts[1].Model)
	})
}

// Lesson 34.
func TestLesson34DelegationHasABottom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := manage(t, &goRunner{run: works(time.Hour)}, bgagent.Config{MaxDepth: 2, MaxTasksPerRoot: 3})
		a := launch(t, m, "a")
		synctest.Wait()
		b, err := m.Launch(t.Context(), bgagent.Caller{Session: get(t, m, a.ID).Session}, bgagent.LaunchInput{Agent: "w", Prompt: "b"})
		require.NoError(t, err)
		require.Equal(t, 2, b.Depth)
		synctest.Wait()
		_, err = m.Launch(t.Context(), bgagent.Caller{Session: get(t, m, b.ID).Session}, bgagent.LaunchInput{Agent: "w", Prompt: "c"})
		require.ErrorIs(t, err, bgagent.ErrDepth)
		launch(t, m, "c")
		_, err = m.Launch(t.Context(), root, bgagent.LaunchInput{Agent: "w", Prompt: "d"})
		require.ErrorIs(t, err, bgagent.ErrTooManyTasks)
		require.Len(t, m.List(bgagent.Query{Under: "root"}), 3)
	})
}

// finder is a runner that knows sessions of the host.
type finder struct {
	*goRunner
	parents map[string]string
	err     error
}

func (f *finder) FindSession(_ context.Context, s string) (bgagent.SessionInfo, error) {
	if f.err != nil {
		return bgagent.SessionInfo{}, f.err
	}
	p, ok := f.parents[s]
	if !ok {
		return bgagent.SessionInfo{}, bgagent.ErrNoSession
	}
	return bgagent.SessionInfo{Parent: p, Directory: "/src"}, nil
}

// Lesson 34, parents that the host knows.
func TestLesson34ParentsAreLookedUpAndACircleIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &finder{goRunner: &goRunner{run: works(time.Hour)}, parents: map[string]string{"a": "b", "b": "c", "c": "a", "child": "root", "root": ""}}
		m := manage(t, f, bgagent.Config{MaxDepth: 2})
		in := bgagent.LaunchInput{Agent: "w", Prompt: "p"}
		_, err := m.Launch(t.Context(), bgagent.Caller{Session: "a"}, in)
		require.ErrorIs(t, err, bgagent.ErrParentCycle)
		task, err := m.Launch(t.Context(), bgagent.Caller{Session: "child"}, in)
		require.NoError(t, err)
		require.Equal(t, 2, task.Depth)
		require.Equal(t, "root", task.Root)
		_, err = m.Read(root, task.ID)
		require.NoError(t, err, "it descends from the root session too")
		f.err = errors.New("down")
		_, err = m.Launch(t.Context(), bgagent.Caller{Session: "unknown"}, in)
		require.ErrorContains(t, err, "down")
	})
}

// Lesson 35: a task that waits for its own child holds no slot.
func TestLesson35AChainOfDelegationsFinishesWithALimitOfOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m *bgagent.BackgroundManager
		f := &goRunner{}
		f.run = func(ctx context.Context, session string, p bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
			by := bgagent.Caller{Session: session}
			switch {
			case p.Notice != nil:
				child, err := m.Read(by, p.Notice.Items[0].Task)
				if err != nil {
					return bgagent.TurnEnd{}, err
				}
				return bgagent.TurnEnd{Text: p.Task[:3] + "heard: " + child.Result}, nil
			case p.Text == "0":
				return works(time.Second)(ctx, session, p, r)
			}
			next := string(p.Text[0] - 1)
			_, err := m.Run(ctx, by, bgagent.LaunchInput{Agent: "w", Prompt: next})
			if !errors.Is(err, bgagent.ErrGoesOn) {
				return bgagent.TurnEnd{}, fmt.Errorf("it would have waited for the slot it holds: %w", err)
			}
			return bgagent.TurnEnd{Text: "waiting"}, nil
		}
		m = manage(t, f, bgagent.Config{Limits: bgagent.Limits{Default: 1}, MaxDepth: 9})
		task, err := m.Run(t.Context(), root, bgagent.LaunchInput{Agent: "w", Prompt: "5"})
		require.NoError(t, err)
		require.Equal(t, bgagent.Completed, task.Status, task.Reason)
		require.Equal(t, "bg_heard: bg_heard: bg_heard: bg_heard: bg_heard: answer to 0", task.Result)
		require.Equal(t, 2, task.Progress.Turns)
	})
}

type valueKey struct{}

// Lesson 36.
func TestLesson36ATaskOutlivesTheCallThatLaunchedIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var seen any
		f := &goRunner{}
		f.run = func(ctx context.Context, s string, p bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
			seen = ctx.Value(valueKey{})
			return works(time.Minute)(ctx, s, p, r)
		}
		m := manage(t, f, bgagent.Config{})
		ctx, cancel := context.WithCancel(context.WithValue(t.Context(), valueKey{}, "tenant"))
		task, err := m.Launch(ctx, root, bgagent.LaunchInput{Agent: "w", Prompt: "p"})
		require.NoError(t, err)
		cancel()
		require.Equal(t, bgagent.Completed, ended(t, m, task.ID)[0].Status)
		require.Equal(t, "tenant", seen)
		_, err = m.Launch(ctx, root, bgagent.LaunchInput{Agent: "w", Prompt: "p"})
		require.ErrorIs(t, err, context.Canceled)
	})
}
