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
	"github.com/stretchr/testify/require"
)

// If the delivery of a notice fails, it is retried with the same id.
func TestAFailedNoticeIsNeitherLostNorDoubled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ids []string
		var box inbox
		box.fail = func(n int) error {
			if n < 5 {
				return errors.New("no")
			}
			return nil
		}
		m := manage(t, working(time.Second), bgagent.Config{Retention: bgagent.Disabled, Notify: func(ctx context.Context, s string, n bgagent.Notice) error {
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
		require.True(t, ok, "an abandoned notice can still be taken")
		require.Equal(t, task.ID, n.Items[0].Task)
	})
}

// A repeated notice is unchanged, even if the host has modified the first copy.
func TestANoticeIsRepeatedUnchanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var items []string
		var ids []string
		cfg := bgagent.Config{Notify: func(_ context.Context, _ string, n bgagent.Notice) error {
			items, ids = append(items, n.Items[0].Task+n.Batch[0].Task), append(ids, n.ID)
			n.Items[0].Task, n.Batch[0].Task = "changed", "changed"
			if len(items) < 2 {
				return errors.New("not now")
			}
			return nil
		}}
		m := manage(t, working(time.Second), cfg)
		a := launch(t, m, "a")
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Equal(t, []string{a.ID + a.ID, a.ID + a.ID}, items)
		require.Equal(t, ids[0], ids[1])
	})
}

// noticeIs checks that the notice is in the given state. If the record has expired, the check also
// passes, because a record expires only after its notice has been settled.
func noticeIs(t *testing.T, m *bgagent.BackgroundManager, id string, s bgagent.NoticeState) {
	t.Helper()
	task, err := m.Get(id)
	if errors.Is(err, bgagent.ErrExpired) {
		return
	}
	require.NoError(t, err)
	require.Equal(t, s, task.Notice)
}

// If the session is always busy or its status cannot be read, the delivery of a notice is abandoned
// after 24 h.
func TestANoticeIsGivenUpAfterADay(t *testing.T) {
	t.Run("always busy", func(t *testing.T) {
		cfg := bgagent.Config{PollInterval: time.Minute, Retention: bgagent.Disabled, Notify: func(context.Context, string, bgagent.Notice) error { return bgagent.ErrBusy }}
		bubble(t, working(time.Second), cfg, func(t *testing.T, m *bgagent.BackgroundManager) {
			a := launch(t, m, "a")
			time.Sleep(23 * time.Hour)
			require.Equal(t, bgagent.NoticeOwed, get(t, m, a.ID).Notice)
			time.Sleep(3 * time.Hour)
			noticeIs(t, m, a.ID, bgagent.NoticeGivenUp)
			n, ok := m.TakeNotice("root")
			require.True(t, ok)
			require.Len(t, n.Items, 1)
		})
	})
	for name, status := range map[string]func(f *server){
		"status unreadable": func(f *server) { f.statusErr = errors.New("down") },
		"status busy":       func(f *server) { f.sessions["root"].state = bgagent.SessionBusy },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newServer()
				f.sessions["root"] = &served{state: bgagent.SessionIdle}
				var box inbox
				m := manage(t, f, bgagent.Config{PollInterval: time.Minute, Notify: box.notify, NoticeWindow: 10 * time.Second, Retention: bgagent.Disabled})
				id, session := turnOn(t, m, "a")
				f.say(session, "done")
				time.Sleep(2 * time.Minute)
				require.Equal(t, bgagent.Completed, get(t, m, id).Status)
				id, session = turnOn(t, m, "b")
				f.say(session, "done")
				for get(t, m, id).Status != bgagent.Completed {
					time.Sleep(time.Second)
				}
				f.do(func() { status(f) })
				time.Sleep(23 * time.Hour)
				require.Equal(t, bgagent.NoticeOwed, get(t, m, id).Notice)
				time.Sleep(3 * time.Hour)
				noticeIs(t, m, id, bgagent.NoticeGivenUp)
			})
		})
	}
}

// The time before a notice is due does not count towards the 24 h after which its delivery is
// abandoned.
func TestANoticeThatWaitedForItsBatchIsTriedAsOftenAsAnyOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var box inbox
		box.fail = func(n int) error {
			if n < 3 {
				return errors.New("not now")
			}
			return nil
		}
		f := &goRunner{}
		f.run = func(ctx context.Context, s string, p bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
			d, _ := time.ParseDuration(p.Text)
			return works(d)(ctx, s, p, r)
		}
		m := manage(t, f, bgagent.Config{Notify: box.notify, NoticeMaxWait: bgagent.Disabled, TimeToLive: bgagent.Disabled})
		a := launch(t, m, "1s")
		launch(t, m, "30h")
		time.Sleep(30*time.Hour + time.Minute)
		require.Equal(t, bgagent.NoticeDelivered, get(t, m, a.ID).Notice)
	})
}

