package bgagent_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

var errRefused = fmt.Errorf("fake: dial tcp 127.0.0.1:4096: connection refused: %w", bgagent.ErrUnreachable)

func TestAStartThatCannotReachItsServerIsHeldBack(t *testing.T) {
	for name, away := range map[string]func(*server, error){
		"while sessions are made": func(f *server, err error) { f.createErr = err },
		"while prompts are sent":  func(f *server, err error) { f.startErr = err },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newServer().answers(20 * time.Second)
				away(f, errRefused)
				m := manage(t, f, limit(10))
				var ids []string
				for i := range 50 {
					ids = append(ids, launch(t, m, fmt.Sprint("task ", i)).ID)
				}
				time.Sleep(2 * time.Second)
				running := m.List(bgagent.Query{Status: []bgagent.Status{bgagent.Running}})
				require.Len(t, running, 10, "the tasks in line must not fail")
				for _, task := range running {
					require.Equal(t, bgagent.PhaseStarting, task.Phase)
					require.Contains(t, task.Progress.Detail, "connection refused")
				}
				f.do(func() { away(f, nil) })
				time.Sleep(5 * time.Second)
				for _, task := range m.List(bgagent.Query{Status: []bgagent.Status{bgagent.Running}}) {
					require.Equal(t, bgagent.PhaseTurn, task.Phase)
					require.Empty(t, task.Progress.Detail)
					require.Equal(t, 1, task.Progress.Turns)
				}
				for _, task := range ended(t, m, ids...) {
					require.Equal(t, bgagent.Completed, task.Status, task.Reason)
				}
				require.Len(t, f.prompted(), 50, "no prompt may be sent twice")
				fullBatch(t, m, 10)
				time.Sleep(time.Minute)
			})
		})
	}
}

func TestOneStartTriesWhileTheOthersWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls atomic.Int64
		f := &goRunner{run: works(time.Second)}
		f.create = func(context.Context, bgagent.SessionSpec) (string, error) {
			calls.Add(1)
			return "", errRefused
		}
		m := manage(t, f, limit(20))
		launch(t, m, "p")
		synctest.Wait() // let the manager find out about the outage before the other tasks start
		for range 19 {
			launch(t, m, "p")
		}
		time.Sleep(time.Minute)
		require.Less(t, calls.Load(), int64(20), "only one start at a time is tried, with growing pauses")
		require.Greater(t, calls.Load(), int64(10))
		_, err := m.CancelAll(t.Context(), root, bgagent.CancelOptions{})
		require.NoError(t, err)
		time.Sleep(time.Second)
		calls.Store(0)
		time.Sleep(time.Minute)
		require.Zero(t, calls.Load(), "no task is left that could try to start")
		synctest.Wait()
		f.create = nil
		fullBatch(t, m, 20)
	})
}

func TestAServerThatStaysAwayFailsTheStartInTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newServer().answers(time.Second)
		f.createErr = errRefused
		m := manage(t, f, bgagent.Config{HostUnreachable: time.Minute})
		id := launch(t, m, "p").ID
		time.Sleep(59 * time.Second)
		require.Equal(t, bgagent.Running, get(t, m, id).Status)
		task := ended(t, m, id)[0]
		require.Equal(t, bgagent.CauseHostUnreachable, task.Cause)
		require.Equal(t, "nothing was started, because the agent runtime could not be reached for 1m0s: fake: dial tcp 127.0.0.1:4096: connection refused: the agent runtime cannot be reached; Config.HostUnreachable (hostUnreachableMs) decides how long is too long", task.Reason)
		require.InDelta(t, time.Minute, task.Duration(time.Now()), float64(time.Millisecond))
		f.do(func() { f.createErr = nil })
		require.Equal(t, bgagent.Completed, ended(t, m, launch(t, m, "q").ID)[0].Status)
	})
}

func TestAHeldBackStartCanBeCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newServer().answers(time.Second)
		f.startErr = errRefused
		m := manage(t, f, limit(1))
		a, b := launch(t, m, "a"), launch(t, m, "b")
		time.Sleep(time.Second)
		_, err := m.Cancel(t.Context(), root, a.ID, bgagent.CancelOptions{})
		require.NoError(t, err)
		time.Sleep(20 * time.Second)
		require.True(t, get(t, m, a.ID).Quiet)
		require.Equal(t, bgagent.Running, get(t, m, b.ID).Status, "the slot of the failed task must be free")
		f.do(func() { f.startErr = nil })
		require.Equal(t, bgagent.Completed, ended(t, m, b.ID)[0].Status)
		for _, p := range f.prompted() {
			require.Equal(t, "b", p.Text)
		}
	})
}

