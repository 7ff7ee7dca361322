// Package dashboard is a live web page that shows what a
// [bgagent.BackgroundManager] does: the tasks as a tree under their parents and as
// a timeline, the pools, and the progress and messages of one task.
//
//	m, _ := bgagent.New(client, bgagent.Config{})
//	http.Handle("/debug/tasks/", dashboard.New(m, dashboard.Config{}))
//
// The handler can be mounted under any path that ends in a slash, with or without
// [http.StripPrefix]. The page needs only the handler: its files are embedded, and
// it sends no request to another server.
//
// The manager does not number its slots. The timeline gives each task the lowest
// lane that was free when the task began. A task that waits for its own tasks has
// no slot but keeps its lane, so a pool can have more lanes than its limit.
//
// # Access
//
// The page shows prompts, answers and whatever agents say about the files that they
// work on. It has no login: put the host's own in front of it, as for
// net/http/pprof, or serve it on loopback only. A server on loopback accepts only
// the names of loopback, so that no web page can read it through a domain that
// points there; see [Config].Hosts.
//
// The page changes nothing unless [Config] allows it. A request that changes
// something must come from the page itself: from the same origin, with a header
// that a form of another site cannot send.
//
// # Cost
//
// The dashboard costs nothing while no page is open. While pages are open, one
// goroutine follows the manager's events for all of them. Each page gets the
// changes at most once per [Config].Interval, however slow it is.
package dashboard

import (
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

// DefaultInterval is the default of [Config].Interval. People perceive it as
// immediate. A shorter one makes pages redraw for nothing.
const DefaultInterval = 150 * time.Millisecond

// Config configures a [Handler]. The zero value is a page that changes nothing.
type Config struct {
	// Title is the page's heading. Default "Background tasks".
	Title string
	// AllowCancel lets everybody who sees the page cancel tasks. The host counts as
	// the canceller, so the parent is notified of the end.
	AllowCancel bool
	// AllowResume lets everybody who sees the page resume ended tasks with another
	// prompt. The task's parent is notified of the end.
	AllowResume bool
	// Hosts are the host names, without a port, that the page answers to. If it is
	// empty, any name is accepted, except that a server on loopback answers only to
	// localhost and loopback addresses.
	Hosts []string
	// Interval is the minimum time between two messages to a page. Default
	// DefaultInterval.
	Interval time.Duration
}

// Handler serves the page. Create one with [New]. It is safe for concurrent use.
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
	cfg.Hosts = slices.Clone(cfg.Hosts)
	return &Handler{m: m, cfg: cfg, feed: newFeed(m, cfg.Interval), origin: http.NewCrossOriginProtection()}
}

// Close ends the streams of all open pages, and every later stream at once.
// Register it with [http.Server.RegisterOnShutdown]: Shutdown waits for requests to
// end, and a stream otherwise ends only with its page or with the manager. Close
// may be called more than once.
func (h *Handler) Close() { h.feed.close() }

// ServeHTTP implements [http.Handler]. The last element of the path selects what is
// served, so it does not matter where the handler is mounted.
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
	case "cancel":
		h.act(w, r, h.cfg.AllowCancel, h.cancel)
	case "resume":
		h.act(w, r, h.cfg.AllowResume, h.resume)
	case ".": // StripPrefix left nothing; the page's links need the slash
		// http.Redirect would make the target relative to what StripPrefix left.
		w.Header().Set("Location", redirectTarget(r))
		w.WriteHeader(http.StatusMovedPermanently)
	default:
		h.serveAsset(w, r, name)
	}
}

// redirectTarget returns the address of the page, relative to the requested one.
func redirectTarget(r *http.Request) string {
	asked, _, _ := strings.Cut(r.RequestURI, "?")
	return "./" + path.Base(asked) + "/"
}

// setSafeHeaders allows the page its own files and nothing else. Trusted Types make
// the browser refuse to turn any text into markup, wherever it comes from.
func setSafeHeaders(h http.Header) {
	h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "+
		"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
}

// checkHost refuses host names that the page does not answer to. Otherwise any web
// page could point a domain of its own at this machine, and read and act as if it
// were this page.
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
		return fmt.Errorf("the page is not served as %q; Config.Hosts lists the names it is served under", host)
	}
	addr, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
	if !ok || !addr.IP.IsLoopback() || host == "localhost" || net.ParseIP(host).IsLoopback() {
		return nil
	}
	return fmt.Errorf("the page is served on loopback, not as %q; add the name to Config.Hosts to allow it", host)
}

// read serves read-only requests, from the page itself or from programs only.
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
	_, _ = w.Write(b) // fails only if the client is gone
}
