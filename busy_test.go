package bgagent_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

// A busy parent must not be prompted in the middle of a turn.
func TestABusyParentIsToldWhenItIsIdle(t *testing.T) {
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
				require.Empty(t, f.all(), "a failed status call decides nothing")
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
				require.Equal(t, asked, f.asked, "without live tasks and owed notices, nothing is polled")
			})
		})
	}
}

// A busy session can refuse the notice that closes a batch. The notice still closes the batch when
// it is delivered later.
func TestABusyParentIsToldThatItsBatchIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		busy := true
		var got []bgagent.Notice
		m := manage(t, working(time.Minute), bgagent.Config{Notify: func(_ context.Context, _ string, n bgagent.Notice) error {
			if busy {
				busy = false
				return bgagent.ErrBusy
			}
			got = append(got, n)
			return nil
		}})
		launch(t, m, "a")
		launch(t, m, "b")
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		require.Len(t, got, 1)
		require.Len(t, got[0].Items, 2)
		require.True(t, got[0].Closing)
		require.Len(t, got[0].Batch, 2)
	})
}

// Delivery to a busy parent is retried after Config.PollInterval, not immediately.
func TestABusyNotifierIsTriedAgainAfterThePollInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var at []time.Duration
		began := time.Now()
		cfg := bgagent.Config{Notify: func(context.Context, string, bgagent.Notice) error {
			if at = append(at, time.Since(began)); len(at) < 10 {
				return bgagent.ErrBusy
			}
			return nil
		}}
		m := manage(t, working(time.Second), cfg)
		a := launch(t, m, "a")
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		require.Equal(t, bgagent.NoticeDelivered, get(t, m, a.ID).Notice)
		for i := 1; i < len(at); i++ {
			require.GreaterOrEqual(t, at[i]-at[i-1], bgagent.DefaultPollInterval, "try %d: %v", i+1, at)
		}
	})
}

func TestABusyNotifierIsAskedOncePerPollInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		m := manage(t, working(time.Second), bgagent.Config{Notify: func(context.Context, string, bgagent.Notice) error {
			if calls++; calls < 10 {
				return bgagent.ErrBusy
			}
			return nil
		}})
		id := launch(t, m, "p").ID
		ended(t, m, id)
		began := time.Now()
		for get(t, m, id).Notice != bgagent.NoticeDelivered && time.Since(began) < time.Hour {
			time.Sleep(time.Second)
		}
		require.Equal(t, 10, calls)
		require.Greater(t, time.Since(began), 9*bgagent.DefaultPollInterval)
		require.Less(t, time.Since(began), 11*bgagent.DefaultPollInterval)
	})
}

// If no notice is owed to a busy parent, the parent is not polled.
func TestNothingPollsForABusyParentThatHasReadEverything(t *testing.T) {
	for name, settle := range map[string]func(m *bgagent.BackgroundManager, id string){
		"read":    func(m *bgagent.BackgroundManager, id string) { _, _ = m.Read(root, id) },
		"deleted": func(m *bgagent.BackgroundManager, id string) { m.SessionDeleted("root") },
		"taken":   func(m *bgagent.BackgroundManager, id string) { m.TakeNotice("root") },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newServer()
				f.sessions["root"] = &served{state: bgagent.SessionBusy}
				var box inbox
				m := manage(t, f, bgagent.Config{Notify: box.notify})
				id, session := turnOn(t, m, "a")
				f.say(session, "done")
				time.Sleep(20 * time.Second)
				require.Equal(t, bgagent.NoticeOwed, get(t, m, id).Notice)
				settle(m, id)
				time.Sleep(10 * time.Second)
				before := f.askedFor()
				time.Sleep(time.Minute)
				require.Equal(t, before, f.askedFor(), "there are no status calls without live tasks and owed notices")
			})
		})
	}
}

