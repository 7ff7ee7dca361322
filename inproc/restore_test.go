package inproc_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/inproc"
	"github.com/bgagent/bgagent/storetest"
	"github.com/stretchr/testify/require"
)

// The function "counts" is an agent that works in three steps of ten seconds. It saves each
// finished step. If steps were saved earlier, it continues with the step after them.
func counts(ctx context.Context, t *inproc.Turn) (string, error) {
	done := string(t.Saved())
	for _, step := range []string{"a", "b", "c"} {
		if strings.Contains(done, step) {
			continue
		}
		select {
		case <-time.After(10 * time.Second):
		case <-ctx.Done():
			return "", ctx.Err()
		}
		done += step
		t.SaveState([]byte(done))
	}
	return done, nil
}

// The function "opened" returns a manager that uses the store and the client.
func opened(t *testing.T, store *storetest.Process, client *inproc.Client) *bgagent.BackgroundManager {
	t.Helper()
	m, err := bgagent.New(client, bgagent.Config{Store: store})
	require.NoError(t, err)
	t.Cleanup(func() { _ = m.Close(context.Background()) })
	return m
}

func newCounter(restore func(context.Context, bgagent.SessionRestore) (inproc.Restored, error)) *inproc.Client {
	client := inproc.New(map[string]inproc.Agent{"counter": counts})
	client.Restore = restore
	return client
}

func TestWhatAFunctionHasDoneIsContinuedAsTheHostSays(t *testing.T) {
	says := func(r inproc.Restored) func(context.Context, bgagent.SessionRestore) (inproc.Restored, error) {
		return func(context.Context, bgagent.SessionRestore) (inproc.Restored, error) { return r, nil }
	}
	for name, x := range map[string]struct {
		restore func(context.Context, bgagent.SessionRestore) (inproc.Restored, error)
		cause   bgagent.Cause
		attempt int
		result  string
		took    time.Duration
	}{
		"no hook":     {cause: bgagent.CauseInterrupted, attempt: 1},
		"unknown":     {restore: says(inproc.Restored{}), cause: bgagent.CauseInterrupted, attempt: 1},
		"interrupted": {restore: says(inproc.Restored{Prompt: bgagent.PromptInterrupted}), cause: bgagent.CauseTurnEnded, attempt: 2, result: "abc", took: 10 * time.Second},
		"missing":     {restore: says(inproc.Restored{Prompt: bgagent.PromptMissing}), cause: bgagent.CauseTurnEnded, attempt: 1, result: "abc", took: 10 * time.Second},
		"answered":    {restore: says(inproc.Restored{Prompt: bgagent.PromptAnswered, End: bgagent.TurnEnd{Text: "ab and c"}}), cause: bgagent.CauseTurnEnded, attempt: 1, result: "ab and c"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var memory storetest.Memory
				store := memory.Process()
				task, err := opened(t, store, newCounter(nil)).Launch(t.Context(), root, bgagent.LaunchInput{Agent: "counter", Prompt: "count"})
				require.NoError(t, err)
				time.Sleep(25 * time.Second)
				store.Crash()
				m := opened(t, memory.Process(), newCounter(x.restore))
				begun := time.Now()
				tasks, err := m.Wait(t.Context(), root, bgagent.WaitAll, task.ID)
				require.NoError(t, err)
				task = tasks[0]
				require.Equal(t, x.cause, task.Cause, task.Reason)
				require.Equal(t, x.attempt, task.Attempt)
				require.Equal(t, x.result, task.Result)
				require.Equal(t, x.took, time.Since(begun))
			})
		})
	}
}

