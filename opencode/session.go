package opencode

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/bgagent/bgagent"
)

// CreateSession implements [bgagent.SessionClient]. An agent that the server does
// not have is a [*bgagent.NoSuchAgentError]: the server itself would accept it,
// and its prompts, and then do nothing.
func (c *Client) CreateSession(ctx context.Context, s bgagent.SessionSpec) (string, error) {
	dir := s.Directory
	if dir == "" {
		dir = c.cfg.Directory
	}
	if err := c.checkAgent(ctx, s.Agent); err != nil {
		return "", err
	}
	body := wireNewSession{Title: s.Title, Agent: s.Agent}
	if isSession(s.Parent) {
		body.ParentID = s.Parent
	}
	for _, p := range s.Permissions {
		body.Permission = append(body.Permission, wireRule{p.Name, p.Pattern, string(p.Action)})
	}
	var made wireSession
	if err := c.do(ctx, http.MethodPost, "/session", in(dir), body, &made); err != nil {
		return "", fmt.Errorf("opencode: creating a session: %w", err)
	}
	if made.ID == "" {
		return "", fmt.Errorf("opencode: creating a session: %s is no opencode server: its answer has no id", c.base)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if made.Time.Created > 0 {
		c.clock = time.Until(time.UnixMilli(made.Time.Created))
	}
	c.sessions[made.ID] = &session{dir: made.Directory, task: true}
	c.dirs[made.Directory] = true
	return made.ID, nil
}

// isSession reports whether the name is one that opencode gives to sessions.
func isSession(name string) bool { return strings.HasPrefix(name, "ses") }

// known returns what is known of the session, asking the server when that is
// nothing. The error wraps [bgagent.ErrNoSession] when there is no such session.
func (c *Client) known(ctx context.Context, id string) (session, error) {
	c.mu.Lock()
	s := c.sessions[id]
	c.mu.Unlock()
	if s == nil {
		if _, err := c.look(ctx, id); err != nil {
			return session{}, err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if s = c.sessions[id]; s == nil { // forgotten just now
		return session{dir: c.cfg.Directory}, nil
	}
	return *s, nil
}

// look asks the server for the session.
func (c *Client) look(ctx context.Context, id string) (found wireSession, err error) {
	if !isSession(id) {
		return found, fmt.Errorf("opencode: session %q: %w", id, bgagent.ErrNoSession)
	}
	err = c.get(ctx, "/session/"+url.PathEscape(id), nil, &found)
	switch {
	case missing(err):
		return found, fmt.Errorf("opencode: session %q: %w", id, bgagent.ErrNoSession)
	case err != nil:
		return found, fmt.Errorf("opencode: looking for session %q: %w", id, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sessions[id] == nil {
		c.sessions[id] = &session{dir: found.Directory}
		c.dirs[found.Directory] = true
	}
	return found, nil
}

// FindSession implements [bgagent.SessionFinder].
func (c *Client) FindSession(ctx context.Context, id string) (bgagent.SessionInfo, error) {
	found, err := c.look(ctx, id)
	if err != nil {
		return bgagent.SessionInfo{}, err
	}
	return bgagent.SessionInfo{Parent: found.ParentID, Directory: found.Directory}, nil
}

// Abort implements [bgagent.SessionClient].
func (c *Client) Abort(ctx context.Context, id string) error {
	if !isSession(id) {
		return nil
	}
	s, err := c.known(ctx, id)
	if err != nil {
		if errors.Is(err, bgagent.ErrNoSession) {
			return nil
		}
		return err
	}
	err = c.do(ctx, http.MethodPost, "/session/"+url.PathEscape(id)+"/abort", in(s.dir), struct{}{}, nil)
	if err != nil && !missing(err) {
		return fmt.Errorf("opencode: aborting session %q: %w", id, err)
	}
	return nil
}

// deletePause is the pause between two looks at whether an aborted session is
// idle, which takes 10 to 170 ms.
const deletePause = 50 * time.Millisecond

// Delete deletes a session and those below it. The server would let a turn that
// runs go on, so it is aborted first, and Delete waits until it is idle or ctx
// ends. A session that does not exist is no error.
func (c *Client) Delete(ctx context.Context, id string) error {
	if err := c.Abort(ctx, id); err != nil {
		return err
	}
	for {
		all, err := c.Statuses(ctx, []string{id})
		if err != nil {
			return err
		}
		if state := all[id].State; state == bgagent.SessionGone {
			return nil
		} else if state == bgagent.SessionIdle {
			break
		}
		select {
		case <-time.After(deletePause):
		case <-ctx.Done():
			return fmt.Errorf("opencode: deleting session %q: it did not become idle: %w", id, context.Cause(ctx))
		}
	}
	s, err := c.known(ctx, id)
	if err != nil {
		return err
	}
	if err := c.do(ctx, http.MethodDelete, "/session/"+url.PathEscape(id), in(s.dir), nil, nil); err != nil && !missing(err) {
		return fmt.Errorf("opencode: deleting session %q: %w", id, err)
	}
	c.ForgetSession(id)
	return nil
}

// ForgetSession implements [bgagent.SessionForgetter]. The session stays on the
// server, where people may look at it; see [Client.Delete].
func (c *Client) ForgetSession(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.sessions, id)
}

// agentsFresh is for how long the server's list of agents is believed.
const agentsFresh = 10 * time.Second

// Agents implements [bgagent.AgentLister].
func (c *Client) Agents(ctx context.Context) ([]bgagent.AgentInfo, error) {
	c.mu.Lock()
	if c.agents != nil && time.Since(c.agentsAt) < agentsFresh {
		defer c.mu.Unlock()
		return slices.Clone(c.agents), nil
	}
	c.mu.Unlock()
	var all []wireAgent
	if err := c.get(ctx, "/agent", in(c.cfg.Directory), &all); err != nil {
		return nil, fmt.Errorf("opencode: listing the agents: %w", err)
	}
	list := make([]bgagent.AgentInfo, 0, len(all))
	for _, a := range all {
		if !a.Hidden {
			list = append(list, bgagent.AgentInfo{Name: a.Name, Description: a.Description})
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.agents, c.agentsAt = list, time.Now()
	return slices.Clone(list), nil
}

// checkAgent returns an error when the server has no such agent.
func (c *Client) checkAgent(ctx context.Context, name string) error {
	list, err := c.Agents(ctx)
	if err != nil {
		return err
	}
	var names []string
	for _, a := range list {
		if a.Name == name {
			return nil
		}
		names = append(names, a.Name)
	}
	return &bgagent.NoSuchAgentError{Agent: name, Known: names}
}
