package bgagent_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/bgagenttest"
	"github.com/stretchr/testify/require"
)

// The closing notice lists only the tasks of its own batch.
func TestABatchThatWasReadIsNotListedInTheNext(t *testing.T) {
	var box inbox
	bubble(t, working(time.Second), bgagent.Config{Notify: box.notify, NoticeWindow: 10 * time.Second}, func(t *testing.T, m *bgagent.BackgroundManager) {
		a := launch(t, m, "a")
		time.Sleep(2 * time.Second) // task a has ended, and the notice about it waits for further tasks to end
		b := launch(t, m, "b")
		_, err := m.Read(root, a.ID)
		require.NoError(t, err)
		time.Sleep(time.Minute)
		require.Len(t, box.all(), 1)
		n := box.all()[0]
		require.Len(t, n.Items, 1)
		require.Equal(t, b.ID, n.Items[0].Task)
		require.Len(t, n.Batch, 1, "the notice must not list an earlier batch: %v", n.Batch)
	})
}

// While a batch is open, a notice is delivered 5 min after the earliest end that is still owed.
// Once a task has been read, its end is no longer owed.
func TestWhatWasReadDoesNotHurryTheRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var box inbox
		f := &goRunner{}
		f.run = func(ctx context.Context, s string, p bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
			d, _ := time.ParseDuration(p.Text)
			return works(d)(ctx, s, p, r)
		}
		m := manage(t, f, bgagent.Config{Notify: box.notify, TimeToLive: bgagent.Disabled})
		a, b := launch(t, m, "1s"), launch(t, m, "4m")
		launch(t, m, "30m")
		time.Sleep(4*time.Minute + time.Second)
		require.Equal(t, bgagent.Completed, get(t, m, b.ID).Status)
		_, err := m.Read(root, a.ID)
		require.NoError(t, err)
		time.Sleep(4 * time.Minute)
		require.Empty(t, box.all(), "the only end that is owed is 4 min old")
		time.Sleep(2 * time.Minute)
		require.Len(t, box.all(), 1)
	})
}

func TestNoticesCallTheToolsByTheNamesThatModelsKnow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var box inbox
		var spec bgagent.SessionSpec
		f := &goRunner{run: works(time.Second)}
		f.create = func(_ context.Context, s bgagent.SessionSpec) (string, error) { spec = s; return f.nextID(), nil }
		m := manage(t, f, bgagent.Config{Notify: box.notify, ToolNames: map[string]string{bgagent.ToolBackgroundOutput: "fetch", bgagent.ToolDelegateTask: "spawn"}})
		task := launch(t, m, "p")
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Contains(t, box.all()[0].Text, `fetch(task_id="`+task.ID+`")`)
		require.NotContains(t, box.all()[0].Text, bgagent.ToolBackgroundOutput)
		require.Equal(t, "spawn", spec.Permissions[0].Name, "a task that may not delegate does not get the tool")
		require.NotContains(t, m.Digest("root", 4096), bgagent.ToolBackgroundOutput)
	})
	for says, names := range map[string]map[string]string{
		"Config.ToolNames: renames":                   {"delegate": "x"},
		`Config.ToolNames: calls delegate_task "a b"`: {bgagent.ToolDelegateTask: "a b"},
		"two tools have the name":                     {bgagent.ToolDelegateTask: "background_cancel"},
	} {
		_, err := bgagent.New(bgagenttest.NewRunner(nil), bgagent.Config{ToolNames: names})
		require.ErrorContains(t, err, says)
	}
}

// When the last task of a batch ends, its end is reported to the parent exactly NoticeWindow later.
func TestNoticeComesExactlyOneWindowAfterTheEnd(t *testing.T) {
	for _, window := range []time.Duration{bgagent.Disabled, time.Millisecond, bgagent.DefaultNoticeWindow, 3 * time.Second} {
		t.Run(window.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				told := make(chan time.Time, 2)
				m := manage(t, working(time.Second), bgagent.Config{
					NoticeWindow: window,
					Notify: func(context.Context, string, bgagent.Notice) error {
						told <- time.Now()
						return nil
					},
				})
				task := launch(t, m, "work")
				time.Sleep(10 * time.Second)
				require.Len(t, told, 1)
				require.Equal(t, max(window, 0), (<-told).Sub(get(t, m, task.ID).Ended))
			})
		})
	}
}