func TestATaskThatWasNotPromptedYetNeedsNoRestoreFunction(t *testing.T) {
	c := inproc.New(map[string]inproc.Agent{"counter": counts})
	for _, session := range []string{"", "ses_of_an_earlier_process"} {
		state, _, err := c.RestoreSession(t.Context(), bgagent.SessionRestore{Session: session, Spec: bgagent.SessionSpec{Agent: "counter"}})
		require.Equal(t, bgagent.PromptMissing, state)
		require.ErrorIs(t, err, bgagent.ErrNoSession)
	}
	_, _, err := c.RestoreSession(t.Context(), bgagent.SessionRestore{Session: "ses_x", Last: bgagent.Prompt{ID: "p1"}})
	require.ErrorIs(t, err, errors.ErrUnsupported)
}

func TestARestoredSessionHasItsHistoryAndItsSavedState(t *testing.T) {
	var got []bgagent.Message
	var saved []byte
	c := inproc.New(map[string]inproc.Agent{inproc.Fallback: func(_ context.Context, turn *inproc.Turn) (string, error) {
		got, saved = turn.History(), turn.Saved()
		return turn.Title() + " in " + turn.Directory(), nil
	}})
	calls := 0
	c.Restore = func(context.Context, bgagent.SessionRestore) (inproc.Restored, error) {
		calls++
		return inproc.Restored{Prompt: bgagent.PromptInterrupted, History: []bgagent.Message{
			{Role: bgagent.RoleUser, Text: "one"}, {Role: bgagent.RoleAgent, Text: "I "}, {Role: bgagent.RoleAgent, Text: "answer", Stop: bgagent.StopEndOfTurn},
			{Role: bgagent.RoleUser, Text: "two"},
		}}, nil
	}
	r := bgagent.SessionRestore{
		Session: "ses_x", Saved: []byte("saved"), Last: bgagent.Prompt{ID: "p2"},
		Spec: bgagent.SessionSpec{Agent: "any", Title: "work", Directory: "/d"},
	}
	for range 2 { // a repeated call returns the same result
		state, _, err := c.RestoreSession(t.Context(), r)
		require.NoError(t, err)
		require.Equal(t, bgagent.PromptInterrupted, state)
	}
	require.Equal(t, 2, calls)
	end, err := c.RunTurn(t.Context(), "ses_x", bgagent.Prompt{ID: "p3", Instance: "i2"}, nil)
	require.NoError(t, err)
	require.Equal(t, "work in /d", end.Text)
	require.Equal(t, "saved", string(saved))
	var texts []string
	for _, msg := range got {
		texts = append(texts, msg.Role.String()+":"+msg.Text)
	}
	require.Equal(t, []string{"user:one", "agent:answer", "user:two", "agent:"}, texts)
}

func TestAClientKnowsItsOwnSessionsWhenTheNextManagerAsks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCounter(nil)
		id, err := c.CreateSession(t.Context(), bgagent.SessionSpec{Agent: "counter"})
		require.NoError(t, err)
		ask := func(prompt string) (bgagent.PromptState, bgagent.TurnEnd, error) {
			return c.RestoreSession(t.Context(), bgagent.SessionRestore{Session: id, Last: bgagent.Prompt{ID: prompt}})
		}
		state, _, err := ask("p1")
		require.NoError(t, err)
		require.Equal(t, bgagent.PromptMissing, state)

		ctx, cancel := context.WithCancel(t.Context())
		over := make(chan struct{})
		go func() {
			defer close(over)
			_, _ = c.RunTurn(ctx, id, bgagent.Prompt{ID: "p1", Instance: "i1"}, nil)
		}()
		time.Sleep(15 * time.Second)
		_, _, err = ask("p1")
		require.ErrorIs(t, err, bgagent.ErrBusy)
		cancel()
		<-over
		state, _, err = ask("p1")
		require.NoError(t, err)
		require.Equal(t, bgagent.PromptInterrupted, state)

		_, err = c.RunTurn(t.Context(), id, bgagent.Prompt{ID: "p2", Instance: "i2"}, nil)
		require.NoError(t, err)
		state, end, err := ask("p2")
		require.NoError(t, err)
		require.Equal(t, bgagent.PromptAnswered, state)
		require.Equal(t, bgagent.TurnEnd{Stop: bgagent.StopEndOfTurn, Text: "abc"}, end)
	})
}
