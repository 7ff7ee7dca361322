package opencode_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/internal/race"
	"github.com/bgagent/bgagent/opencode"
)

// endless is a body that consists of the field "text", repeated n times. The field "rest" holds the
// bytes that the next call to Read returns first.
type endless struct {
	text string
	n    int
	rest string
}

func (e *endless) Read(p []byte) (int, error) {
	if e.rest == "" {
		if e.n == 0 {
			return 0, io.EOF
		}
		k := min(e.n, 1+len(p)/len(e.text))
		e.n -= k
		e.rest = strings.Repeat(e.text, k)
	}
	n := copy(p, e.rest)
	e.rest = e.rest[n:]
	return n, nil
}

// The function "packed" compresses a body.
func packed(t *testing.T, body io.Reader) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, err := io.Copy(w, body)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return b.Bytes()
}

// A small body that decompresses into a large body is refused in every answer, even if the body is
// otherwise valid. Refusing the body takes little memory.
func TestAnAnswerThatUnpacksIntoGigabytesIsRefused(t *testing.T) {
	head := `[{"info":{"id":"msg_1","sessionID":"ses_1","role":"assistant"},"parts":[`
	for name, body := range map[string][]byte{
		"list":   packed(t, io.MultiReader(strings.NewReader("[{}"), &endless{text: ",{}", n: 4 << 20}, strings.NewReader("]"))),
		"parts":  packed(t, io.MultiReader(strings.NewReader(head), &endless{text: "{},", n: 4 << 20}, strings.NewReader("{}]}]"))),
		"text":   packed(t, io.MultiReader(strings.NewReader(`[{"info":{"id":"`), &endless{text: strings.Repeat("a", 1<<10), n: 70 << 10}, strings.NewReader(`"}}]`))),
		"blanks": packed(t, io.MultiReader(&endless{text: strings.Repeat(" ", 1<<10), n: 70 << 10}, strings.NewReader("[]"))),
	} {
		if race.Enabled && name != "parts" {
			continue // slow with the race detector, which finds nothing here, because only one goroutine decodes the responses
		}
		t.Run(name, func(t *testing.T) {
			status := http.StatusOK
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Encoding", "gzip")
				w.WriteHeader(status)
				_, _ = w.Write(body)
			}))
			defer s.Close()
			c := newClient(t, opencode.Config{URL: s.URL})
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := c.Messages(t.Context(), "ses_1", "", 10)
			assert.Error(t, err)
			status = http.StatusInternalServerError
			_, err = c.Todos(t.Context(), "ses_1")
			assert.Error(t, err)
			runtime.ReadMemStats(&after)
			assert.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(500<<20), "bytes allocated")
		})
	}
}

func TestAListOfMessagesWithoutAnEndIsRefused(t *testing.T) {
	if race.Enabled {
		t.Skip("takes long with the race detector, and only one goroutine reads")
	}
	n := 0
	c := newClient(t, opencode.Config{HTTPClient: &http.Client{Transport: roundTrip(func(*http.Request) (*http.Response, error) {
		var b strings.Builder
		for range 50_000 {
			n++
			fmt.Fprintf(&b, `,{"info":{"id":"msg_%d"}}`, n)
		}
		resp := answer(http.StatusOK, "["+b.String()[1:]+"]")
		resp.Header.Set("X-Next-Cursor", fmt.Sprint(n))
		return resp, nil
	})}})
	_, err := c.Messages(t.Context(), "ses_1", "", 10)
	assert.ErrorContains(t, err, "more than 200000 messages")
	assert.Less(t, n, 300_000)
}

