package bgagent_test

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/inproc"
	"github.com/stretchr/testify/require"
)

// The function "says" returns an in-process client whose agent "worker" always gives the same answer.
func says(answer string) *inproc.Client {
	return inproc.New(map[string]inproc.Agent{"worker": func(context.Context, *inproc.Turn) (string, error) { return answer, nil }})
}

// A call that is refused or fails does not show the model that the task has ended, so the notice
// does not count as read.
func TestARefusedReadLeavesTheNoticeOwed(t *testing.T) {
	for name, x := range map[string]struct {
		client bgagent.SessionClient
		args   bgagent.BackgroundOutputArgs
	}{
		"a message that does not exist":   {says("x"), bgagent.BackgroundOutputArgs{SinceMessageID: "msg_99"}},
		"a client that shows no messages": {&goRunner{run: echo}, bgagent.BackgroundOutputArgs{FullSession: true}},
		"offset and from_end":             {says("x"), bgagent.BackgroundOutputArgs{Offset: 1, FromEnd: true}},
	} {
		t.Run(name, func(t *testing.T) {
			var box inbox
			bubble(t, x.client, bgagent.Config{Notify: box.notify}, func(t *testing.T, m *bgagent.BackgroundManager) {
				x.args.TaskID = launch(t, m, "now").ID
				synctest.Wait()
				r := output(t, m, x.args)
				require.True(t, r.IsError)
				require.NotNil(t, r.Notice, "every answer must deliver owed notices, even a refusal")
				require.Equal(t, bgagent.NoticeTaken, get(t, m, x.args.TaskID).Notice)
				require.Contains(t, r.Text, "completed")
			})
		})
	}
}

// Models copy ids together with the surrounding characters, and put their own marks around names.
func TestIDsAreFoundWithinMarks(t *testing.T) {
	bubble(t, says("x"), bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager) {
		task := launch(t, m, "now")
		synctest.Wait()
		for _, marks := range []string{"%s", " %s\r\n", "`%s`", "\"%s\"", "'%s'", "<%s>", "\u202e%s\u202c", "\ufeff`%s`\u200b", "\u00a0%s"} {
			r := output(t, m, bgagent.BackgroundOutputArgs{TaskID: fmt.Sprintf(marks, task.ID)})
			require.False(t, r.IsError, "%q: %s", marks, r.Text)
			require.Contains(t, r.Text, task.ID)
		}
		require.True(t, output(t, m, bgagent.BackgroundOutputArgs{TaskID: task.ID + "x"}).IsError)
		r := delegate(t, m, bgagent.DelegateTaskArgs{SubagentType: "\u200bworker\ufeff ", Prompt: "x"})
		require.False(t, r.IsError, r.Text)
		require.Equal(t, "worker", r.Task.Agent)
	})
}

func TestTheListCanBeReadToItsEnd(t *testing.T) {
	bubble(t, &goRunner{run: echo}, bgagent.Config{MaxTasksPerRoot: bgagent.Unlimited, Limits: bgagent.Limits{Default: bgagent.Unlimited}}, func(t *testing.T, m *bgagent.BackgroundManager) {
		var want []string
		for range 130 {
			want = append(want, launch(t, m, "now").ID)
		}
		live := launch(t, m, "a while").ID
		synctest.Wait()
		m.TakeNotice("root")
		row := regexp.MustCompile("(?m)^\\| `(bg_[0-9a-z]+)`")
		further := regexp.MustCompile(`background_output\(offset=(\d+)\)`)
		var got []string
		for offset := 0; ; {
			r := output(t, m, bgagent.BackgroundOutputArgs{Offset: offset})
			for _, x := range row.FindAllStringSubmatch(r.Text, -1) {
				got = append(got, x[1])
			}
			next := further.FindStringSubmatch(r.Text)
			if next == nil {
				break
			}
			offset, _ = strconv.Atoi(next[1])
			require.Equal(t, len(got), offset, "the pages must not have gaps")
		}
		require.Equal(t, live, got[0], "live tasks must come first")
		require.ElementsMatch(t, append(want, live), got)
		require.Contains(t, output(t, m, bgagent.BackgroundOutputArgs{Offset: 131}).Text, "There are no more")
	})
}

