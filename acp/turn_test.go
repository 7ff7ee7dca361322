//go:build unix

package acp

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/tempdir"
	"github.com/stretchr/testify/require"
)

// bubble runs a test in virtual time, with a fake agent in the same process.
func bubble(t *testing.T, cfg Config, store bool, test func(t *testing.T, c *Client)) {
	t.Helper()
	cfg.Dir = tempdir.New(t)
	dir := ""
	if store {
		dir = tempdir.New(t)
	}
	synctest.Test(t, func(t *testing.T) {
		test(t, piped(t, cfg, func() *fakeAgent { return &fakeAgent{store: dir} }))
	})
}

func TestATurnEndsAsTheAgentSays(t *testing.T) {
	bubble(t, Config{}, false, func(t *testing.T, c *Client) {
		for reason, want := range map[string]bgagent.StopReason{
			"end_turn": bgagent.StopEndOfTurn, "max_tokens": bgagent.StopLength, "max_turn_requests": bgagent.StopTurnLimit,
			"refusal": bgagent.StopRefused, "cancelled": bgagent.StopAborted,
		} {
			e := prompt(t, c, create(t, c), "say half\nstop "+reason)
			require.NoError(t, e.err)
			require.Equal(t, bgagent.TurnEnd{Stop: want, Text: "half", Usage: bgagent.Usage{InputTokens: 10, OutputTokens: 5}}, e.TurnEnd)
		}
		e := prompt(t, c, create(t, c), "say half\nstop teatime")
		require.ErrorContains(t, e.err, `stop reason that is not in the protocol: "teatime"`)
		require.Equal(t, bgagent.StopError, e.Stop)

		id := create(t, c)
		e = prompt(t, c, id, "say half\nfail of the model")
		require.EqualError(t, e.err, `acp: the agent "fake" failed: Internal error: of the model (code -32603)`)
		require.Equal(t, bgagent.StopError, e.Stop)
		require.Equal(t, "half", e.Text)
		page, err := c.Messages(t.Context(), id, "", 0)
		require.NoError(t, err)
		require.Equal(t, e.err.Error(), page.Messages[1].Error)
		require.Equal(t, bgagent.StopError, page.Messages[1].Stop)
	})
}

func TestAnAgentThatSendsNothingIsStopped(t *testing.T) {
	bubble(t, Config{}, false, func(t *testing.T, c *Client) {
		begun := time.Now()
		id := create(t, c)
		e := prompt(t, c, id, "nap 1h")
		require.Equal(t, bgagent.StopError, e.Stop)
		require.EqualError(t, e.err, `acp: the agent "fake": it sent nothing for 10m0s (Config.Silence), so the turn was cancelled`)
		require.Equal(t, 10*time.Minute, time.Since(begun))
		require.Equal(t, "hello", prompt(t, c, id, "say hello").Text, "the session can be used again")

		for _, sign := range []string{"say half", "think hard", "cost 1", `update {"sessionUpdate":"new_in_2027"}`} {
			e = prompt(t, c, id, sign+"\nnap 1h\nsay done")
			require.NoError(t, e.err, sign)
			require.Equal(t, bgagent.StopEndOfTurn, e.Stop, sign)
		}
	})
	bubble(t, Config{Silence: time.Second}, false, func(t *testing.T, c *Client) {
		require.ErrorContains(t, prompt(t, c, create(t, c), "nap 1h").err, "it sent nothing for 1s")
		require.NoError(t, prompt(t, c, create(t, c), "nap 999ms\nsay done").err)
	})
}

