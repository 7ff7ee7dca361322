//go:build unix

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/stretchr/testify/require"
)

// withServed returns a place with the folders "one" and "two", and with a serve whose bridges are
// allowed to work in the project. Its agent "patient" answers once the file "go" exists in the
// project.
func withServed(t *testing.T, args ...string) (p *place, url string, serve *exec.Cmd) {
	p = newPlace(t)
	p.write("one/x", "")
	p.write("two/x", "")
	p.write("served/patient.sh", "#!/bin/sh\nprompt=$(cat)\necho \"$prompt\" >>"+p.project+"/asked\nwhile [ ! -e "+p.project+"/go ]; do sleep 0.05; done\necho \"$prompt in $(pwd)\"\n")
	p.write("served/.bgagent.jsonc", `{"background_task": {"totalConcurrency": 1}, "agents": {
		"patient": {"kind": "command", "preset": "generic", "command": ["./patient.sh"]},
		"other": {"kind": "inproc", "agent": "wait"},
	}}`)
	url, serve = startServe(t, p, append([]string{"-c", "served/.bgagent.jsonc", "--root", "."}, args...)...)
	return p, url, serve
}

// The method "via" returns a command that runs a bridge in a folder of the project.
func (p *place) via(url, dir string, args ...string) *exec.Cmd {
	cmd := p.command(append([]string{"mcp", "--via", url}, args...)...)
	cmd.Dir = filepath.Join(p.project, dir)
	return cmd
}

// The function "host" connects to a bridge as the host program with the given name.
func host(t *testing.T, cmd *exec.Cmd, name string) *mcp.ClientSession {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cs, err := mcp.NewClient(&mcp.Implementation{Name: name, Version: "1"}, nil).Connect(ctx, &mcp.CommandTransport{Command: cmd}, nil)
	require.NoError(t, err)
	t.Cleanup(func() { _ = cs.Close() })
	return cs
}

func TestABridgeFindsItsTasksAgainAndSharesThemWithNobody(t *testing.T) {
	t.Parallel()
	p, url, _ := withServed(t)
	first := host(t, p.via(url, "one"), "alpha")
	id := delegate(t, first, "one")
	p.awaitFile("asked")
	list := func(cs *mcp.ClientSession) string { return callTool(t, cs, "background_output", nil) }
	require.Contains(t, list(first), id)

	second := host(t, p.via(url, "one"), "alpha") // the same project and program, at the same time
	require.NotContains(t, list(second), id)
	require.NotContains(t, list(host(t, p.via(url, "two"), "alpha")), id)
	require.NotContains(t, list(host(t, p.via(url, "one"), "beta")), id)

	// The limit applies to all bridges together.
	waits := delegate(t, second, "two")
	require.Contains(t, p.does("status"), "1 running, 1 queued")

	require.NoError(t, first.Close())
	require.Contains(t, p.does("status"), "1 running, 1 queued", "the tasks outlive the host program")
	again := host(t, p.via(strings.TrimSuffix(url, "/mcp"), "one"), "alpha")
	require.Contains(t, list(again), id)
	require.NotContains(t, list(again), waits)
	p.write("go", "")
	text := callTool(t, again, "background_output", map[string]any{"task_id": id, "block": true})
	require.Contains(t, text, "one in "+filepath.Join(p.project, "one"), "the task works in the directory of its bridge")
}

func TestATaskOfABridgeOutlivesTheServe(t *testing.T) {
	t.Parallel()
	p, url, serve := withServed(t)
	cmd := p.via(url, "one")
	var problems strings.Builder
	cmd.Stderr = &problems
	cs := host(t, cmd, "alpha")
	id := delegate(t, cs, "one")
	p.awaitFile("asked")
	require.NoError(t, serve.Process.Kill())
	_ = serve.Wait()
	_ = cs.Wait() // the bridge has closed its output
	_ = cs.Close()
	require.Equal(t, 2, cmd.ProcessState.ExitCode())
	require.Equal(t, "bgagent: there is no bgagent serve at "+url+" (it has ended the connection); start it, and start this program again\n", problems.String())

	p.write("go", "")
	url, _ = startServe(t, p, "-c", "served/.bgagent.jsonc", "--root", ".")
	cs = host(t, p.via(url, "one"), "alpha")
	require.Contains(t, callTool(t, cs, "background_output", map[string]any{"task_id": id, "block": true}), id)
}

