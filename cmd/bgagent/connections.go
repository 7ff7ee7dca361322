package main

import (
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// Time limits for clients. They do not apply to a stream that is being read.
const (
	headerTime = 10 * time.Second // to send the header of a request
	bodyTime   = 30 * time.Second // to send the body of a request
	idleTime   = time.Minute      // to send the next request
	writeTime  = time.Minute      // to read each piece of an answer
)

// newServer returns a server with time limits for slow and silent connections.
func newServer(h http.Handler) *http.Server {
	return &http.Server{Handler: inTime(h), ReadHeaderTimeout: headerTime, IdleTimeout: idleTime, MaxHeaderBytes: 64 << 10}
}

// inTime returns a handler that limits the time for reading a request's body to bodyTime. At the end of the
// body, the deadline is cleared. Otherwise, the expired deadline would end the answer, which can be a stream
// that lasts for days.
func inTime(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Body != nil && r.Body != http.NoBody {
			c := http.NewResponseController(w)
			if c.SetReadDeadline(time.Now().Add(bodyTime)) == nil {
				r.Body = &timedBody{r.Body, c}
			}
		}
		h.ServeHTTP(w, r)
	})
}

type timedBody struct {
	io.ReadCloser
	c *http.ResponseController
}

// Read implements io.Reader.
func (b *timedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if errors.Is(err, io.EOF) {
		_ = b.c.SetReadDeadline(time.Time{})
	}
	return n, err
}

// serveBounded keeps at most the given number of connections open, so that file descriptors are left for the
// agents. At the limit, a new connection replaces the connection that has been waiting longest for a request.
// If no connection is waiting for a request, the new connection is closed. The argument "patience" limits the
// time that a client may take to read each piece of an answer.
func serveBounded(s *http.Server, l net.Listener, most int, patience time.Duration) error {
	b := &bounded{Listener: l, most: most, patience: patience, open: map[net.Conn]*held{}}
	s.ConnState = b.state
	return s.Serve(b)
}

// bounded is a listener that limits its open connections.
type bounded struct {
	net.Listener
	most     int
	patience time.Duration

	mu    sync.Mutex
	count uint64
	open  map[net.Conn]*held
}

// The type "held" is an open connection.
type held struct {
	net.Conn
	b       *bounded
	waiting uint64 // orders connections by the time when they began to wait for a request; 0 while a request is handled
}

// Accept implements [net.Listener].
func (b *bounded) Accept() (net.Conn, error) {
	for {
		c, err := b.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if h := b.admit(c); h != nil {
			return h, nil
		}
		_ = c.Close()
	}
}

// The method "admit" adds a connection to the open connections. If the limit is reached, it first closes the
// connection that has been waiting longest for a request. If no connection is waiting, it returns nil.
func (b *bounded) admit(c net.Conn) *held {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.open) >= b.most {
		var oldest *held
		for _, h := range b.open {
			if h.waiting > 0 && (oldest == nil || h.waiting < oldest.waiting) {
				oldest = h
			}
		}
		if oldest == nil {
			return nil
		}
		delete(b.open, oldest)
		_ = oldest.Conn.Close()
	}
	b.count++
	h := &held{Conn: c, b: b, waiting: b.count}
	b.open[h] = h
	return h
}

// The method "state" records whether a connection is waiting for a request. A new connection is waiting from
// the start.
func (b *bounded) state(c net.Conn, s http.ConnState) {
	b.mu.Lock()
	defer b.mu.Unlock()
	h := b.open[c]
	switch {
	case h == nil || s == http.StateNew:
	case s == http.StateIdle:
		b.count++
		h.waiting = b.count
	default:
		h.waiting = 0
	}
}

// Write implements [net.Conn]. It fails if the client stops reading.
func (h *held) Write(p []byte) (int, error) {
	_ = h.SetWriteDeadline(time.Now().Add(h.b.patience))
	return h.Conn.Write(p)
}

// Close implements [net.Conn].
func (h *held) Close() error {
	h.b.mu.Lock()
	delete(h.b.open, h)
	h.b.mu.Unlock()
	return h.Conn.Close()
}
