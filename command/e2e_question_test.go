//go:build linux

package command

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/modelserver"
	"github.com/stretchr/testify/require"
)

func TestRealClaudeAsksAndIsAnswered(t *testing.T) {
	t.Parallel()
	s := realClaude.scene(t, bgagent.Config{Ask: true, Permissions: []bgagent.Permission{}}, func(a *Agent) { a.Program = ClaudeAsking() })
	asks := func(prompt string) (bgagent.Task, bgagent.Question) {
		task := s.launch(prompt)
		require.True(t, until(limit, func() bool {
			var err error
			task, err = s.m.Get(task.ID)
			return err != nil || len(task.Questions) > 0 || task.Status.Terminal()
		}))
		require.Len(t, task.Questions, 1, "%s: %s", task.Result, task.Reason)
		return task, task.Questions[0]
	}
	answer := func(task bgagent.Task, q bgagent.Question, option string) (bgagent.Question, error) {
		return s.m.Answer(t.Context(), bgagent.Caller{}, task.ID, bgagent.AnswerInput{Key: q.Key, Option: option})
	}
	ran := func(name string) string {
		text, _ := os.ReadFile(filepath.Join(s.w.Dir, name)) // "" if there is no file
		return string(text)
	}
	shell := func(file string) string { return s.shell("echo ran >> " + file) }

	task, q := asks(shell("allowed") + "\n@say done")
	require.Equal(t, bgagent.QuestionPermission, q.Kind)
	require.Equal(t, "may it use Bash", q.Title)
	require.Contains(t, q.Subject, "echo ran >> allowed\ndescription: a test")
	require.Equal(t, []string{"allow once", "deny"}, q.Options)
	_, err := answer(task, q, "allow once")
	require.NoError(t, err)
	_, err = answer(task, q, "deny")
	require.ErrorIs(t, err, bgagent.ErrQuestionOver)
	s.completed(s.ended(task.ID), "done")
	require.Equal(t, "ran\n", ran("allowed"), "the command has run once")

	task, q = asks(shell("denied") + "\n@say told: ${re:The host has denied this}")
	_, err = answer(task, q, "deny")
	require.NoError(t, err)
	s.completed(s.ended(task.ID), "told: The host has denied this")
	require.Empty(t, ran("denied"))

	task, q = asks(`@tool AskUserQuestion {"questions":[{"question":"Which one?","header":"Pick","multiSelect":false,"options":[{"label":"left","description":"a"},{"label":"right","description":"b"}]}]}` + "\n@say it was ${re:Which one\\?\\W+(\\w+)}")
	require.Equal(t, bgagent.QuestionChoice, q.Kind)
	require.Equal(t, []string{"left", "right"}, q.Options)
	_, err = answer(task, q, "right")
	require.NoError(t, err)
	s.completed(s.ended(task.ID), "it was right")

	task, q = asks(shell("cancelled"))
	s.cancelled(task.ID)
	over, err := answer(task, q, "allow once")
	require.ErrorIs(t, err, bgagent.ErrQuestionOver)
	require.Equal(t, bgagent.QuestionWithdrawn, over.State)
	require.Empty(t, ran("cancelled"))

	resumed, err := s.m.Resume(t.Context(), root, task.ID, bgagent.ResumeInput{Prompt: "@say again"})
	require.NoError(t, err)
	s.completed(s.ended(resumed.ID), "again")
}

func TestRealClaudeIsRefusedAtOnceIfTheHostDoesNotAnswer(t *testing.T) {
	t.Parallel()
	s := realClaude.scene(t, bgagent.Config{Permissions: []bgagent.Permission{}}, func(a *Agent) { a.Program = ClaudeAsking() })
	s.completed(s.run(s.shell("touch forbidden")+"\n@say told: ${re:Config.Ask is not set}"), "told: Config.Ask is not set")
	require.NoFileExists(t, filepath.Join(s.w.Dir, "forbidden"))
}

// When its background work has ended, Claude Code continues on its own.
func TestRealClaudeCanAskAfterItsBackgroundWork(t *testing.T) {
	t.Parallel()
	s := realClaude.scene(t, bgagent.Config{Ask: true, Permissions: []bgagent.Permission{}}, func(a *Agent) { a.Program = ClaudeAsking() })
	s.w.Model.Handle(func(r modelserver.Request) modelserver.Reply {
		own := slices.DeleteFunc(slices.Clone(r.Messages), func(m modelserver.Message) bool { return m.Role != "assistant" })
		if r.Kind == modelserver.Main && len(own) > 0 && own[len(own)-1].Text == "started" && r.Messages[len(r.Messages)-1].Role != "tool" {
			return modelserver.Use("Bash", `{"command":"echo ran >> afterwards","description":"a test"}`)
		}
		return r.Scripted()
	})
	task := s.launch(`@tool Bash {"command":"env sleep 5","description":"a nap","run_in_background":true}` + "\n@say started")
	for _, command := range []string{"env sleep 5", "echo ran >> afterwards"} {
		require.True(t, until(limit, func() bool {
			var err error
			task, err = s.m.Get(task.ID)
			return err != nil || task.Status.Terminal() || len(task.Questions) > 0 && strings.HasPrefix(task.Questions[0].Subject, command)
		}))
		require.Len(t, task.Questions, 1, "%s: %s", task.Result, task.Reason)
		_, err := s.m.Answer(t.Context(), bgagent.Caller{}, task.ID, bgagent.AnswerInput{Key: task.Questions[0].Key, Option: "allow once"})
		require.NoError(t, err)
	}
	s.completed(s.ended(task.ID), "script done")
	text, err := os.ReadFile(filepath.Join(s.w.Dir, "afterwards"))
	require.NoError(t, err)
	require.Equal(t, "ran\n", string(text))
}

// Claude Code asks before it uses a tool of an MCP server, unless a rule allows the tool.
func TestRealClaudeUsesAToolOfAServerThatARuleAllows(t *testing.T) {
	t.Parallel()
	for name, rules := range map[string][]bgagent.Permission{"allowed": everything, "asked": {}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := realClaude.scene(t, bgagent.Config{Ask: true, Permissions: rules}, func(a *Agent) {
				a.Program = ClaudeAsking()
				a.Args = append(a.Args, `--mcp-config={"mcpServers":{"db":{"command":`+strconv.Quote(os.Args[0])+`,"env":{"`+fakeKind+`":"server"}}}}`)
			})
			task := s.launch(`@tool mcp__db__read {"table":"users"}` + "\n@say told: ${re:the table \\w+ is empty}")
			require.True(t, until(limit, func() bool {
				var err error
				task, err = s.m.Get(task.ID)
				return err != nil || len(task.Questions) > 0 || task.Status.Terminal()
			}))
			if name == "allowed" {
				require.Empty(t, task.Questions)
			} else {
				require.Len(t, task.Questions, 1, "%s: %s", task.Result, task.Reason)
				require.Equal(t, "may it use mcp__db__read", task.Questions[0].Title)
				_, err := s.m.Answer(t.Context(), bgagent.Caller{}, task.ID, bgagent.AnswerInput{Key: task.Questions[0].Key, Option: "allow once"})
				require.NoError(t, err)
			}
			s.completed(s.ended(task.ID), "told: the table users is empty")
		})
	}
}
