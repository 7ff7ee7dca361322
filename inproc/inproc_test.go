package inproc_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/inproc"
	"github.com/bgagent/bgagent/internal/permission"
	"github.com/stretchr/testify/require"
)

var root = bgagent.Caller{Session: "root"}

func manage(t *testing.T, cfg bgagent.Config, agents map[string]inproc.Agent) *bgagent.BackgroundManager {
	t.Helper()
	m, err := bgagent.New(inproc.New(agents), cfg)
	require.NoError(t, err)
	t.Cleanup(func() { _ = m.Close(context.Background()) })
	return m
}

func run(t *testing.T, m *bgagent.BackgroundManager, agent, prompt string) bgagent.Task {
	t.Helper()
	task, err := m.Run(t.Context(), root, bgagent.LaunchInput{Agent: agent, Prompt: prompt})
	require.NoError(t, err)
	return task
}

func TestAFollowUpSeesTheEarlierTurns(t *testing.T) {
	m := manage(t, bgagent.Config{}, map[string]inproc.Agent{
		"parrot": func(_ context.Context, turn *inproc.Turn) (string, error) {
			var heard []string
			for _, msg := range turn.History() {
				heard = append(heard, msg.Role.String()+":"+msg.Text)
			}
			turn.Tool(bgagent.MessageTool{ID: turn.Prompt.ID, Name: "listen", State: bgagent.ToolDone})
			return strings.Join(append(heard, turn.Prompt.Text), " "), nil
		},
	})
	task := run(t, m, "parrot", "one")
	require.Equal(t, "one", task.Result)
	task, err := m.RunResume(t.Context(), root, task.Session, bgagent.ResumeInput{Prompt: "two"})
	require.NoError(t, err)
	require.Equal(t, "user:one agent:one two", task.Result)
	require.Equal(t, 1, task.Progress.ToolCalls)

	page, err := m.Messages(t.Context(), root, task.ID, "", 3)
	require.NoError(t, err)
	require.Len(t, page.Messages, 3)
	require.True(t, page.More)
	rest, err := m.Messages(t.Context(), root, task.ID, page.Next, 3)
	require.NoError(t, err)
	require.Len(t, rest.Messages, 1)
	require.Equal(t, task.Result, rest.Messages[0].Text)
	require.False(t, rest.More)
}

func TestAnUnknownAgentIsNamedBesideThoseThereAre(t *testing.T) {
	work := func(context.Context, *inproc.Turn) (string, error) { return "x", nil }
	m := manage(t, bgagent.Config{}, map[string]inproc.Agent{"oracle": work, "explore": work})
	task := run(t, m, "exploer", "p")
	require.Equal(t, bgagent.CauseStartFailed, task.Cause)
	require.Contains(t, task.Reason, `there is no agent "exploer"; there are: explore, oracle`)

	m = manage(t, bgagent.Config{}, map[string]inproc.Agent{inproc.Fallback: work})
	require.Equal(t, bgagent.Completed, run(t, m, "anybody", "p").Status)
}

func TestAnAgentEndsAsItSays(t *testing.T) {
	m := manage(t, bgagent.Config{}, map[string]inproc.Agent{
		"cut": func(_ context.Context, turn *inproc.Turn) (string, error) {
			turn.Stop(bgagent.StopLength)
			return "half an ans", nil
		},
		"fails": func(_ context.Context, turn *inproc.Turn) (string, error) {
			turn.Text("so far")
			return "", errors.New("lost the thread")
		},
		"panics": func(context.Context, *inproc.Turn) (string, error) { panic("boom") },
		"says": func(_ context.Context, turn *inproc.Turn) (string, error) {
			turn.Text("let me look")
			turn.Tool(bgagent.MessageTool{ID: "1", Name: "grep", State: bgagent.ToolDone})
			turn.Text("found ")
			turn.Text("it")
			return "", nil
		},
	})
	task := run(t, m, "cut", "p")
	require.Equal(t, bgagent.CauseLength, task.Cause)
	require.Equal(t, "half an ans", task.Result)
	require.True(t, task.Partial)
	task = run(t, m, "fails", "p")
	require.Equal(t, bgagent.CauseSessionError, task.Cause)
	require.Contains(t, task.Reason, "lost the thread")
	require.Equal(t, "so far", task.Result)
	require.Contains(t, run(t, m, "panics", "p").Reason, "boom")
	task = run(t, m, "says", "p")
	require.Equal(t, "found it", task.Result)
	require.Equal(t, "grep", task.Progress.LastTool)
}

func TestACancelEndsTheAgentsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := manage(t, bgagent.Config{}, map[string]inproc.Agent{
			"waits": func(ctx context.Context, _ *inproc.Turn) (string, error) { <-ctx.Done(); return "", ctx.Err() },
		})
		task, err := m.Launch(t.Context(), root, bgagent.LaunchInput{Agent: "waits", Prompt: "p"})
		require.NoError(t, err)
		time.Sleep(time.Second)
		_, err = m.Cancel(t.Context(), root, task.ID, bgagent.CancelOptions{})
		require.NoError(t, err)
		require.NoError(t, m.Quiet(t.Context(), task.ID))
	})
}

func TestAnAgentCanDelegate(t *testing.T) {
	var m *bgagent.BackgroundManager
	m = manage(t, bgagent.Config{MaxDepth: 2, Limits: bgagent.Limits{Default: 1}, NoticeWindow: bgagent.Disabled}, map[string]inproc.Agent{
		"lead": func(ctx context.Context, turn *inproc.Turn) (string, error) {
			by, ok := bgagent.CallerFrom(ctx)
			if !ok || by.Session != turn.Session() {
				return "", fmt.Errorf("the caller is %v", by)
			}
			if n := turn.Prompt.Notice; n != nil {
				child, err := m.Read(by, n.Items[0].Task)
				return "the scout says: " + child.Result, err
			}
			_, err := m.Launch(ctx, by, bgagent.LaunchInput{Agent: "scout", Prompt: "go and see"})
			return "I have sent a scout", err
		},
		"scout": func(context.Context, *inproc.Turn) (string, error) { return "all clear", nil },
	})
	task := run(t, m, "lead", "is it safe?")
	require.Equal(t, "the scout says: all clear", task.Result, task.Reason)
}

func TestPermissionsAreThereForTheAgent(t *testing.T) {
	var got []bool
	m := manage(t, bgagent.Config{Permissions: []bgagent.Permission{
		{Name: "*", Pattern: "*", Action: bgagent.PermissionAllow},
		{Name: "edit", Pattern: "*.go", Action: bgagent.PermissionDeny},
		{Name: "bash", Pattern: "*", Action: bgagent.PermissionAsk},
	}}, map[string]inproc.Agent{"a": func(_ context.Context, t *inproc.Turn) (string, error) {
		got = []bool{t.Allowed("read", "x"), t.Allowed("edit", "main.go"), t.Allowed("edit", "README.md"), t.Allowed("bash", "ls")}
		return "x", nil
	}})
	run(t, m, "a", "p")
	require.Equal(t, []bool{true, false, true, false}, got)
}

func TestRulesAreReadByAnyWordForAKind(t *testing.T) {
	const yes, no = bgagent.PermissionAllow, bgagent.PermissionDeny
	for name, test := range map[string]struct {
		rules  []bgagent.Permission
		denied []string // tools that the rules do not allow
	}{
		"in capitals":       {[]bgagent.Permission{{Name: "Bash", Pattern: "*", Action: no}}, []string{"bash", "shell", "execute"}},
		"a part":            {[]bgagent.Permission{{Name: "edit", Pattern: "*", Action: no}}, []string{"write", "Delete", "move"}},
		"the empty pattern": {[]bgagent.Permission{{Name: "fetch", Action: no}}, []string{"webfetch"}},
		"taken back":        {[]bgagent.Permission{{Name: "Bash", Action: no}, {Name: "execute", Action: yes}}, nil},
		"unknown":           {[]bgagent.Permission{{Name: "MCP_*", Action: no}}, []string{"mcp__db__drop"}},
		"an unknown action": {[]bgagent.Permission{{Name: "read", Action: "forbid"}}, []string{"grep"}},
		"across folders":    {[]bgagent.Permission{{Name: "read", Pattern: "*.go", Action: no}}, []string{"view"}},
	} {
		var denied []string
		m := manage(t, bgagent.Config{Permissions: test.rules}, map[string]inproc.Agent{"a": func(_ context.Context, turn *inproc.Turn) (string, error) {
			for _, tool := range test.denied {
				if !turn.Allowed(tool, "a/main.go") {
					denied = append(denied, tool)
				}
			}
			if !turn.Allowed("todowrite", "") {
				denied = append(denied, "todowrite")
			}
			return "x", nil
		}})
		run(t, m, "a", "p")
		require.Equal(t, test.denied, denied, name)
	}
}

