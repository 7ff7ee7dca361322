//go:build unix

package acp

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

// steerFake sends a message to a turn of an agent that answers with the outcome. It returns the
// agent, how the turn ended, and the error.
func steerFake(t *testing.T, outcome, prompt, text string) (a *fakeAgent, end ended, err error) {
	synctest.Test(t, func(t *testing.T) {
		a = &fakeAgent{steers: outcome}
		c := piped(t, Config{}, func() *fakeAgent { return a })
		id := create(t, c)
		require.ErrorContains(t, c.Steer(t.Context(), id, bgagent.TurnMessage{Text: text}), "not in a turn")
		require.ErrorIs(t, c.Steer(t.Context(), "other", bgagent.TurnMessage{Text: text}), bgagent.ErrNoSession)
		l := run(t, c, id, bgagent.Prompt{ID: "p", Text: prompt})
		time.Sleep(time.Second)
		err = c.Steer(t.Context(), id, bgagent.TurnMessage{ID: "m", Text: text})
		end = l.wait()
	})
	return a, end, err
}

func TestAMessageJoinsTheTurnOfAnAgent(t *testing.T) {
	for text, want := range map[string]string{"more": "more", " /help": "A message:\n\n /help"} {
		a, end, err := steerFake(t, "injected", "nap 10s\nsay done", text)
		require.NoError(t, err)
		require.Equal(t, "done", end.Text)
		require.Len(t, a.steered, 1)
		require.Equal(t, want, a.steered[0].Prompt[0].Text.Text)
		require.Equal(t, map[string]any{"steering": map[string]any{"idleBehavior": "promptRequired"}}, a.steered[0].Meta, "the agent starts no turn by itself")
	}
}

func TestWhatAnAgentAnswersToAMessageForItsTurn(t *testing.T) {
	const prompt = "nap 10s\nsay done"
	_, end, err := steerFake(t, "", prompt, "more")
	require.ErrorIs(t, err, errors.ErrUnsupported, "the agent has not announced the extension")
	require.Equal(t, "done", end.Text)

	_, end, err = steerFake(t, "promptRequired", prompt, "more")
	require.ErrorIs(t, err, errNoTurn)
	require.NotErrorIs(t, err, bgagent.ErrUncertain)
	require.Equal(t, "done", end.Text)

	for _, answer := range []string{`{"code":-32601,"message":"no such method"}`, `{"code":-32602,"message":"bad"}`} {
		_, _, err = steerFake(t, answer, prompt, "more")
		require.Error(t, err)
		require.NotErrorIs(t, err, bgagent.ErrUncertain, "the agent has refused the message")
	}
	_, _, err = steerFake(t, `{"code":-32603,"message":"failed"}`, prompt, "more")
	require.ErrorIs(t, err, bgagent.ErrUncertain)

	for _, outcome := range []string{"queued", "startedNewTurn"} {
		a, end, err := steerFake(t, outcome, prompt, "more")
		require.ErrorIs(t, err, bgagent.ErrUncertain)
		require.ErrorContains(t, err, "the agent answered")
		require.Equal(t, "done", end.Text, "the running turn is not cancelled")
		require.Zero(t, a.cancels)
	}
}

// The client's turn ends before the agent answers that it has started its own turn.
func TestTheTurnThatAnAgentStartsForAMessageIsCancelled(t *testing.T) {
	for name, next := range map[string]bool{"the session is idle": false, "the next prompt is being answered": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := &fakeAgent{steers: "startedNewTurn", steersIn: time.Minute}
				c := piped(t, Config{}, func() *fakeAgent { return a })
				id := create(t, c)
				l := run(t, c, id, bgagent.Prompt{ID: "p", Text: "nap 10s\nsay done"})
				time.Sleep(time.Second)
				steered := make(chan error)
				go func() { steered <- c.Steer(t.Context(), id, bgagent.TurnMessage{ID: "m", Text: "more"}) }()
				require.Equal(t, "done", l.wait().Text)
				if next {
					l = run(t, c, id, bgagent.Prompt{ID: "q", Text: "nap 5m\nsay done, too"})
				}
				err := <-steered
				require.ErrorIs(t, err, bgagent.ErrUncertain)
				synctest.Wait()
				a.mu.Lock()
				cancels := a.cancels
				a.mu.Unlock()
				if next {
					require.Zero(t, cancels)
					require.Equal(t, "done, too", l.wait().Text, "the next turn is not cancelled")
					return
				}
				require.Equal(t, 1, cancels)
				require.ErrorContains(t, err, "the turn that it has started was cancelled")
			})
		})
	}
}

// A message that joined a turn is not mistaken for the prompt of a later turn.
func TestAJoinedMessageIsNotAPrompt(t *testing.T) {
	var m memory
	m.sends("p1", "first")
	m.joins("continue")
	require.Equal(t, []string{hashOf("continue"), hashOf("first")}, m.Sent)
	r := &replay{}
	r.asked("first")
	r.said("I work", "1")
	r.asked("continue")
	r.said("I work on", "2")
	require.Equal(t, bgagent.PromptInterrupted, r.judge(&m, bgagent.Prompt{ID: "p1", Text: "first"}))
	require.Equal(t, bgagent.PromptMissing, r.judge(&m, bgagent.Prompt{ID: "p2", Text: "second"}), "the prompt is not recorded yet")
	recorded := m
	recorded.sends("p2", "second")
	require.Equal(t, bgagent.PromptMissing, r.judge(&recorded, bgagent.Prompt{ID: "p2", Text: "second"}), "the agent has the message of the turn before, and not the prompt")
	recorded.sends("p3", "third")
	require.NotEqual(t, bgagent.PromptMissing, r.judge(&recorded, bgagent.Prompt{ID: "p3", Text: "third"}), "the prompt of the turn before is missing")
	m.sends("p2", "continue")
	require.NotEqual(t, bgagent.PromptInterrupted, r.judge(&m, bgagent.Prompt{ID: "p2", Text: "continue"}), "the agent does not have the prompt")
	m.joins("refused")
	m.leaves("refused")
	require.Empty(t, m.Joined)
	require.Equal(t, []string{hashOf("continue"), hashOf("first"), hashOf("continue")}, m.Sent)
	m.leaves("continue")
	require.Equal(t, []string{hashOf("first"), hashOf("continue")}, m.Sent, "the message of the turn before, and not the prompt")
	for range maxSent {
		m.joins("x")
	}
	require.Len(t, m.Sent, maxSent)
	require.Equal(t, hashOf("continue"), m.Sent[maxSent-1])
	require.True(t, m.Cut)
}

func TestOnlyAMessageThatTheAgentMayHaveIsRemembered(t *testing.T) {
	for outcome, want := range map[string]int{"injected": 1, "queued": 1, "promptRequired": 0, `{"code":-32601}`: 0, `{"code":-32602}`: 0, `{"code":-32603}`: 1} {
		synctest.Test(t, func(t *testing.T) {
			c := piped(t, Config{}, func() *fakeAgent { return &fakeAgent{steers: outcome} })
			id := create(t, c)
			l := run(t, c, id, bgagent.Prompt{ID: "p", Text: "nap 10s\nsay done", Instance: "one"})
			time.Sleep(time.Second)
			_ = c.Steer(t.Context(), id, bgagent.TurnMessage{ID: "m", Text: "more"})
			l.wait()
			c.mu.Lock()
			defer c.mu.Unlock()
			m := c.sessions[id].memory
			require.Len(t, m.Joined, want, outcome)
			require.Len(t, m.Sent, 1+want, outcome)
		})
	}
}
