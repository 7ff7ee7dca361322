package inproc

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/bgagent/bgagent"
)

// Restored is the result of [Client.Restore]. It describes the state of a session from an earlier
// process.
type Restored struct {
	// Prompt is the state of the last prompt. If it is PromptMissing, the manager sends the same
	// prompt again. Use this state for agents whose turns can be repeated. If it is
	// PromptInterrupted, the manager sends a prompt that continues the turn. If it is
	// PromptUnknown, the attempt ends as interrupted.
	Prompt bgagent.PromptState

	// End is the end of the turn, with its answer. It is used only if Prompt is PromptAnswered.
	End bgagent.TurnEnd

	// History contains the prompts and answers that the next turn should know, oldest first.
	// [Turn.History] and [Client.Messages] return it. If the session has the last prompt, History
	// should contain it. Only the roles, texts, tool calls and stop reasons are used.
	History []bgagent.Message
}

// RestoreSession implements [bgagent.SessionRestorer]. It calls [Client.Restore] for sessions
// that this client did not create. If Restore is nil, it returns an error. The error matches
// [errors.ErrUnsupported] if the session might have a prompt, and [bgagent.ErrNoSession] if not.
// If a turn is running in the session, the error matches [bgagent.ErrBusy].
func (c *Client) RestoreSession(ctx context.Context, r bgagent.SessionRestore) (bgagent.PromptState, bgagent.TurnEnd, error) {
	if state, end, known, err := c.own(r); known {
		return state, end, err
	}
	gone := fmt.Errorf("inproc: session %q: %w", r.Session, bgagent.ErrNoSession)
	switch {
	case r.Session == "": // without a session, no prompt was sent
		return bgagent.PromptMissing, bgagent.TurnEnd{}, gone
	case c.Restore == nil && r.Last.ID == "":
		return bgagent.PromptMissing, bgagent.TurnEnd{}, gone
	case c.Restore == nil:
		return bgagent.PromptUnknown, bgagent.TurnEnd{}, fmt.Errorf("inproc: the client has no Restore function: %w", errors.ErrUnsupported)
	}
	agent, err := c.agent(r.Spec.Agent)
	if err != nil {
		return bgagent.PromptUnknown, bgagent.TurnEnd{}, err
	}
	found, err := c.Restore(ctx, r)
	if err != nil {
		return found.Prompt, bgagent.TurnEnd{}, err
	}
	s := &session{agent: agent, title: r.Spec.Title, dir: r.Spec.Directory, up: r.Spec.Parent}
	for _, x := range exchanges(found.History) {
		s.add(x)
	}
	more := s.extra()
	more.saved, more.restored = slices.Clone(r.Saved), true
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sessions[r.Session] == nil {
		c.sessions[r.Session] = s
	}
	return found.Prompt, found.End, nil
}

// The method "own" returns the results of RestoreSession if the client already has the session.
// This happens if the earlier manager was closed in this process. The result "known" reports
// whether the client has the session.
func (c *Client) own(r bgagent.SessionRestore) (state bgagent.PromptState, end bgagent.TurnEnd, known bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.sessions[r.Session]
	switch {
	case s == nil:
		return state, end, false, nil
	case s.run != nil:
		return state, end, true, fmt.Errorf("inproc: session %q: %w", r.Session, bgagent.ErrBusy)
	case s.more != nil && s.more.restored && (s.more.prompt == "" || s.more.prompt != r.Last.ID):
		return state, end, false, nil // RestoreSession was called again, so Restore must answer again
	case s.turns > 0 && (s.more == nil || s.more.prompt == ""):
		return bgagent.PromptUnknown, end, true, nil
	case s.turns == 0 || s.more.prompt != r.Last.ID:
		return bgagent.PromptMissing, end, true, nil
	case s.more.broke:
		return bgagent.PromptInterrupted, end, true, nil
	}
	last := s.exchange(int(s.turns) - 1)
	return bgagent.PromptAnswered, bgagent.TurnEnd{Stop: last.stop, Text: last.answer}, true, nil
}

// The function "exchanges" returns the turns that the messages describe.
func exchanges(history []bgagent.Message) (out []exchange) {
	for _, msg := range history {
		if msg.Role == bgagent.RoleUser || len(out) == 0 {
			out = append(out, exchange{})
		}
		x := &out[len(out)-1]
		if msg.Role == bgagent.RoleUser {
			x.prompt = msg.Text
			continue
		}
		if msg.Text != "" {
			x.answer = msg.Text
		}
		x.tools, x.stop = append(x.tools, msg.Tools...), msg.Stop
	}
	return out
}

// SaveState stores data that lets another process continue the session; see
// [bgagent.Reporter.SaveState]. Each call replaces the data of earlier calls, including calls in
// earlier turns. Without a store, the data lasts as long as the session in this process. SaveState
// copies the data.
func (t *Turn) SaveState(data []byte) {
	t.c.mu.Lock()
	t.s.extra().saved = slices.Clone(data)
	t.c.mu.Unlock()
	t.r.SaveState(data)
}

// Saved returns a copy of the data that was last stored with SaveState for the session, possibly in
// an earlier turn or an earlier process. Saved returns nil if nothing was stored.
func (t *Turn) Saved() []byte {
	t.c.mu.Lock()
	defer t.c.mu.Unlock()
	if t.s.more == nil {
		return nil
	}
	return slices.Clone(t.s.more.saved)
}
