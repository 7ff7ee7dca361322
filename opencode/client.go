package opencode

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/bgagent/bgagent"
)

// Config holds the server's address and the settings for new sessions. The zero value means a
// server without a password on this machine, on the default port of "opencode serve".
type Config struct {
	// URL is the server's address, by default http://127.0.0.1:4096.
	URL string

	// Username and Password are for a server that was started with
	// OPENCODE_SERVER_PASSWORD. The default user name is "opencode".
	Username, Password string

	// Directory is the working directory of sessions that have neither a directory nor a parent. It
	// is an absolute path on the server's machine. The default is the directory where the server
	// was started.
	Directory string

	// Agent and Model are the defaults for sessions and prompts without an agent or a model. The
	// format of a model is provider/model. If Model is empty, the agent's own model is used.
	Agent, Model string

	// Tools switches tools on or off in every new session. The rules of bgagent.Config.Permissions
	// override Tools. If tasks should delegate only through bgagent, switch off "task", opencode's
	// own delegation tool, because no manager sees the sessions that this tool starts.
	Tools map[string]bool

	// Permission answers the permission questions of the sessions that this client runs, and of the
	// descendants of these sessions. If Permission is nil, the task asks each question, as with
	// PermissionReply.Ask. If Permission panics, the answer is a rejection. The agent gets the
	// reason for a rejection. Permission can block, and it can be called concurrently for several
	// questions. While it is running, the task is shown as asking. After a restart, the manager
	// learns about a session's open questions only after Permission has returned for all of those
	// that the server lists. ctx ends when the question is answered in another way, when the session
	// becomes idle, or when the client is closed.
	Permission func(ctx context.Context, q PermissionRequest) PermissionReply

	// With SilentNotices, the client stores notices in the parent session without starting a turn
	// there. The session's agent reads the notices with its next prompt.
	SilentNotices bool

	// Timeout limits the duration of each request except the event stream. The default is 15
	// seconds.
	Timeout time.Duration

	// Logger logs the errors that interrupt the event stream, and panics in Permission. If it is
	// nil, nothing is logged.
	Logger *slog.Logger

	// HTTPClient makes the requests. The default is a new client with a connect timeout of 5
	// seconds. HTTPClient.Timeout must be zero; another value would cut off the
	// event stream. New copies HTTPClient. HTTPClient.CheckRedirect is called only for
	// redirects that keep the request's method and have the scheme, host and port of URL. No
	// other redirect is followed, so the password is never sent to another server.
	HTTPClient *http.Client
}

const (
	defaultURL      = "http://127.0.0.1:4096" // the default of opencode serve
	defaultUsername = "opencode"              // the default of OPENCODE_SERVER_USERNAME
	defaultTimeout  = 15 * time.Second
	dialTimeout     = 5 * time.Second
)

// Client runs sessions on an opencode server. It implements
// [bgagent.TurnStarter], [bgagent.Notifier], [bgagent.NoticeRecognizer], [bgagent.EventSource],
// [bgagent.TodoReader], [bgagent.SessionFinder], [bgagent.AgentLister],
// [bgagent.SessionForgetter], [bgagent.SessionHome] and [bgagent.Answerer]. Its methods are safe for
// concurrent use.
type Client struct {
	cfg  Config
	base string // URL without a trailing slash
	home string // result of Home
	http *http.Client

	// The field "life" is the context of the client's goroutines; Close cancels it. wg counts these
	// goroutines.
	life  context.Context
	close context.CancelFunc
	wg    sync.WaitGroup

	// mu guards the fields below. No request is made while it is held.
	mu       sync.Mutex
	closed   bool
	sessions map[string]*session
	asks     map[string]*ask         // open questions, by id
	dead     map[string]bool         // ids of questions whose turns have ended; the server might still list them
	known    map[string]catalog      // agents and models, by directory
	stream   bool                    // the event stream is connected
	breakOff context.CancelCauseFunc // closes the stream's connection; nil before the first connection
	tell     func(bgagent.HostEvent) // emits an event; nil unless Events is running
	dropped  []string                // forgotten sessions for which the follower still holds data
	heirs    int                     // number of sessions that the client has inherited
}

