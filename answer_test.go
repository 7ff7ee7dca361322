package bgagent_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

// notSeen lists answers without visible characters.
var notSeen = []string{"", " \n\t", "\u200b", "\ufeff", "\u2060\u00ad", "\ufe0f", "\U000e0101", "\u3164", "\u115f\u1160", "\uffa0", "\u2800", "\u034f", "\x00\x07"}

func TestAnAttemptWithoutAnAnswerIsAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answer := ""
		f := &goRunner{}
		f.run = func(_ context.Context, _ string, p bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
			r.Reasoning("let me ")
			r.Reasoning("think")
			if p.Text == "reported" {
				r.Text(answer)
				return bgagent.TurnEnd{}, nil
			}
			return bgagent.TurnEnd{Stop: bgagent.StopEndOfTurn, Text: answer}, nil
		}
		m := manage(t, f, bgagent.Config{})
		s := newServer()
		sm := manage(t, s, bgagent.Config{})
		for _, answer = range notSeen {
			for _, prompt := range []string{"reported", "returned"} {
				requireNoAnswer(t, m, ended(t, m, launch(t, m, prompt).ID)[0], answer)
			}
			id := launch(t, sm, "p").ID
			synctest.Wait()
			session := get(t, sm, id).Session
			s.put(session, bgagent.Message{ID: "m" + id, Reasoning: "let me think", Text: answer, Finished: true, Stop: bgagent.StopEndOfTurn})
			s.set(session, bgagent.SessionIdle)
			requireNoAnswer(t, sm, ended(t, sm, id)[0], answer)
		}
	})
}

func requireNoAnswer(t *testing.T, m *bgagent.BackgroundManager, task bgagent.Task, answer string) {
	t.Helper()
	require.Equal(t, bgagent.CauseNoAnswer, task.Cause, "%q", answer)
	require.Equal(t, "let me think", task.Result, "%q", answer)
	require.True(t, task.Partial && task.Reasoning)
	r, err := bgagent.BackgroundOutput(t.Context(), m, root, bgagent.BackgroundOutputArgs{TaskID: task.ID})
	require.NoError(t, err)
	require.Contains(t, r.Text, "Partial text: 12 bytes of what the agent thought; it wrote no answer")
}

func TestToolCallsWithoutAWordComplete(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &goRunner{}
		f.run = func(_ context.Context, _ string, p bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
			r.Tool(bgagent.MessageTool{ID: "1", Name: "read", State: bgagent.ToolDone})
			r.Tool(bgagent.MessageTool{ID: "2", Name: "edit", State: bgagent.ToolDone})
			return bgagent.TurnEnd{Text: "\n"}, nil
		}
		m := manage(t, f, bgagent.Config{})
		task := ended(t, m, launch(t, m, "p").ID)[0]
		require.Equal(t, bgagent.Completed, task.Status)
		n, ok := m.TakeNotice("root")
		require.True(t, ok)
		require.True(t, n.Items[0].NoAnswer)
		require.Contains(t, n.Text, "| 0s (wrote no answer) |")
		r, err := bgagent.BackgroundOutput(t.Context(), m, root, bgagent.BackgroundOutputArgs{TaskID: task.ID})
		require.NoError(t, err)
		require.Contains(t, r.Text, "Result: (none: the agent wrote no answer; it made 2 tool calls, the last one `edit`)\nTo ask it for a report: delegate_task(session_id=\""+task.Session+"\", prompt=")
	})
}

func TestAnEmptyLaterTurnChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m *bgagent.BackgroundManager
		f := &goRunner{}
		f.run = func(ctx context.Context, s string, p bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
			switch {
			case p.Notice != nil:
				return bgagent.TurnEnd{Text: "\u200b"}, nil
			case p.Text == "parent":
				_, err := m.Launch(ctx, bgagent.Caller{Session: s}, bgagent.LaunchInput{Agent: "b", Prompt: "child"})
				return bgagent.TurnEnd{Text: "the report"}, err
			}
			return works(time.Minute)(ctx, s, p, r)
		}
		m = manage(t, f, bgagent.Config{MaxDepth: 2})
		task := ended(t, m, launch(t, m, "parent").ID)[0]
		require.Equal(t, bgagent.Completed, task.Status, task.Reason)
		require.Equal(t, "the report", task.Result)
		require.Equal(t, 2, task.Progress.Turns)
	})
}

func TestDefaultsFollowWhatTheUserSet(t *testing.T) {
	for name, cfg := range map[string]bgagent.Config{
		"a long poll interval":          {PollInterval: 6 * time.Minute},
		"a short HostUnreachable":       {HostUnreachable: time.Second},
		"a long minimum stability time": {MinStabilityTime: 40 * time.Minute},
		"a long hold of todos":          {TodoHold: 40 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newServer()
				if cfg.MinStabilityTime > 0 {
					f.statuses = untold
				}
				f.answers(20 * time.Second)
				m := manage(t, f, cfg)
				task := ended(t, m, launch(t, m, "p").ID)[0]
				require.Equal(t, bgagent.Completed, task.Status, task.Reason)
			})
		})
	}
}
