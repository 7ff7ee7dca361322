//go:build unix

package acp

import (
	"fmt"
	"strings"
	"testing"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

// turnOf adds a turn to the conversation.
func turnOf(h *conversation, prompt, answer string) {
	h.add(bgagent.Message{Role: bgagent.RoleUser, Text: prompt, Finished: true})
	h.said(bgagent.RoleAgent, answer, nil)
	h.finish(bgagent.StopEndOfTurn, "")
}

func TestTheBeginningOfALongConversationIsDropped(t *testing.T) {
	h := &conversation{max: 2000}
	for i := range 100 {
		turnOf(h, fmt.Sprintf("prompt %d", i), strings.Repeat("x", 50))
		require.LessOrEqual(t, h.size, h.max+200)
	}
	page, err := h.page("", 0)
	require.NoError(t, err)
	require.Less(t, len(page.Messages), 30)
	require.Equal(t, "msg_200", page.Messages[len(page.Messages)-1].ID)
	require.Equal(t, bgagent.Cursor("200"), page.Next)
	page, err = h.page("3", 1) // it has been dropped: what there is comes first
	require.NoError(t, err)
	require.True(t, page.More)
	require.Len(t, page.Messages, 1)
	size := 0
	for i := range h.msgs {
		size += sizeOf(&h.msgs[i])
	}
	require.Equal(t, size, h.size)
}

func TestAMessageThatNeverEndsIsCut(t *testing.T) {
	h := &conversation{max: 1000}
	turnOf(h, "prompt", "answer")
	for range 1000 {
		h.said(bgagent.RoleAgent, "ää", nil)
		h.thought("hm", nil)
	}
	page, err := h.page("", 0)
	require.NoError(t, err)
	require.Len(t, page.Messages, 1)
	require.LessOrEqual(t, len(page.Messages[0].Text)+len(page.Messages[0].Reasoning), 1000)
	require.Equal(t, page.Messages[0].Text, strings.ToValidUTF8(page.Messages[0].Text, "?"))
}

func TestOnlyTheLastMessageChanges(t *testing.T) {
	h := &conversation{max: 1 << 20}
	h.add(bgagent.Message{Role: bgagent.RoleUser, Text: "prompt", Finished: true})
	one := bgagent.MessageTool{ID: "1", Name: "grep", State: bgagent.ToolRunning}
	two := bgagent.MessageTool{ID: "2", Name: "read", State: bgagent.ToolRunning}
	h.said(bgagent.RoleAgent, "let me see", nil)
	h.used(one)
	h.used(two)
	page, err := h.page("1", 0)
	require.NoError(t, err)
	require.Equal(t, bgagent.Cursor("1"), page.Next)
	require.False(t, page.Messages[0].Finished)
	h.said(bgagent.RoleAgent, "while that runs", nil)
	page, err = h.page("1", 0)
	require.NoError(t, err)
	first := page.Messages[0]
	require.True(t, first.Finished)
	one.State, two.State = bgagent.ToolDone, bgagent.ToolDone
	h.used(one)
	h.used(two)
	h.used(two)
	h.finish(bgagent.StopEndOfTurn, "")
	page, err = h.page("1", 0)
	require.NoError(t, err)
	require.Equal(t, first, page.Messages[0])
	require.Equal(t, []bgagent.MessageTool{one, two}, page.Messages[1].Tools)
	require.Equal(t, "while that runs", h.lastText())
}

func TestAForeignCursorIsRefused(t *testing.T) {
	h := &conversation{max: 100}
	for _, cursor := range []bgagent.Cursor{"x", "-1", "1.5"} {
		_, err := h.page(cursor, 1)
		require.ErrorContains(t, err, "not one of this client's")
	}
	page, err := h.page("7", 1)
	require.NoError(t, err)
	require.Equal(t, bgagent.Page{Next: "7"}, page)
}
