package mcpserver

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/modelcontextprotocol/go-sdk/jsonrpc"
	"github.com/modelcontextprotocol/go-sdk/mcp"
)

// A client asks for the extension's notification, notifications/tasks, by naming task ids in
// subscriptions/listen. The protocol library supports neither this notification nor the field
// for the task ids, and it cannot be extended. Therefore, this file translates the messages
// on the wire. In incoming requests, task ids become subscriptions to the tasks' resources.
// Outgoing updates of these resources become notifications of the extension.

const (
	methodListen       = "subscriptions/listen"
	methodAcknowledged = "notifications/subscriptions/acknowledged"
	methodUpdated      = "notifications/resources/updated"
	methodTasks        = "notifications/tasks"

	maxListen = 1 << 20 // maximum size of a request to listen, in bytes
)

// fields is a JSON object. Its values are decoded only where they are needed.
type fields map[string]json.RawMessage

func (f fields) set(name string, v any) {
	f[name], _ = json.Marshal(v) // encoding strings, slices of strings and objects of raw JSON never fails
}

func (f fields) strings(name string) (all []string) {
	_ = json.Unmarshal(f[name], &all) // the protocol library reports invalid fields
	return all
}

func (f fields) object(name string) (o fields) {
	_ = json.Unmarshal(f[name], &o)
	return o
}

// The type "listens" holds the open requests of one connection that listen to tasks.
type listens struct {
	sc *scope

	mu sync.Mutex
	by map[string]*listen // keyed by the JSON form of the request's id
}

// The type "listen" holds the state of one request to listen to tasks.
type listen struct {
	handles []string            // accepted handles
	tasks   map[string][]string // handles of tasks that have not ended, by the address of the task's resource
	wanted  []string            // resources named in the client's own request
}

func newListens(sc *scope) *listens { return &listens{sc: sc, by: map[string]*listen{}} }

// The method "in" translates a message from the client.
func (l *listens) in(msg jsonrpc.Message) jsonrpc.Message {
	req, ok := msg.(*jsonrpc.Request)
	if !ok || req.Method != methodListen || !req.ID.IsValid() {
		return msg
	}
	var params fields
	_ = json.Unmarshal(req.Params, &params)
	notifications := params.object("notifications")
	asked := notifications.strings("taskIds")
	if len(asked) == 0 {
		return msg
	}
	listen := &listen{tasks: map[string][]string{}, wanted: notifications.strings("resourceSubscriptions")}
	resources := slices.Clone(listen.wanted)
	for _, handle := range asked {
		id, _, err := l.sc.parse(handle)
		if err != nil || slices.Contains(listen.handles, handle) {
			continue // the acknowledgement lists only the accepted handles
		}
		listen.handles = append(listen.handles, handle)
		listen.tasks[uri(id)] = append(listen.tasks[uri(id)], handle)
		if !slices.Contains(resources, uri(id)) {
			resources = append(resources, uri(id))
		}
	}
	delete(notifications, "taskIds")
	notifications.set("resourceSubscriptions", resources)
	params.set("notifications", notifications)
	l.mu.Lock()
	l.by[keyOf(req.ID)] = listen
	l.mu.Unlock()
	changed := *req
	changed.Params, _ = json.Marshal(params)
	return &changed
}

func keyOf(id jsonrpc.ID) string {
	key, _ := json.Marshal(id.Raw())
	return string(key)
}

// The method "out" translates a message to the client into zero or more messages.
func (l *listens) out(ctx context.Context, msg jsonrpc.Message) []jsonrpc.Message {
	same := []jsonrpc.Message{msg}
	if answer, ok := msg.(*jsonrpc.Response); ok {
		l.mu.Lock()
		delete(l.by, keyOf(answer.ID))
		l.mu.Unlock()
		return same
	}
	req, ok := msg.(*jsonrpc.Request)
	if !ok || req.Method != methodAcknowledged && req.Method != methodUpdated {
		return same
	}
	var params fields
	_ = json.Unmarshal(req.Params, &params)
	meta := params.object("_meta")
	l.mu.Lock()
	listen := l.by[string(meta[mcp.MetaKeySubscriptionID])]
	l.mu.Unlock()
	switch {
	case listen == nil:
		return same
	case req.Method == methodAcknowledged:
		return l.acknowledged(ctx, listen, req, params, meta)
	}
	var address string
	_ = json.Unmarshal(params["uri"], &address)
	changes := l.changes(ctx, listen, address, meta)
	if slices.Contains(listen.wanted, address) {
		return append(same, changes...)
	}
	return changes
}

// The method "acknowledged" inserts the accepted handles into the acknowledgement. It returns the
// acknowledgement, followed by a notification for each handle whose task has already ended.
func (l *listens) acknowledged(ctx context.Context, listen *listen, req *jsonrpc.Request, params, meta fields) []jsonrpc.Message {
	notifications := params.object("notifications")
	agreed := slices.DeleteFunc(notifications.strings("resourceSubscriptions"), func(address string) bool {
		return !slices.Contains(listen.wanted, address)
	})
	if delete(notifications, "resourceSubscriptions"); len(agreed) > 0 {
		notifications.set("resourceSubscriptions", agreed)
	}
	notifications.set("taskIds", append([]string{}, listen.handles...))
	params.set("notifications", notifications)
	changed := *req
	changed.Params, _ = json.Marshal(params)
	messages := []jsonrpc.Message{&changed}
	for _, handle := range listen.handles {
		id, _, _ := strings.Cut(handle, ".")
		messages = append(messages, l.change(ctx, listen, uri(id), handle, meta, true)...)
	}
	return messages
}

