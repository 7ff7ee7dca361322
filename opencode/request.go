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

// ServerError is the error for a request that got no answer or an unexpected one. It matches
// [bgagent.ErrNoSession] if the server reports that the session does not exist. It matches
// [bgagent.ErrUnreachable] if the server could not be reached and it is certain that no session or turn was
// started.
type ServerError struct {
	URL    string // URL of the server
	Status int    // status of the HTTP answer; 0 if there was no answer
	Detail string // one line about the answer, often from the server; can be empty
	Advice string // advice to the user about the error; can be empty
	Err    error  // the cause, or bgagent.ErrNoSession; can be nil

	unsent bool // there was no connection, so the server has not seen the request
	away   bool // the server could not be reached, and no session or turn was started
}

// Error returns the error and the advice in one line.
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

// Is reports whether target is [bgagent.ErrUnreachable] and nothing was started because
// the server could not be reached.
func (e *ServerError) Is(target error) bool { return target == bgagent.ErrUnreachable && e.away }

// unstarted sets the field "away" of a [ServerError] if the request could not reach the server and
// it is certain that it did not start anything. If the flag "asks" is set, the request only prepares a start,
// and does not start anything, even if the server receives it. Any other request starts a session or a turn
// when the server receives it. Such a request is certain not to have started anything only if it was never
// sent.
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
		e.away = true // the response from a proxy that cannot reach the server
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

// isBroken reports whether a connection dropped or timed out. Connections drop when a server stops,
// and can time out while a server starts.
func isBroken(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, errSlow) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, net.ErrClosed)
}

// These texts advise the user about an unexpected or missing answer.
const (
	adviceUnreachable = `start it with "opencode serve", or correct opencode.Config.URL`
	adviceHung        = "it might still be starting, or it might hang: check its log, or restart it"
	advicePassword    = "set opencode.Config.Password (and Username) to the server's OPENCODE_SERVER_PASSWORD (and OPENCODE_SERVER_USERNAME)"
	adviceRedirect    = "a redirect is followed only if it stays at opencode.Config.URL and keeps the method: set the URL to the server's address"
	adviceNotOpencode = "that is not an opencode server, or it is another version: correct opencode.Config.URL"
)

// call describes one request.
type call struct {
	method string
	path   string // path of the URL; ids in it are escaped
	query  url.Values
	dir    string // query parameter "directory"; if empty, the server uses its own working directory
	body   any
	out    any          // receives the decoded answer; nil if an answer without a body is expected
	header *http.Header // receives the header of the answer; can be nil
}

// errSlow is the cause of the failure if a request took longer than Config.Timeout.
var errSlow = errors.New("no answer in time")

// The method "do" makes a request. If the request was made but failed, the error is a [*ServerError].
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

// The type "slow" is the error for a request that took longer than Config.Timeout. It matches errSlow and,
// like the context's own error, [context.DeadlineExceeded].
type slow struct{ after time.Duration }

func (e *slow) Error() string        { return fmt.Sprintf("%v (%v)", errSlow, e.after) }
func (e *slow) Is(target error) bool { return target == errSlow || target == context.DeadlineExceeded }

// maxRedirects limits the number of redirects that are followed for one request.
const maxRedirects = 5

// stays is the CheckRedirect function of an HTTP client. It allows only redirects that
// keep the origin, because the password belongs to one origin. It allows only redirects
// that keep the method, because the answer would otherwise belong to another request. A
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

// unreached returns the error for a request without an answer.
func (c *Client) unreached(ctx context.Context, err error) error {
	var ue *url.Error
	if errors.As(err, &ue) {
		err = ue.Err // leaves out the method and the address, because ServerError names the server
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

// refused returns the error for an answer with a status other than success.
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

// The function "missing" reports whether the error means that the requested object does not exist.
func missing(err error) bool {
	var e *ServerError
	return errors.Is(err, bgagent.ErrNoSession) || errors.As(err, &e) && e.Status == http.StatusNotFound
}

// sessionPath returns the path of a session's URL, followed by rest.
func sessionPath(id, rest string) string { return "/session/" + url.PathEscape(id) + rest }

// isSession reports whether the id can belong to an opencode session. For any other id, the server
// would fail with status 500.
func isSession(id string) bool { return strings.HasPrefix(id, "ses") }

// noSession returns the error for a session that does not exist on the server.
func (c *Client) noSession() error { return &ServerError{URL: c.base, Err: bgagent.ErrNoSession} }

// The function "some" sorts the names and returns the first few as a list for a sentence.
func some(names []string) string {
	slices.Sort(names)
	const most = 20
	if len(names) > most {
		names = append(names[:most:most], "…")
	}
	return strings.Join(names, ", ")
}
