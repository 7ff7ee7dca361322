package opencode

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

// PermissionRequest is what an agent asks for leave to do.
type PermissionRequest struct {
	ID         string          // per_…
	Session    string          // that of the task, or one below it
	Permission string          // the kind of access: bash, edit, webfetch …
	Patterns   []string        // on what: commands, paths
	Metadata   json.RawMessage // what else the server tells, as JSON
}

// PermissionReply is the answer to a [PermissionRequest]. The zero value rejects.
type PermissionReply struct {
	Allow   bool
	Always  bool   // with Allow: also whatever matches in the same session later
	Message string // with a rejection: what the agent is told
}

// rejected is what an agent is told when nobody is there to decide.
const rejected = "Nobody is there to answer questions in a background task. Go on without it, or end with an account of what you would need."

// answerTimeout is how long an answer may take to be sent.
const answerTimeout = 10 * time.Second

// ask has a question of a task's session answered; it does nothing for others.
func (c *Client) ask(ctx context.Context, dir string, w wirePermission, answers *sync.WaitGroup) {
	text := strings.TrimSpace(w.Permission + " " + strings.Join(w.Patterns, ", "))
	c.mu.Lock()
	s := c.sessions[w.SessionID]
	mine := s != nil && s.task
	if mine {
		s.asking = text
		if dir == "" || dir == "global" {
			dir = s.dir
		}
	}
	c.mu.Unlock()
	if mine {
		answers.Go(func() { c.answer(ctx, dir, w) })
	}
}

// answer decides about a question, and sends the answer.
func (c *Client) answer(ctx context.Context, dir string, w wirePermission) {
	reply := PermissionReply{Message: rejected}
	if c.cfg.Permission != nil {
		reply = c.cfg.Permission(ctx, PermissionRequest{w.ID, w.SessionID, w.Permission, w.Patterns, w.Metadata})
	}
	body := wireReply{Reply: "reject", Message: reply.Message}
	switch {
	case reply.Allow && reply.Always:
		body = wireReply{Reply: "always"}
	case reply.Allow:
		body = wireReply{Reply: "once"}
	}
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	// One that cannot be sent is met again when the questions are next read.
	if err := c.do(ctx, http.MethodPost, "/permission/"+url.PathEscape(w.ID)+"/reply", in(dir), body, nil); err == nil || missing(err) {
		c.answered(w.SessionID)
	}
}

// answered notes that the session's question has been.
func (c *Client) answered(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.sessions[id]; s != nil {
		s.asking = ""
	}
}

// openQuestions returns what is asked in a directory.
func (c *Client) openQuestions(ctx context.Context, dir string) (list []wirePermission, err error) {
	if err := c.get(ctx, "/permission", in(dir), &list); err != nil {
		return nil, fmt.Errorf("opencode: reading the open questions: %w", err)
	}
	return list, nil
}

// readQuestions notes which sessions of the directory wait for an answer.
func (c *Client) readQuestions(ctx context.Context, dir string) error {
	list, err := c.openQuestions(ctx, dir)
	if err != nil {
		return err
	}
	asking := map[string]string{}
	for _, w := range list {
		asking[w.SessionID] = strings.TrimSpace(w.Permission + " " + strings.Join(w.Patterns, ", "))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, s := range c.sessions {
		if s.dir == dir {
			s.asking = asking[id]
		}
	}
	return nil
}

// answerOld answers what was asked while the stream was away.
func (c *Client) answerOld(ctx context.Context, answers *sync.WaitGroup) {
	c.mu.Lock()
	dirs := make([]string, 0, len(c.dirs))
	for dir := range c.dirs {
		dirs = append(dirs, dir)
	}
	c.mu.Unlock()
	for _, dir := range dirs {
		list, err := c.openQuestions(ctx, dir)
		if err != nil {
			return // the stream breaks off, too, or the next poll tells
		}
		for _, w := range list {
			c.ask(ctx, dir, w, answers)
		}
	}
}

// rejectQuestion rejects a question to the user of a task's session.
func (c *Client) rejectQuestion(ctx context.Context, dir string, p wireProperties, answers *sync.WaitGroup) {
	c.mu.Lock()
	s := c.sessions[p.SessionID]
	mine := s != nil && s.task
	if mine && (dir == "" || dir == "global") {
		dir = s.dir
	}
	c.mu.Unlock()
	if mine {
		answers.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, answerTimeout)
			defer cancel()
			_ = c.do(ctx, http.MethodPost, "/question/"+url.PathEscape(p.ID)+"/reject", in(dir), struct{}{}, nil) // the task's time limits are left
		})
	}
}
