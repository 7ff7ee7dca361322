package opencode_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// fakeServer simulates an opencode server, including the recorded quirks of version 1.18.34. It is
// an http.RoundTripper. It waits only for timers and channels, so it can be used in bubbles of
// testing/synctest. The code of its turns is in fake_turn_test.go.
type fakeServer struct {
	password string
	agents   []string
	prefix   func(*http.Request) *http.Response // answers requests in place of the server; if it returns nil, the server answers

	mu       sync.Mutex
	down     bool // connections are refused
	gathers  bool // a turn answers all waiting messages together
	passes   bool // like a turn that is ending, a turn does not read messages that are stored while it runs
	mute     bool // nothing is sent on event streams, not even heartbeats
	skew     time.Duration
	ids      int
	sessions map[string]*fakeSession
	streams  map[*fakeStream]bool
	asks     map[string]*fakeAsk
	prompts  []map[string]any // bodies of prompt_async, in order
	calls    []string         // "METHOD path", in order
	wg       sync.WaitGroup
}

type fakeSession struct {
	ID         string           `json:"id"`
	ParentID   string           `json:"parentID,omitempty"`
	Directory  string           `json:"directory"`
	Title      string           `json:"title"`
	Agent      string           `json:"agent,omitempty"`
	Model      any              `json:"model,omitempty"`
	Permission []map[string]any `json:"permission,omitempty"`
	Time       fakeTime         `json:"time"`
	Metadata   any              `json:"metadata,omitempty"`

	messages []*fakeMessage
	todos    []map[string]string
	queue    []string // ids of the messages that have not been answered by any turn
	status   map[string]any
	turns    int
	cancel   context.CancelFunc
	deleted  bool
}

type fakeTime struct {
	Created   int64 `json:"created"`
	Completed int64 `json:"completed,omitempty"`
}

type fakeMessage struct {
	Info  map[string]any   `json:"info"`
	Parts []map[string]any `json:"parts"`
	row   int64            // sort key of the session's messages; the message stored first has the lowest key
}

type fakeStream struct{ send chan []byte }

func newFake() *fakeServer {
	return &fakeServer{
		agents: []string{"build", "worker", "explore"}, sessions: map[string]*fakeSession{},
		streams: map[*fakeStream]bool{}, asks: map[string]*fakeAsk{},
	}
}

// now returns the time by the server's clock, in ms since 1970.
func (f *fakeServer) now() int64 { return time.Now().Add(f.skew).UnixMilli() }

// id returns an id that contains the time by the server's clock, so ids sort by time. f.mu
// must be held.
func (f *fakeServer) id(prefix string) string {
	f.ids++
	return fmt.Sprintf("%s_%012x%014d", prefix, (uint64(f.now())<<12+uint64(f.ids&0xfff))&(1<<48-1), f.ids)
}

// client returns an HTTP client that is connected to the server.
func (f *fakeServer) client() *http.Client { return &http.Client{Transport: f} }

// RoundTrip implements http.RoundTripper.
func (f *fakeServer) RoundTrip(req *http.Request) (*http.Response, error) {
	f.mu.Lock()
	prefix := f.prefix
	f.mu.Unlock()
	if prefix != nil {
		if resp := prefix(req); resp != nil {
			return resp, nil
		}
	}
	f.mu.Lock()
	down := f.down
	f.calls = append(f.calls, req.Method+" "+req.URL.Path)
	f.mu.Unlock()
	if down {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
	}
	if err := req.Context().Err(); err != nil {
		return nil, err
	}
	if _, pass, _ := req.BasicAuth(); f.password != "" && pass != f.password {
		return answer(http.StatusUnauthorized, ""), nil
	}
	if req.URL.Path == "/global/event" {
		return f.subscribe(req), nil
	}
	var body map[string]any
	if req.Body != nil {
		if err := json.NewDecoder(req.Body).Decode(&body); err != nil {
			return answer(http.StatusBadRequest, `{"_tag":"BadRequest"}`), nil
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	status, out, header := f.route(req, body)
	resp := answer(status, "")
	if out != nil {
		b, _ := json.Marshal(out)
		resp = answer(status, string(b))
	}
	maps.Copy(resp.Header, header)
	return resp, nil
}

// intercept makes g answer all requests. If g returns nil, the server answers the request.
func (f *fakeServer) intercept(g func(*http.Request) *http.Response) { f.do(func() { f.prefix = g }) }

// The method "sent" returns the bodies of all prompts so far.
func (f *fakeServer) sent() (out []map[string]any) {
	f.do(func() { out = slices.Clone(f.prompts) })
	return out
}

// lastMessage returns the message id of the last prompt.
func (f *fakeServer) lastMessage() string {
	sent := f.sent()
	id, _ := sent[len(sent)-1]["messageID"].(string)
	return id
}

func answer(status int, body string) *http.Response {
	return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body))}
}

