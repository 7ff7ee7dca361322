//go:build unix

package acp

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/modelserver"
	"github.com/stretchr/testify/require"
)

// If an agent can receive messages during a turn, a message joins the running turn, and the model gets it
// only once. For any other agent, the message is refused.
func TestAMessageJoinsATurnOfEachAgent(t *testing.T) {
	cfg := bgagent.Config{Permissions: []bgagent.Permission{{Name: "*", Pattern: "*", Action: bgagent.PermissionAllow}}}
	for _, in := range []string{"tool", "text"} {
		t.Run(in, func(t *testing.T) {
			eachReal(t, cfg, nil, func(s *scene) {
				s.w.Model.Handle(func(r modelserver.Request) modelserver.Reply {
					if r.Kind == modelserver.Main && heard(r) > 0 {
						return modelserver.Say("with the message")
					}
					return r.Scripted()
				})
				prompt := s.bash("sleep 6; echo command done", "waiting") + "\n@say without the message"
				if in == "text" {
					prompt = "@slow 60 100ms\n@say " + strings.Repeat("one and two ", 30) + "the end"
				}
				task := s.launch(prompt)
				if in == "tool" {
					s.follow(task.ID, func(task bgagent.Task) bool { return task.Progress.ToolCalls > 0 })
				} else if s.streams {
					s.follow(task.ID, func(task bgagent.Task) bool { return strings.Contains(task.Result, "one") })
				} else {
					s.asked("one and two")
				}
				sent, err := s.m.Send(s.Context(), root, task.ID, bgagent.SendInput{Text: "a new wish", Now: true})
				can := s.name == claude.name || s.name == codex.name
				if !can {
					require.ErrorIs(s, err, bgagent.ErrCannotSteer)
					require.NotContains(s, s.ended(task.ID)[0].Result, "with the message")
					return
				}
				require.NoError(s, err)
				require.Equal(s, bgagent.MessageInTurn, sent.State)
				end := s.ended(task.ID)[0]
				require.Equal(s, bgagent.Completed, end.Status, end.Reason)
				require.Equal(s, "with the message", end.Result)
				require.Equal(s, 1, end.Progress.Turns)
				var last modelserver.Request
				for _, r := range s.w.Model.Requests() {
					if r.Kind == modelserver.Main {
						last = r
					}
				}
				require.Equal(s, 1, heard(last))
				has := func(role modelserver.Role, text string) bool {
					return slices.ContainsFunc(last.Messages, func(m modelserver.Message) bool {
						return m.Role == role && strings.Contains(m.Text+fmt.Sprint(m.Results), text)
					})
				}
				switch {
				case in == "tool" && s.name == codex.name:
					require.True(s, has(modelserver.Tool, "command done"), "the command was completed")
				case in == "tool":
					require.True(s, has(modelserver.Tool, "moved to the background"), "the command continues")
				case s.name == codex.name:
					require.False(s, has(modelserver.Assistant, "one and two"), "the text was dropped")
				default:
					require.False(s, has(modelserver.Assistant, "the end"), "the text was cut")
				}
			})
		})
	}
}

// The function "heard" returns how many times a request contains the message that joined the turn.
func heard(r modelserver.Request) (n int) {
	for _, m := range r.Messages {
		n += strings.Count(m.Text, "a new wish")
		for _, result := range m.Results {
			n += strings.Count(result.Text, "a new wish")
		}
	}
	return n
}
