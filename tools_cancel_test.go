package bgagent_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

func TestCancelShowsTheStateBeforeIt(t *testing.T) {
	bubble(t, &goRunner{run: echo}, oneSlot, func(t *testing.T, m *bgagent.BackgroundManager) {
		a, b := job(t, m, "work"), job(t, m, "more")
		synctest.Wait()
		session := get(t, m, a.ID).Session
		r := cancelTool(t, m, bgagent.BackgroundCancelArgs{All: true})
		require.False(t, r.IsError)
		require.Equal(t, `Cancelled 2 background task(s):

| Task ID | Description | Status | Session ID |
| --- | --- | --- | --- |
| `+"`"+a.ID+"` | work | running | `"+session+"` |\n| `"+b.ID+"` | more | pending | (not started) |"+`

## Continue Instructions

To continue a cancelled task, use:

    delegate_task(session_id="<session_id>", prompt="Continue: <your follow-up>")

Continuable sessions:
- `+"`"+session+"` (work)", r.Text)
		require.Equal(t, []bgagent.Status{bgagent.Running, bgagent.Pending}, statuses(r.Cancelled))
		require.Equal(t, bgagent.NoticeWaived, get(t, m, a.ID).Notice, "a parent that cancels a task needs no notice")
		r = cancelTool(t, m, bgagent.BackgroundCancelArgs{All: true})
		require.False(t, r.IsError)
		require.Contains(t, r.Text, "none of yours was pending or running")
		d := delegate(t, m, bgagent.DelegateTaskArgs{SessionID: session, Prompt: "Continue: now"})
		require.False(t, d.IsError, d.Text)
	})
}

func TestCancellingWhatHasEndedChangesNothing(t *testing.T) {
	bubble(t, &goRunner{run: echo}, bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager) {
		for prompt, state := range map[string]string{"now": "completed", "fail": "error", "work": "cancelled"} {
			task := job(t, m, prompt)
			if prompt == "work" {
				require.False(t, cancelTool(t, m, bgagent.BackgroundCancelArgs{TaskIDAlias: task.ID}).IsError)
			}
			synctest.Wait()
			was := get(t, m, task.ID)
			r := cancelTool(t, m, bgagent.BackgroundCancelArgs{TaskID: task.ID, TaskIDAlias: task.ID})
			require.True(t, r.IsError)
			require.Contains(t, r.Text, "its status is "+state+" already. Nothing was changed.")
			require.Empty(t, r.Cancelled)
			was.Notice = get(t, m, task.ID).Notice // the tool result has delivered the notice
			require.Equal(t, was, get(t, m, task.ID))
		}
	})
}

func TestRefusalsOfTheManagerBecomeSentences(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m *bgagent.BackgroundManager
		var inner bgagent.DelegateTaskResult
		f := &goRunner{run: func(ctx context.Context, session string, p bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
			var err error
			if p.Text == "delegate" {
				inner, err = bgagent.DelegateTask(ctx, m, bgagent.Caller{Session: session}, bgagent.DelegateTaskArgs{Prompt: "now", SubagentType: "worker"})
				return bgagent.TurnEnd{Text: "x"}, err
			}
			return echo(ctx, session, p, r)
		}}
		m = manage(t, f, bgagent.Config{MaxTasksPerRoot: 2, Model: func(agent, asked string) (string, error) {
			if asked == "nope" {
				return "", fmt.Errorf("there is no model\n%s", asked)
			}
			return asked, nil
		}})
		refused := func(a bgagent.DelegateTaskArgs, want string) {
			t.Helper()
			if a.Prompt == "" {
				a.Prompt = "work"
			}
			if a.TaskID == "" {
				a.SubagentType = "worker"
			}
			r := delegate(t, m, a)
			require.True(t, r.IsError, r.Text)
			require.Contains(t, r.Text, want)
			require.Nil(t, r.Task)
		}
		job(t, m, "delegate")
		synctest.Wait()
		require.True(t, inner.IsError)
		require.Contains(t, inner.Text, "Do this work yourself.")
		refused(bgagent.DelegateTaskArgs{Model: "nope"}, "there is no model nope")
		gone := job(t, m, "now")
		synctest.Wait()
		m.SessionDeleted(get(t, m, gone.ID).Session)
		refused(bgagent.DelegateTaskArgs{TaskID: gone.ID}, "its session was deleted. Launch another")
		job(t, m, "work")
		job(t, m, "work")
		refused(bgagent.DelegateTaskArgs{}, "No more tasks can be launched now")
		m.SessionDeleted("root")
		refused(bgagent.DelegateTaskArgs{}, "nothing can be launched from it any more")
		require.NoError(t, m.Close(t.Context()))
		refused(bgagent.DelegateTaskArgs{}, "shutting down")
		require.Contains(t, output(t, m, bgagent.BackgroundOutputArgs{TaskID: gone.ID}).Text, "here", "the kept part can be read to its end")
	})
}

