package bgagent_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

// brokenError panics when it is asked what it says, as a nil pointer in an error
// does.
type brokenError struct{ text *string }

func (e *brokenError) Error() string { return *e.text }

// askingError asks the manager when it is asked what it says.
type askingError struct{ ask func() }

func (e *askingError) Error() string { e.ask(); return "asked" }

// Spec 12: a panic in a host's function becomes an error of that task.
func TestAHostErrorThatPanicsEndsItsTaskOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &goRunner{}
		f.run = func(_ context.Context, _ string, p bgagent.Prompt, _ *bgagent.Reporter) (bgagent.TurnEnd, error) {
			if p.Text == "bad" {
				var e *brokenError
				return bgagent.TurnEnd{}, e
			}
			return bgagent.TurnEnd{Text: "fine"}, nil
		}
		m := manage(t, f, limit(1))
		bad := launch(t, m, "bad")
		good := launch(t, m, "good")
		tasks := ended(t, m, bad.ID, good.ID)
		require.Equal(t, []bgagent.Status{bgagent.Failed, bgagent.Completed}, statuses(tasks))
	})
}

// Design invariant 9: no host code while the lock is held.
func TestAHostErrorMayAskTheManager(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m *bgagent.BackgroundManager
		ask := &askingError{func() { m.List(bgagent.Query{}) }}
		f := &goRunner{}
		f.run = func(context.Context, string, bgagent.Prompt, *bgagent.Reporter) (bgagent.TurnEnd, error) {
			return bgagent.TurnEnd{}, ask
		}
		m = manage(t, f, bgagent.Config{})
		task := launch(t, m, "ask")
		require.Equal(t, bgagent.Failed, ended(t, m, task.ID)[0].Status)
	})
}

// The same for every other error of a host.
func TestEveryHostErrorMayAskTheManager(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m *bgagent.BackgroundManager
		ask := &askingError{func() { m.List(bgagent.Query{}) }}
		f := newServer()
		f.abort = func(context.Context, string) error { return ask }
		var calls int
		cfg := bgagent.Config{Wake: bgagent.WakeEach, Notify: func(context.Context, string, bgagent.Notice) error {
			if calls++; calls == 1 {
				return ask
			}
			return nil
		}}
		m = manage(t, f, cfg)
		id, session := turnOn(t, m, "a")
		f.do(func() { f.statusErr = ask })
		time.Sleep(5 * time.Second)
		f.do(func() { f.statusErr, f.readErr = nil, ask })
		time.Sleep(5 * time.Second)
		f.do(func() { f.readErr = nil })
		_ = session
		_, err := m.Cancel(t.Context(), bgagent.Caller{}, id, bgagent.CancelOptions{})
		require.NoError(t, err)
		time.Sleep(time.Minute)
		require.Equal(t, bgagent.NoticeDelivered, get(t, m, id).Notice)
		f.do(func() { f.startErr = ask })
		b := launch(t, m, "b")
		require.Equal(t, bgagent.Failed, ended(t, m, b.ID)[0].Status)
		f.do(func() { f.createErr = ask })
		c := launch(t, m, "c")
		require.Equal(t, bgagent.Failed, ended(t, m, c.ID)[0].Status)
	})
}

