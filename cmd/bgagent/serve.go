package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/bridge"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/children"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/control"
	"github.com/bgagent/bgagent/cmd/bgagent/internal/transcript"
	"github.com/bgagent/bgagent/dashboard"
	"github.com/bgagent/bgagent/mcpserver"
)

// serveCmd is the command "bgagent serve".
type serveCmd struct {
	Addr    string   `default:"127.0.0.1:8321" help:"Where to listen: HOST:PORT."`
	Token   []string `placeholder:"NAME=VARIABLE" help:"A caller, and the environment variable, or @FILE, that holds its bearer token of at least 16 bytes. Repeatable; required unless --addr is a loopback address."`
	Origin  []string `placeholder:"URL" help:"A web page's origin whose requests are served, such as https://example.com. Repeatable."`
	Host    []string `placeholder:"NAME" help:"A name, without a port, that a reverse proxy on this machine passes on in the Host header. Repeatable; needs --token."`
	Process string   `placeholder:"NAME" help:"Name of this process in the cluster that the configuration names: 1 to 39 letters, digits and hyphens. Its tasks are kept under this name. Default: made from the names of the machine, the state folder and the configuration files."`
	bridgeFlags
	pageFlags
	copyFlags
	logFlags
}

// Help implements kong's help provider.
func (serveCmd) Help() string {
	return `Serves the tools over MCP (streamable HTTP) under /mcp. Each token belongs to a separate caller, which sees only its own tasks. Without tokens, all callers on this machine count as one. The page at / shows the tasks of all callers, and /healthz answers "ok".

The tasks are kept: after a kill -9, a SIGTERM or a SIGHUP, the next serve with the same configuration continues them. Ctrl-C ends the server and cancels all tasks.

If the configuration names a cluster, the tasks are kept on its NATS servers, and the limits apply to all processes of the cluster together.

Exit codes: 0 a signal asked the server to end; 1 it could not continue to serve, the servers of its cluster could not be reached, or an agent program did not end well; 2 invalid input; 130 a second signal ended everything immediately.`
}

// httpScope is the scope of all callers if there are no tokens.
const httpScope = "local"

// Run implements the subcommand.
func (c *serveCmd) Run(all *cli, stop stops) error {
	children.Adopt()
	roots, err := c.roots()
	if err != nil {
		return &exitError{exitInput, err}
	}
	var secret secrets
	cfg, err := untilStopped(stop.soft, func() (mcpserver.HTTPConfig, error) { return c.callers(&secret) })
	switch {
	case errors.Is(err, context.Canceled): // a signal asked the server to stop
		return nil
	case err != nil:
		return &exitError{exitInput, err}
	}
	s, err := startServing(all, "serve", all.keeps() || c.PageActs, c.Process, c.copyFlags, c.logFlags, stop)
	if s == nil {
		return err
	}
	err = c.serve(s, cfg, roots, &secret, stop)
	if errors.Is(err, context.Canceled) {
		err = nil
	}
	return errors.Join(err, s.end(stop))
}

// The method "callers" returns the HTTP server's configuration according to the flags: the callers and their
// tokens, or one scope for all callers if there are no tokens.
func (c *serveCmd) callers(secret *secrets) (mcpserver.HTTPConfig, error) {
	cfg := mcpserver.HTTPConfig{Origins: c.Origin}
	host, _, err := net.SplitHostPort(c.Addr)
	if err != nil {
		return cfg, fmt.Errorf("--addr %q is not HOST:PORT, such as 127.0.0.1:8321", c.Addr)
	}
	for _, o := range c.Origin {
		if err := http.NewCrossOriginProtection().AddTrustedOrigin(o); err != nil {
			return cfg, fmt.Errorf("--origin %q is not an origin such as https://example.com", o)
		}
	}
	for _, h := range c.Host {
		if h == "" || strings.ContainsAny(h, "/: \t") {
			return cfg, fmt.Errorf("--host %q is not the name of a server, such as tasks.example.com; leave out scheme and port", h)
		}
	}
	if len(c.Token) == 0 {
		if len(c.Host) > 0 {
			return cfg, fmt.Errorf("--host %s: a proxy can be reached from other machines; name callers and their tokens with --token NAME=VARIABLE", c.Host[0])
		}
		if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			return cfg, fmt.Errorf("--addr %s can be reached from other machines; name callers and their tokens with --token NAME=VARIABLE, or listen on 127.0.0.1", c.Addr)
		}
		cfg.Scope = httpScope
		return cfg, nil
	}
	cfg.Tokens = map[string]string{}
	for _, t := range c.Token {
		name, variable, ok := strings.Cut(t, "=")
		if !ok || name == "" || variable == "" {
			return cfg, fmt.Errorf("--token %q is not NAME=VARIABLE, such as alice=ALICE_TOKEN", t)
		}
		token, err := secret.read("--token "+t, variable, "token")
		switch {
		case err != nil:
			return cfg, err
		case strings.ContainsAny(token, " \t\r\n"):
			return cfg, fmt.Errorf("--token %s: the token in %s contains a space, which a header cannot carry", t, variable)
		case strings.TrimSpace(name) == "":
			return cfg, fmt.Errorf("--token %q has no name; name the caller that has the token, as in alice=%s", t, variable)
		}
		if other, twice := cfg.Tokens[token]; twice {
			return cfg, fmt.Errorf("--token: %s and %s have the same token; give each its own", other, name)
		}
		cfg.Tokens[token] = name
	}
	return cfg, checkNames(cfg.Tokens)
}

