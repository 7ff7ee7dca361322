package opencode

import (
	"context"
	"fmt"
	"net/url"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/bgagent/bgagent"
)

// lookups is how many sessions are looked for at once.
const lookups = 8

// Statuses implements [bgagent.TurnStarter]. The server answers for one
// directory at a time and leaves out what is idle there, which looks like what
// does not exist: those are looked for one by one.
func (c *Client) Statuses(ctx context.Context, ids []string) (map[string]bgagent.SessionStatus, error) {
	all := make(map[string]bgagent.SessionStatus, len(ids))
	byDir := map[string][]string{}
	for _, id := range ids {
		s, err := c.known(ctx, id)
		switch {
		case isNoSession(err):
			all[id] = bgagent.SessionStatus{State: bgagent.SessionGone}
		case err != nil:
			return nil, err
		default:
			byDir[s.dir] = append(byDir[s.dir], id)
		}
	}
	var absent []string
	for dir, ids := range byDir {
		busy, err := c.busy(ctx, dir)
		if err != nil {
			return nil, err
		}
		if len(busy) > 0 {
			if err := c.readQuestions(ctx, dir); err != nil {
				return nil, err
			}
		}
		for _, id := range ids {
			if s, ok := busy[id]; ok {
				all[id] = c.status(id, s)
			} else {
				absent = append(absent, id)
			}
		}
	}
	states := make([]bgagent.SessionState, len(absent))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(lookups)
	for i, id := range absent {
		g.Go(func() error {
			switch _, err := c.look(gctx, id); {
			case isNoSession(err):
				states[i] = bgagent.SessionGone
			case err != nil:
				return err
			default:
				states[i] = bgagent.SessionIdle
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	for i, id := range absent {
		all[id] = bgagent.SessionStatus{State: states[i], Revision: c.revision(id)}
	}
	return all, nil
}

// busy returns the sessions of the directory that are in a turn.
func (c *Client) busy(ctx context.Context, dir string) (map[string]wireStatus, error) {
	var all map[string]wireStatus
	if err := c.get(ctx, "/session/status", in(dir), &all); err != nil {
		return nil, fmt.Errorf("opencode: asking for the status of sessions: %w", err)
	}
	for id, s := range all {
		if s.Type == "idle" {
			delete(all, id)
		}
	}
	return all, nil
}

// status turns a status of the server into one of the port.
func (c *Client) status(id string, s wireStatus) bgagent.SessionStatus {
	out := bgagent.SessionStatus{State: bgagent.SessionBusy, Detail: s.Message, Revision: c.revision(id)}
	switch s.Type {
	case "idle":
		out.State = bgagent.SessionIdle
	case "busy":
		if q := c.question(id); q != "" {
			out.State, out.Detail = bgagent.SessionAsking, q
		}
	case "retry":
		out.State = bgagent.SessionRetrying
		if s.Next > 0 {
			out.RetryAt = time.UnixMilli(s.Next)
		}
	default: // a kind of being busy that is not known here
		out.Detail = s.Type
	}
	return out
}

// revision changes with every message that the stream tells of. While the stream
// is away nobody knows: then it is empty.
func (c *Client) revision(id string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.sessions[id]; s != nil && c.streamed {
		return strconv.Itoa(s.changes)
	}
	return ""
}

// question returns the question that the session waits for an answer to, if any.
func (c *Client) question(id string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.sessions[id]; s != nil {
		return s.asking
	}
	return ""
}

// Todos implements [bgagent.TodoReader].
func (c *Client) Todos(ctx context.Context, id string) ([]bgagent.Todo, error) {
	s, err := c.known(ctx, id)
	if err != nil {
		return nil, err
	}
	var list []wireTodo
	if err := c.get(ctx, "/session/"+url.PathEscape(id)+"/todo", in(s.dir), &list); err != nil {
		return nil, fmt.Errorf("opencode: reading the todos of session %q: %w", id, err)
	}
	return todos(list), nil
}

func todos(list []wireTodo) []bgagent.Todo {
	out := make([]bgagent.Todo, len(list))
	for i, t := range list {
		out[i].Text = t.Content
		switch t.Status {
		case "in_progress":
			out[i].State = bgagent.TodoInProgress
		case "completed":
			out[i].State = bgagent.TodoCompleted
		case "cancelled":
			out[i].State = bgagent.TodoCancelled
		}
	}
	return out
}
