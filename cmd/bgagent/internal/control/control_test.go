package control

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/inproc"
	"github.com/stretchr/testify/require"
)

// The function "server" returns a server for a manager with one agent, and the folder with the
// server's file.
func server(t *testing.T) (dir string, s *Server, m *bgagent.BackgroundManager) {
	t.Helper()
	m, err := bgagent.New(inproc.New(map[string]inproc.Agent{
		"quick": func(_ context.Context, turn *inproc.Turn) (string, error) { return "done: " + turn.Prompt.Text, nil },
		"slow": func(ctx context.Context, _ *inproc.Turn) (string, error) {
			<-ctx.Done()
			return "", ctx.Err()
		},
	}), bgagent.Config{Wake: bgagent.WakeNever})
	require.NoError(t, err)
	t.Cleanup(func() { _ = m.Close(context.Background()) })
	dir = t.TempDir()
	s, err = Listen(dir, Host{
		Manager: m, Instance: "this", Info: Info{MCP: "http://x/mcp"},
		Log: func(_ context.Context, task string, from int64) (string, int64, error) {
			text := "log of " + task
			return text[from:], int64(len(text)), nil
		},
		Serve: (*http.Server).Serve,
	})
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close() })
	return dir, s, m
}

// If two machines share a state folder, a server can replace the file of a server on the other machine.
func TestCloseLeavesTheFileOfAnotherServer(t *testing.T) {
	dir, s, m := server(t)
	other, err := Listen(dir, Host{Manager: m, Instance: "other", Serve: (*http.Server).Serve})
	require.NoError(t, err)
	require.NoError(t, s.Close())
	require.FileExists(t, filepath.Join(dir, fileName))
	require.NoError(t, other.Close())
	require.NoFileExists(t, filepath.Join(dir, fileName))
}

func TestAnyServerThatDoesNotRunIsNone(t *testing.T) {
	dir, s, _ := server(t)
	c, err := DialAny(dir)
	require.NoError(t, err)
	_, err = c.Status(t.Context())
	require.NoError(t, err)
	path := filepath.Join(dir, fileName)
	left, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, s.Close())
	require.NoError(t, os.WriteFile(path, left, 0o600))
	c, err = DialAny(dir)
	require.NoError(t, err)
	_, err = c.Status(t.Context())
	require.ErrorIs(t, err, ErrNone)

	l, err := net.Listen("tcp", s.file.Address)
	require.NoError(t, err)
	stranger := &http.Server{Handler: http.NotFoundHandler()}
	go func() { _ = stranger.Serve(l) }()
	defer stranger.Close()
	_, err = c.Status(t.Context())
	require.ErrorIs(t, err, ErrNone)
}

func TestTheFileIsForTheUserAndForOneLifeOfTheServer(t *testing.T) {
	dir, s, _ := server(t)
	path := filepath.Join(dir, fileName)
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())

	c, err := Dial(dir, bgagent.StoreOwner{Instance: "this"})
	require.NoError(t, err)
	st, err := c.Status(t.Context())
	require.NoError(t, err)
	require.Equal(t, "http://x/mcp", st.MCP)

	_, err = Dial(dir, bgagent.StoreOwner{Instance: "another"})
	require.ErrorIs(t, err, ErrNone, "the file of a dead server")
	_, err = Dial(t.TempDir(), bgagent.StoreOwner{Instance: "this"})
	require.ErrorIs(t, err, ErrNone)

	require.NoError(t, s.Close())
	require.NoFileExists(t, path)
	_, err = c.Status(t.Context())
	require.Error(t, err)
	require.NotErrorIs(t, err, ErrNone)

	require.NoError(t, os.WriteFile(path, []byte("{"), 0o600))
	_, err = Dial(dir, bgagent.StoreOwner{Instance: "this"})
	require.ErrorContains(t, err, "reading the address for commands")
	require.NotErrorIs(t, err, ErrNone)
	require.NoError(t, (*Server)(nil).Close())
}

