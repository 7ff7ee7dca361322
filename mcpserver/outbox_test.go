package mcpserver_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/stretchr/testify/require"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/mcpserver"
)

func TestAListenerThatNeverReadsHoldsUpNobodyElse(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m, s := newServer(t, mcpserver.Config{})
		deaf, in := io.Pipe()
		out, theirOut := io.Pipe()
		gone := make(chan error, 1)
		go func() { gone <- s.Run(t.Context(), "me", &mcp.IOTransport{Reader: deaf, Writer: theirOut}) }()
		first := &line{t, in, bufio.NewReader(out)}
		handle := first.delegate("1", "1h")
		id, _, _ := strings.Cut(handle, ".")
		listen := request("2", "subscriptions/listen", fmt.Sprintf(`"notifications":{"resourceSubscriptions":["bgagent://task/%s"],"taskIds":[%q]}`, id, handle))
		first.say(listen)
		require.Equal(t, "notifications/subscriptions/acknowledged", first.hear().Method)
		// From here on, the first listener does not read anything.
		var others []*line
		for range 3 {
			other := newLine(t, s, "me")
			other.say(listen)
			require.Equal(t, "notifications/subscriptions/acknowledged", other.hear().Method)
			others = append(others, other)
		}
		began := time.Now()
		_, err := m.Cancel(t.Context(), bgagent.Caller{}, id, bgagent.CancelOptions{})
		require.NoError(t, err)
		for _, other := range others {
			require.Equal(t, "notifications/resources/updated", other.hear().Method)
			require.Equal(t, "cancelled", other.hear().Params.Status)
		}
		require.Zero(t, time.Since(began))
		<-gone
		require.Equal(t, 30*time.Second, time.Since(began), "a client that reads nothing loses its connection")
	})
}

// stream is a response whose client stops reading when the channel "stuck" is closed.
type stream struct {
	header http.Header
	mu     sync.Mutex
	late   time.Time
	got    bytes.Buffer
	more   chan struct{}
	stuck  chan struct{}
}

func newStream() *stream {
	return &stream{header: http.Header{}, more: make(chan struct{}, 1000), stuck: make(chan struct{})}
}

func (s *stream) Header() http.Header { return s.header }
func (s *stream) WriteHeader(int)     {}
func (s *stream) FlushError() error   { return nil }

func (s *stream) SetWriteDeadline(at time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.late = at
	return nil
}

func (s *stream) Write(data []byte) (int, error) {
	select {
	case <-s.stuck:
		s.mu.Lock()
		late := s.late
		s.mu.Unlock()
		time.Sleep(time.Until(late))
		return 0, os.ErrDeadlineExceeded
	default:
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.more <- struct{}{}
	return s.got.Write(data)
}

// The method "until" waits until the text has been written.
func (s *stream) until(text string) {
	for range s.more {
		s.mu.Lock()
		found := strings.Contains(s.got.String(), text)
		s.mu.Unlock()
		if found {
			return
		}
	}
}

func TestAStreamThatNobodyReadsHoldsUpNobodyElse(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m, s := newServer(t, mcpserver.Config{})
		h, err := s.Handler(mcpserver.HTTPConfig{Tokens: map[string]string{aliceToken: "alice"}})
		require.NoError(t, err)
		task, err := m.Launch(t.Context(), bgagent.Caller{Session: "alice"}, bgagent.LaunchInput{Agent: "worker", Prompt: "1h"})
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		listen := func(w http.ResponseWriter) {
			body := request("2", "subscriptions/listen", fmt.Sprintf(`"notifications":{"resourceSubscriptions":["bgagent://task/%s"]}`, task.ID))
			r := httptest.NewRequestWithContext(ctx, http.MethodPost, "/", strings.NewReader(body))
			for key, value := range map[string]string{"Content-Type": "application/json", "Accept": "application/json, text/event-stream", "Authorization": "Bearer " + aliceToken,
				"Mcp-Protocol-Version": "2026-07-28", "Mcp-Method": "subscriptions/listen"} {
				r.Header.Set(key, value)
			}
			h.ServeHTTP(w, r)
		}
		deaf, other := newStream(), newStream()
		gone, done := make(chan struct{}), make(chan struct{})
		go func() { listen(deaf); close(gone) }()
		go func() { listen(other); close(done) }()
		deaf.until("acknowledged")
		other.until("acknowledged")
		close(deaf.stuck)
		began := time.Now()
		_, err = m.Cancel(t.Context(), bgagent.Caller{}, task.ID, bgagent.CancelOptions{})
		require.NoError(t, err)
		other.until("notifications/resources/updated")
		require.Zero(t, time.Since(began))
		<-gone
		require.Equal(t, 30*time.Second, time.Since(began))
		cancel()
		<-done
		synctest.Wait()
	})
}

