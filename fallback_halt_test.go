package bgagent_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

// In this test, an event reports a refusal. The client cannot tell whether the turn is still
// running.
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

// In this test, a turn's program keeps repeating its request, so quickly that the turn keeps its
// slot.
func TestAProgramThatRetriesByItselfIsStoppedForTheNextModel(t *testing.T) {
	for _, park := range []time.Duration{0, bgagent.Disabled} {
		f := newLimited(nil)
		f.run = func(ctx context.Context, session string, p bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
			f.mu.Lock()
			f.begun = append(f.begun, limitedTurn{session, p, time.Now()})
			f.mu.Unlock()
			for p.Model == modelA && ctx.Err() == nil {
				r.Retrying(overloaded, time.Now().Add(50*time.Second))
				select {
				case <-time.After(50 * time.Second):
				case <-ctx.Done():
				}
			}
			return bgagent.TurnEnd{Text: "answer"}, ctx.Err()
		}
		cfg := fallbacks(modelB)
		cfg.MaxPark = park
		bubble(t, f, cfg, func(t *testing.T, m *bgagent.BackgroundManager) {
			began := time.Now()
			task := ended(t, m, launch(t, m, "p").ID)[0]
			require.Equal(t, bgagent.Completed, task.Status, task.Reason)
			require.Equal(t, "answer", task.Result)
			turns := f.turns()
			require.Equal(t, []string{modelA, modelB}, modelsOf(turns))
			require.Equal(t, turns[0].prompt.ID, turns[1].prompt.Unanswered)
			require.Equal(t, 10*time.Minute, turns[1].at.Sub(began))
		})
	}
}

// In this test, a turn with the next model is refused while an Abort call delays the fallback.
func TestATaskWaitsOnIfItsNextModelIsRefusedMeanwhile(t *testing.T) {
	for _, kind := range []bgagent.ProviderErrorKind{bgagent.ProviderOverloaded, bgagent.ProviderQuota} {
		f := newLimited(nil)
		f.refuse = func(_ int, p bgagent.Prompt) error {
			if p.Model != modelB {
				return nil
			}
			time.Sleep(2 * time.Second)
			return &bgagent.ProviderError{Kind: bgagent.ProviderQuota, Next: bgagent.NextContinue, RetryAt: time.Now().Add(5 * time.Hour)}
		}
		run, retried := f.run, false
		f.run = func(ctx context.Context, session string, p bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
			if p.Model != modelA || retried {
				return run(ctx, session, p, r)
			}
			retried = true
			r.Retrying(bgagent.ProviderError{Kind: kind, Next: bgagent.NextContinue}, time.Time{})
			<-ctx.Done()
			time.Sleep(time.Second) // the Abort call begins before the end of the turn
			return bgagent.TurnEnd{Stop: bgagent.StopAborted}, nil
		}
		f.abort = func(context.Context, string) error { time.Sleep(4 * time.Second); return nil }
		cfg := fallbacks(modelB)
		cfg.FallbackAfter = bgagent.Disabled
		bubble(t, f, cfg, func(t *testing.T, m *bgagent.BackgroundManager) {
			launchOn(t, m, modelB, "named")
			task := ended(t, m, launchOn(t, m, "", "p"))[0]
			require.Equal(t, modelA, task.Model)
			require.Equal(t, 1, task.Attempt)
			if kind == bgagent.ProviderQuota { // the task ends, because it is unknown when the quota will be renewed
				require.Equal(t, bgagent.CauseRateLimited, task.Cause)
				require.Contains(t, task.Reason, "the provider of the model refused the turn (quota)")
				require.NotContains(t, task.Reason, "waited")
				return
			}
			require.Equal(t, bgagent.Completed, task.Status, task.Reason)
		})
	}
}
