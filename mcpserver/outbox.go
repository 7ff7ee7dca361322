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
	// writeTimeout is how long one write to a client may take. A client that reads
	// nothing for so long has lost its connection.
	writeTimeout = 30 * time.Second

	// maxUnwritten is how many bytes may wait for a client, beside the first message.
	maxUnwritten = 4 << 20
)

var (
	errNotRead = errors.New("mcpserver: the client does not read what is sent to it")
	errClosed  = errors.New("mcpserver: the connection is closed")
)

// outbox is the queue of what one client is sent. Putting something into it never
// waits, so that a client which does not read holds up nobody else: the protocol
// library tells all listeners of a scope one after the other.
type outbox[T any] struct {
	write func(T) error // called by one goroutine, in order; bounded in time
	fail  func()        // ends the connection; called once, when a write has failed or too much waits
	wake  chan struct{}
	done  chan struct{} // closed when nothing is written any more

	mu     sync.Mutex
	items  []T
	sizes  []int
	size   int
	err    error // that of the first failure
	closed bool
}

func newOutbox[T any](write func(T) error, fail func()) *outbox[T] {
	q := &outbox[T]{write: write, fail: fail, wake: make(chan struct{}, 1), done: make(chan struct{})}
	go q.run()
	return q
}

// put adds an item. The error is that of an earlier write, or of the queue itself.
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

// close writes what waits, and returns when nothing is written any more, at the
// latest after the time that one write may take.
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

// newMessages returns the queue of a connection's messages. A write that takes too
// long ends when the connection is closed.
func newMessages(write func(context.Context, jsonrpc.Message) error, end func()) *outbox[jsonrpc.Message] {
	return newOutbox(func(m jsonrpc.Message) error {
		late := time.AfterFunc(writeTimeout, end)
		defer late.Stop()
		return write(context.Background(), m)
	}, end)
}

// sizeOf is about how many bytes a message has.
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

// piece is what is written to the answer of a request at once.
type piece struct {
	data  []byte
	flush bool
}

// queued is a response whose body is written by a goroutine of its own.
type queued struct {
	w     http.ResponseWriter
	wrote bool
	q     *outbox[piece]
}

// queue serves a request with a response that never makes its writer wait. The
// request is cancelled when its client does not read.
func queue(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		control := http.NewResponseController(w)
		write := func(p piece) error {
			_ = control.SetWriteDeadline(time.Now().Add(writeTimeout)) // not every server has deadlines
			if p.flush {
				return control.Flush()
			}
			_, err := w.Write(p.data)
			return err
		}
		a := &queued{w: w, q: newOutbox(write, cancel)}
		defer func() { // the response may not be written to after this handler has returned
			a.q.close()
			<-a.q.done
		}()
		h.ServeHTTP(a, r.WithContext(ctx))
	})
}

func (a *queued) Header() http.Header { return a.w.Header() }

// WriteHeader is not queued: it only takes note of the status and the header.
func (a *queued) WriteHeader(code int) {
	a.wrote = a.wrote || code >= http.StatusOK
	a.w.WriteHeader(code)
}

func (a *queued) Write(data []byte) (int, error) {
	if !a.wrote {
		a.WriteHeader(http.StatusOK) // before the goroutine does: the header is the handler's
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
