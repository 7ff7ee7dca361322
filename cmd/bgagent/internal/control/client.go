package control

import (
	"bufio"
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/bgagent/bgagent"
)

// Limits for how long a client waits for an answer.
const (
	helloTime = 10 * time.Second // for the answer to the challenge; the server only computes it from the token
	lookTime  = 30 * time.Second // for the answer to a request that only reads
)

// maxAnswer is the maximum size of an answer, in bytes.
const maxAnswer = 256 << 20

// ErrNone is returned by Dial if the owner of the store does not accept commands: it is still
// starting, it is already shutting down, or it is an earlier version of the program.
var ErrNone = errors.New("it accepts no commands")

// ErrUnanswered means that a request may have been sent, but that its answer did not arrive. The request can
// still take effect.
var ErrUnanswered = errors.New("its answer did not arrive")

// Client sends requests to a server. Its methods are safe for concurrent use. If the server
// refuses a request, the error is an [*Error].
type Client struct {
	at    address
	hello time.Duration
	http  http.Client
	any   bool // the file can be left over from a killed server
}

// Dial returns a client for the living process that owns the store in the folder dir. It does not
// send a request. If the process does not accept commands, the error matches [ErrNone].
func Dial(dir string, owner bgagent.StoreOwner) (*Client, error) {
	at, found, err := read(dir)
	switch {
	case err != nil:
		return nil, fmt.Errorf("reading the address for commands: %w", err)
	case !found, at.Instance != owner.Instance:
		return nil, ErrNone
	}
	c := &Client{at: at, hello: helloTime}
	// A proxy from the environment must not see the token.
	c.http.Transport = &http.Transport{DialContext: c.connect}
	return c, nil
}

// DialAny is like Dial, but for a store on the servers of a cluster. The folder dir does not say which
// process owns such a store, so DialAny cannot tell whether the file is left over from a killed server. If it
// is, the errors of requests match [ErrNone].
func DialAny(dir string) (*Client, error) {
	at, found, err := read(dir)
	if err == nil && !found {
		err = ErrNone
	}
	if err != nil {
		return nil, err
	}
	c, err := Dial(dir, bgagent.StoreOwner{Instance: at.Instance})
	if err == nil {
		c.any = true
	}
	return c, err
}

// strangerError is the error of a connection to a program other than the server.
type strangerError struct{ error }

// The function "nobody" reports whether the error of a connection means that the server is no
// longer running.
func nobody(err error) bool {
	var stranger strangerError
	var op *net.OpError
	return errors.As(err, &stranger) || errors.As(err, &op) && op.Op == "dial" && !op.Timeout()
}

// unsentError is a connection error that occurred before a request was sent.
type unsentError struct{ error }

// Unwrap returns the cause.
func (e unsentError) Unwrap() error { return e.error }

// connect opens a connection and checks that the other end has the token.
func (c *Client) connect(ctx context.Context, network, at string) (net.Conn, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silent := time.AfterFunc(c.hello, func() { cancel(fmt.Errorf("it was silent for %v", c.hello)) })
	defer silent.Stop()
	conn, err := (&net.Dialer{}).DialContext(ctx, network, at)
	if err == nil {
		stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
		err = c.check(conn)
		stop()
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		if conn != nil {
			_ = conn.Close()
		}
		return nil, unsentError{err}
	}
	return conn, nil
}

// The method "check" sends a challenge and checks the answer.
func (c *Client) check(conn net.Conn) error {
	question := challenge{rand.Text()}
	body, err := json.Marshal(question)
	if err != nil {
		return err
	}
	r, err := c.request(context.Background(), helloName, body)
	if err != nil {
		return err
	}
	if err := r.Write(conn); err != nil {
		return err
	}
	in := bufio.NewReader(io.LimitReader(conn, 64<<10))
	resp, err := http.ReadResponse(in, r)
	if err != nil {
		return c.stranger(err)
	}
	defer resp.Body.Close()
	var answer proof
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return c.stranger(err)
	}
	if !hmac.Equal(answer.Proof, c.at.prove(question).Proof) {
		return c.stranger(errors.New("its answer to the challenge is wrong"))
	}
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return c.stranger(err)
	}
	return nil
}

// stranger returns the error for a program that is not the server.
func (c *Client) stranger(err error) error {
	return strangerError{fmt.Errorf("the program at %s is not this bgagent serve, so nothing was sent to it; if the serve runs in a container, run the command there (%w)", c.at.Address, err)}
}

// request returns a request without the token.
func (c *Client) request(ctx context.Context, name string, body []byte) (*http.Request, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+c.at.Address+"/"+name, bytes.NewReader(body))
	if err == nil {
		r.Header.Set("Content-Type", "application/json")
	}
	return r, err
}

// call sends a request and decodes the answer.
func call[Out any](ctx context.Context, c *Client, name string, in any) (out Out, err error) {
	body, err := json.Marshal(in)
	if err != nil {
		return out, err
	}
	r, err := c.request(ctx, name, body)
	if err != nil {
		return out, err
	}
	r.Header.Set("Authorization", "Bearer "+c.at.Token)
	resp, err := c.http.Do(r)
	var unsent unsentError
	switch {
	case errors.As(err, &unsent) && c.any && nobody(unsent.error):
		return out, fmt.Errorf("%w: %w", ErrNone, unsent.error)
	case errors.As(err, &unsent):
		return out, fmt.Errorf("the server does not answer: %w; if it hangs, end it and start it again", unsent.error)
	case err != nil:
		return out, fmt.Errorf("%w: %w", ErrUnanswered, err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return out, fmt.Errorf("%w as a whole: %w", ErrUnanswered, err)
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

// look is like the function "call", but with a time limit.
func look[Out any](ctx context.Context, c *Client, name string, in any) (Out, error) {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	return call[Out](ctx, c, name, in)
}

// Status returns what the server is doing.
func (c *Client) Status(ctx context.Context) (Status, error) {
	return look[Status](ctx, c, "status", struct{}{})
}

// Task returns a task.
func (c *Client) Task(ctx context.Context, in TaskInput) (bgagent.Task, error) {
	return look[bgagent.Task](ctx, c, "task", in)
}

// Cluster returns the processes of the server's cluster, with their tasks.
func (c *Client) Cluster(ctx context.Context, in ClusterInput) ([]ClusterProcess, error) {
	return look[[]ClusterProcess](ctx, c, "cluster", in)
}

// Shared returns a task of any process of the server's cluster.
func (c *Client) Shared(ctx context.Context, in TaskInput) (SharedTask, error) {
	return look[SharedTask](ctx, c, "shared", in)
}

// Log returns part of a task's log.
func (c *Client) Log(ctx context.Context, in LogInput) (LogPart, error) {
	return look[LogPart](ctx, c, "log", in)
}

// Cancel cancels a task. It returns once the end of the task is durable.
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

// Answer answers a task's question. It returns once the answer is durable.
func (c *Client) Answer(ctx context.Context, in AnswerInput) (bgagent.Question, error) {
	return call[bgagent.Question](ctx, c, "answer", in)
}

// Forget deletes tasks that have ended, including their logs. It returns once the deletions are
// durable.
func (c *Client) Forget(ctx context.Context, in ForgetInput) (ForgetResult, error) {
	return call[ForgetResult](ctx, c, "forget", in)
}
