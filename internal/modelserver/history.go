package modelserver

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

// history contains the requests to the server.
type history struct {
	mu       sync.Mutex
	requests []Request
	steps    []step
	unknowns []string
	attempts map[uint64]int // number of attempts by fingerprint
	changed  chan struct{}  // closed and replaced with a new channel on every change
}

// step is the beginning or the end of a request.
type step struct {
	index int  // index in requests
	open  bool // whether the step is the beginning
}

func (h *history) open(req *Request) int {
	print := req.fingerprint()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.attempts[print]++
	req.Attempt, req.N = h.attempts[print], len(h.requests)+1
	h.requests = append(h.requests, *req)
	h.steps = append(h.steps, step{len(h.requests) - 1, true})
	h.signal()
	return len(h.requests) - 1
}

// The method "close" ends a request. Further calls do nothing.
func (h *history) close(index int, left bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	r := &h.requests[index]
	if r.Done {
		return
	}
	r.Done, r.Left, r.Ended = true, left, time.Now()
	h.steps = append(h.steps, step{index, false})
	h.signal()
}

func (h *history) unknown(request string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.unknowns = append(h.unknowns, request)
}

func (h *history) signal() {
	close(h.changed)
	h.changed = make(chan struct{})
}

// Requests returns all requests received so far, in order of arrival.
func (s *Server) Requests() []Request {
	requests, _ := s.history.look()
	return requests
}

func (h *history) look() ([]Request, <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.requests), h.changed
}

// Unknown returns the requests that the server cannot answer, such as "GET /v2/models".
func (s *Server) Unknown() []string {
	s.history.mu.Lock()
	defer s.history.mu.Unlock()
	return slices.Clone(s.history.unknowns)
}

// Open returns the number of open requests that the function "filter" selects. A nil filter selects
// all requests. A request is open from its arrival until just before the last byte of its answer.
func (s *Server) Open(filter func(Request) bool) int {
	n := 0
	for _, r := range s.Requests() {
		if !r.Done && (filter == nil || filter(r)) {
			n++
		}
	}
	return n
}

// MaxOpen returns the maximum number of requests that the filter selects and that were open at
// the same time. A nil filter selects all requests. Requests for which the function "by"
// returns the same value count as one. If "by" is nil, every request counts. For example, this
// call returns the maximum number of sessions with an open agent turn:
//
//	s.MaxOpen(func(r Request) bool { return r.Kind == Main }, func(r Request) string { return r.Session })
func (s *Server) MaxOpen(filter func(Request) bool, by func(Request) string) int {
	s.history.mu.Lock()
	requests, steps := slices.Clone(s.history.requests), slices.Clone(s.history.steps)
	s.history.mu.Unlock()
	most, open := 0, map[string]int{}
	for _, st := range steps {
		r := requests[st.index]
		if filter != nil && !filter(r) {
			continue
		}
		name := fmt.Sprint(r.N)
		if by != nil {
			name = by(r)
		}
		if st.open {
			open[name]++
			most = max(most, len(open))
		} else if open[name]--; open[name] == 0 {
			delete(open, name)
		}
	}
	return most
}

// WaitFor waits until the function "ok" returns true for the requests received so far. It calls
// this function whenever a request begins or ends. If ctx ends first, the error lists the
// requests.
func (s *Server) WaitFor(ctx context.Context, ok func([]Request) bool) error {
	for {
		requests, changed := s.history.look()
		if ok(requests) {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("modelserver: waiting for requests: %w; requests so far:%s", context.Cause(ctx), list(requests))
		}
	}
}

// The function "list" describes the last 20 requests for an error message.
func list(requests []Request) string {
	if len(requests) == 0 {
		return " none"
	}
	text := ""
	for _, r := range requests[max(0, len(requests)-20):] {
		state := "open"
		if r.Left {
			state = "left"
		} else if r.Done {
			state = "done"
		}
		text += fmt.Sprintf("\n\t%d %s %s %s session=%q turn=%d attempt=%d %s: %q", r.N, r.Protocol, r.Model, r.Kind,
			r.Session, r.Turn(), r.Attempt, state, shorten(r.LastUser(), 80))
	}
	return text
}
