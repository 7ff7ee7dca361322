package bgagent_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

// The function "delegate" calls delegate_task as the root session and expects no Go error.
func delegate(t *testing.T, m *bgagent.BackgroundManager, a bgagent.DelegateTaskArgs) bgagent.DelegateTaskResult {
	t.Helper()
	r, err := bgagent.DelegateTask(t.Context(), m, root, a)
	require.NoError(t, err)
	return r
}

// The function "job" delegates a prompt to the worker, in the background.
func job(t *testing.T, m *bgagent.BackgroundManager, prompt string) bgagent.Task {
	t.Helper()
	r := delegate(t, m, bgagent.DelegateTaskArgs{Prompt: prompt, SubagentType: "worker"})
	require.False(t, r.IsError, r.Text)
	return *r.Task
}

func output(t *testing.T, m *bgagent.BackgroundManager, a bgagent.BackgroundOutputArgs) bgagent.BackgroundOutputResult {
	t.Helper()
	r, err := bgagent.BackgroundOutput(t.Context(), m, root, a)
	require.NoError(t, err)
	require.LessOrEqual(t, len(r.Text), 32<<10)
	return r
}

func cancelTool(t *testing.T, m *bgagent.BackgroundManager, a bgagent.BackgroundCancelArgs) bgagent.BackgroundCancelResult {
	t.Helper()
	r, err := bgagent.BackgroundCancel(t.Context(), m, root, a)
	require.NoError(t, err)
	return r
}

// oneSlot limits the manager to one slot.
var oneSlot = bgagent.Config{Limits: bgagent.Limits{Default: 1}}

// The function "echo" runs a turn. It answers the prompt "now" immediately, fails on the prompt
// "fail", and answers every other prompt after a minute.
func echo(ctx context.Context, session string, p bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
	switch p.Text {
	case "now":
		return bgagent.TurnEnd{Text: "here"}, nil
	case "fail":
		return bgagent.TurnEnd{}, errors.New("overloaded")
	}
	return works(time.Minute)(ctx, session, p, r)
}

func at(ms int64) *int64 { return &ms }

func no() *bool { return new(bool) }

func TestDelegateAnswersAtOnceWithAPendingTaskAndItsPlaceInLine(t *testing.T) {
	bubble(t, &goRunner{run: echo}, oneSlot, func(t *testing.T, m *bgagent.BackgroundManager) {
		job(t, m, "first")
		began := time.Now()
		r := delegate(t, m, bgagent.DelegateTaskArgs{Prompt: "second", Description: "Look\n| here", SubagentType: "worker"})
		require.Zero(t, time.Since(began))
		require.Equal(t, bgagent.Pending, r.Task.Status)
		require.True(t, strings.HasPrefix(r.Text, "Background task launched successfully.\n\nTask ID: "+r.Task.ID+"\nSession ID: (not started)\nDescription: Look | here\nAgent: worker\nStatus: pending\nPlace in line: 1 of 1 (pool agent worker: limit 1, 1 in use)\n"), r.Text)
		s := output(t, m, bgagent.BackgroundOutputArgs{TaskID: r.Task.ID})
		require.Contains(t, s.Text, "| Queued for | 0s |")
		require.NotContains(t, s.Text, "| Duration |")
	})
}

func TestForegroundAnswersWithTheResultAndOwesNoNotice(t *testing.T) {
	bubble(t, &goRunner{run: echo}, bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager) {
		r := delegate(t, m, bgagent.DelegateTaskArgs{Prompt: "work", SubagentType: "worker", Background: no()})
		require.True(t, strings.HasPrefix(r.Text, "Task Result\n"), r.Text)
		require.Contains(t, r.Text, "Duration: 1m 0s")
		require.True(t, strings.HasSuffix(r.Text, "---\n\nanswer to work"))
		r = delegate(t, m, bgagent.DelegateTaskArgs{Prompt: "fail", SubagentType: "worker", RunInBackground: no()})
		require.False(t, r.IsError, "the call itself was correct")
		require.True(t, strings.HasPrefix(r.Text, "Task Error\n"), r.Text)
		require.Contains(t, r.Text, "overloaded")
		r = delegate(t, m, bgagent.DelegateTaskArgs{Prompt: "now", TaskID: r.Task.ID, RunInBackground: no()})
		require.True(t, strings.HasPrefix(r.Text, "Task Result\n"), r.Text)
		require.Contains(t, r.Text, "Attempt: 2")
		_, err := m.NextNotice(t.Context(), "root")
		require.ErrorIs(t, err, bgagent.ErrNothingOwed)
	})
}