func TestNoAnswerNamesACallThatIsRefused(t *testing.T) {
	long := strings.Repeat("0123456789", 150_000)
	for name, client := range map[string]bgagent.SessionClient{
		"shows messages": says(long),
		"shows none": &goRunner{run: func(context.Context, string, bgagent.Prompt, *bgagent.Reporter) (bgagent.TurnEnd, error) {
			return bgagent.TurnEnd{Text: long}, nil
		}},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, client, bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager) {
				task := launch(t, m, "now")
				synctest.Wait()
				require.True(t, get(t, m, task.ID).Cut)
				r := output(t, m, bgagent.BackgroundOutputArgs{TaskID: task.ID})
				named := strings.Contains(r.Text, "full_session=true")
				r = output(t, m, bgagent.BackgroundOutputArgs{TaskID: task.ID, FullSession: true, FromEnd: true})
				require.Equal(t, named, !r.IsError, "%.200s", r.Text)
				if named {
					require.Contains(t, r.Text, `from its beginning: background_output(task_id="`+task.ID+`", full_session=true, since_message_id="msg_1", message_limit=1)`)
				}
			})
		})
	}
}

func TestAnOffsetInsideARuneSaysWhereItReallyBegan(t *testing.T) {
	bubble(t, says("é"+strings.Repeat("0123456789", 5_000)), bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager) {
		task := launch(t, m, "now")
		synctest.Wait()
		r := output(t, m, bgagent.BackgroundOutputArgs{TaskID: task.ID, Offset: 1})
		require.Contains(t, r.Text, "Result: bytes 2 to ")
		body := r.Text[strings.Index(r.Text, "---\n\n")+5:]
		require.Contains(t, r.Text, fmt.Sprintf("bytes 2 to %d of 50002", 2+len(body)))
	})
}

func TestWhatIsNoUseForARunningTaskIsSaid(t *testing.T) {
	bubble(t, &goRunner{run: echo}, bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager) {
		task := launch(t, m, "a while")
		synctest.Wait()
		require.Contains(t, output(t, m, bgagent.BackgroundOutputArgs{TaskID: task.ID, FromEnd: true}).Text, "offset and from_end were not used")
		require.NotContains(t, output(t, m, bgagent.BackgroundOutputArgs{TaskID: task.ID, MessageLimit: 500}).Text, "message_limit")
		ctx, cancel := context.WithTimeout(t.Context(), 1200*time.Millisecond)
		defer cancel()
		r, err := bgagent.BackgroundOutput(ctx, m, root, bgagent.BackgroundOutputArgs{TaskID: task.ID, Block: true})
		require.NoError(t, err)
		require.Contains(t, r.Text, "It did not end in the 1s that this call waited.", "the call must not wait for the default of one minute")
	})
}

func TestToolsHaveTheNamesOfTheConfiguration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := manage(t, &goRunner{run: echo}, bgagent.Config{ToolNames: map[string]string{
			bgagent.ToolDelegateTask: "task", bgagent.ToolBackgroundOutput: "task_read", bgagent.ToolBackgroundCancel: "",
		}})
		defs := bgagent.Tools(m, bgagent.ToolOptions{})
		require.Len(t, defs, 2)
		require.Equal(t, "task", defs[0].Name)
		require.Equal(t, "task_read", defs[1].Name)
		require.Equal(t, "run_task", bgagent.Tools(m, bgagent.ToolOptions{Names: map[string]string{bgagent.ToolDelegateTask: "run_task"}})[0].Name)
		launch(t, m, "now")
		synctest.Wait()
		require.Contains(t, output(t, m, bgagent.BackgroundOutputArgs{}).Text, `task_read(task_id="`)
	})
}

func TestAnAgentThatThereIsNotIsRefusedAtOnceWhereTheyAreKnown(t *testing.T) {
	bubble(t, &goRunner{run: echo}, bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager) {
		def := bgagent.Tools(m, bgagent.ToolOptions{Agents: []bgagent.AgentInfo{{Name: "worker"}, {Name: "oracle"}}})[0]
		var schema struct {
			Properties map[string]struct{ Enum []string }
		}
		require.NoError(t, json.Unmarshal(def.Schema, &schema))
		require.Equal(t, []string{"worker", "oracle"}, schema.Properties["subagent_type"].Enum)
		require.Nil(t, schema.Properties["model"].Enum)
		ctx := bgagent.WithCaller(t.Context(), root)
		r, err := def.Call(ctx, json.RawMessage(`{"prompt":"p","subagent_type":"wroker"}`))
		require.NoError(t, err)
		require.True(t, r.IsError)
		require.Equal(t, "There is no agent `wroker`. There are: worker, oracle. Nothing was launched.", r.Text)
		require.Empty(t, m.List(bgagent.Query{}))
		r, err = def.Call(ctx, json.RawMessage(`{"prompt":"now","subagent_type":"oracle"}`))
		require.NoError(t, err)
		require.False(t, r.IsError)
	})
}

