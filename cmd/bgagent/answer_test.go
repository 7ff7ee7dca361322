//go:build unix

package main

import (
	"context"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/control"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/notify"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/statedir"
	"github.com/bgagent/bgagent/inproc"
	"github.com/stretchr/testify/require"
)

// asker returns an agent that asks the questions one after the other. The agent's answer consists of the
// chosen options.
func asker(questions ...bgagent.Question) inproc.Agent {
	return func(ctx context.Context, turn *inproc.Turn) (string, error) {
		var chosen []string
		for _, q := range questions {
			option, err := turn.Ask(ctx, q)
			if err != nil {
				return "", err
			}
			chosen = append(chosen, option)
		}
		return strings.Join(chosen, " "), nil
	}
}

// servesAgent simulates a "bgagent serve" in this process. Its only agent is the given function. Its tasks
// are kept in the place's state folder.
func servesAgent(t *testing.T, p *place, agent inproc.Agent) *bgagent.BackgroundManager {
	t.Helper()
	folder, err := statedir.Open(filepath.Join(p.project, "../../.local/state/bgagent"))
	require.NoError(t, err)
	p.write("served.jsonc", "{}")
	at, err := folder.Served([]string{filepath.Join(p.project, "served.jsonc")})
	require.NoError(t, err)
	const instance = "answers"
	m, err := openKept(at, copyFlags{}, func(store bgagent.Store) (*bgagent.BackgroundManager, error) {
		return bgagent.New(inproc.New(map[string]inproc.Agent{"a": agent}), bgagent.Config{Ask: true, Store: store, Instance: instance, Wake: bgagent.WakeNever})
	})
	require.NoError(t, err)
	t.Cleanup(func() { _ = m.Close(context.Background()) })
	s, err := control.Listen(at.Dir, control.Host{Manager: m, Instance: instance, Serve: (*http.Server).Serve})
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close() })
	return m
}

// untilAsked waits until the task asks a question, and returns the question.
func untilAsked(t *testing.T, m *bgagent.BackgroundManager, id string) (q bgagent.Question) {
	t.Helper()
	require.Eventually(t, func() bool {
		task, err := m.Get(id)
		require.NoError(t, err)
		if len(task.Questions) > 0 {
			q = task.Questions[0]
		}
		return q.Key != ""
	}, time.Minute, time.Millisecond)
	return q
}

func TestATerminalAnswersAQuestion(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	may := bgagent.Question{Kind: bgagent.QuestionPermission, Title: "May I\x1b[2J run make?", Subject: "make all\nbgagent: forged", Options: []string{"allow", "do not allow"}}
	m := servesAgent(t, p, asker(may))
	task, err := m.Launch(t.Context(), bgagent.Caller{Session: "s"}, bgagent.LaunchInput{Agent: "a", Prompt: "build"})
	require.NoError(t, err)
	q := untilAsked(t, m, task.ID)
	answer := "bgagent answer " + task.ID + " " + q.Key

	text := p.does("status")
	require.Regexp(t, task.ID+` +asking +a `, text)
	require.Contains(t, text, task.ID+" asks: May I run make?; bgagent show "+task.ID+" prints the question\n    "+answer+" allow\n    "+answer+" 'do not allow'\n")
	require.Regexp(t, task.ID+` +asking `, p.does("tasks"))
	text = p.does("show", task.ID)
	require.Contains(t, text, "\n    make all\n    bgagent: forged\n", "the subject is whole, and none of its lines looks like one of ours")
	require.Contains(t, text, "  "+answer+" allow\n  "+answer+" 'do not allow'\n")
	require.NotContains(t, text, "\x1b")

	require.Contains(t, p.refuses(2, "answer", task.ID, q.Key, "always"), "it must be one of: allow, do not allow")
	require.Contains(t, p.refuses(2, "answer", task.ID, "allow"), "asks for a permission, so the key is needed", "the open question might not be the question that the user read")
	require.Contains(t, p.refuses(2, "answer", task.ID, "q9.x", "allow"), "does not ask this question")
	require.Contains(t, p.refuses(2, "answer", "bg_none", "allow"), "no task bg_none")
	require.Contains(t, p.refuses(2, "answer", task.ID, q.Key, "do", "not", "allow"), "Quote an option")

	// Each printed command can be pasted into a shell.
	_, line, _ := strings.Cut(text, "allow\n  ")
	line, _, _ = strings.Cut(line, "\n")
	paste := exec.CommandContext(t.Context(), "sh", "-c", strings.Replace(line, "bgagent", binary, 1))
	paste.Dir, paste.Env = p.project, p.env
	out, err := paste.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Equal(t, "answered "+task.ID+" with do not allow: May I run make?\n", string(out))
	ended, err := m.Wait(t.Context(), bgagent.Caller{}, bgagent.WaitAll, task.ID)
	require.NoError(t, err)
	require.Equal(t, "do not allow", ended[0].Result)
	require.Contains(t, p.refuses(1, "answer", task.ID, q.Key, "allow"), `it has been answered with "do not allow"`)
	require.Contains(t, p.refuses(2, "answer", task.ID, "allow"), "asks nothing")
}