// If the parent reads a task while the notice about it is being delivered, the notice does
// not affect later batches.
func TestANoticeReadOnItsWayToABusyParentLeavesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m *bgagent.BackgroundManager
		var got []bgagent.Notice
		first := true
		cfg := bgagent.Config{Notify: func(_ context.Context, _ string, n bgagent.Notice) error {
			if first {
				first = false
				_, err := m.Read(root, n.Items[0].Task)
				require.NoError(t, err)
				return bgagent.ErrBusy
			}
			got = append(got, n)
			return nil
		}}
		m = manage(t, working(time.Second), cfg)
		a := launch(t, m, "a")
		time.Sleep(time.Minute)
		require.Equal(t, bgagent.NoticeRead, get(t, m, a.ID).Notice)
		b, c := launch(t, m, "b"), launch(t, m, "c")
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Len(t, got, 1)
		require.Len(t, got[0].Items, 2, "one notice reports both tasks of the batch")
		for _, it := range got[0].Batch {
			require.Contains(t, []string{b.ID, c.ID}, it.Task, "the batch must not list an earlier task")
		}
	})
}

func TestTheClientThatKnowsTheSessionSaysWhetherItIsBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newServer()
		b := &rootServer{server: newServer()}
		b.sessions["root"] = &served{state: bgagent.SessionBusy}
		m := manage(t, a, bgagent.Config{Clients: map[string]bgagent.SessionClient{"b": b}})
		id, session := turnOn(t, m, "p")
		a.say(session, "x")
		ended(t, m, id)
		time.Sleep(10 * time.Minute)
		require.Empty(t, b.all(), "its client reports it as busy")
		b.set("root", bgagent.SessionIdle)
		time.Sleep(time.Minute)
		require.Len(t, b.all(), 1)
	})
}

func TestALookThatFailedIsNotOneThatToldNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &notifyingServer{server: newServer()}
		f.sessions["root"] = &served{state: bgagent.SessionBusy}
		m := manage(t, f, bgagent.Config{})
		id, session := turnOn(t, m, "p")
		f.say(session, "x")
		ended(t, m, id)
		f.do(func() { f.statusErr = errors.New("down") })
		time.Sleep(2 * time.Second) // the polls after 0.1 s and 1.1 s fail
		n := 0
		f.do(func() {
			f.statusErr = nil
			f.statuses = func(m map[string]bgagent.SessionStatus) {
				if n++; n == 1 {
					clear(m)
				}
			}
		})
		time.Sleep(time.Minute)
		require.Empty(t, f.all(), "the session is in a turn")
	})
}

func TestASessionThatIsBusyForADayIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newServer()
		rootState := bgagent.SessionIdle
		f.statuses = func(a map[string]bgagent.SessionStatus) { a["root"] = bgagent.SessionStatus{State: rootState} }
		m := manage(t, f, bgagent.Config{Notify: func(context.Context, string, bgagent.Notice) error { return bgagent.ErrBusy }})
		_, a := turnOn(t, m, "a")
		f.say(a, "one")
		m.Observe(idle(a))
		time.Sleep(30 * time.Hour)
		_, owed := m.Outstanding("root")
		require.Zero(t, owed)
	})
}

func TestABusyParentOfAnOldManagerHangsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newServer()
		rootState := bgagent.SessionIdle
		f.statuses = func(a map[string]bgagent.SessionStatus) { a["root"] = bgagent.SessionStatus{State: rootState} }
		m := manage(t, f, bgagent.Config{Wake: bgagent.WakeEach, Notify: func(context.Context, string, bgagent.Notice) error {
			time.Sleep(time.Second)
			f.do(func() { rootState = bgagent.SessionBusy }) // the notice prompts the root session
			return nil
		}})
		time.Sleep(25 * time.Hour)
		_, a := turnOn(t, m, "a")
		_, b := turnOn(t, m, "b")
		f.say(a, "one")
		m.Observe(idle(a))
		time.Sleep(300 * time.Millisecond) // the notice about the first task is being delivered
		f.say(b, "two")
		m.Observe(idle(b))
		time.Sleep(10 * time.Second)
		f.do(func() { rootState = bgagent.SessionIdle })
		time.Sleep(10 * time.Second)
		_, owed := m.Outstanding("root")
		require.Zero(t, owed)
	})
}
