package bgagent_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

// otherProcess is another process, named m2, with tasks of the session "root". It must be used in a
// synctest bubble.
type otherProcess struct {
	bgagent.Elsewhere // nil, so the methods that are not defined below panic
	tasks             []bgagent.TaskElsewhere
	err               error         // error from Tasks
	reads             int           // number of calls to Read
	endsAt            time.Time     // when the first task ends; zero means never
	answered          string        // the option that answered the question
	quick             time.Duration // if it is not zero, Read waits no longer than this
}

const (
	liveThere  = "bg_1111111111111111"
	endedThere = "bg_2222222222222222"
)

func elsewhere() *otherProcess {
	live := bgagent.Task{ID: liveThere, Parent: "root", Root: "root", Agent: "far", Description: "over there", Status: bgagent.Running, Attempt: 1, Prompt: "do it", Started: time.Now(), Queued: time.Now()}
	ended := live
	ended.ID, ended.Status, ended.Cause, ended.Result, ended.Ended = endedThere, bgagent.Completed, bgagent.CauseIdle, "found far away", time.Now()
	return &otherProcess{tasks: []bgagent.TaskElsewhere{{Task: live, Process: "m2"}, {Task: ended, Process: "m2"}}}
}

func (o *otherProcess) now() []bgagent.TaskElsewhere {
	if t := &o.tasks[0].Task; !o.endsAt.IsZero() && !time.Now().Before(o.endsAt) {
		t.Status, t.Cause, t.Result, t.Ended = bgagent.Completed, bgagent.CauseIdle, "done far away", o.endsAt
	}
	return o.tasks
}

func (o *otherProcess) Tasks(_ context.Context, by bgagent.Caller, ended int) (out []bgagent.TaskElsewhere, err error) {
	for _, x := range o.now() {
		if x.Task.Root == by.Session && (ended > 0 || !x.Task.Status.Terminal()) {
			out = append(out, x)
		}
	}
	return out, o.err
}

func (o *otherProcess) Read(ctx context.Context, by bgagent.Caller, id string, wait time.Duration) (bgagent.TaskElsewhere, error) {
	o.reads++
	if o.quick > 0 {
		wait = min(wait, o.quick)
	}
	if left := time.Until(o.endsAt); !o.endsAt.IsZero() && wait > left {
		wait = left
	}
	select {
	case <-time.After(wait):
	case <-ctx.Done():
		return bgagent.TaskElsewhere{}, ctx.Err()
	}
	for _, x := range o.now() {
		if x.Task.ID == id && x.Task.Root == by.Session {
			return x, nil
		}
	}
	return bgagent.TaskElsewhere{}, bgagent.ErrUnknownTask
}

func (o *otherProcess) Cancel(ctx context.Context, by bgagent.Caller, id string) (bgagent.Task, error) {
	x, err := o.Read(ctx, by, id, 0)
	switch {
	case err != nil:
		return bgagent.Task{}, err
	case o.err != nil:
		return bgagent.Task{}, o.err
	case x.Task.Status.Terminal():
		return x.Task, bgagent.ErrAlreadyEnded
	}
	o.tasks[0].Task.Status = bgagent.Cancelled
	return x.Task, nil
}

func (o *otherProcess) Answer(_ context.Context, _ bgagent.Caller, _ string, in bgagent.AnswerInput) (bgagent.Question, error) {
	if in.Key != "branch" {
		return bgagent.Question{}, bgagent.ErrNoQuestion
	}
	o.answered = in.Option
	return bgagent.Question{Key: in.Key, Title: "Which branch?", State: bgagent.QuestionAnswered, Answer: in.Option}, o.err
}

// withElsewhere runs a test whose tools have access to another process.
func withElsewhere(t *testing.T, test func(t *testing.T, m *bgagent.BackgroundManager, o *otherProcess, tools bgagent.ToolOptions)) {
	bubble(t, working(time.Minute), bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager) {
		o := elsewhere()
		test(t, m, o, bgagent.ToolOptions{NoNotices: true, Elsewhere: o})
	})
}

func milliseconds(n int64) *int64 { return &n }

