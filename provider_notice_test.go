package bgagent_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

// delegatesTwice returns a runner that launches two tasks in its first turn. One ends after 10 s
// and the other after 40 s. The first two turns that get a notice are refused.
func delegatesTwice(t *testing.T, m **bgagent.BackgroundManager, cfg *bgagent.Config) *limited {
	cfg.MaxDepth = 2
	refused := 0
	f := newLimited(func(_ int, p bgagent.Prompt) error {
		if p.Notice != nil {
			if refused++; refused <= 2 {
				return &bgagent.ProviderError{Kind: bgagent.ProviderRateLimited, RetryAt: time.Now().Add(50 * time.Second), Next: bgagent.NextRepeat}
			}
		}
		return nil
	})
	run := f.run
	f.run = func(ctx context.Context, session string, p bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
		switch p.Text {
		case "delegate":
			for _, child := range []string{"fails", "answers"} {
				_, err := (*m).Launch(t.Context(), bgagent.Caller{Session: session}, bgagent.LaunchInput{Agent: "w", Model: "o/free", Prompt: child})
				require.NoError(t, err)
			}
		case "fails":
			time.Sleep(10 * time.Second)
			return bgagent.TurnEnd{}, context.Canceled
		case "answers":
			time.Sleep(40 * time.Second)
		}
		return run(ctx, session, p, r)
	}
	return f
}

// If a turn that delivered a notice is refused and then repeated, its notice also reports the tasks
// that have ended in the meantime.
func TestARepeatedNoticeTellsWhatHasEndedSince(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m *bgagent.BackgroundManager
		cfg := bgagent.Config{}
		f := delegatesTwice(t, &m, &cfg)
		m = manage(t, f, cfg)
		task, err := m.Launch(t.Context(), root, bgagent.LaunchInput{Agent: "w", Model: "p/limited", Prompt: "delegate"})
		require.NoError(t, err)
		require.Equal(t, bgagent.Completed, ended(t, m, task.ID)[0].Status)
		var notices []*bgagent.Notice
		for _, turn := range f.turns() {
			if n := turn.prompt.Notice; n != nil {
				notices = append(notices, n)
				require.Equal(t, n.Text, turn.prompt.Text)
			}
		}
		require.Len(t, notices, 3)
		require.Len(t, notices[0].Items, 1)
		require.Equal(t, 1, notices[0].Live)
		for _, n := range notices[1:] { // the turn with the second notice is also refused, and the third notice repeats the second
			require.Len(t, n.Items, 2)
			require.Equal(t, notices[0].Items[0], n.Items[0])
			require.True(t, n.Closing)
			require.Len(t, n.Batch, 2)
			require.Zero(t, n.Live)
			require.Contains(t, n.Text, "All Background Tasks Ended")
			require.Contains(t, n.Text, n.Items[1].Task)
		}
		require.Equal(t, 1, strings.Count(notices[2].Text, "All Background Tasks Ended"))
	})
}

// In this test, the process ends while the parent is parked because its turn with a notice was
// refused. The second task ends before or after this crash.
func TestARepeatedNoticeTellsWhatHasEndedSinceInTheNextProcess(t *testing.T) {
	for _, crashAt := range []time.Duration{20 * time.Second, 50 * time.Second} {
		inWorld(t, func(t *testing.T, w *world) {
			reset := time.Now().Add(2 * time.Minute)
			var notices []bgagent.Notice
			w.cfg.MaxDepth, w.work = 2, time.Second
			w.refuse = func(session string, p bgagent.Prompt) error {
				switch {
				case p.Text == "fails":
					time.Sleep(10 * time.Second)
					return context.Canceled
				case p.Text == "answers":
					select {
					case <-time.After(40 * time.Second):
					case <-w.life.dead:
						return context.Canceled
					}
				case p.Text == "delegate":
					for _, child := range []string{"fails", "answers"} {
						_, err := w.life.m.Launch(t.Context(), bgagent.Caller{Session: session}, bgagent.LaunchInput{Agent: "w", Model: "o/free", Prompt: child})
						require.NoError(t, err)
					}
				case p.Notice != nil:
					notices = append(notices, *p.Notice)
					require.Equal(t, p.Notice.Text, p.Text)
					if time.Now().Before(reset) {
						return &bgagent.ProviderError{Kind: bgagent.ProviderRateLimited, RetryAt: reset, Next: bgagent.NextRepeat}
					}
				}
				return nil
			}
			m := w.begin()
			task, err := m.Launch(t.Context(), root, bgagent.LaunchInput{Agent: "w", Model: "p/limited", Prompt: "delegate"})
			require.NoError(t, err)
			time.Sleep(crashAt)
			require.Equal(t, bgagent.PhaseParked, get(t, m, task.ID).Phase)
			w.crash()
			m = w.begin()
			require.Equal(t, bgagent.Completed, ended(t, m, task.ID)[0].Status)
			require.Len(t, notices, 2)
			require.Len(t, notices[0].Items, 1)
			require.Len(t, notices[1].Items, 2)
			require.Equal(t, notices[0].Items[0], notices[1].Items[0])
			require.True(t, notices[1].Closing)
		})
	}
}