func TestTheAgentsProgressIsReported(t *testing.T) {
	bubble(t, Config{}, false, func(t *testing.T, c *Client) {
		id := create(t, c)
		e := prompt(t, c, id, "think hard\nplan\nsay let me see\ntool grep\ncost 0.25\nsay found\nsay  it\ncost 1")
		require.NoError(t, e.err)
		require.Equal(t, "found it", e.Text)
		require.Equal(t, "hard", e.of(bgagent.ReportReasoning)[0].Text)
		require.Equal(t, []bgagent.Todo{{Text: "look", State: bgagent.TodoCompleted}, {Text: "write", State: bgagent.TodoInProgress}}, e.of(bgagent.ReportTodos)[0].Todos)
		var states []bgagent.ToolState
		for _, r := range e.of(bgagent.ReportTool) {
			require.Equal(t, "grep", r.Tool.Name)
			states = append(states, r.Tool.State)
		}
		require.Equal(t, []bgagent.ToolState{bgagent.ToolRunning, bgagent.ToolDone}, states)
		sum := e.Usage
		require.Equal(t, bgagent.Usage{InputTokens: 10, OutputTokens: 5, Cost: 0.75}, sum, "what comes with the end is part of the end")
		for _, r := range e.of(bgagent.ReportUsage) {
			sum.Cost += r.Usage.Cost
			sum.InputTokens += r.Usage.InputTokens
			sum.OutputTokens += r.Usage.OutputTokens
		}
		require.Equal(t, bgagent.Usage{InputTokens: 10, OutputTokens: 5, Cost: 1}, sum)

		page, err := c.Messages(t.Context(), id, "", 0)
		require.NoError(t, err)
		require.Len(t, page.Messages, 3)
		require.Equal(t, "let me see", page.Messages[1].Text)
		require.Equal(t, "hard", page.Messages[1].Reasoning)
		require.Len(t, page.Messages[1].Tools, 1)
		require.Equal(t, "found it", page.Messages[2].Text)
		// The agent reports the cost of the whole session. A cost that was reported before
		// must not be reported again.
		again := prompt(t, c, id, "cost 1\nfail")
		require.Empty(t, again.of(bgagent.ReportUsage))
		require.Zero(t, again.Usage)
	})
}

func TestMessagesOfATurnAreKeptApart(t *testing.T) {
	bubble(t, Config{}, false, func(t *testing.T, c *Client) {
		e := prompt(t, c, create(t, c), "message 1 one, \nmessage 1 still one\nmessage 2 two")
		require.Equal(t, "two", e.Text)
		require.Equal(t, "one,still one\n\ntwo", e.text())
	})
}

func TestAToolCallThatTheAgentForgetsEndsWithTheTurn(t *testing.T) {
	bubble(t, Config{}, false, func(t *testing.T, c *Client) {
		last := func(e ended) bgagent.ToolState {
			list := e.of(bgagent.ReportTool)
			return list[len(list)-1].Tool.State
		}
		require.Equal(t, bgagent.ToolDone, last(prompt(t, c, create(t, c), "half grep\nsay done")))
		id := create(t, c)
		l := run(t, c, id, bgagent.Prompt{Text: "half grep\nwait"})
		<-l.said
		require.NoError(t, c.Abort(t.Context(), id))
		require.Equal(t, bgagent.ToolFailed, last(l.wait()))
	})
}

func TestAnAbortedTurnIsOverWhenAbortReturns(t *testing.T) {
	bubble(t, Config{}, false, func(t *testing.T, c *Client) {
		id := create(t, c)
		l := run(t, c, id, bgagent.Prompt{Text: "wait"})
		<-l.said
		_, err := c.RunTurn(t.Context(), id, bgagent.Prompt{Text: "say me too"}, nil)
		require.ErrorIs(t, err, bgagent.ErrBusy)
		require.NoError(t, c.Abort(t.Context(), id))
		e := prompt(t, c, id, "say on we go")
		require.Equal(t, "on we go", e.Text, e.err)
		first := l.wait()
		require.NoError(t, first.err)
		require.Equal(t, bgagent.TurnEnd{Stop: bgagent.StopAborted, Text: "I wait"}, first.TurnEnd)
		require.NoError(t, c.Abort(t.Context(), id))
		require.NoError(t, c.Abort(t.Context(), "no such session"))
	})
}