func TestTasksAreSeenAndControlled(t *testing.T) {
	dir, _, m := server(t)
	c, err := Dial(dir, bgagent.StoreOwner{Instance: "this"})
	require.NoError(t, err)
	slow, err := m.Launch(t.Context(), bgagent.Caller{Session: "s"}, bgagent.LaunchInput{Agent: "slow", Prompt: "secret", Metadata: map[string]string{"a": "b"}})
	require.NoError(t, err)
	quick, err := m.Run(t.Context(), bgagent.Caller{Session: "s"}, bgagent.LaunchInput{Agent: "quick", Prompt: "once"})
	require.NoError(t, err)

	st, err := c.Status(t.Context())
	require.NoError(t, err)
	require.Len(t, st.Tasks, 1)
	require.Equal(t, slow.ID, st.Tasks[0].ID)
	require.Empty(t, st.Tasks[0].Prompt)
	require.Empty(t, st.Tasks[0].Metadata)

	got, err := c.Task(t.Context(), TaskInput{ID: quick.ID})
	require.NoError(t, err)
	require.Equal(t, "done: once", got.Result)
	require.Equal(t, bgagent.Completed, got.Status)

	sent, err := c.Send(t.Context(), SendInput{ID: slow.ID, Key: "k", Text: "more"})
	require.NoError(t, err)
	require.Equal(t, bgagent.MessageAccepted, sent.State)
	require.Equal(t, "k", sent.Key)

	part, err := c.Log(t.Context(), LogInput{ID: slow.ID, From: 4})
	require.NoError(t, err)
	require.Equal(t, LogPart{Text: "of " + slow.ID, Next: int64(len("log of " + slow.ID))}, part)
	part, err = c.Log(t.Context(), LogInput{ID: quick.ID})
	require.NoError(t, err)
	require.True(t, part.Ended)

	_, err = c.Cancel(t.Context(), CancelInput{ID: slow.ID, Reason: "enough"})
	require.NoError(t, err)
	got, err = c.Task(t.Context(), TaskInput{ID: slow.ID})
	require.NoError(t, err)
	require.Equal(t, bgagent.Cancelled, got.Status)
	require.Equal(t, "enough", got.Reason)

	resumed, err := c.Resume(t.Context(), ResumeInput{ID: quick.ID})
	require.NoError(t, err)
	require.Equal(t, 2, resumed.Attempt)
	all, err := m.Wait(t.Context(), bgagent.Caller{}, bgagent.WaitAll, quick.ID)
	require.NoError(t, err)
	require.Equal(t, "done: once", all[0].Result)
	_, err = c.Resume(t.Context(), ResumeInput{ID: quick.ID, Prompt: "twice"})
	require.NoError(t, err)
	all, err = m.Wait(t.Context(), bgagent.Caller{}, bgagent.WaitAll, quick.ID)
	require.NoError(t, err)
	require.Equal(t, "done: twice", all[0].Result)
}

func TestErrorsSayWhetherTheRequestWasWrong(t *testing.T) {
	dir, _, m := server(t)
	c, err := Dial(dir, bgagent.StoreOwner{Instance: "this"})
	require.NoError(t, err)
	quick, err := m.Run(t.Context(), bgagent.Caller{Session: "s"}, bgagent.LaunchInput{Agent: "quick", Prompt: "once"})
	require.NoError(t, err)
	var e *Error
	_, err = c.Cancel(t.Context(), CancelInput{ID: "bg_0123456789abcdef"})
	require.ErrorAs(t, err, &e)
	require.True(t, e.Input, e.Text)
	_, err = c.Resume(t.Context(), ResumeInput{ID: "bg_0123456789abcdef"})
	require.ErrorAs(t, err, &e)
	require.True(t, e.Input, e.Text)
	slow, err := m.Launch(t.Context(), bgagent.Caller{Session: "s"}, bgagent.LaunchInput{Agent: "slow", Prompt: "x"})
	require.NoError(t, err)
	_, err = c.Send(t.Context(), SendInput{ID: slow.ID, Text: ""})
	require.ErrorAs(t, err, &e)
	require.True(t, e.Input, e.Text)
	_, err = c.Cancel(t.Context(), CancelInput{ID: quick.ID})
	require.ErrorAs(t, err, &e)
	require.False(t, e.Input)
	require.Equal(t, "cancel: task "+quick.ID+" is completed: the task has already ended", e.Text)
}

func TestRequestsWithoutTheTokenOrFromWebPagesAreRefused(t *testing.T) {
	_, s, m := server(t)
	task, err := m.Launch(t.Context(), bgagent.Caller{Session: "s"}, bgagent.LaunchInput{Agent: "slow", Prompt: "x"})
	require.NoError(t, err)
	ask := func(method, path, body string, change func(*http.Request)) (int, string) {
		r, err := http.NewRequestWithContext(t.Context(), method, "http://"+s.file.Address+path, strings.NewReader(body))
		require.NoError(t, err)
		r.Header.Set("Authorization", "Bearer "+s.file.Token)
		change(r)
		resp, err := http.DefaultClient.Do(r)
		require.NoError(t, err)
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		return resp.StatusCode, string(b)
	}
	body, err := json.Marshal(CancelInput{ID: task.ID})
	require.NoError(t, err)
	_, port, err := net.SplitHostPort(s.file.Address)
	require.NoError(t, err)
	for name, x := range map[string]struct {
		change func(*http.Request)
		want   int
	}{
		"without a token":    {func(r *http.Request) { r.Header.Del("Authorization") }, http.StatusUnauthorized},
		"with a wrong token": {func(r *http.Request) { r.Header.Set("Authorization", "Bearer x") }, http.StatusUnauthorized},
		"with an empty one":  {func(r *http.Request) { r.Header.Set("Authorization", "Bearer ") }, http.StatusUnauthorized},
		"a challenge":        {func(r *http.Request) { r.URL.Path = "/hello"; r.Header.Set("Origin", "http://x") }, http.StatusForbidden},
		"from a page":        {func(r *http.Request) { r.Header.Set("Origin", "http://"+s.file.Address) }, http.StatusForbidden},
		"for another name":   {func(r *http.Request) { r.Host = "evil.example.com:" + port }, http.StatusMisdirectedRequest},
	} {
		status, text := ask(http.MethodPost, "/cancel", string(body), x.change)
		require.Equal(t, x.want, status, "%s: %s", name, text)
	}
	unchanged := func(*http.Request) {}
	status, _ := ask(http.MethodGet, "/cancel", string(body), unchanged)
	require.Equal(t, http.StatusMethodNotAllowed, status)
	status, text := ask(http.MethodPost, "/cancel", `{"id": "`+task.ID+`", "force": true}`, unchanged)
	require.Equal(t, http.StatusBadRequest, status)
	require.Contains(t, text, "force")
	got, err := m.Get(task.ID)
	require.NoError(t, err)
	require.False(t, got.Status.Terminal(), "no refused request has cancelled the task")
	status, _ = ask(http.MethodPost, "/cancel", string(body), unchanged)
	require.Equal(t, http.StatusOK, status)
}

