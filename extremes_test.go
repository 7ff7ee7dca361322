package bgagent_test

import (
	"context"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/inside"
	"github.com/stretchr/testify/require"
)

// The largest and the smallest numbers work as limits.
func TestExtremeNumbersAreLimitsLikeOthers(t *testing.T) {
	const forever = time.Duration(math.MaxInt64)
	synctest.Test(t, func(t *testing.T) {
		m, err := bgagent.New(working(time.Second), bgagent.Config{
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

// Go programs use the largest duration for "never".
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
