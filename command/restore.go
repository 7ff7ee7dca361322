package command

import (
	"context"
	"errors"
	"fmt"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/procs"
)

var (
	_ bgagent.SessionRestorer = (*Client)(nil)
	_ bgagent.SessionHome     = (*Client)(nil)
)

// Home implements [bgagent.SessionHome]. The programs keep their sessions in the user's files. Home
// therefore returns the user's id and the name of the machine, in the form UID@HOST. It returns ""
// if the name of the machine is unknown.
func (c *Client) Home() string { return procs.Home() }

// RestoreSession implements [bgagent.SessionRestorer]. First it kills the processes that the
// earlier host left running. Then it reads what the program has stored about the session; see
// [Program].Look. It works only on Linux. On other systems the client cannot find the processes,
// so RestoreSession returns an error.
//
// The error matches [bgagent.ErrBusy] if ctx ends first, if a process cannot be terminated, or if a
// turn is still running in the session. If the program has lost the session, the error matches
// [bgagent.ErrNoSession]. If what the program has stored cannot be read or does not show which
// session is meant, the error matches [bgagent.ErrUnreadable]. After Close, the error is [ErrClosed].
func (c *Client) RestoreSession(ctx context.Context, r bgagent.SessionRestore) (bgagent.PromptState, bgagent.TurnEnd, error) {
	if err := c.endLeft(ctx, r); err != nil {
		return bgagent.PromptUnknown, bgagent.TurnEnd{}, err
	}
	if r.Session == "" { // CreateSession does not start the program, so the program has no session
		return bgagent.PromptMissing, bgagent.TurnEnd{}, nil
	}
	s, err := c.adopt(r)
	if err != nil {
		return bgagent.PromptUnknown, bgagent.TurnEnd{}, err
	}
	state, end, err := bgagent.PromptMissing, bgagent.TurnEnd{}, error(nil)
	if r.Last.ID != "" {
		state, end, err = c.recall(ctx, s, r)
	}
	if err == nil && s.forgot && s.own == "" && (state == bgagent.PromptMissing || state == bgagent.PromptInterrupted) {
		state, err = bgagent.PromptMissing, fmt.Errorf("command: %s: %w: %w", s.agent.Program.Executable, errForgotten, bgagent.ErrNoSession)
	}
	if errors.Is(err, bgagent.ErrNoSession) {
		c.ForgetSession(r.Session)
	}
	return state, end, err
}

// The method "adopt" returns the session. If the client does not know the session, or if a manager
// of another process has used the session since this client last used it, the method creates it
// from the saved state.
func (c *Client) adopt(r bgagent.SessionRestore) (s *session, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, ErrClosed
	}
	if s := c.sessions[r.Session]; s != nil {
		if s.run != nil { // the earlier manager ran in this process
			s.run.stop(errAborted)
			return nil, fmt.Errorf("command: session %q: %w", r.Session, bgagent.ErrBusy)
		}
		if r.Instance == "" || r.Instance == s.by || len(r.Saved) == 0 {
			return s, nil // what the client knows is not older than the saved state
		}
	}
	if s, err = c.newSession(r.Spec); err != nil {
		return nil, err
	}
	x, err := decodeSaved(r.Saved)
	if err != nil {
		return nil, err
	}
	s.restore(x)
	if s.agent.Program.ForgetsUnanswered && !s.answered && !s.now.of(r) {
		s.own = "" // the last prompt began another session of the program
	}
	c.sessions[r.Session] = s
	return s, nil
}

// endLeft kills the processes that the earlier host left running.
func (c *Client) endLeft(ctx context.Context, r bgagent.SessionRestore) error {
	switch r.Instance {
	case "", c.cfg.Instance, r.Spec.Instance:
		if r.Last.ID != "" {
			return errors.New("command: the processes of the earlier host cannot be distinguished from those of this host; give every run of the host another Config.Instance")
		}
		return nil
	}
	switch err := c.left.End(ctx, r.Instance, c.cfg.Instance, r.Spec.Instance); {
	case errors.Is(err, procs.ErrLeft):
		return fmt.Errorf("command: %w: %w", bgagent.ErrBusy, err)
	case err != nil:
		return fmt.Errorf("command: %w", err)
	}
	return nil
}
