//go:build unix

package acp

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

func TestARealAgentAsksAndIsAnswered(t *testing.T) {
	eachReal(t, bgagent.Config{Ask: true}, nil, func(s *scene) {
		s.asksFirst()
		ask := func(file string) (bgagent.Task, bgagent.Question) {
			task := s.launch(s.bash("echo ran >> "+file, "") + "\n@say done")
			task = s.follow(task.ID, func(task bgagent.Task) bool { return len(task.Questions) > 0 || task.Status.Terminal() })
			require.Len(s, task.Questions, 1, "%s: %s", task.Result, task.Reason)
			q := task.Questions[0]
			s.Logf("%s\n%s\n%q", q.Title, q.Subject, q.Options)
			require.Equal(s, bgagent.QuestionPermission, q.Kind)
			require.Contains(s, q.Subject, "echo ran >> "+file)
			return task, q
		}
		answer := func(task bgagent.Task, q bgagent.Question, option string) (bgagent.Question, error) {
			return s.m.Answer(s.Context(), bgagent.Caller{}, task.ID, bgagent.AnswerInput{Key: q.Key, Option: option})
		}
		file := func(name string) string { return filepath.Join(s.w.Dir, name) }

		task, q := ask("allowed")
		_, err := answer(task, q, q.Options[0]) // the first option grants the permission
		require.NoError(s, err)
		_, err = answer(task, q, q.Options[0])
		require.ErrorIs(s, err, bgagent.ErrQuestionOver)
		require.Equal(s, "done", s.ended(task.ID)[0].Result)
		text, err := os.ReadFile(file("allowed"))
		require.NoError(s, err)
		require.Equal(s, "ran\n", string(text), "the command has run once")

		task, q = ask("denied")
		_, err = answer(task, q, q.Options[len(q.Options)-1])
		require.NoError(s, err)
		got := s.ended(task.ID)[0]
		s.Logf("%s (%s): %s", got.Status, got.Cause, got.Reason)
		require.NoFileExists(s, file("denied"))
		if got.Status != bgagent.Completed { // the agent can also report the refusal to its model and continue
			require.Contains(s, got.Reason, "the host has denied it")
		}

		task, q = ask("killed")
		s.c.mu.Lock()
		pid := s.c.sessions[task.Session].proc.run.pid
		s.c.mu.Unlock()
		require.NoError(s, syscall.Kill(pid, syscall.SIGKILL))
		s.follow(task.ID, func(task bgagent.Task) bool { return len(task.Questions) == 0 })
		over, err := answer(task, q, q.Options[0])
		require.ErrorIs(s, err, bgagent.ErrQuestionOver)
		require.Equal(s, bgagent.QuestionWithdrawn, over.State)
		require.NoFileExists(s, file("killed"))
	})
}