func TestTheDocumentsSayHowRulesAreKept(t *testing.T) {
	raw, err := os.ReadFile("../docs/clients.md")
	require.NoError(t, err)
	require.Contains(t, string(raw), "\n"+permission.All("", permission.Checked).Row("`inproc`")+"\n")
}

func TestMisuseOfNewPanics(t *testing.T) {
	require.PanicsWithValue(t, "inproc: New needs at least one agent", func() { inproc.New(nil) })
	require.PanicsWithValue(t, `inproc: the agent "x" is nil`, func() { inproc.New(map[string]inproc.Agent{"x": nil}) })
}

func TestCallsThatShareAnIDAreTheirOwn(t *testing.T) {
	m := manage(t, bgagent.Config{}, map[string]inproc.Agent{
		"busy": func(_ context.Context, turn *inproc.Turn) (string, error) {
			for range 30 {
				turn.Tool(bgagent.MessageTool{ID: "0", Name: "bash", State: bgagent.ToolRunning})
				turn.Tool(bgagent.MessageTool{ID: "0", Name: "bash", State: bgagent.ToolDone})
			}
			return "done", nil
		},
	})
	task := run(t, m, "busy", "go")
	require.Equal(t, 30, task.Progress.ToolCalls)
	page, err := m.Messages(t.Context(), root, task.ID, "", 0)
	require.NoError(t, err)
	require.Len(t, page.Messages[1].Tools, 30)
}

func TestAnAgentReceivesMessagesInItsTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := manage(t, bgagent.Config{}, map[string]inproc.Agent{
			"worker": func(ctx context.Context, turn *inproc.Turn) (string, error) {
				time.Sleep(time.Minute)
				select {
				case msg := <-turn.Receive():
					time.Sleep(time.Minute)
					return "got " + msg.Text, nil
				case <-ctx.Done():
					return "", ctx.Err()
				}
			},
		})
		task, err := m.Launch(t.Context(), bgagent.Caller{}, bgagent.LaunchInput{Agent: "worker", Prompt: "work"})
		require.NoError(t, err)
		now := func(text string) (bgagent.SendResult, error) {
			return m.Send(t.Context(), bgagent.Caller{}, task.ID, bgagent.SendInput{Text: text, Now: true})
		}
		time.Sleep(time.Second)
		_, err = now("too early")
		require.ErrorIs(t, err, bgagent.ErrCannotSteer, "the agent has not called Receive")
		time.Sleep(time.Minute)
		r, err := now("a message")
		require.NoError(t, err)
		require.Equal(t, bgagent.MessageInTurn, r.State)
		began := time.Now()
		r, err = now("another")
		require.ErrorIs(t, err, bgagent.ErrCannotSteer, "the agent receives only one message")
		require.Equal(t, bgagent.MessageRefused, r.State)
		require.Equal(t, 5*time.Second, time.Since(began))
		list, err := m.Wait(t.Context(), bgagent.Caller{}, bgagent.WaitAll, task.ID)
		require.NoError(t, err)
		require.Equal(t, "got a message", list[0].Result)
	})
}

func TestAnAgentThatTheProviderRefusesIsCalledAgainWithTheSamePrompt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		client := inproc.New(map[string]inproc.Agent{"a": func(_ context.Context, turn *inproc.Turn) (string, error) {
			if calls++; calls < 3 {
				return "half", &bgagent.ProviderError{Kind: bgagent.ProviderRateLimited, Next: bgagent.NextRepeat}
			}
			return fmt.Sprintf("%s after %d", turn.Prompt.Text, len(turn.History())), nil
		}})
		m, err := bgagent.New(client, bgagent.Config{})
		require.NoError(t, err)
		defer m.Close(context.Background())
		task, err := m.Run(t.Context(), bgagent.Caller{Session: "root"}, bgagent.LaunchInput{Agent: "a", Prompt: "p"})
		require.NoError(t, err)
		require.Equal(t, "p after 0", task.Result)
	})
}
