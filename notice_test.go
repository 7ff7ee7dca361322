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

// Invariant 15: with nothing owed to a busy parent nothing periodic runs.
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
				require.Equal(t, before, f.askedFor(), "status calls with nothing live and nothing owed")
			})
		})
	}
}

// A notice that was read while it was on its way leaves nothing behind.
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
		m = manage(t, &goRunner{run: works(time.Second)}, cfg)
		a := launch(t, m, "a")
		time.Sleep(time.Minute)
		require.Equal(t, bgagent.NoticeRead, get(t, m, a.ID).Notice)
		b, c := launch(t, m, "b"), launch(t, m, "c")
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Len(t, got, 1)
		require.Len(t, got[0].Items, 2, "both of the batch in one notice")
		for _, it := range got[0].Batch {
			require.Contains(t, []string{b.ID, c.ID}, it.Task, "the batch lists an earlier one")
		}
	})
}

// Spec 9: the closing notice speaks of this batch only.
func TestABatchThatWasReadIsNotListedInTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var box inbox
		m := manage(t, &goRunner{run: works(time.Second)}, bgagent.Config{Notify: box.notify, NoticeWindow: 10 * time.Second})
		a := launch(t, m, "a")
		time.Sleep(2 * time.Second) // it has ended, and its notice waits for others
		b := launch(t, m, "b")
		_, err := m.Read(root, a.ID)
		require.NoError(t, err)
		time.Sleep(time.Minute)
		require.Len(t, box.all(), 1)
		n := box.all()[0]
		require.Len(t, n.Items, 1)
		require.Equal(t, b.ID, n.Items[0].Task)
		require.Len(t, n.Batch, 1, "an earlier batch is listed: %v", n.Batch)
	})
}

// Spec 9: given up after 20 tries or 24 h.
func TestANoticeIsGivenUpAfterADay(t *testing.T) {
	t.Run("always busy", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			cfg := bgagent.Config{PollInterval: time.Minute, Retention: bgagent.Disabled, Notify: func(context.Context, string, bgagent.Notice) error { return bgagent.ErrBusy }}
			m := manage(t, &goRunner{run: works(time.Second)}, cfg)
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

// noticeIs expects the notice in that state, or the record gone because it was.
func noticeIs(t *testing.T, m *bgagent.BackgroundManager, id string, s bgagent.NoticeState) {
	t.Helper()
	task, err := m.Get(id)
	if errors.Is(err, bgagent.ErrExpired) {
		return
	}
	require.NoError(t, err)
	require.Equal(t, s, task.Notice)
}

// A notice that is tried again comes unchanged, whatever the host did with it.
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
		m := manage(t, &goRunner{run: works(time.Second)}, cfg)
		a := launch(t, m, "a")
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Equal(t, []string{a.ID + a.ID, a.ID + a.ID}, items)
		require.Equal(t, ids[0], ids[1])
	})
}

// A busy parent is tried again after Config.PollInterval, not at once.
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
		m := manage(t, &goRunner{run: works(time.Second)}, cfg)
		a := launch(t, m, "a")
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		require.Equal(t, bgagent.NoticeDelivered, get(t, m, a.ID).Notice)
		for i := 1; i < len(at); i++ {
			require.GreaterOrEqual(t, at[i]-at[i-1], bgagent.DefaultPollInterval, "try %d: %v", i+1, at)
		}
	})
}

// Spec 9: what is owed goes out when the oldest of it is 5 min old; what was
// read is not owed.
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

// A notice that has to wait for long before it is due is not too old when it is.
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