func TestATaskOfAnotherProcessIsRead(t *testing.T) {
	withElsewhere(t, func(t *testing.T, m *bgagent.BackgroundManager, o *otherProcess, tools bgagent.ToolOptions) {
		read := func(by bgagent.Caller, a bgagent.BackgroundOutputArgs) bgagent.BackgroundOutputResult {
			r, err := tools.BackgroundOutput(t.Context(), m, by, a)
			require.NoError(t, err)
			return r
		}
		r := read(root, bgagent.BackgroundOutputArgs{TaskID: "`" + endedThere + "`"})
		require.False(t, r.IsError, r.Text)
		require.Contains(t, r.Text, "Task Result\n\nTask ID: "+endedThere+"\nDescription: over there\n")
		require.Contains(t, r.Text, "\nNote: This task belongs to the process `m2`.\n")
		require.Contains(t, r.Text, "---\n\nfound far away")
		require.Equal(t, endedThere, r.Tasks[0].ID)
		r = read(root, bgagent.BackgroundOutputArgs{TaskID: liveThere})
		require.Contains(t, r.Text, "## Task Status\n\n| Field | Value |\n")
		require.Contains(t, r.Text, "| Status | **running** |")
		require.Contains(t, r.Text, "> This task belongs to the process `m2`.\n")

		o.tasks[0].Stored = "is not running"
		r = read(root, bgagent.BackgroundOutputArgs{TaskID: liveThere, Block: true})
		require.Contains(t, r.Text, "> This task belongs to the process `m2`, which is not running. You see the state that was stored last.\n")
		require.False(t, r.TimedOut, "there is nobody to wait for")

		r = read(root, bgagent.BackgroundOutputArgs{TaskID: endedThere, FullSession: true})
		require.True(t, r.IsError)
		require.Contains(t, r.Text, "belongs to the process `m2`. From here, it can only be read and cancelled")

		here := bgagent.BackgroundOutputArgs{TaskID: endedThere}
		require.Equal(t, "None of your tasks has the id `"+endedThere+"`.\nYou have no tasks.", read(bgagent.Caller{Session: "another"}, here).Text)
		local := launch(t, m, "now")
		here.TaskID, o.reads = local.ID, 0
		require.Contains(t, read(root, here).Text, local.ID)
		require.Zero(t, o.reads, "an own task needs no other process")
		require.Contains(t, read(bgagent.Caller{Session: "another"}, here).Text, "None of your tasks has the id")
		require.Equal(t, 1, o.reads, "a task of another caller takes as long as one that does not exist")
	})
}

func TestACallWaitsForATaskOfAnotherProcess(t *testing.T) {
	withElsewhere(t, func(t *testing.T, m *bgagent.BackgroundManager, o *otherProcess, tools bgagent.ToolOptions) {
		began := time.Now()
		r, err := tools.BackgroundOutput(t.Context(), m, root, bgagent.BackgroundOutputArgs{TaskID: liveThere, Block: true, Timeout: milliseconds(12_000)})
		require.NoError(t, err)
		require.True(t, r.TimedOut)
		require.Contains(t, r.Text, "It did not end in the 12s that this call waited.")
		require.Equal(t, 12*time.Second, time.Since(began))

		o.reads, o.quick = 0, time.Millisecond // the other process does not wait for the end of the task
		_, err = tools.BackgroundOutput(t.Context(), m, root, bgagent.BackgroundOutputArgs{TaskID: liveThere, Block: true, Timeout: milliseconds(10_000)})
		require.NoError(t, err)
		require.Less(t, o.reads, 50, "it is not asked all the time")

		began, o.quick = time.Now(), 0
		o.endsAt = began.Add(7 * time.Second)
		r, err = tools.BackgroundOutput(t.Context(), m, root, bgagent.BackgroundOutputArgs{TaskID: liveThere, Block: true})
		require.NoError(t, err)
		require.False(t, r.TimedOut)
		require.Contains(t, r.Text, "done far away")
		require.Equal(t, 7*time.Second, time.Since(began))

		o.endsAt = time.Time{}
		o.tasks[0].Task.Status = bgagent.Running
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		r, err = tools.BackgroundOutput(ctx, m, root, bgagent.BackgroundOutputArgs{TaskID: liveThere, Block: true})
		require.NoError(t, err)
		require.True(t, r.TimedOut, "the deadline of the call is the end of the wait")

		o.tasks[0].Task.Questions = []bgagent.Question{{Key: "branch", Kind: bgagent.QuestionChoice, Title: "Which branch?", Options: []string{"main"}}}
		tools.With = []string{bgagent.ToolBackgroundMessage}
		began = time.Now()
		r, err = tools.BackgroundOutput(t.Context(), m, root, bgagent.BackgroundOutputArgs{TaskID: liveThere, Block: true})
		require.NoError(t, err)
		require.Contains(t, r.Text, "This call does not wait any longer")
		require.Zero(t, time.Since(began))
	})
}