// The method "known" returns a handler that verifies the host names of requests that arrive on a loopback
// address, and passes the requests on to h. It refuses every name except localhost, loopback addresses and
// the names given with --host. A refused request comes either from a proxy, whose name must be given with
// --host, or from a web page whose domain name resolves to this machine. Requests for names given with --host
// are passed on without their local address, so that the inner handlers do not check the name again.
func (c *serveCmd) known(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		addr, _ := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
		host := r.Host
		if name, _, err := net.SplitHostPort(host); err == nil {
			host = name
		}
		host = strings.Trim(host, "[]")
		switch ip := net.ParseIP(host); {
		case slices.ContainsFunc(c.Host, func(name string) bool { return strings.EqualFold(name, host) }):
			r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, nil))
		case addr == nil || !addr.IP.IsLoopback() || strings.EqualFold(host, "localhost") || ip != nil && ip.IsLoopback():
		default:
			http.Error(w, fmt.Sprintf("this server is not known as %q; if a reverse proxy asks for it by that name, start it with --host %[1]s", host), http.StatusMisdirectedRequest)
			return
		}
		h.ServeHTTP(w, r)
	})
}

func (c *serveCmd) serve(s *serving, cfg mcpserver.HTTPConfig, roots []string, secret *secrets, stop stops) error {
	h, err := s.server.Handler(cfg)
	if err != nil {
		return &exitError{exitInput, err}
	}
	page, guarded, err := c.page(stop.soft, s, len(c.Token) > 0, secret)
	if err != nil {
		return &exitError{exitInput, err}
	}
	secret.forget()
	if s.cluster != nil {
		if err := s.others.begin(s.cluster, cfg.Tokens); err != nil {
			return &exitError{exitInput, err}
		}
	}
	listener, err := net.Listen("tcp", c.Addr)
	if err != nil {
		return &exitError{exitInput, fmt.Errorf("listening on %s: %w; choose another port with --addr", c.Addr, err)}
	}
	s.restore()
	s.takeOver()
	info := control.Info{MCP: "http://" + listener.Addr().String() + "/mcp", Silent: s.silent()}
	if page != nil {
		info.Page = "http://" + listener.Addr().String() + "/"
	}
	commands := s.acceptCommands(info)
	defer func() { _ = commands.Close() }()
	mux := http.NewServeMux()
	mux.Handle("/mcp", h)
	mux.Handle("/"+bridge.Path, s.acceptBridges(roots, cfg))
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok\n") })
	if page != nil {
		mux.Handle("/", guarded)
		defer page.Close()
	}
	server := newServer(c.known(mux))
	server.BaseContext = func(net.Listener) context.Context { return stop.soft }
	defer context.AfterFunc(stop.soft, func() { _ = server.Close() })()
	taken := s.untilLost(stop.soft, server)
	if c.PageActs && c.Page == "" && s.permitsNothing() {
		warn("no person can answer if a task asks for a permission, because the page has no password (--page) and tasks are not kept (--state none), so bgagent answer finds none; such a question expires after a day")
	}
	fmt.Printf("MCP: %s\n", info.MCP)
	if page != nil {
		fmt.Printf("page: %s\n", info.Page)
	}
	c.sayHow(listener.Addr())
	if err := serveBounded(server, listener, maxConnections(), writeTime); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return taken()
}

// maxCommands is the maximum number of commands from terminals that are served at the same time.
const maxCommands = 64

// The method "silent" returns the time without a sign of life after which a working task is shown as silent:
// half of the time after which the manager cancels the task, but at most 90 s. This way, a task that hangs is
// marked even if it is cancelled late or never.
func (s *serving) silent() time.Duration {
	if s.stale == 0 { // the manager does not cancel silent tasks
		return dashboard.DefaultSilent
	}
	return min(s.stale/2, dashboard.DefaultSilent)
}

// permitsNothing reports whether tasks can ask for permissions that can be granted neither by a command in a
// terminal nor by a model.
func (s *serving) permitsNothing() bool {
	var cfg bgagent.Config
	s.set.Limits.Apply(&cfg)
	return cfg.Ask && s.at.Dir == "" && !cfg.ModelsMayPermit
}

// acceptCommands lets the commands "status", "tasks", "show", "logs", "cancel", "resume", "send",
// "answer" and "prune" use this server. The commands find the server through its store, so the
// result is nil if tasks are not kept.
func (s *serving) acceptCommands(info control.Info) *control.Server {
	if s.at.Dir == "" {
		return nil
	}
	c, err := control.Listen(s.at.Dir, control.Host{
		Manager: s.manager, Instance: s.life.id, Info: info, Log: s.log(), Cluster: s.cluster,
		RemoveLog: func(task string) error { return transcript.RemoveLog(s.at.Logs(), task) },
		Serve: func(server *http.Server, l net.Listener) error {
			return serveBounded(server, l, maxCommands, writeTime)
		},
	})
	if err != nil {
		warn("commands such as bgagent status and bgagent cancel cannot reach this server: %v", err)
	}
	return c
}
