package bgagent_test

import (
	"context"
	"testing"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

// In this test, the manager is suspended while a turn with a question has no slot, either before or
// after the question is over. The turn can no longer get a slot, so Ask returns an error instead of
// the outcome.
func TestSuspendDoesNotWaitForASlotAfterAQuestionIsOver(t *testing.T) {
	for name, over := range map[string]func(t *testing.T, m *bgagent.BackgroundManager, id, key string){
		"answered": func(t *testing.T, m *bgagent.BackgroundManager, id, key string) {
			answer(t, m, id, key, "allow")
		},
		"expired":   func(*testing.T, *bgagent.BackgroundManager, string, string) { time.Sleep(time.Hour) },
		"withdrawn": func(*testing.T, *bgagent.BackgroundManager, string, string) { time.Sleep(30 * time.Minute) },
	} {
		for _, before := range []bool{true, false} {
			t.Run(name, func(t *testing.T) {
				inWorld(t, func(t *testing.T, w *world) {
					w.cfg = limit(1)
					w.cfg.Ask, w.cfg.TimeToLive, w.cfg.StaleTimeout = true, bgagent.Disabled, bgagent.Disabled
					w.work = 3 * time.Hour
					told := make(chan error, 1)
					w.reports = func(_ string, p bgagent.Prompt, r *bgagent.Reporter) {
						if p.Text != "build" || p.Attempt > 1 {
							return
						}
						ctx, q := context.Background(), mayI
						q.Expires = time.Now().Add(time.Hour)
						if name == "withdrawn" {
							var cancel context.CancelFunc
							ctx, cancel = context.WithTimeout(ctx, 30*time.Minute)
							defer cancel()
						}
						_, err := r.Ask(ctx, q)
						told <- err
					}
					m := w.begin()
					task := launch(t, m, "build")
					q := asks(t, m, task.ID)
					launch(t, m, "other")
					time.Sleep(10 * time.Minute)
					require.Equal(t, bgagent.PhaseParked, get(t, m, task.ID).Phase)
					ctx, cancel := context.WithTimeout(t.Context(), 2*time.Hour)
					defer cancel()
					suspended := make(chan error, 1)
					if before {
						over(t, m, task.ID, q.Key)
						require.Empty(t, get(t, m, task.ID).Questions)
					}
					go func() { suspended <- m.Suspend(ctx) }()
					if !before && name != "answered" {
						over(t, m, task.ID, q.Key)
						require.Empty(t, get(t, m, task.ID).Questions)
					}
					<-suspended
					require.Error(t, <-told, "the agent must not act without a slot")
				})
			})
		}
	}
}