func TestForegroundGoesOnAfterADeadlineAndEndsWithACancellation(t *testing.T) {
	bubble(t, &goRunner{run: echo}, bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		r, err := bgagent.DelegateTask(ctx, m, root, bgagent.DelegateTaskArgs{Prompt: "work", SubagentType: "worker", RunInBackground: no()})
		require.NoError(t, err)
		require.True(t, strings.HasPrefix(r.Text, "The task goes on in the background.\n"), r.Text)
		require.Contains(t, r.Text, "notice comes by itself")
		require.Equal(t, bgagent.Completed, ended(t, m, r.Task.ID)[0].Status)
		require.Contains(t, output(t, m, bgagent.BackgroundOutputArgs{}).Notice.Text, r.Task.ID)

		ctx, stop := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, stop)
		r, err = bgagent.DelegateTask(ctx, m, root, bgagent.DelegateTaskArgs{Prompt: "work", SubagentType: "worker", RunInBackground: no()})
		require.ErrorIs(t, err, context.Canceled)
		synctest.Wait()
		require.Equal(t, bgagent.Cancelled, get(t, m, r.Task.ID).Status)
	})
}

// In this test, there is only one slot. The task that holds the slot calls delegate_task and
// background_output.
func TestWaitingInATaskDoesNotDeadlock(t *testing.T) {
	for _, foreground := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			var m *bgagent.BackgroundManager
			var text string
			c := oneSlot
			c.MaxDepth = 2
			f := &goRunner{run: func(ctx context.Context, session string, p bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
				switch {
				case p.Notice != nil:
					return bgagent.TurnEnd{Text: "told of " + p.Notice.Items[0].Task}, nil
				case p.Text != "outer":
					return echo(ctx, session, p, r)
				}
				me := bgagent.Caller{Session: session}
				a := bgagent.DelegateTaskArgs{Prompt: "inner", SubagentType: "worker"}
				if foreground {
					a.RunInBackground = no()
				}
				d, err := bgagent.DelegateTask(ctx, m, me, a)
				text = d.Text
				if err == nil && !foreground {
					var o bgagent.BackgroundOutputResult
					o, err = bgagent.BackgroundOutput(ctx, m, me, bgagent.BackgroundOutputArgs{TaskID: d.Task.ID, Block: true})
					text = o.Text
				}
				return bgagent.TurnEnd{Text: "not told"}, err
			}}
			m = manage(t, f, c)
			began := time.Now()
			outer := ended(t, m, job(t, m, "outer").ID)[0]
			require.Contains(t, text, "You are a task yourself")
			require.Equal(t, bgagent.Completed, outer.Status)
			require.Contains(t, outer.Result, "told of bg_")
			require.Less(t, time.Since(began), 70*time.Second)
		})
	}
}

