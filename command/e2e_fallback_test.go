//go:build linux

package command

import (
	"strings"
	"testing"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/modelserver"
	"github.com/stretchr/testify/require"
)

// TestRealSessionGoesOnWithAnotherModel refuses a turn that uses one model. The session continues
// with another model, which sees the refused turn's prompt and tool call once.
func TestRealSessionGoesOnWithAnotherModel(t *testing.T) {
	models := map[string][2]string{
		"claude":   {"claude-opus-4-5", "claude-sonnet-4-5"},
		"codex":    {"scripted", "other"},
		"gemini":   {"gemini-2.5-pro", "gemini-2.5-flash"},
		"opencode": {"scripted/scripted", "scripted/other"},
	}
	each(t, func(t *testing.T, r real) {
		s := r.turns(t, true)
		script := "@error 503 reason=overload times=1"
		if r.name == "opencode" { // opencode would retry the request for more than a minute
			script = "@error 401 times=1 no"
		}
		first, second := models[r.name][0], models[r.name][1]
		session, p := s.session(), bgagent.Prompt{ID: "first", Model: first, Text: "MARK-ONE\n" + r.shell("echo kept-42") + "\n" + script + "\n@say fine"}
		failure := s.refused(session, p)
		require.Equal(t, goOn, failure.Next)
		before := s.w.Model.Requests()
		require.Equal(t, strings.TrimPrefix(first, "scripted/"), before[len(before)-1].Model)

		s.w.Model.Handle(func(modelserver.Request) modelserver.Reply { return modelserver.Say("fine") }) // a fixed reply instead of a script, because claude sends the next prompt in the same message as the tool's result
		end, _, err := s.run(session, bgagent.Prompt{ID: "next", Model: second, Text: "Go on.", Unanswered: p.ID})
		require.NoError(t, err)
		require.Equal(t, "fine", end.Text)
		require.Equal(t, 1, s.seen("MARK-ONE"))
		after := s.w.Model.Requests()
		last := after[len(after)-1]
		require.Equal(t, strings.TrimPrefix(second, "scripted/"), last.Model)
		results := ""
		for _, m := range last.Messages {
			for _, x := range m.Results {
				results += x.Text
			}
		}
		require.Contains(t, results, "kept-42")
	})
}
