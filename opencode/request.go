package opencode

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/bgagent/bgagent"
)

// ServerError is an answer of the server that is not the one asked for, or that
// there is none. It wraps [bgagent.ErrNoSession] where the server says that the
// session does not exist, and [bgagent.ErrUnreachable] where a session could not
// be created or a turn not be started because nobody answers, and nothing that
// starts one was sent.
type ServerError struct {
	URL    string // of the server
	Status int    // of the HTTP answer; 0 when there was none
	Detail string // what the server said, in one line; may be empty
	Advice string // what to do about it; may be empty
	Err    error  // what went wrong on the way, or bgagent.ErrNoSession; may be nil

	unsent bool // no connection stood, so that the server has not seen the request
	away   bool // nothing that the request belongs to has been started
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

// Is reports whether target is [bgagent.ErrUnreachable] and the error means it.
func (e *ServerError) Is(target error) bool { return target == bgagent.ErrUnreachable && e.away }

// unstarted marks the error of a request that belongs to a start: one that only
// asks has started nothing, and one that starts something has not if it was
// never sent.
func unstarted(asks bool, err error) error {
	var e *ServerError
	if !errors.As(err, &e) || errors.Is(err, bgagent.ErrNoSession) {
		return err
	}
	switch {
	case e.unsent:
		e.away = true
	case !asks:
	case e.Status == http.StatusBadGateway, e.Status == http.StatusServiceUnavailable, e.Status == http.StatusGatewayTimeout:
		e.away = true // what stands in front of the server does not reach it
	case e.Status == 0 && e.Err != nil:
		e.away = isBroken(e.Err)
	}
	return err
}

// isUnsent reports whether no connection came about.
func isUnsent(err error) bool {
	var op *net.OpError
	var dns *net.DNSError
	return errors.As(err, &op) && (op.Op == "dial" || op.Op == "proxyconnect") ||
		errors.As(err, &dns) || errors.Is(err, syscall.ECONNREFUSED)
}

// isBroken reports whether a connection broke off, as that of a server does that
// ends, or nothing came in time, as from a server that starts.
func isBroken(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, errSlow) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, net.ErrClosed)
}

// What to do about an answer.
const (
	adviceUnreachable = `start it with "opencode serve", or correct opencode.Config.URL`
	adviceHung        = "it may still be starting, or hang: look into its log, or restart it"
	advicePassword    = "set opencode.Config.Password (and Username) to the server's OPENCODE_SERVER_PASSWORD (and OPENCODE_SERVER_USERNAME)"
	adviceRedirect    = "only what stays at opencode.Config.URL and stays the same request is followed: set it to where the server is"
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

// errSlow is the cause of a request that has taken longer than Config.Timeout.
var errSlow = errors.New("no answer in time")

// do makes a request. An error is a [*ServerError], or that of the context.
func (c *Client) do(ctx context.Context, r call) error {
	ctx, cancel := context.WithTimeoutCause(ctx, c.cfg.Timeout, &slow{c.cfg.Timeout})
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
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return c.refused(resp)
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
	if err := decode(resp.Body, r.out); err != nil {
		var syntax *json.SyntaxError
		if ctx.Err() != nil || !errors.As(err, &syntax) && isBroken(err) {
			return c.unreached(ctx, err)
		}
		return &ServerError{URL: c.base, Status: resp.StatusCode, Detail: "the body is not what opencode sends (" + firstLine(err.Error()) + ")", Advice: adviceNotOpencode, Err: err}
	}
	return nil
}

// slow is the error of a request that has taken too long. It is a
// [context.DeadlineExceeded], as the context's own would be.
type slow struct{ after time.Duration }

func (e *slow) Error() string        { return fmt.Sprintf("%v (%v)", errSlow, e.after) }
func (e *slow) Is(target error) bool { return target == errSlow || target == context.DeadlineExceeded }

// maxRedirects is how often a request is sent on.
const maxRedirects = 5

// stays is the CheckRedirect of a client: the password is for one origin, and a
// request that became another one on the way would be answered for something
// that was not asked. What does not stay is told as the answer that it is.
func stays(req *http.Request, via []*http.Request) error {
	first := via[0]
	if len(via) > maxRedirects || origin(req.URL) != origin(first.URL) || req.Method != first.Method {
		return http.ErrUseLastResponse
	}
	return nil
}

// origin returns scheme, host and port of an address.
func origin(u *url.URL) string {
	port := u.Port()
	switch {
	case port != "":
	case u.Scheme == "https":
		port = "443"
	case u.Scheme == "http":
		port = "80"
	}
	return strings.ToLower(u.Scheme) + "://" + net.JoinHostPort(strings.ToLower(u.Hostname()), port)
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
	e := &ServerError{URL: c.base, Advice: advice, Err: err, unsent: isUnsent(err)}
	if e.unsent {
		c.cutOff()
	}
	return e
}

// refused is the error of an answer that is none.
func (c *Client) refused(resp *http.Response) error {
	status := resp.StatusCode
	e := &ServerError{URL: c.base, Status: status}
	if status >= 300 && status <= 399 {
		e.Advice = adviceRedirect
		if to, err := resp.Location(); err == nil && (to.Scheme == "http" || to.Scheme == "https") {
			e.Detail = "it sends requests on to " + origin(to)
		}
		return e
	}
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxRefusal))
	var said struct {
		Name    string    `json:"name"`
		Data    wireFault `json:"data"`
		Tag     string    `json:"_tag"`
		Message string    `json:"message"`
	}
	isJSON := small(body) && lenient(json.Unmarshal(body, &said)) == nil
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
