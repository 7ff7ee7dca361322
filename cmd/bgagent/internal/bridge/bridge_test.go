package bridge

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/stretchr/testify/require"
)

// The function "served" returns the address of a server that answers each line with the scope's name and that
// line. When the input ends, the server writes a last line that says so.
func served(t *testing.T, cfg Config) (Address, *Server) {
	t.Helper()
	cfg.Serve = func(_ context.Context, scope string, in io.ReadCloser, out io.Writer) error {
		lines := bufio.NewScanner(in)
		for lines.Scan() {
			if _, err := io.WriteString(out, scope+": "+lines.Text()+"\n"); err != nil {
				return err
			}
		}
		_, err := io.WriteString(out, "the end\n")
		return err
	}
	s := NewServer(cfg)
	mux := http.NewServeMux()
	mux.Handle("/some/"+Path, s)
	ts := httptest.NewServer(mux)
	t.Cleanup(ts.Close)
	at, err := ParseAddress(ts.URL + "/some/mcp")
	require.NoError(t, err)
	return at, s
}

func rootOf(t *testing.T) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	require.NoError(t, err)
	return dir
}

// The function "said" sends a line, and returns the answer to it.
func said(t *testing.T, c *Conn, line string) string {
	t.Helper()
	_, err := io.WriteString(c, line+"\n")
	require.NoError(t, err)
	answer, err := c.in.ReadString('\n')
	require.NoError(t, err)
	return answer
}