func TestContinuingByTaskOrSession(t *testing.T) {
	bubble(t, &goRunner{run: echo}, bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager) {
		first := job(t, m, "now")
		synctest.Wait()
		first = get(t, m, first.ID)
		for i, a := range []bgagent.DelegateTaskArgs{{TaskID: first.ID}, {SessionID: first.Session}, {TaskID: first.ID, SessionID: first.Session}, {SessionID: "`" + first.Session + "` ", SubagentType: "oracle"}} {
			a.Prompt = "now"
			r := delegate(t, m, a)
			require.False(t, r.IsError, r.Text)
			require.Equal(t, first.ID, r.Task.ID)
			require.Equal(t, i+2, r.Task.Attempt)
			require.True(t, strings.HasPrefix(r.Text, "Background task continued successfully.\n"), r.Text)
			require.Equal(t, a.SubagentType != "", strings.Contains(r.Text, "keeps its agent"))
			synctest.Wait()
		}
		other := job(t, m, "work")
		synctest.Wait()
		for _, a := range []bgagent.DelegateTaskArgs{{TaskID: other.ID}, {SessionID: get(t, m, other.ID).Session}} {
			a.Prompt = "more"
			r := delegate(t, m, a)
			require.True(t, r.IsError)
			require.Contains(t, r.Text, "has not ended, so it cannot be continued yet. A notice comes when it ends")
		}
		r := delegate(t, m, bgagent.DelegateTaskArgs{TaskID: other.ID, SessionID: first.Session, Prompt: "more"})
		require.True(t, r.IsError)
		require.Contains(t, r.Text, "do not name the same task")
		require.Equal(t, 5, get(t, m, first.ID).Attempt)
	})
}

func TestWhatIsNotTheCallersDoesNotExistForIt(t *testing.T) {
	bubble(t, &goRunner{run: echo}, bgagent.Config{RetainTasks: 1}, func(t *testing.T, m *bgagent.BackgroundManager) {
		theirs := job(t, m, "now")
		live := job(t, m, "work")
		ghost := "bg_" + strings.Repeat("0", len(theirs.ID)-3)
		stranger := bgagent.Caller{Session: "stranger"}
		own, err := bgagent.DelegateTask(t.Context(), m, stranger, bgagent.DelegateTaskArgs{Prompt: "mine", SubagentType: "worker"})
		require.NoError(t, err)
		synctest.Wait()
		session := get(t, m, live.ID).Session
		ask := func(id string) (texts []string) {
			o, err := bgagent.BackgroundOutput(t.Context(), m, stranger, bgagent.BackgroundOutputArgs{TaskID: id})
			require.NoError(t, err)
			b, err := bgagent.BackgroundOutput(t.Context(), m, stranger, bgagent.BackgroundOutputArgs{TaskID: id, Block: true})
			require.NoError(t, err)
			c, err := bgagent.BackgroundCancel(t.Context(), m, stranger, bgagent.BackgroundCancelArgs{TaskID: id})
			require.NoError(t, err)
			d, err := bgagent.DelegateTask(t.Context(), m, stranger, bgagent.DelegateTaskArgs{TaskID: id, Prompt: "p"})
			require.NoError(t, err)
			require.True(t, o.IsError && b.IsError && c.IsError && d.IsError)
			require.Empty(t, o.Tasks)
			for _, s := range []string{o.Text, b.Text, c.Text, d.Text} {
				require.Contains(t, s, own.Task.ID, "the answer must list the tasks that exist")
				texts = append(texts, strings.ReplaceAll(s, id, "ID"))
			}
			return texts
		}
		want := ask(ghost)
		require.Equal(t, want, ask(live.ID))
		require.Equal(t, want, ask(theirs.ID))
		d, err := bgagent.DelegateTask(t.Context(), m, stranger, bgagent.DelegateTaskArgs{SessionID: session, Prompt: "p"})
		require.NoError(t, err)
		require.Equal(t, want[3], strings.ReplaceAll(d.Text, session, "ID"))
		_, err = bgagent.BackgroundCancel(t.Context(), m, stranger, bgagent.BackgroundCancelArgs{All: true})
		require.NoError(t, err)
		require.Equal(t, bgagent.Running, get(t, m, live.ID).Status)
	})
}