func TestABridgeWithoutAServerSaysSoAndRunsNothing(t *testing.T) {
	t.Parallel()
	p, url, serve := withServed(t)
	require.NoError(t, serve.Process.Signal(syscall.SIGTERM))
	_ = serve.Wait()
	got := p.run("mcp", "--via", url)
	require.Equal(t, 2, got.code)
	require.Regexp(t, `^bgagent: there is no bgagent serve at `+url+` \(.*connection refused\); start it, and start this program again\n$`, got.stderr)
	require.Empty(t, got.out)
	for want, args := range map[string][]string{
		`--via "8321" is not the address of a bgagent serve, such as http://127.0.0.1:8321`: {"--via", "8321"},
		"--via runs no tasks here, so --log, --verbose and --accept-copy have no effect":    {"--via", url, "-v"},
		"--token-file is the token for a server; name the server with --via URL":            {"--token-file", "x"},
		"x: no such file or directory":                                     {"--via", url, "--token-file", "x"},
		"other users can access the file (its mode is 0755); chmod 600 it": {"--via", url, "--token-file", p.write("open", "0123456789abcdef")},
	} {
		require.Contains(t, p.refuses(2, append([]string{"mcp"}, args...)...), want)
	}
	p.env = append(p.env, "BGAGENT_DEPTH=1")
	require.Contains(t, p.refuses(2, "mcp", "--via", url), "is inside a turn of a task that is not known")
}

const hello = `{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"alpha","version":"1"}}}` + "\n"

// The method "bridged" runs a bridge whose input is only the first message of a host program. It returns the
// outcome.
func (p *place) bridged(url, dir string, args ...string) outcome {
	p.t.Helper()
	cmd := p.via(url, dir, args...)
	var out, problems strings.Builder
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(hello), &out, &problems
	_ = cmd.Run()
	return outcome{cmd.ProcessState.ExitCode(), out.String(), problems.String()}
}

func TestABridgeNeedsTheTokenAndADirectoryBelowARoot(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.write("allowed/x", "")
	p.write("allowed-too/x", "")
	require.NoError(t, os.Symlink("..", filepath.Join(p.project, "allowed", "out")))
	p.write(".bgagent.jsonc", `{"agents": {"wait": {"kind": "inproc"}}}`)
	p.env = append(p.env, "ALICE=alices-token-0123456789")
	url, _ := startServe(t, p, "--token", "alice=ALICE", "--root", "allowed")
	file, wrong := p.write("token", "alices-token-0123456789\n"), p.write("wrong", "another-token-0123456789")
	require.NoError(t, os.Chmod(file, 0o600))
	require.NoError(t, os.Chmod(wrong, 0o600))
	use := "bgagent: the bgagent serve at " + url + " cannot be used: it refuses this bridge: "
	got := p.bridged(url, "allowed")
	require.Equal(t, outcome{2, "", use + "the server wants a token; name its file with --token-file FILE\n"}, got)
	got = p.bridged(url, "allowed", "--token-file", wrong)
	require.Equal(t, outcome{2, "", use + "the server does not know the token\n"}, got)
	for dir, real := range map[string]string{".": ".", "allowed-too": "allowed-too", "allowed/out": "."} {
		got = p.bridged(url, dir, "--token-file", file)
		require.Equal(t, 2, got.code)
		require.Contains(t, got.stderr, use+"the directory "+filepath.Join(p.project, real)+" is not below a --root of the server: "+filepath.Join(p.project, "allowed")+"\n")
	}
	cs := host(t, p.via(url, "allowed", "--token-file", file), "alpha")
	require.Contains(t, callTool(t, cs, "delegate_task", map[string]any{"subagent_type": "wait", "prompt": "1 ms", "run_in_background": false}), "I have waited")
	var owner string
	for _, task := range p.keptTasks() {
		owner = task.Root
	}
	require.Regexp(t, `^alice/allowed-alpha-[0-9a-f]{16}-1$`, owner)

	rootless, _ := startServe(t, p, "--state", "rootless")
	got = p.bridged(rootless, "allowed")
	require.Equal(t, 2, got.code)
	require.Contains(t, got.stderr, "the server accepts no bridges; start it with --root DIR")
	require.Contains(t, p.refuses(2, "serve", "--root", "none"), "no such file or directory; name a directory that exists")
	p.env = append(p.env, "BOB=bobs-token-0123456789abc")
	require.Contains(t, p.refuses(2, "serve", "--token", "a=ALICE", "--token", "a/b=BOB"), "the names a and a/b could be confused")
}

