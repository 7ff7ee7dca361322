package bgagent_test

import (
	"context"
	"encoding/json"
	"math"
	"testing"
	"testing/synctest"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

// The manager also copies the values that it receives, not only those that it returns.
func TestTheManagerKeepsCopiesOfTodos(t *testing.T) {
	f := newServer()
	bubble(t, f, bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager) {
		id, session := turnOn(t, m, "a")
		todos := []bgagent.Todo{{Text: "one"}}
		m.Observe(bgagent.HostEvent{Kind: bgagent.HostTodos, Session: session, Todos: todos})
		todos[0].Text = "changed"
		require.Equal(t, "one", get(t, m, id).Progress.Todos[0].Text)
	})
}

// A task can be encoded as JSON, whatever its agent has reported.
func TestATaskSurvivesJSONWhateverWasReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &goRunner{}
		f.run = func(_ context.Context, _ string, _ bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
			r.Usage(bgagent.Usage{Cost: math.NaN()})
			r.Usage(bgagent.Usage{Cost: math.Inf(1)})
			r.Usage(bgagent.Usage{Cost: 1, InputTokens: 3})
			r.Text("\xff\xfe")
			return bgagent.TurnEnd{Text: "done"}, nil
		}
		m := manage(t, f, bgagent.Config{})
		task := ended(t, m, launch(t, m, "x").ID)[0]
		raw, err := json.Marshal(task)
		require.NoError(t, err)
		require.Equal(t, bgagent.Usage{Cost: 1, InputTokens: 3}, task.Progress.Usage)
		var back bgagent.Task
		require.NoError(t, json.Unmarshal(raw, &back))
		again, err := json.Marshal(back)
		require.NoError(t, err)
		require.JSONEq(t, string(raw), string(again))
		require.Equal(t, task.Cause, back.Cause)
	})
}
