// Package dashboard is a live web page about a [bgagent.BackgroundManager]. The page shows
// the tasks as a tree under their parents and as a timeline, the pools, and the progress and
// messages of a selected task.
//
//	m, _ := bgagent.New(client, bgagent.Config{})
//	http.Handle("/debug/tasks/", dashboard.New(m, dashboard.Config{}))
//
// The handler can be mounted under any path that ends in a slash, with or without
// [http.StripPrefix]. The page needs only the handler: the page's files are embedded, and
// the page sends no request to another server.
//
// The manager does not number its slots, so the timeline has lanes instead. Each task gets the lowest lane
// that was free when the task began. A task that waits for tasks that it launched has no slot but keeps its
// lane, so a pool can have more lanes than its limit.
//
// If the manager has a store, the page also shows the latest 1,000 tasks that have ended and are
// only in the store. A task that is deleted from the store stays on open pages, but its details
// can no longer be shown.
//
// With [Config].Others, the page also shows the tasks of other processes. A process that does not answer
// delays nothing: its tasks stay on the page with a mark.
//
// # Access
//
// The page shows prompts, answers and everything that agents write about the files that they
// work on. It has no login. Protect it with the host's login, as you would protect
// net/http/pprof, or serve it on loopback only. On loopback, the handler accepts only requests
// for localhost or a loopback address, so a web page cannot read the dashboard through a domain
// name that points to loopback; see [Config].Hosts.
//
// Tasks can be changed on the page only if [Config] allows that. A request that changes
// something must come from the page itself: it must have the same origin, and a header that a
// form on another site cannot send.
//
// # Cost
//
// The dashboard does not cost anything while no page is open. While pages are open, one
// goroutine follows the manager's events for all pages. Each page gets changes at most once
// per [Config].Interval. A slow page does not delay the manager or other pages.
package dashboard

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/bgagent/bgagent"
)

// DefaultInterval is the default value of [Config].Interval. People perceive changes within
// this time as immediate, so a shorter interval would make pages redraw without any benefit.
const DefaultInterval = 150 * time.Millisecond

// DefaultSilent is the default value of [Config].Silent: half of the time after which a
// manager with default settings cancels a silent task.
const DefaultSilent = bgagent.DefaultStaleTimeout / 2

// Config configures a [Handler]. With the zero value, tasks cannot be changed on the page.
type Config struct {
	// Title is the page's heading. Default "Background tasks".
	Title string
	// AllowCancel lets everybody with access to the page cancel tasks. A task is cancelled on
	// behalf of the host, so the task's parent is notified that it has ended.
	AllowCancel bool
	// AllowResume lets everybody with access to the page resume tasks that have ended, with
	// another prompt or with the same prompt. When a resumed task ends, its parent is notified.
	AllowResume bool
	// AllowAnswer lets everybody with access to the page answer tasks' questions, except
	// requests for permission.
	AllowAnswer bool
	// AllowPermit lets everybody with access to the page grant the permissions that tasks ask for. Set
	// it only if a login protects the page, even on loopback: otherwise, every program on the machine
	// could grant itself permission to run a command.
	AllowPermit bool
	// Log reads what a task's program has printed. It returns text from the given offset on, and the offset
	// of the text that follows. It need not return the whole rest of the log at once. At the end of the log,
	// the text is empty and the offset is unchanged. An error is shown on the page. Log must be safe for
	// concurrent use. If Log is nil, the page shows no logs.
	Log func(ctx context.Context, task string, offset int64) (text string, next int64, err error)
	// Process is the name of this process. The page shows it if there are other processes.
	Process string
	// Others gives the page access to the tasks of other processes. If it is nil, the page shows only the
	// manager's tasks.
	Others Others
	// Hosts are the host names that are accepted in requests, without a port. If Hosts is empty,
	// a server on loopback accepts only localhost and loopback addresses, and other servers
	// accept any name.
	Hosts []string
	// Silent is the time after which the page marks a task that is working but silent. A good
	// value is half of [bgagent.Config].StaleTimeout, so that users see the silence before the
	// task is cancelled. Default DefaultSilent; [bgagent.Disabled] means no marks.
	Silent time.Duration
	// Interval is how long changes are collected before they are sent to the pages. Default
	// DefaultInterval.
	Interval time.Duration
}

// Handler serves the page. It must be created with [New]. It is safe for concurrent use.
type Handler struct {
	m      *bgagent.BackgroundManager
	cfg    Config
	feed   *feed
	origin *http.CrossOriginProtection
}