func notFound(what, id string) (int, any, http.Header) {
	return 404, map[string]any{"name": "NotFoundError", "data": map[string]any{"message": what + " not found: " + id}}, nil
}

// route answers a request. f.mu must be held.
func (f *fakeServer) route(req *http.Request, body map[string]any) (int, any, http.Header) {
	dir := req.URL.Query().Get("directory")
	if dir == "" {
		dir = "/work"
	}
	path := strings.Split(strings.TrimPrefix(req.URL.Path, "/"), "/")
	switch route := req.Method + " /" + path[0]; {
	case req.URL.Path == "/global/health":
		return 200, map[string]any{"healthy": true, "version": "fake"}, nil
	case route == "GET /agent":
		var list []map[string]any
		for _, a := range f.agents {
			list = append(list, map[string]any{"name": a, "mode": "all", "description": "does " + a})
		}
		return 200, append(list, map[string]any{"name": "title", "hidden": true}), nil
	case req.URL.Path == "/config/providers":
		models := map[string]any{"scripted": map[string]any{}, "nested/name": map[string]any{}}
		return 200, map[string]any{"providers": []any{map[string]any{"id": "scripted", "models": models}}}, nil
	case route == "GET /file":
		if strings.HasPrefix(dir, "/vanished") {
			return 500, map[string]any{"name": "UnknownError", "data": map[string]any{"message": "Unexpected server error."}}, nil
		}
		return 200, []any{}, nil
	case route == "GET /permission" || route == "GET /question":
		list := []any{}
		for _, id := range slices.Sorted(maps.Keys(f.asks)) {
			if a := f.asks[id]; a.dir == dir && strings.HasPrefix(id, path[0][:3]) {
				list = append(list, a.body)
			}
		}
		return 200, list, nil
	case (route == "POST /permission" || route == "POST /question") && len(path) == 3:
		a := f.asks[path[1]]
		if a == nil {
			return 404, map[string]any{"_tag": "PermissionNotFoundError", "message": "not found"}, nil
		}
		delete(f.asks, path[1])
		a.answer <- body
		return 200, true, nil
	case req.URL.Path == "/session/status":
		out := map[string]any{}
		for id, s := range f.sessions {
			if s.status != nil && s.Directory == dir {
				out[id] = s.status
			}
		}
		return 200, out, nil
	case req.URL.Path == "/session" && req.Method == http.MethodGet:
		return 200, f.find(dir, req.URL.Query().Get("search")), nil
	case req.URL.Path == "/session" && req.Method == http.MethodPost:
		return f.create(dir, body)
	case path[0] == "session" && len(path) >= 2:
		return f.sessionRoute(req, path[1], strings.Join(path[2:], "/"), body)
	}
	return 500, nil, nil // the server's answer to unknown requests
}

// find returns the 100 latest sessions of a directory whose titles contain the text. f.mu must be
// held.
func (f *fakeServer) find(dir, text string) []*fakeSession {
	out := []*fakeSession{}
	for _, id := range slices.Backward(slices.Sorted(maps.Keys(f.sessions))) {
		if s := f.sessions[id]; s.Directory == dir && strings.Contains(strings.ToLower(s.Title), strings.ToLower(text)) && len(out) < 100 {
			out = append(out, s)
		}
	}
	return out
}

