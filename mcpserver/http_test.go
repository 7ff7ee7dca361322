package mcpserver_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/stretchr/testify/require"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/mcpserver"
)

const (
	aliceToken = "a-token-of-alice-0123456789"
	bobToken   = "a-token-of-bob-0123456789ab"
)

func serve(t *testing.T, cfg mcpserver.HTTPConfig) (*bgagent.BackgroundManager, *httptest.Server) {
	t.Helper()
	m, s := newServer(t, mcpserver.Config{})
	h, err := s.Handler(cfg)
	require.NoError(t, err)
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return m, server
}

// bearer is a round tripper that sends a token with every request.
type bearer string

func (b bearer) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	if b != "" {
		r.Header.Set("Authorization", "Bearer "+string(b))
	}
	return http.DefaultTransport.RoundTrip(r)
}

func dial(t *testing.T, url, token string) (*mcp.ClientSession, error) {
	t.Helper()
	c := mcp.NewClient(&mcp.Implementation{Name: "client", Version: "1"}, nil)
	cs, err := c.Connect(t.Context(), &mcp.StreamableClientTransport{Endpoint: url, HTTPClient: &http.Client{Transport: bearer(token)}, MaxRetries: -1}, nil)
	if err == nil {
		t.Cleanup(func() { _ = cs.Close() })
	}
	return cs, err
}

func TestEachTokenIsAScopeOfItsOwn(t *testing.T) {
	m, server := serve(t, mcpserver.HTTPConfig{Tokens: map[string]string{aliceToken: "alice", bobToken: "bob"}})
	alice, err := dial(t, server.URL, aliceToken)
	require.NoError(t, err)
	bob, err := dial(t, server.URL, bobToken)
	require.NoError(t, err)
	id := delegate(t, alice, "1h")
	task, err := m.Get(id)
	require.NoError(t, err)
	require.Equal(t, "alice", task.Parent)
	r, _ := use(t, bob, "background_cancel", map[string]any{"task_id": id})
	require.True(t, r.IsError)

	for _, token := range []string{"", "wrong", aliceToken + "x"} {
		_, err = dial(t, server.URL, token)
		require.Error(t, err, "token %q", token)
		req, err := http.NewRequest(http.MethodPost, server.URL, strings.NewReader(`{}`))
		require.NoError(t, err)
		resp, err := bearer(token).RoundTrip(req)
		require.NoError(t, err)
		resp.Body.Close()
		require.Equal(t, http.StatusUnauthorized, resp.StatusCode)
		require.Contains(t, resp.Header.Get("WWW-Authenticate"), "Bearer")
	}
}

// call posts one message and returns the status and the body of the answer.
func call(t *testing.T, url, token, body string, header ...string) (int, string) {
	t.Helper()
	req, err := http.NewRequest(http.MethodPost, url, strings.NewReader(body))
	require.NoError(t, err)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json, text/event-stream")
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := bearer(token).RoundTrip(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	out, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp.StatusCode, string(out)
}

const initialize = `{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"c","version":"1"}}}`

// A protocol session can be used only with the token that opened it.
func TestAConnectionOfOneTokenIsOfNoUseWithAnother(t *testing.T) {
	_, server := serve(t, mcpserver.HTTPConfig{Tokens: map[string]string{aliceToken: "alice", bobToken: "bob"}})
	alice, err := dial(t, server.URL, aliceToken)
	require.NoError(t, err)
	require.NotNil(t, alice)
	req, err := http.NewRequest(http.MethodPost, server.URL, strings.NewReader(initialize))
	require.NoError(t, err)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json, text/event-stream")
	resp, err := bearer(aliceToken).RoundTrip(req)
	require.NoError(t, err)
	resp.Body.Close()
	session := resp.Header.Get("Mcp-Session-Id")
	require.NotEmpty(t, session)
	list := `{"jsonrpc":"2.0","id":2,"method":"tools/list"}`
	status, _ := call(t, server.URL, bobToken, list, "Mcp-Session-Id", session)
	require.Equal(t, http.StatusForbidden, status)
}

func TestOtherOriginsAndBrokenMessagesAreRefused(t *testing.T) {
	_, server := serve(t, mcpserver.HTTPConfig{Scope: "here", Origins: []string{"https://good.example"}})
	status, _ := call(t, server.URL, "", initialize, "Origin", "https://evil.example")
	require.Equal(t, http.StatusForbidden, status)
	status, _ = call(t, server.URL, "", initialize, "Origin", "https://good.example")
	require.Equal(t, http.StatusOK, status)
	for _, body := range []string{"", "{", "[]", `{"jsonrpc":"1.0"}`, `{"jsonrpc":"2.0","id":{},"method":"x"}`, strings.Repeat("[", 100_000)} {
		status, _ := call(t, server.URL, "", body)
		require.GreaterOrEqual(t, status, 400, "%.40q", body)
		require.Less(t, status, 500, "%.40q", body)
	}
	cs, err := dial(t, server.URL, "")
	require.NoError(t, err, "the server keeps serving")
	delegate(t, cs, "1h")
}

func TestHandlerNamesWhatIsWrong(t *testing.T) {
	_, s := newServer(t, mcpserver.Config{})
	for want, cfg := range map[string]mcpserver.HTTPConfig{
		"neither Tokens nor a Scope": {},
		"Tokens and a Scope":         {Tokens: map[string]string{aliceToken: "a"}, Scope: "b"},
		"at least 16":                {Tokens: map[string]string{"short": "a"}},
		"has a space":                {Tokens: map[string]string{aliceToken + " x": "a"}},
		"has no scope":               {Tokens: map[string]string{aliceToken: " "}},
		"Origins":                    {Scope: "x", Origins: []string{"not an origin"}},
	} {
		_, err := s.Handler(cfg)
		require.ErrorContains(t, err, want)
	}
}