func TestATaskIsNotContinuedTwiceByOneToolCall(t *testing.T) {
	bubble(t, working(time.Minute), bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager) {
		task := launch(t, m, "now")
		ended(t, m, task.ID)
		by := bgagent.Caller{Session: "root", ToolCallID: "call_7"}
		for range 3 {
			again, err := m.Resume(t.Context(), by, task.ID, bgagent.ResumeInput{Prompt: "now"})
			require.NoError(t, err)
			require.Equal(t, 2, again.Attempt)
			time.Sleep(time.Second)
		}
		done, err := m.RunResume(t.Context(), by, task.ID, bgagent.ResumeInput{Prompt: "now"})
		require.NoError(t, err)
		require.Equal(t, 2, done.Attempt)
		other, err := m.Resume(t.Context(), by, task.ID, bgagent.ResumeInput{Prompt: "fail"}) // the prompt differs, so this is a new call with a reused id, not a retry
		require.NoError(t, err)
		require.Equal(t, 3, other.Attempt)
		ended(t, m, task.ID)
		none, err := m.Resume(t.Context(), root, task.ID, bgagent.ResumeInput{Prompt: "fail"})
		require.NoError(t, err)
		require.Equal(t, 4, none.Attempt, "an empty id must not match")
	})
}

func TestWhatCannotBeSeenIsMissing(t *testing.T) {
	bubble(t, &goRunner{run: echo}, bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager) {
		for _, s := range []string{"\u200b", "\u200d \u200b", "\u2060\t"} {
			require.True(t, delegate(t, m, bgagent.DelegateTaskArgs{Prompt: s, SubagentType: "worker"}).IsError)
			require.True(t, delegate(t, m, bgagent.DelegateTaskArgs{Prompt: "p", SubagentType: s}).IsError)
			_, err := m.Launch(t.Context(), root, bgagent.LaunchInput{Agent: s, Prompt: "p"})
			require.ErrorAs(t, err, new(*bgagent.InputError))
			require.Equal(t, "now", delegate(t, m, bgagent.DelegateTaskArgs{Prompt: "now", SubagentType: "worker", Description: s}).Task.Description)
		}
	})
}

func TestALongIDThatIsShownCanBeAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &goRunner{run: echo}
		f.create = func(context.Context, bgagent.SessionSpec) (string, error) {
			return "/home/" + strings.Repeat("x", 400), nil
		}
		m := manage(t, f, bgagent.Config{})
		task := launch(t, m, "now")
		synctest.Wait()
		r := output(t, m, bgagent.BackgroundOutputArgs{TaskID: task.ID})
		id := regexp.MustCompile(`(?m)^Session ID: (.*)$`).FindStringSubmatch(r.Text)[1]
		require.False(t, delegate(t, m, bgagent.DelegateTaskArgs{SessionID: id, Prompt: "now"}).IsError)
	})
}

func TestAnAnswerReadsTheAttemptThatItShows(t *testing.T) {
	f := &readingRunner{goRunner: goRunner{run: works(time.Second)}}
	bubble(t, f, bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager) {
		id := launch(t, m, "a").ID
		ended(t, m, id)
		got := make(chan bgagent.BackgroundOutputResult, 1)
		go func() {
			r, _ := bgagent.BackgroundOutput(t.Context(), m, root, bgagent.BackgroundOutputArgs{TaskID: id, FullSession: true})
			got <- r
		}()
		synctest.Wait()
		_, err := m.Resume(t.Context(), bgagent.Caller{}, id, bgagent.ResumeInput{Prompt: "b"})
		require.NoError(t, err)
		r := <-got
		require.Equal(t, 1, r.Tasks[0].Attempt)
		// The answer shows attempt 1. The notice about attempt 2 is still owed, or is part of this
		// answer.
		require.True(t, r.Notice != nil || get(t, m, id).Notice == bgagent.NoticeOwed, "the notice is %s, but the answer does not contain it: %s", get(t, m, id).Notice, r.Text)
	})
}

// readingRunner is a runner whose messages can be read. A read takes 5 seconds and
// returns one message.
type readingRunner struct{ goRunner }

func (f *readingRunner) Messages(context.Context, string, bgagent.Cursor, int) (bgagent.Page, error) {
	time.Sleep(5 * time.Second)
	return bgagent.Page{Messages: []bgagent.Message{{ID: "m1", Role: bgagent.RoleAgent, Text: "answer to a", Finished: true}}, Next: "1"}, nil
}
