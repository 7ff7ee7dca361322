//go:build unix

package main

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/stretchr/testify/require"
)

// The function "client" connects to the program as an MCP client.
func client(t *testing.T, transport mcp.Transport) *mcp.ClientSession {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), atMost)
	defer cancel()
	cs, err := mcp.NewClient(&mcp.Implementation{Name: "test", Version: "1"}, nil).Connect(ctx, transport, nil)
	require.NoError(t, err)
	t.Cleanup(func() { _ = cs.Close() })
	return cs
}

// callTool calls a tool and returns the result's text.
func callTool(t *testing.T, cs *mcp.ClientSession, name string, args map[string]any) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), atMost)
	defer cancel()
	r, err := cs.CallTool(ctx, &mcp.CallToolParams{Name: name, Arguments: args})
	require.NoError(t, err)
	return r.Content[0].(*mcp.TextContent).Text
}

func TestMCPServesTheToolsAndLeavesNothing(t *testing.T) {
	p := withProgram(t, obedient)
	cmd := p.command("mcp")
	var problems strings.Builder
	cmd.Stderr = &problems
	cs := client(t, &mcp.CommandTransport{Command: cmd, TerminateDuration: atMost})
	text := callTool(t, cs, "delegate_task", map[string]any{"subagent_type": "wait", "prompt": "1 ms", "run_in_background": false})
	require.Contains(t, text, "I have waited for 1ms.")
	callTool(t, cs, "delegate_task", map[string]any{"subagent_type": "program", "prompt": "x"})
	p.awaitFile("ready")
	require.NoError(t, cs.Close(), "%s", &problems)
	p.requireGone(2)
}

func TestANoticeToACallerCarriesResultsWhereTheFileSaysSo(t *testing.T) {
	const result = "### Results"
	for bytes, want := range map[string]string{
		"0":   "",
		"500": "I have waited for 1ms.",
		"6":   "I have",
	} {
		p := newPlace(t)
		p.write(".bgagent.jsonc", `{"background_task": {"totalConcurrency": 1, "noticeResultBytes": `+bytes+`}, "agents": {"wait": {"kind": "inproc"}}}`)
		cs := client(t, &mcp.CommandTransport{Command: p.command("mcp"), TerminateDuration: atMost})
		callTool(t, cs, "delegate_task", map[string]any{"subagent_type": "wait", "prompt": "1 ms", "description": "the first"})
		// The second task waits for the first task's slot. Therefore, when the call for the second task
		// returns, the first task has ended.
		_, notice, told := strings.Cut(callTool(t, cs, "delegate_task", map[string]any{"subagent_type": "wait", "prompt": "2 ms", "run_in_background": false}), "Ended")
		require.True(t, told, "the caller is told how the first task ended")
		require.Equal(t, want != "", strings.Contains(notice, result), notice)
		require.Contains(t, notice, want)
		require.Equal(t, len(want) > 6, strings.Contains(notice, "waited for 1ms"), notice)
		require.NoError(t, cs.Close())
	}
}

func TestMCPInATaskThatMayNotDelegate(t *testing.T) {
	p := withProgram(t, obedient)
	p.env = append(p.env, "BGAGENT_DEPTH=1")
	cmd := p.command("mcp")
	cs := client(t, &mcp.CommandTransport{Command: cmd, TerminateDuration: atMost})
	list, err := cs.ListTools(t.Context(), nil)
	require.NoError(t, err)
	for _, tool := range list.Tools {
		require.NotEqual(t, "delegate_task", tool.Name)
	}
}

func TestMCPStartsNothingWithABrokenConfiguration(t *testing.T) {
	p := newPlace(t)
	p.write(".bgagent.jsonc", "{\n  \"agents\": { \"a\": { \"kind\": \"nonsense\" } }\n}")
	got := p.run("mcp")
	require.Equal(t, 2, got.code)
	require.Contains(t, got.stderr, ".bgagent.jsonc:2")
	require.Empty(t, got.out, "standard output belongs to the protocol")
}

