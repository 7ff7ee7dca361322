package bgagent_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/inside"
)

// forgetful counts the sessions that it was told to forget.
type forgetful struct {
	goRunner
	mu     sync.Mutex
	forgot map[string]int
}

func (f *forgetful) ForgetSession(session string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.forgot[session]++
}

// At least 10,000 former tasks are remembered; of those before them nothing is
// left, and their sessions have been forgotten once.
func TestTombstonesGoRoundInARing(t *testing.T) {
	f := &forgetful{forgot: map[string]int{}}
	f.run = func(context.Context, string, bgagent.Prompt, *bgagent.Reporter) (bgagent.TurnEnd, error) {
		return bgagent.TurnEnd{Text: "done"}, nil
	}
	m, err := bgagent.New(f, bgagent.Config{RetainTasks: 10, MaxTasksPerRoot: bgagent.Unlimited, Wake: bgagent.WakeNever})
	require.NoError(t, err)
	const n = 23_456
	ids := make([]string, n)
	for i := range ids {
		task, err := m.Launch(t.Context(), root, bgagent.LaunchInput{Agent: "a", Prompt: "p"})
		require.NoError(t, err)
		ids[i] = task.ID
		if i%100 == 99 {
			_, err := m.Wait(t.Context(), bgagent.Caller{}, bgagent.WaitAll, ids[i])
			require.NoError(t, err)
		}
	}
	require.Eventually(t, func() bool {
		return len(m.List(bgagent.Query{Status: []bgagent.Status{bgagent.Pending, bgagent.Running}})) == 0
	}, time.Minute, time.Millisecond)
	require.NoError(t, inside.CheckNow(m))
	expired, unknown := 0, 0
	var session string
	for _, id := range ids {
		_, err := m.Get(id)
		var gone *bgagent.ExpiredError
		switch {
		case err == nil:
		case !errors.As(err, &gone):
			require.ErrorIs(t, err, bgagent.ErrUnknownTask)
			unknown++
		default:
			expired++
			session = gone.Session
		}
	}
	require.GreaterOrEqual(t, expired, 10_000)
	require.LessOrEqual(t, expired, 10_250)
	_, err = m.Resume(t.Context(), root, session, bgagent.ResumeInput{Prompt: "again"})
	require.NoError(t, err, "the session of a task of which only the tombstone is left can be continued")
	_ = m.Close(t.Context())
	require.InDelta(t, unknown, len(f.forgot), 1)
	for s, n := range f.forgot {
		require.Equal(t, 1, n, s)
	}
}

// handler calls the manager from inside of its logger.
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
func (h handler) WithGroup(string) slog.Handler      { return h }

// Every host function may call every method but Close.
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

// The largest and smallest numbers are limits like others.
func TestExtremeNumbersAreLimitsLikeOthers(t *testing.T) {
	const forever = time.Duration(math.MaxInt64)
	synctest.Test(t, func(t *testing.T) {
		m, err := bgagent.New(&goRunner{run: works(time.Second)}, bgagent.Config{
			TimeToLive: forever, QueueTimeToLive: forever, StaleTimeout: forever, StopTimeout: forever, CreateTimeout: forever, CallTimeout: forever,
			StatusTimeout: forever, HostUnreachable: forever, PollInterval: forever, MinIdleTime: forever, Retention: forever,
			NoticeWindow: time.Nanosecond, NoticeMaxWait: forever, RetainTasks: math.MaxInt, RetainText: math.MaxInt64, MaxDepth: math.MaxInt, MaxTasksPerRoot: math.MaxInt,
			Limits: bgagent.Limits{Default: math.MaxInt},
			Notify: func(context.Context, string, bgagent.Notice) error { return nil },
		})
		require.NoError(t, err)
		inside.CheckAlways(m, nil)
		task := launch(t, m, strings.Repeat("\xff long ", 100_000))
		require.Equal(t, bgagent.Completed, ended(t, m, task.ID)[0].Status)
		time.Sleep(time.Minute)
		require.NoError(t, m.Close(t.Context()))
	})
}

// No goroutine of a manager outlives its Close.
func TestNothingOfAManagerIsLeftAfterClose(t *testing.T) {
	before := runtime.NumGoroutine()
	for i := range 20 {
		m, err := bgagent.New(&goRunner{run: works(time.Hour)}, bgagent.Config{})
		require.NoError(t, err)
		for j := range 10 {
			_, err := m.Launch(t.Context(), root, bgagent.LaunchInput{Agent: "a", Prompt: fmt.Sprint(i, j)})
			require.NoError(t, err)
		}
		_ = m.Close(t.Context())
	}
	require.Eventually(t, func() bool { return runtime.NumGoroutine() <= before+1 }, time.Minute, time.Millisecond)
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