// What was given up while it was on its way is told once: by the host that took
// it after all, or by whoever takes it when the host did not.
func TestWhatWasGivenUpOnItsWayIsToldOnce(t *testing.T) {
	for name, answer := range map[string]error{"taken after all": nil, "not taken": errors.New("gone")} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := manage(t, &goRunner{run: works(time.Second)}, bgagent.Config{
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
				require.False(t, ok, "it is still on its way")
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

func (f *server) askedFor() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.asked
}

// A closing notice that a busy session refuses is still the closing one when it
// is told later.
func TestABusyParentIsToldThatItsBatchIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		busy := true
		var got []bgagent.Notice
		m := manage(t, &goRunner{run: works(time.Minute)}, bgagent.Config{Notify: func(_ context.Context, _ string, n bgagent.Notice) error {
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

func TestABusyNotifierIsAskedOncePerPollInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		m := manage(t, &goRunner{run: works(time.Second)}, bgagent.Config{Notify: func(context.Context, string, bgagent.Notice) error {
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
		require.Equal(t, "spawn", spec.Permissions[0].Name, "a task that may not delegate is not given the tool")
		require.NotContains(t, m.Digest("root", 4096), bgagent.ToolBackgroundOutput)
	})
	for says, names := range map[string]map[string]string{
		"Config.ToolNames: renames":                   {"delegate": "x"},
		`Config.ToolNames: calls delegate_task "a b"`: {bgagent.ToolDelegateTask: "a b"},
		"two tools have the name":                     {bgagent.ToolDelegateTask: "background_cancel"},
	} {
		_, err := bgagent.New(&goRunner{}, bgagent.Config{ToolNames: names})
		require.ErrorContains(t, err, says)
	}
}

// The parent hears of the last end exactly when the batch window is over.
func TestNoticeComesExactlyOneWindowAfterTheEnd(t *testing.T) {
	for _, window := range []time.Duration{bgagent.Disabled, time.Millisecond, bgagent.DefaultNoticeWindow, 3 * time.Second} {
		t.Run(window.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				told := make(chan time.Time, 2)
				m := manage(t, &goRunner{run: works(time.Second)}, bgagent.Config{
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
	synctest.Test(t, func(t *testing.T) {
		f := newServer()
		m := manage(t, f, bgagent.Config{MaxDepth: 2})
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
		down := true
		box.fail = func(int) error {
			if down {
				return errors.New("down")
			}
			return nil
		}
		m := manage(t, &goRunner{run: works(time.Second)}, bgagent.Config{Notify: box.notify, Retention: bgagent.Disabled})
		launch(t, m, "of another day")
		time.Sleep(30 * time.Hour)
		down = false
		n := launch(t, m, "today")
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Len(t, box.all(), 1)
		require.Len(t, box.all()[0].Items, 1)
		require.Equal(t, n.ID, box.all()[0].Items[0].Task)
		require.Len(t, box.all()[0].Batch, 1, "%s", box.all()[0].Text)
	})
}

func TestWhatNobodyTakesIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := manageUnchecked(t, &goRunner{run: works(time.Second)}, bgagent.Config{RetainTasks: 5})
		for range 2500 {
			ended(t, m, launch(t, m, "p").ID)
		}
		n, ok := m.TakeNotice("root")
		require.True(t, ok)
		require.Len(t, n.Items, 5)
		require.LessOrEqual(t, len(n.Batch), 2000)
		require.Equal(t, 2500, len(n.Batch)+n.Omitted)
	})
}

// rootServer is a server that knows root sessions.
type rootServer struct {
	*server
	inbox
	find func(string) (bgagent.SessionInfo, error)
}

func (f *rootServer) Notify(ctx context.Context, s string, n bgagent.Notice) error {
	return f.notify(ctx, s, n)
}
func (f *rootServer) FindSession(_ context.Context, s string) (bgagent.SessionInfo, error) {
	if f.find != nil {
		return f.find(s)
	}
	return bgagent.SessionInfo{}, errors.ErrUnsupported
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
		require.Empty(t, b.all(), "its client says that it is busy")
		b.set("root", bgagent.SessionIdle)
		time.Sleep(time.Minute)
		require.Len(t, b.all(), 1)
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

func TestAnEndThatRunReturnsIsReadWhoeverLaunchedIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var box inbox
		m := manage(t, &goRunner{run: works(time.Second)}, bgagent.Config{Notify: box.notify})
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
		require.Empty(t, box.all(), "nothing that is owed ended badly")
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
		time.Sleep(2 * time.Second) // looks at 0.1 s and 1.1 s fail
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
		require.Empty(t, f.all(), "it is in a turn")
	})
}

// A parent that is being told when it is cancelled, resumed and delegates again.
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
		time.Sleep(2500 * time.Millisecond) // the notice is being handed over
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
		require.Equal(t, bgagent.Completed, get(t, m, p.ID).Status, "it waits for nothing")
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

func TestABusyParentOfAnOldManagerHangsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newServer()
		rootState := bgagent.SessionIdle
		f.statuses = func(a map[string]bgagent.SessionStatus) { a["root"] = bgagent.SessionStatus{State: rootState} }
		m := manage(t, f, bgagent.Config{Wake: bgagent.WakeEach, Notify: func(context.Context, string, bgagent.Notice) error {
			time.Sleep(time.Second)
			f.do(func() { rootState = bgagent.SessionBusy }) // the notice prompts it
			return nil
		}})
		time.Sleep(25 * time.Hour)
		_, a := turnOn(t, m, "a")
		_, b := turnOn(t, m, "b")
		f.say(a, "one")
		m.Observe(idle(a))
		time.Sleep(300 * time.Millisecond) // a's notice is on its way
		f.say(b, "two")
		m.Observe(idle(b))
		time.Sleep(10 * time.Second)
		f.do(func() { rootState = bgagent.SessionIdle })
		time.Sleep(10 * time.Second)
		_, owed := m.Outstanding("root")
		require.Zero(t, owed)
	})
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
		m := manage(t, &goRunner{run: works(time.Second)}, bgagent.Config{Wake: bgagent.WakeEach, Notify: b.notify})
		time.Sleep(25 * time.Hour)
		launch(t, m, "a")
		time.Sleep(500 * time.Millisecond)
		second := launch(t, m, "b").ID
		time.Sleep(time.Minute)
		require.Equal(t, bgagent.NoticeDelivered, get(t, m, second).Notice)
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
		time.Sleep(10 * time.Millisecond) // its batch has closed
		launch(t, m, "1m")
		launch(t, m, "1ms")
		time.Sleep(10 * time.Millisecond)
		_, err := m.Read(root, a)
		require.NoError(t, err)
		time.Sleep(10 * time.Second)
		require.Empty(t, b.all(), "the first batch was read, the second is open and nothing of it ended badly")
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