func TestThePasswordStaysAtOneOrigin(t *testing.T) {
	var stolen atomic.Int32
	thief := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		stolen.Add(1)
		fmt.Fprint(w, `{"healthy":true,"version":"x","id":"ses_1"}`)
	}))
	defer thief.Close()
	other, err := url.Parse(thief.URL)
	require.NoError(t, err)
	for _, status := range []int{301, 302, 303, 307, 308} {
		for _, to := range []string{thief.URL, "http://localhost:" + other.Port(), "//" + other.Host, "http://user:pass@" + other.Host} {
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				http.Redirect(w, r, to+r.URL.Path, status)
			}))
			c := newClient(t, opencode.Config{URL: s.URL, Password: "secret"})
			_, err := c.Check(t.Context())
			assert.ErrorContains(t, err, "it redirects requests to http://", "%d %s", status, to)
			assert.NotContains(t, err.Error(), "pass@")
			assert.ErrorContains(t, c.Events(t.Context(), func(bgagent.HostEvent) {}), "redirects requests")
			_, err = c.CreateSession(t.Context(), bgagent.SessionSpec{Title: "x"})
			assert.ErrorContains(t, err, "redirects requests")
			s.Close()
		}
	}
	assert.Zero(t, stolen.Load(), "the password reached another origin")
}

func TestARedirectThatStaysIsFollowedAndNeverTurnsAPromptIntoAQuestion(t *testing.T) {
	var gets atomic.Int32
	for status, follows := range map[int]bool{307: true, 308: true, 302: false, 303: false} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch {
			case r.URL.Path == "/session":
				http.Redirect(w, r, "/moved/session", status)
			case r.Method == http.MethodPost:
				_, pass, _ := r.BasicAuth()
				b, _ := io.ReadAll(r.Body)
				if pass == "secret" && strings.Contains(string(b), "the title") {
					fmt.Fprint(w, `{"id":"ses_1","directory":"/w"}`)
				}
			default:
				gets.Add(1)
				fmt.Fprint(w, `{"id":"ses_1","directory":"/w"}`)
			}
		}))
		given := &http.Client{Transport: http.DefaultTransport}
		c := newClient(t, opencode.Config{URL: s.URL, Password: "secret", HTTPClient: given})
		id, err := c.CreateSession(t.Context(), bgagent.SessionSpec{Title: "the title"})
		if follows {
			assert.NoError(t, err)
			assert.Equal(t, "ses_1", id)
		} else {
			assert.ErrorContains(t, err, "a redirect is followed only if it stays at opencode.Config.URL and keeps the method")
		}
		assert.Nil(t, given.CheckRedirect, "the host's client is not changed")
		s.Close()
	}
	assert.Zero(t, gets.Load())
}

// If any field has an unexpected type, only this field is left out.
func TestAFieldOfAnotherTypeLeavesOutThatFieldAlone(t *testing.T) {
	const whole = `{"info":{"id":"msg_1","sessionID":"ses_1","role":"assistant","time":{"created":1000,"completed":2000},"finish":"stop","cost":0.5,
		"tokens":{"input":3,"output":4,"cache":{"read":5,"write":6}},"summary":false,"error":null},
		"parts":[{"id":"prt_1","type":"text","text":"one","ignored":false,"metadata":{"a":1}},{"id":"prt_2","type":"reasoning","text":"hm"},
		{"id":"prt_3","type":"tool","callID":"c","tool":"bash","state":{"status":"completed","error":"x","input":{"questions":[{"question":"q"}]}}},
		{"id":"prt_4","type":"text","text":"two"}]}`
	var doc any
	require.NoError(t, json.Unmarshal([]byte(whole), &doc))
	read := func(v any) bgagent.Message {
		b, err := json.Marshal(v)
		require.NoError(t, err)
		c := newClient(t, opencode.Config{HTTPClient: &http.Client{Transport: roundTrip(func(*http.Request) (*http.Response, error) {
			return answer(http.StatusOK, "["+string(b)+"]"), nil
		})}})
		page, err := c.Messages(t.Context(), "ses_1", "", 10)
		require.NoError(t, err, "%s", b)
		if len(page.Messages) == 0 {
			return bgagent.Message{}
		}
		return page.Messages[0]
	}
	want := read(doc)
	require.Equal(t, "one\n\ntwo", want.Text)
	for _, odd := range []any{nil, true, 7, -1e300, "odd", []any{}, []any{1, "x"}, map[string]any{}, map[string]any{"a": []any{}}} {
		eachField(doc, func(path string, set func(any), was any) {
			set(odd)
			got := read(doc)
			set(was)
			if !strings.HasPrefix(path, "/parts") && !strings.HasPrefix(path, "/info/id") && !strings.HasPrefix(path, "/info/sessionID") && path != "/info" {
				assert.Equal(t, want.Text, got.Text, "%s = %v", path, odd)
				assert.Equal(t, want.Tools, got.Tools, "%s = %v", path, odd)
			}
			if strings.HasPrefix(path, "/parts/") && !strings.HasPrefix(path, "/parts/3") {
				assert.Contains(t, got.Text, "two", "%s = %v", path, odd)
				assert.True(t, got.Finished)
			}
		})
	}
	require.Equal(t, want, read(doc), "the test restored the document")
}

