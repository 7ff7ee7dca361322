package opencode

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bgagent/bgagent"
)

// readAhead is how many of the newest messages are asked for at a time.
const readAhead = 50

// Messages implements [bgagent.MessageReader]. The cursor is the id of the last
// message before which nothing changes any more; ids are in order of time.
func (c *Client) Messages(ctx context.Context, id string, after bgagent.Cursor, most int) (bgagent.Page, error) {
	s, err := c.known(ctx, id)
	if err != nil {
		return bgagent.Page{}, err
	}
	found, err := c.messagesAfter(ctx, id, s.dir, string(after))
	if err != nil {
		return bgagent.Page{}, err
	}
	page := bgagent.Page{Next: after}
	if most > 0 && len(found) > most {
		found, page.More = found[:most], true
	}
	settled := true
	for _, w := range found {
		msg := c.message(w)
		page.Messages = append(page.Messages, msg)
		if settled = settled && msg.Finished; settled {
			page.Next = bgagent.Cursor(w.Info.ID)
		}
	}
	return page, nil
}

// messagesAfter returns the messages that are newer than the one with the id,
// oldest first. The server gives the newest ones first, so it is asked until one
// is met that is old.
func (c *Client) messagesAfter(ctx context.Context, id, dir, after string) (all []wireMessage, err error) {
	before := ""
	for {
		query := url.Values{"limit": {strconv.Itoa(readAhead)}}
		if dir != "" {
			query.Set("directory", dir)
		}
		if before != "" {
			query.Set("before", before)
		}
		var page []wireMessage
		err := c.get(ctx, "/session/"+url.PathEscape(id)+"/message", query, &page)
		switch {
		case missing(err):
			return nil, fmt.Errorf("opencode: reading session %q: %w", id, bgagent.ErrNoSession)
		case err != nil:
			return nil, fmt.Errorf("opencode: reading session %q: %w", id, err)
		}
		slices.SortFunc(page, byID)
		n := len(page)
		oldest := ""
		if n > 0 {
			oldest = page[0].Info.ID
		}
		page = slices.DeleteFunc(page, func(w wireMessage) bool { return w.Info.ID <= after })
		all = append(page, all...)
		if n < readAhead || len(page) < n || oldest == before {
			return all, nil
		}
		before = oldest
	}
}

// newest returns the id of the session's newest message, or nothing.
func (c *Client) newest(ctx context.Context, id, dir string) (string, error) {
	query := url.Values{"limit": {"1"}}
	if dir != "" {
		query.Set("directory", dir)
	}
	var page []wireMessage
	if err := c.get(ctx, "/session/"+url.PathEscape(id)+"/message", query, &page); err != nil || len(page) == 0 {
		return "", err
	}
	return page[len(page)-1].Info.ID, nil
}

func byID(a, b wireMessage) int { return strings.Compare(a.Info.ID, b.Info.ID) }

// message turns a message of the server into one of the port.
func (c *Client) message(w wireMessage) bgagent.Message {
	msg := bgagent.Message{ID: w.Info.ID}
	if at := w.Info.Time.Created; at > 0 {
		msg.Time = time.UnixMilli(at)
	}
	var text, thought []string
	for _, p := range w.Parts {
		switch {
		case p.Type == "text" && !p.Ignored && p.Text != "":
			text = append(text, p.Text)
		case p.Type == "reasoning" && p.Text != "":
			thought = append(thought, p.Text)
		case p.Type == "tool":
			msg.Tools = append(msg.Tools, bgagent.MessageTool{ID: p.CallID, Name: p.Tool, State: toolState(p.State.Status)})
		}
	}
	msg.Text, msg.Reasoning = strings.Join(text, "\n\n"), strings.Join(thought, "\n\n")
	switch w.Info.Role {
	case "user":
		msg.Role, msg.Finished = bgagent.RoleUser, true
		c.mu.Lock()
		msg.PromptID = c.names[w.Info.ID]
		c.mu.Unlock()
	case "assistant":
		if w.Info.Summary != true {
			msg.Role = bgagent.RoleAgent
		}
		u := w.Info.Tokens
		msg.Usage = bgagent.Usage{InputTokens: u.Input + u.Cache.Read + u.Cache.Write, OutputTokens: u.Output + u.Reasoning, Cost: w.Info.Cost}
		msg.Finished, msg.Stop, msg.Error = ending(w.Info)
	default:
		msg.Finished = true
	}
	return msg
}

// ending returns how a message of the assistant ended: an error says that it
// failed or was aborted, a finish other than for tool calls that it was the last
// of its turn. With neither it may go on, or was interrupted.
func ending(info wireInfo) (finished bool, stop bgagent.StopReason, reason string) {
	if e := info.Error; e != nil {
		reason = strings.TrimSpace(e.Data.Message)
		if reason == "" {
			reason = e.Name
		}
		switch e.Name {
		case errAborted:
			return true, bgagent.StopAborted, reason
		case "MessageOutputLengthError":
			return true, bgagent.StopLength, reason
		case "ContentFilterError":
			return true, bgagent.StopRefused, reason
		}
		return true, bgagent.StopError, reason
	}
	if info.Finish == "" || info.Time.Completed == 0 {
		return false, bgagent.StopUntold, ""
	}
	switch info.Finish {
	case "tool-calls":
		return true, bgagent.StopUntold, ""
	case "length":
		return true, bgagent.StopLength, ""
	case "content-filter":
		return true, bgagent.StopRefused, ""
	case "error":
		return true, bgagent.StopError, "the model's answer ended with an error"
	}
	return true, bgagent.StopEndOfTurn, ""
}

// errAborted is the name of the error of a turn that somebody stopped.
const errAborted = "MessageAbortedError"

func toolState(s string) bgagent.ToolState {
	switch s {
	case "running":
		return bgagent.ToolRunning
	case "completed":
		return bgagent.ToolDone
	case "error":
		return bgagent.ToolFailed
	}
	return bgagent.ToolPending
}
