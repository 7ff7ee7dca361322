package opencode_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/modelserver"
	"github.com/bgagent/bgagent/internal/realagent"
	"github.com/bgagent/bgagent/opencode"
)

// On the real server, a message joins the running turn after the tool calls, or after the text, of
// the current request to the model. The text is not cut off.
func TestAMessageJoinsATurnOfTheRealServer(t *testing.T) {
	w := realagent.New(t, "opencode")
	s := w.ServeOpencode(t)
	for name, prompt := range map[string]string{
		"tool": `@tool bash {"command":"sleep 6; echo command done","description":"waits"}` + "\n@say without the message",
		"text": "@slow 60 100ms\n@say " + strings.Repeat("one and two ", 30) + "the end",
	} {
		t.Run(name, func(t *testing.T) {
			x := serve(t, w, s, opencode.Config{}, bgagent.Config{CallTimeout: time.Minute})
			key := "steer-" + name
			task := x.launch("scope", "worker", "@key "+key+"\n"+prompt)
			require.Eventually(t, func() bool {
				got, err := x.m.Get(task.ID)
				return err == nil && (got.Progress.ToolCalls > 0 || strings.Contains(got.Result, "one"))
			}, time.Minute, 20*time.Millisecond)
			sent, err := x.m.Send(t.Context(), bgagent.Caller{}, task.ID, bgagent.SendInput{Text: "@key " + key + "\n@say with the message", Now: true})
			require.NoError(t, err)
			require.Equal(t, bgagent.MessageInTurn, sent.State)
			require.Equal(t, 1, sent.Turn)
			end := x.ended(task.ID)[0]
			require.Equal(t, bgagent.Completed, end.Status, end.Reason)
			require.Equal(t, "with the message", end.Result)
			require.Equal(t, 1, end.Progress.Turns)
			x.quiet(task.ID)
			var requests []modelserver.Request
			for _, r := range w.Model.Requests() {
				if isMain(r) && r.Session == end.Session {
					requests = append(requests, r)
				}
			}
			require.Len(t, requests, 2)
			for i, r := range requests {
				n := 0
				for _, m := range r.Messages {
					if m.Role == modelserver.User {
						n += strings.Count(m.Text, "with the message")
					}
				}
				require.Equal(t, i, n, "request %d", i)
			}
			last := requests[1].Messages
			before := last[len(last)-2]
			if name == "tool" {
				require.Contains(t, fmt.Sprint(before.Results), "command done", "the command was not cut")
			} else {
				require.Contains(t, before.Text, "the end", "the text was not cut")
			}

			err = x.c.Steer(t.Context(), end.Session, bgagent.TurnMessage{ID: task.ID + ".m2", Text: "@say late"})
			require.ErrorContains(t, err, "the session is not in a turn")
			err = opencode.Join(x.c, t.Context(), end.Session, bgagent.TurnMessage{ID: task.ID + ".m3", Text: "@say late"})
			require.ErrorContains(t, err, "its turn has just ended")
			require.NotErrorIs(t, err, bgagent.ErrUncertain)
			page, err := x.c.Messages(t.Context(), end.Session, "", 0)
			require.NoError(t, err)
			for _, m := range page.Messages {
				require.NotContains(t, m.Text, "late", "the message is not part of the session")
			}
			got, err := x.c.Statuses(t.Context(), []string{end.Session})
			require.NoError(t, err)
			require.Equal(t, bgagent.SessionIdle, got[end.Session].State)
		})
	}
}

// A command runs for longer than Steer is allowed to take. The model then gets the message late, or
// never if the turn is cancelled first.
func TestAMessageIsUncertainUntilTheRealServerReadsIt(t *testing.T) {
	w := realagent.New(t, "opencode")
	s := w.ServeOpencode(t)
	for name, cancels := range map[string]bool{"late": false, "cancelled": true} {
		t.Run(name, func(t *testing.T) {
			x := serve(t, w, s, opencode.Config{}, bgagent.Config{})
			key := "@key unread-" + name + "\n"
			task := x.launch("scope", "worker", key+`@tool bash {"command":"sleep 14","description":"waits"}`+"\n@say done")
			require.Eventually(t, func() bool {
				got, err := x.m.Get(task.ID)
				return err == nil && got.Progress.ToolCalls > 0
			}, time.Minute, 20*time.Millisecond)
			if cancels {
				time.AfterFunc(time.Second, func() { _, _ = x.m.Cancel(context.Background(), bgagent.Caller{}, task.ID, bgagent.CancelOptions{}) })
			}
			_, err := x.m.Send(t.Context(), bgagent.Caller{}, task.ID, bgagent.SendInput{Text: key + "@say with the message", Now: true})
			if cancels {
				require.Error(t, err)
			} else {
				require.ErrorIs(t, err, bgagent.ErrUncertain)
				require.Equal(t, "with the message", x.ended(task.ID)[0].Result)
				return
			}
			end := x.ended(task.ID)[0]
			again, err := x.m.Resume(t.Context(), bgagent.Caller{Session: "scope"}, task.ID, bgagent.ResumeInput{Prompt: key + "@say again"})
			require.NoError(t, err)
			end = x.ended(again.ID)[0]
			require.Equal(t, "again", end.Result)
			x.quiet(task.ID)
			for _, r := range w.Model.Requests() {
				if isMain(r) && r.Session == end.Session {
					for _, m := range r.Messages {
						require.NotContains(t, m.Text, "with the message")
					}
				}
			}
		})
	}
}