func (f *fakeServer) create(dir string, body map[string]any) (int, any, http.Header) {
	s := &fakeSession{ID: f.id("ses"), Directory: dir, Time: fakeTime{Created: f.now()}, Model: body["model"], Metadata: body["metadata"]}
	s.ParentID, _ = body["parentID"].(string)
	s.Title, _ = body["title"].(string)
	s.Agent, _ = body["agent"].(string)
	s.addRules(body["permission"])
	f.sessions[s.ID] = s
	f.emit(dir, "session.created", map[string]any{"sessionID": s.ID, "info": s})
	return 200, s, nil
}

func (s *fakeSession) addRules(list any) {
	rules, _ := list.([]any)
	for _, r := range rules {
		s.Permission = append(s.Permission, r.(map[string]any))
	}
}

func (f *fakeServer) sessionRoute(req *http.Request, id, rest string, body map[string]any) (int, any, http.Header) {
	s := f.sessions[id]
	if rest == "abort" { // succeeds even for a session that does not exist
		f.abort(id)
		return 200, true, nil
	}
	if !strings.HasPrefix(id, "ses") {
		return 500, map[string]any{"name": "UnknownError", "data": map[string]any{"message": "Unexpected server error."}}, nil
	}
	if s == nil {
		return notFound("Session", id)
	}
	switch route := req.Method + " " + rest; {
	case route == "GET ":
		return 200, s, nil
	case route == "PATCH ":
		s.addRules(body["permission"])
		return 200, s, nil
	case route == "DELETE ":
		f.remove(s)
		return 200, true, nil
	case route == "GET todo":
		return 200, append([]map[string]string{}, s.todos...), nil
	case route == "GET children":
		list := []any{}
		for _, x := range f.sessions {
			if x.ParentID == id {
				list = append(list, x)
			}
		}
		return 200, list, nil
	case route == "GET message":
		return s.list(req)
	case strings.HasPrefix(route, "GET message/"):
		if m := s.message(strings.TrimPrefix(rest, "message/")); m != nil {
			return 200, m, nil
		}
		return notFound("Message", rest)
	case strings.HasPrefix(route, "DELETE message/"):
		s.messages = slices.DeleteFunc(s.messages, func(m *fakeMessage) bool { return m.Info["id"] == strings.TrimPrefix(rest, "message/") })
		s.queue = slices.DeleteFunc(s.queue, func(id string) bool { return id == strings.TrimPrefix(rest, "message/") })
		return 200, true, nil
	case route == "POST message" && body["noReply"] == true:
		f.prompts = append(f.prompts, body)
		f.prompt(s, body)
		return 200, s.message(body["messageID"].(string)), nil
	case route == "POST prompt_async":
		f.prompts = append(f.prompts, body)
		f.prompt(s, body)
		return 204, nil, nil
	}
	return 500, nil, nil
}

// remove deletes a session and its descendants, but does not stop their turns.
func (f *fakeServer) remove(s *fakeSession) {
	for _, x := range f.sessions {
		if x.ParentID == s.ID {
			f.remove(x)
		}
	}
	s.deleted = true
	if s.status == nil {
		delete(f.sessions, s.ID)
	}
	f.emit(s.Directory, "session.deleted", map[string]any{"sessionID": s.ID, "info": s})
}

func (s *fakeSession) message(id string) *fakeMessage {
	for _, m := range s.messages {
		if m.Info["id"] == id {
			return m
		}
	}
	return nil
}

