package dashboard_test

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/dashboard"
	"github.com/bgagent/bgagent/inproc"
)

// hostile is text that would change the page if the page treated it as markup.
const hostile = `<script>alert(1)</script><img src=x onerror=alert(1)>`

// newManager returns a manager with an agent that answers immediately, an agent that waits until
// it is stopped, and an agent that fails.
func newManager(t *testing.T, cfg bgagent.Config) *bgagent.BackgroundManager {
	m, err := bgagent.New(inproc.New(map[string]inproc.Agent{
		"echo": func(_ context.Context, turn *inproc.Turn) (string, error) {
			turn.Tool(bgagent.MessageTool{ID: "1", Name: "read", State: bgagent.ToolDone})
			return "you said: " + turn.Prompt.Text, nil
		},
		"wait": func(ctx context.Context, turn *inproc.Turn) (string, error) {
			turn.Text("waiting")
			turn.Todos([]bgagent.Todo{{Text: "sit"}, {Text: "stand", State: bgagent.TodoCompleted}})
			<-ctx.Done()
			return "", ctx.Err()
		},
	}), cfg)
	require.NoError(t, err)
	t.Cleanup(func() { _ = m.Close(context.Background()) }) // the error lists notices that have not been taken
	return m
}

func launch(t *testing.T, m *bgagent.BackgroundManager, session, agent, prompt string) bgagent.Task {
	task, err := m.Launch(t.Context(), bgagent.Caller{Session: session}, bgagent.LaunchInput{Agent: agent, Prompt: prompt})
	require.NoError(t, err)
	return task
}

func ended(t *testing.T, m *bgagent.BackgroundManager, id string) bgagent.Task {
	tasks, err := m.Wait(t.Context(), bgagent.Caller{}, bgagent.WaitAll, id)
	require.NoError(t, err)
	return tasks[0]
}