func TestATurnWithAnEndedContextIsNotHandedOver(t *testing.T) {
	bubble(t, Config{}, false, func(t *testing.T, c *Client) {
		id := create(t, c)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		end, err := c.RunTurn(ctx, id, bgagent.Prompt{Text: "say no"}, nil)
		require.NoError(t, err)
		require.Equal(t, bgagent.StopAborted, end.Stop)
		page, err := c.Messages(t.Context(), id, "", 0)
		require.NoError(t, err)
		for _, m := range page.Messages {
			require.NotEqual(t, bgagent.RoleUser, m.Role)
		}
	})
}

func TestAnAgentThatDoesNotStopIsEndedWhenNobodyElseNeedsIt(t *testing.T) {
	bubble(t, Config{CancelGrace: 3 * time.Second}, true, func(t *testing.T, c *Client) {
		stuck, healthy := create(t, c), create(t, c)
		first := run(t, c, stuck, bgagent.Prompt{Text: "deaf"})
		second := run(t, c, healthy, bgagent.Prompt{Text: "nap 1m\nsay refreshed"})
		<-first.said
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		require.ErrorIs(t, c.Abort(ctx, stuck), context.DeadlineExceeded)

		// New turns run in another process. The turn of the session "healthy" continues in the old
		// process.
		other := create(t, c)
		require.Equal(t, "hello", prompt(t, c, other, "say hello").Text)
		require.Equal(t, 2, c.processes())
		e := second.wait()
		require.NoError(t, e.err)
		require.Equal(t, "refreshed", e.Text)
		require.Equal(t, time.Minute+lateSilence, time.Since(began))

		e = first.wait()
		require.NoError(t, e.err)
		require.Equal(t, bgagent.TurnEnd{Stop: bgagent.StopAborted, Text: "I do not listen"}, e.TurnEnd)
		require.Equal(t, time.Minute, time.Since(began).Truncate(time.Second))
		synctest.Wait()
		require.Equal(t, 1, c.processes())
		require.Contains(t, prompt(t, c, healthy, "recall").Text, "nap")
		require.Contains(t, prompt(t, c, stuck, "recall").Text, "deaf")
	})
}

func TestLateUpdatesOfARetiredProcessAreIgnored(t *testing.T) {
	bubble(t, Config{CancelGrace: 3 * time.Second, Files: FilesReadWrite}, true, func(t *testing.T, c *Client) {
		stuck, busy, moved := create(t, c), create(t, c), create(t, c)
		require.Equal(t, "first", prompt(t, c, moved, "say first\nlate 10s\nlatewrite 10s "+filepath.Join(c.cfg.Dir, "late")).Text)
		keeps := run(t, c, busy, bgagent.Prompt{Text: "nap 1m"})
		l := run(t, c, stuck, bgagent.Prompt{Text: "deaf"})
		<-l.said
		l.cancel()
		time.Sleep(5 * time.Second)
		require.Equal(t, "second", prompt(t, c, moved, "nap 20s\nsay second").text())
		require.NoFileExists(t, filepath.Join(c.cfg.Dir, "late"))
		require.Equal(t, 2, c.processes())
		require.NoError(t, keeps.wait().err)
		l.wait()
	})
}

func TestAnAgentThatDoesNotStopIsEndedAtOnceWhenItIsAlone(t *testing.T) {
	bubble(t, Config{CancelGrace: 3 * time.Second}, false, func(t *testing.T, c *Client) {
		id := create(t, c)
		l := run(t, c, id, bgagent.Prompt{Text: "deaf"})
		<-l.said
		began := time.Now()
		l.cancel()
		require.Equal(t, bgagent.StopAborted, l.wait().Stop)
		require.Equal(t, 3*time.Second, time.Since(began))
		e := prompt(t, c, id, "say hello")
		require.ErrorIs(t, e.err, bgagent.ErrNoSession)
		require.ErrorContains(t, e.err, "did not stop a turn within 3s of the request")
		require.ErrorContains(t, e.err, "cannot load sessions")
	})
}

