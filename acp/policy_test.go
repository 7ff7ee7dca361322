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

func TestTheLastRuleThatMatchesDecides(t *testing.T) {
	const allow, deny, ask = bgagent.PermissionAllow, bgagent.PermissionDeny, bgagent.PermissionAsk
	on := func(name, pattern string, a bgagent.PermissionAction) bgagent.Permission {
		return bgagent.Permission{Name: name, Pattern: pattern, Action: a}
	}
	all := on("*", "*", allow)
	for name, test := range map[string]struct {
		rules    []bgagent.Permission
		names    []string
		subjects []string
		want     bgagent.PermissionAction
	}{
		"no rule":                   {nil, []string{"edit"}, []string{"/w/a"}, ask},
		"all":                       {[]bgagent.Permission{all}, []string{"edit"}, []string{"/w/a"}, allow},
		"later beats earlier":       {[]bgagent.Permission{all, on("edit", "*", deny)}, []string{"edit"}, []string{"/w/a"}, deny},
		"and the other way round":   {[]bgagent.Permission{on("edit", "*", deny), all}, []string{"edit"}, []string{"/w/a"}, allow},
		"another name":              {[]bgagent.Permission{on("edit", "*", deny)}, []string{"execute"}, []string{"ls"}, ask},
		"name of the host's":        {[]bgagent.Permission{on("bash", "*", deny)}, []string{"", "execute"}, []string{"ls"}, deny},
		"name of the tool":          {[]bgagent.Permission{on("Grep", "*", allow)}, []string{"grep", "search"}, []string{"x"}, allow},
		"no name matches no rule":   {[]bgagent.Permission{on("", "*", allow)}, []string{"", ""}, []string{"x"}, ask},
		"path":                      {[]bgagent.Permission{on("edit", "/w/src/*", allow)}, []string{"edit"}, []string{"/w/src/a/b.go"}, allow},
		"relative path":             {[]bgagent.Permission{on("edit", "src/*", allow)}, []string{"edit"}, []string{"/w/src/b.go"}, allow},
		"relative path, elsewhere":  {[]bgagent.Permission{on("edit", "src/*", allow)}, []string{"edit"}, []string{"/x/src/b.go"}, ask},
		"no way out by ..":          {[]bgagent.Permission{on("edit", "/w/src/*", allow)}, []string{"edit"}, []string{"/w/src/../../etc/passwd"}, ask},
		"no way in by ..":           {[]bgagent.Permission{all, on("edit", "/etc/*", deny)}, []string{"edit"}, []string{"/w/../etc/passwd"}, deny},
		"all have to be allowed":    {[]bgagent.Permission{on("edit", "src/*", allow)}, []string{"edit"}, []string{"/w/src/a", "/w/b"}, ask},
		"one denied is enough":      {[]bgagent.Permission{all, on("edit", "*.key", deny)}, []string{"edit"}, []string{"/w/a", "/w/b.key"}, deny},
		"command":                   {[]bgagent.Permission{on("bash", "git *", allow), on("bash", "git push*", deny)}, []string{"execute"}, []string{"git push -f"}, deny},
		"one character":             {[]bgagent.Permission{on("bash", "l?", allow)}, []string{"execute"}, []string{"ls"}, allow},
		"one character is not none": {[]bgagent.Permission{on("bash", "ls?", allow)}, []string{"execute"}, []string{"ls"}, ask},
	} {
		require.Equal(t, test.want, ruling(test.rules, test.names, test.subjects, "/w"), name)
	}
}

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
		"nobody to ask":        {nil, nil, "answer no nobody is there to be asked, and no rule of the host allows it"},
		"allowed by a rule":    {nil, rule(bgagent.PermissionAllow), "answer once <nil>"},
		"denied by a rule":     {yes(PermissionAnswer{Allow: true}), rule(bgagent.PermissionDeny), "answer no a rule of the host denies it"},
		"a rule says ask":      {yes(PermissionAnswer{Allow: true}), rule(bgagent.PermissionAsk), "answer once <nil>"},
		"always":               {yes(PermissionAnswer{Allow: true, Always: true}), nil, "answer always <nil>"},
		"refused":              {yes(PermissionAnswer{Reason: "too late"}), nil, "answer no too late"},
		"refused for nothing":  {yes(PermissionAnswer{}), nil, "answer no the host refused"},
		"the host panics":      {func(context.Context, PermissionRequest) PermissionAnswer { panic("boom") }, nil, "answer no the host's function panicked: boom"},
		"the host's goroutine": {func(context.Context, PermissionRequest) PermissionAnswer { runtime.Goexit(); panic("unreachable") }, nil, "answer no the host's function ended its goroutine"},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, Config{Permit: test.permit}, false, func(t *testing.T, c *Client) {
				e := run(t, c, create(t, c), bgagent.Prompt{Text: "permit rm -r src", Permissions: test.rules}).wait()
				require.NoError(t, e.err)
				require.Equal(t, test.want, e.Text)
				require.Len(t, e.of(bgagent.ReportTool), 2) // it begins with the question, and ends with the turn
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

func TestAnAgentThatFallsSilentWhenRefusedHasFailed(t *testing.T) {
	bubble(t, Config{}, false, func(t *testing.T, c *Client) {
		e := prompt(t, c, create(t, c), "say I shall try\nquietly rm -r src")
		require.Equal(t, bgagent.StopError, e.Stop)
		require.ErrorContains(t, e.err, `said nothing more after it was refused: permission for "rm -r src" (execute): nobody is there`)
		require.NoError(t, prompt(t, c, create(t, c), "quietly rm -r src\nsay so be it").err)
	})
}

func TestAHostThatDoesNotAnswerHoldsUpNoCancellation(t *testing.T) {
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