// New returns a client. It does not contact the server; call [Client.Check] to find out early
// whether the server can be used. The error names the invalid field.
func New(cfg Config) (*Client, error) {
	bad := func(field, format string, args ...any) (*Client, error) {
		return nil, &bgagent.InputError{Field: "opencode.Config." + field, Problem: fmt.Sprintf(format, args...)}
	}
	cfg.URL = cmp.Or(cfg.URL, defaultURL)
	u, err := url.Parse(cfg.URL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" {
		return bad("URL", "%q is not the address of a server; it should look like %s", cfg.URL, defaultURL)
	}
	if u.User != nil {
		return bad("URL", "contains a user or a password; put them into Username and Password")
	}
	if cfg.Username != "" && cfg.Password == "" {
		return bad("Username", "is set and Password is not; set both, or neither for a server without a password")
	}
	if cfg.Directory != "" && !absolute(cfg.Directory) {
		return bad("Directory", "%q is not an absolute path; it must be one on the server's machine", cfg.Directory)
	}
	if _, err := parseModel(cfg.Model); err != nil {
		return bad("Model", "%v", err)
	}
	if cfg.Timeout < 0 {
		return bad("Timeout", "%v is negative; it must be positive, or 0 for %v", cfg.Timeout, defaultTimeout)
	}
	if cfg.HTTPClient != nil && cfg.HTTPClient.Timeout != 0 {
		return bad("HTTPClient", "has a Timeout of %v, which would cut off the event stream; it must be 0, because Config.Timeout bounds the other requests", cfg.HTTPClient.Timeout)
	}
	cfg.Username = cmp.Or(cfg.Username, defaultUsername)
	cfg.Timeout = cmp.Or(cfg.Timeout, defaultTimeout)
	cfg.Tools = maps.Clone(cfg.Tools)
	c := &Client{
		cfg: cfg, base: strings.TrimRight(u.String(), "/"), home: origin(u) + strings.TrimRight(u.EscapedPath(), "/"), http: httpClient(cfg.HTTPClient),
		sessions: map[string]*session{}, asks: map[string]*ask{}, dead: map[string]bool{}, known: map[string]catalog{},
	}
	c.life, c.close = context.WithCancel(context.Background())
	return c, nil
}

// httpClient returns a copy of the given client that follows only redirects to the
// same server.
func httpClient(given *http.Client) *http.Client {
	if given == nil {
		return &http.Client{Transport: transport(), CheckRedirect: stays}
	}
	h := *given
	h.CheckRedirect = func(req *http.Request, via []*http.Request) error {
		if err := stays(req, via); err != nil || given.CheckRedirect == nil {
			return err
		}
		return given.CheckRedirect(req, via)
	}
	return &h
}

// transport returns the default transport. It allows many requests to one server
// at the same time.
func transport() *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.DialContext = (&net.Dialer{Timeout: dialTimeout, KeepAlive: 15 * time.Second}).DialContext
	t.MaxIdleConnsPerHost = 64
	return t
}

// The function "absolute" reports whether the path is absolute on Unix or on Windows. Either form is
// accepted, because the server and this client can run on different operating systems.
func absolute(path string) bool {
	return strings.HasPrefix(path, "/") || strings.HasPrefix(path, `\\`) ||
		len(path) > 2 && path[1] == ':' && (path[2] == '\\' || path[2] == '/')
}

// Close cancels the contexts of running calls to Config.Permission, and waits until these calls have
// returned. Call it after the manager is closed. It does not touch the server or its sessions. Calling Close
// again does nothing.
func (c *Client) Close() error {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.close()
	c.wg.Wait()
	if c.cfg.HTTPClient == nil {
		c.http.CloseIdleConnections()
	}
	return nil
}

// spawn runs f on a new goroutine, for which Close waits. If the client is closed, the method
// "spawn" does nothing. c.mu must be held.
func (c *Client) spawn(f func()) {
	if !c.closed {
		c.wg.Go(f)
	}
}

const (
	checkTime = 10 * time.Second // limit for all requests of Check together
	checkTry  = 2 * time.Second  // limit for one request
)

// Check asks the server for its health and returns its version. It returns within
// 10 seconds or when ctx ends. The error describes the problem with the address, the
// password or the server, and contains advice.
func (c *Client) Check(ctx context.Context) (version string, err error) {
	ctx, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	for {
		// A request that is made while the server starts might never be answered, so each request
		// has a short timeout.
		try, done := context.WithTimeout(ctx, checkTry)
		var health struct {
			Healthy *bool  `json:"healthy"`
			Version string `json:"version"`
		}
		err := c.do(try, call{method: http.MethodGet, path: "/global/health", out: &health})
		hung := try.Err() != nil
		done()
		switch {
		case err == nil && health.Healthy == nil:
			return "", fmt.Errorf("checking opencode: %w", &ServerError{URL: c.base, Status: http.StatusOK, Advice: adviceNotOpencode})
		case err == nil && !*health.Healthy:
			return "", fmt.Errorf("checking opencode: the server at %s says that it is not healthy: check its log", c.base)
		case err == nil:
			return health.Version, nil
		case !hung || ctx.Err() != nil:
			return "", fmt.Errorf("checking opencode: %w", err)
		}
	}
}

