package bgagent_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/bgagenttest"
	"github.com/stretchr/testify/require"
)

// canAnswer is the configuration of a host whose models have the tool that answers questions.
func canAnswer(box *inbox) bgagent.Config {
	cfg := bgagent.Config{Ask: true, OptionalTools: []string{bgagent.ToolBackgroundMessage}}
	if box != nil {
		cfg.Notify = box.notify
	}
	return cfg
}

// questionsIn returns the keys of the questions in the notices.
func questionsIn(notices []bgagent.Notice) (keys []string) {
	for _, n := range notices {
		for _, q := range n.Questions {
			keys = append(keys, q.Question.Key)
		}
	}
	return keys
}

func TestASessionIsToldOnceOfAQuestionThatItCanAnswer(t *testing.T) {
	for _, name := range []string{"runner", "starter"} {
		t.Run(name, func(t *testing.T) {
			var box inbox
			askingOnBothOr(t, name, asking(which), canAnswer(&box), func(t *testing.T, m *bgagent.BackgroundManager) {
				task := launch(t, m, "release")
				time.Sleep(time.Hour)
				require.Len(t, box.all(), 1)
				n := box.all()[0]
				q := asks(t, m, task.ID)
				require.Equal(t, []bgagent.NoticeQuestion{{Task: task.ID, Session: get(t, m, task.ID).Session, Description: task.Description, Agent: task.Agent, Question: q}}, n.Questions)
				require.Empty(t, n.Items)
				require.False(t, n.Closing)
				require.Equal(t, 1, n.Live)
				require.True(t, strings.HasPrefix(n.Text, "## Background Task Asks\n"), n.Text)
				require.Contains(t, n.Text, fmt.Sprintf("background_message(task_id=%q, question=%q, answer=", task.ID, q.Key))

				r := useTool(t, m, bgagent.ToolBackgroundMessage, map[string]any{"task_id": task.ID, "question": q.Key, "answer": "next"})
				require.False(t, r.IsError, r.Text)
				require.Equal(t, "I ask. told next", ended(t, m, task.ID)[0].Result)
				time.Sleep(time.Hour)
				require.Len(t, box.all(), 2)
				end := box.all()[1]
				require.Len(t, end.Items, 1)
				require.Empty(t, end.Questions)
				require.NotEqual(t, n.ID, end.ID)
			})
		})
	}
}

// askingOnBothOr runs a test with a client of the given kind.
func askingOnBothOr(t *testing.T, kind string, script func(*bgagenttest.Turn), cfg bgagent.Config, test func(t *testing.T, m *bgagent.BackgroundManager)) {
	t.Helper()
	if kind == "runner" {
		onFake(t, script, cfg, test)
	} else {
		onFakeServer(t, script, cfg, func(t *testing.T, m *bgagent.BackgroundManager, _ bgagenttest.Starter) { test(t, m) })
	}
}

func TestASessionIsNotToldOfAQuestionThatItCannotAnswer(t *testing.T) {
	long := which
	long.Subject = strings.Repeat("x", 2<<10+1)
	with := []string{bgagent.ToolBackgroundMessage}
	for name, c := range map[string]struct {
		by   bgagent.Caller
		q    bgagent.Question
		cfg  bgagent.Config
		told int
	}{
		"a question with the tool":          {root, which, bgagent.Config{OptionalTools: with}, 1},
		"without the tool":                  {root, which, bgagent.Config{}, 0},
		"a permission":                      {root, mayI, bgagent.Config{OptionalTools: with}, 0},
		"a permission that models may give": {root, mayI, bgagent.Config{OptionalTools: with, ModelsMayPermit: true}, 1},
		"a subject that is not shown":       {root, long, bgagent.Config{OptionalTools: with, ModelsMayPermit: true}, 0},
		"a task of the host":                {host, which, bgagent.Config{OptionalTools: with}, 0},
		"a session without notices":         {root, which, bgagent.Config{OptionalTools: with, Wake: bgagent.WakeNever}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			var box inbox
			c.cfg.Notify = box.notify
			onFake(t, asking(c.q), c.cfg, func(t *testing.T, m *bgagent.BackgroundManager) {
				_, sub := m.Subscribe(0)
				task, err := m.Launch(t.Context(), c.by, bgagent.LaunchInput{Agent: "worker", Prompt: "p"})
				require.NoError(t, err)
				q := asks(t, m, task.ID)
				time.Sleep(time.Hour)
				require.Len(t, questionsIn(box.all()), c.told)
				answer(t, m, task.ID, q.Key, q.Options[0])
				events := eventsOf(t, sub, task.ID)
				var asked int
				for _, e := range events {
					if e.Kind == bgagent.EventQuestion && e.Question.State == bgagent.QuestionOpen {
						asked++
					}
				}
				require.Equal(t, 1, asked, "the host always gets an event about the question")
			})
		})
	}
}