func get(h http.Handler, target string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, target, nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// post sends the same request as the page. The given headers override the page's headers.
func post(h http.Handler, target, body string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, target, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("X-Bgagent-Dashboard", "1")
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestThePageAllowsItselfNothingButItsOwnFiles(t *testing.T) {
	h := dashboard.New(newManager(t, bgagent.Config{}), dashboard.Config{})
	for _, target := range []string{"/", "/app.js", "/app.css", "/icon.svg", "/task?id=bg_none", "/nothing"} {
		policy := get(h, target).Header().Get("Content-Security-Policy")
		require.Contains(t, policy, "default-src 'none'", target)
		require.Contains(t, policy, "script-src 'self';", target)
		require.Contains(t, policy, "style-src 'self';", target)
		require.Contains(t, policy, "require-trusted-types-for 'script'", target)
		require.Contains(t, policy, "frame-ancestors 'none'", target)
		require.NotContains(t, policy, "unsafe", target)
		require.Equal(t, "nosniff", get(h, target).Header().Get("X-Content-Type-Options"))
	}
	page := get(h, "/").Body.String()
	require.NotContains(t, page, "://", "the page contacts no other server")
	require.NotContains(t, page, "style=")
	require.NotRegexp(t, `(href|src)="/`, page, "every address is relative")
}

func TestThePageHasWordsForEveryPhase(t *testing.T) {
	h := dashboard.New(newManager(t, bgagent.Config{}), dashboard.Config{})
	_, table, ok := strings.Cut(get(h, "/format.js").Body.String(), "const PHASES = {")
	require.True(t, ok)
	table, _, _ = strings.Cut(table, "\n}")
	for p := bgagent.PhaseNone; !strings.HasPrefix(p.String(), "("); p++ {
		require.Contains(t, table, "\n  '"+p.String()+"': {", "PHASES in assets/format.js")
	}
}

func TestItIsMountedUnderAnyPath(t *testing.T) {
	h := dashboard.New(newManager(t, bgagent.Config{}), dashboard.Config{})
	mux := http.NewServeMux()
	mux.Handle("/debug/tasks/", h)
	mux.Handle("/a/b/c/d/", http.StripPrefix("/a/b/c/d", h))
	mux.Handle("/bare", http.StripPrefix("/bare", h))
	mux.Handle("/deep/down/bare", http.StripPrefix("/deep/down/bare", h))
	for _, prefix := range []string{"/debug/tasks/", "/a/b/c/d/"} {
		require.Contains(t, get(mux, prefix).Body.String(), `href="app.css"`, prefix)
		w := get(mux, prefix+"app.js")
		require.Equal(t, "text/javascript; charset=utf-8", w.Header().Get("Content-Type"))
		require.Equal(t, http.StatusNotModified, get(mux, prefix+"app.js", "If-None-Match", w.Header().Get("ETag")).Code)
		require.Equal(t, http.StatusNotFound, get(mux, prefix+"task?id=bg_none").Code)
		require.Equal(t, http.StatusNotFound, get(mux, prefix+"index.html").Code, "the page has one address")
	}
	for _, bare := range []string{"/bare", "/deep/down/bare"} {
		w := get(mux, bare)
		require.Equal(t, http.StatusMovedPermanently, w.Code)
		require.Equal(t, "./bare/", w.Header().Get("Location"), "relative, because a proxy in front may have stripped more")
	}
}

func TestOneTaskIsShownWithItsMessages(t *testing.T) {
	m := newManager(t, bgagent.Config{})
	h := dashboard.New(m, dashboard.Config{})
	id := launch(t, m, "main", "echo", hostile).ID
	ended(t, m, id)

	w := get(h, "/x/task?id="+id)
	require.Equal(t, http.StatusOK, w.Code)
	require.Equal(t, "application/json", w.Header().Get("Content-Type"))
	require.NotContains(t, w.Body.String(), "<", "no markup in the response")
	var task struct{ Status, Result, Prompt, Pool string }
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &task))
	require.Equal(t, "completed", task.Status)
	require.Equal(t, "you said: "+hostile, task.Result)
	require.Equal(t, "agent echo", task.Pool)

	var page struct {
		Messages []struct{ Role, Text string }
		Next     string
	}
	require.NoError(t, json.Unmarshal(get(h, "/x/messages?id="+id).Body.Bytes(), &page))
	require.Len(t, page.Messages, 2)
	require.Equal(t, "user", page.Messages[0].Role)
	require.Equal(t, hostile, page.Messages[0].Text)
	require.NotEmpty(t, page.Next)
}

func TestMetadataIsTheHostsOwn(t *testing.T) {
	m := newManager(t, bgagent.Config{})
	task, err := m.Launch(t.Context(), bgagent.Caller{Session: "main"},
		bgagent.LaunchInput{Agent: "echo", Prompt: "x", Metadata: map[string]string{"token": "s3cret"}})
	require.NoError(t, err)
	require.NotContains(t, get(dashboard.New(m, dashboard.Config{}), "/task?id="+task.ID).Body.String(), "s3cret")
}

func TestNothingCanBeChangedUnlessTheHostAllowsIt(t *testing.T) {
	m := newManager(t, bgagent.Config{})
	h := dashboard.New(m, dashboard.Config{})
	id := launch(t, m, "main", "wait", "x").ID
	require.Equal(t, http.StatusForbidden, post(h, "/cancel", `{"id":"`+id+`"}`).Code)
	require.Equal(t, http.StatusForbidden, post(h, "/resume", `{"id":"`+id+`","prompt":"again"}`).Code)
	task, err := m.Get(id)
	require.NoError(t, err)
	require.False(t, task.Status.Terminal())
}

