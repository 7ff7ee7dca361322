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
	"github.com/bgagent/bgagent/internal/race"
	"github.com/stretchr/testify/require"
)

// If several causes of an end coincide, the attempt still ends once and is reported once.
func TestRacesEndOnceAndAreToldOnce(t *testing.T) {
	rounds := 300
	if testing.Short() || race.Enabled {
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
					time.Sleep(time.Millisecond) // return after the context has ended
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
			require.Len(t, ends, attempts, "seed %d: every attempt must end", seed)
			for k, n := range ends {
				require.Equal(t, 1, n, "seed %d: %s must end once", seed, k)
				require.Equal(t, 1, told[k], "seed %d: %s must be reported once", seed, k)
			}
			require.Len(t, told, len(ends))
		})
	}
}

func TestEndsThatAreNotCompletedCascade(t *testing.T) {
	bubble(t, working(time.Hour), bgagent.Config{MaxDepth: 3, TimeToLive: bgagent.Disabled}, func(t *testing.T, m *bgagent.BackgroundManager) {
		a := launch(t, m, "a")
		synctest.Wait()
		session := get(t, m, a.ID).Session
		child, err := m.Launch(t.Context(), bgagent.Caller{Session: session}, bgagent.LaunchInput{Agent: "worker", Prompt: "child"})
		require.NoError(t, err)
		synctest.Wait()
		m.SessionDeleted(session)
		synctest.Wait()
		require.Equal(t, bgagent.CauseSessionDeleted, get(t, m, a.ID).Cause)
		require.Equal(t, bgagent.CauseParentEnded, get(t, m, child.ID).Cause)
		require.Equal(t, bgagent.NoticeGivenUp, get(t, m, child.ID).Notice, "no notice is sent to a session whose task has ended")
		_, err = m.Launch(t.Context(), bgagent.Caller{Session: session}, bgagent.LaunchInput{Agent: "worker", Prompt: "late"})
		require.ErrorIs(t, err, bgagent.ErrSessionEnded)
		_, err = m.Resume(t.Context(), root, a.ID, bgagent.ResumeInput{Prompt: "go on"})
		require.ErrorIs(t, err, bgagent.ErrNoSession)

		b := launch(t, m, "b")
		m.SessionDeleted("root")
		synctest.Wait()
		require.Equal(t, bgagent.CauseParentEnded, get(t, m, b.ID).Cause)
		_, err = m.Launch(t.Context(), root, bgagent.LaunchInput{Agent: "worker", Prompt: "late"})
		require.ErrorIs(t, err, bgagent.ErrSessionEnded)
	})
}

// The function "delegates" returns a function that runs turns that last for the duration d. If a
// turn's prompt is "delegate", the turn launches one task for each of the given prompts.
func delegates(m **bgagent.BackgroundManager, d time.Duration, prompts ...string) func(context.Context, string, bgagent.Prompt, *bgagent.Reporter) (bgagent.TurnEnd, error) {
	return func(ctx context.Context, session string, p bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
		if p.Text == "delegate" {
			for _, prompt := range prompts {
				_, _ = (*m).Launch(ctx, bgagent.Caller{Session: session}, bgagent.LaunchInput{Agent: "worker", Prompt: prompt})
			}
		}
		return works(d)(ctx, session, p, r)
	}
}

// While a cascade is ending a task's children, records can expire. Expired records leave the lists
// over which the cascade iterates, but the cascade must still reach every child.
func TestCascadeReachesEveryChildWhileRecordsExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m *bgagent.BackgroundManager
		f := &goRunner{}
		m = manage(t, f, bgagent.Config{MaxDepth: 2, RetainTasks: 1, Limits: bgagent.Limits{Default: 2}})
		f.run = delegates(&m, time.Hour, "a", "b", "c", "d")
		parent := launch(t, m, "delegate")
		synctest.Wait()
		require.Len(t, m.List(bgagent.Query{Parent: "ses_1"}), 4)
		_, err := m.Cancel(t.Context(), bgagent.Caller{}, parent.ID, bgagent.CancelOptions{})
		require.NoError(t, err)
		for _, task := range m.List(bgagent.Query{}) {
			require.True(t, task.Status.Terminal(), "%s is %s", task.Description, task.Status)
		}
		synctest.Wait()
	})
}