func TestBlockingWakesAtTheEndAndKeepsItsTime(t *testing.T) {
	bubble(t, working(20*time.Minute), bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager) {
		task := job(t, m, "work")
		for _, c := range []struct {
			timeout *int64
			waits   time.Duration
			says    string
		}{
			{at(0), 0, "It has not ended."}, {at(250), 250 * time.Millisecond, "did not end in the 250 ms"}, {at(1500), 1500 * time.Millisecond, "did not end in the 1s"}, {nil, time.Minute, "did not end in the 1m 0s"},
			{at(3_600_000), 10 * time.Minute, "timeout was cut to 600000 ms"},
		} {
			began := time.Now()
			r := output(t, m, bgagent.BackgroundOutputArgs{TaskID: task.ID, Block: true, Timeout: c.timeout})
			require.Equal(t, c.waits, time.Since(began))
			require.True(t, r.TimedOut)
			require.False(t, r.IsError)
			require.Contains(t, r.Text, c.says)
			require.True(t, strings.HasPrefix(r.Text, "## Task Status\n"))
		}
		began := time.Now()
		r := output(t, m, bgagent.BackgroundOutputArgs{TaskID: task.ID, Block: true, Timeout: at(600_000)})
		require.False(t, r.TimedOut)
		require.Equal(t, 20*time.Minute-11*time.Minute-1750*time.Millisecond, time.Since(began), "the call must return at the end of the task, not at a poll")
		require.Contains(t, r.Text, "answer to work")
	})
}

func TestTheCallersContextEndsAWaitAndNeverTheTask(t *testing.T) {
	bubble(t, &goRunner{run: echo}, bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager) {
		task := job(t, m, "work")
		launch(t, m, "now") // not launched with delegate_task, because the result of that tool could include the notice
		synctest.Wait()
		for _, a := range []bgagent.BackgroundOutputArgs{{TaskID: task.ID, Block: true}, {TaskID: task.ID, Block: true, FullSession: true}} {
			ctx, stop := context.WithCancel(t.Context())
			time.AfterFunc(time.Second, stop)
			_, err := bgagent.BackgroundOutput(ctx, m, root, a)
			require.ErrorIs(t, err, context.Canceled)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		r, err := bgagent.BackgroundOutput(ctx, m, root, bgagent.BackgroundOutputArgs{TaskID: task.ID, Block: true})
		require.NoError(t, err)
		require.True(t, r.TimedOut)
		require.Nil(t, r.Notice, "a caller that might have left must not get a notice")
		require.Equal(t, bgagent.Running, get(t, m, task.ID).Status)
		require.NotNil(t, output(t, m, bgagent.BackgroundOutputArgs{TaskID: task.ID}).Notice, "the notice must still be owed")
	})
}

func TestBlockingWithoutATaskWaitsForTheNextEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := manage(t, &goRunner{run: func(ctx context.Context, s string, p bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
			d, _ := time.ParseDuration(p.Text)
			return works(d)(ctx, s, p, r)
		}}, bgagent.Config{})
		next := func() (bgagent.BackgroundOutputResult, time.Duration) {
			began := time.Now()
			r := output(t, m, bgagent.BackgroundOutputArgs{Block: true})
			return r, time.Since(began)
		}
		r, d := next()
		require.Zero(t, d)
		require.Contains(t, r.Text, "You have no background tasks.")
		a, b, c := job(t, m, "10s"), job(t, m, "20s"), job(t, m, "5m")
		r, d = next()
		require.Equal(t, 10*time.Second, d)
		require.Equal(t, a.ID, r.Notice.Items[0].Task)
		require.Contains(t, r.Text, r.Notice.ID)
		time.Sleep(15 * time.Second)
		r, d = next()
		require.Zero(t, d, "an unreported end counts as the next end")
		require.Equal(t, b.ID, r.Notice.Items[0].Task)
		r, d = next()
		require.Equal(t, time.Minute, d)
		require.True(t, r.TimedOut)
		require.Contains(t, r.Text, "None of them ended in the 1m 0s")
		require.Len(t, r.Tasks, 3)
		require.Equal(t, c.ID, r.Tasks[0].ID, "live tasks must come first")
	})
}