// startServe starts bgagent serve and returns its address.
func startServe(t *testing.T, p *place, args ...string) (url string, cmd *exec.Cmd) {
	t.Helper()
	cmd = p.command(append([]string{"serve", "--addr", "127.0.0.1:0"}, args...)...)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		p.run("cleanup", "--yes") // otherwise, agents would write into the test's folder while it is being removed
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	return strings.TrimSpace(strings.TrimPrefix(line, "MCP: ")), cmd
}

type withToken string

func (w withToken) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+string(w))
	return http.DefaultTransport.RoundTrip(r)
}

func TestServeKeepsItsCallersApart(t *testing.T) {
	p := withProgram(t, obedient)
	const alice, bob = "alices-token-0123456789", "bobs-token-0123456789abc"
	p.env = append(p.env, "ALICE="+alice, "BOB="+bob)
	url, cmd := startServe(t, p, "--token", "alice=ALICE", "--token", "bob=BOB")
	dial := func(token string) *mcp.ClientSession {
		return client(t, &mcp.StreamableClientTransport{Endpoint: url, HTTPClient: &http.Client{Transport: withToken(token)}, DisableStandaloneSSE: true})
	}
	mine, theirs := dial(alice), dial(bob)
	text := callTool(t, mine, "delegate_task", map[string]any{"subagent_type": "program", "prompt": "x"})
	id := idIn.FindStringSubmatch(text)[1]
	require.Contains(t, callTool(t, mine, "background_output", nil), id)
	require.NotContains(t, callTool(t, theirs, "background_output", nil), id)
	resp, err := http.Post(url, "application/json", strings.NewReader("{}"))
	require.NoError(t, err)
	_, _ = io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	require.Equal(t, http.StatusUnauthorized, resp.StatusCode)
	p.awaitFile("ready")
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	_ = cmd.Wait()
	require.Equal(t, 0, cmd.ProcessState.ExitCode())
	p.requireGone(2)
}

func TestServeNamesWhatIsWrong(t *testing.T) {
	p := newPlace(t)
	p.write(".bgagent.jsonc", `{"agents": {"wait": {"kind": "inproc"}}}`)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	p.env = append(p.env, "SHORT=x", "SPACE=0123456789 abcdef", "LONG=0123456789abcdef", "SAME=0123456789abcdef")
	for want, args := range map[string][]string{
		"choose another port with --addr":      {"--addr", taken.Addr().String()},
		"is not HOST:PORT":                     {"--addr", "8321"},
		"can be reached from other machines":   {"--addr", "0.0.0.0:0"},
		"is not NAME=VARIABLE":                 {"--token", "alice"},
		"the environment variable NONE is not": {"--token", "alice=NONE"},
		`--token alice=SHORT: the token in SHORT has 1 bytes; it must have at least 16`: {"--token", "alice=SHORT"},
		`--token alice=SPACE: the token in SPACE contains a space`:                      {"--token", "alice=SPACE"},
		`--host "http://x" is not the name of a server`:                                 {"--token", "alice=LONG", "--host", "http://x"},
		`--host tasks.example.com: a proxy can be reached from other machines`:          {"--host", "tasks.example.com"},
		"have the same token":                                                 {"--token", "a=LONG", "--token", "b=SAME"},
		`--origin "not an origin" is not an origin such as`:                   {"--origin", "not an origin"},
		"the environment variable NONE is not set; it must hold the password": {"--page", "NONE"},
		"the password in SHORT has 1 bytes; it must have at least 16":         {"--page", "SHORT"},
		"the page needs a password":                                           {"--token", "a=LONG", "--page-acts"},
	} {
		got := p.run(append([]string{"serve"}, args...)...)
		require.Equal(t, 2, got.code, want)
		require.Contains(t, got.stderr, want)
		require.NotContains(t, got.stderr, "Config")
	}
}

