package modelserver

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Server is a model server. Its methods are safe for concurrent use.
type Server struct {
	URL string // base URL for programs, such as http://127.0.0.1:43210; some programs need /v1 appended

	http    http.Server
	ctx     context.Context // parent of the contexts of all requests; ends with Close
	cancel  context.CancelFunc
	serving sync.WaitGroup // counts requests, connections, and the listener's loop
	mu      sync.Mutex     // guards the field "closed"; no request may be added to "serving" while Close waits
	closed  bool
	ids     atomic.Int64
	handler atomic.Pointer[Handler]
	history history
}

// New starts a server on a free port of 127.0.0.1. It panics if there is no free port. The
// handler determines the model's answers; nil means [Request.Scripted]. The caller must stop
// the server with Close.
func New(h Handler) *Server {
	s, err := Listen("127.0.0.1:0", h)
	if err != nil {
		panic(err.Error())
	}
	return s
}

// Listen starts a server on the given address, such as 127.0.0.1:4010.
func Listen(addr string, h Handler) (*Server, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("modelserver: listening on %s: %w", addr, err)
	}
	s := NewUnstarted(h)
	s.URL = "http://" + l.Addr().String()
	s.http.ConnState = s.connection
	s.serving.Go(func() { s.http.Serve(l) })
	return s, nil
}

// NewUnstarted returns a server that does not listen. The caller uses the server as an
// http.Handler, for example over net.Pipe in a synctest bubble.
func NewUnstarted(h Handler) *Server {
	s := &Server{}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.history.changed = make(chan struct{})
	s.history.attempts = map[uint64]int{}
	s.http.Handler = s
	s.Handle(h)
	return s
}

// Handle replaces the handler for all requests that arrive after the call.
func (s *Server) Handle(h Handler) {
	if h == nil {
		h = Request.Scripted
	}
	s.handler.Store(&h)
}

// Close ends every open request and returns when all goroutines of the server have ended.
// Therefore, handlers must return soon after their request's context ends.
func (s *Server) Close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.cancel()
	s.http.Close()
	s.serving.Wait()
}

// The type "protocol" reads the requests and writes the answers of one wire protocol.
type protocol struct {
	name   Protocol
	header string // name of the response header that holds the request's id; "" if there is none
	decode func(body []byte, req *Request) error
	// The function "problem" returns the body of an HTTP error.
	problem func(e *Error, requestID string) any
	// The function "whole" returns the body of an answer that is not streamed.
	whole func(a *answer) any
	// The function "stream" starts a streamed answer.
	stream func(a *answer) stream
}

// A stream writes an answer in pieces. After a call to end or fail, no other method is called.
type stream interface {
	text(piece string)
	end()
	fail(e *Error)
}

// answer is an answer in progress.
type answer struct {
	Reply
	req       Request
	requestID string
	said      strings.Builder // text sent so far
	id        func(prefix string) string
	w         http.ResponseWriter
	err       error // first error of any write
}

var protocols = map[string]*protocol{
	"chat/completions": &chatProtocol,
	"responses":        &responsesProtocol,
	"messages":         &messagesProtocol,
}

// The method "connection" keeps count of the open connections in the wait group s.serving, because
// http.Server.Close does not wait for their goroutines. The wait group also counts the loop that
// accepts connections. Therefore, its count is never 0 when a connection is added, as
// sync.WaitGroup requires while Close is waiting.
func (s *Server) connection(_ net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		s.serving.Add(1)
	case http.StateClosed, http.StateHijacked:
		s.serving.Done()
	}
}

func (s *Server) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.serving.Add(1)
	}
	return !s.closed
}

// ServeHTTP answers one request from a program.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !s.enter() {
		panic(http.ErrAbortHandler)
	}
	defer s.serving.Done()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the client left before it sent the whole request
	}
	path := r.URL.Path
	var p *protocol
	req := Request{Path: r.URL.RequestURI(), Header: r.Header, Body: body}
	if model, method, ok := geminiPath(path); ok {
		p = geminiProtocol(r.URL.Query().Get("alt") == "sse")
		req.Model, req.Stream = model, method == "streamGenerateContent"
		if method == "countTokens" && r.Method == http.MethodPost {
			writeJSON(w, http.StatusOK, map[string]any{"totalTokens": (len(body) + 3) / 4})
			return
		}
		if method != "generateContent" && method != "streamGenerateContent" {
			p = nil
		}
	} else if strings.HasPrefix(path, "/v1/") {
		p = protocols[strings.TrimPrefix(path, "/v1/")]
	}
	switch {
	case r.Method == http.MethodPost && p != nil:
		s.serve(w, r, p, req)
	case r.Method == http.MethodPost && path == "/v1/messages/count_tokens":
		writeJSON(w, http.StatusOK, map[string]any{"input_tokens": (len(body) + 3) / 4})
	case r.Method == http.MethodGet && (path == "/v1/models" || path == "/v1beta/models"):
		writeJSON(w, http.StatusOK, modelList)
	default:
		s.history.unknown(r.Method + " " + r.URL.RequestURI())
		writeJSON(w, http.StatusNotFound, chatProblem(&Error{Status: http.StatusNotFound,
			Message: fmt.Sprintf("the scripted model server has no %s %s", r.Method, path)}))
	}
}

