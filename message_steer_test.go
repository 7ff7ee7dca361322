package bgagent_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/bgagenttest"
	"github.com/stretchr/testify/require"
)

// The type "steered" is a runner that accepts messages during its turns.
type steered struct {
	bgagenttest.Runner
	steer func(ctx context.Context, session string, msg bgagent.TurnMessage) error
}

func (s steered) Steer(ctx context.Context, session string, msg bgagent.TurnMessage) error {
	return s.steer(ctx, session, msg)
}

func TestAMessageJoinsTheRunningTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := steered{Runner: bgagenttest.NewRunner(answering)}
		defer f.Close()
		var got []bgagent.TurnMessage
		var fail error
		f.steer = func(_ context.Context, _ string, msg bgagent.TurnMessage) error {
			got = append(got, msg)
			time.Sleep(time.Second)
			return fail
		}
		m := manage(t, &f, limit(1))
		task := launch(t, m, "work")
		time.Sleep(time.Second)
		now := func(key string) (bgagent.SendResult, error) {
			return m.Send(t.Context(), root, task.ID, bgagent.SendInput{Key: key, Text: "text of " + key, Now: true})
		}
		r, err := now("a")
		require.NoError(t, err)
		require.Equal(t, bgagent.MessageInTurn, r.State)
		require.Equal(t, 1, r.Turn)
		r, err = now("a")
		require.NoError(t, err)
		require.Equal(t, bgagent.MessageInTurn, r.State)
		require.Len(t, got, 1, "the client must get a message only once")
		require.Equal(t, bgagent.TurnMessage{ID: task.ID + ".m1", Task: task.ID, Attempt: 1, Turn: 1, Text: "text of a"}, got[0])

		fail = errors.ErrUnsupported
		r, err = now("b")
		require.ErrorIs(t, err, bgagent.ErrCannotSteer)
		require.Equal(t, bgagent.MessageRefused, r.State)
		fail = nil
		r, err = now("b")
		require.NoError(t, err, "a refused message can be sent again")
		require.Equal(t, bgagent.MessageInTurn, r.State)

		f.steer = func(ctx context.Context, _ string, _ bgagent.TurnMessage) error {
			panic("the client breaks")
		}
		r, err = now("c")
		require.ErrorIs(t, err, bgagent.ErrUncertain)
		require.Equal(t, bgagent.MessageUncertain, r.State)
		r, err = now("c")
		require.NoError(t, err)
		require.Equal(t, bgagent.MessageUncertain, r.State)

		f.steer = func(context.Context, string, bgagent.TurnMessage) error {
			return fmt.Errorf("no answer: %w", bgagent.ErrUncertain)
		}
		r, err = now("e")
		require.ErrorIs(t, err, bgagent.ErrUncertain)
		require.Equal(t, bgagent.MessageUncertain, r.State)

		task = ended(t, m, task.ID)[0]
		require.Equal(t, "answer to work", task.Result, "a message that joins a turn has no separate answer")
		require.Empty(t, task.Unconsumed)
		_, err = now("d")
		require.ErrorIs(t, err, bgagent.ErrAlreadyEnded)
	})
}

func TestAMessageJoinsTheTurnOfAStarter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := bgagenttest.NewStarter(func(turn *bgagenttest.Turn) {
			turn.Say("I begin.")
			turn.Sleep(10 * time.Second)
			turn.Say(fmt.Sprintf("%d messages", len(turn.Steered())))
		})
		f.Steerable = true
		defer f.Close()
		m := manage(t, f, limit(1))
		task := launch(t, m, "work")
		time.Sleep(5 * time.Second)
		r, err := m.Send(t.Context(), root, task.ID, bgagent.SendInput{Text: "more", Now: true})
		require.NoError(t, err)
		require.Equal(t, bgagent.MessageInTurn, r.State)
		task = ended(t, m, task.ID)[0]
		require.Equal(t, "1 messages", task.Result)
		require.Equal(t, 1, task.Progress.Turns)
		require.Equal(t, []string{"work", "more"}, promptsOf(f.Fake, task.Session))
		require.Empty(t, f.Violations())
	})
}

// steerWith returns a Steer method that returns the given error.
func steerWith(err *error) func(context.Context, string, bgagent.TurnMessage) error {
	return func(context.Context, string, bgagent.TurnMessage) error { return *err }
}