func TestTheListContainsTheTasksOfOtherProcesses(t *testing.T) {
	withElsewhere(t, func(t *testing.T, m *bgagent.BackgroundManager, o *otherProcess, tools bgagent.ToolOptions) {
		local := launch(t, m, "now")
		ended(t, m, local.ID)
		list := func(a bgagent.BackgroundOutputArgs) bgagent.BackgroundOutputResult {
			r, err := tools.BackgroundOutput(t.Context(), m, root, a)
			require.NoError(t, err)
			require.False(t, r.IsError, r.Text)
			return r
		}
		o.tasks = append(o.tasks, bgagent.TaskElsewhere{Task: get(t, m, local.ID), Process: "m3"}) // the task also exists in this process
		r := list(bgagent.BackgroundOutputArgs{})
		require.Len(t, r.Tasks, 3)
		require.Equal(t, liveThere, r.Tasks[0].ID, "live ones come first")
		require.Contains(t, r.Text, "## Background Tasks\n\nTasks in this list that belong to the process `m2`: 2.\n\n1 live, 2 ended.\n")
		require.NotContains(t, r.Text, "`m3`")

		o.tasks[0].Stored = "does not answer"
		o.err = errors.New("the process m4\n## does not answer")
		r = list(bgagent.BackgroundOutputArgs{})
		require.Contains(t, r.Text, "Tasks of other processes can be missing here: the process m4 ## does not answer.\n")
		require.Contains(t, r.Text, "Tasks in this list that belong to the process `m2`, which does not answer: 1. You see the state that was stored last.\n")
		o.tasks[0].Stored, o.err = "", nil

		began := time.Now()
		r = list(bgagent.BackgroundOutputArgs{Block: true, Timeout: milliseconds(5000)})
		require.True(t, r.TimedOut)
		require.Equal(t, 5*time.Second, time.Since(began))
		began = time.Now()
		o.endsAt = began.Add(3 * time.Second)
		r = list(bgagent.BackgroundOutputArgs{Block: true})
		require.False(t, r.TimedOut)
		require.Equal(t, 4*time.Second, time.Since(began), "it is asked every two seconds")
	})
}

func TestTasksOfAnotherProcessAreCancelledAndAnswered(t *testing.T) {
	withElsewhere(t, func(t *testing.T, m *bgagent.BackgroundManager, o *otherProcess, tools bgagent.ToolOptions) {
		cancel := func(a bgagent.BackgroundCancelArgs) bgagent.BackgroundCancelResult {
			r, err := tools.BackgroundCancel(t.Context(), m, root, a)
			require.NoError(t, err)
			return r
		}
		r := cancel(bgagent.BackgroundCancelArgs{TaskID: endedThere})
		require.True(t, r.IsError)
		require.Contains(t, r.Text, "cannot be cancelled: its status is completed already")
		o.err = errors.New("its process is dead")
		r = cancel(bgagent.BackgroundCancelArgs{TaskID: liveThere})
		require.True(t, r.IsError)
		require.Contains(t, r.Text, "asking the others failed and changed nothing: its process is dead.")
		r = cancel(bgagent.BackgroundCancelArgs{All: true})
		require.False(t, r.IsError)
		require.Contains(t, r.Text, "Cancelled 0 background task(s)")
		require.Contains(t, r.Text, "changed nothing: its process is dead.")
		o.err = fmt.Errorf("%w: silence", bgagent.ErrUncertain)
		r = cancel(bgagent.BackgroundCancelArgs{TaskID: liveThere})
		require.Contains(t, r.Text, "It is not known whether task `"+liveThere+"` has got the request")
		o.err = nil

		answer := func(key, option string) bgagent.BackgroundMessageResult {
			r, err := tools.BackgroundMessage(t.Context(), m, root, bgagent.BackgroundMessageArgs{TaskID: liveThere, Question: key, Answer: option})
			require.NoError(t, err)
			return r
		}
		require.Contains(t, answer("none", "main").Text, "`none`")
		require.Empty(t, o.answered)
		said := answer("branch", "main")
		require.False(t, said.IsError, said.Text)
		require.Contains(t, said.Text, "Question answered.\n\nTask ID: "+liveThere+"\n")
		require.Equal(t, "main", o.answered)
		o.err = fmt.Errorf("%w: silence", bgagent.ErrUncertain)
		require.Contains(t, answer("branch", "main").Text, "It is not known whether")
		o.err = nil
		sent, err := tools.BackgroundMessage(t.Context(), m, root, bgagent.BackgroundMessageArgs{TaskID: liveThere, Message: "hello"})
		require.NoError(t, err)
		require.True(t, sent.IsError)
		require.Contains(t, sent.Text, "belongs to the process `m2`. From here, it can only be read")

		local := launch(t, m, "now")
		r = cancel(bgagent.BackgroundCancelArgs{All: true})
		require.Len(t, r.Cancelled, 2)
		require.Contains(t, r.Text, local.ID)
		require.Contains(t, r.Text, liveThere)
	})
}
