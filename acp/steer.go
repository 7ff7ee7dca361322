package acp

import (
	"context"
	"errors"
	"fmt"

	"github.com/bgagent/bgagent"
	sdk "github.com/coder/acp-go-sdk"
)

var _ bgagent.Steerer = (*Client)(nil)

// methodSteer is an extension of the protocol. An agent announces it in the answer to initialize, in
// _meta.steering.supported.
const methodSteer = "_session/steering"

// steerRequest asks the agent to add a message to the session's running turn.
type steerRequest struct {
	SessionID sdk.SessionId      `json:"sessionId"`
	Prompt    []sdk.ContentBlock `json:"prompt"`
	Meta      map[string]any     `json:"_meta"`
}

// hostPrompts asks the agent not to start a turn if none is running.
var hostPrompts = map[string]any{"steering": map[string]any{"idleBehavior": "promptRequired"}}

// Steer implements [bgagent.Steerer] for agents that support the extension "_session/steering", such
// as claude-agent-acp and codex-acp. For other agents, the error is [errors.ErrUnsupported]: the
// client never sends a second prompt during a turn. If the model is writing text, both agents stop
// the model and call it again with the message; the model might not see the text written so far. In
// claude-agent-acp, a running command continues in the background. codex-acp first waits for its
// commands. If the agent starts its own turn for the message although it was asked not to, the error
// matches [bgagent.ErrUncertain], and Steer cancels the agent's turn. If the session is in a turn of
// this client at that time, Steer does not cancel, because the cancellation would stop both turns.
func (c *Client) Steer(ctx context.Context, id string, msg bgagent.TurnMessage) error {
	text := msg.Text
	if isCommand(text) {
		text = leadMessage + text
	}
	p, t, err := c.steerable(id, text)
	if err != nil {
		return err
	}
	t.save()
	req := steerRequest{sdk.SessionId(id), []sdk.ContentBlock{sdk.TextBlock(text)}, hostPrompts}
	var answer struct {
		Outcome string `json:"outcome"`
	}
	err = p.conn.call(ctx, methodSteer, req, &answer)
	var refused *sdk.RequestError
	switch {
	case errors.As(err, &refused) && refused.Code == codeNoMethod:
		t.leaves(text)
		return fmt.Errorf("acp: %w: %w", errors.ErrUnsupported, err)
	case errors.As(err, &refused) && (refused.Code == codeBadParams || refused.Code == codeNotFound):
		t.leaves(text)
		return fmt.Errorf("acp: session %q: %w", id, err)
	case err != nil:
		return fmt.Errorf("acp: session %q: %w: %w", id, bgagent.ErrUncertain, err)
	}
	switch answer.Outcome {
	case "injected":
		return nil
	case "promptRequired":
		t.leaves(text)
		return fmt.Errorf("acp: session %q: %w", id, errNoTurn)
	}
	end := ""
	if answer.Outcome == "startedNewTurn" && c.cancelOwn(p, t) {
		end = ", and the turn that it has started was cancelled"
	}
	return fmt.Errorf("acp: session %q: %w: the agent answered %.40q%s", id, bgagent.ErrUncertain, answer.Outcome, end)
}

// The method "leaves" records and saves that the agent has refused the text.
func (t *turn) leaves(text string) {
	if t.prompt.Instance == "" {
		return
	}
	t.c.mu.Lock()
	t.s.memory.leaves(text)
	t.c.mu.Unlock()
	t.save()
}

// cancelOwn cancels the turn that the agent started on its own after the given turn. If a prompt of
// this client is unanswered, it does nothing and returns false.
func (c *Client) cancelOwn(p *process, t *turn) bool {
	c.mu.Lock() // held until the notification is queued, so that no turn of this client begins before that
	defer c.mu.Unlock()
	if now := t.s.turn; now != nil && (now != t || !t.answered) {
		return false
	}
	return p.conn.notify(sdk.AgentMethodSessionCancel, sdk.CancelNotification{SessionId: sdk.SessionId(t.s.id)}) == nil
}

var errNoTurn = errors.New("the session is not in a turn")

// leadMessage is put in front of a message that the agent would otherwise treat as a command.
const leadMessage = "A message:\n\n"

// The method "steerable" returns the session's process and turn, and records that the agent gets the
// text.
func (c *Client) steerable(id, text string) (*process, *turn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.sessions[id]
	switch {
	case s == nil:
		return nil, nil, noSession(id)
	case s.turn == nil || s.turn.answered || s.turn.over || s.turn.stopped() || s.proc == nil:
		return nil, nil, fmt.Errorf("acp: session %q: %w", id, errNoTurn)
	}
	if _, in := s.proc.turns[s.turn]; !in {
		return nil, nil, fmt.Errorf("acp: session %q: %w: the agent has not received the prompt yet", id, errNoTurn)
	}
	steering, _ := s.proc.init.Meta["steering"].(map[string]any)
	if yes, _ := steering["supported"].(bool); !yes {
		return nil, nil, fmt.Errorf("acp: the agent does not support %s: %w", methodSteer, errors.ErrUnsupported)
	}
	if s.turn.prompt.Instance != "" {
		s.memory.joins(text)
	}
	return s.proc, s.turn, nil
}