func TestAQuestionThatIsOverIsNotReported(t *testing.T) {
	for name, over := range map[string]func(t *testing.T, m *bgagent.BackgroundManager, id, key string){
		"answered": func(t *testing.T, m *bgagent.BackgroundManager, id, key string) { answer(t, m, id, key, "next") },
		"cancelled": func(t *testing.T, m *bgagent.BackgroundManager, id, _ string) {
			_, err := m.Cancel(t.Context(), host, id, bgagent.CancelOptions{})
			require.NoError(t, err)
		},
	} {
		t.Run(name, func(t *testing.T) {
			var box inbox
			cfg := canAnswer(&box)
			cfg.NoticeWindow = time.Minute
			onFake(t, asking(which), cfg, func(t *testing.T, m *bgagent.BackgroundManager) {
				task := launch(t, m, "release")
				q := asks(t, m, task.ID)
				time.Sleep(30 * time.Second)
				over(t, m, task.ID, q.Key)
				time.Sleep(time.Hour)
				require.Len(t, box.all(), 1)
				require.Empty(t, box.all()[0].Questions)
				require.Len(t, box.all()[0].Items, 1)
			})
		})
	}
}

// A busy session gets the notice about a question when it becomes idle. If the question is over by
// then, the session gets only the notice about the task's end.
func TestAQuestionDoesNotGoIntoABusySession(t *testing.T) {
	for _, answered := range []bool{false, true} {
		var box inbox
		busy := true
		box.fail = func(int) error {
			if busy {
				return bgagent.ErrBusy
			}
			return nil
		}
		onFake(t, asking(which), canAnswer(&box), func(t *testing.T, m *bgagent.BackgroundManager) {
			task := launch(t, m, "release")
			q := asks(t, m, task.ID)
			time.Sleep(time.Minute)
			require.Empty(t, box.all())
			require.Positive(t, box.called())
			if answered {
				answer(t, m, task.ID, q.Key, "main")
				ended(t, m, task.ID)
			}
			box.answers()
			time.Sleep(time.Minute)
			require.Len(t, box.all(), 1)
			require.Equal(t, answered, len(box.all()[0].Questions) == 0)
		})
	}
}

func TestAQuestionAndTheEndsThatAreOwedAreOneNotice(t *testing.T) {
	var box inbox
	script := func(t *bgagenttest.Turn) {
		if t.Prompt.Text == "release" {
			asking(which)(t)
		} else {
			t.Say("done")
		}
	}
	onFake(t, script, canAnswer(&box), func(t *testing.T, m *bgagent.BackgroundManager) {
		task, first := launch(t, m, "release"), launch(t, m, "first")
		ended(t, m, first.ID)
		time.Sleep(time.Minute)
		require.Len(t, box.all(), 1, "the end must wait for the end of its batch")
		n := box.all()[0]
		require.Len(t, n.Questions, 1)
		require.Equal(t, first.ID, n.Items[0].Task)
		answer(t, m, task.ID, n.Questions[0].Question.Key, "main")
		time.Sleep(time.Minute)
		require.Len(t, box.all(), 2)
		require.True(t, box.all()[1].Closing)
		require.Equal(t, task.ID, box.all()[1].Items[0].Task)
	})
}