func TestWhatIsOwedComesOnceWithTheNextAnswerWhateverItIs(t *testing.T) {
	calls := map[string]func(*testing.T, *bgagent.BackgroundManager) (string, *bgagent.Notice){
		"a launch": func(t *testing.T, m *bgagent.BackgroundManager) (string, *bgagent.Notice) {
			r := delegate(t, m, bgagent.DelegateTaskArgs{Prompt: "work", SubagentType: "worker"})
			return r.Text, r.Notice
		},
		"a refusal": func(t *testing.T, m *bgagent.BackgroundManager) (string, *bgagent.Notice) {
			r := cancelTool(t, m, bgagent.BackgroundCancelArgs{})
			return r.Text, r.Notice
		},
		"a list": func(t *testing.T, m *bgagent.BackgroundManager) (string, *bgagent.Notice) {
			r := output(t, m, bgagent.BackgroundOutputArgs{})
			return r.Text, r.Notice
		},
		"a cancellation": func(t *testing.T, m *bgagent.BackgroundManager) (string, *bgagent.Notice) {
			r := cancelTool(t, m, bgagent.BackgroundCancelArgs{All: true})
			return r.Text, r.Notice
		},
		"arguments that cannot be read": func(t *testing.T, m *bgagent.BackgroundManager) (string, *bgagent.Notice) {
			return callTool(t, m, "delegate_task", "{").Text, nil
		},
	}
	for name, call := range calls {
		bubble(t, &goRunner{run: echo}, bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager) {
			a, b := launch(t, m, "now"), launch(t, m, "fail") // not launched with delegate_task, because the results of that tool would include the notices
			launch(t, m, "work")
			time.Sleep(time.Second)
			text, n := call(t, m)
			for _, id := range []string{a.ID, b.ID} {
				require.Contains(t, text, id, name)
				require.Equal(t, bgagent.NoticeTaken, get(t, m, id).Notice)
			}
			require.Contains(t, text, "Notice ID: `bgn_", name)
			if n != nil {
				require.Contains(t, text, n.Text, name)
			}
			require.NotContains(t, output(t, m, bgagent.BackgroundOutputArgs{}).Text, "Notice ID:", "a notice must not be delivered twice")
		})
	}
}

func TestReadingTwiceGivesTheResultTwiceAndSettlesTheNotice(t *testing.T) {
	box := &inbox{}
	bubble(t, &goRunner{run: echo}, bgagent.Config{Notify: box.notify}, func(t *testing.T, m *bgagent.BackgroundManager) {
		task := job(t, m, "now")
		synctest.Wait()
		one := output(t, m, bgagent.BackgroundOutputArgs{TaskID: task.ID})
		require.Equal(t, one.Text, output(t, m, bgagent.BackgroundOutputArgs{TaskID: task.ID}).Text)
		require.True(t, strings.HasSuffix(one.Text, "---\n\nhere"))
		require.Nil(t, one.Notice)
		time.Sleep(time.Hour / 3)
		require.Empty(t, box.all(), "a parent that has read the result needs no notice")
	})
}

func TestALongResultAndWhatIsOwedFitTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := manage(t, &goRunner{run: func(ctx context.Context, s string, p bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
			return bgagent.TurnEnd{Text: strings.Repeat("ä", 100_000)}, nil
		}}, bgagent.Config{Limits: bgagent.Limits{Default: bgagent.Unlimited}, MaxTasksPerRoot: bgagent.Unlimited})
		var ids []string
		for range 300 {
			ids = append(ids, launch(t, m, strings.Repeat("|", 150)).ID)
		}
		ended(t, m, ids...)
		r := output(t, m, bgagent.BackgroundOutputArgs{TaskID: ids[0]})
		require.Len(t, r.Notice.Items, 299)
		require.Contains(t, r.Text, r.Notice.Text)
		for _, id := range ids {
			require.Contains(t, r.Text, id, "every end must be named")
		}
		require.Contains(t, r.Text, "of 200000\nTo read on: background_output(task_id=")
	})
}

// The variable "unwoken" holds the options for callers that are never woken.
var unwoken = bgagent.ToolOptions{NoNotices: true}

