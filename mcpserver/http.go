package mcpserver

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/modelcontextprotocol/go-sdk/auth"
	"github.com/modelcontextprotocol/go-sdk/mcp"
)

// HTTPConfig says who may call over HTTP. One of Tokens and Scope is required.
type HTTPConfig struct {
	// Tokens names the scope of each bearer token. A token has at least 16 bytes.
	Tokens map[string]string

	// Scope is that of all callers where there are no tokens. Only callers on this
	// machine are served then.
	Scope string

	// Origins are what the Origin header of a request may be, such as
	// https://example.com, besides none and the server's own.
	Origins []string
}

// minToken is what a token must have at least, so that nobody guesses it.
const minToken = 16

const (
	// maxBody is what the body of a request may have, in bytes: the arguments of a
	// call, twice over.
	maxBody = 4 << 20

	// bodyTimeout is how long the body of a request may take, and refusedTimeout
	// how long that of a request which is refused.
	bodyTimeout    = 30 * time.Second
	refusedTimeout = 5 * time.Second
)

// sessionTimeout is after how long without a request a connection of the older
// protocol versions is forgotten. Nothing of the tasks is lost with it.
const sessionTimeout = time.Hour

// withoutSessions is the version of the protocol, a date, from which on every
// request stands by itself.
const withoutSessions = "2026-07-28"

// Handler returns what serves callers over the protocol's streamable HTTP. A
// request with a wrong token, or with none, gets 401; one from a page of another
// origin 403. Nothing of a body is read before that; then it has 30 s and may have
// 4 MiB. A client that reads nothing for 30 s loses its connection.
//
// Connections end with the http.Server that serves it. That server should have a
// ReadHeaderTimeout and an IdleTimeout, for connections on which nothing is asked,
// and a bound on connections where strangers can reach it. It must have no
// WriteTimeout, which would end streams and calls that wait; the handler sets
// deadlines of its own for each write. A ReadTimeout is not needed.
func (s *Server) Handler(cfg HTTPConfig) (http.Handler, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	scopes := make(map[[sha256.Size]byte]string, len(cfg.Tokens)) // looked up by hash: that takes as long for any token
	for token, scope := range cfg.Tokens {
		scopes[sha256.Sum256([]byte(token))] = scope
	}
	scopeOf := func(r *http.Request) *scope {
		name := cfg.Scope
		if len(scopes) > 0 {
			name = auth.TokenInfoFromContext(r.Context()).UserID
		}
		sc, err := s.scope(name)
		if err != nil {
			return nil // the server is closed
		}
		return sc
	}
	served := func(r *http.Request) *mcp.Server {
		if sc := scopeOf(r); sc != nil {
			return sc.server
		}
		return nil // answered with 400
	}
	sessions := mcp.NewStreamableHTTPHandler(served, &mcp.StreamableHTTPOptions{Logger: s.cfg.Logger, SessionTimeout: sessionTimeout})
	requests := mcp.NewStreamableHTTPHandler(served, &mcp.StreamableHTTPOptions{Logger: s.cfg.Logger, Stateless: true, PropagateRequestCancellation: true})
	var h http.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sc := scopeOf(r)
		switch {
		case r.Header.Get("Mcp-Protocol-Version") < withoutSessions:
			sessions.ServeHTTP(w, r)
		case sc == nil:
			requests.ServeHTTP(w, r)
		default:
			sc.listening(requests).ServeHTTP(w, r)
		}
	})
	h = read(queue(h))
	if len(scopes) > 0 {
		// The user keeps a connection of one token out of another's hands.
		verify := func(_ context.Context, token string, _ *http.Request) (*auth.TokenInfo, error) {
			scope, ok := scopes[sha256.Sum256([]byte(token))]
			if !ok {
				return nil, auth.ErrInvalidToken
			}
			return &auth.TokenInfo{UserID: scope}, nil
		}
		h = challenge(auth.RequireBearerToken(verify, &auth.RequireBearerTokenOptions{AllowMissingExpiration: true})(h))
	} else {
		h = onThisMachine(h)
	}
	protection := http.NewCrossOriginProtection()
	for _, o := range cfg.Origins {
		if err := protection.AddTrustedOrigin(o); err != nil {
			return nil, fmt.Errorf("mcpserver: HTTPConfig.Origins: %w", err)
		}
	}
	return hurried(protection.Handler(h)), nil
}

