package bgagent_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/bgagenttest"
	"github.com/stretchr/testify/require"
)

// The function "spoilt" returns a client that has the given fault in every call of the given kind.
func spoilt(kind bgagenttest.CallKind, f bgagenttest.Fault) bgagenttest.Starter {
	fake := bgagenttest.NewStarter(func(x *bgagenttest.Turn) {
		x.Sleep(10 * time.Second)
		x.Say("the answer")
	})
	fake.Faults = func(c bgagenttest.Call) bgagenttest.Fault {
		if c.Kind == kind {
			return f
		}
		return bgagenttest.Fault{}
	}
	return fake
}

func TestTodosThatCannotBeReadDoNotOutrankTheAnswer(t *testing.T) {
	for name, fault := range map[string]bgagenttest.Fault{
		"an error": {Err: errors.New("500")}, "a hang": {Hang: true}, "a panic": {Panic: "boom"},
	} {
		for hold, within := range map[time.Duration]time.Duration{0: 43 * time.Second, bgagent.Disabled: 13 * time.Second, time.Minute: 73 * time.Second} {
			t.Run(name+" "+hold.String(), func(t *testing.T) {
				fake := spoilt(bgagenttest.CallTodos, fault)
				bubble(t, fake, bgagent.Config{TodoHold: hold}, func(t *testing.T, m *bgagent.BackgroundManager) {
					defer fake.Close()
					ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
					defer cancel()
					for _, foreground := range []bool{false, true} {
						began := time.Now()
						task := bgagent.Task{}
						if in := (bgagent.LaunchInput{Agent: "worker", Prompt: "x"}); foreground {
							var err error
							task, err = m.Run(ctx, root, in)
							require.NoError(t, err)
						} else {
							task = ended(t, m, launch(t, m, "x").ID)[0]
						}
						require.Equal(t, bgagent.Completed, task.Status, task.Reason)
						require.Equal(t, "the answer", task.Result)
						require.LessOrEqual(t, time.Since(began), within)
					}
				})
			})
		}
	}
}

func TestMessagesThatCannotBeReadEndTheAttempt(t *testing.T) {
	fake := spoilt(bgagenttest.CallMessages, bgagenttest.Fault{Err: errors.New("500 of the server")})
	bubble(t, fake, bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager) {
		defer fake.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
		defer cancel()
		began := time.Now()
		task, err := m.Run(ctx, root, bgagent.LaunchInput{Agent: "worker", Prompt: "x"})
		require.NoError(t, err)
		require.Equal(t, bgagent.CauseHostUnreachable, task.Cause)
		require.Contains(t, task.Reason, "the messages of the session could not be read for 5m0s, nor from the beginning: 500 of the server")
		require.Less(t, time.Since(began), 6*time.Minute)
	})
}

// lostCursors is a server that rejects all cursors, including those that it has returned.
type lostCursors struct{ *server }

func (f lostCursors) Messages(ctx context.Context, session string, after bgagent.Cursor, max int) (bgagent.Page, error) {
	if after != "" {
		return bgagent.Page{}, errors.New("fake: the cursor " + string(after) + " is not known")
	}
	return f.server.Messages(ctx, session, after, max)
}

func TestAnUnknownCursorIsReadFromTheBeginning(t *testing.T) {
	f := lostCursors{newServer()}
	bubble(t, f, bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager) {
		id := launch(t, m, "work").ID
		synctest.Wait()
		s := get(t, m, id).Session
		f.put(s, bgagent.Message{ID: "one", Text: "first", Tools: []bgagent.MessageTool{sharedCall(bgagent.ToolDone)}, Finished: true, Stop: bgagent.StopToolCalls, Usage: bgagent.Usage{InputTokens: 5}})
		time.Sleep(5 * time.Second)
		f.say(s, "the answer")
		task := ended(t, m, id)[0]
		require.Equal(t, bgagent.Completed, task.Status, task.Reason)
		require.Equal(t, "the answer", task.Result)
		require.Equal(t, 1, task.Progress.ToolCalls)
		require.EqualValues(t, 5, task.Progress.Usage.InputTokens)
		require.Less(t, task.Duration(time.Now()), time.Minute)
	})
}
