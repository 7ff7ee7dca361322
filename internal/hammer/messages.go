package hammer

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/bgagent/bgagent"
)

// sentMessage is a message that Send accepted. Its text serves as its key.
type sentMessage struct {
	task, text string
}

// send sends a message to a random task. Some messages are sent twice with the same key, at the same
// time or one after the other.
func (h *hammer) send() {
	id, by := h.target("Send")
	n, m, text := h.n, h.m, fmt.Sprintf("msg%d.", h.n)
	in := bgagent.SendInput{Key: text, Text: text, Now: h.r.IntN(10) == 0}
	for range 1 + h.r.IntN(2) {
		h.aside(func(ctx context.Context) {
			r, err := m.Send(ctx, by, id, in)
			h.o.log("%d send to %s by %q: %s %v", n, id, by.Session, r.State, err)
			if err == nil {
				h.o.sent(sentMessage{r.Task.ID, text}, r)
			}
		})
	}
}

// The method "sent" records a message that Send accepted, and checks what Send returned.
func (o *oracle) sent(s sentMessage, r bgagent.SendResult) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if r.State == bgagent.MessageRefused || r.Key != s.text {
		o.faultLocked("Send accepted %q of %s, and returned %+v", s.text, s.task, r)
	}
	o.messages[s] = true
}

// messageLocked records a prompt with a message. No session may get the same message as the prompt
// of two turns.
func (o *oracle) messageLocked(p bgagent.Prompt) {
	if !strings.HasPrefix(p.Text, "msg") {
		if strings.Contains(p.Text, "msg") {
			o.again[p.Task] = append(o.again[p.Task], p.Text)
		}
		return
	}
	s := sentMessage{p.Task, p.Text}
	if was := o.got[s]; was != "" && was != p.ID && !o.repeats[was] {
		o.faultLocked("%s has got %q as %s and as %s", p.Task, p.Text, was, p.ID)
	}
	o.got[s] = p.ID
}

// endedLocked checks that no message still waits for an attempt that has ended, and that a
// completed attempt received all its messages.
func (o *oracle) endedLocked(t bgagent.Task) {
	if t.Messages > 0 || t.Status == bgagent.Completed && len(t.Unconsumed) > 0 {
		o.faultLocked("%s.%d is %s, %d messages wait, and %v is unconsumed", t.ID, t.Attempt, t.Status, t.Messages, t.Unconsumed)
	}
	for _, u := range t.Unconsumed {
		o.named[sentMessage{t.ID, u.Key}] = true
	}
}

// nothingUnsaid checks that each accepted message reached a turn or is listed as unconsumed.
func (h *hammer) nothingUnsaid() {
	h.o.mu.Lock()
	sent := make([]sentMessage, 0, len(h.o.messages))
	for s := range h.o.messages {
		sent = append(sent, s)
	}
	h.o.mu.Unlock()
	for _, s := range sent {
		r, err := h.m.Send(context.Background(), bgagent.Caller{}, s.task, bgagent.SendInput{Key: s.text})
		if errors.Is(err, bgagent.ErrExpired) || errors.Is(err, bgagent.ErrUnknownTask) || errors.Is(err, bgagent.ErrClosed) {
			continue // the task is no longer in memory, and a closed manager does not read the store
		}
		h.o.mu.Lock()
		got := h.o.got[s] != ""
		for _, p := range h.o.again[s.task] { // the message may have reached the task in a prompt that continues an interrupted turn
			got = got || strings.Contains(p, s.text)
		}
		if errors.Is(err, bgagent.ErrAlreadyEnded) && (got || h.o.named[s]) { // the key expired with the task's record, and the task was resumed
			h.o.mu.Unlock()
			continue
		}
		if err != nil || r.State != bgagent.MessageUnconsumed && r.State != bgagent.MessageUncertain && !(r.State == bgagent.MessageInTurn && got) {
			h.o.faultLocked("%q was accepted by %s, and is %s: %v; a turn has got it: %v", s.text, s.task, r.State, err, got)
		}
		h.o.mu.Unlock()
	}
}