func TestOpenBridgesHaveAScopeEachAndTheLowestNumberIsTakenAgain(t *testing.T) {
	root := rootOf(t)
	at, s := served(t, Config{Scope: "local", Roots: []string{root}})
	h := Hello{Key: KeyOf("me", root, "Claude Code"), Directory: root}
	require.Regexp(t, `^[a-z0-9]+-claudecode-[0-9a-f]{16}$`, h.Key)
	open := func() *Conn {
		c, err := at.Connect(t.Context(), "", h)
		require.NoError(t, err)
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	first, second := open(), open()
	require.Equal(t, "local/"+h.Key+"-1: hello\n", said(t, first, "hello"))
	require.Equal(t, "local/"+h.Key+"-2: hello\n", said(t, second, "hello"))
	require.NoError(t, first.CloseWrite())
	rest, err := io.ReadAll(first)
	require.NoError(t, err)
	require.Equal(t, "the end\n", string(rest), "what the server says after the end of the input arrives")
	require.Equal(t, "local/"+h.Key+"-1: again\n", said(t, open(), "again"), "the connection ends after the scope is free")

	in, err := s.Prepare(t.Context(), bgagent.Caller{Session: "local/" + h.Key + "-1"}, bgagent.LaunchInput{Agent: "a"})
	require.NoError(t, err)
	require.Equal(t, root, in.Directory)
	in, err = s.Prepare(t.Context(), bgagent.Caller{Session: "local"}, bgagent.LaunchInput{Agent: "a"})
	require.NoError(t, err)
	require.Empty(t, in.Directory, "a caller that is no bridge")
}

// After a bridge has ended its input, a call that waits for a task must not keep the bridge's scope. The
// bridge still gets the answers that the server is about to send.
func TestTheContextOfABridgeEndsSomeTimeAfterItsInput(t *testing.T) {
	root := rootOf(t)
	for _, x := range []struct {
		answers time.Duration
		serve   func(ctx context.Context) string // after the end of the input
		want    string
	}{
		{time.Hour, func(ctx context.Context) string { return fmt.Sprint(ctx.Err()) }, "<nil>"},
		{time.Millisecond, func(ctx context.Context) string { <-ctx.Done(); return ctx.Err().Error() }, "context canceled"},
	} {
		s := NewServer(Config{Scope: "local", Roots: []string{root}, Serve: func(ctx context.Context, _ string, in io.ReadCloser, out io.Writer) error {
			_, _ = io.Copy(io.Discard, in)
			_, err := io.WriteString(out, x.serve(ctx))
			return err
		}})
		s.answers = x.answers
		ts := httptest.NewServer(s)
		defer ts.Close()
		at, err := ParseAddress(ts.URL)
		require.NoError(t, err)
		c, err := at.Connect(t.Context(), "", Hello{Key: KeyOf("me", root, "x"), Directory: root})
		require.NoError(t, err)
		defer c.Close()
		_, err = io.WriteString(c, "a line\n")
		require.NoError(t, err)
		require.NoError(t, c.CloseWrite())
		rest, err := io.ReadAll(c)
		require.NoError(t, err)
		require.Equal(t, x.want, string(rest))
	}
}

func TestKeysDifferByUserProjectAndProgram(t *testing.T) {
	all := map[string]bool{KeyOf("a", "/p", "x"): true, KeyOf("b", "/p", "x"): true, KeyOf("a", "/q/p", "x"): true, KeyOf("a", "/p", "y"): true}
	require.Len(t, all, 4)
	require.Equal(t, KeyOf("a", "/p", "x"), KeyOf("a", "/p", "x"))
	require.True(t, keyed.MatchString(KeyOf("a", "/", "…")))
}

func TestWhatAServerRefuses(t *testing.T) {
	root := rootOf(t)
	good := Hello{Key: KeyOf("me", root, "x"), Directory: root}
	at, _ := served(t, Config{Tokens: map[string]string{"the-token": "alice"}, Roots: []string{root}})
	hello, err := good.encode()
	require.NoError(t, err)
	ask := func(change func(http.Header)) (int, string) {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, at.url.String(), nil)
		require.NoError(t, err)
		for name, value := range map[string]string{"Connection": "Upgrade", "Upgrade": protocol, helloHeader: hello, "Authorization": "Bearer the-token"} {
			r.Header.Set(name, value)
		}
		change(r.Header)
		resp, err := http.DefaultTransport.RoundTrip(r)
		require.NoError(t, err)
		defer resp.Body.Close()
		if resp.StatusCode == http.StatusSwitchingProtocols {
			return resp.StatusCode, ""
		}
		b, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		return resp.StatusCode, string(b)
	}
	status, _ := ask(func(http.Header) {})
	require.Equal(t, http.StatusSwitchingProtocols, status)
	for name, x := range map[string]struct {
		change func(http.Header)
		status int
		text   string
	}{
		"a web page":      {func(h http.Header) { h.Set("Origin", "http://127.0.0.1") }, 403, "web pages"},
		"no token":        {func(h http.Header) { h.Del("Authorization") }, 401, "wants a token"},
		"another scheme":  {func(h http.Header) { h.Set("Authorization", "Basic the-token") }, 401, "wants a token"},
		"a wrong token":   {func(h http.Header) { h.Set("Authorization", "Bearer x") }, 401, "does not know the token"},
		"another upgrade": {func(h http.Header) { h.Set("Upgrade", "websocket") }, 426, "bgagent mcp --via"},
		"no hello":        {func(h http.Header) { h.Del(helloHeader) }, 400, "cannot be read"},
		"no base64":       {func(h http.Header) { h.Set(helloHeader, "{}") }, 400, "cannot be read"},
	} {
		status, text := ask(x.change)
		require.Equal(t, x.status, status, name)
		require.Contains(t, text, x.text, name)
	}
	refused := func(h Hello, status int, want string) {
		t.Helper()
		_, err := at.Connect(t.Context(), "the-token", h)
		var e *RefusedError
		require.ErrorAs(t, err, &e)
		require.Equal(t, status, e.Status)
		require.Contains(t, e.Error(), want)
	}
	refused(Hello{Key: "x/y", Directory: root}, 400, "not the key of a bridge")
	refused(Hello{Key: good.Key, Directory: "here"}, 400, "is not absolute")
	refused(Hello{Key: good.Key, Directory: root + "x"}, 403, "is not below")
	refused(Hello{Key: good.Key, Directory: filepath.Join(root, "none")}, 403, "is not below")
	require.NoError(t, os.Symlink("/", filepath.Join(root, "out")))
	refused(Hello{Key: good.Key, Directory: filepath.Join(root, "out")}, 403, "is not below")

	rootless, _ := served(t, Config{Scope: "local"})
	_, err = rootless.Connect(t.Context(), "", good)
	require.ErrorContains(t, err, "start it with --root DIR")
	elsewhere, err := ParseAddress(strings.TrimSuffix(at.url.String(), "/some/"+Path))
	require.NoError(t, err)
	_, err = elsewhere.Connect(t.Context(), "the-token", good)
	require.ErrorContains(t, err, "it accepts no bridges (status 404); it is not a bgagent serve, or an older version")
	good.Narrow.Without = []string{strings.Repeat("x", maxHello)}
	_, err = at.Connect(t.Context(), "the-token", good)
	require.ErrorContains(t, err, "do not fit into")
}

