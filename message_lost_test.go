package bgagent_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/bgagenttest"
	"github.com/stretchr/testify/require"
)

// refusing returns a runner that takes every message and whose first turns are refused, each after 10 s,
// with the given next steps.
func refusing(steps ...bgagent.ProviderNextStep) *steered {
	f := &steered{Runner: bgagenttest.NewRunner(func(turn *bgagenttest.Turn) {
		if len(steps) > 0 {
			next := steps[0]
			steps = steps[1:]
			turn.Sleep(10 * time.Second)
			turn.Fail(&bgagent.ProviderError{Kind: bgagent.ProviderOverloaded, Next: next})
		}
		answering(turn)
	})}
	f.steer = func(context.Context, string, bgagent.TurnMessage) error { return nil }
	return f
}

// joins launches a task and sends a message that joins its first turn.
func joins(t *testing.T, m *bgagent.BackgroundManager) bgagent.Task {
	t.Helper()
	task := launch(t, m, "work")
	time.Sleep(time.Second)
	r, err := m.Send(t.Context(), root, task.ID, bgagent.SendInput{Key: "k", Text: "joined", Now: true})
	require.NoError(t, err)
	require.Equal(t, bgagent.MessageInTurn, r.State)
	return get(t, m, task.ID)
}

// The session goes on with the message after the first refusal, so the second one does not lose it.
func TestAMessageThatTheSessionHasIsNotSentAgainAfterAnotherRefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := refusing(bgagent.NextContinue, bgagent.NextRepeat)
		defer f.Close()
		m := manage(t, f, limit(1))
		task := ended(t, m, joins(t, m).ID)[0]
		for _, text := range promptsOf(f.Fake, task.Session) {
			require.NotContains(t, text, "joined")
		}
		require.Equal(t, bgagent.MessageInTurn, send(t, m, task.ID, "k", "").State)
		require.Empty(t, task.Unconsumed)
	})
}

func TestAMessageThatTheSessionHasIsNotSentAgainWithAnotherModel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := refusing(bgagent.NextContinue, bgagent.NextRepeat)
		defer f.Close()
		cfg := fallbacks(modelB)
		cfg.FallbackAfter = time.Second
		m := manage(t, f, cfg)
		task := ended(t, m, joins(t, m).ID)[0]
		require.Equal(t, modelB, task.Model)
		for _, text := range promptsOf(f.Fake, task.Session) {
			require.NotContains(t, text, "joined")
		}
	})
}

// The session does not have the prompt after the refusal, but the message that joined the refused turn.
func TestAMessageThatTheSessionHasIsNotSentAgainAfterACrash(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.client = func(l *life) bgagent.SessionClient { return steeringLife{l} }
		refused := false
		w.refuse = func(string, bgagent.Prompt) error {
			if refused {
				return nil
			}
			refused = true
			time.Sleep(10 * time.Second)
			return &bgagent.ProviderError{Kind: bgagent.ProviderOverloaded, Next: bgagent.NextContinue}
		}
		m := w.begin()
		task := joins(t, m)
		time.Sleep(time.Minute)
		require.Equal(t, bgagent.PhaseTurn, get(t, m, task.ID).Phase)
		w.crash()
		w.mu.Lock()
		w.sessions[task.Session] = nil
		w.mu.Unlock()
		m = w.begin()
		m.Start()
		task = ended(t, m, task.ID)[0]
		require.NotContains(t, strings.Join(w.texts(task.Session), "\n"), "joined")
		require.Equal(t, bgagent.MessageInTurn, send(t, m, task.ID, "k", "").State)
	})
}

// The prompt that continues an interrupted turn repeats the message, and this prompt is lost, too.
func TestAMessageInThePromptThatContinuesATurnIsSentOnce(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.client = func(l *life) bgagent.SessionClient { return steeringLife{l} }
		m := w.begin()
		task := joins(t, m)
		w.crash()
		m = w.begin()
		m.Start()
		time.Sleep(30 * time.Second)
		require.Contains(t, w.lastText(), "joined")
		w.crash()
		w.mu.Lock()
		w.sessions[task.Session] = w.sessions[task.Session][:1]
		w.mu.Unlock()
		m = w.begin()
		m.Start()
		task = ended(t, m, task.ID)[0]
		require.Equal(t, 1, strings.Count(strings.Join(w.texts(task.Session), "\n"), "joined"))
	})
}