// If a child task asks a question, its parent task gets the question as the prompt of its next
// turn, and answers it in that turn.
func TestATaskIsToldOfTheQuestionOfItsTask(t *testing.T) {
	var m *bgagent.BackgroundManager
	script := func(t *bgagenttest.Turn) {
		switch by := (bgagent.Caller{Session: t.Session()}); {
		case t.Prompt.Text == "child":
			asking(which)(t)
		case t.Prompt.Notice == nil:
			_, err := m.Launch(context.Background(), by, bgagent.LaunchInput{Agent: "worker", Prompt: "child"})
			t.Say(fmt.Sprint("launched ", err))
		case len(t.Prompt.Notice.Questions) > 0:
			q := t.Prompt.Notice.Questions[0]
			_, err := m.Answer(context.Background(), by, q.Task, bgagent.AnswerInput{Key: q.Question.Key, Option: "next"})
			t.Say(fmt.Sprint("answered ", err))
		default:
			t.Say("over")
		}
	}
	cfg := canAnswer(nil)
	cfg.MaxDepth, cfg.Limits.Default = 2, 2
	onFake(t, script, cfg, func(t *testing.T, made *bgagent.BackgroundManager) {
		m = made
		task := launch(t, m, "top")
		end := ended(t, m, task.ID)[0]
		require.Equal(t, "over", end.Result)
		child := m.List(bgagent.Query{Parent: end.Session})[0]
		require.Equal(t, "I ask. told next", get(t, m, child.ID).Result)
	})
}

// If there is no Notifier, a session gets a question when it takes its notices, or with its next
// tool result. No question is handed out a second time.
func TestAQuestionIsHandedOutOnce(t *testing.T) {
	for name, take := range map[string]func(t *testing.T, m *bgagent.BackgroundManager, id string) string{
		"NextNotice": func(t *testing.T, m *bgagent.BackgroundManager, _ string) string {
			n, err := m.NextNotice(t.Context(), root.Session)
			require.NoError(t, err)
			require.Len(t, n.Questions, 1)
			return n.Text
		},
		"TakeNotice": func(t *testing.T, m *bgagent.BackgroundManager, _ string) string {
			n, ok := m.TakeNotice(root.Session)
			require.True(t, ok)
			require.Len(t, n.Questions, 1)
			return n.Text
		},
		"a tool result": func(t *testing.T, m *bgagent.BackgroundManager, _ string) string {
			r := useTool(t, m, bgagent.ToolBackgroundOutput, map[string]any{})
			require.Len(t, r.Value.(bgagent.BackgroundOutputResult).Notice.Questions, 1)
			return r.Text
		},
		"the status": func(t *testing.T, m *bgagent.BackgroundManager, id string) string {
			r := useTool(t, m, bgagent.ToolBackgroundOutput, map[string]any{"task_id": id})
			require.Nil(t, r.Value.(bgagent.BackgroundOutputResult).Notice)
			return r.Text
		},
	} {
		t.Run(name, func(t *testing.T) {
			onFake(t, asking(which), canAnswer(nil), func(t *testing.T, m *bgagent.BackgroundManager) {
				task := launch(t, m, "release")
				q := asks(t, m, task.ID)
				time.Sleep(time.Second)
				require.Equal(t, 1, strings.Count(take(t, m, task.ID), "question=\""+q.Key))
				_, ok := m.TakeNotice(root.Session)
				require.False(t, ok)
			})
		})
	}
}

// A question that a foreground call or a blocking read has shown is not repeated in a notice.
func TestAQuestionThatACallHasShownIsNotReported(t *testing.T) {
	for _, foreground := range []bool{true, false} {
		var box inbox
		onFake(t, asking(which), canAnswer(&box), func(t *testing.T, m *bgagent.BackgroundManager) {
			r := useTool(t, m, bgagent.ToolDelegateTask, map[string]any{"subagent_type": "worker", "prompt": "release", "run_in_background": !foreground})
			if !foreground {
				id := r.Value.(bgagent.DelegateTaskResult).Task.ID
				r = useTool(t, m, bgagent.ToolBackgroundOutput, map[string]any{"task_id": id, "block": true})
			}
			require.Contains(t, r.Text, "background_message(task_id=")
			time.Sleep(time.Hour)
			require.Empty(t, box.all())
		})
	}
}

func TestAHostNamesTheOptionalTools(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := manage(t, bgagenttest.NewRunner(nil), canAnswer(nil))
		require.Len(t, bgagent.Tools(m, bgagent.ToolOptions{}), 4)
		require.Len(t, bgagent.Tools(m, bgagent.ToolOptions{Omit: []string{bgagent.ToolBackgroundMessage}}), 3)
	})
	_, err := bgagent.New(bgagenttest.NewRunner(nil), bgagent.Config{OptionalTools: []string{"background_talk"}})
	require.ErrorContains(t, err, `Config.OptionalTools: lists "background_talk"; the optional tools are background_message`)
}