// New returns a handler that shows the manager. It panics if m is nil or the
// interval is negative.
func New(m *bgagent.BackgroundManager, cfg Config) *Handler {
	if m == nil {
		panic("dashboard: New without a manager")
	}
	if cfg.Interval < 0 {
		panic("dashboard: Config.Interval is negative")
	}
	if cfg.Title == "" {
		cfg.Title = "Background tasks"
	}
	if cfg.Interval == 0 {
		cfg.Interval = DefaultInterval
	}
	if cfg.Silent == 0 {
		cfg.Silent = DefaultSilent
	}
	cfg.Hosts = slices.Clone(cfg.Hosts)
	return &Handler{m: m, cfg: cfg, feed: newFeed(m, cfg.Interval, cfg.Others), origin: http.NewCrossOriginProtection()}
}

// Close ends the streams of all open pages. After Close, new streams are refused. Register
// Close with [http.Server.RegisterOnShutdown]: Shutdown waits until all requests have ended,
// and without Close, a stream ends only when its page or the manager is closed. Close may be
// called more than once.
func (h *Handler) Close() { h.feed.close() }

// ServeHTTP implements [http.Handler]. It uses only the last element of the request's path,
// so the handler can be mounted under any path.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	setSafeHeaders(w.Header())
	if err := h.checkHost(r); err != nil {
		writeError(w, http.StatusMisdirectedRequest, err)
		return
	}
	name := path.Base(r.URL.Path)
	if strings.HasSuffix(r.URL.Path, "/") {
		name = ""
	}
	switch name {
	case "events":
		h.read(w, r, h.serveEvents)
	case "task":
		h.read(w, r, h.serveTask)
	case "messages":
		h.read(w, r, h.serveMessages)
	case "log":
		h.read(w, r, h.serveLog)
	case "cancel":
		h.act(w, r, h.cfg.AllowCancel, h.cancel)
	case "resume":
		h.act(w, r, h.cfg.AllowResume, h.resume)
	case "retry":
		h.act(w, r, h.cfg.AllowResume, h.retry)
	case "answer":
		h.answer(w, r)
	case ".":
		// StripPrefix has removed the whole path. The page's links need a slash at the end of the
		// address. http.Redirect cannot be used: it would make the target relative to the path that
		// remains after StripPrefix.
		w.Header().Set("Location", redirectTarget(r))
		w.WriteHeader(http.StatusMovedPermanently)
	default:
		h.serveAsset(w, r, name)
	}
}

// redirectTarget returns the address of the page, relative to the requested address.
func redirectTarget(r *http.Request) string {
	asked, _, _ := strings.Cut(r.RequestURI, "?")
	return "./" + path.Base(asked) + "/"
}

// setSafeHeaders sets headers that allow the page to load only the handler's files. With
// Trusted Types, the browser refuses to convert text into markup.
func setSafeHeaders(h http.Header) {
	h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "+
		"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
}

// checkHost returns an error if the host name of the request is not accepted. Without this
// check, a web page could make its own domain point to this machine. It would then have the
// same origin as the dashboard and could send any request.
func (h *Handler) checkHost(r *http.Request) error {
	host := r.Host
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.ToLower(strings.Trim(host, "[]"))
	if len(h.cfg.Hosts) > 0 {
		if slices.ContainsFunc(h.cfg.Hosts, func(name string) bool { return strings.EqualFold(name, host) }) {
			return nil
		}
		return fmt.Errorf("the page is not served as %q; Config.Hosts lists the accepted names", host)
	}
	addr, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
	if !ok || !addr.IP.IsLoopback() || host == "localhost" || net.ParseIP(host).IsLoopback() {
		return nil
	}
	return fmt.Errorf("the page is served on loopback, not as %q; add the name to Config.Hosts to allow it", host)
}

// read serves a read-only request. It refuses requests from other sites' pages.
func (h *Handler) read(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
	if r.Method != http.MethodGet {
		w.Header().Set("Allow", http.MethodGet)
		writeError(w, http.StatusMethodNotAllowed, fmt.Errorf("%s is not allowed here", r.Method))
		return
	}
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "same-origin", "none":
		w.Header().Set("Cache-Control", "no-store")
		serve(w, r)
	default:
		writeError(w, http.StatusForbidden, fmt.Errorf("the request comes from another site"))
	}
}

// problem is the body of an error response to the page.
type problem struct {
	Error string `json:"error"`
}

func writeError(w http.ResponseWriter, code int, err error) { writeJSON(w, code, problem{err.Error()}) }

func writeJSON(w http.ResponseWriter, code int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		code, b = http.StatusInternalServerError, []byte(`{"error":"the answer could not be written as JSON"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(b) // an error means that the client has disconnected
}