func TestUpdatesAfterTheTurnAreNotReported(t *testing.T) {
	bubble(t, Config{Files: FilesReadWrite}, false, func(t *testing.T, c *Client) {
		id := create(t, c)
		e := prompt(t, c, id, "say done\nlate 1s\nlatewrite 1s "+filepath.Join(c.cfg.Dir, "late"))
		time.Sleep(2 * time.Second)
		require.Equal(t, "done", e.text())
		require.NoFileExists(t, filepath.Join(c.cfg.Dir, "late"))
		page, err := c.Messages(t.Context(), id, "", 0)
		require.NoError(t, err)
		require.Equal(t, "done", page.Messages[len(page.Messages)-1].Text)
	})
}

func TestCallsDuringAProcessEndGoToTheNextProcess(t *testing.T) {
	bubble(t, Config{}, true, func(t *testing.T, c *Client) {
		id := create(t, c)
		prompt(t, c, id, "say hello")
		for range 20 {
			c.anyProcess().end(nil)
			e := prompt(t, c, id, "recall")
			require.NoError(t, e.err)
			require.Equal(t, "say hello", e.Text)
			c.anyProcess().end(nil)
			create(t, c)
			require.Equal(t, 1, c.processes())
		}
	})
}

func TestALateReplayIsNoAnswer(t *testing.T) {
	dir := tempdir.New(t)
	synctest.Test(t, func(t *testing.T) {
		c := piped(t, Config{Dir: dir}, func() *fakeAgent { return &fakeAgent{store: dir, fault: "late replay"} })
		id := create(t, c)
		for _, word := range []string{"one", "two", "three"} {
			prompt(t, c, id, "say "+word)
		}
		p := c.anyProcess()
		p.end(nil)
		<-p.dead
		e := prompt(t, c, id, "nap 1s\nsay four")
		require.Equal(t, "four", e.Text)
		require.Equal(t, "four", e.text())
	})
}

func TestGeminiLoadsASessionAfterTheMinuteOfItsCreation(t *testing.T) {
	for name, waits := range map[string]bool{"gemini-cli": true, "opencode": false} {
		bubble(t, Config{}, true, func(t *testing.T, c *Client) {
			time.Sleep(20 * time.Second)
			id := create(t, c)
			prompt(t, c, id, "say hello")
			c.told.Store(&name)
			p := c.anyProcess()
			p.end(nil)
			<-p.dead
			began := time.Now()
			require.Equal(t, "say hello", prompt(t, c, id, "recall").Text)
			require.Equal(t, waits, time.Since(began) > 30*time.Second, name)
			require.Less(t, time.Since(began), time.Minute)
		})
	}
}

func TestASystemTextIsGivenOnce(t *testing.T) {
	bubble(t, Config{}, false, func(t *testing.T, c *Client) {
		id := create(t, c)
		ask := func(system string) {
			require.NoError(t, run(t, c, id, bgagent.Prompt{System: system, Text: "say hello"}).wait().err)
		}
		ask("say be brief")
		ask("say be brief")
		ask("say be kind")
		page, err := c.Messages(t.Context(), id, "", 0)
		require.NoError(t, err)
		var said []string
		for _, m := range page.Messages {
			if m.Role == bgagent.RoleAgent {
				said = append(said, m.Text)
			}
		}
		require.Equal(t, []string{"be briefhello", "hello", "be kindhello"}, said)
	})
}

func TestAPromptIsNeverACommandToTheAgent(t *testing.T) {
	for text, want := range map[string]bool{
		"/compact": true, "/src/main.go has a bug": true, " \n\t/help": true, "\u00a0\ufeff/help": true, "$help": true,
		"look at /src": false, "!ls": false, "# a title": false, "": false, " \n": false,
	} {
		require.Equal(t, want, isCommand(text), text)
	}
	bubble(t, Config{}, true, func(t *testing.T, c *Client) {
		told := func(p bgagent.Prompt) string { return run(t, c, create(t, c), p).wait().Text }
		require.Contains(t, told(bgagent.Prompt{Text: "/compact it\nrecall"}), "The task:\n\n/compact it")
		require.Contains(t, told(bgagent.Prompt{System: "/be brief", Text: "recall"}), "The task:\n\n/be brief")
		require.Equal(t, "recall", told(bgagent.Prompt{Text: "recall"}))
		require.Contains(t, told(bgagent.Prompt{Text: "/compact it\nblocks"}), "1", "the agent looks at the last block")
		require.Contains(t, told(bgagent.Prompt{System: "be brief", Text: "/compact it\nblocks"}), "1")
		require.NotContains(t, told(bgagent.Prompt{System: "be brief", Text: "/compact\nrecall"}), "The task")
	})
}