func TestWhoCannotBeWokenWaitsForLessThanHostsGiveACall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := manage(t, &goRunner{run: works(time.Hour)}, bgagent.Config{})
		r, err := unwoken.DelegateTask(t.Context(), m, root, bgagent.DelegateTaskArgs{Prompt: "p", SubagentType: "worker"})
		require.NoError(t, err)
		require.NotContains(t, r.Text, "end your turn")
		require.Contains(t, r.Text, `background_output(task_id="`+r.Task.ID+`", block=true)`)
		for _, c := range []struct {
			o    bgagent.ToolOptions
			a    bgagent.BackgroundOutputArgs
			want time.Duration
		}{
			{unwoken, bgagent.BackgroundOutputArgs{TaskID: r.Task.ID, Block: true}, 50 * time.Second},
			{unwoken, bgagent.BackgroundOutputArgs{Block: true}, 50 * time.Second},
			{unwoken, bgagent.BackgroundOutputArgs{Block: true, Timeout: at(55_000)}, 55 * time.Second},
			{unwoken, bgagent.BackgroundOutputArgs{Block: true, Timeout: at(700_000)}, 10 * time.Minute},
			{bgagent.ToolOptions{}, bgagent.BackgroundOutputArgs{Block: true}, time.Minute},
		} {
			began := time.Now()
			out, err := c.o.BackgroundOutput(t.Context(), m, root, c.a)
			require.NoError(t, err)
			require.True(t, out.TimedOut)
			require.Equal(t, c.want, time.Since(began))
			require.Equal(t, c.o.NoNotices, !strings.Contains(out.Text, "end your turn"))
		}
	})
}

func TestSchemasNameTheWaitOfTheirCallers(t *testing.T) {
	m := manage(t, &goRunner{run: works(0)}, bgagent.Config{})
	require.Contains(t, string(bgagent.Tools(m, bgagent.ToolOptions{})[1].Schema), "Default 60000, at most 600000")
	require.Contains(t, string(bgagent.Tools(m, unwoken)[1].Schema), "Default 50000, at most 600000")
}

func TestATaskIsWokenWhoeverCannotBe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var text string
		f := &goRunner{}
		m := manage(t, f, bgagent.Config{MaxDepth: 2})
		f.run = func(ctx context.Context, session string, p bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
			if p.Text == "delegate" {
				out, err := unwoken.DelegateTask(ctx, m, bgagent.Caller{Session: session}, bgagent.DelegateTaskArgs{Prompt: "now", SubagentType: "worker"})
				text = out.Text
				return bgagent.TurnEnd{Text: "launched"}, err
			}
			return bgagent.TurnEnd{Text: "here"}, nil
		}
		id := launch(t, m, "delegate").ID
		ended(t, m, id)
		require.Contains(t, text, "A notice comes by itself", "a task gets its notices with its next turn")
	})
}

func TestOptionsRenameTheToolsOfTypedCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := manage(t, &goRunner{run: works(time.Hour)}, bgagent.Config{})
		o := bgagent.ToolOptions{NoNotices: true, Names: map[string]string{bgagent.ToolBackgroundOutput: "fetch"}, Agents: []bgagent.AgentInfo{{Name: "worker"}}}
		r, err := o.DelegateTask(t.Context(), m, root, bgagent.DelegateTaskArgs{Prompt: "p", SubagentType: "worker"})
		require.NoError(t, err)
		require.Contains(t, r.Text, `fetch(task_id="`+r.Task.ID+`", block=true)`)
		r, err = o.DelegateTask(t.Context(), m, root, bgagent.DelegateTaskArgs{Prompt: "p", SubagentType: "nobody"})
		require.NoError(t, err)
		require.True(t, r.IsError)
		all, err := o.BackgroundCancel(t.Context(), m, root, bgagent.BackgroundCancelArgs{All: true})
		require.NoError(t, err)
		require.Len(t, all.Cancelled, 1)
		require.Panics(t, func() {
			_, _ = bgagent.ToolOptions{Omit: []string{"nothing"}}.BackgroundCancel(t.Context(), m, root, bgagent.BackgroundCancelArgs{All: true})
		})
	})
}
