package opencode

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// fake is a server whose answers a test decides. It is a RoundTripper, so that
// nothing of it is outside of a bubble of testing/synctest.
type fake struct {
	mu       sync.Mutex
	answers  map[string]string // JSON by "METHOD path" or "METHOD path?query"
	requests []string
	bodies   []string
	password string
	down     bool
	streams  []*io.PipeWriter
	opened   chan struct{}
}

func newFake() *fake {
	return &fake{opened: make(chan struct{}, 100), answers: map[string]string{
		"GET /global/health":                  `{"healthy":true,"version":"1.18.33"}`,
		"GET /agent":                          `[{"name":"build"},{"name":"worker","description":"works"},{"name":"title","hidden":true}]`,
		"POST /session":                       `{"id":"ses_1","directory":"/project","time":{"created":1795341986304}}`,
		"GET /session/ses_1":                  `{"id":"ses_1","parentID":"ses_0","directory":"/project"}`,
		"GET /session/ses_other":              `{"id":"ses_other","directory":"/other"}`,
		"GET /session/status":                 `{}`,
		"GET /permission":                     `[]`,
		"POST /session/ses_1/prompt_async":    ``,
		"POST /session/ses_1/abort":           `true`,
		"GET /session/ses_1/message":          `[]`,
		"POST /permission/per_1/reply":        `true`,
		"POST /question/que_1/reject":         `true`,
		"GET /session/status?directory=/odd":  `{"ses_1":{"type":"compacting"}}`,
		"GET /session/ses_1/todo":             `[{"content":"one","status":"completed"},{"content":"two","status":"in_progress"},{"content":"three","status":"cancelled"},{"content":"four","status":"?"}]`,
		"GET /session/status?directory=/down": `not JSON`,
	}}
}

func (f *fake) set(request, answer string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answers[request] = answer
}

func (f *fake) all() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string(nil), f.requests...)
}

// sent returns the bodies of the requests.
func (f *fake) sent(request string) (out []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, r := range f.requests {
		if strings.HasPrefix(r, request) {
			out = append(out, f.bodies[i])
		}
	}
	return out
}

// RoundTrip implements [http.RoundTripper].
func (f *fake) RoundTrip(r *http.Request) (*http.Response, error) {
	key := r.Method + " " + r.URL.Path
	full := key
	if q := r.URL.Query(); len(q) > 0 {
		full += "?" + strings.NewReplacer("%2F", "/").Replace(q.Encode())
	}
	var body []byte
	if r.Body != nil {
		body, _ = io.ReadAll(r.Body)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.requests, f.bodies = append(f.requests, full), append(f.bodies, string(body))
	if f.down {
		return nil, errors.New("connection refused")
	}
	w := httptest.NewRecorder()
	if _, password, _ := r.BasicAuth(); password != f.password {
		w.WriteHeader(http.StatusUnauthorized)
		return w.Result(), nil
	}
	if r.URL.Path == "/global/event" {
		pr, pw := io.Pipe()
		f.streams = append(f.streams, pw)
		f.opened <- struct{}{}
		go func() {
			<-r.Context().Done()
			_ = pw.CloseWithError(r.Context().Err())
		}()
		return &http.Response{StatusCode: 200, Body: pr, Request: r}, nil
	}
	answer, ok := f.answers[full]
	if !ok {
		answer, ok = f.answers[key]
	}
	switch {
	case !ok:
		w.WriteHeader(http.StatusNotFound)
		_, _ = io.WriteString(w, `{"name":"NotFoundError","data":{"message":"it is not there"}}`)
	case answer == "hang":
		f.mu.Unlock()
		<-r.Context().Done()
		f.mu.Lock()
		return nil, r.Context().Err()
	case strings.HasPrefix(answer, "status "):
		var status int
		_, _ = fmt.Sscanf(answer, "status %d", &status)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, answer[len("status 400 "):])
	default:
		_, _ = io.WriteString(w, answer)
	}
	return w.Result(), nil
}

// say sends lines on the latest stream.
func (f *fake) say(lines ...string) {
	f.mu.Lock()
	w := f.streams[len(f.streams)-1]
	f.mu.Unlock()
	for _, l := range lines {
		_, _ = io.WriteString(w, l+"\n\n")
	}
}

// event is a line of the stream.
func event(kind, properties string) string {
	return `data: {"directory":"/project","payload":{"id":"evt_1","type":"` + kind + `","properties":` + properties + `}}`
}

func fakeClient(t *testing.T, f *fake, cfg Config) *Client {
	t.Helper()
	cfg.URL, cfg.HTTPClient = "http://server:4096/", &http.Client{Transport: f}
	c, err := New(cfg)
	require.NoError(t, err)
	return c
}