// eachField calls f for every field and every element of a JSON value, at any depth.
func eachField(v any, f func(path string, set func(any), was any)) { fieldsOf("", v, f) }

func fieldsOf(path string, v any, f func(string, func(any), any)) {
	switch v := v.(type) {
	case map[string]any:
		for k, x := range v {
			f(path+"/"+k, func(y any) { v[k] = y }, x)
			fieldsOf(path+"/"+k, x, f)
		}
	case []any:
		for i, x := range v {
			f(fmt.Sprintf("%s/%d", path, i), func(y any) { v[i] = y }, x)
			fieldsOf(fmt.Sprintf("%s/%d", path, i), x, f)
		}
	}
}

func TestAnErrorThatIsAMereStringIsItsText(t *testing.T) {
	bubble(t, opencode.Config{}, none, func(t *testing.T, r *rig) {
		r.serves(r.root, `[{"info":{"id":"msg_1","role":"assistant","time":{"created":1},"error":"out of credit"}}]`)
		m := r.messages(r.root)[0]
		assert.Equal(t, bgagent.StopError, m.Stop)
		assert.Equal(t, "out of credit", m.Error)
	})
}

// An answer that does not fit the request is an error. In particular, it must not be taken to mean
// that a session is idle or empty.
func TestAnAnswerToSomethingElseIsNone(t *testing.T) {
	for name, body := range map[string]string{
		"nothing": "", "null": "null", "a number": "7", "a string": `"x"`, "cut off": `{"ses_1":{"type":"bu`, "two": `{} {}`, "a page": "<!doctype html>",
		"an error": `{"name":"UnknownError","data":{"message":"no"}}`, "html after": `{}<html>`,
	} {
		for _, status := range []int{http.StatusOK, http.StatusNoContent} {
			if status == http.StatusNoContent && body != "" {
				continue
			}
			bubble(t, opencode.Config{}, none, func(t *testing.T, r *rig) {
				id := r.session("")
				r.f.intercept(func(req *http.Request) *http.Response {
					if req.URL.Path == "/session/"+id {
						return nil
					}
					return answer(status, body)
				})
				_, err := r.c.Statuses(t.Context(), []string{id})
				assert.Error(t, err, name)
				_, err = r.c.Messages(t.Context(), id, "", 10)
				assert.Error(t, err, name)
				_, err = r.c.Todos(t.Context(), id)
				assert.Error(t, err, name)
				if status != http.StatusNoContent { // a prompt is accepted with status 204
					assert.Error(t, r.c.StartTurn(t.Context(), id, prompt("p", "x")), name)
				}
				assert.Error(t, r.c.Abort(t.Context(), id), name)
			})
		}
	}
}

func TestAPageInsteadOfAnEventStreamIsNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClient(t, opencode.Config{HTTPClient: &http.Client{Transport: roundTrip(func(*http.Request) (*http.Response, error) {
			resp := answer(http.StatusOK, "data: {\"payload\":{\"type\":\"server.connected\"}}\n\n")
			resp.Header.Set("Content-Type", "text/html; charset=utf-8")
			return resp, nil
		})}})
		var told []bgagent.HostEvent
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		err := c.Events(ctx, func(e bgagent.HostEvent) { told = append(told, e); cancel() })
		assert.ErrorContains(t, err, "the answer is text/html instead of an event stream")
		assert.Empty(t, told)
	})
}

