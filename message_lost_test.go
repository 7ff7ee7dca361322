package bgagent_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/bgagenttest"
	"github.com/stretchr/testify/require"
)

// The function "refusing" returns a runner that accepts every message and whose first turns are
// refused, each after 10 s, with the given next steps.
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

// The function "joins" launches a task and sends a message that joins its first turn.
func joins(t *testing.T, m *bgagent.BackgroundManager) bgagent.Task {
	t.Helper()
	task := launch(t, m, "work")
	time.Sleep(time.Second)
	r, err := m.Send(t.Context(), root, task.ID, bgagent.SendInput{Key: "k", Text: "joined", Now: true})
	require.NoError(t, err)
	require.Equal(t, bgagent.MessageInTurn, r.State)
	return get(t, m, task.ID)
}

// In this test, the session continues after the first refusal and still contains the message.
// Therefore, the second refusal does not lose the message.
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

// In this test, the crash loses the prompt of the turn that followed the refusal. The session still
// contains the message that joined the refused turn.
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

// In this test, the prompt that continues an interrupted turn repeats the message, but this prompt
// is also lost.
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

// In this test, the client accepts or rejects the message only after the turn has been refused. The
// session has kept nothing from that turn.
func TestAMessageThatTheClientTakesAfterARefusalGetsATurnOfItsOwn(t *testing.T) {
	for _, next := range []bgagent.ProviderNextStep{bgagent.NextRepeat, bgagent.NextNewSession} {
		for name, c := range map[string]struct {
			prompts int           // number of prompts that the client gets before it accepts or rejects the message
			takes   time.Duration // how long after the last of these prompts the client accepts or rejects it
			state   bgagent.MessageState
			fail    error
		}{
			"right after the refusal":     {prompts: 1, takes: 9*time.Second + time.Millisecond, state: bgagent.MessageAccepted},
			"in the repeated turn":        {prompts: 2, takes: time.Second, state: bgagent.MessageAccepted},
			"after the end":               {prompts: 2, takes: time.Minute, state: bgagent.MessageUnconsumed},
			"the client refuses it later": {prompts: 2, takes: time.Second, state: bgagent.MessageRefused, fail: errors.ErrUnsupported},
		} {
			t.Run(fmt.Sprint(next)+", "+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					f := refusing(next)
					defer f.Close()
					f.steer = func(context.Context, string, bgagent.TurnMessage) error {
						for len(f.Prompts()) < c.prompts {
							time.Sleep(time.Second)
						}
						time.Sleep(c.takes)
						return c.fail
					}
					cfg := limit(1)
					cfg.CallTimeout = time.Hour
					m := manage(t, f, cfg)
					task := launch(t, m, "work")
					time.Sleep(time.Second)
					r, err := m.Send(t.Context(), root, task.ID, bgagent.SendInput{Key: "k", Text: "joined", Now: true})
					if c.fail == nil {
						require.NoError(t, err)
					} else {
						require.ErrorIs(t, err, bgagent.ErrCannotSteer)
					}
					require.Equal(t, c.state, r.State)
					task = ended(t, m, task.ID)[0]
					if c.state == bgagent.MessageAccepted {
						require.Equal(t, "answer to work\n\n## Answer to message 1: joined\n\nanswer to joined", task.Result)
					} else {
						require.Equal(t, "answer to work", task.Result)
					}
					if c.state == bgagent.MessageUnconsumed {
						require.Equal(t, []bgagent.UnconsumedMessage{{Key: "k", Text: "joined"}}, task.Unconsumed)
					} else {
						require.Empty(t, task.Unconsumed)
					}
				})
			})
		}
	}
}

func TestAMessageOfARefusedTurnIsUnconsumedIfTheAttemptEnds(t *testing.T) {
	for next, unconsumed := range map[bgagent.ProviderNextStep][]bgagent.UnconsumedMessage{
		bgagent.NextRepeat:     {{Key: "k", Text: "joined"}},
		bgagent.NextNewSession: {{Key: "k", Text: "joined"}},
		bgagent.NextContinue:   nil,
	} {
		synctest.Test(t, func(t *testing.T) {
			f := refusing(next)
			defer f.Close()
			cfg := limit(1)
			cfg.MaxPark = bgagent.Disabled
			m := manage(t, f, cfg)
			task := ended(t, m, joins(t, m).ID)[0]
			require.Equal(t, bgagent.CauseRateLimited, task.Cause)
			require.Equal(t, unconsumed, task.Unconsumed, next)
		})
	}
}

// While StartTurn hangs, it is unknown whether the turn contains the message.
func TestAMessageThatIsBeingHandedOverWhenTheAttemptEndsIsUncertain(t *testing.T) {
	hangs := func(c bgagenttest.Call) (f bgagenttest.Fault) {
		f.Hang = c.Kind == bgagenttest.CallTurn && c.N == 2
		return f
	}
	onFaultyServer(t, answering, hangs, limit(1), func(t *testing.T, m *bgagent.BackgroundManager, _ bgagenttest.Starter) {
		task := launch(t, m, "work")
		send(t, m, task.ID, "k", "also look at the tests")
		send(t, m, task.ID, "l", "and at the docs")
		time.Sleep(20 * time.Second)
		require.Equal(t, bgagent.PhaseStarting, get(t, m, task.ID).Phase)
		_, err := m.Cancel(t.Context(), root, task.ID, bgagent.CancelOptions{})
		require.NoError(t, err)
		require.Equal(t, []bgagent.UnconsumedMessage{
			{Key: "k", Text: "also look at the tests", Uncertain: true}, {Key: "l", Text: "and at the docs"},
		}, ended(t, m, task.ID)[0].Unconsumed)
	})
}