// hurried bounds the time that the server spends on the body of a request that is
// refused without having been read.
func hurried(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if hasBody(r) {
			_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(refusedTimeout)) // not every server has deadlines
		}
		h.ServeHTTP(w, r)
	})
}

// read reads the body of a request before it is looked at, within bounds of time
// and size.
func read(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !hasBody(r) {
			h.ServeHTTP(w, r)
			return
		}
		control := http.NewResponseController(w)
		_ = control.SetReadDeadline(time.Now().Add(bodyTimeout))
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
		var long *http.MaxBytesError
		switch {
		case errors.As(err, &long):
			http.Error(w, fmt.Sprintf("the body of the request is too long; it may have %d bytes", maxBody), http.StatusRequestEntityTooLarge)
			return
		case err != nil:
			w.Header().Set("Connection", "close")
			http.Error(w, "the body of the request cannot be read: it did not come whole in time", http.StatusRequestTimeout)
			return
		}
		_ = control.SetReadDeadline(time.Time{}) // or the end of the wait would look like that of the connection
		r = r.Clone(r.Context())
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
		h.ServeHTTP(w, r)
	})
}

func hasBody(r *http.Request) bool { return r.Body != nil && r.Body != http.NoBody }

func (cfg *HTTPConfig) check() error {
	switch {
	case len(cfg.Tokens) == 0 && strings.TrimSpace(cfg.Scope) == "":
		return errors.New("mcpserver: HTTPConfig has neither Tokens nor a Scope; give each caller a token, or name the scope of all")
	case len(cfg.Tokens) > 0 && cfg.Scope != "":
		return errors.New("mcpserver: HTTPConfig has Tokens and a Scope; the scope is that of each token, so leave Scope empty")
	}
	for token, scope := range cfg.Tokens {
		switch {
		case len(token) < minToken:
			return fmt.Errorf("mcpserver: HTTPConfig.Tokens: the token of %q has %d bytes; it must have at least %d", scope, len(token), minToken)
		case strings.ContainsAny(token, " \t\r\n"):
			return fmt.Errorf("mcpserver: HTTPConfig.Tokens: the token of %q has a space in it, which no header can carry", scope)
		case strings.TrimSpace(scope) == "":
			return errors.New("mcpserver: HTTPConfig.Tokens: a token has no scope; name who calls with it")
		}
	}
	return nil
}

// challenge says with 401 what is wanted.
func challenge(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.ServeHTTP(&challenger{streamWriter{w}}, r)
	})
}

type challenger struct{ streamWriter }

func (c *challenger) WriteHeader(code int) {
	if code == http.StatusUnauthorized {
		c.Header().Set("WWW-Authenticate", `Bearer realm="bgagent"`)
	}
	c.ResponseWriter.WriteHeader(code)
}

// streamWriter is what a writer embeds that changes what is written: streams are
// flushed through it.
type streamWriter struct{ http.ResponseWriter }

// Unwrap lets http.ResponseController reach what flushes.
func (w streamWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Flush implements [http.Flusher].
func (w streamWriter) Flush() { _ = http.NewResponseController(w.ResponseWriter).Flush() }

// onThisMachine refuses callers from elsewhere.
func onThisMachine(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, err := net.SplitHostPort(r.RemoteAddr)
		if err != nil || !net.ParseIP(host).IsLoopback() {
			http.Error(w, "only callers on the same machine are served without a token", http.StatusForbidden)
			return
		}
		h.ServeHTTP(w, r)
	})
}
