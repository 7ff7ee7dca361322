package dashboard

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"
)

const (
	// beat is the interval between the events that show that a stream is alive. Proxies close
	// connections that are silent for a minute, and a page reconnects if it does not get
	// anything for 40 s.
	beat = 15 * time.Second
	// writeTimeout is the maximum time that writing one message can take. If a page takes longer, its stream
	// is closed. writeTimeout also replaces the server's WriteTimeout, which would end every stream.
	writeTimeout = 30 * time.Second
)

// hello is the first message to a page.
type hello struct {
	Title   string `json:"title"`
	Now     int64  `json:"now"` // current time in ms since 1970, by the same clock as all other times
	Cancel  bool   `json:"cancel"`
	Resume  bool   `json:"resume"`
	Answer  bool   `json:"answer"` // questions that are not requests for permission may be answered
	Permit  bool   `json:"permit"` // requests for permission may be answered
	Log     bool   `json:"log"`
	Silent  int64  `json:"silent"`            // time in ms after which a silent task is marked; 0 means never
	Process string `json:"process,omitempty"` // name of the server's own process
}

// serveEvents streams server-sent events: first a hello event, and then batch events. When
// the manager is closed, a closed event ends the stream.
func (h *Handler) serveEvents(w http.ResponseWriter, r *http.Request) {
	page := h.feed.join()
	if page == nil {
		writeError(w, http.StatusServiceUnavailable, errors.New("the page has been closed"))
		return
	}
	defer h.feed.leave(page)
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no") // without this header, nginx buffers the stream
	s := stream{w: w, control: http.NewResponseController(w)}
	s.send("hello", hello{h.cfg.Title, time.Now().UnixMilli(), h.cfg.AllowCancel, h.cfg.AllowResume, h.cfg.AllowAnswer, h.cfg.AllowPermit, h.cfg.Log != nil, max(h.cfg.Silent, 0).Milliseconds(), h.cfg.Process})

	beats := time.NewTicker(beat)
	defer beats.Stop()
	for s.err == nil {
		select {
		case <-r.Context().Done():
			return
		case <-beats.C:
			s.send("beat", struct {
				Now int64 `json:"now"`
			}{time.Now().UnixMilli()})
			continue
		case <-page.wake:
		}
		if !h.sendBatches(&s, page) {
			return
		}
	}
}

// sendBatches sends all changes that the page does not have yet. It returns false if the
// stream has to end.
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
	err     error // the first error; nothing is written after an error
}

func (s *stream) send(event string, v any) {
	b, err := json.Marshal(v)
	if err != nil { // only NaN or Inf could cause an error, and the manager rejects both values
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