// The function "foreign" returns a client that assumes that the program at the address is its server.
func foreign(t *testing.T, at string) *Client {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, address{Address: at, Token: "the-secret-token", Instance: "this"}.write(dir))
	c, err := Dial(dir, bgagent.StoreOwner{Instance: "this"})
	require.NoError(t, err)
	return c
}

// In another network namespace, the server's address can belong to another program.
func TestAProgramWithoutTheTokenIsSentNothing(t *testing.T) {
	for name, answer := range map[string]func(http.ResponseWriter, *http.Request){
		"anything":        func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") },
		"an empty object": func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "{}") },
		"another proof": func(w http.ResponseWriter, _ *http.Request) {
			writeJSON(w, http.StatusOK, address{Token: "another", Instance: "this"}.prove(challenge{"x"}))
		},
		"an older proof": func(w http.ResponseWriter, _ *http.Request) {
			writeJSON(w, http.StatusOK, address{Token: "the-secret-token", Instance: "this"}.prove(challenge{"x"}))
		},
		"a refusal": func(w http.ResponseWriter, _ *http.Request) {
			writeError(w, http.StatusUnauthorized, &Error{Text: "the token is wrong"})
		},
	} {
		t.Run(name, func(t *testing.T) {
			var mu sync.Mutex
			var got strings.Builder
			ts := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				b, err := httputil.DumpRequest(r, true)
				mu.Lock()
				fmt.Fprintf(&got, "%s %v\n", b, err)
				mu.Unlock()
				answer(w, r)
			}))
			defer ts.Close()
			c := foreign(t, ts.Listener.Addr().String())
			_, err := c.Resume(t.Context(), ResumeInput{ID: "bg_1", Prompt: "the secret prompt"})
			require.ErrorContains(t, err, "is not this bgagent serve, so nothing was sent to it")
			require.NotErrorIs(t, err, ErrUnanswered)
			ts.Close()
			require.Contains(t, got.String(), "nonce")
			require.NotContains(t, got.String(), "secret")
			require.NotContains(t, got.String(), "Authorization")
			require.NotContains(t, got.String(), "bg_1")
		})
	}
	dir := t.TempDir()
	for _, at := range []string{"192.0.2.1:80", "localhost:80", "0.0.0.0:80", "", "127.0.0.1"} {
		require.NoError(t, address{Address: at, Token: "x", Instance: "this"}.write(dir))
		_, err := Dial(dir, bgagent.StoreOwner{Instance: "this"})
		require.ErrorContains(t, err, "is not on this machine", at)
	}
}

func TestAProgramThatIsSilentIsNotAwaited(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // nobody accepts the connection
	require.NoError(t, err)
	defer l.Close()
	c := foreign(t, l.Addr().String())
	c.hello = time.Millisecond
	_, err = c.Cancel(t.Context(), CancelInput{ID: "bg_1"})
	require.ErrorContains(t, err, "the server does not answer: it was silent for 1ms")
	require.NotErrorIs(t, err, ErrUnanswered)
}

func TestARequestWithoutAnAnswerIsToldApart(t *testing.T) {
	var c *Client
	ts := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/"+helloName {
			panic(http.ErrAbortHandler) // the connection ends
		}
		var question challenge
		if err := json.NewDecoder(r.Body).Decode(&question); err == nil {
			writeJSON(w, http.StatusOK, c.at.prove(question))
		}
	}))
	defer ts.Close()
	c = foreign(t, ts.Listener.Addr().String())
	_, err := c.Cancel(t.Context(), CancelInput{ID: "bg_1"})
	require.ErrorIs(t, err, ErrUnanswered)
}
