package bgagent_test

import (
	"bytes"
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

// inWorldWithFallbacks runs a test with a store. The provider of modelA refuses all turns.
func inWorldWithFallbacks(t *testing.T, e bgagent.ProviderError, test func(t *testing.T, w *world)) {
	inWorld(t, func(t *testing.T, w *world) {
		w.cfg = fallbacks(modelB)
		w.refuse = func(_ string, p bgagent.Prompt) error {
			if p.Model != modelA {
				return nil
			}
			refused := e
			return &refused
		}
		test(t, w)
	})
}

func launchOn(t *testing.T, m *bgagent.BackgroundManager, model, prompt string) string {
	t.Helper()
	task, err := m.Launch(t.Context(), root, bgagent.LaunchInput{Agent: "worker", Prompt: prompt, Model: model})
	require.NoError(t, err)
	synctest.Wait()
	return task.ID
}

// In this test, the process ends after the decision to fall back, before or during the first turn
// with the other model.
func TestACrashKeepsTheFallback(t *testing.T) {
	for _, next := range []bgagent.ProviderNextStep{bgagent.NextContinue, bgagent.NextRepeat, bgagent.NextNewSession, bgagent.NextNone} {
		for _, inTurn := range []bool{false, true} {
			t.Run(fmt.Sprint(next, " ", inTurn), func(t *testing.T) {
				inWorldWithFallbacks(t, bgagent.ProviderError{Kind: bgagent.ProviderQuota, Next: next, Message: "used up"}, func(t *testing.T, w *world) {
					m := w.begin()
					busy := ""
					if !inTurn {
						busy = launchOn(t, m, modelB, "busy")
					}
					id := launchOn(t, m, "", "p")
					time.Sleep(time.Second)
					was := get(t, m, id)
					require.Equal(t, inTurn, was.Phase == bgagent.PhaseTurn)
					require.Equal(t, 2, was.Attempt)
					require.Equal(t, modelB, was.Model)
					w.crash()
					w.cfg.Fallback = nil // the decision to fall back remains in effect

					m = w.begin()
					loaded := get(t, m, id)
					require.Equal(t, []any{was.Model, was.Attempt, was.Fallback, was.Reason}, []any{loaded.Model, loaded.Attempt, loaded.Fallback, loaded.Reason})
					require.Equal(t, bgagent.CauseSuperseded, loaded.Attempts[0].Cause)
					require.Equal(t, was.Fallback, loaded.Attempts[0].Reason)
					if !inTurn {
						require.Equal(t, bgagent.Completed, ended(t, m, busy)[0].Status)
					}
					task := ended(t, m, id)[0]
					require.Equal(t, bgagent.Completed, task.Status, task.Reason)
					require.Equal(t, modelB, task.Model)
					require.Equal(t, was.Fallback, task.Fallback)
					w.mu.Lock()
					defer w.mu.Unlock()
					got := w.sessions[task.Session]
					first := got[0].prompt
					require.Equal(t, modelB, first.Model)
					switch next {
					case bgagent.NextContinue:
						require.Equal(t, id+".1.1", first.Unanswered)
					default:
						require.Equal(t, "p", first.Text)
					}
					if !inTurn {
						require.Len(t, got, 1)
						require.Equal(t, 2, task.Attempt)
					}
				})
			})
		}
	}
}

// This test is like TestACrashKeepsTheFallback, but the session of the next model no longer
// exists. If the next model must continue the old session, the task fails. Otherwise, a new
// session gets the prompt.
func TestACrashKeepsTheFallbackWithoutItsSession(t *testing.T) {
	for _, next := range []bgagent.ProviderNextStep{bgagent.NextContinue, bgagent.NextRepeat, bgagent.NextNewSession, bgagent.NextNone} {
		for _, inTurn := range []bool{false, true} {
			t.Run(fmt.Sprint(next, " ", inTurn), func(t *testing.T) {
				inWorldWithFallbacks(t, bgagent.ProviderError{Kind: bgagent.ProviderQuota, Next: next}, func(t *testing.T, w *world) {
					m := w.begin()
					if !inTurn {
						launchOn(t, m, modelB, "busy")
					}
					id := launchOn(t, m, "", "p")
					time.Sleep(time.Second)
					was := get(t, m, id)
					require.Equal(t, 2, was.Attempt)
					w.crash()
					w.mu.Lock()
					delete(w.sessions, was.Session)
					w.mu.Unlock()

					m = w.begin()
					task := ended(t, m, id)[0]
					require.Equal(t, modelB, task.Model)
					require.Equal(t, 2, task.Attempt)
					if next == bgagent.NextContinue {
						require.Equal(t, bgagent.CauseSessionGone, task.Cause)
						return
					}
					require.Equal(t, bgagent.Completed, task.Status, task.Reason)
					require.NotEqual(t, was.Session, task.Session)
					require.Equal(t, "answer to p", task.Result)
				})
			})
		}
	}
}

func TestAModelThatTheCallerNamedStaysAfterARestart(t *testing.T) {
	inWorldWithFallbacks(t, bgagent.ProviderError{Kind: bgagent.ProviderOverloaded, Next: bgagent.NextContinue}, func(t *testing.T, w *world) {
		m := w.begin()
		id := launchOn(t, m, modelA, "p")
		other := launchOn(t, m, "", "other")
		time.Sleep(time.Minute)
		w.crash()
		m = w.begin()
		tasks := ended(t, m, id, other)
		require.Equal(t, bgagent.CauseRateLimited, tasks[0].Cause)
		require.Equal(t, modelA, tasks[0].Model)
		require.Equal(t, bgagent.Completed, tasks[1].Status, tasks[1].Reason)
	})
}

// This test removes from a record the field that earlier versions did not write.
func TestTheModelOfARecordOfAnEarlierVersionStays(t *testing.T) {
	inWorldWithFallbacks(t, bgagent.ProviderError{Kind: bgagent.ProviderOverloaded, Next: bgagent.NextContinue}, func(t *testing.T, w *world) {
		m := w.begin()
		id := launchOn(t, m, "", "p")
		time.Sleep(time.Minute)
		w.crash()
		r := recordOf(t, &w.memory, id)
		const field = `,"model_chosen":true`
		require.Contains(t, string(r.Data), field)
		r.Data = bytes.Replace(r.Data, []byte(field), nil, 1)
		p := w.memory.Process()
		c, err := p.Open(t.Context(), bgagent.StoreOwner{})
		require.NoError(t, err)
		require.NoError(t, p.Write(t.Context(), &bgagent.StoreBatch{Number: c.Batch + 1, Records: []bgagent.StoreRecord{r}}))
		require.NoError(t, p.Close())

		m = w.begin()
		task := ended(t, m, id)[0]
		require.Equal(t, bgagent.CauseRateLimited, task.Cause, task.Reason)
		require.Equal(t, modelA, task.Model)
	})
}

// In this test, the process ends or is suspended while a task waits for its provider.
func TestAWaitForAFallbackGoesOnAfterARestart(t *testing.T) {
	for _, suspends := range []bool{false, true} {
		inWorldWithFallbacks(t, bgagent.ProviderError{Kind: bgagent.ProviderOverloaded, Next: bgagent.NextContinue}, func(t *testing.T, w *world) {
			m := w.begin()
			id := launchOn(t, m, "", "p")
			time.Sleep(6 * time.Minute)
			require.Equal(t, modelA, get(t, m, id).Model)
			if suspends {
				require.NoError(t, m.Suspend(context.Background()))
			} else {
				w.crash()
			}
			m = w.begin()
			began := time.Now()
			task := ended(t, m, id)[0]
			require.Equal(t, bgagent.Completed, task.Status, task.Reason)
			require.Equal(t, modelB, task.Model)
			require.WithinRange(t, began, task.Started.Add(-5*time.Minute), task.Started.Add(-3*time.Minute))
		})
	}
}

func TestTheHistoryShowsTheFallback(t *testing.T) {
	inWorldWithFallbacks(t, bgagent.ProviderError{Kind: bgagent.ProviderQuota, Next: bgagent.NextContinue}, func(t *testing.T, w *world) {
		m := w.begin()
		task := ended(t, m, launchOn(t, m, "", "p"))[0]
		time.Sleep(time.Minute)
		list, err := m.History(t.Context(), bgagent.Query{}, "")
		require.NoError(t, err)
		require.Len(t, list, 1)
		require.Equal(t, modelB, list[0].Model)
		require.NotEmpty(t, task.Fallback)
		require.Equal(t, task.Fallback, list[0].Fallback)
		for _, n := range w.told.all() {
			require.Contains(t, n.Text, "### On Other Models\n\n- `"+task.ID+"`: fell back from the model one/a to two/b: the provider of the model refused the turn (quota)")
			require.Equal(t, task.Fallback, n.Items[0].Fallback)
		}
		require.Len(t, w.told.all(), 1)
	})
}