// In this test, when a session's task ends, the session's node exists only because notices about
// the task's children are owed. During the cascade, these children expire and the node is removed.
// The cascade must still finish.
func TestCascadeSurvivesTheForgettingOfItsNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m *bgagent.BackgroundManager
		f := &goRunner{}
		m = manage(t, f, bgagent.Config{MaxDepth: 2, RetainTasks: 1, Limits: bgagent.Limits{Default: 5}, NoticeMaxWait: bgagent.Disabled})
		f.run = func(ctx context.Context, session string, p bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
			switch p.Text {
			case "delegate":
				return delegates(&m, time.Hour, "quick")(ctx, session, p, r)
			case "quick":
				return works(time.Second)(ctx, session, p, r)
			}
			return works(time.Millisecond)(ctx, session, p, r)
		}
		for range 3 {
			launch(t, m, "before")
		}
		parent := launch(t, m, "delegate")
		time.Sleep(time.Minute)
		_, err := m.Cancel(t.Context(), root, parent.ID, bgagent.CancelOptions{})
		require.NoError(t, err)
		synctest.Wait()
	})
}

// A task's children end with it, even if its record expires immediately.
func TestTheChildrenOfATaskThatExpiresAtItsEndAreCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m *bgagent.BackgroundManager
		var child bgagent.Task
		f := &goRunner{}
		f.run = func(ctx context.Context, s string, p bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
			if p.Text == "parent" {
				var err error
				child, err = m.Launch(ctx, bgagent.Caller{Session: s}, bgagent.LaunchInput{Agent: "a", Prompt: "child"})
				return bgagent.TurnEnd{Text: "launched"}, err
			}
			return works(time.Hour)(ctx, s, p, r)
		}
		m = manage(t, f, bgagent.Config{MaxDepth: 2, RetainTasks: 1, Wake: bgagent.WakeNever, Limits: bgagent.Limits{Default: 3}})
		untold := launch(t, m, "untold")
		_, err := m.Cancel(t.Context(), bgagent.Caller{}, untold.ID, bgagent.CancelOptions{})
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			time.Sleep(time.Minute)
			cancel()
		}()
		parent, err := m.Run(ctx, root, bgagent.LaunchInput{Agent: "a", Prompt: "parent"})
		require.ErrorIs(t, err, context.Canceled)
		synctest.Wait()
		_, err = m.Get(parent.ID)
		require.ErrorIs(t, err, bgagent.ErrExpired)
		_, err = m.Get(child.ID)
		require.ErrorContains(t, err, "its last attempt ended as cancelled")
	})
}

func TestAWaitingTaskEndsWhenNothingIsOwedToItAnyMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m *bgagent.BackgroundManager
		f := &goRunner{}
		f.run = func(ctx context.Context, s string, p bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
			switch p.Text {
			case "parent":
				_, err := m.Launch(ctx, bgagent.Caller{Session: s}, bgagent.LaunchInput{Agent: "b", Prompt: "child"})
				return bgagent.TurnEnd{Text: "delegated"}, err
			case "long":
				return works(20*time.Minute)(ctx, s, p, r)
			}
			return works(time.Second)(ctx, s, p, r)
		}
		m = manage(t, f, bgagent.Config{MaxDepth: 2, Limits: bgagent.Limits{Default: 1}, NoticeWindow: bgagent.Disabled})
		in := bgagent.LaunchInput{Agent: "a", Prompt: "parent"}
		p, err := m.Launch(t.Context(), root, in)
		require.NoError(t, err)
		in.Prompt = "long"
		synctest.Wait()
		_, err = m.Launch(t.Context(), root, in)
		require.NoError(t, err)
		time.Sleep(5 * time.Second)
		s := get(t, m, p.ID).Session
		n, ok := m.TakeNotice(s)
		require.True(t, ok)
		require.Len(t, n.Items, 1)
		live, owed := m.Outstanding(s)
		require.Zero(t, live+owed)
		synctest.Wait()
		require.Equal(t, bgagent.Completed, get(t, m, p.ID).Status, "the task has nothing left to wait for")
	})
}

// A task does not hold a slot while it waits for its own child.
func TestAChainOfDelegationsFinishesWithALimitOfOne(t *testing.T) {
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
				return bgagent.TurnEnd{}, fmt.Errorf("the call would have waited for the slot that its own task holds: %w", err)
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
