package bgagent_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/bgagenttest"
	"github.com/stretchr/testify/require"
)

// useTool calls the tool with the given usual name as the root session.
func useTool(t *testing.T, m *bgagent.BackgroundManager, usual string, args map[string]any) bgagent.ToolResult {
	t.Helper()
	for _, d := range bgagent.Tools(m, bgagent.ToolOptions{With: []string{bgagent.ToolBackgroundMessage}}) {
		if d.Usual != usual {
			continue
		}
		raw, err := json.Marshal(args)
		require.NoError(t, err)
		r, err := d.Call(bgagent.WithCaller(t.Context(), root), raw)
		require.NoError(t, err)
		return r
	}
	require.Fail(t, "no such tool")
	return bgagent.ToolResult{}
}

func TestBackgroundMessageAnswersAQuestion(t *testing.T) {
	askingOnBoth(t, asking(which), bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager, _ *bgagenttest.Fake) {
		r := useTool(t, m, bgagent.ToolDelegateTask, map[string]any{"subagent_type": "worker", "prompt": "release", "run_in_background": false})
		require.False(t, r.IsError)
		require.Contains(t, r.Text, which.Subject)
		require.Contains(t, r.Text, "background_message(task_id=")
		task := *r.Value.(bgagent.DelegateTaskResult).Task
		q := asks(t, m, task.ID)
		began := time.Now()
		r = useTool(t, m, bgagent.ToolBackgroundOutput, map[string]any{"task_id": task.ID, "block": true})
		require.Contains(t, r.Text, q.Key)
		require.Zero(t, time.Since(began), "a caller that can answer must not wait")

		for _, wrong := range []struct {
			args map[string]any
			says string
		}{
			{map[string]any{"question": q.Key}, "The argument answer is missing."},
			{map[string]any{"answer": "main"}, "The argument question is missing."},
			{map[string]any{"question": q.Key, "answer": "main", "message": "m"}, "exclude each other"},
			{map[string]any{"question": q.Key, "answer": "master"}, "it must be one of: main, next"},
			{map[string]any{"question": "que_2.x", "answer": "main"}, "does not ask the question `que_2.x`"},
		} {
			wrong.args["task_id"] = task.ID
			r := useTool(t, m, bgagent.ToolBackgroundMessage, wrong.args)
			require.True(t, r.IsError)
			require.Contains(t, r.Text, wrong.says)
		}
		args := map[string]any{"task_id": task.ID, "question": q.Key, "answer": "next"}
		r = useTool(t, m, bgagent.ToolBackgroundMessage, args)
		require.False(t, r.IsError, r.Text)
		require.Contains(t, r.Text, "Question answered.")
		v := r.Value.(bgagent.BackgroundMessageResult)
		require.Equal(t, "next", v.Question.Answer)
		require.Equal(t, task.ID, v.Task.ID)
		r = useTool(t, m, bgagent.ToolBackgroundMessage, args)
		require.True(t, r.IsError)
		require.Contains(t, r.Text, "it has been answered already with `next`")
		require.Equal(t, "I ask. told next", ended(t, m, task.ID)[0].Result)
	})
}

func TestAModelCannotGiveAPermissionWithATool(t *testing.T) {
	askingOnBoth(t, asking(mayI), bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager, _ *bgagenttest.Fake) {
		task := launch(t, m, "build")
		q := asks(t, m, task.ID)
		r := useTool(t, m, bgagent.ToolBackgroundMessage, map[string]any{"task_id": task.ID, "question": q.Key, "answer": "allow"})
		require.True(t, r.IsError)
		require.Contains(t, r.Text, "Only the host can answer")
		r = useTool(t, m, bgagent.ToolBackgroundOutput, map[string]any{"task_id": task.ID})
		require.Contains(t, r.Text, "You cannot answer this question.")
		require.NotContains(t, r.Text, "background_message(")
	})
}

// A blocking read returns when a task asks a question. A caller without the tool background_message
// cannot do anything about the question, so only its first read returns early, and the next one waits.
func TestABlockingReadReturnsOnceForAQuestionThatItsCallerCannotAnswer(t *testing.T) {
	askingOnBoth(t, asking(which), bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager, _ *bgagenttest.Fake) {
		task := launch(t, m, "release")
		read := func() (bgagent.BackgroundOutputResult, time.Duration) {
			began := time.Now()
			r, err := bgagent.BackgroundOutput(t.Context(), m, root, bgagent.BackgroundOutputArgs{TaskID: task.ID, Block: true})
			require.NoError(t, err)
			return r, time.Since(began)
		}
		r, took := read()
		require.Equal(t, 10*time.Second, took)
		require.Contains(t, r.Text, "an answer is awaited by")
		require.Contains(t, r.Text, "You cannot answer this question.")
		r, took = read()
		require.True(t, r.TimedOut)
		require.Equal(t, time.Minute, took)
	})
}

// Even a model with the tool background_message is not allowed to answer a request for permission or
// a question with a long subject. Therefore, only its first read returns early, and the next one waits.
func TestABlockingReadReturnsOnceForAQuestionThatOnlyTheHostMayAnswer(t *testing.T) {
	long := which
	long.Subject = strings.Repeat("x", 2<<10+1)
	for _, q := range []bgagent.Question{mayI, long} {
		askingOnBoth(t, asking(q), bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager, _ *bgagenttest.Fake) {
			task := launch(t, m, "release")
			for _, args := range []map[string]any{{"task_id": task.ID}, {}} {
				args["block"], args["timeout"] = true, 60000
				for i, want := range []time.Duration{10 * time.Second, time.Minute} {
					if i == 0 && args["task_id"] == nil {
						continue // the question is already open, so this read would not return early
					}
					began := time.Now()
					r := useTool(t, m, bgagent.ToolBackgroundOutput, args)
					require.False(t, r.IsError, r.Text)
					require.Equal(t, want, time.Since(began))
				}
			}
		})
	}
}
