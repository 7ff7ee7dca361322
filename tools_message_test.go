package bgagent_test

import (
	"encoding/json"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/bgagenttest"
	"github.com/stretchr/testify/require"
)

func TestBackgroundMessageIsOffUnlessTheHostNamesIt(t *testing.T) {
	m := manage(t, bgagenttest.NewRunner(nil), bgagent.Config{ToolNames: map[string]string{bgagent.ToolBackgroundMessage: "say"}})
	names := func(o bgagent.ToolOptions) (names []string) {
		for _, d := range bgagent.Tools(m, o) {
			names = append(names, d.Name)
		}
		return names
	}
	with := []string{bgagent.ToolBackgroundMessage}
	require.Equal(t, []string{"delegate_task", "background_output", "background_cancel"}, names(bgagent.ToolOptions{}))
	require.Equal(t, []string{"delegate_task", "background_output", "background_cancel", "say"}, names(bgagent.ToolOptions{With: with}))
	require.Equal(t, []string{"delegate_task", "background_output", "background_cancel", "tell"}, names(bgagent.ToolOptions{With: with, Names: map[string]string{bgagent.ToolBackgroundMessage: "tell"}}))
	require.PanicsWithValue(t, `bgagent: Tools: ToolOptions.With lists "background_talk"; the optional tools are background_message`, func() {
		bgagent.Tools(m, bgagent.ToolOptions{With: []string{"background_talk"}})
	})
}

func TestBackgroundMessageSendsAMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := steered{Runner: bgagenttest.NewRunner(answering)}
		defer f.Close()
		m := manage(t, &f, limit(1))
		tools := bgagent.Tools(m, bgagent.ToolOptions{With: []string{bgagent.ToolBackgroundMessage}})
		require.Equal(t, bgagent.ToolBackgroundMessage, tools[3].Usual)
		call := func(by bgagent.Caller, args string) (bgagent.ToolResult, bgagent.BackgroundMessageResult) {
			r, err := tools[3].Call(bgagent.WithCaller(t.Context(), by), json.RawMessage(args))
			require.NoError(t, err)
			v, _ := r.Value.(bgagent.BackgroundMessageResult)
			return r, v
		}
		task := launch(t, m, "work")
		time.Sleep(time.Second)
		by := bgagent.Caller{Session: "root", ToolCallID: "call_1"}
		for range 2 { // the second call is a retry of the first
			r, v := call(by, `{"task_id": "`+task.ID+`", "message": "also the tests"}`)
			require.False(t, r.IsError)
			require.Equal(t, bgagent.MessageAccepted, v.State)
			require.Equal(t, 1, v.Task.Messages)
			require.Contains(t, r.Text, "Message accepted.")
		}
		_, v := call(by, `{"task_id": "`+task.ID+`", "message": "another"}`)
		require.Equal(t, 2, v.Task.Messages, "a call with the same id and another message is not a retry")

		var fails error
		f.steer = nil
		for args, says := range map[string]string{
			`{"message": "m"}`:                                              "The argument task_id is missing.",
			`{"task_id": "` + task.ID + `"}`:                                "The argument message is missing.",
			`{"task_id": "bg_0000000000000000", "message": "m"}`:            "None of your tasks has the id",
			`{"task_id": "` + task.ID + `", "message": "m", "later": true}`: "There is no argument `later`.",
		} {
			r, _ := call(by, args)
			require.True(t, r.IsError)
			require.Contains(t, r.Text, says)
		}
		r, _ := call(bgagent.Caller{Session: "stranger"}, `{"task_id": "`+task.ID+`", "message": "m"}`)
		require.Contains(t, r.Text, "None of your tasks has the id")
		f.steer = steerWith(&fails)
		fails = errors.ErrUnsupported
		r, v = call(root, `{"task_id": "`+task.ID+`", "message": "m", "now": true}`)
		require.True(t, r.IsError)
		require.Equal(t, bgagent.MessageRefused, v.State)
		require.Contains(t, r.Text, "Send it without now")
		fails = nil
		r, v = call(root, `{"task_id": "`+task.ID+`", "message": "m", "now": true}`)
		require.Equal(t, bgagent.MessageInTurn, v.State)
		require.Contains(t, r.Text, "Message delivered.")
		for v.Task.Messages < 20 {
			_, v = call(root, `{"task_id": "`+task.ID+`", "message": "m"}`)
		}
		r, _ = call(root, `{"task_id": "`+task.ID+`", "message": "m"}`)
		require.Contains(t, r.Text, "already has 20 messages")
		_, err := m.Cancel(t.Context(), root, task.ID, bgagent.CancelOptions{})
		require.NoError(t, err)
		r, _ = call(root, `{"task_id": "`+task.ID+`", "message": "m"}`)
		require.True(t, r.IsError)
		require.Contains(t, r.Text, "has ended, so the message was not sent.")
		require.Contains(t, r.Text, "delegate_task(session_id=")
	})
}

// Some model servers give every call the same id. Therefore, a call's id no longer identifies a
// retry once the task has been resumed.
func TestACallIDIsForgottenWhenTheTaskIsResumed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := steered{Runner: bgagenttest.NewRunner(answering)}
		defer f.Close()
		m := manage(t, &f, limit(1))
		by := bgagent.Caller{Session: "root", ToolCallID: "call_1"}
		task := launch(t, m, "work")
		for attempt := range 2 {
			if attempt > 0 {
				ended(t, m, task.ID)
				_, err := m.Resume(t.Context(), root, task.ID, bgagent.ResumeInput{Prompt: "more"})
				require.NoError(t, err)
			}
			time.Sleep(time.Second)
			for range 2 {
				r, err := bgagent.BackgroundMessage(t.Context(), m, by, bgagent.BackgroundMessageArgs{TaskID: task.ID, Message: "Continue."})
				require.NoError(t, err)
				require.Equal(t, bgagent.MessageAccepted, r.State)
				require.Equal(t, 1, r.Task.Messages)
			}
		}
	})
}
