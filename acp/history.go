package acp

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bgagent/bgagent"
)

// conversation is the part of a session's conversation that this client has seen. Only
// the last message can still change. Client.mu guards the conversation.
type conversation struct {
	max    int  // maximum number of bytes to keep
	replay bool // whether messages that the agent replays are added

	first int // number of msgs[0], counted from 0
	msgs  []bgagent.Message
	size  int // size of all messages in bytes
	turn  int // number of the first message after the last prompt

	// These fields describe the last message while it is unfinished.
	text, thoughts []byte
	id             string // the agent's id for the message; empty if it has none
	toolSize       int    // size of the message's tool calls in bytes
	called         bool   // whether the message has a tool call, even one that is not kept
	calledBefore   bool   // whether the previous message had a tool call

	// These fields describe the current turn.
	calls  map[string]place // latest place of each tool call
	answer []byte           // the agent's last text, whose size the field "max" does not limit
	from   int              // number of the message with the answer
	prior  []byte           // text before the answer
}

// place identifies a tool call by the number of its message and the index of the call in
// that message.
type place struct{ msg, at int }

// maxAnswer is the maximum number of bytes kept from an answer. It is a little more than the
// manager keeps, so the manager notices if an answer is too long.
const maxAnswer = 1<<20 + 4

func (h *conversation) empty() bool { return h.first == 0 && len(h.msgs) == 0 }

// The method "add" appends a message and returns the stored copy.
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

// The method "trim" drops the oldest messages until the rest have at most h.max bytes. It always
// keeps the last message.
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

// The method "last" returns the last message, or nil if that message cannot change.
func (h *conversation) last() *bgagent.Message {
	if n := len(h.msgs); n > 0 && !h.msgs[n-1].Finished {
		return &h.msgs[n-1]
	}
	return nil
}

// closeLast marks the last message as finished.
func (h *conversation) closeLast() {
	if m := h.last(); m != nil {
		m.Text, m.Reasoning, m.Finished = string(h.text), string(h.thoughts), true
		h.text, h.thoughts, h.id, h.toolSize = nil, nil, "", 0
		h.calledBefore, h.called = h.called, false
	}
}

// The method "open" returns the message to which the agent's next piece belongs, and whether the
// message is new. In a replay, the message can be a user prompt. A new message begins after a tool
// call, and when the id changes. One also begins when a piece with an id follows text without an
// id, because the model did not write the text without an id.
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

// The method "said" adds a piece of text to a message. It reports true if the piece begins a
// message and the previous message is in the same turn, contains text and has no tool call.
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

// The method "answered" appends a piece of text to the answer of the turn. The answer is the last
// text in the turn. It is kept separately from the messages, because h.max does not limit its size.
func (h *conversation) answered(text string) {
	if now := h.first + len(h.msgs) - 1; now != h.from {
		h.answer, h.prior, h.from = h.prior[:0], h.answer, now
	}
	h.answer = append(h.answer, text[:min(len(text), maxAnswer-len(h.answer))]...)
}

// The method "thought" adds a piece of reasoning to a message.
func (h *conversation) thought(text string, id *string) {
	if text != "" {
		h.open(bgagent.RoleAgent, id)
		h.thoughts = h.grow(h.thoughts, text)
	}
}

// The method "grow" returns b, which is a part of the last message, with the text appended. If the
// last message alone would otherwise have more than h.max bytes, the method leaves out the end of
// the text.
func (h *conversation) grow(b []byte, text string) []byte {
	if room := h.room(); len(text) > room {
		text = strings.ToValidUTF8(text[:max(room, 0)], "")
	}
	h.size += len(text)
	h.trim()
	return append(b, text...)
}

// room returns the number of bytes by which the last message may still grow.
func (h *conversation) room() int { return h.max - len(h.text) - len(h.thoughts) - h.toolSize }

// The method "used" stores the state of a tool call. If calls overlap, the message with the call
// might already be finished. In that case, a later message records the change. A call is left out
// if the message would otherwise have more than h.max bytes.
func (h *conversation) used(t bgagent.MessageTool) {
	t.Input, t.Result = 0, 0 // the digests are left out, because readers of the conversation do not compare calls
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

// The method "use" adds u to the usage of the last message.
func (h *conversation) use(u bgagent.Usage) {
	if m := h.last(); m != nil {
		m.Usage.InputTokens += u.InputTokens
		m.Usage.OutputTokens += u.OutputTokens
		m.Usage.Cost += u.Cost
	}
}

// The method "finish" ends the turn. If the turn failed without any text, the method adds an empty
// message, so that the conversation shows how the turn ended.
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

// lastText returns the agent's last text in the current turn.
func (h *conversation) lastText() string { return strings.ToValidUTF8(string(h.answer), "") }

// priorText returns the agent's text before its last text in the current turn.
func (h *conversation) priorText() string { return strings.ToValidUTF8(string(h.prior), "") }

// goesOn reports whether a piece of text with this id continues the last message. A piece
// after a tool call, or after reasoning without text, also continues it.
func (h *conversation) goesOn(id string) bool {
	m := h.last()
	return m == nil || m.Role != bgagent.RoleAgent || h.called || len(h.text) == 0 || id == "" || h.id == "" || id == h.id
}

// The method "page" returns messages, starting at the cursor. If max is positive, it is the maximum number
// of messages.
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
		if m.Finished { // an unfinished message is returned again by the next call
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
