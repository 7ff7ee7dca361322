package acp

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bgagent/bgagent"
)

// conversation is what this client has seen of a session's conversation. Only
// its last message can still change. Client.mu guards it.
type conversation struct {
	max    int  // bytes that are kept
	replay bool // what the agent replays is taken over

	first int // number of msgs[0], from 0
	msgs  []bgagent.Message
	size  int // bytes of all messages
	turn  int // number of the first message after the last prompt

	// Of the last message, while it is not finished.
	text, thoughts []byte
	id             string // the agent's own id of it, if it has one
}

func (h *conversation) empty() bool { return h.first == 0 && len(h.msgs) == 0 }

// add appends a message.
func (h *conversation) add(msg bgagent.Message) *bgagent.Message {
	h.closeLast()
	msg.ID = "msg_" + strconv.Itoa(h.first+len(h.msgs)+1)
	h.msgs = append(h.msgs, msg)
	h.size += sizeOf(&msg)
	if msg.Role == bgagent.RoleUser {
		h.turn = h.first + len(h.msgs)
	}
	h.trim()
	return &h.msgs[len(h.msgs)-1]
}

// trim drops the oldest messages until the rest is small enough.
func (h *conversation) trim() {
	n := 0
	for ; h.size > h.max && n < len(h.msgs)-1; n++ {
		h.size -= sizeOf(&h.msgs[n])
	}
	if n > 0 {
		h.msgs = slices.Delete(h.msgs, 0, n)
		h.first += n
	}
}

// sizeOf returns roughly the bytes that a finished message takes.
func sizeOf(m *bgagent.Message) int {
	n := 64 + len(m.Text) + len(m.Reasoning) + len(m.Error)
	for _, t := range m.Tools {
		n += 48 + len(t.ID) + len(t.Name)
	}
	return n
}

// last returns the last message if it can still change.
func (h *conversation) last() *bgagent.Message {
	if n := len(h.msgs); n > 0 && !h.msgs[n-1].Finished {
		return &h.msgs[n-1]
	}
	return nil
}

// closeLast finishes the last message.
func (h *conversation) closeLast() {
	if m := h.last(); m != nil {
		m.Text, m.Reasoning, m.Finished = string(h.text), string(h.thoughts), true
		h.text, h.thoughts, h.id = nil, nil, ""
	}
}

// open returns the message that the agent, or in a replay the user, goes on
// writing, and whether it has just begun. A new one begins after a tool call,
// and where the agent says so.
func (h *conversation) open(role bgagent.Role, id *string) (m *bgagent.Message, fresh bool) {
	own := value(id)
	m = h.last()
	if m != nil && m.Role == role && len(m.Tools) == 0 && (own == "" || h.id == "" || own == h.id) {
		if own != "" {
			h.id = own
		}
		return m, false
	}
	m = h.add(bgagent.Message{Role: role, Time: time.Now()})
	h.id = own
	return m, true
}

// said takes a piece of a message. It reports whether another message of the
// same turn, without a tool call, came right before it.
func (h *conversation) said(role bgagent.Role, text string, id *string) (second bool) {
	if text == "" {
		return false
	}
	m, fresh := h.open(role, id)
	if n := len(h.msgs); fresh && n > 1 && h.first+n-1 > h.turn {
		before := &h.msgs[n-2]
		second = before.Role == m.Role && before.Text != "" && len(before.Tools) == 0
	}
	h.text = h.grow(h.text, text)
	return second
}

// thought takes a piece of reasoning.
func (h *conversation) thought(text string, id *string) {
	if text != "" {
		h.open(bgagent.RoleAgent, id)
		h.thoughts = h.grow(h.thoughts, text)
	}
}

// grow appends to the last message, which does not become larger than all that
// is kept.
func (h *conversation) grow(b []byte, text string) []byte {
	if room := h.max - len(h.text) - len(h.thoughts); len(text) > room {
		text = strings.ToValidUTF8(text[:max(room, 0)], "")
	}
	h.size += len(text)
	h.trim()
	return append(b, text...)
}

// used takes how far a tool call has got. When the message that made the call is
// finished, as it is when calls overlap, the next one tells the rest.
func (h *conversation) used(t bgagent.MessageTool) {
	same := func(x bgagent.MessageTool) bool { return x.ID == t.ID }
	for i := len(h.msgs) - 1; i >= 0 && h.first+i >= h.turn; i-- {
		m := &h.msgs[i]
		j := slices.IndexFunc(m.Tools, same)
		switch {
		case j < 0:
			continue
		case m.Tools[j] == t:
			return
		case !m.Finished:
			m.Tools[j] = t
			return
		}
		break
	}
	m := h.last()
	if m == nil || m.Role != bgagent.RoleAgent {
		m = h.add(bgagent.Message{Role: bgagent.RoleAgent, Time: time.Now()})
	}
	m.Tools = append(m.Tools, t)
	h.size += 48 + len(t.ID) + len(t.Name)
}

// use adds what the last message has cost.
func (h *conversation) use(u bgagent.Usage) {
	if m := h.last(); m != nil {
		m.Usage.InputTokens += u.InputTokens
		m.Usage.OutputTokens += u.OutputTokens
		m.Usage.Cost += u.Cost
	}
}

// finish ends the turn. One that failed without a word leaves an empty message,
// so that the conversation shows how it ended.
func (h *conversation) finish(stop bgagent.StopReason, reason string) {
	m := h.last()
	if m == nil {
		if stop == bgagent.StopUntold || stop == bgagent.StopEndOfTurn || h.empty() {
			return
		}
		m = h.add(bgagent.Message{Role: bgagent.RoleAgent, Time: time.Now()})
	}
	m.Stop = stop
	if stop == bgagent.StopError || stop == bgagent.StopAborted || stop == bgagent.StopInterrupted {
		m.Error = reason
	}
	h.closeLast()
}

// lastText returns the last text that the agent has written in the turn.
func (h *conversation) lastText() string {
	if h.last() != nil && len(h.text) > 0 {
		return string(h.text)
	}
	for i := len(h.msgs) - 1; i >= 0 && h.first+i >= h.turn; i-- {
		if m := &h.msgs[i]; m.Role == bgagent.RoleAgent && m.Text != "" {
			return m.Text
		}
	}
	return ""
}

// page returns at most max messages from the cursor on.
func (h *conversation) page(after bgagent.Cursor, max int) (bgagent.Page, error) {
	from := 0
	if after != "" {
		var err error
		if from, err = strconv.Atoi(string(after)); err != nil || from < 0 {
			return bgagent.Page{}, fmt.Errorf("the cursor %.40q is not one of this client's", after)
		}
	}
	var page bgagent.Page
	next := from
	for i := from - h.first; i < len(h.msgs); i++ {
		if i < 0 { // the beginning has been dropped
			i = 0
		}
		if max > 0 && len(page.Messages) == max {
			page.More = true
			break
		}
		m := h.msgs[i]
		m.Tools = slices.Clone(m.Tools)
		if m.Finished { // what may still change is returned again
			next = h.first + i + 1
		} else {
			m.Text, m.Reasoning = string(h.text), string(h.thoughts)
			next = h.first + i
		}
		page.Messages = append(page.Messages, m)
	}
	if next > 0 || len(page.Messages) > 0 {
		page.Next = bgagent.Cursor(strconv.Itoa(next))
	}
	return page, nil
}