// pipes is a listener for in-memory connections. Their deadlines work in a bubble of
// testing/synctest.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}
func (p *pipes) Close() error   { close(p.done); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }

// onPipes serves a handler and returns a function that connects to it.
func onPipes(t *testing.T, h http.Handler) func() net.Conn {
	p := &pipes{make(chan net.Conn), make(chan struct{})}
	server := &http.Server{Handler: h}
	done := make(chan struct{})
	go func() { _ = server.Serve(p); close(done) }()
	t.Cleanup(func() { _ = server.Close(); <-done })
	return func() net.Conn {
		here, there := net.Pipe()
		p.conns <- there
		return here
	}
}

func TestABodyThatDoesNotComeKeepsNoConnection(t *testing.T) {
	for _, c := range []struct {
		name, token string
		status      int
		after       time.Duration
	}{
		{"from a stranger", "wrong-token-0123456789", http.StatusUnauthorized, 5 * time.Second},
		{"without a token", "", http.StatusUnauthorized, 5 * time.Second},
		{"from a caller", aliceToken, http.StatusRequestTimeout, 30 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				_, s := newServer(t, mcpserver.Config{})
				h, err := s.Handler(mcpserver.HTTPConfig{Tokens: map[string]string{aliceToken: "alice"}})
				require.NoError(t, err)
				conn := onPipes(t, h)()
				began := time.Now()
				_, err = fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: here\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nAccept: application/json, text/event-stream\r\nContent-Length: 1000\r\n\r\n{", c.token)
				require.NoError(t, err)
				resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
				require.NoError(t, err)
				require.Equal(t, c.status, resp.StatusCode)
				_, err = io.Copy(io.Discard, conn) // reads until the server closes the connection
				require.NoError(t, err)
				require.LessOrEqual(t, time.Since(began), c.after+time.Second)
			})
		})
	}
}

// The type "unread" is a request body that fails the test when it is read.
type unread struct{ t *testing.T }

func (u unread) Read([]byte) (int, error) {
	u.t.Error("the body was read")
	return 0, io.EOF
}

func TestNothingOfABodyIsReadBeforeItsSenderIsKnown(t *testing.T) {
	_, s := newServer(t, mcpserver.Config{})
	tokens, err := s.Handler(mcpserver.HTTPConfig{Tokens: map[string]string{aliceToken: "alice"}})
	require.NoError(t, err)
	local, err := s.Handler(mcpserver.HTTPConfig{Scope: "here"})
	require.NoError(t, err)
	for _, c := range []struct {
		h      http.Handler
		header map[string]string
		status int
	}{
		{tokens, nil, http.StatusUnauthorized},
		{tokens, map[string]string{"Authorization": "Bearer x", "Mcp-Protocol-Version": "2026-07-28", "Mcp-Method": "subscriptions/listen"}, http.StatusUnauthorized},
		{tokens, map[string]string{"Authorization": "Bearer " + aliceToken, "Origin": "https://evil.example"}, http.StatusForbidden},
		{local, nil, http.StatusForbidden}, // the recorder's request comes from the address of another machine
	} {
		r := httptest.NewRequest(http.MethodPost, "/", unread{t})
		for key, value := range c.header {
			r.Header.Set(key, value)
		}
		w := httptest.NewRecorder()
		c.h.ServeHTTP(w, r)
		require.Equal(t, c.status, w.Code)
	}
}

func TestABodyIsBounded(t *testing.T) {
	_, s := newServer(t, mcpserver.Config{})
	h, err := s.Handler(mcpserver.HTTPConfig{Tokens: map[string]string{aliceToken: "alice"}})
	require.NoError(t, err)
	for _, version := range []string{"", "2026-07-28"} {
		body := io.MultiReader(strings.NewReader(initialize), io.LimitReader(spaces{}, 1<<30))
		r := httptest.NewRequest(http.MethodPost, "/", body)
		r.Header.Set("Authorization", "Bearer "+aliceToken)
		r.Header.Set("Mcp-Protocol-Version", version)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		require.Equal(t, http.StatusRequestEntityTooLarge, w.Code)
	}
}

type spaces struct{}

func (spaces) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}