func TestOnlyThePageItselfCanChangeAnything(t *testing.T) {
	m := newManager(t, bgagent.Config{})
	h := dashboard.New(m, dashboard.Config{AllowCancel: true, AllowResume: true})
	id := launch(t, m, "main", "wait", "x").ID
	body := `{"id":"` + id + `","reason":"no longer needed"}`
	for name, header := range map[string][]string{
		"another site":       {"Sec-Fetch-Site", "cross-site"},
		"a sibling site":     {"Sec-Fetch-Site", "same-site"},
		"an old browser":     {"Sec-Fetch-Site", "", "Origin", "http://elsewhere.example"},
		"no header":          {"X-Bgagent-Dashboard", ""},
		"a form":             {"Content-Type", "application/x-www-form-urlencoded"},
		"text that is JSON":  {"Content-Type", "text/plain"},
		"a sandboxed iframe": {"Sec-Fetch-Site", "", "Origin", "null"},
	} {
		require.GreaterOrEqual(t, post(h, "/cancel", body, header...).Code, 400, name)
	}
	require.Equal(t, http.StatusMethodNotAllowed, get(h, "/cancel?id="+id).Code)
	require.Equal(t, "POST", get(h, "/cancel?id="+id).Header().Get("Allow"))
	for _, bad := range []string{"", "{", `{"id":1}`, `{"unknown":"x"}`, `{"id":"` + strings.Repeat("x", 2<<20) + `"}`} {
		require.Equal(t, http.StatusBadRequest, post(h, "/cancel", bad).Code)
	}
	task, err := m.Get(id)
	require.NoError(t, err)
	require.False(t, task.Status.Terminal(), "none of these requests had an effect")

	require.Equal(t, http.StatusOK, post(h, "/cancel", body).Code)
	task = ended(t, m, id)
	require.Equal(t, bgagent.CauseHost, task.Cause)
	require.Equal(t, "no longer needed", task.Reason)
	require.Equal(t, http.StatusConflict, post(h, "/cancel", body).Code, "it has ended already")
	require.Equal(t, http.StatusNotFound, post(h, "/cancel", `{"id":"bg_none"}`).Code)
}

func TestAResumedTaskTellsItsParent(t *testing.T) {
	m := newManager(t, bgagent.Config{})
	h := dashboard.New(m, dashboard.Config{AllowResume: true})
	id := launch(t, m, "main", "echo", "one").ID
	ended(t, m, id)
	_, ok := m.TakeNotice("main")
	require.True(t, ok)
	require.Equal(t, http.StatusBadRequest, post(h, "/resume", `{"id":"`+id+`","prompt":" "}`).Code)
	require.Equal(t, http.StatusOK, post(h, "/resume", `{"id":"`+id+`","prompt":"two"}`).Code)
	task := ended(t, m, id)
	require.Equal(t, "you said: two", task.Result)
	require.Equal(t, "main", task.Parent)
	n, ok := m.TakeNotice("main")
	require.True(t, ok)
	require.Equal(t, 2, n.Items[0].Attempt)
}

func TestARetryHasTheSamePrompt(t *testing.T) {
	m := newManager(t, bgagent.Config{})
	id := launch(t, m, "main", "echo", "one").ID
	ended(t, m, id)
	require.Equal(t, http.StatusForbidden, post(dashboard.New(m, dashboard.Config{AllowCancel: true}), "/retry", `{"id":"`+id+`"}`).Code)
	h := dashboard.New(m, dashboard.Config{AllowResume: true})
	require.Equal(t, http.StatusNotFound, post(h, "/retry", `{"id":"bg_none"}`).Code)
	require.Equal(t, http.StatusForbidden, post(h, "/retry", `{"id":"`+id+`"}`, "Sec-Fetch-Site", "cross-site").Code)
	require.Equal(t, http.StatusOK, post(h, "/retry", `{"id":"`+id+`"}`).Code)
	task := ended(t, m, id)
	require.Equal(t, 2, task.Attempt)
	require.Equal(t, "you said: one", task.Result)
}