func TestAnExpiredTaskIsNotUnknown(t *testing.T) {
	bubble(t, &goRunner{run: echo}, bgagent.Config{Retention: time.Minute}, func(t *testing.T, m *bgagent.BackgroundManager) {
		task := job(t, m, "now")
		synctest.Wait()
		session := get(t, m, task.ID).Session
		output(t, m, bgagent.BackgroundOutputArgs{TaskID: task.ID})
		time.Sleep(time.Hour)
		r := output(t, m, bgagent.BackgroundOutputArgs{TaskID: task.ID})
		require.True(t, r.IsError)
		require.Contains(t, r.Text, "has expired: its status was completed")
		require.Contains(t, r.Text, `delegate_task(session_id="`+session+`"`)
		for _, a := range []bgagent.DelegateTaskArgs{{SessionID: session}, {SessionID: session, TaskID: task.ID}} {
			a.Prompt = "now"
			d := delegate(t, m, a)
			require.False(t, d.IsError, d.Text)
			synctest.Wait()
		}
	})
}

// The tools act only on behalf of a session. Otherwise, a call for which the host forgot to set the
// caller would have the host's rights. A host that acts on its own behalf uses the manager's
// methods.
func TestATypedToolNeedsACallerWithASession(t *testing.T) {
	bubble(t, &goRunner{run: echo}, bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager) {
		task := job(t, m, "work")
		for _, by := range []bgagent.Caller{{}, {ToolCallID: "call_1"}} {
			_, err := bgagent.DelegateTask(t.Context(), m, by, bgagent.DelegateTaskArgs{Prompt: "p", SubagentType: "worker"})
			require.ErrorContains(t, err, "bgagent: delegate_task: Caller.Session: is missing")
			_, err = bgagent.BackgroundOutput(t.Context(), m, by, bgagent.BackgroundOutputArgs{TaskID: task.ID})
			require.ErrorAs(t, err, new(*bgagent.InputError))
			_, err = bgagent.BackgroundCancel(t.Context(), m, by, bgagent.BackgroundCancelArgs{All: true})
			require.ErrorAs(t, err, new(*bgagent.InputError))
		}
		require.Len(t, m.List(bgagent.Query{}), 1)
		require.False(t, get(t, m, task.ID).Status.Terminal(), "the call must not cancel the task")
	})
}

func TestToolsWithOtherNames(t *testing.T) {
	bubble(t, &goRunner{run: echo}, bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager) {
		defs := bgagent.Tools(m, bgagent.ToolOptions{
			Names: map[string]string{bgagent.ToolDelegateTask: "spawn", bgagent.ToolBackgroundOutput: "fetch"}, Omit: []string{bgagent.ToolBackgroundCancel},
			Agents: []bgagent.AgentInfo{{Name: "worker", Description: "works"}},
		})
		require.Len(t, defs, 2)
		require.Equal(t, "spawn", defs[0].Name)
		require.Contains(t, defs[0].Description, "- worker: works")
		ctx := bgagent.WithCaller(t.Context(), root)
		var all strings.Builder
		call := func(i int, args string, with ...any) bgagent.ToolResult {
			r, err := defs[i].Call(ctx, json.RawMessage(fmt.Sprintf(args, with...)))
			require.NoError(t, err)
			all.WriteString(r.Text)
			return r
		}
		call(1, `{}`)
		failed := call(0, `{"prompt":"fail","subagent_type":"worker"}`).Value.(bgagent.DelegateTaskResult)
		task, n := failed.Task, failed.Notice
		synctest.Wait()
		if n == nil { // the task ended after the first answer, so the notice comes with the next answer
			n = call(1, `{}`).Value.(bgagent.BackgroundOutputResult).Notice
		}
		require.Contains(t, n.Text, "fetch(task_id=")
		require.Contains(t, call(1, `{"task_id":%q}`, task.ID).Text, "spawn(session_id=")
		live := call(0, `{"prompt":"work","subagent_type":"worker"}`).Value.(bgagent.DelegateTaskResult).Task
		call(0, `{"prompt":"more","task_id":%q}`, live.ID)
		for _, d := range defs {
			all.WriteString(d.Description + string(d.Schema))
		}
		for _, name := range []string{"delegate_task", "background_output", "background_cancel"} {
			require.NotContains(t, all.String(), name)
		}
	})
}

func TestToolsPanicsOnOptionsThatCannotBeMeant(t *testing.T) {
	m := manage(t, working(0), bgagent.Config{})
	for want, o := range map[string]bgagent.ToolOptions{
		`renames "delegate"`:              {Names: map[string]string{"delegate": "x"}},
		`leaves out "x"`:                  {Omit: []string{"x"}},
		`calls delegate_task ""`:          {Names: map[string]string{"delegate_task": ""}},
		`calls delegate_task "a b"`:       {Names: map[string]string{"delegate_task": "a b"}},
		"two tools have the name":         {Names: map[string]string{"delegate_task": "background_cancel"}},
		`calls background_output "` + "é": {Names: map[string]string{"background_output": "é"}},
	} {
		func() {
			defer func() {
				require.Contains(t, fmt.Sprint(recover()), want)
			}()
			bgagent.Tools(m, o)
		}()
	}
	require.Panics(t, func() { bgagent.Tools(nil, bgagent.ToolOptions{}) })
}