func TestABatchThatWasGivenUpIsNotListedInTheNext(t *testing.T) {
	f := newServer()
	bubble(t, f, bgagent.Config{MaxDepth: 2}, func(t *testing.T, m *bgagent.BackgroundManager) {
		id, session := turnOn(t, m, "lead")
		by := bgagent.Caller{Session: session}
		launchBy := func(p string) (string, string) {
			c, err := m.Launch(t.Context(), by, bgagent.LaunchInput{Agent: "worker", Prompt: p})
			require.NoError(t, err)
			synctest.Wait()
			return c.ID, get(t, m, c.ID).Session
		}
		c1, s1 := launchBy("first")
		f.say(s1, "one")
		ended(t, m, c1)
		_, err := m.Cancel(t.Context(), root, id, bgagent.CancelOptions{})
		require.NoError(t, err)
		require.NoError(t, m.Quiet(t.Context(), id))
		_, err = m.Resume(t.Context(), root, id, bgagent.ResumeInput{Prompt: "again"})
		require.NoError(t, err)
		time.Sleep(time.Second)
		c2, s2 := launchBy("second")
		f.say(session, "waiting")
		f.say(s2, "two")
		ended(t, m, c2)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		ps := f.prompted()
		last := ps[len(ps)-1]
		require.NotNil(t, last.Notice)
		require.Len(t, last.Notice.Items, 1)
		require.Len(t, last.Notice.Batch, 1, "%s", last.Notice.Text)
	})
}

func TestABatchThatARootWasNotToldOfIsNotListedInTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var box inbox
		var up atomic.Bool
		box.fail = func(int) error {
			if !up.Load() {
				return errors.New("down")
			}
			return nil
		}
		m := manage(t, working(time.Second), bgagent.Config{Notify: box.notify, Retention: bgagent.Disabled})
		launch(t, m, "of another day")
		time.Sleep(30 * time.Hour)
		up.Store(true)
		n := launch(t, m, "today")
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Len(t, box.all(), 1)
		require.Len(t, box.all()[0].Items, 1)
		require.Equal(t, n.ID, box.all()[0].Items[0].Task)
		require.Len(t, box.all()[0].Batch, 1, "%s", box.all()[0].Text)
	})
}

func TestAnEndThatRunReturnsIsReadWhoeverLaunchedIt(t *testing.T) {
	var box inbox
	bubble(t, working(time.Second), bgagent.Config{Notify: box.notify}, func(t *testing.T, m *bgagent.BackgroundManager) {
		by := bgagent.Caller{Session: "root", ToolCallID: "call_1"}
		in := bgagent.LaunchInput{Agent: "w", Prompt: "p"}
		_, err := m.Launch(t.Context(), by, in)
		require.NoError(t, err)
		task, err := m.Run(t.Context(), by, in)
		require.NoError(t, err)
		require.Equal(t, bgagent.Completed, task.Status)
		time.Sleep(time.Minute)
		require.Empty(t, box.all())
	})
}

func TestAFailureThatWasReadDoesNotHurryTheRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var box inbox
		f := &goRunner{}
		f.run = func(ctx context.Context, s string, p bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
			if p.Text == "fail" {
				time.Sleep(2 * time.Second)
				return bgagent.TurnEnd{}, errors.New("no")
			}
			d, _ := time.ParseDuration(p.Text)
			return works(d)(ctx, s, p, r)
		}
		m := manage(t, f, bgagent.Config{Notify: box.notify})
		launch(t, m, "1s")
		b := launch(t, m, "fail")
		launch(t, m, "4m")
		ended(t, m, b.ID)
		_, err := m.Read(root, b.ID)
		require.NoError(t, err)
		time.Sleep(time.Minute)
		require.Empty(t, box.all(), "no owed end is a failure")
	})
}

// In this test, a parent is cancelled while a notice is being delivered to it. Then it is resumed
// and delegates again. It must get a notice only about the new batch.
func TestAResumedParentIsToldOfTheNewBatchOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newServer()
		f.started = func(_ string, p bgagent.Prompt) {
			if p.Notice != nil {
				time.Sleep(3 * time.Second)
			}
		}
		m := manage(t, f, bgagent.Config{MaxDepth: 2})
		id, session := turnOn(t, m, "lead")
		by := bgagent.Caller{Session: session}
		c, err := m.Launch(t.Context(), by, bgagent.LaunchInput{Agent: "worker", Prompt: "c"})
		require.NoError(t, err)
		synctest.Wait()
		f.say(session, "waiting")
		f.say(get(t, m, c.ID).Session, "one")
		ended(t, m, c.ID)
		time.Sleep(2500 * time.Millisecond) // the notice is being delivered
		_, err = m.Cancel(t.Context(), root, id, bgagent.CancelOptions{})
		require.NoError(t, err)
		_, err = m.Resume(t.Context(), root, id, bgagent.ResumeInput{Prompt: "again"})
		require.NoError(t, err)
		require.Equal(t, bgagent.NoticeGivenUp, get(t, m, c.ID).Notice)
		time.Sleep(5 * time.Second)
		require.Equal(t, bgagent.PhaseTurn, get(t, m, id).Phase)
		_, err = m.Resume(t.Context(), by, c.ID, bgagent.ResumeInput{Prompt: "c again"})
		require.NoError(t, err)
		time.Sleep(time.Second)
		f.say(session, "waiting again")
		f.say(get(t, m, c.ID).Session, "two")
		time.Sleep(10 * time.Second)
		ps := f.prompted()
		n := ps[len(ps)-1].Notice
		require.NotNil(t, n)
		require.Len(t, n.Items, 1)
		require.Len(t, n.Batch, 1)
		f.say(session, "the end")
		require.Equal(t, "the end", ended(t, m, id)[0].Result)
	})
}

