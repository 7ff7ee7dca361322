package bgagent_test

import (
	"context"
	"errors"
	"log/slog"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

// brokenError panics in its Error method, like an error that dereferences a nil pointer.
type brokenError struct{ text *string }

func (e *brokenError) Error() string { return *e.text }

// askingError calls the manager in its Error method.
type askingError struct{ ask func() }

func (e *askingError) Error() string { e.ask(); return "asked" }

// A host function can return an error whose Error method panics. Then only the task for which the
// function was called fails.
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

// The methods of a host's error can call the manager, because no host code runs while the
// lock is held.
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

// The methods of every error that a host call returns can call the manager.
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

// The methods of a context can also be host code, and can call the manager.
func TestAContextMayAskTheManager(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m *bgagent.BackgroundManager
		ctx := &askingContext{t.Context(), func() { m.List(bgagent.Query{}) }}
		m = manage(t, working(time.Second), bgagent.Config{})
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

func TestHostFunctionsMayPanicOrExit(t *testing.T) {
	for name, bad := range map[string]func(){"panic": func() { panic("boom") }, "Goexit": runtime.Goexit} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newServer()
				calls := 0
				m := manage(t, f, bgagent.Config{
					Model: func(agent, asked string) (string, error) {
						if agent == "bad model" {
							bad()
						}
						return asked, nil
					},
					AgentPermissions: func(agent string) []bgagent.Permission {
						if agent == "bad rules" {
							bad()
						}
						return nil
					},
					Notify: func(context.Context, string, bgagent.Notice) error {
						if calls++; calls < 3 {
							bad()
						}
						return nil
					},
				})
				for _, agent := range []string{"bad model", "bad rules"} {
					_, err := m.Launch(t.Context(), root, bgagent.LaunchInput{Agent: agent, Prompt: "p"})
					require.ErrorContains(t, err, "the host's function")
				}
				f.statuses = func(map[string]bgagent.SessionStatus) {
					if f.asked == 1 {
						f.mu.Unlock()
						defer f.mu.Lock()
						bad()
					}
				}
				f.abort = func(context.Context, string) error { bad(); return nil }
				id, session := turnOn(t, m, "p")
				time.Sleep(3 * time.Second)
				f.say(session, "done")
				require.Equal(t, bgagent.Completed, ended(t, m, id)[0].Status)
				id, _ = turnOn(t, m, "q")
				_, err := m.Cancel(t.Context(), bgagent.Caller{}, id, bgagent.CancelOptions{})
				require.NoError(t, err)
				require.NoError(t, m.Quiet(t.Context(), id))
				time.Sleep(time.Minute)
				require.Equal(t, bgagent.NoticeDelivered, get(t, m, id).Notice)
			})
		})
	}
}

func TestTheCauseOfATurnsContextIsNotTheLaunchs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var cause error
		m := manage(t, &goRunner{run: func(ctx context.Context, _ string, _ bgagent.Prompt, _ *bgagent.Reporter) (bgagent.TurnEnd, error) {
			<-ctx.Done()
			cause = context.Cause(ctx)
			return bgagent.TurnEnd{}, cause
		}}, bgagent.Config{})
		call, cancel := context.WithCancelCause(t.Context())
		task, err := m.Launch(call, root, bgagent.LaunchInput{Agent: "a", Prompt: "p"})
		require.NoError(t, err)
		cancel(errors.New("the tool call has returned"))
		time.Sleep(time.Minute)
		_, _ = m.Cancel(t.Context(), root, task.ID, bgagent.CancelOptions{})
		synctest.Wait()
		require.ErrorIs(t, cause, context.Canceled)
	})
}

// isPanics is an error that panics in its Is method.
type isPanics struct{}

func (isPanics) Error() string { return "x" }

func (isPanics) Is(error) bool { panic("Is") }

func TestAFindSessionErrorMayPanic(t *testing.T) {
	f := &finder{goRunner: &goRunner{run: works(time.Second)}, err: isPanics{}}
	bubble(t, f, bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager) {
		require.NotPanics(t, func() {
			_, err := m.Launch(t.Context(), root, bgagent.LaunchInput{Agent: "a", Prompt: "p"})
			require.Error(t, err)
		})
	})
}

// handler is a log handler that calls the manager.
type handler struct {
	slog.Handler
	call func()
}

func (h handler) Enabled(context.Context, slog.Level) bool { return true }

func (h handler) Handle(context.Context, slog.Record) error {
	h.call()
	return nil
}

func (h handler) WithAttrs([]slog.Attr) slog.Handler { return h }

func (h handler) WithGroup(string) slog.Handler { return h }

// Every host function may call every method of the manager except Close.
func TestHostFunctionsMayCallTheManager(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m *bgagent.BackgroundManager
		everything := func() {
			if m == nil {
				return
			}
			ctx := context.Background()
			tasks := m.List(bgagent.Query{})
			for _, task := range tasks {
				_, _ = m.Get(task.ID)
				_, _ = m.Read(bgagent.Caller{}, task.ID)
			}
			m.Outstanding("root")
			m.TakeNotice("nobody")
			m.Digest("root", 1000)
			m.Observe(bgagent.HostEvent{Kind: bgagent.HostActivity, Session: "x"})
			m.SessionDeleted("nobody")
			_ = m.Concurrency().SetLimits(bgagent.Limits{Default: 3})
			_, _ = m.CancelAll(ctx, bgagent.Caller{Session: "nobody"}, bgagent.CancelOptions{})
			_, sub := m.Subscribe(1)
			sub.Close()
			if len(tasks) < 20 {
				_, _ = m.Launch(ctx, bgagent.Caller{Session: "other"}, bgagent.LaunchInput{Agent: "a", Prompt: "p"})
			}
		}
		f := &forgetful{forgot: map[string]int{}}
		f.create = func(context.Context, bgagent.SessionSpec) (string, error) { everything(); return f.nextID(), nil }
		f.run = func(_ context.Context, _ string, _ bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
			everything()
			r.Text("working")
			everything()
			return bgagent.TurnEnd{Text: "done"}, nil
		}
		m = manage(t, f, bgagent.Config{
			Notify:           func(context.Context, string, bgagent.Notice) error { everything(); return nil },
			Logger:           slog.New(handler{call: everything}),
			Model:            func(_, asked string) (string, error) { m.List(bgagent.Query{}); return asked, nil },
			AgentPermissions: func(string) []bgagent.Permission { m.List(bgagent.Query{}); return nil },
		})
		launch(t, m, "work")
		time.Sleep(time.Minute)
		for _, task := range m.List(bgagent.Query{}) {
			require.Equal(t, bgagent.Completed, task.Status, task.Reason)
		}
	})
}