func TestAProjectsFileNarrowsItsBridgeAndNeverWidensIt(t *testing.T) {
	t.Parallel()
	p, url, _ := withServed(t)
	p.write("go", "")
	p.write("one/.bgagent.jsonc", `{
		"background_task": {"totalConcurrency": 9, "budget": {"task": {"cost": 0.5}}},
		"agents": {
			"other": null,
			"mine": {"kind": "inproc", "agent": "wait"},
		},
	}`)
	p.write("two/.bgagent.jsonc", `{"agents": {"patient": {"kind": "command", "preset": "generic", "command": ["./patient.sh"], "permissions": {"edit": "deny"}}}}`)
	cmd := p.via(url, "one")
	var problems strings.Builder
	cmd.Stderr = &problems
	cs := host(t, cmd, "alpha")
	launch := func(cs *mcp.ClientSession, agent string) string {
		return callTool(t, cs, "delegate_task", map[string]any{"subagent_type": agent, "prompt": "1 ms", "run_in_background": false})
	}
	require.Contains(t, launch(cs, "other"), "the project's file removes the agent other")
	require.Contains(t, launch(cs, "mine"), "There is no agent `mine`. There are: other, patient.", "the project's file adds no agent")
	require.Contains(t, launch(cs, "patient"), "cost")
	require.NoError(t, cs.Close())
	require.Contains(t, problems.String(), ".bgagent.jsonc: the limits of the server apply, and these keys of background_task have no effect: totalConcurrency\n")

	cs = host(t, p.via(url, "two"), "alpha")
	require.Contains(t, launch(cs, "patient"), "restricts the agent patient by permissions that the server does not have for it")
	require.Contains(t, launch(cs, "other"), "I have waited")

	p.write("one/.bgagent.jsonc", `{"agents": null}`)
	cs = host(t, p.via(url, "one"), "alpha")
	require.Contains(t, launch(cs, "patient"), "the project's file removes the agent patient")
	require.NoError(t, cs.Close())

	// The restrictions also apply to tasks that were launched earlier, no matter how a call names them.
	resume := func(ref string) string {
		cs := host(t, p.via(url, "three"), "alpha")
		defer cs.Close()
		return callTool(t, cs, "delegate_task", map[string]any{"task_id": ref, "prompt": "1 ms", "run_in_background": false})
	}
	p.write("three/x", "")
	cs = host(t, p.via(url, "three"), "alpha")
	text := launch(cs, "other")
	require.Regexp(t, idIn, text)
	id := idIn.FindStringSubmatch(text)[1]
	require.NoError(t, cs.Close())
	require.Contains(t, resume(id), "I have waited")
	for file, want := range map[string]string{
		`{"agents": {"other": null}}`:                                 "Nothing was resumed: the project's file removes the agent other.",
		`{"background_task": {"budget": {"task": {"toolCalls": 3}}}}`: "a smaller budget for each task",
		`{"background_task": {"budget": {"tree": {"toolCalls": 3}}}}`: "only a new task opens this budget",
	} {
		p.write("three/.bgagent.jsonc", file)
		require.Contains(t, resume(id), want)
		require.Contains(t, resume(" `"+id+"`\u200b"), want)
	}
	p.write("three/.bgagent.jsonc", "{}")
	require.Contains(t, resume(id), "I have waited")

	p.write("one/.bgagent.jsonc", `{"agents": 1}`)
	got := p.bridged(url, "one")
	require.Equal(t, 2, got.code)
	require.Contains(t, got.stderr, "one/.bgagent.jsonc:1:")
}

// rawHost is a host program that writes its messages without the protocol library, so that the test knows
// which of them the server has read.
type rawHost struct {
	t   *testing.T
	cmd *exec.Cmd
	in  io.WriteCloser
	out *json.Decoder
}

// rawHost starts a bridge in the folder "one".
func (p *place) rawHost(url, name string) *rawHost {
	p.t.Helper()
	h := &rawHost{t: p.t, cmd: p.via(url, "one")}
	var err error
	h.in, err = h.cmd.StdinPipe()
	require.NoError(p.t, err)
	out, err := h.cmd.StdoutPipe()
	require.NoError(p.t, err)
	require.NoError(p.t, h.cmd.Start())
	p.t.Cleanup(func() { _ = h.cmd.Process.Kill(); _ = h.cmd.Wait() })
	h.out = json.NewDecoder(out)
	h.write(strings.ReplaceAll(hello, "alpha", name))
	h.answer(1)
	h.write(`{"jsonrpc":"2.0","method":"notifications/initialized"}` + "\n")
	return h
}