func TestOnlyWhatTheParentCancelledIsWaived(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box := &inbox{}
		var m *bgagent.BackgroundManager
		f := &goRunner{}
		f.run = func(ctx context.Context, s string, p bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
			if p.Text == "parent" {
				go m.Run(ctx, bgagent.Caller{Session: s}, bgagent.LaunchInput{Agent: "a", Prompt: "child"})
				time.Sleep(time.Second)
				return bgagent.TurnEnd{Text: "the result"}, nil
			}
			return works(time.Hour)(ctx, s, p, r)
		}
		m = manage(t, f, bgagent.Config{MaxDepth: 2, Notify: box.notify})
		p := launch(t, m, "parent")
		time.Sleep(time.Minute)
		for _, c := range m.List(bgagent.Query{Parent: get(t, m, p.ID).Session}) {
			_, err := m.Cancel(t.Context(), root, c.ID, bgagent.CancelOptions{})
			require.NoError(t, err)
		}
		time.Sleep(time.Minute)
		require.Equal(t, bgagent.Completed, get(t, m, p.ID).Status)
		require.Equal(t, bgagent.NoticeDelivered, get(t, m, p.ID).Notice)
		require.NotEmpty(t, box.all())
	})
}

func TestABatchThatWasReadDoesNotHurryTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &inbox{}
		f := &goRunner{run: func(ctx context.Context, s string, p bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
			d, _ := time.ParseDuration(p.Text)
			return works(d)(ctx, s, p, r)
		}}
		m := manage(t, f, bgagent.Config{Notify: b.notify})
		a := launch(t, m, "1ms").ID
		time.Sleep(10 * time.Millisecond) // the first task's batch has closed
		launch(t, m, "1m")
		launch(t, m, "1ms")
		time.Sleep(10 * time.Millisecond)
		_, err := m.Read(root, a)
		require.NoError(t, err)
		time.Sleep(10 * time.Second)
		require.Empty(t, b.all(), "the first batch was read, and the second is open without a failure")
	})
}

func TestATaskThatWasReadLeavesNoHurry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &inbox{}
		f := &goRunner{run: func(ctx context.Context, s string, p bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
			if p.Text == "fail" {
				return bgagent.TurnEnd{}, errors.New("no")
			}
			d, _ := time.ParseDuration(p.Text)
			return works(d)(ctx, s, p, r)
		}}
		m := manage(t, f, bgagent.Config{Notify: b.notify})
		launch(t, m, "1m")
		launch(t, m, "1ms")
		a := launch(t, m, "fail").ID
		time.Sleep(10 * time.Millisecond)
		_, err := m.Resume(t.Context(), bgagent.Caller{}, a, bgagent.ResumeInput{Prompt: "1ms"})
		require.NoError(t, err)
		time.Sleep(10 * time.Millisecond)
		require.Equal(t, bgagent.Completed, get(t, m, a).Status)
		_, err = m.Read(root, a)
		require.NoError(t, err)
		time.Sleep(10 * time.Second)
		require.Empty(t, b.all())
	})
}

// If twenty tasks end one after the other, the parent must be woken once, not twenty times. A
// cancelled task must not keep its batch open.
func TestOneNoticeForABatch(t *testing.T) {
	var box inbox
	bubble(t, working(time.Minute), bgagent.Config{Limits: bgagent.Limits{Default: 20}, Notify: box.notify}, func(t *testing.T, m *bgagent.BackgroundManager) {
		var ids []string
		for i := range 20 {
			ids = append(ids, launch(t, m, fmt.Sprint(i)).ID)
		}
		_, err := m.Cancel(t.Context(), root, ids[7], bgagent.CancelOptions{})
		require.NoError(t, err)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		require.Len(t, box.all(), 1, "twenty consecutive ends must wake the parent once")
		n := box.all()[0]
		require.True(t, n.Closing)
		require.Zero(t, n.Live)
		require.Len(t, n.Items, 19, "the task that the parent cancelled needs no notice")
		require.Len(t, n.Batch, 20)
		require.Equal(t, bgagent.NoticeWaived, get(t, m, ids[7]).Notice)

		next := launch(t, m, "another batch")
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		require.Len(t, box.all(), 2)
		require.Len(t, box.all()[1].Batch, 1, "an earlier batch must not be reported again")
		require.Equal(t, next.ID, box.all()[1].Batch[0].Task)
	})
}

func TestAnEndIsToldAsWhatItWas(t *testing.T) {
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
		require.Len(t, box.all(), 2, "a failure does not wait for the end of the batch")
		require.Contains(t, get(t, m, bad.ID).Reason, "the agent stumbled")
	})
}

// Between the end of a task and its notice, Outstanding must not return zero for both live
// tasks and owed notices. Otherwise, a waiting program would stop waiting too early.
func TestNobodySeesNothingRunningAndNothingOwed(t *testing.T) {
	bubble(t, working(time.Millisecond), bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager) {
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