func TestAnAnswerNamesOneOfSeveralQuestions(t *testing.T) {
	_, err := onlyQuestion(bgagent.Task{ID: "bg_x", Questions: []bgagent.Question{{Key: "q1.a", Title: "One?"}, {Key: "q2.b", Title: "Two?"}}})
	require.EqualError(t, err, "task bg_x asks several questions, so the key of one is needed: q1.a (One?), q2.b (Two?)")
}

// A key can be left out only if a task asks exactly one question, and this question does not ask for
// permission.
func TestAKeyCanBeLeftOutForAChoice(t *testing.T) {
	key, err := onlyQuestion(bgagent.Task{ID: "bg_x", Questions: []bgagent.Question{{Key: "q1.a", Kind: bgagent.QuestionChoice}}})
	require.NoError(t, err)
	require.Equal(t, "q1.a", key)
	_, err = onlyQuestion(bgagent.Task{ID: "bg_x", Questions: []bgagent.Question{{Key: "q1.a", Kind: bgagent.QuestionPermission}}})
	require.EqualError(t, err, "task bg_x asks for a permission, so the key is needed; bgagent show bg_x prints what it is for, with the key")
}

func TestTheNotificationOfAQuestionIsOneLine(t *testing.T) {
	task, q := bgagent.Task{ID: "bg_x", Description: "build\nall"}, bgagent.Question{Title: "May I?"}
	for advice, s := range map[string]*serving{
		"; to see and answer it: bgagent show bg_x": {command: "serve", at: statedir.Store{Dir: "kept"}},
		"; to see it: bgagent show bg_x":            {command: "mcp", at: statedir.Store{Dir: "kept"}},
		"":                                          {command: "mcp"},
	} {
		require.Equal(t, "bgagent: task bg_x (build all) asks: May I?"+advice, questionText(task, q, s.questionAdvice(task.ID)))
	}
}

// Only commands that can succeed are printed: no command can answer the questions of mcp's tasks.
func TestNoCommandIsPrintedThatCannotAnswer(t *testing.T) {
	task := bgagent.Task{ID: "bg_x", Questions: []bgagent.Question{{Key: "q1.a", Kind: bgagent.QuestionChoice, Title: "Which?", Options: []string{"main"}}}}
	for kind, prints := range map[string]bool{statedir.Serve: true, statedir.MCP: false} {
		var show, status strings.Builder
		v := &view{lives: true}
		v.Kind = kind
		printQuestions(&show, task, v.Kind == statedir.Serve)
		require.NoError(t, v.writeStanding(&status, standing{Tasks: []bgagent.Task{task}}, time.Now(), 0))
		for _, text := range []string{show.String(), status.String()} {
			require.Contains(t, text, "Which?")
			require.Equal(t, prints, strings.Contains(text, "bgagent answer bg_x q1.a main"), text)
		}
	}
}

// The program that "notify" names runs when a task asks a question, but not when the question is
// answered or withdrawn.
func TestTheUserIsNotifiedOfAQuestion(t *testing.T) {
	p := newPlace(t)
	p.write("tell.sh", "#!/bin/sh\necho \"$BGAGENT_EVENT $BGAGENT_TASK: $1\" >>told\n")
	m, err := bgagent.New(inproc.New(map[string]inproc.Agent{"a": asker(bgagent.Question{Kind: bgagent.QuestionChoice, Title: "Which branch?", Options: []string{"main"}})}), bgagent.Config{Ask: true, Wake: bgagent.WakeNever})
	require.NoError(t, err)
	s := &serving{command: "serve", at: statedir.Store{Dir: p.project}, manager: m, follow: make(chan struct{}), notify: notify.New([]string{filepath.Join(p.project, "tell.sh")}, "", func(err error) { t.Error(err) })}
	known, events := m.Subscribe(100)
	go s.watch(known, events)
	t.Chdir(p.project)
	task, err := m.Launch(t.Context(), bgagent.Caller{Session: "s"}, bgagent.LaunchInput{Agent: "a", Prompt: "release"})
	require.NoError(t, err)
	q := untilAsked(t, m, task.ID)
	_, err = m.Answer(t.Context(), bgagent.Caller{}, task.ID, bgagent.AnswerInput{Key: q.Key, Option: "main"})
	require.NoError(t, err)
	_, err = m.Wait(t.Context(), bgagent.Caller{}, bgagent.WaitAll, task.ID)
	require.NoError(t, err)
	_ = m.Close(context.Background())
	s.told(context.Background())
	told, err := os.ReadFile(filepath.Join(p.project, "told"))
	require.NoError(t, err)
	require.Equal(t, "asks "+task.ID+": "+questionText(task, q, "to see and answer it: bgagent show "+task.ID)+"\ndone : bgagent: the last task has ended\n", string(told))
}