func (h *rawHost) write(line string) {
	h.t.Helper()
	_, err := io.WriteString(h.in, line)
	require.NoError(h.t, err)
}

// call writes a tool call.
func (h *rawHost) call(id int, tool, arguments string) {
	h.t.Helper()
	h.write(fmt.Sprintf(`{"jsonrpc":"2.0","id":%d,"method":"tools/call","params":{"name":%q,"arguments":%s}}`+"\n", id, tool, arguments))
}

// answer returns the text of the next answer, which must be the answer to the request with the given id.
func (h *rawHost) answer(id int) string {
	h.t.Helper()
	for {
		var message struct {
			ID     int
			Result struct{ Content []struct{ Text string } }
		}
		require.NoError(h.t, h.out.Decode(&message))
		if message.ID == 0 { // a notification
			continue
		}
		require.Equal(h.t, id, message.ID)
		if len(message.Result.Content) == 0 {
			return ""
		}
		return message.Result.Content[0].Text
	}
}

// A host program can exit while it waits for an answer. The next bridge then finds the host's tasks.
func TestABridgeThatEndsDuringACallFreesItsScope(t *testing.T) {
	t.Parallel()
	p, url, _ := withServed(t)
	for name, end := range map[string]func(*rawHost){
		"killed": func(h *rawHost) { _ = h.cmd.Process.Kill() },
		"asked":  func(h *rawHost) { _ = h.cmd.Process.Signal(syscall.SIGTERM) },
		"closed": func(h *rawHost) { _ = h.in.Close() },
	} {
		h := p.rawHost(url, name)
		h.call(2, "delegate_task", `{"subagent_type":"patient","prompt":"x","description":"x"}`)
		text := h.answer(2)
		require.Regexp(t, idIn, text)
		id := idIn.FindStringSubmatch(text)[1]
		// The server reads the messages in order, so when it answers the ping, it has begun the
		// call.
		h.call(3, "background_output", `{"task_id":"`+id+`","block":true,"timeout":600000}`)
		h.write(`{"jsonrpc":"2.0","id":4,"method":"ping"}` + "\n")
		h.answer(4)
		end(h)
		_ = h.cmd.Wait()
		found := false
		// The call would last ten minutes. If the server kept the scope for that long, new bridges would get
		// other scopes, and the loop would never find the task.
		for deadline := time.Now().Add(2 * time.Minute); !found && time.Now().Before(deadline); {
			again := p.rawHost(url, name)
			again.call(2, "background_output", "{}")
			found = strings.Contains(again.answer(2), id)
			_ = again.in.Close()
			_ = again.cmd.Wait()
		}
		require.True(t, found, name)
	}
}

func TestBridgesShareTheSlotsFairly(t *testing.T) {
	t.Parallel()
	p, url, _ := withServed(t) // one task runs at a time
	var hosts []*mcp.ClientSession
	var last []string
	for _, name := range []string{"alpha", "beta", "gamma"} {
		hosts = append(hosts, host(t, p.via(url, "one"), name))
	}
	delegate(t, hosts[0], "a1")
	p.awaitFile("asked")
	for _, prompts := range [][]string{{"a2", "a3", "a4"}, {"b1", "b2"}, {"c1"}} {
		for _, prompt := range prompts {
			last = append(last, delegate(t, hosts[prompt[0]-'a'], prompt))
		}
	}
	p.write("go", "")
	for i, id := range last {
		callTool(t, hosts[[]int{0, 0, 0, 1, 1, 2}[i]], "background_output", map[string]any{"task_id": id, "block": true})
	}
	asked, err := os.ReadFile(filepath.Join(p.project, "asked"))
	require.NoError(t, err)
	require.Equal(t, "a1 a2 b1 c1 a3 b2 a4", strings.Join(strings.Fields(string(asked)), " "), "tasks start one after the other, beginning with the bridge that has waited longest")
}

// The server can hang, for example because it was stopped with SIGSTOP.
func TestABridgeEndsAfterItsInputEvenIfTheServerHangs(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			defer conn.Close()
			_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: bgagent-bridge\r\n\r\n")
		}
	}()
	require.Equal(t, outcome{}, p.bridged("http://"+l.Addr().String(), "."))
}