// modelList is the response to requests for a list of models. OpenAI clients, Codex and
// Gemini can read it.
var modelList = map[string]any{
	"object": "list",
	"data":   []any{map[string]any{"id": "scripted", "object": "model", "created": 0, "owned_by": "scripted"}},
	"models": []any{},
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request, p *protocol, req Request) {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)()
	req.ctx, req.Protocol, req.Arrived = ctx, p.name, time.Now()
	id := s.id("req_")
	if p.header != "" {
		w.Header().Set(p.header, id)
	}
	if err := p.decode(req.Body, &req); err != nil {
		e := &Error{Status: http.StatusBadRequest, Message: "reading the request: " + err.Error()}
		writeJSON(w, e.Status, p.problem(e, id))
		return
	}
	req.Session, req.Parent = req.session()
	req.Kind, req.Key = kindOf(req), scriptKey(req.Messages)
	rec := s.history.open(&req)
	left := true
	defer func() { s.history.close(rec, left) }()
	rep := (*s.handler.Load())(req)
	a := &answer{Reply: rep, req: req, w: w, id: s.id, requestID: id}
	if left = !a.give(p, func() { s.history.close(rec, false) }); left {
		// A normal return would make the answer appear complete to the client.
		panic(http.ErrAbortHandler)
	}
}

func (s *Server) id(prefix string) string {
	return prefix + strconv.FormatInt(s.ids.Add(1), 10)
}

// The method "give" sends the reply and reports whether it was sent completely. It calls the
// function "done" just before the last byte. A client may send its next request as soon as it has
// received the end of the answer, and these two requests must not count as open at the same time.
func (a *answer) give(p *protocol, done func()) bool {
	ctx := a.req.Context()
	if !sleep(ctx, a.Delay) {
		return false
	}
	if a.Mute {
		<-ctx.Done()
		return false
	}
	for i := range a.Calls {
		if a.Calls[i].ID == "" {
			a.Calls[i].ID = a.id("call_")
		}
	}
	if a.Error != nil && (!a.says() && !a.Error.InStream || !a.req.Stream) {
		done()
		a.Error.head(p.name, a.w.Header(), time.Now())
		writeJSON(a.w, a.Error.status(), p.problem(a.Error, a.requestID))
		return true
	}
	var st stream
	if a.req.Stream {
		st = p.stream(a)
		a.flush()
	}
	if !a.say(ctx, st) {
		return false
	}
	switch {
	case a.Hang:
		<-ctx.Done()
		return false
	case a.Cut:
		done()
		panic(http.ErrAbortHandler)
	}
	done()
	switch {
	case st == nil:
		writeJSON(a.w, http.StatusOK, p.whole(a))
	case a.Error != nil:
		st.fail(a.Error)
	default:
		st.end()
	}
	return true
}

// The method "say" sends the text and reports whether all of it was sent. st is nil if the answer
// is not streamed.
func (a *answer) say(ctx context.Context, st stream) bool {
	if !a.says() && a.Chunks == 0 {
		return true
	}
	first := true
	for piece := range a.pieces() {
		if !first && !sleep(ctx, a.Gap) {
			return false
		}
		first = false
		if ctx.Err() != nil {
			return false
		}
		if piece == "" {
			continue
		}
		a.said.WriteString(piece)
		if st != nil {
			st.text(piece)
			a.flush()
		}
		if a.err != nil {
			return false
		}
	}
	return ctx.Err() == nil
}

func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (a *answer) flush() {
	if f, ok := a.w.(http.Flusher); ok {
		f.Flush()
	}
}

func (a *answer) write(format string, args ...any) {
	if _, err := fmt.Fprintf(a.w, format, args...); err != nil && a.err == nil {
		a.err = err
	}
}

// startEvents writes the header of a server-sent event stream.
func (a *answer) startEvents() {
	a.w.Header().Set("Content-Type", "text/event-stream")
	a.w.Header().Set("Cache-Control", "no-cache")
	a.w.WriteHeader(http.StatusOK)
}

// The method "event" writes a server-sent event. The name may be empty.
func (a *answer) event(name string, v any) {
	if name != "" {
		a.write("event: %s\n", name)
	}
	a.write("data: %s\n\n", marshal(v))
}

func marshal(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic("modelserver: bug: " + err.Error())
	}
	return b
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	w.Write(append(marshal(v), '\n'))
}
