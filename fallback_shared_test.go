package bgagent_test

import (
	"cmp"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

// In this test, the only slot of a model is in use. A task that has not started and two attempts
// that fall back to the model wait in line for the slot. The attempt of the older task falls back
// last.
func TestFallenAttemptsWaitInTheOrderOfTheirFirstQueueTimes(t *testing.T) {
	for _, source := range []bool{false, true} {
		t.Run(fmt.Sprint("source ", source), func(t *testing.T) { fallenAttemptsWait(t, source) })
	}
}

func fallenAttemptsWait(t *testing.T, source bool) {
	f := newLimited(func(_ int, p bgagent.Prompt) error {
		quota := &bgagent.ProviderError{Kind: bgagent.ProviderQuota, Next: bgagent.NextRepeat}
		switch {
		case p.Text == "busy":
			time.Sleep(10 * time.Minute)
		case p.Text == "old" && p.Model == modelA:
			time.Sleep(5 * time.Minute)
			return quota
		case p.Text == "young" && p.Model == modelC:
			return quota
		}
		return nil
	})
	cfg := fallbacks(modelB)
	cfg.Fallback[modelC] = []string{modelB}
	cfg.Model = func(agent, asked string) (string, error) {
		return cmp.Or(asked, map[string]string{"old": modelA, "young": modelC}[agent]), nil
	}
	if source {
		cfg.Slots, cfg.Limits = late(t, cfg.Limits), bgagent.Limits{}
	}
	bubble(t, f, cfg, func(t *testing.T, m *bgagent.BackgroundManager) {
		var ids []string
		for _, in := range []bgagent.LaunchInput{
			{Agent: "busy", Prompt: "busy", Model: modelB},
			{Agent: "new", Prompt: "new", Model: modelB},
			{Agent: "old", Prompt: "old"},
			{Agent: "young", Prompt: "young"},
		} {
			task, err := m.Launch(t.Context(), root, in)
			require.NoError(t, err)
			ids = append(ids, task.ID)
			time.Sleep(time.Minute)
		}
		require.Equal(t, modelB, get(t, m, ids[3]).Model)
		require.Equal(t, modelA, get(t, m, ids[2]).Model)
		for _, task := range ended(t, m, ids...) {
			require.Equal(t, bgagent.Completed, task.Status, task.Reason)
		}
		var onB []string
		for _, turn := range f.turns() {
			if turn.prompt.Model == modelB {
				onB = append(onB, turn.prompt.Text)
			}
		}
		require.Equal(t, []string{"busy", "old", "young", "new"}, onB)
	})
}

// In this test, two managers share slots. A task of one manager holds the pool's only slot until
// the task's turn is refused. A task of the other manager waits for this slot.
func TestTasksLeaveAModelThatAnotherManagerFindsShut(t *testing.T) {
	for name, c := range map[string]struct {
		refusal func() *bgagent.ProviderError
		leaves  time.Duration // time until the manager's tasks leave the model
	}{
		"quota until later": {func() *bgagent.ProviderError {
			return &bgagent.ProviderError{Kind: bgagent.ProviderQuota, RetryAt: time.Now().Add(5 * time.Hour), Next: bgagent.NextContinue}
		}, time.Minute},
		"no progress": {func() *bgagent.ProviderError {
			return &bgagent.ProviderError{Kind: bgagent.ProviderOverloaded, RetryAt: time.Now().Add(301 * time.Second), Next: bgagent.NextContinue}
		}, 11 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cm, err := bgagent.NewConcurrencyManager(bgagent.Limits{Default: 1})
				require.NoError(t, err)
				refused := newLimited(func(n int, _ bgagent.Prompt) error {
					if n == 0 {
						time.Sleep(time.Minute)
					}
					return c.refusal()
				})
				launchOn(t, manage(t, refused, bgagent.Config{Concurrency: cm}), modelA, "other")
				f := newLimited(first(0, bgagent.ProviderError{}))
				cfg := fallbacks(modelB)
				cfg.Limits, cfg.Concurrency = bgagent.Limits{}, cm
				m := manage(t, f, cfg)
				id := launchOn(t, m, "", "p")
				time.Sleep(59 * time.Second)
				require.Equal(t, modelA, get(t, m, id).Model)
				began := time.Now().Add(-59 * time.Second)
				task := ended(t, m, id)[0]
				require.Equal(t, bgagent.Completed, task.Status, task.Reason)
				require.Equal(t, modelB, task.Model)
				require.Equal(t, c.leaves, f.turns()[0].at.Sub(began))
			})
		})
	}
}
