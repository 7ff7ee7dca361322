package bgagent_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

func TestARepeatedRunCountsAsRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box := &inbox{}
		m := manage(t, &goRunner{run: works(time.Minute)}, bgagent.Config{Notify: box.notify})
		by := bgagent.Caller{Session: "root", ToolCallID: "call_1"}
		in := bgagent.LaunchInput{Agent: "a", Prompt: "p"}
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := m.Run(short, by, in)
		require.ErrorIs(t, err, bgagent.ErrGoesOn)
		task, err := m.Run(t.Context(), by, in) // the host tries the call again
		require.NoError(t, err)
		require.Equal(t, bgagent.Completed, task.Status)
		time.Sleep(time.Minute)
		require.Equal(t, bgagent.NoticeRead, get(t, m, task.ID).Notice)
		require.Empty(t, box.all(), "told twice")
	})
}

func TestARepeatedRunHasNoTimeToLive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := manage(t, &goRunner{run: works(time.Hour)}, bgagent.Config{})
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
				// Its own helper, a session that the host knows as its child, delegates.
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
	synctest.Test(t, func(t *testing.T) {
		m := manage(t, &goRunner{run: works(10 * time.Second)}, bgagent.Config{})
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
		require.Empty(t, gone, "all: not the caller's own foreground call")
		_ = ended(t, m, id)
	})
}

func TestCancelAllSparesTheSessionsUnderAForegroundCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := manage(t, &findingRunner{goRunner{run: works(time.Minute)}}, bgagent.Config{MaxDepth: 5})
		go func() { _, _ = m.Run(t.Context(), root, bgagent.LaunchInput{Agent: "worker", Prompt: "fg"}) }()
		synctest.Wait()
		under, err := m.Launch(t.Context(), bgagent.Caller{Session: "native"}, bgagent.LaunchInput{Agent: "worker", Prompt: "x"})
		require.NoError(t, err)
		synctest.Wait()
		_, err = m.CancelAll(t.Context(), root, bgagent.CancelOptions{})
		require.NoError(t, err)
		require.Equal(t, bgagent.Running, get(t, m, under.ID).Status)
	})
}

// findingRunner knows one session that an agent has made under that of the first task.
type findingRunner struct{ goRunner }

func (f *findingRunner) FindSession(_ context.Context, s string) (bgagent.SessionInfo, error) {
	if s == "native" {
		return bgagent.SessionInfo{Parent: "ses_1"}, nil
	}
	return bgagent.SessionInfo{}, bgagent.ErrNoSession
}