func TestALogIsReadOnlyForATaskAndAnOffset(t *testing.T) {
	m := newManager(t, bgagent.Config{})
	id := launch(t, m, "main", "wait", "x").ID
	require.Equal(t, http.StatusNotFound, get(dashboard.New(m, dashboard.Config{}), "/log?from=0&id="+id).Code)
	h := dashboard.New(m, dashboard.Config{Log: func(_ context.Context, task string, offset int64) (string, int64, error) {
		require.Equal(t, id, task)
		return hostile, offset + 5, nil
	}})
	require.Equal(t, http.StatusNotFound, get(h, "/log?from=0&id=bg_none").Code)
	for _, from := range []string{"", "-1", "x", "99999999999999999999"} {
		require.Equal(t, http.StatusBadRequest, get(h, "/log?id="+id+"&from="+from).Code)
	}
	w := get(h, "/log?from=7&id="+id)
	require.Equal(t, http.StatusOK, w.Code)
	require.NotContains(t, w.Body.String(), "<", "no markup in the response")
	var part struct {
		Text string
		Next int64
	}
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &part))
	require.Equal(t, hostile, part.Text)
	require.EqualValues(t, 12, part.Next)
	require.Equal(t, http.StatusForbidden, get(h, "/log?from=0&id="+id, "Sec-Fetch-Site", "cross-site").Code)
}

func TestAServerOnLoopbackHasOnlyLoopbacksNames(t *testing.T) {
	m := newManager(t, bgagent.Config{})
	on := func(cfg dashboard.Config, ip, host string) int {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Host = host
		r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, net.Addr(&net.TCPAddr{IP: net.ParseIP(ip), Port: 80})))
		w := httptest.NewRecorder()
		dashboard.New(m, cfg).ServeHTTP(w, r)
		return w.Code
	}
	for _, host := range []string{"localhost:8080", "127.0.0.1", "127.0.0.1:80", "[::1]:80", "LOCALHOST"} {
		require.Equal(t, http.StatusOK, on(dashboard.Config{}, "127.0.0.1", host), host)
	}
	for _, host := range []string{"evil.example", "evil.example:8080", "localhost.evil.example", "10.0.0.1", ""} {
		require.Equal(t, http.StatusMisdirectedRequest, on(dashboard.Config{}, "127.0.0.1", host), host)
	}
	require.Equal(t, http.StatusOK, on(dashboard.Config{}, "10.0.0.1", "tasks.example"))
	named := dashboard.Config{Hosts: []string{"tasks.example"}}
	require.Equal(t, http.StatusOK, on(named, "127.0.0.1", "tasks.example:443"))
	require.Equal(t, http.StatusMisdirectedRequest, on(named, "10.0.0.1", "other.example"))
}

func TestAnotherSiteCannotReadIt(t *testing.T) {
	h := dashboard.New(newManager(t, bgagent.Config{}), dashboard.Config{})
	for _, target := range []string{"/events", "/task?id=x", "/messages?id=x"} {
		require.Equal(t, http.StatusForbidden, get(h, target, "Sec-Fetch-Site", "cross-site").Code)
	}
	require.Equal(t, http.StatusMethodNotAllowed, post(h, "/task", "{}").Code)
	require.Equal(t, http.StatusMethodNotAllowed, post(h, "/", "{}").Code)
}

func TestItWorksOnARealServerThatLimitsItsWrites(t *testing.T) {
	m := newManager(t, bgagent.Config{})
	h := dashboard.New(m, dashboard.Config{Title: "ours"})
	srv := httptest.NewUnstartedServer(h)
	srv.Config.RegisterOnShutdown(h.Close)
	srv.Start()
	resp, err := http.Get(srv.URL + "/events")
	require.NoError(t, err)
	defer resp.Body.Close()
	require.Equal(t, "text/event-stream", resp.Header.Get("Content-Type"))
	require.NoError(t, srv.Config.Shutdown(t.Context()), "streams do not block it")
	all, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(string(all), `event: hello`+"\n"+`data: {"title":"ours"`), string(all))
	require.Equal(t, http.StatusServiceUnavailable, get(h, "/events").Code)
}

func TestMisuseIsCalledMisuse(t *testing.T) {
	require.PanicsWithValue(t, "dashboard: New without a manager", func() { dashboard.New(nil, dashboard.Config{}) })
	require.Panics(t, func() { dashboard.New(newManager(t, bgagent.Config{}), dashboard.Config{Interval: -1}) })
}
