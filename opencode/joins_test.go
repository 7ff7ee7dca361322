package opencode_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/opencode"
)

func now(t *testing.T, r *rig, task bgagent.Task, text string) (bgagent.SendResult, error) {
	return r.m.Send(t.Context(), bgagent.Caller{}, task.ID, bgagent.SendInput{Text: text, Now: true})
}

func TestAMessageJoinsATurnOfTheFakeServer(t *testing.T) {
	bubble(t, opencode.Config{}, bgagent.Config{CallTimeout: time.Hour}, func(t *testing.T, r *rig) {
		task, err := r.m.Launch(t.Context(), bgagent.Caller{Session: r.root}, bgagent.LaunchInput{Agent: "worker", Prompt: "later the answer", System: "be brief"})
		require.NoError(t, err)
		time.Sleep(10 * time.Second)
		sent, err := now(t, r, task, "more")
		require.NoError(t, err)
		require.Equal(t, bgagent.MessageInTurn, sent.State)
		end := r.wait(task)
		require.Equal(t, bgagent.Completed, end.Status, end.Reason)
		require.Equal(t, "echo: more", end.Result, "the turn ends with the answer to the message")
		require.Equal(t, 1, end.Progress.Turns)
		r.f.do(func() {
			require.GreaterOrEqual(t, len(r.f.prompts), 2)
			for _, key := range []string{"agent", "system", "model"} {
				require.Equal(t, r.f.prompts[0][key], r.f.prompts[1][key], "the later requests of the turn have the same %s", key)
			}
			require.Equal(t, "be brief", r.f.prompts[1]["system"])
		})
		again, err := r.m.Resume(t.Context(), bgagent.Caller{Session: r.root}, task.ID, bgagent.ResumeInput{Prompt: "and again"})
		require.NoError(t, err)
		require.Equal(t, "echo: and again", r.wait(again).Result)
	})
}

// The turn ends right after the message has been stored, without reading it.
func TestAMessageThatComesTooLateIsRemoved(t *testing.T) {
	bubble(t, opencode.Config{}, bgagent.Config{}, func(t *testing.T, r *rig) {
		r.f.do(func() { r.f.passes = true })
		task := r.launch("later the answer")
		time.Sleep(time.Minute - 100*time.Millisecond)
		_, err := now(t, r, task, "more")
		require.ErrorIs(t, err, bgagent.ErrCannotSteer)
		require.ErrorContains(t, err, "its turn has just ended")
		end := r.wait(task)
		require.Equal(t, bgagent.Completed, end.Status, end.Reason)
		require.Equal(t, "the answer", end.Result)
		time.Sleep(time.Minute)
		require.Equal(t, bgagent.SessionIdle, r.state(end.Session))
		require.False(t, has(r, end.Session, "more"))
	})
}

// The model works for longer than the call to Send is allowed to take.
func TestAMessageThatTheModelTakesLateIsUncertain(t *testing.T) {
	bubble(t, opencode.Config{}, bgagent.Config{}, func(t *testing.T, r *rig) {
		task := r.launch("later the answer")
		time.Sleep(time.Second)
		_, err := now(t, r, task, "more")
		require.ErrorIs(t, err, bgagent.ErrUncertain)
		require.Equal(t, "echo: more", r.wait(task).Result)
	})
}

// The function "has" reports whether the session on the server has a message with the text.
func has(r *rig, session, text string) (has bool) {
	r.f.do(func() {
		for _, m := range r.f.sessions[session].messages {
			has = has || len(m.Parts) > 0 && m.Parts[0]["text"] == text
		}
	})
	return has
}

// The call to Steer ends before it has removed the message.
func TestAMessageThatNoTurnHasReadDoesNotReachTheNextTurn(t *testing.T) {
	bubble(t, opencode.Config{}, bgagent.Config{}, func(t *testing.T, r *rig) {
		r.f.do(func() { r.f.passes = true })
		task := r.launch("later the answer")
		time.Sleep(time.Second)
		running := r.under(task)
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		err := r.c.Steer(ctx, running.Session, bgagent.TurnMessage{ID: task.ID + ".m1", Text: "more"})
		require.ErrorIs(t, err, bgagent.ErrUncertain)
		end := r.wait(task)
		require.True(t, has(r, end.Session, "more"))
		again, err := r.m.Resume(t.Context(), bgagent.Caller{Session: r.root}, task.ID, bgagent.ResumeInput{Prompt: "and again"})
		require.NoError(t, err)
		require.Equal(t, "echo: and again", r.wait(again).Result)
		require.False(t, has(r, end.Session, "more"))
	})
}

// A waiting call to Steer holds back the next turn until its message is removed.
func TestAMessageDoesNotCrossIntoTheNextTurn(t *testing.T) {
	bubble(t, opencode.Config{}, bgagent.Config{CallTimeout: time.Hour}, func(t *testing.T, r *rig) {
		r.f.do(func() { r.f.passes = true })
		task := r.launch("later the answer")
		time.Sleep(time.Minute - 100*time.Millisecond)
		sent, err := r.m.Send(t.Context(), bgagent.Caller{}, task.ID, bgagent.SendInput{Text: "next turn"})
		require.NoError(t, err)
		require.Equal(t, bgagent.MessageAccepted, sent.State)
		_, err = now(t, r, task, "more")
		require.ErrorIs(t, err, bgagent.ErrCannotSteer)
		require.NotErrorIs(t, err, bgagent.ErrUncertain)
		end := r.wait(task)
		require.Contains(t, end.Result, "echo: next turn")
		require.False(t, has(r, end.Session, "more"))
	})
}

// The messages are read together, so the answer names only the last message.
func TestMessagesThatJoinTogetherAreBothTaken(t *testing.T) {
	bubble(t, opencode.Config{}, bgagent.Config{CallTimeout: time.Hour}, func(t *testing.T, r *rig) {
		r.f.do(func() { r.f.gathers = true })
		task := r.launch("later the answer")
		time.Sleep(time.Second)
		errs := make(chan error)
		for _, text := range []string{"one", "two"} {
			go func() {
				_, err := now(t, r, task, text)
				errs <- err
			}()
			time.Sleep(time.Second)
		}
		require.NoError(t, <-errs)
		require.NoError(t, <-errs)
		end := r.wait(task)
		require.Equal(t, "echo: two", end.Result)
		require.True(t, has(r, end.Session, "one"))
	})
}

func TestWhenAMessageCannotJoinATurnOfTheServer(t *testing.T) {
	bubble(t, opencode.Config{}, bgagent.Config{}, func(t *testing.T, r *rig) {
		task := r.under(r.launch("later the answer"))
		steer := func(c *opencode.Client, session string) error {
			return c.Steer(t.Context(), session, bgagent.TurnMessage{ID: "bg_1.m1", Text: "more"})
		}
		other := newClient(t, opencode.Config{HTTPClient: r.f.client()})
		require.ErrorContains(t, steer(other, task.Session), "in a turn that this client has started")
		require.ErrorContains(t, steer(r.c, r.session("/work")), "not in a turn")
		require.ErrorIs(t, steer(r.c, "ses_none"), bgagent.ErrNoSession)
		require.ErrorIs(t, steer(r.c, "no id"), bgagent.ErrNoSession)
		require.Equal(t, "the answer", r.wait(task).Result)
	})
}
