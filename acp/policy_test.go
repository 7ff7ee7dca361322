//go:build unix

package acp

import (
	"context"
	"runtime"
	"testing"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

func TestAQuestionOfTheAgentIsAnswered(t *testing.T) {
	yes := func(answer PermissionAnswer) func(context.Context, PermissionRequest) PermissionAnswer {
		return func(context.Context, PermissionRequest) PermissionAnswer { return answer }
	}
	rule := func(action bgagent.PermissionAction) []bgagent.Permission {
		return []bgagent.Permission{{Name: "bash", Pattern: "rm *", Action: action}}
	}
	for name, test := range map[string]struct {
		permit func(context.Context, PermissionRequest) PermissionAnswer
		rules  []bgagent.Permission
		want   string
	}{
		"nobody to ask":        {nil, nil, "answer no nobody was asked"},
		"allowed by a rule":    {nil, rule(bgagent.PermissionAllow), "answer once <nil>"},
		"denied by a rule":     {yes(PermissionAnswer{Allow: true}), rule(bgagent.PermissionDeny), "answer no a rule of the host denies it"},
		"a rule says ask":      {yes(PermissionAnswer{Allow: true}), rule(bgagent.PermissionAsk), "answer once <nil>"},
		"always":               {yes(PermissionAnswer{Allow: true, Always: true}), nil, "answer always <nil>"},
		"refused":              {yes(PermissionAnswer{Reason: "too late"}), nil, "answer no too late"},
		"the host lets it ask": {yes(PermissionAnswer{Ask: true}), nil, "answer no nobody was asked"},
		"refused for nothing":  {yes(PermissionAnswer{}), nil, "answer no the host refused"},
		"the host panics":      {func(context.Context, PermissionRequest) PermissionAnswer { panic("boom") }, nil, "answer no the host's function panicked: boom"},
		"the host's goroutine": {func(context.Context, PermissionRequest) PermissionAnswer { runtime.Goexit(); panic("unreachable") }, nil, "answer no the host's function ended its goroutine"},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, Config{Permit: test.permit}, false, func(t *testing.T, c *Client) {
				e := run(t, c, create(t, c), bgagent.Prompt{Text: "permit rm -r src", Permissions: test.rules}).wait()
				require.NoError(t, e.err)
				require.Equal(t, test.want, e.Text)
				require.Len(t, e.of(bgagent.ReportTool), 2) // the start of the call is reported with the question, and its end is reported when the turn ends
			})
		})
	}
}

func TestAQuestionIsShownWhileItIsOpen(t *testing.T) {
	var got PermissionRequest
	permit := func(_ context.Context, q PermissionRequest) PermissionAnswer {
		got = q
		time.Sleep(time.Minute)
		return PermissionAnswer{Allow: true}
	}
	bubble(t, Config{Permit: permit}, false, func(t *testing.T, c *Client) {
		id := create(t, c)
		e := prompt(t, c, id, "permit rm -r src")
		asking := e.of(bgagent.ReportAsking)
		require.Len(t, asking, 2)
		require.Equal(t, "may it use execute: rm -r src", asking[0].Text)
		require.Empty(t, asking[1].Text)
		require.Equal(t, PermissionRequest{
			Session: id, Task: "bg_1", Agent: "fake", Directory: c.cfg.Dir, ToolCall: "call_1",
			Name: "execute", Kind: "execute", Title: "rm -r src", Input: map[string]any{"command": "rm -r src"},
		}, got)
	})
}

func TestTheOldestOpenQuestionIsShown(t *testing.T) {
	var shown []string
	turn := &turn{r: bgagent.NewReporter(func(r bgagent.Report) { shown = append(shown, r.Text) })}
	one := turn.asks("one")
	two := turn.asks("two")
	same := turn.asks("two")
	one()
	two()
	three := turn.asks("three")
	same()
	three()
	require.Equal(t, []string{"one", "two", "three", ""}, shown)
}

func TestAnAgentThatFallsSilentWhenRefusedHasFailed(t *testing.T) {
	bubble(t, Config{}, false, func(t *testing.T, c *Client) {
		e := prompt(t, c, create(t, c), "say I shall try\nquietly rm -r src")
		require.Equal(t, bgagent.StopError, e.Stop)
		require.ErrorContains(t, e.err, `said nothing more after it was refused: permission for "rm -r src" (execute): nobody was asked`)
		require.NoError(t, prompt(t, c, create(t, c), "quietly rm -r src\nsay so be it").err)
	})
}

func TestAnAgentThatCallsItsTurnCancelledWhenRefusedHasFailed(t *testing.T) {
	bubble(t, Config{}, false, func(t *testing.T, c *Client) {
		e := prompt(t, c, create(t, c), "quietly rm -r src\nstop cancelled")
		require.Equal(t, bgagent.StopError, e.Stop)
		require.ErrorContains(t, e.err, `ended its turn after it was refused: permission for "rm -r src" (execute): nobody was asked`)
		require.Equal(t, bgagent.StopAborted, prompt(t, c, create(t, c), "say hm\nstop cancelled").Stop, "without a refusal it is an abort")
	})
}

func TestAHostThatDoesNotAnswerDelaysNoCancellation(t *testing.T) {
	asked := make(chan struct{}, 1)
	release := make(chan struct{})
	permit := func(context.Context, PermissionRequest) PermissionAnswer {
		asked <- struct{}{}
		<-release
		return PermissionAnswer{Allow: true}
	}
	c := open(t, func() Config { cfg := program(t, ""); cfg.Permit = permit; return cfg }())
	t.Cleanup(func() { close(release) })
	id := create(t, c)
	l := run(t, c, id, bgagent.Prompt{Text: "permit rm -r src\nwait"})
	<-asked
	require.NoError(t, c.Abort(t.Context(), id))
	require.Equal(t, bgagent.StopAborted, l.wait().Stop)
	require.Equal(t, "hello", prompt(t, c, id, "say hello").Text)
}
