package opencode_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/realagent"
	"github.com/bgagent/bgagent/internal/tempdir"
)

// awaitQuestion waits until the task asks a question whose key is not in the list "not", and
// returns the question.
func awaitQuestion(ctx context.Context, m *bgagent.BackgroundManager, id string, not ...string) (bgagent.Question, error) {
	_, events := m.Subscribe(0)
	defer events.Close()
	for {
		task, err := m.Get(id)
		switch {
		case err != nil:
			return bgagent.Question{}, err
		case len(task.Questions) > 0 && !slices.Contains(not, task.Questions[0].Key):
			return task.Questions[0], nil
		case task.Status.Terminal():
			return bgagent.Question{}, errors.New("the task has ended: " + task.Reason)
		}
		if _, err := events.Next(ctx); err != nil {
			return bgagent.Question{}, err
		}
	}
}

func awaitQuestionOf(s testing.TB, m *bgagent.BackgroundManager, id string, not ...string) bgagent.Question {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), patience)
	defer cancel()
	q, err := awaitQuestion(ctx, m, id, not...)
	require.NoError(s, err)
	return q
}

// shell returns a prompt that makes the agent append a line to a file.
func shell(file, key string) string {
	return fmt.Sprintf("@key %s\n@tool bash {\"command\":\"echo ran >> %s\",\"description\":\"as told\"}\n@say done", key, file)
}

func askingTheHost(s *scene) {
	ran := func(name string) string {
		text, err := os.ReadFile(filepath.Join(s.w.Dir, name))
		if err != nil {
			return ""
		}
		return string(text)
	}
	yes := s.launch("scope", "asker", shell("asked-yes", "asked-yes"))
	q := awaitQuestionOf(s, s.m, yes.ID)
	require.Equal(s, bgagent.QuestionPermission, q.Kind)
	require.Equal(s, "echo ran >> asked-yes", q.Subject)
	require.Equal(s, []string{"allow once", "reject"}, q.Options)
	var wg sync.WaitGroup
	errs := make([]error, 4)
	for i := range errs {
		wg.Go(func() {
			_, errs[i] = s.m.Answer(s.Context(), bgagent.Caller{}, yes.ID, bgagent.AnswerInput{Key: q.Key, Option: "allow once"})
		})
	}
	wg.Wait()
	accepted := 0
	for _, err := range errs {
		if err == nil {
			accepted++
		} else {
			require.ErrorIs(s, err, bgagent.ErrQuestionOver)
		}
	}
	require.Equal(s, 1, accepted)
	got := s.ended(yes.ID)[0]
	require.Equal(s, "done", got.Result, got.Reason)
	require.Equal(s, "ran\n", ran("asked-yes"), "the command has run once")

	no := s.launch("scope", "asker", "@key asked-no\n@tool bash {\"command\":\"echo ran >> asked-no\",\"description\":\"as told\"}\n@say told: ${re:The host has denied this}")
	q = awaitQuestionOf(s, s.m, no.ID)
	option(s, s.m, no.ID, q, "reject")
	got = s.ended(no.ID)[0]
	require.Equal(s, "told: The host has denied this", got.Result, got.Reason)
	require.Empty(s, ran("asked-no"))

	choice := s.launch("scope", "worker", "@key asked-choice\n@tool question {\"questions\":[{\"question\":\"Which one?\",\"header\":\"Pick\",\"options\":[{\"label\":\"left\",\"description\":\"a\"},{\"label\":\"right\",\"description\":\"b\"}]}]}\n@say it was ${re:=\"(left|right)}")
	q = awaitQuestionOf(s, s.m, choice.ID)
	require.Equal(s, bgagent.QuestionChoice, q.Kind)
	require.Equal(s, []string{"left", "right"}, q.Options)
	option(s, s.m, choice.ID, q, "right")
	got = s.ended(choice.ID)[0]
	require.Equal(s, "it was right", got.Result, got.Reason)

	// The server still lists the question of an aborted turn. The next turn must not ask it.
	aborted := s.launch("scope", "asker", shell("asked-aborted", "asked-aborted"))
	q = awaitQuestionOf(s, s.m, aborted.ID)
	_, err := s.m.Cancel(s.Context(), bgagent.Caller{}, aborted.ID, bgagent.CancelOptions{})
	require.NoError(s, err)
	s.quiet(aborted.ID)
	_, err = s.m.Resume(s.Context(), bgagent.Caller{}, aborted.ID, bgagent.ResumeInput{Prompt: "@say continued"})
	require.NoError(s, err)
	got = s.ended(aborted.ID)[0]
	require.Equal(s, "continued", got.Result, got.Reason)
	over, err := s.m.Answer(s.Context(), bgagent.Caller{}, aborted.ID, bgagent.AnswerInput{Key: q.Key, Option: "allow once"})
	require.ErrorIs(s, err, bgagent.ErrQuestionOver)
	require.Equal(s, bgagent.QuestionWithdrawn, over.State)
	require.Empty(s, ran("asked-aborted"))
}

// An open question of a killed manager keeps its key if the server survives. If the server is
// also killed, the question is withdrawn.
func TestAnOpenQuestionOfAKilledManagerOnTheRealServer(t *testing.T) {
	w := realagent.New(t, "opencode")
	server := w.ServeOpencode(t)
	for _, both := range []bool{false, true} {
		t.Run(fmt.Sprintf("server killed %v", both), func(t *testing.T) {
			file := fmt.Sprintf("kept-%v", both)
			work := childTasks{
				URL: server.URL, Directory: w.Dir, Store: filepath.Join(tempdir.New(t), "store"), Limit: 1, Asks: true, Agent: "asker",
				Prompts: []string{shell(file, file)},
			}
			lines, kill := work.start(t)
			id, key := lines[0], lines[1]
			kill()
			if both {
				server.Restart()
			}
			c, m, err := work.manager()
			require.NoError(t, err)
			defer c.Close()
			defer m.Close(context.Background())
			m.Start()
			answer := bgagent.AnswerInput{Key: key, Option: "allow once"}
			if both {
				awaitQuestionOf(t, m, id, key) // the continued turn also asks
				over, err := m.Answer(t.Context(), bgagent.Caller{}, id, answer)
				require.ErrorIs(t, err, bgagent.ErrQuestionOver)
				require.Equal(t, bgagent.QuestionWithdrawn, over.State)
				return
			}
			require.Equal(t, key, awaitQuestionOf(t, m, id).Key)
			_, err = m.Answer(t.Context(), bgagent.Caller{}, id, answer)
			require.NoError(t, err)
			ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
			defer cancel()
			got, err := m.Wait(ctx, bgagent.Caller{}, bgagent.WaitAll, id)
			require.NoError(t, err)
			require.Equal(t, "done", got[0].Result, got[0].Reason)
			require.Equal(t, 1, got[0].Attempt)
			text, err := os.ReadFile(filepath.Join(w.Dir, file))
			require.NoError(t, err)
			require.Equal(t, "ran\n", string(text))
		})
	}
}
