package opencode

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bgagent/bgagent"
)

// The answer to a message that joined the turn belongs to the turn, even if the turn already had a
// complete answer when the message arrived.
func TestTheAnswerToAJoinedMessageBelongsToTheTurn(t *testing.T) {
	text := func(id, role, metadata, text string) wireMessage {
		m := wireMessage{Parts: wireParts{{ID: "p" + id, Type: "text", Text: text, Metadata: []byte(metadata)}}}
		m.Info.ID, m.Info.Role = id, role
		if role == "assistant" {
			m.Info.Finish, m.Info.Time.Completed = "stop", 1
		}
		return m
	}
	list := []wireMessage{
		text("1", "user", `{"bgagent":"bgp_1"}`, "work"), text("2", "assistant", "", "done"),
		text("3", "user", `{"bgagent.joins":"bg_1.m1"}`, "more"), text("4", "assistant", "", "more done"),
	}
	lines := (&Client{}).lines("s", track{}, list)
	require.Equal(t, []bgagent.Role{bgagent.RoleUser, bgagent.RoleAgent, bgagent.RoleOther, bgagent.RoleAgent},
		[]bgagent.Role{lines[0].Role, lines[1].Role, lines[2].Role, lines[3].Role})
	require.Equal(t, bgagent.StopEndOfTurn, lines[3].Stop)
	require.Equal(t, "1", lines[3].track.prompt, "the turn has the same prompt")
	require.Equal(t, "bgp_1", lines[3].track.key)
	require.False(t, lines[2].track.whole, "the message has no answer yet")
	require.True(t, lines[3].track.whole)
}
