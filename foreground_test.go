package bgagent_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/bgagenttest"
	"github.com/bgagent/bgagent/storetest"
	"github.com/stretchr/testify/require"
)

func TestARepeatedRunCountsAsRead(t *testing.T) {
	box := &inbox{}
	bubble(t, working(time.Minute), bgagent.Config{Notify: box.notify}, func(t *testing.T, m *bgagent.BackgroundManager) {
		by := bgagent.Caller{Session: "root", ToolCallID: "call_1"}
		in := bgagent.LaunchInput{Agent: "a", Prompt: "p"}
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := m.Run(short, by, in)
		require.ErrorIs(t, err, bgagent.ErrGoesOn)
		task, err := m.Run(t.Context(), by, in) // the host repeats the call
		require.NoError(t, err)
		require.Equal(t, bgagent.Completed, task.Status)
		time.Sleep(time.Minute)
		require.Equal(t, bgagent.NoticeRead, get(t, m, task.ID).Notice)
		require.Empty(t, box.all(), "the end was reported twice")
	})
}

func TestARepeatedRunHasNoTimeToLive(t *testing.T) {
	bubble(t, working(time.Hour), bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager) {
		by := bgagent.Caller{Session: "root", ToolCallID: "call_1"}
		in := bgagent.LaunchInput{Agent: "a", Prompt: "p"}
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := m.Run(short, by, in)
		require.ErrorIs(t, err, bgagent.ErrGoesOn)
		task, err := m.Run(t.Context(), by, in)
		require.NoError(t, err)
		require.Equal(t, bgagent.Completed, task.Status, task.Reason)
	})
}

func TestASessionInsideATaskDoesNotWaitForWhatNeedsItsSlot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m *bgagent.BackgroundManager
		f := &finder{goRunner: &goRunner{}, parents: map[string]string{}}
		var err error
		f.goRunner.run = func(ctx context.Context, s string, p bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
			if p.Text == "parent" {
				// The session "helper" delegates. According to the host, the parent of "helper" is
				// this turn's session.
				_, err = m.Run(ctx, bgagent.Caller{Session: "helper"}, bgagent.LaunchInput{Agent: "worker", Prompt: "child"})
				return bgagent.TurnEnd{Text: "x"}, nil
			}
			return works(time.Second)(ctx, s, p, r)
		}
		f.parents["helper"], f.parents["root"] = "ses_1", ""
		m = manage(t, f, bgagent.Config{MaxDepth: 3, Limits: bgagent.Limits{Default: 1}})
		p := launch(t, m, "parent")
		task := ended(t, m, p.ID)[0]
		require.Equal(t, bgagent.Completed, task.Status, task.Reason)
		require.ErrorIs(t, err, bgagent.ErrGoesOn)
	})
}

func TestCancelAllSparesTheTreeOfAForegroundCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m *bgagent.BackgroundManager
		f := &goRunner{}
		f.run = func(ctx context.Context, s string, p bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
			if p.Text == "parent" {
				_, err := m.Launch(ctx, bgagent.Caller{Session: s}, bgagent.LaunchInput{Agent: "b", Prompt: "child"})
				return bgagent.TurnEnd{Text: "delegated"}, err
			}
			return works(time.Minute)(ctx, s, p, r)
		}
		m = manage(t, f, bgagent.Config{MaxDepth: 2})
		go m.Run(t.Context(), root, bgagent.LaunchInput{Agent: "a", Prompt: "parent"})
		time.Sleep(time.Second)
		out, err := m.CancelAll(t.Context(), root, bgagent.CancelOptions{})
		require.NoError(t, err)
		require.Empty(t, out)
	})
}

func TestARepeatedRunResumeIsTheCallersOwn(t *testing.T) {
	bubble(t, working(10*time.Second), bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager) {
		id := launch(t, m, "a").ID
		ended(t, m, id)
		by := bgagent.Caller{Session: "root", ToolCallID: "c"}
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := m.RunResume(short, by, id, bgagent.ResumeInput{Prompt: "more"})
		require.ErrorIs(t, err, bgagent.ErrGoesOn)
		go func() { _, _ = m.RunResume(t.Context(), by, id, bgagent.ResumeInput{Prompt: "more"}) }()
		synctest.Wait()
		gone, err := m.CancelAll(t.Context(), root, bgagent.CancelOptions{})
		require.NoError(t, err)
		require.Empty(t, gone, "CancelAll must spare the caller's own foreground call")
		_ = ended(t, m, id)
	})
}

