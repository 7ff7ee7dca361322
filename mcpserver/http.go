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

// HTTPConfig defines which callers are accepted over HTTP. Exactly one of Tokens and Scope is
// required.
type HTTPConfig struct {
	// Tokens maps each bearer token to its scope. A token has at least 16 bytes.
	Tokens map[string]string

	// Scope is the scope of all callers if there are no tokens. In that case, only callers on
	// this machine are served.
	Scope string

	// Origins are the accepted values of the Origin header, for example https://example.com.
	// Requests without the header and requests from the server's own origin are always accepted.
	Origins []string
}

// minToken is the minimum length of a token in bytes. It makes tokens hard to guess.
const minToken = 16

const (
	// maxBody is the maximum size of a request's body, in bytes. It is twice the maximum size of
	// a call's arguments.
	maxBody = 4 << 20

	// bodyTimeout is the maximum time for reading the body of an accepted request.
	// refusedTimeout is the maximum time for discarding the body of a refused request.
	bodyTimeout    = 30 * time.Second
	refusedTimeout = 5 * time.Second
)

// sessionTimeout is the idle time after which a session of an older protocol version is
// forgotten. The tasks of its scope are not affected.
const sessionTimeout = time.Hour

// withoutSessions is the first version of the protocol without sessions. From this
// version on, each request is independent of the others. Versions are dates.
const withoutSessions = "2026-07-28"

// Handler returns a handler that serves callers over the protocol's streamable HTTP transport. A request with
// a wrong token or without a token is answered with status 401. A request from a page of another origin is
// answered with status 403. A request's body is read only after these checks. It must arrive within 30 s and
// must not exceed 4 MiB. A client that does not read anything for 30 s is disconnected.
//
// Connections end when the http.Server that serves the handler is closed. The http.Server
// should set ReadHeaderTimeout and IdleTimeout, so that idle connections end. If strangers
// can reach the http.Server, it should limit the number of connections. WriteTimeout must not
// be set, because it would cut off streams and waiting calls; the handler sets a deadline for
// each write. ReadTimeout is not needed.
func (s *Server) Handler(cfg HTTPConfig) (http.Handler, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	// The keys are hashes, so the duration of a look-up does not reveal anything about a token.
	scopes := make(map[[sha256.Size]byte]string, len(cfg.Tokens))
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
		return nil // makes the library answer with status 400
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
		// In a protocol session, the library accepts only requests with the same user ID, so the
		// user ID ties a session to the scope that opened it.
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

// The function "hurried" limits the time that the server spends on the body of a request that h refuses
// without reading the body.
func hurried(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if hasBody(r) {
			_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(refusedTimeout)) // fails if the server does not support deadlines
		}
		h.ServeHTTP(w, r)
	})
}

// read reads the whole body of a request before it calls h. It limits the size of the body
// and the time for reading it.
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
			http.Error(w, fmt.Sprintf("the body of the request is too long; at most %d bytes are accepted", maxBody), http.StatusRequestEntityTooLarge)
			return
		case err != nil:
			w.Header().Set("Connection", "close")
			http.Error(w, "the body of the request cannot be read: it did not arrive in time", http.StatusRequestTimeout)
			return
		}
		_ = control.SetReadDeadline(time.Time{}) // an expired deadline would look like the end of the connection
		r = r.Clone(r.Context())
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
		h.ServeHTTP(w, r)
	})
}

func hasBody(r *http.Request) bool { return r.Body != nil && r.Body != http.NoBody }

func (cfg *HTTPConfig) check() error {
	switch {
	case len(cfg.Tokens) == 0 && strings.TrimSpace(cfg.Scope) == "":
		return errors.New("mcpserver: HTTPConfig has neither Tokens nor a Scope; give each caller a token, or name one scope for all")
	case len(cfg.Tokens) > 0 && cfg.Scope != "":
		return errors.New("mcpserver: HTTPConfig has Tokens and a Scope; each token has its own scope, so leave Scope empty")
	}
	for token, scope := range cfg.Tokens {
		switch {
		case len(token) < minToken:
			return fmt.Errorf("mcpserver: HTTPConfig.Tokens: the token of %q has %d bytes; it must have at least %d", scope, len(token), minToken)
		case strings.ContainsAny(token, " \t\r\n"):
			return fmt.Errorf("mcpserver: HTTPConfig.Tokens: the token of %q has a space in it, which a header cannot carry", scope)
		case strings.TrimSpace(scope) == "":
			return errors.New("mcpserver: HTTPConfig.Tokens: a token has no scope; name the caller that uses it")
		}
	}
	return nil
}

// The function "challenge" adds the header WWW-Authenticate, which asks for a bearer token, to every response
// with status 401.
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

// streamWriter is embedded by response writers that change the response. It forwards flushes
// of streams to the wrapped writer.
type streamWriter struct{ http.ResponseWriter }

// Unwrap gives http.ResponseController access to the wrapped writer.
func (w streamWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Flush implements [http.Flusher].
func (w streamWriter) Flush() { _ = http.NewResponseController(w.ResponseWriter).Flush() }

// onThisMachine refuses requests from other machines.
func onThisMachine(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, err := net.SplitHostPort(r.RemoteAddr)
		if err != nil || !net.ParseIP(host).IsLoopback() {
			http.Error(w, "callers without a token are served only on the same machine", http.StatusForbidden)
			return
		}
		h.ServeHTTP(w, r)
	})
}
