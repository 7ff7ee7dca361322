package bgagent_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

// Some model servers give every tool call the same id. Others reuse the same ids in every turn.
// Therefore, a call with the id of an earlier call is treated as a retry only while the earlier
// call's task is live.
func TestAToolCallIDGuardsAgainstARetryOnly(t *testing.T) {
	by := bgagent.Caller{Session: "root", ToolCallID: "delegate_task:0"}
	background := true
	for name, args := range map[string]bgagent.DelegateTaskArgs{
		"in the foreground": {SubagentType: "tests", Prompt: "run the test suite", RunInBackground: new(bool)},
		"in the background": {SubagentType: "tests", Prompt: "run the test suite", RunInBackground: &background},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, working(time.Second), bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager) {
				ids := map[string]bool{}
				for range 3 {
					first, err := bgagent.DelegateTask(t.Context(), m, by, args)
					require.NoError(t, err)
					ended(t, m, first.Task.ID)
					ids[first.Task.ID] = true
				}
				require.Len(t, ids, 3, "a call after the end of the previous task launches a new task")

				for id := range ids {
					for n := range 3 {
						again := args
						again.TaskID = id
						_, err := bgagent.DelegateTask(t.Context(), m, by, again)
						require.NoError(t, err)
						require.Equal(t, n+2, ended(t, m, id)[0].Attempt, "the same applies to resumes")
					}
				}
			})
		})
	}
}

func TestARetryFindsItsCallWhileItLives(t *testing.T) {
	bubble(t, working(time.Minute), bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager) {
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
		require.Equal(t, one.ID, two.ID, "both calls wait for the same task")

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
	bubble(t, working(time.Minute), bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager) {
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

// sharedCall returns a tool call in the given state. All calls from sharedCall have the
// same id.
func sharedCall(state bgagent.ToolState) bgagent.MessageTool {
	return bgagent.MessageTool{ID: "call_0", Name: "bash", State: state}
}

func TestCallsThatShareAnIDAreCountedEach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &goRunner{}
		f.run = func(ctx context.Context, s string, p bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
			for range 30 {
				switch p.Text {
				case "updates":
					r.Tool(sharedCall(bgagent.ToolPending))
					r.Tool(sharedCall(bgagent.ToolRunning))
					r.Tool(sharedCall(bgagent.ToolRunning))
				case "fails":
					r.Tool(sharedCall(bgagent.ToolFailed))
					continue
				}
				r.Tool(sharedCall(bgagent.ToolDone))
			}
			return bgagent.TurnEnd{Text: "done"}, nil
		}
		m := manage(t, f, bgagent.Config{})
		for _, prompt := range []string{"updates", "only when they are done", "fails"} {
			require.Equal(t, 30, ended(t, m, launch(t, m, prompt).ID)[0].Progress.ToolCalls, prompt)
		}
	})
}

func TestCallsThatAreToldOnlyWhenTheyAreDoneAreActivity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &goRunner{}
		f.run = func(ctx context.Context, s string, p bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
			for range 20 {
				time.Sleep(time.Minute)
				if ctx.Err() != nil {
					return bgagent.TurnEnd{}, ctx.Err()
				}
				r.Tool(sharedCall(bgagent.ToolDone))
			}
			return bgagent.TurnEnd{Text: "done"}, nil
		}
		m := manage(t, f, bgagent.Config{})
		task := ended(t, m, launch(t, m, "work").ID)[0]
		require.Equal(t, bgagent.Completed, task.Status, task.Reason)
		require.Equal(t, 20, task.Progress.ToolCalls)
	})
}

func TestCallsOfMessagesThatShareAnIDAreCountedEach(t *testing.T) {
	f := newServer()
	bubble(t, f, bgagent.Config{StaleTimeout: bgagent.Disabled}, func(t *testing.T, m *bgagent.BackgroundManager) {
		id := launch(t, m, "work").ID
		synctest.Wait()
		s := get(t, m, id).Session
		put := func(msg string, states ...bgagent.ToolState) {
			tools := make([]bgagent.MessageTool, len(states))
			for i, state := range states {
				tools[i] = sharedCall(state)
			}
			f.put(s, bgagent.Message{ID: msg, Tools: tools, Finished: true, Stop: bgagent.StopToolCalls})
			time.Sleep(3 * time.Second)
		}
		put("one", bgagent.ToolRunning)
		put("one", bgagent.ToolDone)
		require.Equal(t, 1, get(t, m, id).Progress.ToolCalls)
		put("two", bgagent.ToolDone)
		put("three", bgagent.ToolDone, bgagent.ToolRunning)
		put("three", bgagent.ToolDone, bgagent.ToolFailed)
		put("one", bgagent.ToolFailed) // the message is read again
		require.Equal(t, 4, get(t, m, id).Progress.ToolCalls)
		f.say(s, "the answer")
		require.Equal(t, bgagent.Completed, ended(t, m, id)[0].Status, "no tool call is in flight")
	})
}

func TestACallWhoseResultStandsInAnotherMessageIsOne(t *testing.T) {
	f := newServer()
	bubble(t, f, bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager) {
		id := launch(t, m, "work").ID
		synctest.Wait()
		s := get(t, m, id).Session
		f.put(s, bgagent.Message{ID: "one", Tools: []bgagent.MessageTool{sharedCall(bgagent.ToolRunning)}, Finished: true, Stop: bgagent.StopToolCalls})
		time.Sleep(3 * time.Second)
		f.put(s, bgagent.Message{ID: "two", Tools: []bgagent.MessageTool{sharedCall(bgagent.ToolDone)}, Finished: true, Stop: bgagent.StopToolCalls})
		f.say(s, "the answer")
		task := ended(t, m, id)[0]
		require.Equal(t, bgagent.Completed, task.Status, task.Reason)
		require.Equal(t, 1, task.Progress.ToolCalls)
	})
}
