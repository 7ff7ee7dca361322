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

// ServerError says that the server did not answer or that its answer was not the
// expected one. It matches [bgagent.ErrNoSession] if the server says that the
// session does not exist. It matches [bgagent.ErrUnreachable] if a session or a turn
// could not be started because nobody answers, and no request that starts one was
// sent.
type ServerError struct {
	URL    string // of the server
	Status int    // of the HTTP answer; 0 if there was none
	Detail string // one line of what the server said; may be empty
	Advice string // what to do about it; may be empty
	Err    error  // the cause, or bgagent.ErrNoSession; may be nil

	unsent bool // there was no connection, so the server has not seen the request
	away   bool // the start that the request belongs to has started nothing
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

// Unwrap returns the cause.
func (e *ServerError) Unwrap() error { return e.Err }

// Is reports whether target is [bgagent.ErrUnreachable] and the error means it.
func (e *ServerError) Is(target error) bool { return target == bgagent.ErrUnreachable && e.away }

// unstarted marks the error of a request that belongs to a start if nothing was
// started. A request that only asks starts nothing. One that starts something has
// started nothing if it was never sent.
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
		e.away = true // a proxy does not reach the server
	case e.Status == 0 && e.Err != nil:
		e.away = isBroken(e.Err)
	}
	return err
}

// isUnsent reports whether no connection was established.
func isUnsent(err error) bool {
	var op *net.OpError
	var dns *net.DNSError
	return errors.As(err, &op) && (op.Op == "dial" || op.Op == "proxyconnect") ||
		errors.As(err, &dns) || errors.Is(err, syscall.ECONNREFUSED)
}

// isBroken reports whether a connection broke off, as when a server ends, or timed
// out, as when a server starts.
func isBroken(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, errSlow) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, net.ErrClosed)
}

// What to do about an answer or its absence.
const (
	adviceUnreachable = `start it with "opencode serve", or correct opencode.Config.URL`
	adviceHung        = "it may still be starting, or hang: look into its log, or restart it"
	advicePassword    = "set opencode.Config.Password (and Username) to the server's OPENCODE_SERVER_PASSWORD (and OPENCODE_SERVER_USERNAME)"
	adviceRedirect    = "a redirect is followed only if it stays at opencode.Config.URL and keeps the method: set the URL to where the server is"
	adviceNotOpencode = "that is not an opencode server, or it has another version: correct opencode.Config.URL"
)

// call describes one request.
type call struct {
	method string
	path   string // with everything from outside escaped
	query  url.Values
	dir    string // ?directory=; if empty, the server uses its own
	body   any
	out    any          // receives the decoded answer; nil if the answer is 204 without a body
	header *http.Header // receives the header of the answer
}

// errSlow is the cause of a request that took longer than Config.Timeout.
var errSlow = errors.New("no answer in time")

// do makes a request. An error is a [*ServerError] or that of the context.
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
			return &ServerError{URL: c.base, Status: resp.StatusCode, Detail: "opencode answers this request without a body", Advice: adviceNotOpencode}
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

// slow is the error of a request that took too long. Like the context's own error,
// it is a [context.DeadlineExceeded].
type slow struct{ after time.Duration }

func (e *slow) Error() string        { return fmt.Sprintf("%v (%v)", errSlow, e.after) }
func (e *slow) Is(target error) bool { return target == errSlow || target == context.DeadlineExceeded }

// maxRedirects is how many redirects a request may take.
const maxRedirects = 5

// stays is the CheckRedirect of a client. The password belongs to one origin, and a
// redirect that changes the method would lead to the answer of another request. A
// redirect that is not followed is returned as the answer.
func stays(req *http.Request, via []*http.Request) error {
	first := via[0]
	if len(via) > maxRedirects || origin(req.URL) != origin(first.URL) || req.Method != first.Method {
		return http.ErrUseLastResponse
	}
	return nil
}

// origin returns the scheme, host and port of an address.
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

// unreached returns the error of a request without an answer.
func (c *Client) unreached(ctx context.Context, err error) error {
	var ue *url.Error
	if errors.As(err, &ue) {
		err = ue.Err // without its method and address: ServerError names the server itself
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

// refused returns the error for an answer without success.
func (c *Client) refused(resp *http.Response) error {
	status := resp.StatusCode
	e := &ServerError{URL: c.base, Status: status}
	if status >= 300 && status <= 399 {
		e.Advice = adviceRedirect
		if to, err := resp.Location(); err == nil && (to.Scheme == "http" || to.Scheme == "https") {
			e.Detail = "it redirects requests to " + origin(to)
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

// missing reports whether the error says that the requested object does not exist.
func missing(err error) bool {
	var e *ServerError
	return errors.Is(err, bgagent.ErrNoSession) || errors.As(err, &e) && e.Status == http.StatusNotFound
}

// sessionPath returns the path of a session.
func sessionPath(id, rest string) string { return "/session/" + url.PathEscape(id) + rest }

// isSession reports whether the id can belong to a session of opencode. For another
// id, the server would fail with status 500.
func isSession(id string) bool { return strings.HasPrefix(id, "ses") }

// noSession returns the error for an id that no session of opencode can have.
func (c *Client) noSession() error { return &ServerError{URL: c.base, Err: bgagent.ErrNoSession} }

// some returns the first of the sorted names, for a sentence.
func some(names []string) string {
	slices.Sort(names)
	const most = 20
	if len(names) > most {
		names = append(names[:most:most], "…")
	}
	return strings.Join(names, ", ")
}
