package bgagent_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/bgagenttest"
	"github.com/stretchr/testify/require"
)

func TestWhoMayAnswer(t *testing.T) {
	script := func(t *bgagenttest.Turn) {
		switch t.Prompt.Text {
		case "permission":
			asking(mayI)(t)
		case "choice":
			asking(which)(t)
		default:
			t.Sleep(time.Hour)
		}
	}
	for _, permit := range []bool{false, true} {
		cfg := bgagent.Config{MaxDepth: 3, ModelsMayPermit: permit}
		askingOnBoth(t, script, cfg, func(t *testing.T, m *bgagent.BackgroundManager, _ *bgagenttest.Fake) {
			sibling := launch(t, m, "sibling")
			middle := launch(t, m, "middle")
			time.Sleep(time.Second)
			parent := bgagent.Caller{Session: get(t, m, middle.ID).Session}
			for prompt, allowed := range map[string]bool{"choice": true, "permission": permit} {
				task, err := m.Launch(t.Context(), parent, bgagent.LaunchInput{Agent: "worker", Prompt: prompt})
				require.NoError(t, err)
				q := asks(t, m, task.ID)
				in := bgagent.AnswerInput{Key: q.Key, Option: q.Options[0]}
				for _, other := range []string{get(t, m, task.ID).Session, get(t, m, sibling.ID).Session, "another root"} {
					_, err := m.Answer(t.Context(), bgagent.Caller{Session: other}, task.ID, in)
					require.ErrorIs(t, err, bgagent.ErrNotDescendant)
				}
				for _, by := range []bgagent.Caller{parent, root} {
					_, err := m.Answer(t.Context(), by, task.ID, in)
					switch {
					case !allowed:
						require.ErrorIs(t, err, bgagent.ErrMayNotPermit)
					case by == parent:
						require.NoError(t, err)
					default:
						require.ErrorIs(t, err, bgagent.ErrQuestionOver)
					}
				}
			}
		})
	}
}

func TestAForegroundCallReturnsWhenItsTaskAsks(t *testing.T) {
	askingOnBoth(t, asking(which), bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager, _ *bgagenttest.Fake) {
		began := time.Now()
		task, err := m.Run(t.Context(), root, bgagent.LaunchInput{Agent: "worker", Prompt: "release"})
		require.ErrorIs(t, err, bgagent.ErrGoesOn)
		require.Less(t, time.Since(began), 15*time.Second, "the task asks after 10 s")
		require.Len(t, task.Questions, 1)
		_, err = m.Answer(t.Context(), root, task.ID, bgagent.AnswerInput{Key: task.Questions[0].Key, Option: "next"})
		require.NoError(t, err)
		require.Equal(t, "I ask. told next", ended(t, m, task.ID)[0].Result)
	})
}

// In this test, a root session waits in the foreground for a task. This task waits for its child
// task, which asks a question.
func TestAForegroundCallReturnsWhenATaskBelowAsks(t *testing.T) {
	var m *bgagent.BackgroundManager
	script := func(t *bgagenttest.Turn) {
		if t.Prompt.Text != "delegate" {
			asking(which)(t)
			return
		}
		_, _ = m.Launch(t.Context(), bgagent.Caller{Session: t.Session()}, bgagent.LaunchInput{Agent: "worker", Prompt: "release"})
		t.Say("delegated")
	}
	askingOnBoth(t, script, bgagent.Config{MaxDepth: 2}, func(t *testing.T, manager *bgagent.BackgroundManager, _ *bgagenttest.Fake) {
		m = manager
		began := time.Now()
		_, err := m.Run(t.Context(), root, bgagent.LaunchInput{Agent: "worker", Prompt: "delegate"})
		require.ErrorIs(t, err, bgagent.ErrGoesOn)
		require.Less(t, time.Since(began), 15*time.Second, "the task below asks after 10 s")
		var below bgagent.Task
		for _, task := range m.List(bgagent.Query{}) {
			if task.Depth == 2 {
				below = task
			}
		}
		require.Len(t, below.Questions, 1)
		_, err = m.Answer(t.Context(), root, below.ID, bgagent.AnswerInput{Key: below.Questions[0].Key, Option: "main"})
		require.NoError(t, err)
		require.Equal(t, "I ask. told main", ended(t, m, below.ID)[0].Result)
	})
}

// A model must not answer a question whose subject it has not seen in full.
func TestOnlyTheHostAnswersAQuestionWithALongSubject(t *testing.T) {
	for _, q := range []bgagent.Question{mayI, which} {
		q.Subject = strings.Repeat("x", 2<<10) + "\nrm -rf /"
		askingOnBoth(t, asking(q), bgagent.Config{ModelsMayPermit: true}, func(t *testing.T, m *bgagent.BackgroundManager, _ *bgagenttest.Fake) {
			task := launch(t, m, "build")
			key := asks(t, m, task.ID).Key
			r := useTool(t, m, bgagent.ToolBackgroundOutput, map[string]any{"task_id": task.ID})
			require.Contains(t, r.Text, "Only the host can answer.")
			require.NotContains(t, r.Text, key)
			r = useTool(t, m, bgagent.ToolBackgroundMessage, map[string]any{"task_id": task.ID, "question": key, "answer": q.Options[0]})
			require.True(t, r.IsError)
			require.Contains(t, r.Text, "Only the host can answer it")
			_, err := m.Answer(t.Context(), root, task.ID, bgagent.AnswerInput{Key: key, Option: q.Options[0]})
			require.ErrorIs(t, err, bgagent.ErrMayNotPermit)
			require.ErrorContains(t, err, "2048 bytes")
			answer(t, m, task.ID, key, q.Options[0])
			require.Equal(t, "I ask. told "+q.Options[0], ended(t, m, task.ID)[0].Result)
		})
	}
}

// The type "nested" is a runner that reports the parent of the session "inner".
type nested struct {
	bgagenttest.Runner
	parent *atomic.Value
}

func (n nested) FindSession(_ context.Context, session string) (bgagent.SessionInfo, error) {
	if session == "inner" {
		return bgagent.SessionInfo{Parent: n.parent.Load().(string)}, nil
	}
	return bgagent.SessionInfo{}, nil
}

// In this test, a session that does not belong to any task lies between the awaited task and the
// task that asks.
func TestAForegroundCallReturnsWhenATaskOfANestedSessionAsks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := nested{bgagenttest.NewRunner(func(t *bgagenttest.Turn) {
			if t.Prompt.Text == "release" {
				asking(which)(t)
				return
			}
			t.Sleep(10 * time.Minute)
			t.Say("done")
		}), &atomic.Value{}}
		defer r.Close()
		m := manage(t, r, bgagent.Config{Ask: true, MaxDepth: 5})
		began := time.Now()
		returned := make(chan error, 1)
		go func() {
			_, err := m.Run(context.Background(), root, bgagent.LaunchInput{Agent: "worker", Prompt: "middle"})
			returned <- err
		}()
		time.Sleep(time.Second)
		r.parent.Store(m.List(bgagent.Query{})[0].Session)
		task, err := m.Launch(t.Context(), bgagent.Caller{Session: "inner"}, bgagent.LaunchInput{Agent: "worker", Prompt: "release"})
		require.NoError(t, err)
		require.ErrorIs(t, <-returned, bgagent.ErrGoesOn)
		require.Equal(t, 11*time.Second, time.Since(began))
		answer(t, m, task.ID, asks(t, m, task.ID).Key, "main")
		ended(t, m, task.ID)
	})
}