// A reverse proxy can pass on the Host header. A web page whose domain name resolves to this machine must not
// read anything.
func TestServeIsKnownByTheNamesOfItsProxy(t *testing.T) {
	p := newPlace(t)
	p.write(".bgagent.jsonc", `{"agents": {"wait": {"kind": "inproc"}}}`)
	p.env = append(p.env, "ALICE=alices-token-0123456789", "PASSWORD=a-long-password-0123")
	url, _ := startServe(t, p, "--token", "alice=ALICE", "--page", "PASSWORD", "--host", "tasks.example.com")
	ask := func(method, path, host string) (int, string) {
		r, err := http.NewRequestWithContext(t.Context(), method, strings.TrimSuffix(url, "/mcp")+path, strings.NewReader(`{"jsonrpc":"2.0","id":1,"method":"ping"}`))
		require.NoError(t, err)
		r.Host = host
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Accept", "application/json, text/event-stream")
		if path == "/mcp" {
			r.Header.Set("Authorization", "Bearer alices-token-0123456789")
		} else {
			r.SetBasicAuth("x", "a-long-password-0123")
		}
		resp, err := http.DefaultClient.Do(r)
		require.NoError(t, err)
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		return resp.StatusCode, string(b)
	}
	for host, known := range map[string]bool{"tasks.example.com": true, "TASKS.example.com:443": true, "localhost:1": true, "[::1]": true, "127.0.0.1": true, "evil.example.com": false, "": true} {
		page, text := ask(http.MethodGet, "/", host)
		tools, answer := ask(http.MethodPost, "/mcp", host)
		if known {
			require.Equal(t, http.StatusOK, page, "%s: %s", host, text)
			require.NotEqual(t, http.StatusForbidden, tools, "%s: %s", host, answer)
			require.NotEqual(t, http.StatusMisdirectedRequest, tools, host)
			continue
		}
		for status, text := range map[int]string{page: text, tools: answer} {
			require.Equal(t, http.StatusMisdirectedRequest, status)
			require.Equal(t, "this server is not known as \"evil.example.com\"; if a reverse proxy asks for it by that name, start it with --host evil.example.com\n", text)
		}
	}
}

func get(t *testing.T, url, password string) (status int, body string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	require.NoError(t, err)
	if password != "" {
		r.SetBasicAuth("anybody", password)
	}
	resp, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp.StatusCode, string(b)
}

func TestServeShowsThePage(t *testing.T) {
	const password = "a-long-password-0123"
	for name, x := range map[string]struct {
		args           []string
		without, right int
	}{
		"to everybody on this machine": {nil, 200, 200},
		"to nobody with tokens":        {[]string{"--token", "alice=ALICE"}, 404, 404},
		"with the password":            {[]string{"--token", "alice=ALICE", "--page", "PASSWORD"}, 401, 200},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlace(t)
			p.write(".bgagent.jsonc", `{"agents": {"wait": {"kind": "inproc"}}}`)
			p.env = append(p.env, "ALICE=alices-token-0123456789", "PASSWORD="+password)
			url, cmd := startServe(t, p, x.args...)
			url = strings.TrimSuffix(url, "mcp")
			status, _ := get(t, url, "")
			require.Equal(t, x.without, status)
			status, _ = get(t, url, "a-wrong-password-0123")
			require.Equal(t, x.without, status)
			status, body := get(t, url, password)
			require.Equal(t, x.right, status)
			if x.right != 200 {
				return
			}
			require.Contains(t, body, "<title>Background tasks</title>")
			// A page that is open in a browser does not delay the server's shutdown.
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"events", nil)
			require.NoError(t, err)
			r.SetBasicAuth("anybody", password)
			resp, err := http.DefaultClient.Do(r)
			require.NoError(t, err)
			defer resp.Body.Close()
			require.Equal(t, 200, resp.StatusCode)
			require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
			_ = cmd.Wait()
			require.Equal(t, 0, cmd.ProcessState.ExitCode())
		})
	}
}