func TestCancelAllSparesTheSessionsUnderAForegroundCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := bgagenttest.NewRunner(func(t *bgagenttest.Turn) { t.Sleep(time.Minute) })
		m := manage(t, f, bgagent.Config{MaxDepth: 5})
		go func() { _, _ = m.Run(t.Context(), root, bgagent.LaunchInput{Agent: "worker", Prompt: "fg"}) }()
		synctest.Wait()
		native, _ := f.CreateSession(t.Context(), bgagent.SessionSpec{Parent: m.List(bgagent.Query{})[0].Session}) // the agent, not the manager, creates this session
		under, err := m.Launch(t.Context(), bgagent.Caller{Session: native}, bgagent.LaunchInput{Agent: "worker", Prompt: "x"})
		require.NoError(t, err)
		synctest.Wait()
		_, err = m.CancelAll(t.Context(), root, bgagent.CancelOptions{})
		require.NoError(t, err)
		require.Equal(t, bgagent.Running, get(t, m, under.ID).Status)
	})
}

func TestForegroundLivesAsLongAsItsCaller(t *testing.T) {
	bubble(t, working(time.Hour), bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager) {
		in := bgagent.LaunchInput{Agent: "a", Prompt: "p"}
		task, err := m.Run(t.Context(), root, in)
		require.NoError(t, err)
		require.Equal(t, bgagent.Completed, task.Status, "a foreground task has no time to live")
		require.Equal(t, bgagent.NoticeRead, task.Notice, "the caller has the result")

		ctx, cancel := context.WithCancel(t.Context())
		go func() { time.Sleep(time.Minute); cancel() }()
		task, err = m.Run(ctx, root, in)
		require.ErrorIs(t, err, context.Canceled)
		if *withStore { // the context ends before the task's end is durable
			require.ErrorIs(t, err, bgagent.ErrStore)
			require.Equal(t, bgagent.PhaseStoring, task.Phase)
			synctest.Wait()
			task = get(t, m, task.ID)
		}
		require.Equal(t, bgagent.Cancelled, task.Status)

		ctx, cancel = context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		task, err = m.Run(ctx, root, in)
		require.ErrorIs(t, err, bgagent.ErrGoesOn)
		require.Equal(t, bgagent.Running, task.Status)
		began := time.Now()
		task = ended(t, m, task.ID)[0]
		require.Equal(t, bgagent.CauseTimeToLive, task.Cause)
		require.Equal(t, 30*time.Minute, time.Since(began), "its time to live begins when it moves to the background")
	})
}

// Run returns the attempt that it waited for, even if the task is resumed before Run
// returns.
func TestRunReturnsItsOwnAttempt(t *testing.T) {
	bubble(t, working(time.Hour), bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager) {
		got := make(chan bgagent.Task)
		go func() {
			task, _ := m.Run(context.Background(), root, bgagent.LaunchInput{Agent: "worker", Prompt: "work"})
			got <- task
		}()
		synctest.Wait()
		id := m.List(bgagent.Query{})[0].ID
		// The task is cancelled and resumed before Run's goroutine continues.
		_, err := m.Cancel(t.Context(), bgagent.Caller{}, id, bgagent.CancelOptions{})
		require.NoError(t, err)
		_, err = m.Resume(t.Context(), bgagent.Caller{}, id, bgagent.ResumeInput{Prompt: "more"})
		require.NoError(t, err)
		task := <-got
		require.Equal(t, bgagent.Cancelled, task.Status)
		require.Equal(t, 1, task.Attempt)
	})
}

// The task is cancelled while its launch is being written, and resumed as soon as the launch and
// the cancellation are durable. Run might return before or after the resume, so the test tries it
// several times.
func TestRunReturnsItsOwnAttemptEvenIfItsLaunchIsNotYetDurable(t *testing.T) {
	withHands(t, working(time.Minute), bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager, _ *storetest.Memory, h *hands) {
		h.mu.Lock()
		h.write = func(ctx context.Context, b *bgagent.StoreBatch) error {
			time.Sleep(time.Second)
			return h.Process.Write(ctx, b)
		}
		h.mu.Unlock()
		for range 50 {
			_, events := m.Subscribe(100)
			go func() {
				_, _ = m.Launch(context.Background(), root, bgagent.LaunchInput{Agent: "worker", Prompt: "other"})
			}()
			synctest.Wait() // a write has begun, so the launch and its cancellation are in the next one
			got := make(chan bgagent.Task, 1)
			go func() {
				task, _ := m.Run(context.Background(), root, bgagent.LaunchInput{Agent: "worker", Prompt: "work"})
				got <- task
			}()
			synctest.Wait()
			go func() { _, _ = m.CancelAll(context.Background(), bgagent.Caller{}, bgagent.CancelOptions{}) }()
			e, err := events.Next(t.Context())
			for err == nil && (e.Kind != bgagent.EventEnded || e.Task.Prompt != "work") {
				e, err = events.Next(t.Context())
			}
			require.NoError(t, err)
			events.Close()
			_, err = m.Resume(t.Context(), bgagent.Caller{}, e.Task.ID, bgagent.ResumeInput{Prompt: "more"})
			require.NoError(t, err)
			task := <-got
			require.Equal(t, bgagent.Cancelled, task.Status)
			require.Equal(t, 1, task.Attempt)
			ended(t, m, task.ID)
		}
	})
}
