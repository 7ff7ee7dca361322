// Package dashboard is a page that shows what a [bgagent.BackgroundManager] does,
// for people: the tasks as a tree under their parents and as a timeline, the
// pools, and the progress and messages of one task, live.
//
//	m, _ := bgagent.New(client, bgagent.Config{})
//	http.Handle("/debug/tasks/", dashboard.New(m, dashboard.Config{}))
//
// It is mounted under any path that ends in a slash, with or without
// [http.StripPrefix]. The page needs nothing but the handler: its files are
// embedded, and it asks no other server for anything.
//
// The manager does not number its slots; the timeline gives each task the lowest
// lane that was free when it began. A task that waits for tasks of its own has no
// slot and keeps its lane, so a pool can have more lanes than its limit.
//
// # Who may see it
//
// The page shows the prompts, answers and working directories' contents that
// agents talk about. It has no login: put the host's own in front of it, as for
// net/http/pprof, or serve it on loopback only. A server on loopback answers to
// the names of loopback alone, so that no web page can read it by a name of its
// own that points there; see [Config].Hosts.
//
// It changes nothing unless [Config] allows it. What it then accepts must come
// from the page itself: from the same origin, with a header that no form of
// another site can send.
//
// # What it costs
//
// Nothing while nobody looks. While somebody does, one goroutine follows the
// manager's events for all pages together; each page is sent what has changed,
// at most once in every [Config].Interval, however slow it is.
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

// DefaultInterval is the default of [Config].Interval: people take it for at
// once, and a page that is sent more redraws for nothing.
const DefaultInterval = 150 * time.Millisecond

// Config configures a [Handler]. The zero value is a page that changes nothing.
type Config struct {
	// Title is the page's heading. Default "Background tasks".
	Title string
	// AllowCancel lets those who see the page cancel tasks. The host counts as
	// the one who cancelled: the parent is told of the end.
	AllowCancel bool
	// AllowResume lets those who see the page continue tasks that have ended
	// with another prompt. The task's parent is told of the end.
	AllowResume bool
	// Hosts are the names, without a port, under which the page may be asked
	// for. Empty means any, except that a server which listens on loopback then
	// answers only to localhost and loopback addresses.
	Hosts []string
	// Interval is the least time between two messages to a page. Default
	// DefaultInterval.
	Interval time.Duration
}

// Handler serves the page. Make one with [New]. It is safe for concurrent use.
type Handler struct {
	m      *bgagent.BackgroundManager
	cfg    Config
	feed   *feed
	origin *http.CrossOriginProtection
}

// New returns a handler that shows the manager. It panics when m is nil or the
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

// Close ends the streams of all open pages, and every later one at once. It is
// for [http.Server.RegisterOnShutdown]: Shutdown waits for requests to end, and
// a stream ends by itself only with its page or with the manager. It may be
// called more than once.
func (h *Handler) Close() { h.feed.close() }

// ServeHTTP implements [http.Handler]. What is asked for is told by the last
// element of the path, so that it does not matter where the handler is mounted.
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
	case ".": // StripPrefix has left nothing: the page's links need the slash
		// http.Redirect would make it relative to what StripPrefix has left.
		w.Header().Set("Location", redirectTarget(r))
		w.WriteHeader(http.StatusMovedPermanently)
	default:
		h.serveAsset(w, r, name)
	}
}

// redirectTarget is the address of the page, relative to what was asked for.
func redirectTarget(r *http.Request) string {
	asked, _, _ := strings.Cut(r.RequestURI, "?")
	return "./" + path.Base(asked) + "/"
}

// setSafeHeaders allows the page its own files and nothing else. Trusted types
// make the browser refuse to turn any text into markup, wherever it comes from.
func setSafeHeaders(h http.Header) {
	h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "+
		"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
}

// checkHost refuses names that the page is not meant to be known by. Without
// it any web page could make a name of its own point to this machine, and read
// and act as if it were this page.
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
		return fmt.Errorf("the page is not served as %q; Config.Hosts says under which names it is", host)
	}
	addr, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
	if !ok || !addr.IP.IsLoopback() || host == "localhost" || net.ParseIP(host).IsLoopback() {
		return nil
	}
	return fmt.Errorf("the page is served on loopback and is not known as %q; name it in Config.Hosts if it should be", host)
}

// read serves what may only be read, and only by the page itself or by programs.
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
		writeError(w, http.StatusForbidden, fmt.Errorf("asked for by another site"))
	}
}

// problem is what the page is told when something did not work.
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
	_, _ = w.Write(b) // whoever asked has gone when this fails
}
