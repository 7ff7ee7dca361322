package dashboard

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"
)

const (
	// beat is how often a page that has nothing to be told hears that the stream
	// is alive. Proxies end connections that are silent for a minute.
	beat = 15 * time.Second
	// writeTimeout is how long one message to a page may take before the page
	// counts as gone. It also stands in for the server's own WriteTimeout, which
	// would end every stream.
	writeTimeout = 30 * time.Second
)

// hello is the first thing that a page is told.
type hello struct {
	Title  string `json:"title"`
	Now    int64  `json:"now"` // milliseconds since 1970, by the clock of all the other times
	Cancel bool   `json:"cancel"`
	Resume bool   `json:"resume"`
}

// serveEvents streams what happens, as server-sent events: hello, then batches;
// closed, when the manager has been closed, ends it.
func (h *Handler) serveEvents(w http.ResponseWriter, r *http.Request) {
	page := h.feed.join()
	if page == nil {
		writeError(w, http.StatusServiceUnavailable, errors.New("the page has been closed"))
		return
	}
	defer h.feed.leave(page)
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no") // nginx would collect
	s := stream{w: w, control: http.NewResponseController(w)}
	s.send("hello", hello{h.cfg.Title, time.Now().UnixMilli(), h.cfg.AllowCancel, h.cfg.AllowResume})

	beats := time.NewTicker(beat)
	defer beats.Stop()
	for s.err == nil {
		select {
		case <-r.Context().Done():
			return
		case <-beats.C:
			s.write(": alive\n\n")
			continue
		case <-page.wake:
		}
		if !h.sendBatches(&s, page) {
			return
		}
	}
}

// sendBatches sends everything that the page does not know yet. It returns false
// when nothing more will come.
func (h *Handler) sendBatches(s *stream, page *reader) bool {
	for s.err == nil {
		b, ok := h.feed.read(page)
		if !ok {
			return false
		}
		if !b.empty() {
			s.send("batch", b)
		}
		if b.More {
			continue
		}
		if b.ended {
			s.send("closed", struct{}{})
		}
		return !b.ended
	}
	return false
}

// stream writes server-sent events.
type stream struct {
	w       http.ResponseWriter
	control *http.ResponseController
	err     error // the first; nothing is written after it
}

func (s *stream) send(event string, v any) {
	b, err := json.Marshal(v)
	if err != nil { // only numbers that JSON does not have could do that, and the manager lets none through
		s.err = err
		return
	}
	s.write(fmt.Sprintf("event: %s\ndata: %s\n\n", event, b))
}

func (s *stream) write(text string) {
	if s.err != nil {
		return
	}
	if err := s.control.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		s.err = err
		return
	}
	if _, s.err = s.w.Write([]byte(text)); s.err == nil {
		s.err = s.control.Flush()
	}
}
