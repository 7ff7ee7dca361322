package bgagent_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

// TestATurnIsStoppedForTheNextModelEvenIfNoTaskIsParked reports a refusal in an event. The client cannot
// tell whether the turn still runs.
func TestATurnIsStoppedForTheNextModelEvenIfNoTaskIsParked(t *testing.T) {
	for _, falls := range []bool{true, false} {
		f := newServer()
		f.statuses = untold
		cfg := fallbacks(modelB)
		if !falls {
			cfg.Fallback = nil
		}
		cfg.MaxPark = bgagent.Disabled
		bubble(t, f, cfg, func(t *testing.T, m *bgagent.BackgroundManager) {
			f.started = func(session string, p bgagent.Prompt) {
				if p.Model != modelA {
					f.say(session, "answer")
				}
			}
			id, session := turnOn(t, m, "p")
			e := hostError(session, bgagent.StopError)
			e.Provider = &bgagent.ProviderError{Kind: bgagent.ProviderQuota, Next: bgagent.NextContinue}
			m.Observe(e)
			synctest.Wait()
			time.Sleep(time.Minute)
			task := ended(t, m, id)[0]
			require.Equal(t, 1, f.session(session).aborts)
			require.Equal(t, falls, task.Status == bgagent.Completed, task.Reason)
			require.Len(t, f.prompted(), map[bool]int{true: 2, false: 1}[falls])
		})
	}
}
