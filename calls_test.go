package bgagent_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

// Some model servers give every call the same id, others begin again in every turn.
func TestAToolCallIDGuardsAgainstARetryOnly(t *testing.T) {
	by := bgagent.Caller{Session: "root", ToolCallID: "delegate_task:0"}
	background := true
	for name, args := range map[string]bgagent.DelegateTaskArgs{
		"in the foreground": {SubagentType: "tests", Prompt: "run the test suite", RunInBackground: new(bool)},
		"in the background": {SubagentType: "tests", Prompt: "run the test suite", RunInBackground: &background},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := manage(t, &goRunner{run: works(time.Second)}, bgagent.Config{})
				ids := map[string]bool{}
				for range 3 {
					first, err := bgagent.DelegateTask(t.Context(), m, by, args)
					require.NoError(t, err)
					ended(t, m, first.Task.ID)
					ids[first.Task.ID] = true
				}
				require.Len(t, ids, 3, "each call after the end of the one before is a new one")

				for id := range ids {
					for n := range 3 {
						again := args
						again.TaskID = id
						_, err := bgagent.DelegateTask(t.Context(), m, by, again)
						require.NoError(t, err)
						require.Equal(t, n+2, ended(t, m, id)[0].Attempt, "the same for resumes")
					}
				}
			})
		})
	}
}

func TestARetryFindsItsCallWhileItLives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := manage(t, &goRunner{run: works(time.Minute)}, bgagent.Config{})
		by := bgagent.Caller{Session: "root", ToolCallID: "c"}
		in := bgagent.LaunchInput{Agent: "a", Prompt: "p"}
		answers := make(chan bgagent.Task, 2)
		run := func() {
			task, err := m.Run(t.Context(), by, in)
			require.NoError(t, err)
			answers <- task
		}
		go run()
		time.Sleep(time.Second)
		go run()
		one, two := <-answers, <-answers
		require.Equal(t, one.ID, two.ID, "two calls that wait side by side")

		again := func() {
			task, err := m.RunResume(t.Context(), by, one.ID, bgagent.ResumeInput{Prompt: "more"})
			require.NoError(t, err)
			answers <- task
		}
		go again()
		time.Sleep(time.Second)
		go again()
		one, two = <-answers, <-answers
		require.Equal(t, 2, one.Attempt)
		require.Equal(t, 2, two.Attempt)
	})
}

func TestACallThatWasToldThatItsTaskGoesOnIsAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := manage(t, &goRunner{run: works(time.Minute)}, bgagent.Config{})
		by := bgagent.Caller{Session: "root", ToolCallID: "c"}
		in := bgagent.LaunchInput{Agent: "a", Prompt: "p"}
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		first, err := m.Run(short, by, in)
		require.ErrorIs(t, err, bgagent.ErrGoesOn)
		ended(t, m, first.ID)
		second, err := m.Run(t.Context(), by, in)
		require.NoError(t, err)
		require.NotEqual(t, first.ID, second.ID)
	})
}
