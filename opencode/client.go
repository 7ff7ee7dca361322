package opencode

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/bgagent/bgagent"
)

// Config says which server to use and how. Only URL is required.
type Config struct {
	// URL is where the server listens, like http://127.0.0.1:4096.
	URL string
	// Username and Password are for Basic auth, which a server has that was
	// started with OPENCODE_SERVER_PASSWORD. Username defaults to "opencode";
	// without a Password no credentials are sent.
	Username string
	Password string
	// Directory is the project that sessions work in unless their task names
	// another; empty means where the server was started.
	Directory string
	// Model, as "provider/model", is used by tasks that name none; empty means
	// the agent's own.
	Model string
	// Permission answers what the sessions of tasks, and those below them, ask
	// for leave to do. It is called on a goroutine of its own, and ctx ends when
	// nobody waits for the answer any more. Nil rejects everything: whatever an
	// agent may do without asking belongs into the rules of its task.
	Permission func(ctx context.Context, ask PermissionRequest) PermissionReply
	// HTTPClient makes the requests; nil means one of the client's own without a
	// time limit, because the event stream has no end. Every request has a
	// context that does.
	HTTPClient *http.Client
}

// Client is a session client for one server. All methods are safe for concurrent
// use. It holds no connection but the event stream, which ends with the manager:
// there is nothing to close.
type Client struct {
	cfg  Config
	base string
	http *http.Client

	mu       sync.Mutex
	sessions map[string]*session
	prompts  map[string]string // message id by prompt or notice
	names    map[string]string // and back
	order    []string          // of prompts, oldest first
	agents   []bgagent.AgentInfo
	agentsAt time.Time
	clock    time.Duration // what the server's clock is ahead of ours, at least
	counter  int64         // of ids, in one millisecond
	last     int64         // millisecond of the latest id
	streamed bool          // the event stream is up
	dirs     map[string]bool
}

// session is what the client knows of one session of the server.
type session struct {
	dir     string
	task    bool   // made for a task, or below one
	changes int    // messages or parts that the stream has told of
	asking  string // the question that is open, if any
}

var (
	_ bgagent.TurnStarter      = (*Client)(nil)
	_ bgagent.SessionClient    = (*Client)(nil)
	_ bgagent.Notifier         = (*Client)(nil)
	_ bgagent.EventSource      = (*Client)(nil)
	_ bgagent.TodoReader       = (*Client)(nil)
	_ bgagent.SessionFinder    = (*Client)(nil)
	_ bgagent.AgentLister      = (*Client)(nil)
	_ bgagent.SessionForgetter = (*Client)(nil)
)

// New returns a client for the server. It makes no request; use [Client.Check]
// for that. The error says what is wrong with the configuration.
func New(cfg Config) (*Client, error) {
	u, err := url.Parse(cfg.URL)
	switch {
	case err != nil:
		return nil, fmt.Errorf("opencode: Config.URL: %w", err)
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return nil, fmt.Errorf("opencode: Config.URL is %q; it must be like http://127.0.0.1:4096", cfg.URL)
	}
	if _, err := parseModel(cfg.Model); err != nil {
		return nil, fmt.Errorf("opencode: Config.Model: %w", err)
	}
	c := &Client{
		cfg: cfg, base: strings.TrimRight(cfg.URL, "/"), http: cfg.HTTPClient,
		sessions: map[string]*session{}, prompts: map[string]string{}, names: map[string]string{}, dirs: map[string]bool{},
	}
	if c.http == nil {
		c.http = &http.Client{}
	}
	c.cfg.Username = cmp.Or(cfg.Username, "opencode")
	return c, nil
}

// checkTimeout is how long Check waits: a server that boots may never answer a
// request made too early, and is healthy after about 4 s.
const checkTimeout = 5 * time.Second