// The largest duration is how Go programs write "never".
func TestTheLargestDurationMeansNever(t *testing.T) {
	const never = time.Duration(math.MaxInt64)
	report := func(ctx context.Context, _ string, _ bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
		r.Text("at work")
		select {
		case <-time.After(2 * time.Hour):
		case <-ctx.Done():
		}
		return bgagent.TurnEnd{Text: "done"}, ctx.Err()
	}
	for name, test := range map[string]struct {
		cfg bgagent.Config
	}{
		"StaleTimeout":    {bgagent.Config{StaleTimeout: never}},
		"TimeToLive":      {bgagent.Config{TimeToLive: never}},
		"QueueTimeToLive": {bgagent.Config{QueueTimeToLive: never}},
		"Retention":       {bgagent.Config{Retention: never}},
		"NoticeMaxWait":   {bgagent.Config{NoticeMaxWait: never}},
		"NoticeWindow":    {bgagent.Config{NoticeWindow: never}},
		"StopTimeout":     {bgagent.Config{StopTimeout: never}},
		"CreateTimeout":   {bgagent.Config{CreateTimeout: never}},
		"CallTimeout":     {bgagent.Config{CallTimeout: never}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cfg := test.cfg
				var box inbox
				cfg.Limits.Default = 1
				cfg.Notify = box.notify
				if cfg.StaleTimeout == 0 {
					cfg.StaleTimeout = bgagent.Disabled
				}
				if cfg.TimeToLive == 0 {
					cfg.TimeToLive = bgagent.Disabled
				}
				if cfg.Retention == 0 {
					cfg.Retention = bgagent.Disabled
				}
				m := manage(t, &goRunner{run: report}, cfg)
				a, b := launch(t, m, "a"), launch(t, m, "b")
				time.Sleep(3 * time.Hour)
				require.Equal(t, bgagent.Completed, get(t, m, a.ID).Status, get(t, m, a.ID).Reason)
				require.Equal(t, bgagent.Running, get(t, m, b.ID).Status, get(t, m, b.ID).Reason)
				if name == "NoticeMaxWait" {
					require.Empty(t, box.all(), "the batch is still open")
				}
				time.Sleep(3 * time.Hour)
				require.Equal(t, bgagent.Completed, get(t, m, b.ID).Status)
				if name != "NoticeWindow" {
					require.NoError(t, m.Close(t.Context()))
				}
			})
		})
	}
}

// Spec 12: waiters return when the manager is closed.
func TestDrainReturnsWhenTheManagerIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hang := make(chan struct{})
		f := &goRunner{}
		f.run = func(context.Context, string, bgagent.Prompt, *bgagent.Reporter) (bgagent.TurnEnd, error) {
			<-hang // ignores its context
			return bgagent.TurnEnd{}, nil
		}
		m := manage(t, f, bgagent.Config{})
		launch(t, m, "hangs")
		synctest.Wait()
		drained := make(chan error, 1)
		go func() { drained <- m.Drain(context.Background()) }()
		synctest.Wait()
		require.Error(t, m.Close(t.Context()))
		time.Sleep(time.Minute)
		synctest.Wait()
		select {
		case err := <-drained:
			require.ErrorIs(t, err, bgagent.ErrClosed)
		default:
			t.Error("Drain waits for ever")
		}
		close(hang)
		synctest.Wait()
	})
}

// Spec 6: the manager never hangs with the host.
func TestDrainDoesNotWaitForASessionThatDoesNotStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hang := make(chan struct{})
		f := &goRunner{}
		f.run = func(context.Context, string, bgagent.Prompt, *bgagent.Reporter) (bgagent.TurnEnd, error) {
			<-hang
			return bgagent.TurnEnd{}, nil
		}
		m := manage(t, f, bgagent.Config{})
		a := launch(t, m, "hangs")
		synctest.Wait()
		_, err := m.Cancel(t.Context(), root, a.ID, bgagent.CancelOptions{})
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		require.NoError(t, m.Drain(ctx))
		close(hang)
		synctest.Wait()
	})
}

// A host frees a task's directory once it is quiet, and not before.
func TestQuietIsNotSaidOfASessionThatStillRunsAfterItsRecordHasExpired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hang := make(chan struct{})
		f := &goRunner{}
		f.run = func(context.Context, string, bgagent.Prompt, *bgagent.Reporter) (bgagent.TurnEnd, error) {
			<-hang
			return bgagent.TurnEnd{}, nil
		}
		m := manage(t, f, bgagent.Config{Retention: time.Minute})
		a := launch(t, m, "hangs")
		synctest.Wait()
		_, err := m.Cancel(t.Context(), root, a.ID, bgagent.CancelOptions{})
		require.NoError(t, err)
		early := make(chan error, 1)
		go func() { early <- m.Quiet(context.Background(), a.ID) }()
		time.Sleep(time.Hour)
		synctest.Wait()
		_, err = m.Get(a.ID)
		require.ErrorIs(t, err, bgagent.ErrExpired)
		require.ErrorIs(t, m.Quiet(t.Context(), a.ID), bgagent.ErrNotStopped)
		select {
		case err := <-early:
			require.ErrorIs(t, err, bgagent.ErrNotStopped)
		default:
			t.Error("whoever waited before the record expired waits for ever")
		}
		close(hang)
		synctest.Wait()
		require.NoError(t, m.Quiet(t.Context(), a.ID))
	})
}

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

func (f *server) askedFor() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.asked
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