func TestAnOpenBridgeCountsAndTooManyAreRefused(t *testing.T) {
	s := NewServer(Config{Scope: "local"})
	for range maxOpen {
		_, err := s.take("local", "/", Hello{Key: "k"})
		require.NoError(t, err)
	}
	_, err := s.take("local", "/", Hello{Key: "k"})
	require.ErrorContains(t, err, "100 bridges of this project and program are open")
	s.leave("local/k-7")
	name, err := s.take("local", "/", Hello{Key: "k"})
	require.NoError(t, err)
	require.Equal(t, "local/k-7", name)
}

func TestRestrictionsOnlyTakeAway(t *testing.T) {
	deny := []bgagent.Permission{{Name: "edit", Action: bgagent.PermissionDeny}}
	s := NewServer(Config{Scope: "local", Agents: map[string]Agent{"free": {}, "careful": {Permissions: deny}, "placed": {Directory: "/there"}}})
	prepare := func(n Narrow, agent string, in bgagent.LaunchInput) (bgagent.LaunchInput, error) {
		name, err := s.take("local", "/here", Hello{Key: "k", Narrow: n})
		require.NoError(t, err)
		defer s.leave(name)
		in.Agent = agent
		return s.Prepare(t.Context(), bgagent.Caller{Session: name}, in)
	}
	for _, x := range []struct {
		n     Narrow
		agent string
		want  string // part of the error; empty if no error is expected
	}{
		{Narrow{}, "free", ""},
		{Narrow{NoAgents: true}, "free", "removes the agent free"},
		{Narrow{Without: []string{"free"}}, "free", "removes the agent free"},
		{Narrow{Without: []string{"free"}}, "careful", ""},
		{Narrow{Rules: map[string][]bgagent.Permission{"free": deny}}, "free", "permissions that the server does not have"},
		{Narrow{Rules: map[string][]bgagent.Permission{"careful": deny}}, "careful", ""},
		{Narrow{Rules: map[string][]bgagent.Permission{"none": deny}}, "none", ""}, // the manager does not know such an agent
	} {
		_, err := prepare(x.n, x.agent, bgagent.LaunchInput{})
		if x.want == "" {
			require.NoError(t, err)
			continue
		}
		var input *bgagent.InputError
		require.ErrorAs(t, err, &input)
		require.Contains(t, input.Problem, x.want)
	}
	in, err := prepare(Narrow{TaskBudget: bgagent.Budget{Cost: 5, ToolCalls: 3, InputTokens: 7}}, "placed", bgagent.LaunchInput{Budget: bgagent.Budget{Cost: 2, ToolCalls: 9, OutputTokens: 4}})
	require.NoError(t, err)
	require.Equal(t, bgagent.Budget{Cost: 2, ToolCalls: 3, InputTokens: 7, OutputTokens: 4}, in.Budget)
	require.Empty(t, in.Directory, "the agent has its own directory")
}

