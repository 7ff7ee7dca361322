package demo

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/inproc"
	"github.com/stretchr/testify/require"
)

// The function "ask" runs a turn of a demo agent as a manager would.
func ask(ctx context.Context, t *testing.T, agent, prompt, dir string) (bgagent.TurnEnd, int, error) {
	agents := map[string]inproc.Agent{}
	for _, a := range Agents() {
		agents[a.Name] = a.Run
	}
	c := inproc.New(agents)
	id, err := c.CreateSession(ctx, bgagent.SessionSpec{Task: "bg_1", Agent: agent, Directory: dir, Depth: 1})
	require.NoError(t, err)
	calls := 0
	end, err := c.RunTurn(ctx, id, bgagent.Prompt{Agent: agent, Text: prompt}, bgagent.NewReporter(func(r bgagent.Report) {
		if r.Kind == bgagent.ReportTool && r.Tool.State == bgagent.ToolDone {
			calls++
		}
	}))
	return end, calls, err
}

func TestWaitTakesAsLongAsItWasAskedTo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		end, calls, err := ask(t.Context(), t, "wait", "please wait for 2.5 s", "")
		require.NoError(t, err)
		require.Equal(t, "I have waited for 2.5s.", end.Text)
		require.Equal(t, 5, calls)
		require.Equal(t, 2500*time.Millisecond, time.Since(begin))

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, _, err = ask(ctx, t, "wait", "10 m", "")
		require.ErrorIs(t, err, context.DeadlineExceeded)
	})
}

func TestPromptsThatSayNothingAreRefused(t *testing.T) {
	for agent, want := range map[string]string{"wait": "does not say how long to wait", "search": "does not say what to search for", "fail": "as asked: hello"} {
		_, _, err := ask(t.Context(), t, agent, "hello", t.TempDir())
		require.ErrorContains(t, err, want)
	}
	_, _, err := ask(t.Context(), t, "wait", "11 m", "")
	require.ErrorContains(t, err, "is too long to wait; the maximum is 10m0s")
	_, _, err = ask(t.Context(), t, "count", "x", "/no/such/directory")
	require.ErrorContains(t, err, "looking at the directory")
}
