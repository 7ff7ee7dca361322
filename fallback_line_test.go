package bgagent_test

import (
	"testing"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

// TestAFallbackThatWaitsForItsSlotLeavesAModelThatIsRefusedForLong lets a task fall back to a model that
// another task uses. Then the turn of that task is refused.
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