func TestRestrictionsHoldForTasksThatWereLaunchedBefore(t *testing.T) {
	deny := []bgagent.Permission{{Name: "edit", Action: bgagent.PermissionDeny}}
	s := NewServer(Config{Scope: "local", Agents: map[string]Agent{"free": {}}})
	task := bgagent.Task{ID: "bg_1", Agent: "free", Budget: bgagent.BudgetUse{Limit: bgagent.Budget{Cost: 2}}}
	account := func(root string, cost float64) bgagent.TreeBudget {
		return bgagent.TreeBudget{Root: root, BudgetUse: bgagent.BudgetUse{Limit: bgagent.Budget{Cost: cost}}}
	}
	for _, x := range []struct {
		n    Narrow
		open []bgagent.TreeBudget
		want string // part of the reason; empty if none is expected
	}{
		{Narrow{}, nil, ""},
		{Narrow{NoAgents: true}, nil, "removes the agent free"},
		{Narrow{Without: []string{"free"}}, nil, "removes the agent free"},
		{Narrow{Without: []string{"other"}}, nil, ""},
		{Narrow{Rules: map[string][]bgagent.Permission{"free": deny}}, nil, "permissions that the server does not have"},
		{Narrow{TaskBudget: bgagent.Budget{Cost: 2}}, nil, ""},
		{Narrow{TaskBudget: bgagent.Budget{Cost: 1}}, nil, "a smaller budget for each task than task bg_1 has"},
		{Narrow{TaskBudget: bgagent.Budget{ToolCalls: 9}}, nil, "a smaller budget for each task than task bg_1 has"},
		{Narrow{TreeBudget: bgagent.Budget{Cost: 5}}, nil, "only a new task opens this budget"},
		{Narrow{TreeBudget: bgagent.Budget{Cost: 5}}, []bgagent.TreeBudget{account("local/k-1", 6)}, "only a new task opens this budget"},
		{Narrow{TreeBudget: bgagent.Budget{Cost: 5}}, []bgagent.TreeBudget{account("local/k-2", 5)}, "only a new task opens this budget"},
		{Narrow{TreeBudget: bgagent.Budget{Cost: 5}}, []bgagent.TreeBudget{account("local/k-1", 5), account("x", 9)}, ""},
	} {
		name, err := s.take("local", "/here", Hello{Key: "k", Narrow: x.n})
		require.NoError(t, err)
		require.Equal(t, "local/k-1", name)
		got := s.Resumes(t.Context(), name, task, x.open)
		s.leave(name)
		if x.want == "" {
			require.Empty(t, got)
			continue
		}
		require.Contains(t, got, x.want)
	}
	require.Empty(t, s.Resumes(t.Context(), "local", task, nil), "a caller that is no bridge")
}

func TestAddresses(t *testing.T) {
	for text, want := range map[string]string{
		"http://127.0.0.1:8321":          "http://127.0.0.1:8321/bridge 127.0.0.1:8321",
		"http://127.0.0.1:8321/mcp":      "http://127.0.0.1:8321/bridge 127.0.0.1:8321",
		"http://[::1]:8321/mcp/":         "http://[::1]:8321/bridge [::1]:8321",
		"https://tasks.example.com/a/b/": "https://tasks.example.com/a/b/bridge tasks.example.com:443",
	} {
		at, err := ParseAddress(text)
		require.NoError(t, err)
		require.Equal(t, want, at.url.String()+" "+at.host)
	}
	for _, text := range []string{"", "8321", "127.0.0.1:8321", "ftp://x", "http://", "http://u:p@x", "http://x?y", "http://x#y", "http://x:y"} {
		_, err := ParseAddress(text)
		require.ErrorContains(t, err, "is not the address of a bgagent serve", text)
	}
}

func TestAConnectThatIsStoppedReturnsAtOnce(t *testing.T) {
	silent := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	defer silent.Close()
	at, err := ParseAddress(silent.URL)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	require.NoError(t, at.Reach(ctx))
	go cancel()
	_, err = at.Connect(ctx, "", Hello{Key: "k", Directory: "/"})
	require.Error(t, err)
	require.ErrorIs(t, context.Cause(ctx), context.Canceled)
}

func FuzzHello(f *testing.F) {
	text, err := Hello{Key: KeyOf("a", "/p", "x"), Directory: "/p", Narrow: Narrow{Without: []string{"a"}}}.encode()
	require.NoError(f, err)
	f.Add(text)
	f.Add("e30")
	f.Fuzz(func(t *testing.T, text string) {
		h, err := decode(text)
		if err != nil {
			return
		}
		require.Regexp(t, keyed, h.Key)
		require.True(t, filepath.IsAbs(h.Directory))
		again, err := h.encode()
		require.NoError(t, err)
		same, err := decode(again)
		require.NoError(t, err)
		require.Equal(t, h.Key+h.Directory, same.Key+same.Directory)
	})
}
