package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/bgagent/bgagent"
)

// LookTime is how long a request that only looks may take.
const LookTime = 10 * time.Second

// maxAnswer bounds the size of an answer, in bytes.
const maxAnswer = 256 << 20

// ErrNone is returned by Dial if the owner of the store accepts no commands: it is still starting,
// it is already ending, or it is an earlier version of the program.
var ErrNone = errors.New("it accepts no commands")

// Client sends requests to a server. Its methods are safe for concurrent use. If the server
// refuses a request, the error is an [*Error].
type Client struct {
	at   address
	http http.Client
}

// Dial returns a client for the living process that owns the store in the folder dir. It sends no
// request. The error matches [ErrNone] if the process accepts no commands.
func Dial(dir string, owner bgagent.StoreOwner) (*Client, error) {
	at, found, err := read(dir)
	switch {
	case err != nil:
		return nil, fmt.Errorf("reading the address for commands: %w", err)
	case !found, at.Instance != owner.Instance:
		return nil, ErrNone
	}
	// A proxy from the environment must not see the token.
	return &Client{at: at, http: http.Client{Transport: &http.Transport{}}}, nil
}

// call sends a request and decodes the answer.
func call[Out any](ctx context.Context, c *Client, name string, in any) (out Out, err error) {
	body, err := json.Marshal(in)
	if err != nil {
		return out, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+c.at.Address+"/"+name, bytes.NewReader(body))
	if err != nil {
		return out, err
	}
	r.Header.Set("Authorization", "Bearer "+c.at.Token)
	r.Header.Set("Content-Type", "application/json")
	resp, err := c.http.Do(r)
	if err != nil {
		return out, fmt.Errorf("the server does not answer: %w", err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return out, fmt.Errorf("the answer of the server broke off: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		refused := &Error{}
		if err := json.Unmarshal(answer, refused); err != nil || refused.Text == "" {
			refused.Text = "the server answers with status " + resp.Status
		}
		return out, refused
	}
	if err := json.Unmarshal(answer, &out); err != nil {
		return out, fmt.Errorf("the answer of the server cannot be read: %w", err)
	}
	return out, nil
}

// look is call with a time limit.
func look[Out any](ctx context.Context, c *Client, name string, in any) (Out, error) {
	ctx, cancel := context.WithTimeout(ctx, LookTime)
	defer cancel()
	return call[Out](ctx, c, name, in)
}

// Status returns what the server does.
func (c *Client) Status(ctx context.Context) (Status, error) {
	return look[Status](ctx, c, "status", struct{}{})
}

// Task returns a task.
func (c *Client) Task(ctx context.Context, in TaskInput) (bgagent.Task, error) {
	return look[bgagent.Task](ctx, c, "task", in)
}

// Log returns a part of the log of a task.
func (c *Client) Log(ctx context.Context, in LogInput) (LogPart, error) {
	return look[LogPart](ctx, c, "log", in)
}

// Cancel cancels a task. It returns when the end of the task is durable.
func (c *Client) Cancel(ctx context.Context, in CancelInput) (bgagent.Task, error) {
	return call[bgagent.Task](ctx, c, "cancel", in)
}

// Resume resumes a task that has ended.
func (c *Client) Resume(ctx context.Context, in ResumeInput) (bgagent.Task, error) {
	return call[bgagent.Task](ctx, c, "resume", in)
}

// Send sends a message to a task that has not ended.
func (c *Client) Send(ctx context.Context, in SendInput) (bgagent.SendResult, error) {
	return call[bgagent.SendResult](ctx, c, "send", in)
}
