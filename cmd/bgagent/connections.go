package main

import (
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// How long a connection may take for what it does. There is no limit for a stream
// that is read.
const (
	headerTime = 10 * time.Second // to send the head of a request
	bodyTime   = 30 * time.Second // to send the rest
	idleTime   = time.Minute      // to send the next request
	writeTime  = time.Minute      // to read a piece of what is written to it
)

// newServer returns a server for connections that may be slow, or silent.
func newServer(h http.Handler) *http.Server {
	return &http.Server{Handler: inTime(h), ReadHeaderTimeout: headerTime, IdleTimeout: idleTime, MaxHeaderBytes: 64 << 10}
}

// inTime gives the body of a request bodyTime. The deadline is taken back with the
// end of the body: what follows may be a stream that lasts for days.
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

// serveBounded serves at most so many connections at a time, so that file
// descriptors are left for the agents. One more takes the place of the one that
// has waited longest for a request; where all are in one, it is closed. A reader
// has the patience's time for each piece that is written to him.
func serveBounded(s *http.Server, l net.Listener, most int, patience time.Duration) error {
	b := &bounded{Listener: l, most: most, patience: patience, open: map[net.Conn]*held{}}
	s.ConnState = b.state
	return s.Serve(b)
}

// bounded is a listener that bounds its connections.
type bounded struct {
	net.Listener
	most     int
	patience time.Duration

	mu    sync.Mutex
	count uint64
	open  map[net.Conn]*held
}

// held is a connection that is open.
type held struct {
	net.Conn
	b       *bounded
	waiting uint64 // since when it waits for a request, as a running number; 0 when it is in one
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

// admit makes room for a connection, or returns nil.
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

// state notes whether a connection waits for a request. A new one does already.
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

// Write implements [net.Conn]. A reader that stops reading is not waited for.
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