// A notice can be abandoned while its delivery is still running. If the host then accepts the
// notice, it is not delivered a second time. If the host refuses the notice, it can still be taken.
func TestWhatWasGivenUpOnItsWayIsToldOnce(t *testing.T) {
	for name, answer := range map[string]error{"taken after all": nil, "not taken": errors.New("gone")} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := manage(t, working(time.Second), bgagent.Config{
					Notify: func(context.Context, string, bgagent.Notice) error {
						time.Sleep(5 * time.Second)
						return answer
					},
				})
				a := launch(t, m, "a")
				time.Sleep(3 * time.Second)
				m.Observe(bgagent.HostEvent{Kind: bgagent.HostDeleted, Session: "root"})
				require.Equal(t, bgagent.NoticeGivenUp, get(t, m, a.ID).Notice)
				_, ok := m.TakeNotice("root")
				require.False(t, ok, "the notice is still being delivered")
				n, err := m.NextNotice(t.Context(), "root")
				if answer == nil {
					require.ErrorIs(t, err, bgagent.ErrNothingOwed)
				} else {
					require.NoError(t, err)
					require.Equal(t, a.ID, n.Items[0].Task)
				}
				_, ok = m.TakeNotice("root")
				require.False(t, ok)
			})
		})
	}
}

func TestOneFailureOfAnOldManagerGivesUpNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &inbox{fail: func(n int) error {
			time.Sleep(time.Second)
			if n == 2 {
				return errors.New("once")
			}
			return nil
		}}
		m := manage(t, working(time.Second), bgagent.Config{Wake: bgagent.WakeEach, Notify: b.notify})
		time.Sleep(25 * time.Hour)
		launch(t, m, "a")
		time.Sleep(500 * time.Millisecond)
		second := launch(t, m, "b").ID
		time.Sleep(time.Minute)
		require.Equal(t, bgagent.NoticeDelivered, get(t, m, second).Notice)
	})
}

func TestAClientThatIsDownHoldsUpNoOthersNotices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &rootServer{server: newServer()}
		b := &rootServer{server: newServer()}
		a.find = func(string) (bgagent.SessionInfo, error) { return bgagent.SessionInfo{}, bgagent.ErrNoSession }
		b.find = func(s string) (bgagent.SessionInfo, error) {
			if s == "root" {
				return bgagent.SessionInfo{}, nil
			}
			return bgagent.SessionInfo{}, bgagent.ErrNoSession
		}
		b.sessions["root"] = &served{state: bgagent.SessionIdle}
		b.n = 100
		m := manage(t, a, bgagent.Config{Retention: bgagent.Disabled, Clients: map[string]bgagent.SessionClient{"b": b}, ClientFor: func(string) string { return "b" }})
		id, session := turnOn(t, m, "p")
		a.do(func() {
			a.find = func(string) (bgagent.SessionInfo, error) { return bgagent.SessionInfo{}, errors.New("down") }
		})
		b.say(session, "x")
		ended(t, m, id)
		time.Sleep(30 * time.Hour)
		require.Len(t, b.all(), 1, "%v", get(t, m, id).Notice)
	})
}

// If the notifier returns ErrNoSession, the delivery must not be repeated in an endless
// loop.
func TestNoticeForAScopeIsHeldAfterOneTry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls atomic.Int32
		m := manage(t, working(time.Second), bgagent.Config{
			Notify: func(context.Context, string, bgagent.Notice) error {
				if calls.Add(1) > 3 {
					select {}
				}
				return bgagent.ErrNoSession
			},
		})
		task := launch(t, m, "work")
		ended(t, m, task.ID)
		time.Sleep(time.Minute)
		require.EqualValues(t, 1, calls.Load())
		n, ok := m.TakeNotice("root")
		require.True(t, ok)
		require.Len(t, n.Items, 1)
	})
}

// In this test, the parent is deleted while it is owed notices about more tasks than RetainTasks
// allows. The manager abandons all these notices, and then drops records until at most one is left.
func TestGivingUpManyNoticesUnderALimitOfRecords(t *testing.T) {
	bubble(t, working(time.Second), bgagent.Config{RetainTasks: 1, Limits: bgagent.Limits{Default: 9}, Notify: func(context.Context, string, bgagent.Notice) error { return bgagent.ErrBusy }}, func(t *testing.T, m *bgagent.BackgroundManager) {
		var ids []string
		for i := range 5 {
			ids = append(ids, launch(t, m, fmt.Sprint(i)).ID)
		}
		ended(t, m, ids...)
		m.SessionDeleted("root")
		require.LessOrEqual(t, len(m.List(bgagent.Query{})), 1)
		_, owed := m.Outstanding("root")
		require.Zero(t, owed)
	})
}

// In this test, a task waits for a slot for its next turn, whose prompt is a notice about another
// task. During this wait, the other task is read and expires.
func TestTurnWhoseNoticeHasExpired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m *bgagent.BackgroundManager
		f := &goRunner{}
		m = manage(t, f, bgagent.Config{MaxDepth: 2, Retention: time.Second, Limits: bgagent.Limits{Default: 1}})
		f.run = func(ctx context.Context, session string, p bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
			switch p.Text {
			case "delegate":
				return delegates(&m, time.Second, "child")(ctx, session, p, r)
			case "child":
				_, _ = m.Launch(ctx, root, bgagent.LaunchInput{Agent: "worker", Prompt: "long"})
				return works(time.Second)(ctx, session, p, r)
			}
			return longOr(time.Second)(ctx, session, p, r)
		}
		parent := launch(t, m, "delegate")
		time.Sleep(5 * time.Second)
		child := m.List(bgagent.Query{Parent: "ses_1"})[0]
		_, err := m.Read(bgagent.Caller{Session: "ses_1"}, child.ID)
		require.NoError(t, err)
		time.Sleep(10 * time.Second)
		_, err = m.Get(child.ID)
		require.ErrorIs(t, err, bgagent.ErrExpired)
		require.Equal(t, bgagent.Completed, ended(t, m, parent.ID)[0].Status)
	})
}
