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
	max    int  // most bytes to keep
	replay bool // messages that the agent replays are added

	first int // number of msgs[0], counted from 0
	msgs  []bgagent.Message
	size  int // bytes of all messages
	turn  int // number of the first message after the last prompt

	// About the last message, while it is not finished.
	text, thoughts []byte
	id             string // the agent's own id of the message, if it has one
	toolSize       int    // bytes of its tool calls
	called         bool   // it has made a tool call, kept or not
	calledBefore   bool   // the message before it had made a tool call

	// About the current turn.
	calls  map[string]place // where each tool call was last recorded
	answer []byte           // the last text that the agent has written, not limited by max
	from   int              // number of the message with the answer
	prior  []byte           // the text before the answer
}

// place locates a tool call: the number of its message, and its index in that.
type place struct{ msg, at int }

// maxAnswer bounds the text of an answer. It is a little more than the manager keeps,
// so that the manager sees that there was more.
const maxAnswer = 1<<20 + 4

func (h *conversation) empty() bool { return h.first == 0 && len(h.msgs) == 0 }

// add appends a message.
func (h *conversation) add(msg bgagent.Message) *bgagent.Message {
	h.closeLast()
	msg.ID = "msg_" + strconv.Itoa(h.first+len(h.msgs)+1)
	h.msgs = append(h.msgs, msg)
	h.size += sizeOf(&msg)
	if msg.Role == bgagent.RoleUser {
		h.turn = h.first + len(h.msgs)
		h.calls, h.answer, h.prior, h.from = nil, nil, nil, -1
	}
	h.trim()
	return &h.msgs[len(h.msgs)-1]
}

// trim drops the oldest messages until the rest fits into max.
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

// sizeOf returns the approximate size of a finished message in bytes.
func sizeOf(m *bgagent.Message) int {
	n := 64 + len(m.Text) + len(m.Reasoning) + len(m.Error)
	for _, t := range m.Tools {
		n += sizeOfTool(t)
	}
	return n
}

func sizeOfTool(t bgagent.MessageTool) int { return 48 + len(t.ID) + len(t.Name) }

// last returns the last message if it can still change, else nil.
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
		h.text, h.thoughts, h.id, h.toolSize = nil, nil, "", 0
		h.calledBefore, h.called = h.called, false
	}
}

// open returns the message that the agent (or the user, in a replay) is writing, and
// whether it is new. A new message begins after a tool call, when the agent's id of it
// changes, and when the agent gives an id for the first time: text without an id before
// that is not the model's.
func (h *conversation) open(role bgagent.Role, id *string) (m *bgagent.Message, fresh bool) {
	own := value(id)
	m = h.last()
	if m != nil && m.Role == role && !h.called && (own == "" || own == h.id || h.id == "" && len(h.text) == 0) {
		if own != "" {
			h.id = own
		}
		return m, false
	}
	m = h.add(bgagent.Message{Role: role, Time: time.Now()})
	h.id = own
	return m, true
}

// said adds a piece of a message. It reports whether the piece begins a message right
// after another message of the same turn that made no tool call.
func (h *conversation) said(role bgagent.Role, text string, id *string) (second bool) {
	if text == "" {
		return false
	}
	m, fresh := h.open(role, id)
	if n := len(h.msgs); fresh && n > 1 && h.first+n-1 > h.turn {
		before := &h.msgs[n-2]
		second = before.Role == m.Role && before.Text != "" && !h.calledBefore
	}
	if role == bgagent.RoleAgent {
		h.answered(text)
	}
	h.text = h.grow(h.text, text)
	return second
}

// answered adds a piece of what may be the answer of the turn: the last text in it.
// The answer is kept apart from the messages, because it may be longer than max.
func (h *conversation) answered(text string) {
	if now := h.first + len(h.msgs) - 1; now != h.from {
		h.answer, h.prior, h.from = h.prior[:0], h.answer, now
	}
	h.answer = append(h.answer, text[:min(len(text), maxAnswer-len(h.answer))]...)
}

// thought adds a piece of reasoning.
func (h *conversation) thought(text string, id *string) {
	if text != "" {
		h.open(bgagent.RoleAgent, id)
		h.thoughts = h.grow(h.thoughts, text)
	}
}

// grow appends to the last message, as long as that alone stays within max.
func (h *conversation) grow(b []byte, text string) []byte {
	if room := h.room(); len(text) > room {
		text = strings.ToValidUTF8(text[:max(room, 0)], "")
	}
	h.size += len(text)
	h.trim()
	return append(b, text...)
}

// room returns how many bytes the last message may still grow by.
func (h *conversation) room() int { return h.max - len(h.text) - len(h.thoughts) - h.toolSize }

// used records the state of a tool call. If the message with the call is finished
// already, as it can be when calls overlap, a later message records the change. A
// call that would take the message above max is left out.
func (h *conversation) used(t bgagent.MessageTool) {
	if p, told := h.calls[t.ID]; told && p.msg >= h.first {
		m := &h.msgs[p.msg-h.first]
		switch {
		case m.Tools[p.at] == t:
			return
		case !m.Finished:
			m.Tools[p.at] = t
			return
		}
	}
	m := h.last()
	if m == nil || m.Role != bgagent.RoleAgent {
		m = h.add(bgagent.Message{Role: bgagent.RoleAgent, Time: time.Now()})
	}
	h.called = true
	n := sizeOfTool(t)
	if n > h.room() {
		return
	}
	if h.calls == nil {
		h.calls = map[string]place{}
	}
	h.calls[t.ID] = place{h.first + len(h.msgs) - 1, len(m.Tools)}
	m.Tools = append(m.Tools, t)
	h.toolSize += n
	h.size += n
	h.trim()
}

// use adds to the usage of the last message.
func (h *conversation) use(u bgagent.Usage) {
	if m := h.last(); m != nil {
		m.Usage.InputTokens += u.InputTokens
		m.Usage.OutputTokens += u.OutputTokens
		m.Usage.Cost += u.Cost
	}
}

// finish ends the turn. A turn that failed without a word leaves an empty message, so
// that the conversation shows how it ended.
func (h *conversation) finish(stop bgagent.StopReason, reason string) {
	h.calls, h.answer, h.prior, h.from = nil, nil, nil, -1
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

// lastText returns the last text that the agent has written in the current turn.
func (h *conversation) lastText() string { return strings.ToValidUTF8(string(h.answer), "") }

// priorText returns the text before that.
func (h *conversation) priorText() string { return strings.ToValidUTF8(string(h.prior), "") }

// goesOn reports whether a piece of text with this id continues the last message, or
// begins the text that is still to come after a tool call or reasoning.
func (h *conversation) goesOn(id string) bool {
	m := h.last()
	return m == nil || m.Role != bgagent.RoleAgent || h.called || len(h.text) == 0 || id == "" || h.id == "" || id == h.id
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
		if i < 0 { // the messages at the cursor were dropped
			i = 0
		}
		if max > 0 && len(page.Messages) == max {
			page.More = true
			break
		}
		m := h.msgs[i]
		m.Tools = slices.Clone(m.Tools)
		if m.Finished { // a message that may still change is returned again
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