// The method "changes" returns a notification for each handle in the request whose task has the
// given resource address.
func (l *listens) changes(ctx context.Context, listen *listen, address string, meta fields) (messages []jsonrpc.Message) {
	l.mu.Lock()
	handles := slices.Clone(listen.tasks[address])
	l.mu.Unlock()
	for _, handle := range handles {
		messages = append(messages, l.change(ctx, listen, address, handle, meta, false)...)
	}
	return messages
}

// The method "change" returns a notification with the state of a handle's task. The end of the task is
// reported only once per handle. If endOnly is true, no other state is reported.
func (l *listens) change(ctx context.Context, listen *listen, address, handle string, meta fields, endOnly bool) []jsonrpc.Message {
	l.mu.Lock()
	defer l.mu.Unlock()
	at := slices.Index(listen.tasks[address], handle)
	if at < 0 {
		return nil
	}
	state, err := l.sc.getTask(ctx, handle)
	if err != nil {
		return nil // the task was evicted after the change
	}
	switch {
	case state.Status != "working":
		listen.tasks[address] = slices.Delete(listen.tasks[address], at, at+1)
	case endOnly:
		return nil
	}
	raw, err := json.Marshal(state)
	if err != nil {
		return nil
	}
	var params fields
	_ = json.Unmarshal(raw, &params)
	delete(params, "resultType") // a notification is not a result
	params.set("_meta", fields{mcp.MetaKeySubscriptionID: meta[mcp.MetaKeySubscriptionID]})
	raw, _ = json.Marshal(params)
	return []jsonrpc.Message{&jsonrpc.Request{Method: methodTasks, Params: raw}}
}

// translated is a transport that lets clients listen to tasks.
type translated struct {
	mcp.Transport
	sc *scope
}

func (t translated) Connect(ctx context.Context) (mcp.Connection, error) {
	c, err := t.Transport.Connect(ctx)
	if err != nil {
		return nil, err
	}
	return &translatedConn{Connection: c, listens: newListens(t.sc), unwritten: newMessages(c.Write, func() { _ = c.Close() })}, nil
}

// SupportsProtocolVersion implements [mcp.ProtocolVersionSupporter].
func (t translated) SupportsProtocolVersion(version string) bool {
	inner, ok := t.Transport.(mcp.ProtocolVersionSupporter)
	return !ok || inner.SupportsProtocolVersion(version)
}

type translatedConn struct {
	mcp.Connection
	listens   *listens
	unwritten *outbox[jsonrpc.Message]
	mu        sync.Mutex // held while a message is translated and queued, so that the resulting messages stay together
}

func (c *translatedConn) Read(ctx context.Context) (jsonrpc.Message, error) {
	msg, err := c.Connection.Read(ctx)
	if err != nil {
		return nil, err
	}
	return c.listens.in(msg), nil
}

func (c *translatedConn) Write(ctx context.Context, msg jsonrpc.Message) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, m := range c.listens.out(ctx, msg) {
		if err := c.unwritten.put(m, sizeOf(m)); err != nil {
			return err
		}
	}
	return nil
}

// Close writes the messages that are still queued, and then closes the connection.
func (c *translatedConn) Close() error {
	c.unwritten.close()
	return c.Connection.Close()
}

// The method "listening" translates HTTP requests that listen to tasks, and the streams that answer them.
func (sc *scope) listening(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost || r.Header.Get("Mcp-Method") != methodListen {
			h.ServeHTTP(w, r)
			return
		}
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxListen))
		if err != nil {
			http.Error(w, "cannot read the request to listen: "+err.Error(), http.StatusBadRequest)
			return
		}
		l := newListens(sc)
		if msg, err := jsonrpc.DecodeMessage(body); err == nil { // the protocol library reports an invalid message
			if changed := l.in(msg); changed != msg {
				body, err = jsonrpc.EncodeMessage(changed)
				if err != nil {
					http.Error(w, err.Error(), http.StatusInternalServerError)
					return
				}
			}
		}
		r = r.Clone(r.Context())
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
		h.ServeHTTP(&eventTranslator{streamWriter: streamWriter{w}, ctx: r.Context(), listens: l}, r)
	})
}

// eventTranslator translates the events in a stream. The library writes each event with one
// call to Write.
type eventTranslator struct {
	streamWriter
	ctx     context.Context
	listens *listens
	mu      sync.Mutex // held while an event is translated and written
}

func (e *eventTranslator) Write(event []byte) (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	const field = "data: "
	at := bytes.Index(event, []byte(field))
	if at < 0 || at > 0 && event[at-1] != '\n' {
		return e.ResponseWriter.Write(event)
	}
	head, data := event[:at], bytes.TrimRight(event[at+len(field):], "\n")
	msg, err := jsonrpc.DecodeMessage(data)
	if err != nil {
		return e.ResponseWriter.Write(event)
	}
	for _, m := range e.listens.out(e.ctx, msg) {
		data, err := jsonrpc.EncodeMessage(m)
		if err != nil {
			return 0, err
		}
		if _, err := e.ResponseWriter.Write(slices.Concat(head, []byte(field), data, []byte("\n\n"))); err != nil {
			return 0, err
		}
	}
	return len(event), nil
}
