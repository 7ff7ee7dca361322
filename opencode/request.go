package opencode

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/bgagent/bgagent"
)

// ServerError is an answer of the server that is not the one asked for, or that
// there is none. It wraps [bgagent.ErrNoSession] where the server says that the
// session does not exist.
type ServerError struct {
	URL    string // of the server
	Status int    // of the HTTP answer; 0 when there was none
	Detail string // what the server said, in one line; may be empty
	Advice string // what to do about it; may be empty
	Err    error  // what went wrong on the way, or bgagent.ErrNoSession; may be nil
}

// Error says in one line what happened and what to do.
func (e *ServerError) Error() string {
	var s string
	switch {
	case errors.Is(e.Err, bgagent.ErrNoSession):
		s = e.Err.Error() + " on the opencode server at " + e.URL
	case e.Status == 0:
		s = fmt.Sprintf("no answer from the opencode server at %s: %v", e.URL, e.Err)
	default:
		s = fmt.Sprintf("the server at %s answered %d %s", e.URL, e.Status, http.StatusText(e.Status))
	}
	if e.Detail != "" {
		s += ": " + e.Detail
	}
	if e.Advice != "" {
		s += ": " + e.Advice
	}
	return s
}

// Unwrap returns what went wrong on the way.
func (e *ServerError) Unwrap() error { return e.Err }

// What to do about an answer.
const (
	adviceUnreachable = `start it with "opencode serve", or correct opencode.Config.URL`
	adviceHung        = "it may still be starting, or hang: look into its log, or restart it"
	advicePassword    = "set opencode.Config.Password (and Username) to the server's OPENCODE_SERVER_PASSWORD (and OPENCODE_SERVER_USERNAME)"
	adviceNotOpencode = "that is not an opencode server, or one of another version: correct opencode.Config.URL"
)

// call is one request.
type call struct {
	method string
	path   string // with what comes from outside escaped
	query  url.Values
	dir    string // ?directory=; empty for the server's own
	body   any
	out    any          // decoded from the answer; nil for one without a body, status 204
	header *http.Header // receives the header of the answer
}

// maxBody bounds an answer. A session of a long day is a few MB.
const maxBody = 256 << 20

// do makes a request. An error is a [*ServerError], or that of the context.
func (c *Client) do(ctx context.Context, r call) error {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	req, err := c.request(ctx, r)
	if err != nil {
		return err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return c.unreached(ctx, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err != nil {
		return c.unreached(ctx, err)
	}
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return c.refused(resp.StatusCode, body)
	}
	if r.header != nil {
		*r.header = resp.Header
	}
	if r.out == nil {
		if resp.StatusCode != http.StatusNoContent {
			return &ServerError{URL: c.base, Status: resp.StatusCode, Detail: "opencode does not answer with a body here", Advice: adviceNotOpencode}
		}
		return nil
	}
	if err := json.Unmarshal(body, r.out); err != nil {
		return &ServerError{URL: c.base, Status: resp.StatusCode, Detail: "the body is not what opencode sends (" + firstLine(err.Error()) + ")", Advice: adviceNotOpencode, Err: err}
	}
	return nil
}

func (c *Client) request(ctx context.Context, r call) (*http.Request, error) {
	query := r.query
	if r.dir != "" {
		if query == nil {
			query = url.Values{}
		}
		query.Set("directory", r.dir)
	}
	address := c.base + r.path
	if len(query) > 0 {
		address += "?" + query.Encode()
	}
	var body io.Reader
	if r.body != nil {
		b, err := json.Marshal(r.body)
		if err != nil {
			return nil, fmt.Errorf("opencode: encoding a request: %w", err)
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, r.method, address, body)
	if err != nil {
		return nil, fmt.Errorf("opencode: making a request: %w", err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	req.Header.Set("Accept", "application/json, text/event-stream")
	if c.cfg.Password != "" {
		req.SetBasicAuth(c.cfg.Username, c.cfg.Password)
	}
	return req, nil
}

// unreached is the error of a request without an answer.
func (c *Client) unreached(ctx context.Context, err error) error {
	var ue *url.Error
	if errors.As(err, &ue) {
		err = ue.Err // without the method and the address: ours is in the sentence
	}
	advice := adviceUnreachable
	if ctx.Err() != nil {
		advice = adviceHung
		err = context.Cause(ctx)
	}
	return &ServerError{URL: c.base, Advice: advice, Err: err}
}

// refused is the error of an answer that is none.
func (c *Client) refused(status int, body []byte) error {
	var said struct {
		wireError
		Tag     string `json:"_tag"`
		Message string `json:"message"`
	}
	e := &ServerError{URL: c.base, Status: status}
	isJSON := json.Unmarshal(body, &said) == nil
	if e.Detail = firstLine(said.Data.Message); e.Detail == "" {
		e.Detail = firstLine(said.Message)
	}
	switch {
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		e.Advice = advicePassword
	case status == http.StatusNotFound && said.Name == "NotFoundError" && strings.HasPrefix(said.Data.Message, "Session not found"):
		e.Err, e.Detail = bgagent.ErrNoSession, ""
	case !isJSON || said.Name == "" && said.Tag == "":
		e.Advice = adviceNotOpencode
	}
	return e
}

// missing reports whether the error says that what was asked for does not exist.
func missing(err error) bool {
	var e *ServerError
	return errors.Is(err, bgagent.ErrNoSession) || errors.As(err, &e) && e.Status == http.StatusNotFound
}

// sessionPath returns the path of a session.
func sessionPath(id, rest string) string { return "/session/" + url.PathEscape(id) + rest }

// isSession reports whether the id can be that of a session of opencode. Asked
// for another one the server fails with status 500.
func isSession(id string) bool { return strings.HasPrefix(id, "ses") }

// noSession is the error for an id that no session of opencode can have.
func (c *Client) noSession() error { return &ServerError{URL: c.base, Err: bgagent.ErrNoSession} }

// some returns the first of the names, sorted, for a sentence.
func some(names []string) string {
	slices.Sort(names)
	const most = 20
	if len(names) > most {
		names = append(names[:most:most], "…")
	}
	return strings.Join(names, ", ")
}