func TestMessagesOfAnotherSessionAndDoublesAreLeftOut(t *testing.T) {
	bubble(t, opencode.Config{}, none, func(t *testing.T, r *rig) {
		id := r.session("")
		one := `{"info":{"id":"msg_1","sessionID":"` + id + `","role":"user"},"parts":[{"type":"text","text":"one"}]}`
		r.serves(id, "["+one+",7,null,"+strings.Replace(one, id, "ses_other", 1)+","+strings.Replace(one, "msg_1", "", 1)+","+one+"]")
		assert.Equal(t, []string{"> one"}, r.texts(id))
		page, err := r.c.Messages(t.Context(), id, "", 10)
		require.NoError(t, err)
		page, err = r.c.Messages(t.Context(), id, page.Next, 10)
		require.NoError(t, err)
		assert.Empty(t, page.Messages)
		assert.False(t, page.More)
	})
}

func TestANewSessionIsNoneThatThereIsAlready(t *testing.T) {
	bubble(t, opencode.Config{}, none, func(t *testing.T, r *rig) {
		id := r.session("")
		r.f.intercept(func(req *http.Request) *http.Response {
			if req.Method == http.MethodPost && req.URL.Path == "/session" {
				return answer(http.StatusOK, `{"id":"`+id+`"}`)
			}
			return nil
		})
		_, err := r.c.CreateSession(t.Context(), bgagent.SessionSpec{Agent: "worker"})
		assert.ErrorContains(t, err, "the id of an existing one")
	})
}

func TestOnlyAStartOfWhichNothingWasSentIsUnreachable(t *testing.T) {
	dial := func(err error) error { return &net.OpError{Op: "dial", Net: "tcp", Err: err} }
	reset := &net.OpError{Op: "read", Net: "tcp", Err: syscall.ECONNRESET}
	for _, x := range []struct {
		name         string
		err          error
		status       int
		ask, started bool // whether the error matches ErrUnreachable, for a failed request that only prepares a start (ask) or starts something (started)
	}{
		{name: "refused", err: dial(syscall.ECONNREFUSED), ask: true, started: true},
		{name: "no route", err: dial(syscall.EHOSTUNREACH), ask: true, started: true},
		{name: "no such host", err: dial(&net.DNSError{Err: "no such host", Name: "x", IsNotFound: true}), ask: true, started: true},
		{name: "reset", err: reset, ask: true},
		{name: "ended", err: io.EOF, ask: true},
		{name: "a proxy that does not reach it", status: http.StatusBadGateway, ask: true},
		{name: "wrong password", status: http.StatusUnauthorized},
		{name: "certificate", err: errors.New("tls: failed to verify certificate")},
		{name: "a fault of its own", status: http.StatusInternalServerError},
	} {
		bubble(t, opencode.Config{}, none, func(t *testing.T, r *rig) {
			id := r.session("")
			inner := r.f.client().Transport
			var fails func(*http.Request) bool
			c := newClient(t, opencode.Config{HTTPClient: &http.Client{Transport: roundTrip(func(req *http.Request) (*http.Response, error) {
				switch {
				case !fails(req):
					return inner.RoundTrip(req)
				case x.err != nil:
					return nil, x.err
				}
				return answer(x.status, ""), nil
			})}})
			check := func(what string, want bool, f func(*http.Request) bool) {
				t.Helper()
				fails = f
				_, err := c.CreateSession(t.Context(), bgagent.SessionSpec{Agent: "worker", Parent: r.root})
				if err != nil {
					assert.Equal(t, want, errors.Is(err, bgagent.ErrUnreachable), "%s, %s: create: %v", x.name, what, err)
				}
				if err2 := c.StartTurn(t.Context(), id, prompt("p", "say x")); err2 != nil {
					assert.Equal(t, want, errors.Is(err2, bgagent.ErrUnreachable), "%s, %s: start: %v", x.name, what, err2)
					err = err2
				}
				assert.Error(t, err)
			}
			check("asking", x.ask, func(req *http.Request) bool {
				return req.Method == http.MethodGet && !strings.HasPrefix(req.URL.Path, "/file") && !strings.HasPrefix(req.URL.Path, "/config")
			})
			check("starting", x.started, func(req *http.Request) bool { return req.Method == http.MethodPost })
		})
	}
}
