package bridge

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/bgagent/bgagent/internal/cleantext"
)

// connectTime limits how long it can take to reach the server and to be accepted.
const connectTime = 10 * time.Second

// Address is the address of a server.
type Address struct {
	url  *url.URL
	host string // HOST:PORT
}

// ParseAddress parses the address of a server, such as http://127.0.0.1:8321, or the address of the
// server's tools, such as http://127.0.0.1:8321/mcp.
func ParseAddress(text string) (Address, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return Address{}, fmt.Errorf("%q is not the address of a bgagent serve, such as http://127.0.0.1:8321", text)
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	path := strings.TrimSuffix(strings.TrimSuffix(u.Path, "/"), "/mcp")
	u.Path, u.RawPath = path+"/"+Path, ""
	return Address{u, net.JoinHostPort(u.Hostname(), port)}, nil
}

// Reach returns an error if the server cannot be reached.
func (a Address) Reach(ctx context.Context) error {
	conn, err := a.dial(ctx)
	if err != nil {
		return err
	}
	return conn.Close()
}

// dial connects to the server. Proxies from the environment are not used, because a proxy might not support
// an upgraded connection and must not see a token.
func (a Address) dial(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTime)
	defer cancel()
	if a.url.Scheme == "https" {
		return (&tls.Dialer{Config: &tls.Config{NextProtos: []string{"http/1.1"}}}).DialContext(ctx, "tcp", a.host)
	}
	return (&net.Dialer{}).DialContext(ctx, "tcp", a.host)
}

// RefusedError is the answer of a server that does not accept the bridge.
type RefusedError struct {
	Status int
	Text   string // one line; can be empty
}

// Error implements error.
func (e *RefusedError) Error() string {
	if e.Status == http.StatusNotFound || e.Status == http.StatusMethodNotAllowed || e.Text == "" {
		return fmt.Sprintf("it accepts no bridges (status %d); it is not a bgagent serve, or an older version", e.Status)
	}
	return "it refuses this bridge: " + e.Text
}

// Conn is the connection of a bridge. Read and Write can be called concurrently.
type Conn struct {
	net.Conn
	in *bufio.Reader
}

// Read implements [io.Reader].
func (c *Conn) Read(p []byte) (int, error) { return c.in.Read(p) }

// CloseWrite tells the server that nothing more will be written.
func (c *Conn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return c.Close()
}

// Connect opens a bridge. The token can be empty. If the server does not accept the bridge, the
// error wraps a [*RefusedError].
func (a Address) Connect(ctx context.Context, token string, h Hello) (*Conn, error) {
	hello, err := h.encode()
	if err != nil {
		return nil, err
	}
	conn, err := a.dial(ctx)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(connectTime))
	c, err := a.open(conn, token, hello)
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, ignoreClosed(conn.Close()))
	}
	return c, conn.SetDeadline(time.Time{})
}

// ignoreClosed returns err, or nil if err says that the connection is already closed.
func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

func (a Address) open(conn net.Conn, token, hello string) (*Conn, error) {
	r, err := http.NewRequest(http.MethodGet, a.url.String(), nil)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Connection", "Upgrade")
	r.Header.Set("Upgrade", protocol)
	r.Header.Set(helloHeader, hello)
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	if err := r.Write(conn); err != nil {
		return nil, err
	}
	in := bufio.NewReader(conn)
	resp, err := http.ReadResponse(in, r)
	if err != nil {
		return nil, fmt.Errorf("it does not answer like a bgagent serve: %w", err)
	}
	if resp.StatusCode != http.StatusSwitchingProtocols || resp.Header.Get("Upgrade") != protocol {
		defer resp.Body.Close()
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1000))
		return nil, &RefusedError{resp.StatusCode, cleantext.Line(strings.TrimSpace(string(text)))}
	}
	return &Conn{conn, in}, nil
}