func TestAgentsAndModelsAreChosenByName(t *testing.T) {
	cfg := Config{Agents: map[string]Agent{"planner": {Mode: "plan", Description: "plans"}, "builder": {Model: "large"}}}
	bubble(t, cfg, true, func(t *testing.T, c *Client) {
		spec := bgagent.SessionSpec{Agent: "planner"}
		id, err := c.CreateSession(t.Context(), spec)
		require.NoError(t, err)
		as := func(agent, model, text string) ended {
			return run(t, c, id, bgagent.Prompt{Agent: agent, Model: model, Text: text}).wait()
		}
		require.Equal(t, "plan", as("planner", "", "mode").Text)
		require.Equal(t, "small", as("planner", "", "model").Text)
		require.Equal(t, "large", as("planner", "provider/large", "model").Text)
		require.Equal(t, "build", as("builder", "", "mode").Text)
		require.Equal(t, "large", as("builder", "", "model").Text)
		require.Equal(t, "small", as("planner", "", "model").Text)
		e := as("planner", "huge", "model")
		require.ErrorContains(t, e.err, `has no model "huge"; there are: small, large`)
		var no *bgagent.NoSuchAgentError
		require.ErrorAs(t, as("nobody", "", "mode").err, &no)
		require.Equal(t, []string{"builder", "planner"}, no.Known)
		spec.Model = "huge"
		_, err = c.CreateSession(t.Context(), spec)
		require.ErrorContains(t, err, `has no model "huge"`)
		var unknown *bgagent.ProviderError
		require.ErrorAs(t, err, &unknown)
		require.Equal(t, bgagent.ProviderUnknownModel, unknown.Kind)
		require.Equal(t, 1, c.known())
		list, err := c.Agents(t.Context())
		require.NoError(t, err)
		require.Equal(t, []bgagent.AgentInfo{{Name: "builder"}, {Name: "planner", Description: "plans"}}, list)

		p := c.anyProcess()
		p.end(nil) // the next process must get the same mode and model
		<-p.dead
		require.Equal(t, "plan", as("planner", "large", "mode").Text)
		require.Equal(t, "large", as("planner", "large", "model").Text)
	})
}

// anyProcess returns the current process.
func (c *Client) anyProcess() *process {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.proc[""]
}

func TestWithoutNamesEveryAgentIsTheSame(t *testing.T) {
	bubble(t, Config{Model: "large"}, false, func(t *testing.T, c *Client) {
		_, err := c.Agents(t.Context())
		require.ErrorIs(t, err, errors.ErrUnsupported)
		id, err := c.CreateSession(t.Context(), bgagent.SessionSpec{Agent: "whoever"})
		require.NoError(t, err)
		require.Equal(t, "large", prompt(t, c, id, "model").Text)
	})
}

func TestAnAgentSaysWhatItReports(t *testing.T) {
	for command, want := range map[string][2]bool{ // whether the cost and the tokens are reported
		"opencode acp":                           {true, false},
		"npx -y opencode-ai acp":                 {true, false},
		"gemini --acp":                           {false, true},
		"codex-acp":                              {false, true},
		"npx -y @zed-industries/codex-acp@2.6.0": {false, true},
		"claude-agent-acp":                       {true, true},
		"/opt/codex/bin/agent --model gpt-codex": {true, true},
	} {
		c, err := New(Config{Command: strings.Fields(command)})
		require.NoError(t, err)
		require.Equal(t, want, [2]bool{c.ReportsCost("any"), c.ReportsTokens("any")}, command)
	}
}
