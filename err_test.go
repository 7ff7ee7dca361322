package bgagent_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

type quotaError struct{ Until int }

func (e *quotaError) Error() string { return "quota" }

// A harness needs the error that its own runtime returned, not only its message.
func TestErrGivesTheHostsOwnErrorBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var fail error = &quotaError{Until: 7}
		m := manage(t, &goRunner{run: func(context.Context, string, bgagent.Prompt, *bgagent.Reporter) (bgagent.TurnEnd, error) {
			return bgagent.TurnEnd{Text: "text"}, fail
		}}, bgagent.Config{Retention: time.Minute})
		task := launch(t, m, "a")
		ended(t, m, task.ID)
		var quota *quotaError
		require.ErrorAs(t, m.Err(task.ID), &quota)
		require.Equal(t, 7, quota.Until)

		fail = nil
		_, err := m.Resume(t.Context(), root, task.ID, bgagent.ResumeInput{Prompt: "again"})
		require.NoError(t, err)
		require.NoError(t, m.Err(task.ID), "the error belongs to an earlier attempt")
		ended(t, m, task.ID)
		require.NoError(t, m.Err(task.ID))

		fail = &quotaError{}
		other := launch(t, m, "b")
		ended(t, m, other.ID)
		require.Error(t, m.Err(other.ID))
		_, _ = m.TakeNotice(root.Session)
		time.Sleep(time.Hour)
		_, err = m.Get(other.ID)
		require.ErrorIs(t, err, bgagent.ErrExpired)
		require.NoError(t, m.Err(other.ID))
		require.NoError(t, m.Err("bg_unknown"))
	})
}

func TestErrOfATaskThatWasCancelledIsNil(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := manage(t, &goRunner{run: works(time.Hour)}, bgagent.Config{})
		task := launch(t, m, "a")
		_, err := m.Cancel(t.Context(), root, task.ID, bgagent.CancelOptions{})
		require.NoError(t, err)
		synctest.Wait()
		require.NoError(t, m.Err(task.ID), "an error of the context is not an error of the host")
	})
}

func TestANoticeCarriesTheBeginningOfEachResult(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := manage(t, &goRunner{run: func(_ context.Context, _ string, p bgagent.Prompt, _ *bgagent.Reporter) (bgagent.TurnEnd, error) {
			if p.Text == "fails" {
				return bgagent.TurnEnd{Text: "so far"}, errors.New("broken")
			}
			return bgagent.TurnEnd{Text: "the answer to " + p.Text}, nil
		}}, bgagent.Config{NoticeResult: 12})
		ended(t, m, launch(t, m, "a").ID)
		ended(t, m, launch(t, m, "fails").ID)
		n, ok := m.TakeNotice(root.Session)
		require.True(t, ok)
		require.Len(t, n.Items, 2)
		require.Equal(t, "the answer t", n.Items[0].Result)
		require.True(t, n.Items[0].Cut)
		require.Equal(t, "so far", n.Items[1].Result)
		require.False(t, n.Items[1].Cut)
		require.Contains(t, n.Text, "### Results")
		require.Contains(t, n.Text, ", the beginning:")
		require.Contains(t, n.Text, ", partial:")

		_, err := bgagent.New(&goRunner{}, bgagent.Config{NoticeResult: -2})
		require.ErrorContains(t, err, "Config.NoticeResult: is -2")
	})
}