// Check asks the server whether it is there, and what it is. The error says what
// to do; it comes within 5 s.
func (c *Client) Check(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, checkTimeout, fmt.Errorf("no answer within %v", checkTimeout))
	defer cancel()
	var health struct {
		Healthy bool   `json:"healthy"`
		Version string `json:"version"`
	}
	if err := c.get(ctx, "/global/health", nil, &health); err != nil {
		return fmt.Errorf("opencode: %w", err)
	}
	if !health.Healthy {
		return fmt.Errorf("opencode: %s says that it is not healthy", c.base)
	}
	return nil
}

// statusError is an answer of the server that is an error.
type statusError struct {
	Status  int
	Name    string
	Message string
}

func (e *statusError) Error() string {
	return strings.TrimSpace(fmt.Sprintf("the server answered %d %s %s", e.Status, e.Name, e.Message))
}

// missing reports whether the server does not have what was asked for.
func missing(err error) bool {
	var s *statusError
	return errors.As(err, &s) && s.Status == http.StatusNotFound
}

func (c *Client) get(ctx context.Context, path string, query url.Values, out any) error {
	return c.do(ctx, http.MethodGet, path, query, nil, out)
}

// maxAnswer bounds an answer of the server: the messages of one session.
const maxAnswer = 64 << 20

// do makes one request. A nil body sends none, a nil out reads none.
func (c *Client) do(ctx context.Context, method, path string, query url.Values, body, out any) error {
	resp, err := c.send(ctx, method, path, query, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return fmt.Errorf("reading the answer of %s: %w", c.base+path, because(ctx, err))
	case len(data) > maxAnswer:
		return fmt.Errorf("the answer of %s has more than %d MiB", c.base+path, maxAnswer>>20)
	case out == nil:
		return nil
	}
	if err := json.Unmarshal(data, out); err != nil {
		return fmt.Errorf("%s is no opencode server, or one of another version: it answered %s with %.60q", c.base, path, data)
	}
	return nil
}

// send makes one request and returns an answer that is not an error.
func (c *Client) send(ctx context.Context, method, path string, query url.Values, body any) (*http.Response, error) {
	var r io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		r = bytes.NewReader(data)
	}
	target := c.base + path
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, target, r)
	if err != nil {
		return nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.cfg.Password != "" {
		req.SetBasicAuth(c.cfg.Username, c.cfg.Password)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("no answer from %s; start it with \"opencode serve\", or correct Config.URL: %w", c.base, because(ctx, err))
	}
	if resp.StatusCode < 300 {
		return resp, nil
	}
	defer resp.Body.Close()
	return nil, c.refusal(resp)
}

// refusal turns an answer that is an error into one.
func (c *Client) refusal(resp *http.Response) error {
	if resp.StatusCode == http.StatusUnauthorized || resp.StatusCode == http.StatusForbidden {
		if c.cfg.Password == "" {
			return fmt.Errorf("%s wants a password; set Config.Password to its OPENCODE_SERVER_PASSWORD", c.base)
		}
		return fmt.Errorf("%s refuses the password; Config.Password must be its OPENCODE_SERVER_PASSWORD, for the user %q", c.base, c.cfg.Username)
	}
	data, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10)) // what can be read says more than why the rest cannot
	var e wireError
	if json.Unmarshal(data, &e) != nil || e.Name == "" {
		return &statusError{resp.StatusCode, "", fmt.Sprintf("%.120q", data)}
	}
	return &statusError{resp.StatusCode, e.Name, e.Data.Message}
}

// because returns why the context ended, if it did, instead of err.
func because(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// in returns the query that asks for a directory.
func in(dir string) url.Values {
	if dir == "" {
		return nil
	}
	return url.Values{"directory": {dir}}
}

// parseModel splits "provider/model"; nil for an empty one.
func parseModel(s string) (*wireModel, error) {
	if s == "" {
		return nil, nil
	}
	provider, model, ok := strings.Cut(s, "/")
	if !ok || provider == "" || model == "" {
		return nil, fmt.Errorf("the model is %q; it must be like \"provider/model\"", s)
	}
	return &wireModel{ProviderID: provider, ModelID: model}, nil
}