// Invariant 13: callers get copies.
func TestSubscribersDoNotShareWhatTheyAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := manage(t, &goRunner{run: works(time.Second)}, bgagent.Config{})
		_, one := m.Subscribe(0)
		_, two := m.Subscribe(0)
		_, err := m.Launch(t.Context(), root, bgagent.LaunchInput{Agent: "a", Prompt: "x", Metadata: map[string]string{"k": "v"}})
		require.NoError(t, err)
		e, err := one.Next(t.Context())
		require.NoError(t, err)
		e.Task.Metadata["k"] = "changed"
		e, err = two.Next(t.Context())
		require.NoError(t, err)
		require.Equal(t, "v", e.Task.Metadata["k"])
	})
}

// Invariant 13, for what comes from the host.
func TestTheManagerKeepsCopiesOfTodos(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newServer()
		m := manage(t, f, bgagent.Config{})
		id, session := turnOn(t, m, "a")
		todos := []bgagent.Todo{{Text: "one"}}
		m.Observe(bgagent.HostEvent{Kind: bgagent.HostTodos, Session: session, Todos: todos})
		todos[0].Text = "changed"
		require.Equal(t, "one", get(t, m, id).Progress.Todos[0].Text)
	})
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

// Several clients may have sessions of the same name.
func TestADeletionConcernsTheClientThatToldIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, other := newServer(), newServer()
		m := manage(t, f, bgagent.Config{Clients: map[string]bgagent.SessionClient{"other": other}})
		id, session := turnOn(t, m, "a")
		m.Observe(bgagent.HostEvent{Kind: bgagent.HostDeleted, Client: "other", Session: session})
		require.Equal(t, bgagent.Running, get(t, m, id).Status)
		m.Observe(bgagent.HostEvent{Kind: bgagent.HostDeleted, Session: session})
		require.Equal(t, bgagent.CauseSessionDeleted, get(t, m, id).Cause)
	})
}

// heapOf returns the bytes that are reachable.
func heapOf() int {
	var s runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&s)
	return int(s.HeapAlloc)
}

// Spec 6: 64 MiB of text are retained, and not what it was cut out of.
func TestDroppedTextIsFreed(t *testing.T) {
	const size, tasks = 200 << 10, 200
	for name, run := range map[string]func(context.Context, string, bgagent.Prompt, *bgagent.Reporter) (bgagent.TurnEnd, error){
		"reported": func(_ context.Context, _ string, _ bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
			r.Text(strings.Repeat("x", size))
			return bgagent.TurnEnd{}, nil
		},
		"cut": func(context.Context, string, bgagent.Prompt, *bgagent.Reporter) (bgagent.TurnEnd, error) {
			return bgagent.TurnEnd{Text: strings.Repeat("y", 20*size)}, nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := manage(t, &goRunner{run: run}, bgagent.Config{RetainText: 20 << 20, MaxTasksPerRoot: bgagent.Unlimited})
			before := heapOf()
			for i := range tasks {
				ended(t, m, launch(t, m, fmt.Sprint("p", i)).ID)
			}
			kept := heapOf() - before
			require.Less(t, kept, 24<<20, "%d MiB are kept of at most 20", kept>>20)
			runtime.KeepAlive(m)
		})
	}
}

// A tombstone keeps a title, not the prompt that it is the beginning of.
func TestATombstoneDoesNotKeepThePrompt(t *testing.T) {
	m := manage(t, &goRunner{run: works(0)}, bgagent.Config{RetainTasks: 1, MaxTasksPerRoot: bgagent.Unlimited, Wake: bgagent.WakeNever})
	before := heapOf()
	for i := range 200 {
		ended(t, m, launch(t, m, fmt.Sprintf("title %d\n", i)+strings.Repeat("x", 200<<10)).ID)
		m.TakeNotice("root")
	}
	kept := heapOf() - before
	require.Less(t, kept, 4<<20, "%d MiB are kept of one task", kept>>20)
	runtime.KeepAlive(m)
}

// A long answer told in small pieces must not hold up everybody else.
func TestManySmallPiecesOfTextAreCheap(t *testing.T) {
	const pieces = 100_000
	f := &goRunner{}
	f.run = func(_ context.Context, _ string, _ bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
		for range pieces {
			r.Text("word ")
		}
		return bgagent.TurnEnd{}, nil
	}
	m := manageUnchecked(t, f, bgagent.Config{})
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	task := ended(t, m, launch(t, m, "x").ID)[0]
	runtime.ReadMemStats(&after)
	require.Len(t, task.Result, pieces*5)
	allocated := after.TotalAlloc - before.TotalAlloc
	require.Less(t, allocated, uint64(64<<20), "%d MiB were allocated for %d KiB of text", allocated>>20, pieces*5>>10)
}