// list answers a request for messages. The pages go backwards from the newest message, but in
// each page the oldest message comes first.
func (s *fakeSession) list(req *http.Request) (int, any, http.Header) {
	all := slices.Clone(s.messages)
	slices.SortStableFunc(all, func(a, b *fakeMessage) int { return int(a.row - b.row) })
	if before := req.URL.Query().Get("before"); before != "" {
		b, err := base64.RawURLEncoding.DecodeString(before)
		i := slices.IndexFunc(all, func(m *fakeMessage) bool { return m.Info["id"] == string(b) })
		if err != nil || i < 0 {
			return 400, map[string]any{"_tag": "BadRequest"}, nil
		}
		all = all[:i]
	}
	limit, _ := strconv.Atoi(req.URL.Query().Get("limit"))
	if limit == 0 || limit >= len(all) {
		return 200, append([]*fakeMessage{}, all...), nil
	}
	all = all[len(all)-limit:]
	return 200, all, http.Header{"X-Next-Cursor": {base64.RawURLEncoding.EncodeToString([]byte(all[0].Info["id"].(string)))}}
}

// subscribe opens an event stream.
func (f *fakeServer) subscribe(req *http.Request) *http.Response {
	st := &fakeStream{send: make(chan []byte, 10000)}
	f.mu.Lock()
	f.streams[st] = true
	f.mu.Unlock()
	r, w := io.Pipe()
	stop := context.AfterFunc(req.Context(), func() { w.CloseWithError(req.Context().Err()) })
	f.wg.Go(func() {
		defer stop()
		defer w.Close()
		beat := time.NewTicker(10 * time.Second)
		defer beat.Stop()
		line := []byte(`{"payload":{"type":"server.connected","properties":{}}}`)
		for {
			if line != nil {
				if _, err := fmt.Fprintf(w, "data: %s\n\n", line); err != nil {
					return
				}
			}
			select {
			case next, ok := <-st.send:
				if !ok {
					return
				}
				line = next
			case <-beat.C:
				if line = []byte(`{"payload":{"type":"server.heartbeat","properties":{}}}`); f.isMute() {
					line = nil
				}
			case <-req.Context().Done():
				return
			}
		}
	})
	resp := answer(http.StatusOK, "")
	resp.Body, resp.ContentLength = r, -1
	return resp
}

func (f *fakeServer) isMute() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.mute
}

// emit sends an event. Like the server, it also sends a copy of the event for synchronization. f.mu
// must be held.
func (f *fakeServer) emit(dir, kind string, properties map[string]any) {
	if f.mute {
		return
	}
	e := map[string]any{"directory": dir, "payload": map[string]any{"id": f.id("evt"), "type": kind, "properties": properties}}
	b, err := json.Marshal(e)
	if err != nil {
		panic(err)
	}
	sync := []byte(`{"directory":"` + dir + `","payload":{"type":"sync","syncEvent":{"type":"` + kind + `.1","data":{}}}}`)
	for st := range f.streams {
		st.send <- b
		st.send <- sync
	}
}

// breakStreams ends all event streams.
func (f *fakeServer) breakStreams() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for st := range f.streams {
		close(st.send)
		delete(f.streams, st)
	}
}

// crash stops the server as kill -9 would. Running turns stop in the middle, without an
// event.
func (f *fakeServer) crash() {
	f.breakStreams()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.down = true
	clear(f.asks)
	for _, s := range f.sessions {
		s.turns++ // drops later output of the running turn
		if s.cancel != nil {
			s.cancel()
		}
		s.status, s.queue, s.cancel = nil, nil, nil
	}
}

// restart starts the server again with its stored data.
func (f *fakeServer) restart() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.down = false
}

// stop stops the server and waits for its goroutines.
func (f *fakeServer) stop() {
	f.crash()
	f.wg.Wait()
}

// The method "do" calls g with the server's lock held.
func (f *fakeServer) do(g func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	g()
}

// lastMessageOf returns the id of the last prompt in a session. f.mu must be held.
func (f *fakeServer) lastMessageOf(s *fakeSession) (id string) {
	for _, m := range s.messages {
		if m.Info["role"] == "user" {
			id = m.Info["id"].(string)
		}
	}
	return id
}
