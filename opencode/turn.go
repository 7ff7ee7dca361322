package opencode

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/bgagent/bgagent"
)

// StartTurn implements [bgagent.TurnStarter]. The prompt's message and its part
// have ids that belong to p.ID, so the server takes a repetition for the same.
// The error matches [bgagent.ErrBusy] when the session is in a turn already.
func (c *Client) StartTurn(ctx context.Context, id string, p bgagent.Prompt) error {
	s, err := c.known(ctx, id)
	if err != nil {
		return err
	}
	if !c.sent(p.ID) {
		if err := c.idle(ctx, id, s.dir); err != nil {
			return fmt.Errorf("opencode: prompting session %q: %w", id, err)
		}
	}
	model := p.Model
	if model == "" {
		model = c.cfg.Model
	}
	return c.prompt(ctx, id, s, p.ID, wirePrompt{Agent: p.Agent, System: p.System}, model, p.Text)
}

// Notify implements [bgagent.Notifier]: it prompts an idle session with the
// notice, for its own agent and model. A prompt for one that is in a turn would
// be answered by that turn or after it, nobody knows which: that is
// [bgagent.ErrBusy].
func (c *Client) Notify(ctx context.Context, id string, n bgagent.Notice) error {
	found, err := c.look(ctx, id)
	if err != nil {
		return err
	}
	if err := c.idle(ctx, id, found.Directory); err != nil {
		return err
	}
	s, err := c.known(ctx, id)
	if err != nil {
		return err
	}
	body, model := wirePrompt{Agent: found.Agent}, ""
	if m := found.Model; m != nil && m.ProviderID != "" && m.ID != "" {
		model = m.ProviderID + "/" + m.ID
	}
	return c.prompt(ctx, id, s, n.ID, body, model, n.Text)
}

// sent reports whether the prompt has been sent before.
func (c *Client) sent(prompt string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ok := c.prompts[prompt]
	return ok
}

// idle returns an error that matches [bgagent.ErrBusy] when the session is not.
func (c *Client) idle(ctx context.Context, id, dir string) error {
	busy, err := c.busy(ctx, dir)
	if err != nil {
		return err
	}
	if _, ok := busy[id]; ok {
		return bgagent.ErrBusy
	}
	return nil
}

// prompt hands a prompt over.
func (c *Client) prompt(ctx context.Context, id string, s session, prompt string, body wirePrompt, model, text string) (err error) {
	if body.Model, err = parseModel(model); err != nil {
		return fmt.Errorf("opencode: prompting session %q: %w", id, err)
	}
	newest, err := c.newest(ctx, id, s.dir)
	if err != nil && !missing(err) { // the prompt itself says so better
		return fmt.Errorf("opencode: prompting session %q: %w", id, err)
	}
	body.MessageID = c.messageID(prompt, newest)
	body.Parts = []wireTextPart{{ID: partID(body.MessageID), Type: "text", Text: text}}
	err = c.do(ctx, http.MethodPost, "/session/"+url.PathEscape(id)+"/prompt_async", in(s.dir), body, nil)
	switch {
	case missing(err):
		return fmt.Errorf("opencode: prompting session %q: %w", id, bgagent.ErrNoSession)
	case err != nil:
		return fmt.Errorf("opencode: prompting session %q: %w", id, err)
	}
	return nil
}

// isNoSession reports whether the error says that there is no such session.
func isNoSession(err error) bool { return errors.Is(err, bgagent.ErrNoSession) }