// A caller that disconnects in the middle of an answer breaks only its own connection.
func TestServeContinuesWhenACallerGoesAway(t *testing.T) {
	p := newPlace(t)
	p.write(".bgagent.jsonc", `{"agents": {"wait": {"kind": "inproc"}}}`)
	url, _ := startServe(t, p)
	address := strings.TrimSuffix(strings.TrimPrefix(url, "http://"), "/mcp")
	for range 20 {
		c, err := net.Dial("tcp", address)
		require.NoError(t, err)
		body := `{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"c","version":"1"}}}`
		_, err = io.WriteString(c, strings.Repeat("POST /mcp HTTP/1.1\r\nHost: "+address+"\r\nContent-Type: application/json\r\nAccept: application/json, text/event-stream\r\nContent-Length: "+strconv.Itoa(len(body))+"\r\n\r\n"+body, 50))
		require.NoError(t, err)
		require.NoError(t, c.(*net.TCPConn).SetLinger(0))
		require.NoError(t, c.Close())
	}
	cs := client(t, &mcp.StreamableClientTransport{Endpoint: url, DisableStandaloneSSE: true})
	require.Contains(t, callTool(t, cs, "delegate_task", map[string]any{"subagent_type": "wait", "prompt": "1 ms", "run_in_background": false}), "I have waited")
}

func TestTokensCanComeFromFilesAndLeaveTheEnvironment(t *testing.T) {
	p := withAgent(t, "cat >/dev/null; echo \"token: $ALICE page: $PAGE\"\n")
	p.write(".bgagent.jsonc", `{"agents": {"a": {"kind": "command", "preset": "generic", "command": ["`+p.project+`/agent.sh"], "env": ["*"]}}}`)
	const alice, bob = "alices-token-0123456789", "bobs-token-0123456789abc"
	p.env = append(p.env, "ALICE="+alice, "PAGE=the-pages-password-123")
	file := p.write("bob.token", bob+"\n")
	url, _ := startServe(t, p, "--token", "alice=ALICE", "--token", "bob=@"+file, "--page", "PAGE")
	cs := client(t, &mcp.StreamableClientTransport{Endpoint: url, HTTPClient: &http.Client{Transport: withToken(bob)}, DisableStandaloneSSE: true})
	text := callTool(t, cs, "delegate_task", map[string]any{"subagent_type": "a", "prompt": "x", "run_in_background": false})
	require.Contains(t, text, "token:  page:")
	require.NotContains(t, text, alice)

	for from, want := range map[string]string{"@none": "reading the token: open none: no such file", "@" + p.write("short", "x\n"): "has 1 bytes; it must have at least 16"} {
		got := p.run("serve", "--token", "carol="+from)
		require.Equal(t, 2, got.code)
		require.Contains(t, got.stderr, want)
	}
}

func TestConnectionsLeaveFilesForAgents(t *testing.T) {
	p := withAgent(t, "cat >/dev/null; echo fine\n")
	cmd := p.command("serve", "--addr", "127.0.0.1:0")
	cmd.Args = append([]string{"sh", "-c", `ulimit -n 128; exec "$0" "$@"`}, cmd.Args...)
	cmd.Args[3] = binary
	cmd.Path = "/bin/sh"
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		p.run("cleanup", "--yes") // otherwise, agents would write into the test's folder while it is being removed
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	url := strings.TrimSpace(strings.TrimPrefix(line, "MCP: "))
	addr := strings.TrimSuffix(strings.TrimPrefix(url, "http://"), "/mcp")
	for range 300 {
		c, err := net.Dial("tcp", addr)
		require.NoError(t, err)
		defer c.Close()
	}
	cs := client(t, &mcp.StreamableClientTransport{Endpoint: url, DisableStandaloneSSE: true})
	for range 3 {
		text := callTool(t, cs, "delegate_task", map[string]any{"subagent_type": "a", "prompt": "x", "run_in_background": false})
		require.Contains(t, text, "fine")
	}
}
