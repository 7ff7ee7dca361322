//go:build unix

package acp

import (
	"fmt"
	"strconv"
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
	page, err = h.page("3", 1) // message 3 was dropped, so the oldest kept message follows
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
	require.Equal(t, "while that runs", h.lastText())
	h.finish(bgagent.StopEndOfTurn, "")
	page, err = h.page("1", 0)
	require.NoError(t, err)
	require.Equal(t, first, page.Messages[0])
	require.Equal(t, []bgagent.MessageTool{one, two}, page.Messages[1].Tools)
}

func TestAnAnswerIsWholeHoweverSmallTheHistory(t *testing.T) {
	h := &conversation{max: 1000}
	h.add(bgagent.Message{Role: bgagent.RoleUser, Text: "prompt", Finished: true})
	require.Empty(t, h.lastText())
	h.said(bgagent.RoleAgent, strings.Repeat("a", 600), nil)
	h.said(bgagent.RoleAgent, strings.Repeat("b", 2400), nil)
	require.Equal(t, strings.Repeat("a", 600)+strings.Repeat("b", 2400), h.lastText())
	h.used(bgagent.MessageTool{ID: "1", Name: "grep"})
	h.thought(strings.Repeat("t", 3000), nil)
	require.Len(t, h.lastText(), 3000, "reasoning is not part of the answer")
	h.said(bgagent.RoleAgent, "the answer", nil)
	require.Equal(t, "the answer", h.lastText())
	for range 5 { // adds more text than is kept for an answer
		h.said(bgagent.RoleAgent, strings.Repeat("ä", 200<<10), nil)
	}
	require.Greater(t, len(h.lastText()), 1<<20)
	require.LessOrEqual(t, len(h.lastText()), maxAnswer)
	h.finish(bgagent.StopEndOfTurn, "")
	require.LessOrEqual(t, h.size, 2*h.max)
	require.Nil(t, h.answer)
}

func TestToolCallsAreBoundedLikeText(t *testing.T) {
	h := &conversation{max: 64 << 10}
	turnOf(h, "one", "answer")
	h.add(bgagent.Message{Role: bgagent.RoleUser, Text: "two", Finished: true})
	for i := range 30_000 { // takes seconds if the time grows quadratically
		tool := bgagent.MessageTool{ID: strconv.Itoa(i), Name: "grep", State: bgagent.ToolRunning}
		h.used(tool)
		tool.State = bgagent.ToolDone
		h.used(tool)
	}
	page, err := h.page("", 0)
	require.NoError(t, err)
	require.LessOrEqual(t, h.size, h.max+200)
	last := page.Messages[len(page.Messages)-1]
	require.Greater(t, len(last.Tools), 1000)
	require.Equal(t, bgagent.MessageTool{ID: "999", Name: "grep", State: bgagent.ToolDone}, last.Tools[999])
	h.said(bgagent.RoleAgent, "and an answer", nil)
	require.Equal(t, "and an answer", h.lastText())
	h.finish(bgagent.StopEndOfTurn, "")
	size := 0
	for i := range h.msgs {
		size += sizeOf(&h.msgs[i])
	}
	require.Equal(t, size, h.size)
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
