package bgagent_test

import (
	"testing"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

// In this test, a task falls back to a model that another task uses. Then that other task's turn is
// refused.
func TestAFallbackThatWaitsForItsSlotLeavesAModelThatIsRefusedForLong(t *testing.T) {
	f := newLimited(nil)
	f.refuse = func(_ int, p bgagent.Prompt) error {
		e := &bgagent.ProviderError{Kind: bgagent.ProviderQuota, Next: bgagent.NextContinue}
		switch p.Model {
		case modelA:
			return e
		case modelB:
			time.Sleep(2 * time.Minute)
			e.RetryAt = time.Now().Add(5 * time.Hour)
			return e
		}
		return nil
	}
	bubble(t, f, fallbacks(modelB, modelC), func(t *testing.T, m *bgagent.BackgroundManager) {
		began := time.Now()
		launchOn(t, m, modelB, "busy")
		id := launchOn(t, m, "", "p")
		require.Equal(t, modelB, get(t, m, id).Model)
		require.Equal(t, bgagent.PhaseParked, get(t, m, id).Phase)
		task := ended(t, m, id)[0]
		require.Equal(t, bgagent.Completed, task.Status, task.Reason)
		require.Equal(t, modelC, task.Model)
		require.Contains(t, task.Fallback, "from the model two/b to two/c: the provider of the model refused other turns, and the turn could not begin")
		require.Equal(t, 2*time.Minute+time.Second, time.Since(began))
		require.Equal(t, 3, task.Attempt)
		require.Equal(t, []string{modelB, modelA, modelC}, modelsOf(f.turns()))
	})
}

// In this test, tasks are launched on a model that is overloaded. Its provider does not state when
// the overload will end.
func TestTasksThatHaveNotStartedLeaveAModelWithoutProgress(t *testing.T) {
	f := newLimited(onModels(map[string]bgagent.ProviderError{
		modelA: {Kind: bgagent.ProviderOverloaded, Next: bgagent.NextContinue},
		modelB: {Kind: bgagent.ProviderOverloaded, Next: bgagent.NextContinue},
	}))
	bubble(t, f, fallbacks(modelB, modelC), func(t *testing.T, m *bgagent.BackgroundManager) {
		began := time.Now()
		var ids []string
		for range 5 {
			ids = append(ids, launchOn(t, m, "", "p"))
		}
		time.Sleep(9 * time.Minute)
		for _, id := range ids {
			require.Equal(t, modelA, get(t, m, id).Model)
		}
		time.Sleep(2 * time.Minute)
		for _, id := range ids {
			require.Equal(t, modelB, get(t, m, id).Model)
		}
		for _, task := range ended(t, m, ids...) {
			require.Equal(t, bgagent.Completed, task.Status, task.Reason)
			require.Equal(t, modelC, task.Model)
		}
		require.Less(t, time.Since(began), 21*time.Minute)
	})
}

// In this test, the provider refuses every second turn for more than 40 min.
func TestNoTaskLeavesAModelThatMakesProgress(t *testing.T) {
	f := newLimited(func(n int, _ bgagent.Prompt) error {
		if n%2 == 0 {
			return &bgagent.ProviderError{Kind: bgagent.ProviderOverloaded, Next: bgagent.NextContinue}
		}
		return nil
	})
	f.last = 2 * time.Minute
	bubble(t, f, fallbacks(modelB), func(t *testing.T, m *bgagent.BackgroundManager) {
		began := time.Now()
		var ids []string
		for range 20 {
			ids = append(ids, launchOn(t, m, "", "p"))
		}
		for _, task := range ended(t, m, ids...) {
			require.Equal(t, bgagent.Completed, task.Status, task.Reason)
			require.Equal(t, modelA, task.Model, task.Fallback)
		}
		require.Greater(t, time.Since(began), 40*time.Minute)
	})
}

// In this test, two turns with a model are refused. Only the second refusal concerns all models of
// the provider. Another task waits for one of these models.
func TestTasksLeaveAllModelsOfAProviderThatRefusesThemForLong(t *testing.T) {
	const other = "one/b"
	f := newLimited(nil)
	f.refuse = func(_ int, p bgagent.Prompt) error {
		e := &bgagent.ProviderError{Kind: bgagent.ProviderQuota, Next: bgagent.NextContinue}
		switch p.Text {
		case "busy":
			time.Sleep(10 * time.Minute)
			return nil
		case "first":
			time.Sleep(30 * time.Second)
		case "second":
			time.Sleep(time.Minute)
			e.Scope = bgagent.ScopeProvider
		default:
			return nil
		}
		e.RetryAt = time.Now().Add(5 * time.Hour)
		return e
	}
	cfg := fallbacks(modelC)
	cfg.Limits = bgagent.Limits{Default: 2, Model: map[string]int{other: 1}}
	cfg.Fallback[other] = []string{modelC}
	model := cfg.Model
	cfg.Model = func(agent, asked string) (string, error) {
		if asked == "" {
			asked = other
		}
		return model(agent, asked)
	}
	bubble(t, f, cfg, func(t *testing.T, m *bgagent.BackgroundManager) {
		began := time.Now()
		busy := launchOn(t, m, other, "busy")
		launchOn(t, m, modelA, "first")
		launchOn(t, m, modelA, "second")
		id := launchOn(t, m, "", "p")
		time.Sleep(45 * time.Second)
		require.Equal(t, other, get(t, m, id).Model)
		task := ended(t, m, id)[0]
		require.Equal(t, bgagent.Completed, task.Status, task.Reason)
		require.Equal(t, modelC, task.Model)
		require.Equal(t, time.Minute+time.Second, time.Since(began))
		require.Equal(t, bgagent.Completed, ended(t, m, busy)[0].Status)
	})
}
