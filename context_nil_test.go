package bgagent_test

import (
	"context"
	"testing"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

func TestANilContextIsRefused(t *testing.T) {
	bubble(t, &goRunner{run: echo}, bgagent.Config{}, func(t *testing.T, m *bgagent.BackgroundManager) {
		task := job(t, m, "now")
		var none context.Context
		for name, call := range map[string]func() error{
			"Launch":     func() error { _, err := m.Launch(none, root, bgagent.LaunchInput{Agent: "w", Prompt: "x"}); return err },
			"Run":        func() error { _, err := m.Run(none, root, bgagent.LaunchInput{Agent: "w", Prompt: "x"}); return err },
			"Resume":     func() error { _, err := m.Resume(none, root, task.ID, bgagent.ResumeInput{Prompt: "x"}); return err },
			"RunResume":  func() error { _, err := m.RunResume(none, root, task.ID, bgagent.ResumeInput{Prompt: "x"}); return err },
			"Wait":       func() error { _, err := m.Wait(none, root, bgagent.WaitAll, task.ID); return err },
			"Quiet":      func() error { return m.Quiet(none, task.ID) },
			"Cancel":     func() error { _, err := m.Cancel(none, root, task.ID, bgagent.CancelOptions{}); return err },
			"CancelAll":  func() error { _, err := m.CancelAll(none, root, bgagent.CancelOptions{}); return err },
			"Send":       func() error { _, err := m.Send(none, root, task.ID, bgagent.SendInput{Text: "x"}); return err },
			"Answer":     func() error { _, err := m.Answer(none, root, task.ID, bgagent.AnswerInput{Key: "x"}); return err },
			"Forget":     func() error { return m.Forget(none, root, task.ID, bgagent.ForgetOptions{}) },
			"Messages":   func() error { _, err := m.Messages(none, root, task.ID, "", 0); return err },
			"NextNotice": func() error { _, err := m.NextNotice(none, root.Session); return err },
			"History":    func() error { _, err := m.History(none, bgagent.Query{}, ""); return err },
			"Drain":      func() error { return m.Drain(none) },
			"Suspend":    func() error { return m.Suspend(none) },
			"Close":      func() error { return m.Close(none) },
			"Acquire":    func() error { _, err := m.Concurrency().Acquire(none, "x"); return err },
		} {
			var input *bgagent.InputError
			require.ErrorAs(t, call(), &input, name)
			require.Equal(t, "ctx", input.Field, name)
		}
		got, err := m.Run(t.Context(), root, bgagent.LaunchInput{Agent: "w", Prompt: "now"})
		require.NoError(t, err, "the manager must not be closed")
		require.Equal(t, bgagent.Completed, got.Status)
	})
}
