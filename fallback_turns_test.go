package bgagent_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/bgagenttest"
	"github.com/stretchr/testify/require"
)

func TestAModelWithWhichNoSessionCanBeCreatedIsReplaced(t *testing.T) {
	for kind, falls := range map[bgagent.ProviderErrorKind]bool{bgagent.ProviderUnknownModel: true, bgagent.ProviderAuthentication: false} {
		f := newLimited(onModels(nil))
		f.create = func(_ context.Context, s bgagent.SessionSpec) (string, error) {
			if s.Model == modelA {
				return "", fmt.Errorf("fake: %w", &bgagent.ProviderError{Kind: kind, Message: "no such model"})
			}
			return f.nextID(), nil
		}
		bubble(t, f, fallbacks(modelB), func(t *testing.T, m *bgagent.BackgroundManager) {
			task := ended(t, m, launch(t, m, "p").ID)[0]
			require.Equal(t, falls, task.Status == bgagent.Completed, task.Reason)
			require.Contains(t, task.Reason+task.Fallback, "no such model")
			if falls {
				require.Equal(t, modelB, task.Model)
				require.Equal(t, "p", f.turns()[0].prompt.Text)
			} else {
				require.Equal(t, bgagent.CauseStartFailed, task.Cause)
			}
		})
	}
}

// In this test, a turn's program would wait an hour before it repeated its refused request, so the
// manager stops the turn. The Abort call takes a long time.
func TestTheFallbackWaitsForTheAbortCall(t *testing.T) {
	f := newLimited(nil)
	var aborted time.Time
	f.run = func(ctx context.Context, session string, p bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
		f.mu.Lock()
		f.begun = append(f.begun, limitedTurn{session, p, time.Now()})
		f.mu.Unlock()
		if p.Model == modelA {
			r.Retrying(bgagent.ProviderError{Kind: bgagent.ProviderQuota, Next: bgagent.NextContinue}, time.Now().Add(time.Hour))
			<-ctx.Done()
			time.Sleep(time.Second)
			return bgagent.TurnEnd{Stop: bgagent.StopAborted}, nil
		}
		r.Text("answer")
		return bgagent.TurnEnd{}, nil
	}
	f.abort = func(context.Context, string) error {
		time.Sleep(4 * time.Second)
		aborted = time.Now()
		return nil
	}
	bubble(t, f, fallbacks(modelB), func(t *testing.T, m *bgagent.BackgroundManager) {
		id := launch(t, m, "p").ID
		time.Sleep(2 * time.Second)
		require.Equal(t, modelA, get(t, m, id).Model)
		require.Equal(t, bgagent.PhaseParked, get(t, m, id).Phase)
		task := ended(t, m, id)[0]
		require.Equal(t, bgagent.Completed, task.Status, task.Reason)
		turns := f.turns()
		require.Equal(t, []string{modelA, modelB}, modelsOf(turns))
		require.False(t, turns[1].at.Before(aborted))
	})
}

// In this test, the client is a [bgagent.TurnStarter]. In the first turn, the agent calls a tool,
// and then the provider refuses the turn.
func TestAStarterGoesOnWithTheNextModel(t *testing.T) {
	for _, next := range []bgagent.ProviderNextStep{bgagent.NextContinue, bgagent.NextNone} {
		f := bgagenttest.NewStarter(func(turn *bgagenttest.Turn) {
			if turn.Prompt.Model == modelA {
				turn.Tool("write", time.Second)
				turn.Refuse(bgagent.ProviderError{Kind: bgagent.ProviderQuota, Next: next})
			}
			turn.Say("answer")
		})
		bubble(t, f, fallbacks(modelB), func(t *testing.T, m *bgagent.BackgroundManager) {
			task := ended(t, m, launch(t, m, "p").ID)[0]
			got := f.Received()
			if next == bgagent.NextNone {
				require.Equal(t, bgagent.CauseRateLimited, task.Cause)
				require.Len(t, got, 1, "the session must not be replaced, because the tool has had an effect")
				return
			}
			require.Equal(t, bgagent.Completed, task.Status, task.Reason)
			require.Equal(t, "answer", task.Result)
			require.Equal(t, modelB, task.Model)
			require.Zero(t, task.Progress.ToolCalls, "the calls of the superseded attempt do not count again")
			require.Len(t, got, 2)
			require.Equal(t, got[0].Session, got[1].Session)
			require.Empty(t, f.Violations())
		})
	}
}

// In this test, a task is held back because its pool begins to cool down while its session is being
// created. The provider never recovers.
func TestATaskThatCouldNotBeginFallsBack(t *testing.T) {
	f := newLimited(onModels(map[string]bgagent.ProviderError{modelA: {Kind: bgagent.ProviderOverloaded, Next: bgagent.NextNone}}))
	n := 0
	f.create = func(context.Context, bgagent.SessionSpec) (string, error) {
		f.mu.Lock()
		n++
		slow := n == 1
		f.mu.Unlock()
		if slow {
			time.Sleep(time.Second)
		}
		return f.nextID(), nil
	}
	cfg := fallbacks(modelB)
	cfg.Limits.Default = 2
	cfg.FallbackAfter = 2 * time.Second
	bubble(t, f, cfg, func(t *testing.T, m *bgagent.BackgroundManager) {
		began := time.Now()
		id := launch(t, m, "p").ID
		synctest.Wait()
		_, err := m.Launch(t.Context(), root, bgagent.LaunchInput{Agent: "worker", Prompt: "named", Model: modelA})
		require.NoError(t, err)
		task := ended(t, m, id)[0]
		require.Equal(t, bgagent.Completed, task.Status, task.Reason)
		require.Equal(t, modelB, task.Model)
		require.Contains(t, task.Fallback, "refused other turns, and the turn could not begin")
		require.Equal(t, 3*time.Second, time.Since(began), "1 s until its session exists, 1 s until its pool has been cooling down for 2 s, 1 s in its turn")
		require.Equal(t, "p", f.turns()[1].prompt.Text)
	})
}

// In this test, a turn that has shown only reasoning is refused. The turn with the next model is
// empty.
func TestTheNextModelDoesNotAnswerWithTheThoughtsOfTheModelBefore(t *testing.T) {
	for _, next := range []bgagent.ProviderNextStep{bgagent.NextContinue, bgagent.NextRepeat, bgagent.NextNone} {
		f := newLimited(nil)
		f.run = func(_ context.Context, session string, p bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
			if p.Model == modelA {
				r.Reasoning("a secret thought")
				return bgagent.TurnEnd{}, &bgagent.ProviderError{Kind: bgagent.ProviderQuota, Next: next}
			}
			return bgagent.TurnEnd{}, nil
		}
		bubble(t, f, fallbacks(modelB), func(t *testing.T, m *bgagent.BackgroundManager) {
			task := ended(t, m, launch(t, m, "p").ID)[0]
			require.Equal(t, modelB, task.Model)
			require.Equal(t, bgagent.Failed, task.Status, task.Reason)
			require.Empty(t, task.Result)
			require.False(t, task.Reasoning)
		})
	}
}
