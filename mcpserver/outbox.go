package mcpserver

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/modelcontextprotocol/go-sdk/jsonrpc"
)

const (
	// writeTimeout is the maximum duration of one write to a client. A client that does not read
	// anything for this long is disconnected.
	writeTimeout = 30 * time.Second

	// maxUnwritten is the maximum number of bytes that are queued for a client. A single message
	// can be larger.
	maxUnwritten = 4 << 20
)

var (
	errNotRead = errors.New("mcpserver: the client does not read its messages")
	errClosed  = errors.New("mcpserver: the connection is closed")
)

// outbox is the send queue of one client. The protocol library notifies all listeners of a
// scope one after another. Because put never blocks, a client that does not read its messages
// does not delay the others.
type outbox[T any] struct {
	write func(T) error // called by one goroutine, in order; must return in bounded time
	fail  func()        // closes the connection; called once, when a write fails or too much is queued
	wake  chan struct{}
	done  chan struct{} // closed after the last write

	mu     sync.Mutex
	items  []T
	sizes  []int
	size   int
	err    error // the first error; later calls to put return it
	closed bool
}

func newOutbox[T any](write func(T) error, fail func()) *outbox[T] {
	q := &outbox[T]{write: write, fail: fail, wake: make(chan struct{}, 1), done: make(chan struct{})}
	go q.run()
	return q
}

// put adds an item to the queue. If an earlier write failed, put returns that write's error. It also returns
// an error if the queue is full or closed.
func (q *outbox[T]) put(item T, size int) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.err != nil:
		return q.err
	case q.closed:
		return errClosed
	case len(q.items) > 0 && q.size+size > maxUnwritten:
		q.failLocked(errNotRead)
		return q.err
	}
	q.items, q.sizes, q.size = append(q.items, item), append(q.sizes, size), q.size+size
	q.signal()
	return nil
}

func (q *outbox[T]) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

func (q *outbox[T]) failLocked(err error) {
	if q.err == nil {
		q.err, q.items, q.sizes, q.size = err, nil, nil, 0
		go q.fail()
		q.signal()
	}
}

func (q *outbox[T]) run() {
	defer close(q.done)
	for {
		q.mu.Lock()
		if q.err != nil || q.closed && len(q.items) == 0 {
			q.mu.Unlock()
			return
		}
		if len(q.items) == 0 {
			q.mu.Unlock()
			<-q.wake
			continue
		}
		item := q.items[0]
		q.mu.Unlock()
		err := q.write(item)
		q.mu.Lock()
		switch {
		case err != nil:
			q.failLocked(err)
		case q.err == nil:
			q.size -= q.sizes[0]
			q.items, q.sizes = slices.Delete(q.items, 0, 1), slices.Delete(q.sizes, 0, 1)
		}
		q.mu.Unlock()
	}
}

// close waits until the queued items have been written, but no longer than writeTimeout. Items that have not
// been written within this time are dropped.
func (q *outbox[T]) close() {
	q.mu.Lock()
	q.closed = true
	q.signal()
	q.mu.Unlock()
	late := time.NewTimer(writeTimeout)
	defer late.Stop()
	select {
	case <-q.done:
	case <-late.C:
		q.mu.Lock()
		q.failLocked(errNotRead)
		q.mu.Unlock()
	}
}

// newMessages returns the send queue of a connection. The function "end" closes the connection. It
// is called when a write takes too long, and makes the write return.
func newMessages(write func(context.Context, jsonrpc.Message) error, end func()) *outbox[jsonrpc.Message] {
	return newOutbox(func(m jsonrpc.Message) error {
		late := time.AfterFunc(writeTimeout, end)
		defer late.Stop()
		return write(context.Background(), m)
	}, end)
}

// sizeOf returns the approximate size of a message in bytes.
func sizeOf(m jsonrpc.Message) int {
	const envelope = 100
	switch m := m.(type) {
	case *jsonrpc.Request:
		return envelope + len(m.Params)
	case *jsonrpc.Response:
		return envelope + len(m.Result)
	}
	return envelope
}

// piece is one write to a request's response, or a flush of the response.
type piece struct {
	data  []byte
	flush bool
}

// queued is a response whose body is written by a separate goroutine.
type queued struct {
	w     http.ResponseWriter
	wrote bool
	q     *outbox[piece]
}

// The function "queue" calls h with a response writer that never blocks. If the client does not read the
// response, the request's context is cancelled.
func queue(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		control := http.NewResponseController(w)
		write := func(p piece) error {
			_ = control.SetWriteDeadline(time.Now().Add(writeTimeout)) // fails if the server does not support deadlines
			if p.flush {
				return control.Flush()
			}
			_, err := w.Write(p.data)
			return err
		}
		a := &queued{w: w, q: newOutbox(write, cancel)}
		defer func() { // w must not be used after this handler has returned
			a.q.close()
			<-a.q.done
		}()
		h.ServeHTTP(a, r.WithContext(ctx))
	})
}

func (a *queued) Header() http.Header { return a.w.Header() }

// WriteHeader is not queued: it only records the status and the header.
func (a *queued) WriteHeader(code int) {
	a.wrote = a.wrote || code >= http.StatusOK
	a.w.WriteHeader(code)
}

func (a *queued) Write(data []byte) (int, error) {
	if !a.wrote {
		a.WriteHeader(http.StatusOK) // records the header now, because h can change it before the goroutine writes
	}
	if err := a.q.put(piece{data: slices.Clone(data)}, len(data)); err != nil {
		return 0, err
	}
	return len(data), nil
}

// Flush implements [http.Flusher].
func (a *queued) Flush() {
	if !a.wrote {
		a.WriteHeader(http.StatusOK)
	}
	_ = a.q.put(piece{flush: true}, 0)
}