func TestARunnerThatCannotReachItsServerIsHeldBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var back atomic.Bool
		f := &goRunner{}
		f.run = func(ctx context.Context, s string, p bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
			if !back.Load() {
				return bgagent.TurnEnd{}, errRefused
			}
			r.Text("working")
			return works(time.Minute)(ctx, s, p, r)
		}
		m := manage(t, f, limit(2))
		a, b, c := launch(t, m, "a"), launch(t, m, "b"), launch(t, m, "c")
		time.Sleep(3 * time.Second)
		require.Equal(t, bgagent.PhaseStarting, get(t, m, a.ID).Phase)
		require.Equal(t, bgagent.Pending, get(t, m, c.ID).Status)
		back.Store(true)
		time.Sleep(5 * time.Second)
		for _, id := range []string{a.ID, b.ID} {
			require.Equal(t, bgagent.PhaseTurn, get(t, m, id).Phase, "the other tasks must not wait for the turn that has begun")
			require.Equal(t, "working", get(t, m, id).Progress.LastMessage)
		}
		for _, task := range ended(t, m, a.ID, b.ID, c.ID) {
			require.Equal(t, bgagent.Completed, task.Status, task.Reason)
			require.Equal(t, 1, task.Progress.Turns)
		}
	})
}

// soFar returns all unread events of the subscription.
func soFar(t *testing.T, events *bgagent.Subscription) (all []bgagent.Event) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	for {
		e, err := events.Next(ctx)
		if err != nil {
			return all
		}
		all = append(all, e)
	}
}

func TestATaskSaysSinceWhenAndWhyItsServerIsOutOfReach(t *testing.T) {
	for name, away := range map[string]func(*server, error){
		"while sessions are made": func(f *server, err error) { f.createErr = err },
		"while prompts are sent":  func(f *server, err error) { f.startErr = err },
		"while a turn runs":       func(f *server, err error) { f.statusErr = err },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newServer().answers(20 * time.Second)
				away(f, errRefused)
				m := manage(t, f, bgagent.Config{})
				_, events := m.Subscribe(100)
				defer events.Close()
				began := time.Now()
				a, b := launch(t, m, "a"), launch(t, m, "b")
				time.Sleep(10 * time.Second)
				for _, id := range []string{a.ID, b.ID} {
					o := get(t, m, id).Outage
					require.NotNil(t, o)
					require.WithinDuration(t, began, o.Since, time.Second)
					require.Equal(t, o.Since.Add(bgagent.DefaultHostUnreachable), o.Until)
					require.Contains(t, o.Reason, "connection refused")
				}
				told := map[string]int{}
				for _, e := range soFar(t, events) {
					if e.Task.Outage != nil {
						told[e.Task.ID]++
					}
				}
				require.Len(t, told, 2, "an event must report the outage")
				f.do(func() { away(f, nil) })
				time.Sleep(6 * time.Second)
				for _, id := range []string{a.ID, b.ID} {
					require.Nil(t, get(t, m, id).Outage)
				}
				last := map[string]*bgagent.Outage{}
				for _, e := range soFar(t, events) {
					last[e.Task.ID] = e.Task.Outage
				}
				require.Equal(t, map[string]*bgagent.Outage{a.ID: nil, b.ID: nil}, last, "an event must report the end of the outage")
				for _, task := range ended(t, m, a.ID, b.ID) {
					require.Equal(t, bgagent.Completed, task.Status, task.Reason)
					require.Nil(t, task.Outage)
				}
			})
		})
	}
}

func TestAnOutageThatIsNeverTooLongHasNoEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newServer().answers(time.Second)
		f.createErr = errRefused
		m := manage(t, f, bgagent.Config{HostUnreachable: bgagent.Disabled})
		id := launch(t, m, "p").ID
		time.Sleep(20 * time.Minute)
		require.True(t, get(t, m, id).Outage.Until.IsZero())
	})
}
