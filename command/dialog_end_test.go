//go:build unix

package command

import (
	"context"
	"io"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

// dialogClient is a client whose turns consist of a dialog. In each turn, the dialog receives the client's
// text as a line from a program. The turn lasts for a day and a minute; then the dialog is stopped. The
// turn's text is everything that the dialog wrote to the program.
type dialogClient string

func (dialogClient) CreateSession(context.Context, bgagent.SessionSpec) (string, error) {
	return "s", nil
}
func (dialogClient) Abort(context.Context, string) error { return nil }

func (c dialogClient) RunTurn(ctx context.Context, _ string, _ bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
	out, in, err := os.Pipe()
	if err != nil {
		return bgagent.TurnEnd{Stop: bgagent.StopError}, err
	}
	defer out.Close()
	d := newDialog(ctx, r, nil, in, "the prompt\n")
	d.hears([]byte(c))
	time.Sleep(24*time.Hour + time.Minute)
	d.stop()
	d.wait()
	said, err := io.ReadAll(out)
	return bgagent.TurnEnd{Stop: bgagent.StopEndOfTurn, Text: string(said)}, err
}

func TestAnExpiredQuestionOfClaudeIsDeniedAsExpired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, err := bgagent.New(dialogClient(request("x", `"command":"ls"`)), bgagent.Config{Ask: true})
		require.NoError(t, err)
		defer m.Close(context.Background())
		task, err := m.Launch(t.Context(), bgagent.Caller{}, bgagent.LaunchInput{Agent: "a", Prompt: "p"})
		require.NoError(t, err)
		time.Sleep(23 * time.Hour)
		task, err = m.Get(task.ID)
		require.NoError(t, err)
		require.Len(t, task.Questions, 1, task.Reason)
		got, err := m.Wait(t.Context(), bgagent.Caller{}, bgagent.WaitAll, task.ID)
		require.NoError(t, err)
		require.Contains(t, got[0].Result, `"behavior":"deny","message":"This was not allowed: nobody has answered the question in time. Go on`, got[0].Reason)
		require.NotContains(t, got[0].Result, "denied")
		over, err := m.Answer(t.Context(), bgagent.Caller{}, task.ID, bgagent.AnswerInput{Key: task.Questions[0].Key, Option: "allow once"})
		require.ErrorIs(t, err, bgagent.ErrQuestionOver)
		require.Equal(t, bgagent.QuestionExpired, over.State)
	})
}

func TestTwoAnswersToAQuestionOfClaudeAreOne(t *testing.T) {
	s := askingClaude(t, bgagent.Config{Ask: true})
	task := s.launch(1, "ask rm -r src")
	q := task.Questions[0]
	var wg sync.WaitGroup
	errs := make([]error, 10)
	for i := range errs {
		wg.Go(func() {
			_, errs[i] = s.m.Answer(t.Context(), bgagent.Caller{}, task.ID, bgagent.AnswerInput{Key: q.Key, Option: q.Options[i%2]})
		})
	}
	wg.Wait()
	want := ""
	for i, err := range errs {
		if err != nil {
			require.ErrorIs(t, err, bgagent.ErrQuestionOver)
			continue
		}
		require.Empty(t, want, "a second answer was accepted")
		want = map[string]string{"allow once": "r: allow;", "deny": "r: deny The host has denied this."}[q.Options[i%2]]
	}
	require.NotEmpty(t, want)
	require.Contains(t, s.ended(task).Result, want, "the agent gets the answer that was accepted")
}