// catalog holds the agents and models of a directory. The server reads them from files that can
// change, so the client asks the server again if an agent or a model is not in the catalog.
type catalog struct {
	agents []wireAgent
	models map[string]bool // keys have the form provider/model
}

// Agents implements [bgagent.AgentLister]. It returns the agents of
// Config.Directory that are not hidden.
func (c *Client) Agents(ctx context.Context) ([]bgagent.AgentInfo, error) {
	list, err := c.agents(ctx, c.cfg.Directory)
	if err != nil {
		return nil, fmt.Errorf("listing opencode's agents: %w", err)
	}
	var out []bgagent.AgentInfo
	for _, a := range list {
		if !a.Hidden {
			out = append(out, bgagent.AgentInfo{Name: a.Name, Description: a.Description})
		}
	}
	return out, nil
}

// The method "agents" requests the agents of a directory from the server and remembers them.
func (c *Client) agents(ctx context.Context, dir string) ([]wireAgent, error) {
	var got list[wireAgent]
	if err := c.do(ctx, call{method: http.MethodGet, path: "/agent", dir: dir, out: &got}); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	k := c.known[dir]
	k.agents = got.items
	c.remember(dir, k)
	return got.items, nil
}

// maxDirs limits the number of remembered catalogs.
const maxDirs = 1000

// remember stores the catalog of a directory. c.mu must be held.
func (c *Client) remember(dir string, k catalog) {
	if len(c.known) >= maxDirs {
		clear(c.known)
	}
	c.known[dir] = k
}

// hasAgent returns a [*bgagent.NoSuchAgentError] if no agent has the given name. The server
// would accept a prompt for an unknown agent and never answer the prompt.
func (c *Client) hasAgent(ctx context.Context, dir, name string) error {
	has := func(list []wireAgent) bool {
		for _, a := range list {
			if a.Name == name {
				return true
			}
		}
		return false
	}
	c.mu.Lock()
	known := has(c.known[dir].agents)
	c.mu.Unlock()
	if known {
		return nil
	}
	list, err := c.agents(ctx, dir)
	if err != nil {
		return fmt.Errorf("looking for the agent: %w", err)
	}
	if has(list) {
		return nil
	}
	no := &bgagent.NoSuchAgentError{Agent: name}
	for _, a := range list {
		if !a.Hidden {
			no.Known = append(no.Known, a.Name)
		}
	}
	return no
}

// hasModel returns an error if the server does not have the model. If the list of models cannot
// be read, hasModel returns nil, because other versions of the server might not have this list.
func (c *Client) hasModel(ctx context.Context, dir string, m *wireModel) error {
	if m == nil {
		return nil
	}
	name := m.ProviderID + "/" + m.ID
	c.mu.Lock()
	known := c.known[dir].models[name]
	c.mu.Unlock()
	if known {
		return nil
	}
	var list wireProviders
	if err := c.do(ctx, call{method: http.MethodGet, path: "/config/providers", dir: dir, out: &list}); err != nil || len(list.Providers) == 0 {
		return nil
	}
	models := map[string]bool{}
	var providers, siblings []string
	for _, p := range list.Providers {
		providers = append(providers, p.ID)
		for id := range p.Models {
			models[p.ID+"/"+id] = true
			if p.ID == m.ProviderID {
				siblings = append(siblings, id)
			}
		}
	}
	c.mu.Lock()
	k := c.known[dir]
	k.models = models
	c.remember(dir, k)
	c.mu.Unlock()
	switch {
	case models[name]:
		return nil
	case len(siblings) > 0:
		return unknownModel("there is no model %q on the opencode server; its provider %s has: %s", name, m.ProviderID, some(siblings))
	}
	return unknownModel("there is no provider %q on the opencode server for the model %q; there are: %s", m.ProviderID, name, some(providers))
}

// unknownModel returns the error for a model that the server does not have. The prompt can be given
// to the session again, because it was not sent.
func unknownModel(format string, args ...any) error {
	return &bgagent.ProviderError{Kind: bgagent.ProviderUnknownModel, Next: bgagent.NextRepeat, Message: fmt.Sprintf(format, args...)}
}

// parseModel parses provider/model. The model's own name can contain slashes. For an empty
// name, parseModel returns nil.
func parseModel(name string) (*wireModel, error) {
	if name == "" {
		return nil, nil
	}
	provider, model, ok := strings.Cut(strings.TrimSpace(name), "/")
	if !ok || provider == "" || model == "" {
		return nil, fmt.Errorf("the model %q should be written provider/model, like anthropic/claude-sonnet-4-5", name)
	}
	return &wireModel{ID: model, ProviderID: provider}, nil
}