func manageUnchecked(t *testing.T, sc bgagent.SessionClient, cfg bgagent.Config) *bgagent.BackgroundManager {
	t.Helper()
	m, err := bgagent.New(sc, cfg)
	require.NoError(t, err)
	t.Cleanup(func() { _ = m.Close(context.Background()) })
	return m
}

// A task can be written as JSON whatever its agent has reported.
func TestATaskSurvivesJSONWhateverWasReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &goRunner{}
		f.run = func(_ context.Context, _ string, _ bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
			r.Usage(bgagent.Usage{Cost: math.NaN()})
			r.Usage(bgagent.Usage{Cost: math.Inf(1)})
			r.Usage(bgagent.Usage{Cost: 1, InputTokens: 3})
			r.Text("\xff\xfe")
			return bgagent.TurnEnd{Text: "done"}, nil
		}
		m := manage(t, f, bgagent.Config{})
		task := ended(t, m, launch(t, m, "x").ID)[0]
		raw, err := json.Marshal(task)
		require.NoError(t, err)
		require.Equal(t, bgagent.Usage{Cost: 1, InputTokens: 3}, task.Progress.Usage)
		var back bgagent.Task
		require.NoError(t, json.Unmarshal(raw, &back))
		again, err := json.Marshal(back)
		require.NoError(t, err)
		require.JSONEq(t, string(raw), string(again))
		require.Equal(t, task.Cause, back.Cause)
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

// A context may be the host's code as well.
func TestAContextMayAskTheManager(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m *bgagent.BackgroundManager
		ctx := &askingContext{t.Context(), func() { m.List(bgagent.Query{}) }}
		m = manage(t, &goRunner{run: works(time.Second)}, bgagent.Config{})
		task, err := m.Run(ctx, root, bgagent.LaunchInput{Agent: "a", Prompt: "x"})
		require.NoError(t, err)
		require.Equal(t, bgagent.Completed, task.Status)
		_, err = m.Wait(ctx, root, bgagent.WaitAll, launch(t, m, "y").ID)
		require.NoError(t, err)
	})
}

type askingContext struct {
	context.Context
	ask func()
}

func (c *askingContext) Err() error {
	c.ask()
	return c.Context.Err()
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

// Spec 5: an unknown word decides nothing, and moves no counter.
func TestAnUnknownStatusInAnEventIsNoAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newServer()
		m := manage(t, f, bgagent.Config{HostUnreachable: 5 * time.Minute})
		id, session := turnOn(t, m, "a")
		f.do(func() { f.statusErr = errors.New("down") })
		for range 10 {
			time.Sleep(time.Minute)
			m.Observe(bgagent.HostEvent{Kind: bgagent.HostStatus, Session: session, Status: bgagent.SessionStatus{State: 99}})
		}
		require.Equal(t, bgagent.CauseHostUnreachable, get(t, m, id).Cause)
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

// What a task has launched ends with it, also when its record goes at once.
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

// Spec 7: a late event of an earlier turn does not make a session quiet that
// runs on; its status, asked for since, does.
func TestALateIdleEventMakesNoRunningSessionQuiet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newServer()
		m := manage(t, f, bgagent.Config{})
		id, session := turnOn(t, m, "a")
		f.do(func() {
			f.sessions[session].state = bgagent.SessionBusy
			f.abort = func(context.Context, string) error {
				f.set(session, bgagent.SessionBusy) // it does not stop at once
				return nil
			}
		})
		_, err := m.Cancel(t.Context(), bgagent.Caller{}, id, bgagent.CancelOptions{})
		require.NoError(t, err)
		synctest.Wait()
		m.Observe(idle(session)) // of the turn before
		synctest.Wait()
		require.False(t, get(t, m, id).Quiet)
		f.set(session, bgagent.SessionIdle)
		before := time.Now()
		m.Observe(idle(session))
		synctest.Wait()
		require.True(t, get(t, m, id).Quiet)
		require.Zero(t, time.Since(before), "it is asked at once")
	})
}
