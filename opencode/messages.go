package opencode

import (
	"context"
	"fmt"
	"net/http"
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
// message before which nothing changes any more.
func (c *Client) Messages(ctx context.Context, id string, after bgagent.Cursor, most int) (bgagent.Page, error) {
	s, err := c.known(ctx, id)
	if err != nil {
		return bgagent.Page{}, err
	}
	found, err := c.messagesAfter(ctx, id, s.dir, string(after))
	if err != nil {
		return bgagent.Page{}, err
	}
	last := lastAnswer(found)
	page := bgagent.Page{Next: after}
	if most > 0 && len(found) > most {
		found, page.More = found[:most], true
	}
	settled := true
	for i, w := range found {
		msg := c.message(w)
		if !msg.Finished && i < last { // the agent has written another one: a crash cut this one off
			msg.Finished, msg.Stop = true, bgagent.StopInterrupted
		}
		page.Messages = append(page.Messages, msg)
		if settled = settled && msg.Finished; settled {
			page.Next = bgagent.Cursor(w.Info.ID)
		}
	}
	return page, nil
}

// lastAnswer returns the index of the last message of the assistant.
func lastAnswer(list []wireMessage) int {
	for i := len(list) - 1; i >= 0; i-- {
		if list[i].Info.Role == "assistant" {
			return i
		}
	}
	return -1
}

// messagesAfter returns the messages after the one with the id, oldest first, in
// the server's own order: that of time, which may differ from that of ids. The
// server gives the newest ones first, and with them what to ask for next, so it is
// asked until the message is met.
func (c *Client) messagesAfter(ctx context.Context, id, dir, after string) (all []wireMessage, err error) {
	query := url.Values{"limit": {strconv.Itoa(readAhead)}}
	if dir != "" {
		query.Set("directory", dir)
	}
	for {
		page, next, err := c.messagePage(ctx, id, query)
		if err != nil {
			return nil, fmt.Errorf("opencode: reading session %q: %w", id, err)
		}
		met := slices.IndexFunc(page, func(w wireMessage) bool { return w.Info.ID == after })
		all = append(slices.Clone(page[met+1:]), all...)
		if met >= 0 || next == "" || next == query.Get("before") {
			return all, nil
		}
		query.Set("before", next)
	}
}

// messagePage returns the messages that the query asks for, oldest first, and
// the cursor of those before them.
func (c *Client) messagePage(ctx context.Context, id string, query url.Values) (page []wireMessage, next string, err error) {
	path := "/session/" + url.PathEscape(id) + "/message"
	resp, err := c.send(ctx, http.MethodGet, path, query, nil)
	if missing(err) {
		return nil, "", bgagent.ErrNoSession
	}
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	if err := c.decode(ctx, resp, path, &page); err != nil {
		return nil, "", err
	}
	return page, resp.Header.Get("X-Next-Cursor"), nil
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
			// Its call id comes from the model, which may use it again.
			msg.Tools = append(msg.Tools, bgagent.MessageTool{ID: p.ID, Name: p.Tool, State: toolState(p.State.Status)})
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
	if info.Time.Completed == 0 {
		return false, bgagent.StopUntold, ""
	}
	switch info.Finish {
	case "": // its turn was aborted while the model was tried again
		return true, bgagent.StopInterrupted, ""
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
